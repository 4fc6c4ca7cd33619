package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"
)

// # Bulk connections
//
// A protocol that moves much may run over a TLS connection of its own, beside
// the libp2p connection of the same two peers: it saves the multiplexer's
// copies and windows, and a second one has a second core. It goes to the TCP
// port on which the other peer listens for libp2p, so that it gets through
// wherever that does: a libp2p connection begins with multistream's header, and
// this one with a TLS 1.3 handshake, by which the listener tells them apart.
// Both sides show libp2p's own certificates (specs/tls), and ALPN is the ID of
// the protocol that follows. The listener accepts peers only that are connected
// over libp2p at that moment.
//
// It is an optimisation. Whoever uses it can do without: there is none behind
// most NATs, over QUIC alone, through relays, or with Config.Host.

// Stream is a stream of bytes between this peer and another, which has proved
// who it is: a libp2p stream (StreamOf) or a bulk connection. One goroutine may
// read while another one writes.
type Stream interface {
	io.ReadWriteCloser
	// Reset ends both directions at once, and whatever call waits.
	Reset() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	// Peer is who is at the other end, and Via how it is reached.
	Peer() peer.ID
	Via() Via
}

// StreamOf is s as a Stream.
func StreamOf(s network.Stream) Stream { return libp2pStream{s} }

type libp2pStream struct{ network.Stream }

func (s libp2pStream) Peer() peer.ID { return s.Conn().RemotePeer() }
func (s libp2pStream) Via() Via      { return ViaStream(s.Stream) }

// ErrNoBulk is returned by OpenBulk when there is no way to open a bulk
// connection to a peer. A libp2p stream may do.
var ErrNoBulk = errors.New("no bulk connection is possible")

const (
	// bulkDialTimeout bounds the opening of a bulk connection, TCP and TLS.
	bulkDialTimeout = 5 * time.Second
	// bulkAcceptTimeout bounds the handshake of an inbound one.
	bulkAcceptTimeout = 5 * time.Second
	// handshakesMax are the inbound handshakes at one time, from one address,
	// many peers may be behind which, and in all.
	handshakesMax        = 64
	handshakesPerAddress = 16
)

// bulk opens and accepts bulk connections.
type bulk struct {
	node     *Node
	identity *libp2ptls.Identity // nil: there are none
	handlers map[protocol.ID]bulkHandler
	protos   []string
	accepts  []transport.GatedMaListener

	mu         sync.Mutex
	shared     map[string]*tcpreuse.ConnMgr // guarded by mu: by listen address: tells libp2p's and bulk connections apart
	handshakes map[string]int               // guarded by mu: inbound ones, by IP address
	total      int                          // guarded by mu
}

type bulkHandler struct {
	open *openStreams
	fn   func(context.Context, Stream) error
}

func (b *bulk) init(n *Node) {
	b.node = n
	b.handlers = map[protocol.ID]bulkHandler{}
	b.shared = map[string]*tcpreuse.ConnMgr{}
	b.handshakes = map[string]int{}
}

// newTCPTransport is libp2p's, and remembers what its listeners are shared by.
func (b *bulk) newTCPTransport(u transport.Upgrader, rm network.ResourceManager, shared *tcpreuse.ConnMgr) (*sharedTCP, error) {
	if shared != nil { // AutoNAT has a host of its own built, which does not listen
		identity, err := libp2ptls.NewIdentity(b.node.key)
		if err != nil {
			return nil, err
		}
		b.identity = identity
	}
	t, err := tcp.NewTCPTransport(u, rm, shared)
	return &sharedTCP{t, b, u, rm, shared}, err
}

// sharedTCP is libp2p's TCP transport, whose listeners take bulk connections, too.
type sharedTCP struct {
	*tcp.TcpTransport
	bulk      *bulk
	upgrader  transport.Upgrader
	resources network.ResourceManager
	shared    *tcpreuse.ConnMgr
}

func (t *sharedTCP) Listen(a ma.Multiaddr) (transport.Listener, error) {
	shared := t.shared
	l, err := t.TcpTransport.Listen(a)
	if port, _ := a.ValueForProtocol(ma.P_TCP); port == "0" && errors.Is(err, tcpreuse.ErrListenerExists) {
		// One manager knows one listener with port 0 of a host: this is another.
		shared = tcpreuse.NewConnMgr(tcpreuse.EnvReuseportVal, t.upgrader)
		other, otherErr := tcp.NewTCPTransport(t.upgrader, t.resources, shared)
		if otherErr != nil {
			return nil, otherErr
		}
		l, err = other.Listen(a)
	}
	if err == nil && shared != nil {
		t.bulk.mu.Lock()
		defer t.bulk.mu.Unlock()
		t.bulk.shared[l.Multiaddr().String()] = shared
	}
	return l, err
}

// HandleBulk serves proto with fn over libp2p streams, within streams, as Handle does,
// and over bulk connections, within bulk. Of all connections one peer may have 8.
// Call it before Run.
func (n *Node) HandleBulk(proto protocol.ID, streams, bulk HandlerConfig, fn func(context.Context, Stream) error) {
	n.Handle(proto, streams, func(ctx context.Context, s network.Stream) error { return fn(ctx, StreamOf(s)) })
	n.bulk.handlers[proto] = bulkHandler{newOpenStreams(bulk), fn}
	n.bulk.protos = append(n.bulk.protos, string(proto))
}

// listen takes the TLS connections of libp2p's TCP listeners.
func (b *bulk) listen() {
	if len(b.handlers) == 0 {
		return
	}
	b.mu.Lock()
	shared := maps.Clone(b.shared)
	b.mu.Unlock()
	for _, a := range b.node.host.Network().ListenAddresses() {
		manager := shared[a.String()]
		if manager == nil {
			continue
		}
		l, err := manager.DemultiplexedListen(a, tcpreuse.DemultiplexedConnType_TLS)
		if err != nil {
			b.node.log.Warn("no bulk connections are accepted", "addr", a, "err", err)
			continue
		}
		b.accepts = append(b.accepts, l)
	}
}

// run accepts bulk connections until ctx ends, and waits for their handlers.
func (b *bulk) run(ctx context.Context) error {
	var g errgroup.Group
	for _, l := range b.accepts {
		g.Go(func() error {
			<-ctx.Done()
			return l.Close()
		})
		g.Go(func() error {
			for {
				c, scope, err := l.Accept()
				if err != nil {
					return nil // closed
				}
				address, ok := b.enter(c)
				if !ok {
					c.Close()
					scope.Done()
					continue
				}
				g.Go(func() error {
					defer scope.Done()
					b.accept(ctx, c, scope, func() { b.leave(address) })
					return nil
				})
			}
		})
	}
	return g.Wait()
}

// enter counts an inbound handshake, by the address that it comes from.
func (b *bulk) enter(c net.Conn) (address string, ok bool) {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return "", false
	}
	address = tcp.IP.String()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total >= handshakesMax || b.handshakes[address] >= handshakesPerAddress {
		return "", false
	}
	b.total++
	b.handshakes[address]++
	return address, true
}

func (b *bulk) leave(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total--
	if b.handshakes[address]--; b.handshakes[address] == 0 {
		delete(b.handshakes, address)
	}
}

// accept shakes hands and serves one inbound connection. shaken is called when
// the handshake is over.
func (b *bulk) accept(ctx context.Context, c manet.Conn, scope network.ConnManagementScope, shaken func()) {
	conn, proto, err := b.greet(ctx, c, scope)
	shaken()
	if err != nil {
		c.Close()
		b.node.log.Debug("bulk connection refused", "addr", c.RemoteMultiaddr(), "err", err)
		return
	}
	h, known := b.handlers[proto] // a peer may name none
	if !known || !h.open.enter(conn.peer) {
		conn.Reset()
		return
	}
	defer h.open.leave(conn.peer)
	b.node.streams.serve(conn, func(ctx context.Context) error {
		err := h.fn(ctx, conn)
		if err != nil {
			b.node.log.Debug("bulk connection ended", "protocol", proto, "peer", conn.peer, "err", err)
		}
		return err
	})
}

func (b *bulk) greet(ctx context.Context, c manet.Conn, scope network.ConnManagementScope) (*bulkConn, protocol.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, bulkAcceptTimeout)
	defer cancel()
	config, key := b.identity.ConfigForPeer("")
	config.NextProtos = b.protos
	below := &recordConn{Conn: c}
	conn, err := newBulkConn(ctx, below, tls.Server(below, tuned(config)), key)
	if err != nil {
		return nil, "", err
	}
	if b.node.host.Network().Connectedness(conn.peer) != network.Connected {
		return nil, "", fmt.Errorf("%s is not connected over libp2p", conn.peer)
	}
	return conn, protocol.ID(conn.tls.ConnectionState().NegotiatedProtocol), scope.SetPeer(conn.peer)
}

// OpenBulk opens a bulk connection to a peer that is connected over libp2p,
// within five seconds. That the other side takes it shows at the first read. It
// returns ErrNoBulk when no address of p is known that might do. The caller
// closes or resets the Stream.
func (n *Node) OpenBulk(ctx context.Context, p peer.ID, proto protocol.ID) (Stream, error) {
	addr := n.bulk.addrOf(p)
	if addr == nil {
		return nil, ErrNoBulk
	}
	ctx, cancel := context.WithTimeout(ctx, bulkDialTimeout)
	defer cancel()
	c, err := n.bulk.dial(ctx, p, proto, addr)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s at %s: %w", proto, p, addr, err)
	}
	return c, nil
}

func (b *bulk) dial(ctx context.Context, p peer.ID, proto protocol.ID, addr ma.Multiaddr) (_ *bulkConn, err error) {
	scope, err := b.node.host.Network().ResourceManager().OpenConnection(network.DirOutbound, true, addr)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			scope.Done()
		}
	}()
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	var d manet.Dialer
	c, err := d.DialContext(ctx, addr)
	if err != nil {
		return nil, err
	}
	config, key := b.identity.ConfigForPeer(p)
	config.NextProtos = []string{string(proto)}
	below := &recordConn{Conn: c}
	conn, err := newBulkConn(ctx, below, tls.Client(below, tuned(config)), key)
	if err != nil {
		c.Close()
		return nil, err
	}
	if got := conn.tls.ConnectionState().NegotiatedProtocol; got != string(proto) {
		conn.Reset()
		return nil, fmt.Errorf("peer speaks %q", got)
	}
	conn.done = scope.Done
	return conn, nil
}

// addrOf is where p may take bulk connections: at the address that it was
// dialled at, or else at a TCP port that it has told, on the host that its
// connection comes from. It may not send us anywhere else.
func (b *bulk) addrOf(p peer.ID) ma.Multiaddr {
	if b.identity == nil {
		return nil
	}
	var hosts []string
	for _, c := range b.node.host.Network().ConnsToPeer(p) {
		a := c.RemoteMultiaddr()
		if relayed(a) {
			continue
		}
		if c.Stat().Direction == network.DirOutbound && isTCP(a) {
			return a
		}
		if ip, err := manet.ToIP(a); err == nil {
			hosts = append(hosts, ip.String())
		}
	}
	for _, a := range b.node.host.Peerstore().Addrs(p) {
		if ip, err := manet.ToIP(a); err == nil && !relayed(a) && isTCP(a) && slices.Contains(hosts, ip.String()) {
			return a
		}
	}
	return nil
}

// isTCP reports whether a is plain TCP, with nothing above it.
func isTCP(a ma.Multiaddr) bool {
	protos := a.Protocols()
	return len(protos) > 0 && protos[len(protos)-1].Code == ma.P_TCP
}

// tuned is config for much data: crypto/tls begins a connection with records of
// one packet each, and does so again after a second of silence.
func tuned(config *tls.Config) *tls.Config {
	config.DynamicRecordSizingDisabled = true
	return config
}

// bulkConn is a bulk connection.
type bulkConn struct {
	tls   *tls.Conn
	below *recordConn
	peer  peer.ID
	via   Via
	done  func() // frees what the resource manager has reserved; may be nil
	once  sync.Once
}

// newBulkConn shakes hands. The caller closes the connection below when it
// returns an error.
func newBulkConn(ctx context.Context, below *recordConn, c *tls.Conn, key <-chan crypto.PubKey) (*bulkConn, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	remote, ok := <-key // closed by the handshake
	if !ok || remote == nil {
		return nil, errors.New("peer has shown no key")
	}
	id, err := peer.IDFromPublicKey(remote)
	if err != nil {
		return nil, err
	}
	addr, err := manet.FromNetAddr(below.RemoteAddr())
	if err != nil {
		return nil, err
	}
	return &bulkConn{tls: c, below: below, peer: id, via: viaAddr(addr)}, nil
}

func (c *bulkConn) Peer() peer.ID                       { return c.peer }
func (c *bulkConn) Via() Via                            { return c.via }
func (c *bulkConn) Read(p []byte) (int, error)          { return c.tls.Read(p) }
func (c *bulkConn) Write(p []byte) (int, error)         { return c.below.gather(c.tls.Write, p) }
func (c *bulkConn) SetReadDeadline(at time.Time) error  { return c.tls.SetReadDeadline(at) }
func (c *bulkConn) SetWriteDeadline(at time.Time) error { return c.tls.SetWriteDeadline(at) }

// Close tells the other side that this is the end, as far as it goes.
func (c *bulkConn) Close() error {
	c.free()
	return c.tls.Close()
}

func (c *bulkConn) Reset() error {
	c.free()
	return c.below.Close()
}

func (c *bulkConn) free() {
	c.once.Do(func() {
		if c.done != nil {
			c.done()
		}
	})
}
