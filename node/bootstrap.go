package node

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
)

// Backoff between dials of one bootstrap peer. It starts short, because a
// bootstrap peer that restarts is back in a second, and grows to backoffAlone
// while this peer has no other way into the DHT, to backoffOther when it has.
const (
	backoffFirst = 250 * time.Millisecond
	backoffAlone = 30 * time.Second
	backoffOther = 10 * time.Minute
	// connSettled is how long a connection must last to count as accepted: a
	// full helper accepts and then trims, and must not be dialled in a circle.
	connSettled = 30 * time.Second
)

// entry tells when every bootstrap peer has been tried once.
type entry struct {
	mu      sync.Mutex
	untried int           // guarded by mu
	tried   chan struct{} // closed when untried reaches 0
}

func (e *entry) init(peers int) {
	e.untried = peers
	e.tried = make(chan struct{})
	if peers == 0 {
		close(e.tried)
	}
}

func (e *entry) done() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.untried--; e.untried == 0 {
		close(e.tried)
	}
}

// keepEntered keeps a connection to each bootstrap peer, in goroutines of g.
func (n *Node) keepEntered(ctx context.Context, g *errgroup.Group) {
	for _, p := range n.cfg.Bootstrap {
		if p.ID == n.ID() {
			n.entry.done()
			continue
		}
		g.Go(func() error {
			n.keepConnected(ctx, p)
			return nil
		})
	}
}

// keepConnected dials p until ctx ends, and again whenever it is lost.
func (n *Node) keepConnected(ctx context.Context, p peer.AddrInfo) {
	lost := make(chan struct{}, 1)
	watch := &network.NotifyBundle{DisconnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == p.ID {
			select {
			case lost <- struct{}{}:
			default:
			}
		}
	}}
	n.host.Network().Notify(watch)
	defer n.host.Network().StopNotify(watch)

	first := true
	backoff := backoffFirst
	for ctx.Err() == nil {
		err := n.dial(ctx, p)
		if first {
			first = false
			n.entry.done()
		}
		if err != nil {
			n.log.Debug("bootstrap peer did not answer", "peer", p.ID, "retry", backoff, "err", err)
		} else {
			n.log.Info("connected to bootstrap peer", "peer", p.ID)
			if n.dht != nil && n.dht.knows(p.ID) {
				n.signalChanged() // a peer that is new to the tables signals from there
			}
			opened := time.Now()
			for n.host.Network().Connectedness(p.ID) == network.Connected {
				select {
				case <-ctx.Done():
					return
				case <-lost:
				}
			}
			if time.Since(opened) > connSettled {
				backoff = backoffFirst
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(backoff)):
		}
		backoffMax := backoffAlone
		if n.DHTPeers() > 0 {
			backoffMax = backoffOther
		}
		backoff = min(2*backoff, backoffMax)
	}
}

// dial connects to a bootstrap peer, past the swarm's own back-off: ours rules.
func (n *Node) dial(ctx context.Context, p peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "bootstrap"), 2*dialTimeout)
	defer cancel()
	return n.host.Connect(ctx, p)
}

// jitter spreads d over d/2 … d, so that peers that lost the same helper do
// not come back in step.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// WaitDHT returns true once this peer has met a member of a DHT, and false
// when that can't be expected: it is in no DHT, or each bootstrap peer has
// been tried in vain. ctx bounds the wait.
func (n *Node) WaitDHT(ctx context.Context) bool {
	if n.dht == nil {
		return false
	}
	select {
	case <-n.dht.joined:
		return true
	case <-ctx.Done():
		return false
	case <-n.entry.tried:
	}
	if n.DHTPeers() > 0 {
		return true
	}
	if n.connectedBootstrap() == 0 {
		return false
	}
	// Connected and identified: the table takes up who is a DHT server once it has
	// answered a first question, and nobody else.
	patience := time.Second
	if n.bootstrapServes() {
		patience = dialTimeout
	}
	select {
	case <-n.dht.joined:
		return true
	case <-ctx.Done():
	case <-time.After(patience):
	}
	return false
}

// HasDHT tells whether this peer takes part in the DHTs, whoever else does.
func (n *Node) HasDHT() bool { return n.dht != nil }

// bootstrapServes reports whether a bootstrap peer that is connected says to be a DHT
// server.
func (n *Node) bootstrapServes() bool {
	return slices.ContainsFunc(n.cfg.Bootstrap, func(p peer.AddrInfo) bool {
		known, err := n.host.Peerstore().SupportsProtocols(p.ID, kadProtocols...)
		return err == nil && len(known) > 0 && n.host.Network().Connectedness(p.ID) == network.Connected
	})
}

// bootstrapOnceListening are the peers that kad-dht dials when its table is
// empty. Before this peer listens there are none: a connection from another
// port than the listener's tells nobody where this peer can be reached.
func (n *Node) bootstrapOnceListening() []peer.AddrInfo {
	select {
	case <-n.listening:
		return n.cfg.Bootstrap
	default:
		return nil
	}
}

func (n *Node) isBootstrap(p peer.ID) bool {
	return slices.ContainsFunc(n.cfg.Bootstrap, func(b peer.AddrInfo) bool { return b.ID == p })
}

// BootstrapPeers is how many bootstrap peers this peer was told of.
func (n *Node) BootstrapPeers() int { return len(n.cfg.Bootstrap) }

func (n *Node) connectedBootstrap() int {
	connected := 0
	for _, p := range n.cfg.Bootstrap {
		if n.host.Network().Connectedness(p.ID) == network.Connected {
			connected++
		}
	}
	return connected
}
