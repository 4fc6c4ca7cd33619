package share

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/p2pshare/p2pshare/node"
)

// claim is a publisher's newest manifest for the name, and who told it.
type claim struct {
	manifest Manifest
	envelope node.Envelope
	holders  []peer.AddrInfo // who told it, and so has the content
	via      node.Via        // how the first of them is reached
	networks []netip.Prefix  // in which they are
	itself   bool            // its publisher told it
}

// claim keeps the newest manifests of each publisher, and everybody who told them.
// It reports whether c counts for anything.
func (s *search) claim(c claim) bool {
	m := c.manifest
	if s.library.book.blocked(m.Publisher, m.ID) {
		return false
	}
	last, ok, err := s.library.catalog.lastVersion(m.Publisher, m.Name)
	if err != nil {
		s.library.log.Warn("look for what was got before", "err", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Seq < s.withdrawn[m.Publisher] && !c.itself {
		return false // a publisher itself knows what it shares, with some only perhaps
	}
	if ok && m.Seq < last.Seq && m.ID != last.ID {
		s.outdated[m.Publisher]++
		return false
	}
	if own := s.itself[m.Publisher]; c.itself && (len(own) == 0 || m.Seq > own[0].manifest.Seq) {
		s.itself[m.Publisher] = []claim{c}
	} else if c.itself && m.Seq == own[0].manifest.Seq {
		s.itself[m.Publisher] = append(own, c)
	}
	known := s.newest[m.Publisher]
	switch {
	case len(known) == 0:
		s.newest[m.Publisher] = []claim{c}
	case m.Seq > known[0].manifest.Seq:
		s.supersede(known[0].manifest, c)
	case m.Seq < known[0].manifest.Seq:
		return s.older(known, c)
	default:
		for i := range known {
			if known[i].manifest.ID == m.ID {
				known[i].join(c)
				return true
			}
		}
		s.newest[m.Publisher] = append(known, c) // signed with one seq: it means both
	}
	return true
}

// supersede puts c in the place of what its publisher said before. The caller
// holds s.mu.
func (s *search) supersede(old Manifest, c claim) {
	known := s.newest[c.manifest.Publisher]
	s.newest[c.manifest.Publisher] = []claim{c}
	for _, k := range known {
		if k.manifest.ID == c.manifest.ID {
			s.newest[c.manifest.Publisher][0].join(k)
			return
		}
	}
	s.replaced[old.Publisher] = old
}

// older takes up a claim that is older than what is known of its publisher: whoever
// told it has the same content, perhaps. The caller holds s.mu.
func (s *search) older(known []claim, c claim) bool {
	for i := range known {
		if known[i].manifest.ID == c.manifest.ID {
			known[i].join(c)
			return true
		}
	}
	if c.manifest.Seq > s.replaced[c.manifest.Publisher].Seq {
		s.replaced[c.manifest.Publisher] = c.manifest
	}
	return false
}

// join adds who else told the same.
func (c *claim) join(other claim) {
	if len(c.holders) == 0 {
		c.via = other.via
	}
	for _, h := range other.holders {
		if !slices.ContainsFunc(c.holders, func(p peer.AddrInfo) bool { return p.ID == h.ID }) {
			c.holders = append(c.holders, h)
		}
	}
	for _, n := range other.networks {
		if !slices.Contains(c.networks, n) {
			c.networks = append(c.networks, n)
		}
	}
	c.itself = c.itself || other.itself
}

// claimsMax is how many manifests of one name are kept of one peer's answer. It has
// as many different ones as it knows publishers of the name; a flood is a thousand,
// and of thousands of candidates nobody chooses.
const claimsMax = 16

// most cuts what one peer claims to claimsMax: what is asked for stays, the word of
// the known publishers first.
func (s *search) most(claims []claim) []claim {
	if len(claims) <= claimsMax {
		return claims
	}
	rank := func(c claim) int {
		switch {
		case slices.Contains(s.known, c.manifest.Publisher):
			return 0
		case strings.HasPrefix(c.manifest.ID.Hex(), s.prefix):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(claims, func(a, b claim) int { return rank(a) - rank(b) })
	s.mu.Lock()
	s.report.partial = true
	s.mu.Unlock()
	return claims[:claimsMax]
}

// networkOf is the network that counts once, whoever many speak from it: a /24 of
// IPv4 or a /48 of IPv6. It is the zero Prefix for a relay's and for none.
func networkOf(a ma.Multiaddr) netip.Prefix {
	if a == nil {
		return netip.Prefix{}
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Prefix{}
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}
	}
	addr = addr.Unmap()
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
