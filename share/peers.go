package share

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// ErrBadPeer is matched by the errors of ParsePeer and ParsePeers.
var ErrBadPeer = errors.New("not the address of a peer")

// ParsePeer reads a peer as a person names it:
//
//	/ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…   a multiaddr that ends in /p2p/PEERID
//	192.0.2.7:4001, [2001:db8::7]:4001     an address and a TCP port
//	host.example:4001                      a host name and a TCP port
//
// The last two leave the ID empty: who is there is to be learnt, which Get,
// Find and Entries do, and node.Node.Learn.
func ParsePeer(s string) (peer.AddrInfo, error) {
	p, reason := parsePeer(s)
	if reason != "" {
		return peer.AddrInfo{}, fmt.Errorf("%w: %s", ErrBadPeer, reason)
	}
	return p, nil
}

// ParsePeers is ParsePeer for several, merging the addresses of one ID. Its
// error names the address.
func ParsePeers(texts []string) ([]peer.AddrInfo, error) {
	var peers []peer.AddrInfo
	for _, s := range texts {
		p, err := ParsePeer(s)
		if err != nil {
			return nil, fmt.Errorf("peer %q: %w", Escape(s), err)
		}
		peers = addPeer(peers, p)
	}
	return peers, nil
}

// addPeer appends p, or its addresses to those of the same peer.
func addPeer(peers []peer.AddrInfo, p peer.AddrInfo) []peer.AddrInfo {
	for i := range peers {
		if peers[i].ID == p.ID && p.ID != "" {
			peers[i].Addrs = append(peers[i].Addrs, p.Addrs...)
			return peers
		}
	}
	return append(peers, p)
}

// parsePeer returns what s lacks, or "".
func parsePeer(s string) (p peer.AddrInfo, reason string) {
	if strings.HasPrefix(s, "/") {
		return parseMultiaddr(s)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return p, unsplit(s)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return p, "a port is a number from 1 to 65535"
	}
	at, reason := parseHost(host)
	if reason != "" {
		return p, reason
	}
	addr, err := ma.NewMultiaddr(at + "/tcp/" + strconv.FormatUint(number, 10))
	if err != nil {
		return p, noHost
	}
	return peer.AddrInfo{Addrs: []ma.Multiaddr{addr}}, ""
}

const noHost = "neither an IP address nor the name of a host"

// unsplit says why s can't be split into a host and a port.
func unsplit(s string) string {
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || strings.HasSuffix(s, "]") {
		return "there is no port, as in 192.0.2.7:4001"
	}
	for _, host := range []string{s, s[:colon]} {
		if _, err := netip.ParseAddr(host); err == nil {
			return "an IPv6 address stands in brackets, as [2001:db8::7]:4001"
		}
	}
	return noHost
}

func parseMultiaddr(s string) (peer.AddrInfo, string) {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return peer.AddrInfo{}, "no multiaddr like /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…"
	}
	p, err := peer.AddrInfoFromP2pAddr(a)
	if err != nil {
		return peer.AddrInfo{}, "the /p2p/ID part is missing"
	}
	return *p, ""
}

// parseHost turns what stands before the port into the first part of a
// multiaddr.
func parseHost(host string) (at, reason string) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if !isHostName(host) {
			return "", noHost
		}
		return "/dns/" + strings.TrimSuffix(host, "."), ""
	}
	ip = ip.Unmap()
	switch {
	case ip.IsUnspecified() || ip.IsMulticast():
		return "", "that is no one machine's address"
	case ip.Is4():
		return "/ip4/" + ip.String(), ""
	case ip.IsLinkLocalUnicast() || ip.Zone() != "":
		return "", "a link-local IPv6 address can't be dialled"
	}
	return "/ip6/" + ip.String(), ""
}

// isHostName reports whether s has the form of a DNS name that is no number,
// and so no mistyped address: 192.0.2 is none.
//
// Source: RFC 1123 section 2.1, and the underscore that some networks use.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	labels := strings.Split(s, ".")
	for _, label := range labels {
		bad := strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		})
		if bad || label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return len(s) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// learn returns p with its ID. When that had to be learnt, the person is told
// once who it is: nobody but them can say whether that is who they meant.
func (l *Library) learn(ctx context.Context, p peer.AddrInfo, m *meter) (peer.AddrInfo, error) {
	known, err := l.node.Learn(ctx, p)
	if err != nil || p.ID != "" {
		return known, err
	}
	if _, at, err := manet.DialArgs(known.Addrs[0]); err == nil {
		m.noteOnce(fmt.Sprintf("peer %s is %s", Escape(at), known.ID))
	}
	return known, nil
}

// askNamed is ask for a peer that was named with the request. One that can't
// be learnt counts like one that can't be dialled.
func (s *search) askNamed(ctx context.Context, p peer.AddrInfo) {
	p, err := s.library.learn(ctx, p, s.meter)
	if err == nil {
		s.ask(ctx, p, false, &s.wide)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.dialErr = err
}

// offerUnknown is offer for a peer that must be learnt first.
func (c *crowd) offerUnknown(ctx context.Context, p peer.AddrInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.begin()
	c.group.Go(func() error {
		defer c.end()
		p, err := c.library.learn(ctx, p, c.meter)
		if err == nil {
			c.offer(ctx, p)
			return nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.unheard++
		c.dialErr = err
		return nil
	})
}
