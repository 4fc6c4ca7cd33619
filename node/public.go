package node

import "net/netip"

// IsPublic reports whether an address is on the internet that all share, as
// far as IANA's registries of special-purpose addresses tell. One that carries an
// IPv4 address is as public as that.
func IsPublic(a netip.Addr) bool {
	if a = a.Unmap(); a.Zone() != "" || !a.IsValid() {
		return false
	}
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if a.Is6() && !globalIPv6.Contains(a) {
		return false
	}
	for _, p := range specialAddresses {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

var (
	// nat64 is the well-known prefix of RFC 6052: on a network without IPv4 all
	// of that internet is behind it.
	nat64 = netip.MustParsePrefix("64:ff9b::/96")
	// globalIPv6 is all of IPv6 that is assigned as global unicast. Outside of
	// it are loopback, link-local, unique-local, multicast, and the forms of
	// IPv4 addresses but two.
	globalIPv6 = netip.MustParsePrefix("2000::/3")
	// specialAddresses are those that are not public within IPv4 and globalIPv6.
	specialAddresses = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", // protocol assignments, Teredo among them
		"2001:db8::/32", "3fff::/20",
		"2002::/16", // 6to4 carries any IPv4 address
	)
)

func prefixes(texts ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range texts {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}
