package coord

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/p2pshare/p2pshare/node"
)

// cut is the state of a link in one direction.
type cut int

const (
	whole   cut = iota
	refused     // it is down, and both ends are told
	lossy       // what is sent is lost without a word
)

// simNet carries Raft's messages in memory, and the streams of requests over a
// mock network, over links that can be cut. Heartbeats over mock streams, in
// msgpack, take twenty times as long.
type simNet struct {
	mu       sync.Mutex
	cuts     map[[2]peer.ID]cut                 // guarded by mu: from, to
	off      map[peer.ID]cut                    // guarded by mu: how those are gone that are
	carriers map[raft.ServerAddress]*simCarrier // guarded by mu: those that are open
	peers    map[raft.ServerAddress]peer.ID     // guarded by mu: all that ever were
	streams  map[*simStream]struct{}            // guarded by mu: those that are open
	led      []*raft.Raft                       // guarded by mu: those that have led
}

func newSimNet() *simNet {
	return &simNet{cuts: map[[2]peer.ID]cut{}, off: map[peer.ID]cut{},
		carriers: map[raft.ServerAddress]*simCarrier{}, peers: map[raft.ServerAddress]peer.ID{}, streams: map[*simStream]struct{}{}}
}

var errCut = errors.New("the link is cut")

func (n *simNet) state(from, to peer.ID) cut {
	n.mu.Lock()
	defer n.mu.Unlock()
	return max(n.cuts[[2]peer.ID{from, to}], n.off[from], n.off[to])
}

// setOff takes a peer from the net, or brings it back as whole.
func (n *simNet) setOff(p peer.ID, c cut) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.off[p] = c
}

// set cuts or mends one direction. A link that is refused ends its streams.
func (n *simNet) set(from, to peer.ID, c cut) {
	n.mu.Lock()
	n.cuts[[2]peer.ID{from, to}] = c
	var ended []*simStream
	for s := range n.streams {
		if c == refused && (s.from == from && s.to == to || s.from == to && s.to == from) {
			ended = append(ended, s)
		}
	}
	n.mu.Unlock()
	for _, s := range ended {
		s.Reset()
	}
}

// target is who is at an address, and listens there; nil for nobody.
func (n *simNet) target(a raft.ServerAddress) (peer.ID, *simCarrier) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peers[a], n.carriers[a]
}

// simCarrier is a carrier of one member. Like a stream, who sends is let in once,
// and then until reset.
type simCarrier struct {
	net     *simNet
	g       *Group
	self    peer.ID
	address raft.ServerAddress
	timeout time.Duration
	rpcs    chan raft.RPC

	mu        sync.Mutex
	heartbeat func(raft.RPC)           // guarded by mu
	in        map[*simCarrier]struct{} // guarded by mu: whom this one has let in
	broken    chan struct{}            // guarded by mu: closed when all streams end
	until     time.Time                // guarded by mu: muted until then
	closed    bool                     // guarded by mu
	led       bool                     // guarded by mu: net knows its Raft
}

func (n *simNet) carrier(g *Group) carrier {
	c := &simCarrier{net: n, g: g, self: g.c.node.ID(), address: raft.ServerAddress(g.c.self()), timeout: g.c.config.Timing.scale(rpcTimeout),
		rpcs: make(chan raft.RPC), in: map[*simCarrier]struct{}{}, broken: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.carriers[c.address] = c
	n.peers[c.address] = c.self
	return c
}

func (c *simCarrier) LocalAddr() raft.ServerAddress { return c.address }
func (c *simCarrier) Consumer() <-chan raft.RPC     { return c.rpcs }
func (c *simCarrier) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte {
	return []byte(a)
}
func (c *simCarrier) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }
func (c *simCarrier) SetHeartbeatHandler(fn func(raft.RPC)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heartbeat = fn
}

func (c *simCarrier) serve(context.Context, network.Stream) error { return net.ErrClosed }

func (c *simCarrier) reset(drop func(peer.ID, bool) bool) {
	c.mu.Lock()
	var list []*simCarrier
	for other := range c.in {
		list = append(list, other)
	}
	c.mu.Unlock()
	for _, other := range list {
		if drop(other.self, true) {
			c.mu.Lock()
			delete(c.in, other)
			c.mu.Unlock()
		}
	}
}

// onLost does nothing: who dies here leaves no sign of it.
func (c *simCarrier) onLost(func(peer.ID)) {}

func (c *simCarrier) mute(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Now().Add(d)
	c.hangUp()
}

// hangUp ends all that is under way; c.mu is held.
func (c *simCarrier) hangUp() {
	clear(c.in)
	close(c.broken)
	c.broken = make(chan struct{})
}

func (c *simCarrier) mutedUntil() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.until
}

func (c *simCarrier) Close() error {
	c.net.mu.Lock()
	if c.net.carriers[c.address] == c {
		delete(c.net.carriers, c.address)
	}
	c.net.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.hangUp()
	}
	return nil
}

// abandon answers what a leader was asked for and its main loop has not taken in.
// Raft itself forgets that when it is shut down (v1.8.0: the channels have room).
// Nobody waits any more but a goroutine of await, and a bubble must not leave one.
func abandon(r *raft.Raft) {
	settable := func(v reflect.Value) reflect.Value {
		return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	for _, name := range []string{"applyCh", "verifyCh", "leadershipTransferCh"} {
		waiting := settable(reflect.ValueOf(r).Elem().FieldByName(name))
		for {
			future, ok := waiting.TryRecv()
			if !ok {
				break
			}
			answer := settable(future.Elem().FieldByName("errCh"))
			answer.Send(reflect.ValueOf(raft.ErrRaftShutdown))
		}
	}
}

// line returns what is closed when this end hangs up, and how it is.
func (c *simCarrier) line() (<-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, net.ErrClosed
	case time.Now().Before(c.until):
		return nil, errMuted
	}
	return c.broken, nil
}

// admit lets a sender in as serveRaft does.
func (c *simCarrier) admit(from *simCarrier) error {
	c.mu.Lock()
	_, in := c.in[from]
	c.mu.Unlock()
	if in {
		return nil
	}
	a := c.g.admitRaft(from.self, from.g.opening())
	if !a.OK {
		e := &RefusedError{Why: a.Error, Message: a.Message, Peer: c.self, Epoch: a.Epoch, By: a.By, Index: a.Index}
		from.g.learn(e)
		return e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in[from] = struct{}{}
	return nil
}

// exchange sends a message and returns the answer.
func (c *simCarrier) exchange(to raft.ServerAddress, command any, data io.Reader) (any, error) {
	mine, err := c.line()
	if err != nil {
		return nil, err
	}
	p, target := c.net.target(to)
	there := c.net.state(c.self, p)
	switch {
	case there == lossy:
		return nil, c.silence(mine, nil)
	case there == refused || target == nil:
		return nil, errCut
	}
	theirs, err := target.line()
	if err != nil {
		return nil, net.ErrClosed
	}
	if err := target.admit(c); err != nil {
		return nil, err
	}
	a, err := target.take(command, data, c.timeout, mine, theirs)
	if err != nil {
		return nil, err
	}
	switch c.net.state(p, c.self) {
	case refused:
		return nil, errCut
	case lossy:
		return nil, c.silence(mine, theirs)
	}
	return a.Response, a.Error
}

// silence waits in vain for an answer.
func (c *simCarrier) silence(mine, theirs <-chan struct{}) error {
	select {
	case <-time.After(c.timeout):
		return context.DeadlineExceeded
	case <-mine:
	case <-theirs:
	}
	return net.ErrClosed
}

// take has this member do what a message asks for, until either end hangs up.
func (c *simCarrier) take(command any, data io.Reader, timeout time.Duration, mine, theirs <-chan struct{}) (raft.RPCResponse, error) {
	answers := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: command, Reader: data, RespChan: answers}
	c.mu.Lock()
	heartbeat := c.heartbeat
	c.mu.Unlock()
	rpcs := c.rpcs
	if heartbeat != nil && isHeartbeat(command) {
		heartbeat(rpc)
		select {
		case a := <-answers: // nearly always: no timer needed
			return a, nil
		default:
		}
		rpcs = nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case rpcs <- rpc:
			rpcs = nil
		case a := <-answers:
			return a, nil
		case <-timer.C:
			return raft.RPCResponse{}, context.DeadlineExceeded
		case <-mine:
			return raft.RPCResponse{}, net.ErrClosed
		case <-theirs:
			return raft.RPCResponse{}, net.ErrClosed
		}
	}
}

// isHeartbeat is as Raft's network transport has it.
func isHeartbeat(command any) bool {
	a, ok := command.(*raft.AppendEntriesRequest)
	return ok && a.Term != 0 && a.Addr != nil && a.PrevLogEntry == 0 && a.PrevLogTerm == 0 &&
		len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

func exchange[T any](c *simCarrier, to raft.ServerAddress, command any, into *T, data io.Reader) error {
	a, err := c.exchange(to, command, data)
	if r, ok := a.(*T); ok && r != nil {
		*into = *r
	}
	return err
}

func (c *simCarrier) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (c *simCarrier) AppendEntries(_ raft.ServerID, to raft.ServerAddress, r *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	c.lead()
	sent := *r
	sent.Entries = nil
	for _, e := range r.Entries { // the receiver's own
		e := *e
		sent.Entries = append(sent.Entries, &e)
	}
	return exchange(c, to, &sent, a, nil)
}

// lead has the net know the Raft of a leader.
func (c *simCarrier) lead() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.led {
		return
	}
	if m, err := c.g.voting(); err == nil && m.carrier.carrier == c {
		c.led = true
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		c.net.led = append(c.net.led, m.raft)
	}
}

func (c *simCarrier) RequestVote(_ raft.ServerID, to raft.ServerAddress, r *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	return exchange(c, to, r, a, nil)
}

func (c *simCarrier) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, r *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	return exchange(c, to, r, a, nil)
}

func (c *simCarrier) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, r *raft.InstallSnapshotRequest, a *raft.InstallSnapshotResponse, data io.Reader) error {
	return exchange(c, to, r, a, data)
}

func (c *simCarrier) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, r *raft.TimeoutNowRequest, a *raft.TimeoutNowResponse) error {
	return exchange(c, to, r, a, nil)
}

// simNode opens streams of requests over the same links.
type simNode struct {
	*node.Node
	net *simNet
}

func (n simNode) Open(ctx context.Context, to peer.ID, proto protocol.ID, o node.OpenOptions) (network.Stream, error) {
	out, in := n.net.state(n.ID(), to), n.net.state(to, n.ID())
	switch {
	case out == refused || in == refused:
		return nil, errCut
	case out == lossy || in == lossy:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s, err := n.Node.Open(ctx, to, proto, o)
	if err != nil {
		return nil, err
	}
	w := &simStream{Stream: s, net: n.net, from: n.ID(), to: to}
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.net.streams[w] = struct{}{}
	return w, nil
}

// simStream loses what is sent while the link is cut, and all after it.
type simStream struct {
	network.Stream
	net      *simNet
	from, to peer.ID

	mu          sync.Mutex
	outIs, inIs cut // guarded by mu
}

// lost says whether what goes that way is lost.
func (s *simStream) lost(is *cut, from, to peer.ID) bool {
	state := s.net.state(from, to)
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == lossy {
		*is = lossy
	}
	return *is == lossy
}

func (s *simStream) Write(b []byte) (int, error) {
	if s.lost(&s.outIs, s.from, s.to) {
		return len(b), nil
	}
	return s.Stream.Write(b)
}

func (s *simStream) Read(b []byte) (int, error) {
	for {
		n, err := s.Stream.Read(b)
		if err != nil || !s.lost(&s.inIs, s.to, s.from) {
			return n, err
		}
	}
}

func (s *simStream) Reset() error {
	s.net.mu.Lock()
	delete(s.net.streams, s)
	s.net.mu.Unlock()
	return s.Stream.Reset()
}
