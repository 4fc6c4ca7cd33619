package node

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"
)

// punchWait is how long a dial through a relay waits until this peer can take
// part in a hole punch. libp2p looks for its observed address after 250 ms and
// then more and more rarely; the other side tries once, at the moment of the
// relayed dial, so a peer that has just started must not be early.
const punchWait = time.Second

// awaitPunch returns once this peer answers hole punches, when p can be
// reached through relays only, and after punchWait in any case.
func (n *Node) awaitPunch(ctx context.Context, p peer.AddrInfo) {
	if n.cfg.Offline || n.cfg.Host != nil || n.cfg.Role == RoleHelper {
		return
	}
	addrs := slices.Concat(p.Addrs, n.host.Peerstore().Addrs(p.ID))
	if len(addrs) == 0 || !slices.ContainsFunc(addrs, relayed) || n.host.Network().Connectedness(p.ID) != network.NotConnected {
		return
	}
	sub, err := n.host.EventBus().Subscribe(new(event.EvtLocalProtocolsUpdated))
	if err != nil {
		return
	}
	defer sub.Close()
	late := time.NewTimer(punchWait)
	defer late.Stop()
	for !slices.Contains(n.host.Mux().Protocols(), holepunch.Protocol) {
		select {
		case <-sub.Out():
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func relayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}
