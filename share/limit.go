package share

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/internal/limit"
)

// LimitMin is the lowest limit that makes sense, in bytes a second: each of a getter's
// three lanes has a third of it, and one that gets less than 1 KiB/s takes this peer
// for dead.
const LimitMin = 16 << 10

// limiter holds the bytes of contents to a rate, in one direction, and shares it
// fairly among peers (package limit). Its methods are safe for concurrent use. The
// zero value limits nothing.
type limiter struct {
	slots bool // a peer asks admit first; set before any use

	moved atomic.Int64 // bytes that have passed

	on    atomic.Bool  // a look at it is all that no limit costs
	rate  atomic.Int64 // bytes a second; 0: no limit
	piece atomic.Int64 // bytes of one turn at most

	mu    sync.Mutex
	queue *limit.Queue                  // guarded by mu; nil: no limit
	turns map[*limit.Turn]chan struct{} // guarded by mu: those that wait; closed when given
	timer *time.Timer                   // guarded by mu: calls give
}

// setRate sets the bytes a second, for what is under way too; 0: no limit.
func (l *limiter) setRate(bytesPerSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.rate.Store(max(bytesPerSecond, 0))
	switch {
	case bytesPerSecond <= 0:
		for _, given := range l.turns {
			close(given)
		}
		l.queue, l.turns = nil, nil
		l.on.Store(false)
		return
	case l.queue == nil:
		l.queue, l.turns = limit.New(bytesPerSecond, now), map[*limit.Turn]chan struct{}{}
		if l.slots {
			l.queue = limit.NewSlotted(bytesPerSecond, now)
		}
	default:
		l.queue.SetRate(bytesPerSecond, now)
	}
	l.piece.Store(int64(l.queue.Piece()))
	l.on.Store(true)
	l.next(now)
}

// admit reports whether p may ask for bytes now, or has to come again later.
func (l *limiter) admit(p peer.ID, bytes int) bool {
	if !l.on.Load() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue == nil || l.queue.Admit(string(p), bytes, time.Now())
}

// wait returns when p may move bytes, at most a piece, and how long that took; or
// when done is closed.
func (l *limiter) wait(done <-chan struct{}, p peer.ID, bytes int) time.Duration {
	l.mu.Lock()
	if l.queue == nil {
		l.mu.Unlock()
		return 0
	}
	begun := time.Now()
	given := make(chan struct{})
	turn := l.queue.Ask(string(p), bytes)
	l.turns[turn] = given
	l.next(begun)
	l.mu.Unlock()
	select {
	case <-given:
	case <-done:
		l.leave(turn)
	}
	return time.Since(begun)
}

func (l *limiter) leave(turn *limit.Turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns[turn] != nil {
		delete(l.turns, turn)
		l.queue.Leave(turn)
	}
}

// next gives the turns whose time has come, and sets the timer for the one after
// them. The caller holds l.mu.
func (l *limiter) next(now time.Time) {
	if l.queue == nil {
		return
	}
	turns, wait := l.queue.Next(now)
	for _, t := range turns {
		close(l.turns[t])
		delete(l.turns, t)
	}
	if wait == 0 {
		return
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.give)
		return
	}
	l.timer.Reset(wait)
}

func (l *limiter) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next(time.Now())
}

// pacedStream is a stream one of whose directions a limiter holds back. How long it
// does does not count against the deadlines, which are meant for the peer. One
// goroutine at a time may use each direction, and its deadline.
type pacedStream struct {
	node.Stream
	up, down *limiter // nil: that direction is free

	ended func()      // closes done; may be called twice
	stop  func() bool // of paceUp: lets go of the context
	done  chan struct{}

	readBy, writeBy time.Time
	heldBack        time.Duration // how long reads have waited for the limit
}

// paceUp holds back what is written to s, until ctx ends. The caller calls stop
// when it is done with the stream: ctx may last as long as the node.
func (l *limiter) paceUp(ctx context.Context, s node.Stream) *pacedStream {
	p := newPaced(s)
	p.up = l
	p.stop = context.AfterFunc(ctx, p.ended)
	return p
}

// paceDown holds back what is read from s, until it is reset.
func (l *limiter) paceDown(s node.Stream) *pacedStream {
	p := newPaced(s)
	p.down = l
	return p
}

func newPaced(s node.Stream) *pacedStream {
	done := make(chan struct{})
	return &pacedStream{Stream: s, done: done, ended: sync.OnceFunc(func() { close(done) })}
}

func (p *pacedStream) Reset() error {
	p.ended()
	return p.Stream.Reset()
}

func (p *pacedStream) SetReadDeadline(t time.Time) error {
	p.readBy = t
	return p.Stream.SetReadDeadline(t)
}

func (p *pacedStream) SetWriteDeadline(t time.Time) error {
	p.writeBy = t
	return p.Stream.SetWriteDeadline(t)
}

// Read reads a piece, and pays for it before it returns.
func (p *pacedStream) Read(b []byte) (int, error) {
	if p.down == nil {
		return p.Stream.Read(b)
	}
	if !p.down.on.Load() {
		n, err := p.Stream.Read(b)
		p.down.moved.Add(int64(n))
		return n, err
	}
	n, err := p.Stream.Read(b[:min(len(b), int(p.down.piece.Load()))])
	p.down.moved.Add(int64(n))
	if n > 0 {
		waited := p.down.wait(p.done, p.Peer(), n)
		p.heldBack += waited
		if waited > 0 && !p.readBy.IsZero() {
			p.SetReadDeadline(p.readBy.Add(waited))
		}
	}
	return n, err
}

// Write pays for each piece before it goes.
func (p *pacedStream) Write(b []byte) (written int, err error) {
	if p.up == nil {
		return p.Stream.Write(b)
	}
	defer func() { p.up.moved.Add(int64(written)) }()
	for written < len(b) && err == nil && p.up.on.Load() {
		piece := b[written:min(len(b), written+int(p.up.piece.Load()))]
		if waited := p.up.wait(p.done, p.Peer(), len(piece)); waited > 0 && !p.writeBy.IsZero() {
			p.SetWriteDeadline(p.writeBy.Add(waited))
		}
		n := 0
		n, err = p.Stream.Write(piece)
		written += n
	}
	if written < len(b) && err == nil {
		n := 0
		n, err = p.Stream.Write(b[written:])
		written += n
	}
	return written, err
}
