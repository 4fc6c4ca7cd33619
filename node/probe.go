package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/p2pshare/p2pshare/node/internal/lan"
)

// probeBitsMax is the size of the largest range that is probed: 65,536
// addresses, two minutes' work.
const probeBitsMax = 16

// ErrProbeRange is returned by CheckProbe and Probe for a range that is not to
// be probed.
var ErrProbeRange = errors.New("only private ranges of at most 65,536 addresses are probed")

// probable are the ranges of which parts may be probed: those that lead nowhere
// but to networks of one's own. Source: RFC 1918, RFC 3927, RFC 4193, RFC 6598.
var probable = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fc00::/7"), loopback4,
}

// CheckProbe returns ErrProbeRange for a range that Probe would refuse.
func CheckProbe(r netip.Prefix) error {
	if r.Addr().BitLen()-r.Bits() <= probeBitsMax {
		for _, p := range probable {
			if p.Bits() <= r.Bits() && p.Contains(r.Addr()) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s: %w", r, ErrProbeRange)
}

// probeLinger is how long answers to a probe are waited for.
const probeLinger = time.Second

// Probe says hello by unicast to every address of a range, and waits for the
// answers: the way to find neighbors on a network that lets no multicast
// through. Those that answer are Neighbors. It takes a second and, where nobody
// is there to answer, two more for each thousand addresses. One peer answers for
// a host on which there are several.
//
// It is for a person to ask for, and never done by itself. It returns
// ErrProbeRange, LANStatus's error, or ctx's.
func (n *Node) Probe(ctx context.Context, r netip.Prefix) error {
	if err := CheckProbe(r); err != nil {
		return err
	}
	l := n.lanNow()
	if l == nil {
		return n.LANStatus().Err
	}
	hello := func(link lan.Link) []byte {
		return l.seal(presence{Type: presenceHello, Ask: l.nonce("", time.Now())}, link, lan.DatagramMax)
	}
	return l.beacon.Probe(ctx, r, probeLinger, hello, l.receive)
}
