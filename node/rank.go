package node

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Delays between the dials of one peer's addresses. Those of the local network
// come first; others follow when none of these has answered in a round trip of
// a slow network. Within a network TCP comes before QUIC: TLS over TCP moves
// three times as much for the same CPU.
const (
	dialStepLAN    = 30 * time.Millisecond
	dialStepPublic = 250 * time.Millisecond // RFC 8305, section 5
	dialAfterLAN   = 250 * time.Millisecond
	dialRelay      = 500 * time.Millisecond // after the first direct one
)

// The order of dials; see dialClass.
const (
	classTCP4 = iota
	classTCP6
	classQUIC
	classOther
)

// dialClass orders addresses of one network by how well they serve.
func dialClass(a ma.Multiaddr) int {
	tcp, v6 := false, false
	for _, p := range a.Protocols() {
		switch p.Code {
		case ma.P_QUIC_V1:
			return classQUIC
		case ma.P_TCP:
			tcp = true
		case ma.P_IP6:
			v6 = true
		}
	}
	switch {
	case tcp && v6:
		return classTCP6
	case tcp:
		return classTCP4
	}
	return classOther
}

// rank says when to dial each of a peer's addresses, from the first attempt on.
// It is a swarm.DialRanker.
func rank(addrs []ma.Multiaddr) []network.AddrDelay {
	var lan, public, relay []ma.Multiaddr
	for _, a := range addrs {
		switch {
		case relayed(a):
			relay = append(relay, a)
		case manet.IsPrivateAddr(a) || manet.IsIPLoopback(a):
			lan = append(lan, a)
		default:
			public = append(public, a)
		}
	}
	var publicFrom, relayFrom time.Duration
	if len(lan) > 0 {
		publicFrom = dialAfterLAN
	}
	if len(lan)+len(public) > 0 {
		relayFrom = dialRelay
	}
	return slices.Concat(
		stagger(lan, 0, dialStepLAN),
		stagger(public, publicFrom, dialStepPublic),
		stagger(relay, relayFrom, dialStepPublic))
}

// stagger spreads dials, best first, the next class a step after the last.
// Addresses of one class are dialled together.
func stagger(addrs []ma.Multiaddr, from, step time.Duration) []network.AddrDelay {
	slices.SortStableFunc(addrs, func(a, b ma.Multiaddr) int { return dialClass(a) - dialClass(b) })
	var delays []network.AddrDelay
	for i, a := range addrs {
		if i > 0 && dialClass(a) != dialClass(addrs[i-1]) {
			from += step
		}
		delays = append(delays, network.AddrDelay{Addr: a, Delay: from})
	}
	return delays
}

// IsLocal reports whether p is known at a private or loopback address.
func IsLocal(p peer.AddrInfo) bool {
	return slices.ContainsFunc(p.Addrs, func(a ma.Multiaddr) bool {
		return !relayed(a) && (manet.IsPrivateAddr(a) || manet.IsIPLoopback(a))
	})
}
