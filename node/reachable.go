package node

import (
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
)

// Reachability is whether others can dial this peer from the internet, as far as
// other peers have tested it (AutoNAT): unknown until some of them have.
func (n *Node) Reachability() network.Reachability {
	said, err := n.host.EventBus().Subscribe(new(event.EvtLocalReachabilityChanged))
	if err != nil {
		return network.ReachabilityUnknown
	}
	defer said.Close()
	select {
	case e := <-said.Out(): // the last one comes at once
		if e, ok := e.(event.EvtLocalReachabilityChanged); ok {
			return e.Reachability
		}
	default:
	}
	return network.ReachabilityUnknown
}
