package coord

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// link names a stream of requests: there is one to a member of a group.
type link struct {
	group GroupID
	to    peer.ID
}

// links are the open streams of requests. A stream is opened by the first request
// and kept for the next ones.
type links struct {
	node  opener
	learn func(GroupID, *RefusedError) // told why a member does not let this one in

	mu      sync.Mutex
	open    map[link]*conn        // guarded by mu
	dialing map[link]*dialing     // guarded by mu: what is being opened
	silent  map[peer.ID]time.Time // guarded by mu: when one was last found not to answer
	closed  bool                  // guarded by mu
	wg      sync.WaitGroup        // the conns' readers
}

// dialing is an attempt to open a stream. Its fields are set once done is closed.
type dialing struct {
	done    chan struct{}
	conn    *conn
	err     error
	dropped bool // whoever opened it did not wait for the end
}

// ask sends one request on the link, and waits for the answer.
func (l *links) ask(ctx context.Context, k link, to peer.AddrInfo, o opening, r request) (answer, error) {
	var a answer
	c, err := l.conn(ctx, k, to, o)
	if err == nil {
		a, err = c.ask(ctx, r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.silent, k.to)
	} else if !errors.Is(ctx.Err(), context.Canceled) {
		l.silent[k.to] = time.Now()
	}
	return a, err
}

// silentLast puts members that were just found not to answer behind the others: a
// process that hangs takes connections, and costs everybody answerWait each time.
func (l *links) silentLast(members []peer.AddrInfo) []peer.AddrInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	var answer, silent []peer.AddrInfo
	for _, m := range members {
		if at, was := l.silent[m.ID]; was && time.Since(at) < silentFor {
			silent = append(silent, m)
		} else {
			answer = append(answer, m)
		}
	}
	return append(answer, silent...)
}

// conn returns the stream of the link, and opens it if there is none. Those who ask
// meanwhile wait for it: a member lets in only so many streams of a peer.
func (l *links) conn(ctx context.Context, k link, to peer.AddrInfo, o opening) (*conn, error) {
	for {
		l.mu.Lock()
		if c := l.open[k]; c != nil && c.alive() {
			l.mu.Unlock()
			return c, nil
		}
		d := l.dialing[k]
		if d == nil {
			d = &dialing{done: make(chan struct{})}
			l.dialing[k] = d
			l.mu.Unlock()
			l.dial(ctx, k, to, o, d)
			return d.conn, d.err
		}
		l.mu.Unlock()
		select {
		case <-d.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !d.dropped {
			return d.conn, d.err
		}
	}
}

// dial opens a stream and ends d, which is in l.dialing.
func (l *links) dial(ctx context.Context, k link, to peer.AddrInfo, o opening, d *dialing) {
	s, a, err := dialGroup(ctx, l.node, to, groupProtocol, o)
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		l.learn(k.group, refused)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.dialing, k)
	defer close(d.done)
	if err == nil && l.closed {
		s.Reset()
		err = ErrStopped
	}
	if err != nil {
		d.err, d.dropped = err, ctx.Err() != nil
		return
	}
	c := newConn(s, a.Nonce)
	d.conn, l.open[k] = c, c
	l.wg.Go(func() {
		c.read()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open[k] == c {
			delete(l.open, k)
		}
	})
}

// drop ends the streams of a group: what they were let in as is over.
func (l *links) drop(group GroupID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, c := range l.open {
		if k.group == group {
			c.stream.Reset()
		}
	}
}

// close ends all streams and waits for their readers.
func (l *links) close() {
	l.mu.Lock()
	l.closed = true
	for _, c := range l.open {
		c.stream.Reset()
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// conn is a stream of requests, many at a time.
type conn struct {
	stream network.Stream
	out    *lineWriter
	nonce  nonce         // the member's
	ended  chan struct{} // closed when the stream has ended
	tag    atomic.Uint64
	heard  atomic.Uint64 // answers read

	mu      sync.Mutex
	waiting map[uint64]chan answer // guarded by mu: by tag
}

func newConn(s network.Stream, n nonce) *conn {
	return &conn{stream: s, out: newLineWriter(s), nonce: n, waiting: map[uint64]chan answer{}, ended: make(chan struct{})}
}

func (c *conn) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

var errLost = errors.New("the connection to the member was lost")

func (c *conn) ask(ctx context.Context, r request) (answer, error) {
	r.Tag = c.tag.Add(1)
	answers := make(chan answer, 1)
	c.mu.Lock()
	c.waiting[r.Tag] = answers
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, r.Tag)
	}()
	heard := c.heard.Load()
	if err := c.out.write(r); err != nil {
		return answer{}, err
	}
	select {
	case a := <-answers:
		return a, nil
	case <-c.ended:
		return answer{}, errLost
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && c.heard.Load() == heard {
			c.stream.Reset() // silent all the while: the next request tries another one
		}
		return answer{}, ctx.Err()
	}
}

// read hands out answers until the stream ends.
func (c *conn) read() {
	defer close(c.ended)
	defer c.stream.Reset()
	in := bufio.NewReaderSize(c.stream, 64<<10)
	for {
		line, err := readLine(in, lineMax)
		if err != nil {
			return
		}
		var a answer
		if node.DecodeStrict(line, &a) != nil {
			return
		}
		c.heard.Add(1)
		c.mu.Lock()
		w := c.waiting[a.Tag]
		delete(c.waiting, a.Tag)
		c.mu.Unlock()
		if w != nil {
			w <- a // it has room for the one answer
		}
	}
}

const (
	callWait = 15 * time.Second // of a call whose context has no end of its own
	hopsMax  = 3                // from member to leader, while leaders change
	// answerWait is how long a member may say nothing while there is another one to
	// ask: what both are asked for is done once. silentFor is how long it is then
	// asked last.
	answerWait = time.Second
	silentFor  = 5 * time.Second
	// retryWait is between two tries while there is no leader. It doubles up to
	// retryMax: a leader that stops has handed over within milliseconds, an election
	// takes a second, and who waits costs those who elect.
	retryWait = 10 * time.Millisecond
	retryMax  = 50 * time.Millisecond
)

// Client is a group as one who asks it sees it: any member will do, its own first.
type Client struct {
	c     *Coord
	group GroupID
	via   []peer.AddrInfo // members to ask when this peer is none
	epoch uint64          // as far as via's source knows
	// follows is the group's follower while it is not among the Coord's yet.
	follows *follower

	id  pinset.Client // numbers this Client's writes with seq
	seq atomic.Uint64
}

// Client returns a group to ask. via are members to ask when this peer is none.
func (c *Coord) Client(g GroupID, via ...peer.AddrInfo) *Client {
	cl := &Client{c: c, group: g, via: via, epoch: 1}
	rand.Read(cl.id[:])
	return cl
}

// call asks members until one answers, follows to the leader, and waits out
// elections. The error is an *AnswerError, ErrNoLeader or ErrNoQuorum when no one
// could do it, a *RefusedError, Group.Err's, or that nobody could be reached.
func (cl *Client) call(ctx context.Context, r request) (answer, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callWait)
		defer cancel()
	}
	if g, err := cl.c.group(cl.group); err == nil && cl.follower() == nil {
		if why := g.known().parked(); why != nil {
			return answer{}, why
		}
		if err := g.Err(); err != nil {
			return answer{}, err // this peer knows nobody to ask
		}
	}
	for wait := retryWait; ; wait = min(2*wait, retryMax) {
		a, err := cl.round(ctx, r)
		if !errors.Is(err, ErrNoLeader) {
			return a, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return a, err
		}
	}
}

// round asks each member once, until one answers.
func (cl *Client) round(ctx context.Context, r request) (answer, error) {
	targets, o := cl.targets()
	var errs []error
	told := false // by a member, which leader to ask
	answered := false
	for hops := 0; len(targets) > 0 && ctx.Err() == nil; {
		to := targets[0]
		targets = targets[1:]
		a, err := cl.oneOf(ctx, to, len(targets) > 0, o, r)
		if err == nil && a.Error == wordNotLeader && hops < hopsMax {
			if leader, bad := (knownMember{a.Leader, a.Addrs}).info(); bad == nil {
				hops++
				told = true
				targets = append([]peer.AddrInfo{leader}, targets...)
				continue
			}
		}
		if err == nil {
			err = a.err()
		}
		if later := epochOf(err); later > o.Epoch && cl.follower() != nil && hops < hopsMax {
			hops++
			o.Epoch, targets = later, append([]peer.AddrInfo{to}, targets...)
			continue
		}
		answered = answered || isAnswer(err) || refuses(err)
		switch {
		case err == nil:
			return a, nil
		case errors.Is(err, ErrNoLeader):
			return a, ErrNoLeader
		case isAnswer(err) && !errors.Is(err, ErrNoQuorum) && !errors.Is(err, ErrStopped):
			return a, err
		}
		if refused := (*RefusedError)(nil); errors.As(err, &refused) {
			told = false // it is not the leader that is gone
		}
		errs = append(errs, fmt.Errorf("%s: %w", to.ID, err))
	}
	if told && ctx.Err() == nil {
		return answer{}, ErrNoLeader // it died: the member that named it will notice
	}
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		if !answered && !errors.Is(ctx.Err(), context.Canceled) {
			err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return answer{}, err
	}
	return answer{}, fmt.Errorf("%w: no member of group %s is known", ErrNoLeader, cl.group.Short())
}

func isAnswer(err error) bool {
	var a *AnswerError
	return errors.As(err, &a)
}

// refuses says whether an error is a member's word that it does not deal with this
// peer. One that only does not take part just now says nothing.
func refuses(err error) bool {
	var r *RefusedError
	return errors.As(err, &r) && r.Why != RefusedStopped
}

// epochOf is the epoch of a member that refuses an older one, 0 for other errors.
func epochOf(err error) uint64 {
	var r *RefusedError
	if errors.As(err, &r) && r.Why == RefusedEpoch {
		return r.Epoch
	}
	return 0
}

// follower is how this peer follows the group, nil if it does not.
func (cl *Client) follower() *follower {
	if cl.follows != nil {
		return cl.follows
	}
	return cl.c.follower(cl.group)
}

// targets are whom to ask, in this order, and how.
func (cl *Client) targets() ([]peer.AddrInfo, opening) {
	if f := cl.follower(); f != nil {
		return f.targets()
	}
	g, err := cl.c.group(cl.group)
	if err != nil {
		return cl.c.links.silentLast(cl.via), opening{Group: cl.group, Epoch: cl.epoch}
	}
	var list []peer.AddrInfo
	if _, err := g.running(); err == nil {
		list = append(list, peer.AddrInfo{ID: cl.c.node.ID()})
	}
	return append(list, cl.c.links.silentLast(g.members())...), g.opening()
}

// oneOf asks one member. If there are others it does not wait long for it. The last
// one is asked again, over a new stream, when it says nothing: what a network
// lost while it was down may have been the end of the old stream.
func (cl *Client) oneOf(ctx context.Context, to peer.AddrInfo, others bool, o opening, r request) (answer, error) {
	if to.ID == cl.c.node.ID() {
		return cl.one(ctx, to, o, r)
	}
	wait, cancel := context.WithTimeout(ctx, cl.c.config.Timing.scale(answerWait))
	defer cancel()
	a, err := cl.one(wait, to, o, r)
	if err == nil || others || ctx.Err() != nil || wait.Err() == nil {
		return a, err
	}
	return cl.one(ctx, to, o, r)
}

func (cl *Client) one(ctx context.Context, to peer.AddrInfo, o opening, r request) (answer, error) {
	if to.ID != cl.c.node.ID() {
		return cl.c.links.ask(ctx, link{cl.group, to.ID}, to, o, r)
	}
	g, err := cl.c.group(cl.group)
	if err != nil {
		return answer{}, err
	}
	return g.serve(ctx, pinset.Peer(to.ID.String()), nonce{}, r), nil
}
