package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const (
	// probeBitsMax is the size of the largest range that is probed: 65,536
	// addresses, a minute's work.
	probeBitsMax = 16
	// probeEvery and probeBurst pace it: a thousand datagrams a second, half a
	// megabyte, are little for a network and much less than a scan for it.
	probeEvery = 10 * time.Millisecond
	probeBurst = 10
)

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

// Probe says hello by unicast to every address of a range: the way to find
// neighbors on a network that lets no multicast through. Those that answer are
// Neighbors. It returns when all are sent, a thousand a second. One peer answers
// for a host on which there are several.
//
// It is for a person to ask for, and never done by itself. It returns
// ErrProbeRange, ErrNoLAN, or ctx's error.
func (n *Node) Probe(ctx context.Context, r netip.Prefix) error {
	if err := CheckProbe(r); err != nil {
		return err
	}
	l := n.lanNow()
	if l == nil {
		return n.LANStatus().Err
	}
	pace := time.NewTicker(probeEvery)
	defer pace.Stop()
	port := uint16(l.beacon.Port())
	sent := 0
	for a := r.Masked().Addr(); r.Contains(a); a = a.Next() {
		// Nobody being there is the rule, and no error.
		l.tell(presence{Type: presenceHello, Ask: l.nonce(time.Now())}, netip.AddrPortFrom(a, port), l.linkTo(a))
		if sent++; sent%probeBurst != 0 {
			continue
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
