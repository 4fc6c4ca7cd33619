package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"
)

// dialTimeout bounds one dial attempt: addresses from the DHT are often of
// peers that left without a word, and a silent one costs this long.
const dialTimeout = 5 * time.Second

// newHost builds the libp2p host, with no listener open: handlers must be in
// place before anyone can call.
func (n *Node) newHost() (host.Host, error) {
	if n.cfg.Host != nil {
		return n.cfg.Host, nil
	}
	limits := limitsFor(n.cfg.Role)
	resources, err := limits.resourceManager()
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(limits.connsLow, limits.connsHigh, connmgr.WithGracePeriod(30*time.Second))
	if err != nil {
		return nil, err
	}
	agent := n.cfg.UserAgent
	if agent == "" {
		agent = "p2pshare"
	}
	opts := []libp2p.Option{
		libp2p.Identity(n.key),
		libp2p.NoListenAddrs,
		libp2p.EnableRelay(),      // dialling through relays; NoListenAddrs alone would switch it off
		libp2p.ShareTCPListener(), // with the bulk connections
		libp2p.Transport(n.bulk.newTCPTransport),
		libp2p.Transport(quic.NewTransport),
		libp2p.Security(libp2ptls.ID, newBufferedTLS),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, muxer()),
		libp2p.ResourceManager(resources),
		libp2p.ConnectionManager(conns),
		libp2p.UserAgent(agent),
		metrics(n.cfg.Metrics),
		libp2p.SwarmOpts(swarm.WithDialTimeout(dialTimeout), swarm.WithDialRanker(rank)),
	}
	opts = append(opts, n.reachOptions()...)
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("start libp2p host: %w", err)
	}
	return h, nil
}

// metrics has libp2p count what it does, or not.
func metrics(r prometheus.Registerer) libp2p.Option {
	if r == nil {
		return libp2p.DisableMetrics()
	}
	return libp2p.PrometheusRegisterer(r)
}

// muxer is yamux with fewer and larger steps: messages of 1 MiB save a fifth of
// the CPU of a transfer (1,361 against 1,228 MB/s on two cores), and windows
// begin at 512 KiB, and grow to 16 MiB. A peer can fill the first window of
// every stream that it may open with what nobody reads, uncounted by the
// resource manager: 128 streams are 64 MiB. Larger ones would help a stream in
// its first second at 80 ms round trip; but what is large moves over bulk
// connections (bulk.go), which have no such windows.
func muxer() network.Multiplexer {
	config := *yamux.DefaultTransport.Config()
	config.InitialStreamWindowSize = 512 << 10
	config.MaxMessageSize = 1 << 20
	return (*yamux.Transport)(&config)
}

// reachOptions are the parts of libp2p that make a peer reachable, and help
// others to be: each where it belongs.
func (n *Node) reachOptions() []libp2p.Option {
	if n.cfg.Offline {
		return nil
	}
	if n.cfg.Role == RoleHelper {
		return []libp2p.Option{
			libp2p.ForceReachabilityPublic(),
			libp2p.EnableNATService(),
			libp2p.EnableAutoNATv2(),
			libp2p.EnableRelayService(relay.WithResources(relayResources())),
		}
	}
	opts := []libp2p.Option{libp2p.EnableHolePunching()}
	if n.cfg.Role == RoleVisitor {
		return opts
	}
	opts = append(opts, libp2p.EnableAutoNATv2())
	if len(n.cfg.Bootstrap) > 0 {
		// Small networks have one or two relays: take the first at once.
		opts = append(opts, libp2p.EnableAutoRelayWithPeerSource(n.relayCandidates,
			autorelay.WithMinCandidates(1), autorelay.WithNumRelays(2), autorelay.WithBootDelay(0),
			autorelay.WithMinInterval(5*time.Second), autorelay.WithBackoff(time.Minute)))
	}
	if !n.cfg.NoMulticast && !onlyLoopback(n.cfg.Listen) {
		opts = append(opts, libp2p.NATPortMap())
	}
	return opts
}

// relayCandidates offers the bootstrap peers as relays, once this peer
// listens. It is AutoRelay that ends ctx.
func (n *Node) relayCandidates(ctx context.Context, count int) <-chan peer.AddrInfo {
	offer := make(chan peer.AddrInfo, count)
	go func() { // ends with ctx
		defer close(offer)
		select {
		case <-n.listening:
		case <-ctx.Done():
			return
		}
		for _, p := range n.cfg.Bootstrap[:min(count, len(n.cfg.Bootstrap))] {
			offer <- p // there is room for count
		}
	}()
	return offer
}

// relayResources bounds what a helper relays: enough for metadata and for
// arranging a hole punch, too little for content.
func relayResources() relay.Resources {
	r := relay.DefaultResources()
	r.Limit = &relay.RelayLimit{Duration: 2 * time.Minute, Data: 512 << 10}
	r.MaxReservations = 1024
	r.MaxReservationsPerIP = 16
	r.MaxReservationsPerASN = 64
	r.BufferSize = 4096
	return r
}

// limits are a role's bounds on what strangers can make this peer hold.
type limits struct {
	connsLow, connsHigh int // the connection manager trims from high to low
	connsInbound        int // hard limit
	connsPerIP          int // an office or a campus behind one address
	connsPerIPRate      float64
	memory              int64
}

func limitsFor(r Role) limits {
	if r == RoleHelper {
		return limits{connsLow: 2000, connsHigh: 3000, connsInbound: 4096, connsPerIP: 256, connsPerIPRate: 20, memory: 2 << 30}
	}
	return limits{connsLow: 192, connsHigh: 320, connsInbound: 512, connsPerIP: 64, connsPerIPRate: 5, memory: 1 << 30}
}

func (l limits) resourceManager() (network.ResourceManager, error) {
	defaults := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&defaults)
	conns := rcmgr.LimitVal(2 * l.connsInbound)
	partial := rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: conns, ConnsInbound: rcmgr.LimitVal(l.connsInbound), ConnsOutbound: conns,
			Streams: 16 * conns, StreamsInbound: 8 * conns, StreamsOutbound: 16 * conns,
			FD: conns, Memory: rcmgr.LimitVal64(l.memory),
		},
		Transient: rcmgr.ResourceLimits{
			Conns: 256, ConnsInbound: 128, ConnsOutbound: 256, FD: 256, Memory: 64 << 20,
			Streams: 1024, StreamsInbound: 512, StreamsOutbound: 1024,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 16, ConnsInbound: 8, ConnsOutbound: 16, FD: 16,
			Streams: 512, StreamsInbound: 128, StreamsOutbound: 512, Memory: 64 << 20,
		},
	}
	limiter := rcmgr.NewFixedLimiter(partial.Build(defaults.AutoScale()))
	perIP := []rcmgr.ConnLimitPerSubnet{{ConnCount: l.connsPerIP, PrefixLength: 32}}
	perIP6 := []rcmgr.ConnLimitPerSubnet{
		{ConnCount: l.connsPerIP, PrefixLength: 56},
		{ConnCount: 4 * l.connsPerIP, PrefixLength: 48},
	}
	rm, err := rcmgr.NewResourceManager(limiter,
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(perIP, perIP6),
		rcmgr.WithConnRateLimiters(l.connRate()))
	if err != nil {
		return nil, fmt.Errorf("set resource limits: %w", err)
	}
	return rm, nil
}

// connRate bounds new connections per source network. libp2p's own 0.2 a
// second per IPv4 address starves hosts that share one behind a NAT.
func (l limits) connRate() *rate.Limiter {
	per := rate.Limit{RPS: l.connsPerIPRate, Burst: 2 * l.connsPerIP}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{{Prefix: loopback4}, {Prefix: loopback6}}, // never limited
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: per}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: per}},
			GracePeriod:      time.Minute,
		},
	}
}

// listen opens the configured addresses. All of them must open when they were
// asked for by name; of the default set one is enough (a host may have no
// IPv6), and a kept port that somebody else has taken is drawn anew, once.
func (n *Node) listen() error {
	if n.cfg.Listen != nil {
		var errs []error
		for i, a := range n.cfg.Listen {
			// libp2p's QUIC panics when one address is listened on twice.
			if isQUIC(a) && slices.ContainsFunc(n.cfg.Listen[:i], a.Equal) {
				continue
			}
			if err := errors.Join(taken(a), n.host.Network().Listen(a)); err != nil {
				errs = append(errs, &ListenError{Addr: a, Err: err})
			}
		}
		return errors.Join(errs...)
	}
	port, err := n.keptPort()
	if err != nil {
		return err
	}
	err = n.host.Network().Listen(defaultListen(port)...)
	if err == nil && n.listensTCP() {
		return nil
	}
	n.log.Warn("listen port is taken, using another for this run", "port", port)
	if port, err = drawPort(); err != nil {
		return err
	}
	if err := n.host.Network().Listen(defaultListen(port)...); err != nil {
		return &ListenError{Addr: defaultListen(port)[0], Err: err}
	}
	return nil
}

// taken returns an error when another process listens on a TCP address. libp2p
// sets SO_REUSEPORT, with which the system would let two peers of one user share
// a port, and their callers reach now the one and now the other.
func taken(a ma.Multiaddr) error {
	network, address, err := manet.DialArgs(a)
	if err != nil || !strings.HasPrefix(network, "tcp") {
		return nil // listening itself will tell
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return l.Close()
}

func isQUIC(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_QUIC_V1)
	return err == nil
}

// assumePrivate tells libp2p that this peer sits behind a NAT when none of its
// addresses is public, so that it has a relay address in the first second.
// AutoNAT, which corrects this where it is wrong, takes 17 s to say anything.
func (n *Node) assumePrivate() error {
	if n.cfg.Role != RolePeer || n.cfg.Host != nil || len(n.cfg.Bootstrap) == 0 || slices.ContainsFunc(n.host.Addrs(), manet.IsPublicAddr) {
		return nil
	}
	reachability, err := n.host.EventBus().Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful)
	if err != nil {
		return fmt.Errorf("announce own reachability: %w", err)
	}
	defer reachability.Close()
	return reachability.Emit(event.EvtLocalReachabilityChanged{Reachability: network.ReachabilityPrivate})
}

func (n *Node) listensTCP() bool {
	for _, a := range n.host.Network().ListenAddresses() {
		if _, err := a.ValueForProtocol(ma.P_TCP); err == nil {
			return true
		}
	}
	return false
}

// ErrListen is matched by *ListenError.
var ErrListen = errors.New("address can't be listened on")

// ListenError says which address could not be opened: it is taken, or none of
// this machine's.
type ListenError struct {
	Addr ma.Multiaddr
	Err  error // libp2p's, which keeps only the text of the system's
}

func (e *ListenError) Error() string {
	// libp2p: "failed to listen on any addresses: [listen tcp4 …: bind: why]"
	text := strings.TrimSuffix(e.Err.Error(), "]")
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return fmt.Sprintf("listen on %s: %s", e.Addr, text)
}

func (e *ListenError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrListen) true.
func (e *ListenError) Is(target error) bool { return target == ErrListen }

func defaultListen(port int) []ma.Multiaddr {
	return []ma.Multiaddr{
		ma.StringCast(fmt.Sprintf("/ip4/0.0.0.0/tcp/%d", port)),
		ma.StringCast(fmt.Sprintf("/ip6/::/tcp/%d", port)),
		ma.StringCast(fmt.Sprintf("/ip4/0.0.0.0/udp/%d/quic-v1", port)),
		ma.StringCast(fmt.Sprintf("/ip6/::/udp/%d/quic-v1", port)),
	}
}

// keptPort returns the listen port of this home, drawing and keeping it the
// first time: links and firewall rules made once stay true.
func (n *Node) keptPort() (int, error) {
	if n.home == nil {
		return drawPort()
	}
	path := filepath.Join(n.home.Dir(), "port")
	if text, err := os.ReadFile(path); err == nil {
		port, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || port < 1 || port > 65535 {
			return 0, fmt.Errorf("%s does not hold a port number: correct it, or remove it to draw a new one", path)
		}
		return port, nil
	}
	port, err := drawPort()
	if err != nil {
		return 0, err
	}
	temp, err := writeTemp(n.home.Dir(), ".port-*", []byte(strconv.Itoa(port)+"\n"))
	if err != nil {
		return 0, err
	}
	return port, os.Rename(temp, path)
}

// Ports are drawn below the ranges from which systems hand out ephemeral
// ports (32768 on Linux), where a client's socket could sit on ours.
const portMin, portMax = 20000, 32767

// drawPort returns a port that is free for TCP and for UDP just now.
func drawPort() (int, error) {
	for range 100 {
		k, err := rand.Int(rand.Reader, big.NewInt(portMax-portMin+1))
		if err != nil {
			return 0, err
		}
		port := portMin + int(k.Int64())
		if portIsFree(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port found between %d and %d: name one with a listen address", portMin, portMax)
}

func portIsFree(port int) bool {
	t, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
	if err != nil {
		return false
	}
	t.Close()
	u, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
	if err != nil {
		return false
	}
	u.Close()
	return true
}

// onlyLoopback reports whether a list of listen addresses is explicit and
// stays on this machine.
func onlyLoopback(listen []ma.Multiaddr) bool {
	for _, a := range listen {
		if !manet.IsIPLoopback(a) {
			return false
		}
	}
	return len(listen) > 0
}

// preferNonLoopback drops loopback addresses unless there is nothing else: a
// network that lives on loopback alone works, and no other peer is told of
// addresses that lead it to itself.
func preferNonLoopback(addrs []ma.Multiaddr) []ma.Multiaddr {
	rest := ma.FilterAddrs(addrs, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) })
	if len(rest) > 0 {
		return rest
	}
	return addrs
}
