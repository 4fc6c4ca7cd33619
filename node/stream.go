package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Via says how a peer is reached.
type Via string

const (
	ViaLAN    Via = "lan"    // over a private or loopback address
	ViaDirect Via = "direct" // over a public address
	ViaRelay  Via = "relay"  // through a relay: metadata only
)

func viaConn(c network.Conn) Via { return viaAddr(c.RemoteMultiaddr()) }

func viaAddr(a ma.Multiaddr) Via {
	if relayed(a) {
		return ViaRelay
	}
	if manet.IsPrivateAddr(a) || manet.IsIPLoopback(a) || manet.IsIP6LinkLocal(a) {
		return ViaLAN
	}
	return ViaDirect
}

// ViaStream says how the peer at the other end of s is reached.
func ViaStream(s network.Stream) Via { return viaConn(s.Conn()) }

// directWait is how long Open waits for a relayed connection to be replaced
// by a direct one. A hole punch that works takes well under a second; the rest
// is for slow paths.
const directWait = 6 * time.Second

// ErrRelayOnly is returned by Open when the peer is reached through a relay
// only, and the protocol must not run over one.
var ErrRelayOnly = errors.New("peer is reachable only through a relay")

// OpenOptions are the options of one Open.
type OpenOptions struct {
	// Relay allows the stream on a relayed connection, which carries little.
	Relay bool
	// Redial dials at once, even if a dial failed a moment ago: for peers that
	// are few, known, and missed.
	Redial bool
}

// Open opens a stream to p, dialling it at known addresses if need be. Without
// OpenOptions.Relay it waits up to six seconds for a direct connection and
// then returns ErrRelayOnly. The caller closes or resets the stream.
func (n *Node) Open(ctx context.Context, p peer.ID, proto protocol.ID, o OpenOptions) (network.Stream, error) {
	if o.Redial {
		ctx = network.WithForceDirectDial(ctx, "redial")
	}
	if o.Relay {
		return n.host.NewStream(network.WithAllowLimitedConn(ctx, "metadata"), p, proto)
	}
	if n.host.Network().Connectedness(p) != network.Limited {
		return n.host.NewStream(ctx, p, proto)
	}
	wait, cancel := context.WithTimeout(ctx, directWait)
	defer cancel()
	s, err := n.host.NewStream(wait, p, proto)
	if err != nil && ctx.Err() == nil && n.host.Network().Connectedness(p) == network.Limited {
		return nil, fmt.Errorf("open %s to %s: %w", proto, p, ErrRelayOnly)
	}
	return s, err
}

// Default bounds on what strangers can open with one protocol.
const (
	defaultStreamsPerPeer = 16
	defaultStreams        = 1024
)

// HandlerConfig bounds the streams of one protocol. The zero value works.
type HandlerConfig struct {
	// PerPeer and Total are how many streams may be open at once, from one peer
	// and in all; a further one is reset. 0: 16 and 1,024.
	PerPeer, Total int
}

// Handle serves proto with fn, one goroutine a stream. fn's context ends when
// Run's does, and the stream is then reset; it is closed when fn returns, and
// reset when fn returns an error. Call Handle before Run.
func (n *Node) Handle(proto protocol.ID, c HandlerConfig, fn func(context.Context, network.Stream) error) {
	open := newOpenStreams(c)
	n.host.SetStreamHandler(proto, func(s network.Stream) {
		remote := s.Conn().RemotePeer()
		if !open.enter(remote) {
			s.Reset()
			return
		}
		defer open.leave(remote)
		n.streams.serve(s, func(ctx context.Context) error {
			err := fn(ctx, s)
			if err != nil {
				n.log.Debug("stream ended", "protocol", proto, "peer", remote, "err", err)
			}
			return err
		})
	})
}

// openStreams counts one protocol's inbound streams, or its connections.
type openStreams struct {
	config HandlerConfig

	mu      sync.Mutex
	perPeer map[peer.ID]int // guarded by mu; no zero entries
	total   int             // guarded by mu
}

func newOpenStreams(c HandlerConfig) *openStreams {
	if c.PerPeer == 0 {
		c.PerPeer = defaultStreamsPerPeer
	}
	if c.Total == 0 {
		c.Total = defaultStreams
	}
	return &openStreams{perPeer: map[peer.ID]int{}, config: c}
}

func (o *openStreams) enter(p peer.ID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.perPeer[p] >= o.config.PerPeer || o.total >= o.config.Total {
		return false
	}
	o.perPeer[p]++
	o.total++
	return true
}

func (o *openStreams) leave(p peer.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.perPeer[p]--; o.perPeer[p] == 0 {
		delete(o.perPeer, p)
	}
	o.total--
}

// streams owns the handlers' lifetimes. libp2p starts their goroutines, most of
// them; this makes them end with Run. The context lives here, and not in a call, because
// streams arrive from libp2p and not from a caller that has one.
type streams struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool // guarded by mu: no handler may start
	wg     sync.WaitGroup
}

func (t *streams) init() { t.ctx, t.cancel = context.WithCancel(context.Background()) }

// resetter is what the handlers' streams have in common.
type resetter interface {
	Close() error
	Reset() error
}

func (t *streams) serve(s resetter, fn func(context.Context) error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		s.Reset()
		return
	}
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()

	stop := context.AfterFunc(t.ctx, func() { s.Reset() })
	defer stop()
	if err := fn(t.ctx); err != nil {
		s.Reset()
		return
	}
	s.Close()
}

// drain ends all handlers and waits for them.
func (t *streams) drain() error {
	t.close()
	t.wg.Wait()
	return nil
}

func (t *streams) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
}
