package lan

import (
	"errors"
	"net"
	"net/netip"
	"slices"
)

// linksMax bounds how many interfaces are used. Linux lets a socket join
// twenty groups anyway (net.ipv4.igmp_max_memberships).
const linksMax = 32

// ErrNoAddress is why a group is not joined on a link: it has no address of
// that family.
var ErrNoAddress = errors.New("the interface has no address of this family")

var errNotTried = errors.New("not tried yet")

// Link is an interface of this host, and the network that it leads to.
type Link struct {
	Index    int
	Name     string
	Loopback bool
	// Prefixes are its usable addresses, each with the length of its network's
	// prefix.
	Prefixes []netip.Prefix

	join4, join6 error // nil: the group is joined
}

// Joined returns nil when the link's IPv4 group (IPv6 when v6 is true) is
// joined, else why not.
func (l Link) Joined(v6 bool) error {
	if v6 {
		return l.join6
	}
	return l.join4
}

// OnLink reports whether a is the address of a host on this link.
func (l Link) OnLink(a netip.Addr) bool {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return !l.Loopback
	}
	a = a.WithZone("")
	return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) && !isBroadcast(p, a) })
}

// isBroadcast reports whether a is no host's on its network: the first address
// or the last of an IPv4 network that has room for more than two.
func isBroadcast(p netip.Prefix, a netip.Addr) bool {
	if !a.Is4() || p.Bits() > 30 {
		return false
	}
	before, after := a.Prev(), a.Next()
	return !before.IsValid() || !after.IsValid() || !p.Contains(before) || !p.Contains(after)
}

// has reports whether a is an address of this host on this link.
func (l Link) has(a netip.Addr) bool {
	a = a.WithZone("")
	return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Addr() == a })
}

// source is the IPv4 address (IPv6 when v6 is true) to send from, invalid when the
// link has none.
func (l Link) source(v6 bool) netip.Addr {
	for _, p := range l.Prefixes {
		if p.Addr().Is6() == v6 {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

func (l *Link) joinState(v6 bool) *error {
	if v6 {
		return &l.join6
	}
	return &l.join4
}

type linkKey struct {
	index int
	name  string
}

func (l Link) key() linkKey { return linkKey{l.Index, l.Name} }

func (l Link) equal(m Link) bool {
	return slices.Equal(l.Prefixes, m.Prefixes) && (l.join4 == nil) == (m.join4 == nil) && (l.join6 == nil) == (m.join6 == nil)
}

// usableLinks are the interfaces that are up, carry multicast, and have an
// address that usable accepts.
func usableLinks(usable func(netip.Addr) bool) ([]Link, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var links []Link
	for _, i := range interfaces {
		// Multicast works on a loopback interface without the flag.
		if i.Flags&net.FlagUp == 0 || i.Flags&(net.FlagMulticast|net.FlagLoopback) == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		l := Link{Index: i.Index, Name: i.Name, Loopback: i.Flags&net.FlagLoopback != 0}
		for _, a := range addrs {
			if p, ok := prefixOf(a); ok && usable(p.Addr()) {
				l.Prefixes = append(l.Prefixes, p)
			}
		}
		if len(l.Prefixes) > 0 && len(links) < linksMax {
			links = append(links, l)
		}
	}
	return links, nil
}

func prefixOf(a net.Addr) (netip.Prefix, bool) {
	n, ok := a.(*net.IPNet)
	if !ok {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	addr = addr.Unmap()
	if addr.Is4() && len(n.Mask) == net.IPv6len {
		bits -= 96
	}
	return netip.PrefixFrom(addr, bits), true
}
