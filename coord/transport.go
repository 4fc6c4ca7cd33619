package coord

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/p2pshare/p2pshare/node"
)

// dialGroup opens a stream of one of the group's protocols to a member, presents
// the group and the epoch, and reads the answer. A member that does not let this
// peer in gives a *RefusedError.
func dialGroup(ctx context.Context, n opener, to peer.AddrInfo, proto protocol.ID, o opening) (network.Stream, admission, error) {
	ctx, cancel := context.WithTimeout(ctx, openingWait)
	defer cancel()
	var a admission
	s, err := openGroup(ctx, n, to, proto)
	if err != nil {
		return nil, a, err
	}
	// The context ends the opening, not the stream.
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	err = errors.Join(s.SetDeadline(time.Now().Add(openingWait)), writeLine(s, o))
	if err == nil {
		err = readOpening(s, admissionMax, &a)
	}
	if err == nil && !a.OK {
		err = &RefusedError{Why: a.Error[:min(len(a.Error), whyMax)], Message: a.Message[:min(len(a.Message), messageMax)], Peer: to.ID, Epoch: a.Epoch, By: a.By, Index: a.Index,
			records: a.Records}
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.SetDeadline(time.Time{})
	}
	if err != nil {
		s.Reset()
		return nil, a, fmt.Errorf("open %s to %s: %w", proto, to.ID, err)
	}
	return s, a, nil
}

// opener is what opens streams: a *node.Node.
type opener interface {
	ID() peer.ID
	Connect(context.Context, peer.AddrInfo) error
	Open(context.Context, peer.ID, protocol.ID, node.OpenOptions) (network.Stream, error)
}

// openGroup tries the peer where it is known to be, and then where to says.
func openGroup(ctx context.Context, n opener, to peer.AddrInfo, proto protocol.ID) (network.Stream, error) {
	s, err := n.Open(ctx, to.ID, proto, node.OpenOptions{Redial: true})
	if err == nil || len(to.Addrs) == 0 || ctx.Err() != nil {
		return s, err
	}
	if err := n.Connect(ctx, to); err != nil {
		return nil, err
	}
	return n.Open(ctx, to.ID, proto, node.OpenOptions{Redial: true})
}

// admit reads the opening of a stream that came in and answers it. decide says
// whether it is let in. The error is for the log: the other side has been told.
func admit(s network.Stream, decide func(opening) admission) (opening, admission, error) {
	var o opening
	if err := s.SetDeadline(time.Now().Add(openingWait)); err != nil {
		return o, admission{}, err
	}
	if err := readOpening(s, openingMax, &o); err != nil {
		return o, admission{}, err
	}
	a := decide(o)
	if err := writeLine(s, a); err != nil {
		return o, a, err
	}
	if !a.OK {
		// The other side reads the answer before the stream is gone.
		s.CloseWrite()
		io.CopyN(io.Discard, s, 1)
		return o, a, fmt.Errorf("refused: %s: %s", a.Error, a.Message)
	}
	return o, a, s.SetDeadline(time.Time{})
}

// carrier takes Raft's messages to the other members and back. Close may be called
// twice.
type carrier interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose

	// serve hands it a stream of another member, and returns when that has ended.
	serve(context.Context, network.Stream) error
	// reset ends the streams that drop names by the other side, and whether that
	// opened them.
	reset(drop func(p peer.ID, accepted bool) bool)
	// mute silences the member for a while, so that the others miss its heartbeats
	// and elect another leader. Raft itself can't be asked to hand over while its
	// main loop hangs in a write.
	mute(time.Duration)
	// onLost has fn told, from now on, when the last stream that a member had opened
	// has ended. Raft reads those, and so knows at once; its own lie idle in a pool.
	onLost(fn func(peer.ID))
}

// streamCarrier is a carrier over streams between peers.
type streamCarrier struct {
	*raft.NetworkTransport
	*streamLayer
}

func newStreamCarrier(g *Group) carrier {
	layer := newStreamLayer(g.c.links.node)
	layer.opening = g.opening
	layer.where = g.where
	layer.learn = g.learn
	return streamCarrier{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: 3, Timeout: g.c.config.Timing.scale(rpcTimeout), Logger: raftLogger{log: g.log},
	}), layer}
}

// AppendEntriesPipeline opens a stream on which entries follow one another before they
// are answered.
func (c streamCarrier) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := c.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	return newPipeline(p), nil
}

// Close ends the streams, and what waits for them.
func (c streamCarrier) Close() error {
	c.streamLayer.Close()
	c.CloseStreams()
	return c.NetworkTransport.Close()
}

// streamLayer carries one group's Raft traffic over streams between peers. A
// server's address is its peer ID, so that whoever speaks has been
// authenticated, and whoever listens is encrypted to, by the connection.
//
// It is a raft.StreamLayer.
type streamLayer struct {
	node    opener
	opening func() opening              // this group, in its epoch of now
	where   func(peer.ID) peer.AddrInfo // a member's addresses
	learn   func(*RefusedError)         // told why a member does not let this one in

	// incoming has no room: a stream waits until Raft takes it, or its peer or
	// the layer is gone.
	incoming chan net.Conn
	ctx      context.Context // Raft hands over none; it ends with Close
	cancel   context.CancelFunc

	mu    sync.Mutex
	conns map[*streamConn]struct{} // guarded by mu: all that are open
	until time.Time                // guarded by mu: muted until then
	lost  func(peer.ID)            // guarded by mu: see onLost; may be nil
}

func newStreamLayer(n opener) *streamLayer {
	l := &streamLayer{node: n, incoming: make(chan net.Conn), conns: map[*streamConn]struct{}{}}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// peerAddr is a peer ID as a net.Addr.
type peerAddr peer.ID

func (peerAddr) Network() string  { return "p2pshare" }
func (a peerAddr) String() string { return peer.ID(a).String() }

// Addr is this peer's own address.
func (l *streamLayer) Addr() net.Addr { return peerAddr(l.node.ID()) }

var errMuted = errors.New("this member is silent while its disk hangs")

// Dial opens a stream to a member.
func (l *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	to, err := peer.Decode(string(address))
	if err != nil {
		return nil, fmt.Errorf("member address %.70q is no peer ID", address)
	}
	if l.muted() {
		return nil, errMuted
	}
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	s, _, err := dialGroup(ctx, l.node, l.where(to), raftProtocol, l.opening())
	var refused *RefusedError
	if errors.As(err, &refused) {
		l.learn(refused)
	}
	if err != nil {
		return nil, err
	}
	return l.track(s, false)
}

// serve hands a stream that has been let in to Raft, and returns when Raft, the
// peer or ctx has done with it.
func (l *streamLayer) serve(ctx context.Context, s network.Stream) error {
	c, err := l.track(s, true)
	if err != nil {
		return err
	}
	defer c.Close()
	select {
	case l.incoming <- c:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done():
		return net.ErrClosed
	}
	select {
	case <-c.closed:
	case <-ctx.Done():
	}
	return nil
}

func (l *streamLayer) track(s network.Stream, accepted bool) (*streamConn, error) {
	c := &streamConn{Stream: s, layer: l, accepted: accepted, closed: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil || time.Now().Before(l.until) {
		s.Reset()
		return nil, net.ErrClosed
	}
	l.conns[c] = struct{}{}
	return c, nil
}

// Accept returns the next stream that was let in.
func (l *streamLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

func (l *streamLayer) mute(d time.Duration) {
	l.mu.Lock()
	l.until = time.Now().Add(d)
	l.mu.Unlock()
	l.reset(func(peer.ID, bool) bool { return true })
}

func (l *streamLayer) muted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.until)
}

func (l *streamLayer) reset(drop func(p peer.ID, accepted bool) bool) {
	l.mu.Lock()
	var ended []*streamConn
	for c := range l.conns {
		if drop(c.Conn().RemotePeer(), c.accepted) {
			ended = append(ended, c)
		}
	}
	l.mu.Unlock()
	for _, c := range ended {
		c.Close()
	}
}

// Close ends Accept, the dials that are under way and all streams.
func (l *streamLayer) Close() error {
	l.cancel()
	l.reset(func(peer.ID, bool) bool { return true })
	return nil
}

// streamConn is a stream as Raft's transport wants it.
type streamConn struct {
	network.Stream
	layer     *streamLayer
	accepted  bool // the other side opened it
	closed    chan struct{}
	closeOnce sync.Once
	answered  atomic.Int64 // bytes read since the last write
}

// raftAnswersMax bounds what Raft's decoder is given between two requests: it takes
// any length that a member announces. Up to 130 answers of about 100 bytes are under
// way at once.
const raftAnswersMax = 256 << 10

var errAnswersTooLong = errors.New("the member answers more than it was asked for")

// Read bounds the answers to what was dialled.
func (c *streamConn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if !c.accepted && c.answered.Add(int64(n)) > raftAnswersMax {
		c.Close()
		return 0, errAnswersTooLong
	}
	return n, err
}

// Write begins a request, or goes on with one.
func (c *streamConn) Write(b []byte) (int, error) {
	c.answered.Store(0)
	return c.Stream.Write(b)
}

func (c *streamConn) LocalAddr() net.Addr  { return c.layer.Addr() }
func (c *streamConn) RemoteAddr() net.Addr { return peerAddr(c.Conn().RemotePeer()) }

// Close resets the stream: a plain close would leave the other side's half open,
// and Raft never closes that.
func (c *streamConn) Close() error {
	c.closeOnce.Do(func() {
		c.layer.forget(c)
		close(c.closed)
	})
	return c.Reset()
}

func (l *streamLayer) forget(c *streamConn) {
	from := c.Conn().RemotePeer()
	l.mu.Lock()
	delete(l.conns, c)
	last, lost := c.accepted, l.lost
	for other := range l.conns {
		last = last && !(other.accepted && other.Conn().RemotePeer() == from)
	}
	l.mu.Unlock()
	if last && lost != nil && l.ctx.Err() == nil {
		lost(from)
	}
}

func (l *streamLayer) onLost(fn func(peer.ID)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost = fn
}
