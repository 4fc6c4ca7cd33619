// Package node is one peer on the network. It answers three questions: who am
// I, whom can I reach, and who provides this key. It knows nothing of files,
// manifests or pins: keys are multihashes, and what streams carry is the
// business of the packages above.
//
// A peer is a libp2p host (TCP with TLS first, QUIC beside it) in two Kademlia
// DHTs of our own: /p2pshare/kad/1.0.0 among publicly reachable peers, and
// /p2pshare/lan/kad/1.0.0 among peers on private or loopback addresses. It
// enters them through bootstrap peers and finds its way back when it is alone.
//
// The usual sequence:
//
//	n, err := node.New(ctx, node.Config{Dir: dir, Bootstrap: peers})
//	n.Handle(proto, node.HandlerConfig{}, handler) // before Run: nothing arrives earlier
//	go n.Run(ctx)                                  // listens and enters the network
//	<-n.Listening()
//	for p := range n.FindProviders(ctx, key) { … }
//	n.Close()
package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Role says what a peer is for, and so which services it runs.
type Role int

const (
	// RolePeer stays: it serves, keeps its provider records fresh, and is a
	// DHT server wherever it can be reached. The zero value.
	RolePeer Role = iota
	// RoleVisitor comes for one question and goes: a DHT client that announces
	// nothing and keeps no records. It starts fastest.
	RoleVisitor
	// RoleHelper is a public bootstrap peer: DHT server, limited relay and
	// reachability tests for others, with connection limits to match.
	RoleHelper
)

// Config configures a Node. The zero value is an ephemeral peer on drawn
// ports that is told of no bootstrap peer.
type Config struct {
	// Dir is the home directory, created and locked by New: the identity, the
	// listen port and the DHT's records are kept there. Empty: nothing is kept,
	// and the identity lasts as long as the Node.
	Dir string

	// Role says which services run; see Role.
	Role Role

	// Listen are the multiaddrs to listen on; port 0 draws one. Nil: every
	// interface, IPv4 and IPv6, TCP and QUIC, on the port kept in Dir.
	Listen []ma.Multiaddr

	// Offline opens no listener, joins no DHT and dials nobody: identity and
	// home only.
	Offline bool

	// Bootstrap are the peers through which the DHTs are entered. dnsaddr
	// multiaddrs are resolved at each dial.
	Bootstrap []peer.AddrInfo

	// NoDHT joins neither DHT.
	NoDHT bool

	// NoMulticast sends and receives no multicast: no local network (lan.go), and
	// no NAT port mapping, which looks for a router by SSDP. There is none with
	// Host or Offline either.
	NoMulticast bool

	// LANPort is the UDP port of the local network's groups; all on a network
	// that are to see each other must have the same. 0: 42042.
	LANPort int

	// Alias is what this peer calls itself on the local network, for people. It
	// is cut to 64 bytes.
	Alias string

	// Values validates DHT value records by their first path component, as
	// "p2pshare" in /p2pshare/…. Nil: no value is stored or believed.
	Values map[string]ValueValidator

	// UserAgent is what identify tells others. Empty: "p2pshare".
	UserAgent string

	// Metrics is where libp2p's own metrics are registered. Nil: they are not
	// counted.
	Metrics prometheus.Registerer

	// Host is a ready libp2p host to use instead of building one: for tests on
	// a mock network. Its identity must be an Ed25519 key in its peerstore;
	// Listen and Role's host services are then ignored. Close closes it.
	Host host.Host

	// Log receives what an operator would want to know. Nil: silent.
	Log *slog.Logger
}

// Node is one peer. Its methods are safe for concurrent use.
type Node struct {
	cfg  Config
	log  *slog.Logger
	home *Home // nil without Dir
	key  crypto.PrivKey
	host host.Host
	dht  *routing                 // nil with NoDHT or Offline
	lan  atomic.Pointer[localNet] // nil until Run has opened it, and where there is none

	lanErr atomic.Pointer[error]                   // why it could not be opened
	match  func(asker peer.ID, prefix []byte) bool // see HandleWant; may be nil

	listening chan struct{} // closed once the listeners are open
	changed   chan struct{} // capacity 1: coalesced "announce again" signals
	entry     entry
	learnt    learnt

	silences  silences
	streams   streams
	bulk      bulk
	closeOnce sync.Once
	closeErr  error
}

// New opens the home, the identity and the libp2p host, and joins nothing yet:
// no listener is open and nobody is dialled until Run. ctx bounds New only.
//
// It returns ErrHomeLocked when another process has Dir, and an error that
// names the file when the identity in it can't be used.
func New(ctx context.Context, cfg Config) (_ *Node, err error) {
	n := &Node{
		cfg:       cfg,
		log:       cfg.Log,
		listening: make(chan struct{}),
		changed:   make(chan struct{}, 1),
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	n.cfg.Alias = cutAlias(cfg.Alias)
	n.streams.init()
	n.entry.init(len(cfg.Bootstrap))
	n.bulk.init(n)

	if cfg.Dir != "" {
		if n.home, err = OpenHome(cfg.Dir); err != nil {
			return nil, err
		}
	}
	if n.key, err = n.loadKey(); err != nil {
		return nil, err
	}
	if n.host, err = n.newHost(); err != nil {
		return nil, err
	}
	if !cfg.NoDHT && !cfg.Offline {
		if n.dht, err = newRouting(ctx, n); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// loadKey returns the peer's private key: the given host's, the home's, or a
// fresh one for an ephemeral peer.
func (n *Node) loadKey() (crypto.PrivKey, error) {
	if h := n.cfg.Host; h != nil {
		key := h.Peerstore().PrivKey(h.ID())
		if key == nil || key.Type() != crypto.Ed25519 {
			return nil, errors.New("node: Config.Host has no Ed25519 key in its peerstore")
		}
		return key, nil
	}
	if n.home != nil {
		return LoadIdentity(n.home.Dir())
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	return key, err
}

// Run listens, enters the network and keeps in it until ctx ends. It returns
// nil when ctx was cancelled, and an error when no listen address could be
// opened. Call it once; it returns after every stream handler has returned.
func (n *Node) Run(ctx context.Context) error {
	if !n.cfg.Offline && n.cfg.Host == nil {
		if err := errors.Join(n.listen(), n.assumePrivate()); err != nil {
			return err
		}
	}
	n.bulk.listen()
	l := n.openLAN()
	close(n.listening)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.bulk.run(ctx) })
	if l != nil {
		g.Go(func() error { return l.run(ctx) })
	}
	if n.dht != nil {
		g.Go(func() error { return n.dht.run(ctx) })
	}
	if !n.cfg.Offline {
		n.keepEntered(ctx, g)
		g.Go(func() error { return n.watchAddrs(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		return n.streams.drain()
	})
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// openLAN opens the local network where there is to be one. A peer does without
// it when the sockets can't be had: LANStatus says why.
func (n *Node) openLAN() *localNet {
	if n.cfg.NoMulticast || n.cfg.Offline || n.cfg.Host != nil {
		return nil
	}
	l, err := newLocalNet(n)
	if err != nil {
		n.log.Warn("no local network", "err", err)
		n.lanErr.Store(&err)
		return nil
	}
	n.lan.Store(l)
	return l
}

// addrSettle is how long own addresses must rest before Changed signals:
// identify and AutoNAT bring them in bursts.
const addrSettle = 500 * time.Millisecond

// watchAddrs signals Changed when the addresses others may dial have changed:
// provider records carry addresses, and old ones lead nowhere.
func (n *Node) watchAddrs(ctx context.Context) error {
	sub, err := n.host.EventBus().Subscribe([]any{new(event.EvtLocalAddressesUpdated), new(event.EvtAutoRelayAddrsUpdated)})
	if err != nil {
		return fmt.Errorf("watch own addresses: %w", err)
	}
	defer sub.Close()
	settle := time.NewTimer(addrSettle)
	settle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sub.Out():
			settle.Reset(addrSettle)
		case <-settle.C:
			n.signalChanged()
		}
	}
}

func (n *Node) signalChanged() {
	select {
	case n.changed <- struct{}{}:
	default: // one signal is already waiting
	}
}

// Changed signals that records announced before should be announced again: a
// network was entered (again), or this peer's own addresses changed. Signals
// that come while one waits are merged into it. It has one reader.
func (n *Node) Changed() <-chan struct{} { return n.changed }

// Listening is closed once Run has opened the listeners.
func (n *Node) Listening() <-chan struct{} { return n.listening }

// Close releases the host, the DHTs' stores and the lock on the home. Run must
// have returned, or never have been called. It may be called twice.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		n.streams.close()
		var errs []error
		if n.dht != nil {
			errs = append(errs, n.dht.close())
		}
		if n.host != nil {
			errs = append(errs, n.host.Close())
		}
		if n.dht != nil {
			errs = append(errs, n.dht.closeStore())
		}
		if n.home != nil {
			errs = append(errs, n.home.Close())
		}
		n.closeErr = errors.Join(errs...)
	})
	return n.closeErr
}

// ID is this peer's identity: it embeds the Ed25519 public key.
func (n *Node) ID() peer.ID { return n.host.ID() }

// Key is the private key of ID, for signing envelopes.
func (n *Node) Key() crypto.PrivKey { return n.key }

// Dir is the home directory, empty for an ephemeral peer.
func (n *Node) Dir() string { return n.cfg.Dir }

// Role is the role it was configured with.
func (n *Node) Role() Role { return n.cfg.Role }

// Addrs are the addresses that others can dial, without the /p2p part: listen
// addresses resolved to interfaces, mapped and observed ones, and relays'.
// Loopback addresses are among them only where there is nothing else.
func (n *Node) Addrs() []ma.Multiaddr { return preferNonLoopback(n.host.Addrs()) }

// AddrInfo is ID with Addrs.
func (n *Node) AddrInfo() peer.AddrInfo { return peer.AddrInfo{ID: n.ID(), Addrs: n.Addrs()} }

// Connect dials p at its given and known addresses, a neighbor at those that it
// was heard at, too. When there are none, or
// they no longer answer, the DHTs are asked for newer ones. A p without an ID is
// learnt first; see Learn. ctx bounds it all. The error matches ErrNoAnswer when p
// is silent.
func (n *Node) Connect(ctx context.Context, p peer.AddrInfo) error {
	return n.meet(ctx, p, n.dht != nil)
}

// Dial is Connect without a question to the DHTs, for when their number is limited.
func (n *Node) Dial(ctx context.Context, p peer.AddrInfo) error { return n.meet(ctx, p, false) }

func (n *Node) meet(ctx context.Context, p peer.AddrInfo, lookUp bool) error {
	p, err := n.Learn(ctx, p)
	if err != nil {
		return err
	}
	if p.ID == n.ID() {
		return fmt.Errorf("connect to %s: it is this peer itself", p.ID)
	}
	p.Addrs = slices.Concat(p.Addrs, n.neighborAddrs(p.ID))
	if n.host.Network().Connectedness(p.ID) == network.Connected {
		return n.connect(ctx, p, lookUp)
	}
	s := listenFor(ctx, slices.Concat(p.Addrs, n.host.Peerstore().Addrs(p.ID)))
	err = n.connect(ctx, p, lookUp)
	return n.explainDial(p.ID, err, s.end(), errors.Is(ctx.Err(), context.Canceled))
}

// connect dials p at its addresses, and then, with lookUp, at those that the DHTs
// know.
func (n *Node) connect(ctx context.Context, p peer.AddrInfo, lookUp bool) error {
	n.awaitPunch(ctx, p)
	err := n.host.Connect(ctx, p)
	if err == nil || ctx.Err() != nil || !lookUp {
		return err
	}
	found, findErr := n.dht.dual.FindPeer(ctx, p.ID)
	if findErr != nil || len(found.Addrs) == 0 {
		return err
	}
	return n.host.Connect(ctx, found)
}

// AddrOf returns the remote end of a connection to p, a direct one if there is one;
// nil when there is none.
func (n *Node) AddrOf(p peer.ID) ma.Multiaddr {
	var addr ma.Multiaddr
	for _, c := range n.host.Network().ConnsToPeer(p) {
		if addr == nil || viaConn(c) != ViaRelay {
			addr = c.RemoteMultiaddr()
		}
	}
	return addr
}

// Conn describes one open connection.
type Conn struct {
	Peer      peer.ID
	Addr      ma.Multiaddr // the remote end
	Inbound   bool
	Via       Via
	Streams   int
	Opened    time.Time
	UserAgent string // as the peer told it: hostile text
}

// Conns lists the open connections, in no order.
func (n *Node) Conns() []Conn {
	var conns []Conn
	for _, c := range n.host.Network().Conns() {
		stat := c.Stat()
		agent, _ := n.host.Peerstore().Get(c.RemotePeer(), "AgentVersion")
		name, _ := agent.(string)
		conns = append(conns, Conn{
			Peer: c.RemotePeer(), Addr: c.RemoteMultiaddr(), Inbound: stat.Direction == network.DirInbound,
			Via: viaConn(c), Streams: stat.NumStreams, Opened: stat.Opened, UserAgent: name,
		})
	}
	return conns
}
