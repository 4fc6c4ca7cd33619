package node

import (
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// What peers may tell each other of where others are. Nobody must be able to
// send this peer, or others through it, to a machine that has nothing to do with
// it, or into a network that is not theirs.

// reachScope is from where an address can be reached.
type reachScope int

const (
	scopePublic reachScope = iota
	scopePrivate
	scopeLoopback
)

// scopeOf is the scope of a plain TCP or QUIC address of one machine.
func scopeOf(a ma.Multiaddr) (s reachScope, at netip.Addr, ok bool) {
	at, ok = IPOf(a)
	if !ok || relayed(a) || at.IsUnspecified() || at.IsMulticast() {
		return 0, at, false
	}
	switch {
	case at.IsLoopback():
		return scopeLoopback, at, true
	case IsPublic(at):
		return scopePublic, at, true
	}
	return scopePrivate, at, true
}

// scopeTo is the narrowest scope of the direct connections to p.
func (n *Node) scopeTo(p peer.ID) (s reachScope, ok bool) {
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if at, _, direct := scopeOf(c.RemoteMultiaddr()); direct {
			s, ok = max(s, at), true
		}
	}
	return s, ok
}

// AddrsFor returns the addresses of p that asker may be told, of a peer that is
// connected now: those that p says to listen on at an IP address where this peer
// sees it, and of no narrower scope than asker's own connection. None, if either
// is not connected directly.
func (n *Node) AddrsFor(asker, p peer.ID) []ma.Multiaddr {
	scope, ok := n.scopeTo(asker)
	if !ok {
		return nil
	}
	var seen []netip.Addr
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if _, at, ok := scopeOf(c.RemoteMultiaddr()); ok {
			seen = append(seen, at)
		}
	}
	return slices.DeleteFunc(n.host.Peerstore().Addrs(p), func(a ma.Multiaddr) bool {
		s, at, ok := scopeOf(a)
		return !ok || s > scope || !slices.Contains(seen, at)
	})
}

// AcceptAddrs returns those of addrs, which teller has told, that are of no
// narrower scope than the connection to it.
func (n *Node) AcceptAddrs(teller peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	scope, ok := n.scopeTo(teller)
	return slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool {
		s, _, plain := scopeOf(a)
		return !ok || !plain || s > scope
	})
}
