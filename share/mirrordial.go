package share

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// A manifest is a stranger's word about where to connect to. So what it names is
// dialled only at addresses that are public, whatever resolves to them, by no
// proxy, and with nothing of ours in the request.

const (
	// mirrorConnectMax bounds look-up and connect, and again the TLS handshake.
	mirrorConnectMax = 8 * time.Second
	// mirrorHeaderMax is how many bytes of headers an answer may have.
	mirrorHeaderMax = 16 << 10
	// mirrorRedirectsMax is how many redirects one request follows.
	mirrorRedirectsMax = 3
	// mirrorIdle is how long a connection is kept that nothing is asked over.
	mirrorIdle = 30 * time.Second
)

// errPrivateAddress is why a mirror is not dialled.
var errPrivateAddress = errors.New("its address is not a public one")

// mirrorClient returns the client of one mirror, with one connection a host.
// The host named given, if any, may have any address: a person named it.
func mirrorClient(given string) *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			d := net.Dialer{Timeout: mirrorConnectMax}
			if given == "" || !strings.EqualFold(host, given) {
				d.Control = refusePrivate
			}
			return d.DialContext(ctx, network, address)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    mirrorConnectMax,
		ResponseHeaderTimeout:  answerStall,
		MaxResponseHeaderBytes: mirrorHeaderMax,
		DisableCompression:     true,
		MaxConnsPerHost:        1,
		MaxIdleConns:           2, // the one that redirects, and the one that has it
		IdleConnTimeout:        mirrorIdle,
		ReadBufferSize:         64 << 10,
	}
	return &http.Client{Transport: t, CheckRedirect: checkRedirect}
}

// checkRedirect is http.Client's CheckRedirect.
func checkRedirect(next *http.Request, past []*http.Request) error {
	next.Header.Del("Referer") // whoever is next need not know who sent us
	if len(past) > mirrorRedirectsMax {
		return fmt.Errorf("it redirects more than %d times", mirrorRedirectsMax)
	}
	if past[len(past)-1].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return errors.New("it redirects from https to http")
	}
	next.URL.Fragment, next.URL.RawFragment = "", ""
	if _, reason := parseMirror(next.URL.String()); reason != "" {
		return errors.New("it redirects to what is no mirror: " + reason)
	}
	return nil
}

// refusePrivate is a net.Dialer's Control: address is the one that is about to
// be dialled, whatever a name resolved to before.
func refusePrivate(network, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !isPublic(a.Addr()) {
		return errPrivateAddress
	}
	return nil
}

// isPublic reports whether an address is on the internet that all share, as
// far as IANA's registries of special-purpose addresses tell. One that carries an
// IPv4 address is as public as that.
func isPublic(a netip.Addr) bool {
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
