package share

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// source is somebody who may hold contents: another peer, or this library.
// What it says is not verified; what it does is bounded in size and time. Its
// methods may be called from several goroutines.
//
// They return errNotHeld for what the source does not hold, errBusy when it is to
// be asked again later (busy.go), and a
// *CorruptError for an answer that can't be right; any other error but the
// context's means that the source is of no use any more.
type source interface {
	peer() peer.ID
	via() node.Via
	// size asks how large id is.
	size(ctx context.Context, id content.ID) (int64, error)
	// values asks for count chaining values of a level, from first on.
	values(ctx context.Context, id content.ID, level byte, first, count int64) ([]byte, error)
	// span asks for chunk groups, and calls fn with each, in order. fn must not
	// keep data; its error ends the request and is returned.
	span(ctx context.Context, id content.ID, size int64, span content.Span, fn func(index int64, data []byte) error) error
	close()
}

// errNotHeld is a source's answer for a content it does not hold.
var errNotHeld = errors.New("not held by this source")

// remote is another peer as a source. It is asked over lanes: the first is a
// libp2p stream, which answers soonest; when much is to come bulk connections
// are opened, too, and the spans are spread over them, so that several
// processors decrypt and verify. A lane that breaks is done without: what it
// owed is asked on another one. The last one's end is the source's.
type remote struct {
	id   peer.ID
	how  node.Via
	main *lane
	open func(context.Context) (node.Stream, error) // opens a bulk connection; nil: there are none

	lanes func() int // how many bulk connections to open; nil: bulkLanes

	mu      sync.Mutex
	bulk    []*lane        // guarded by mu: those that work
	broken  []*lane        // guarded by mu: for close to wait for
	closed  bool           // guarded by mu
	widened bool           // guarded by mu: bulk connections were asked for
	opening sync.WaitGroup // their opening; begun under mu and before closed
	stop    func()         // guarded by mu: ends that; nil before
	taken   int64          // guarded by mu: bytes that have come
	flow    flow           // guarded by mu
}

const (
	// bulkLanes are the bulk connections to one source: two cost a tenth less
	// processor time than a libp2p stream, and on two cores move 1.1 times as much;
	// more move no more.
	bulkLanes = 2
	// bulkMin is how much is to come, or has come, when bulk connections pay.
	bulkMin = 8 << 20
)

// openRemote opens a data stream to a peer that is connected or whose
// addresses are known. What comes is held back by the library's limit, and by pace,
// which may be nil. The caller closes what it returns.
func (l *Library) openRemote(ctx context.Context, p peer.ID, pace *limiter) (*remote, error) {
	s, err := l.node.Open(ctx, p, dataProtocol, node.OpenOptions{})
	if err != nil {
		return nil, err
	}
	paced := func(s node.Stream) node.Stream {
		if pace != nil {
			s = pace.paceDown(s)
		}
		return l.down.paceDown(s)
	}
	r := newRemote(p, paced(node.StreamOf(s)))
	r.open = func(ctx context.Context) (node.Stream, error) {
		s, err := l.node.OpenBulk(ctx, p, dataProtocol)
		if err != nil {
			return nil, err
		}
		return paced(s), nil
	}
	return r, nil
}

func newRemote(p peer.ID, s node.Stream) *remote {
	return &remote{id: p, how: s.Via(), main: newLane(s)}
}

func (r *remote) peer() peer.ID { return r.id }
func (r *remote) via() node.Via { return r.how }

// reset ends all requests, and does not wait.
func (r *remote) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.stop != nil {
		r.stop()
	}
	r.main.stream.Reset()
	for _, l := range r.bulk {
		l.stream.Reset()
	}
}

func (r *remote) close() {
	r.reset()
	r.opening.Wait()
	r.main.close()
	for _, l := range slices.Concat(r.bulk, r.broken) {
		l.close()
	}
}

// widen opens bulk connections, the first time that it is called. It does not
// wait. id is a content that the source holds.
func (r *remote) widen(ctx context.Context, id content.ID) {
	lanes := bulkLanes
	if r.lanes != nil {
		lanes = r.lanes()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil || r.widened || r.closed {
		return
	}
	r.widened = true
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	for range lanes {
		r.opening.Go(func() { r.addLane(ctx, id) })
	}
}

// addLane opens one bulk connection. It is used when a first question was
// answered on it: only then is it known that the peer has taken it.
func (r *remote) addLane(ctx context.Context, id content.ID) {
	s, err := r.open(ctx)
	if err != nil {
		return // there is main
	}
	l := newLane(s)
	ctx, cancel := context.WithTimeout(ctx, requestWrite)
	defer cancel()
	err = l.ask(ctx, dataRequest{kind: frameInfo, id: id}, func(dataAnswer) error { return nil })
	r.mu.Lock()
	keep := (err == nil || errors.Is(err, errNotHeld)) && !r.closed
	if keep {
		r.bulk = append(r.bulk, l)
	}
	r.mu.Unlock()
	if !keep {
		l.close()
	}
}

// try calls do with lanes, as pick gives them, until one answers. When the last
// one is lost its error is returned.
func (r *remote) try(ctx context.Context, pick func() *lane, do func(*lane) error) error {
	for {
		l := pick()
		err := do(l)
		if !l.lost(err) || ctx.Err() != nil || !r.without(l) {
			return err
		}
	}
}

// without takes out a lane that is lost, and reports whether there is another.
func (r *remote) without(l *lane) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.bulk, l); i >= 0 { // else another request has found out before
		r.bulk = slices.Delete(r.bulk, i, i+1)
		r.broken = append(r.broken, l)
	}
	return !r.closed && (l != r.main || len(r.bulk) > 0)
}

// steady is the lane for small questions.
func (r *remote) steady() *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bulk) > 0 && r.main.isLost() {
		return r.bulk[0]
	}
	return r.main
}

// widest is the lane for a span: the bulk connection that owes least.
func (r *remote) widest() *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bulk) == 0 {
		return r.main
	}
	return slices.MinFunc(r.bulk, func(a, b *lane) int { return int(a.owed.Load() - b.owed.Load()) })
}

// took counts bytes that have come, and opens bulk connections when they pay.
func (r *remote) took(ctx context.Context, id content.ID, bytes int64) {
	r.mu.Lock()
	r.taken += bytes
	r.flow.add(bytes, time.Now())
	much := r.taken >= bulkMin && !r.widened
	r.mu.Unlock()
	if much {
		r.widen(ctx, id)
	}
}

// depth is how many spans the source should owe: twice as much as is under way
// on the path to it, and what the libp2p stream owed when the bulk connections
// came.
func (r *remote) depth() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	trip := r.main.roundTrip()
	depth := 0
	if len(r.bulk) > 0 {
		depth = int(r.main.owed.Load() * content.GroupSize / spanBytes)
	}
	for _, l := range r.bulk {
		if t := l.roundTrip(); t > 0 {
			trip = min(trip, t)
		}
	}
	return min(spansMax, depth+r.flow.depth(trip))
}

// flow measures how fast bytes come.
type flow struct {
	since time.Time // the beginning of the measurement under way
	bytes int64     // since then
	rate  float64   // bytes a second, of the last one; 0 before
}

const (
	flowEvery = 50 * time.Millisecond
	// flowFirst is what a path is taken to carry before it is measured, in bytes
	// a second.
	flowFirst = 400e6
	// spanBytes is about the size of a span.
	spanBytes = spanCountMax / 4 * content.GroupSize
	// spansMin and spansMax are the bounds of what one source owes: 16 MiB fill
	// a path of 1 Gb/s at 60 ms twice, and 128 MiB one of 6 Gb/s at 80 ms. They
	// are on their way, and take no memory here.
	spansMin, spansMax = 4, 32
)

func (f *flow) add(bytes int64, now time.Time) {
	if f.bytes += bytes; f.since.IsZero() {
		f.since, f.bytes = now, 0
	}
	if took := now.Sub(f.since); took >= flowEvery {
		f.rate = float64(f.bytes) / took.Seconds()
		f.since, f.bytes = now, 0
	}
}

// depth is how many spans are twice the bandwidth-delay product. It grows with
// the rate as long as that grows with it.
func (f *flow) depth(roundTrip time.Duration) int {
	rate := f.rate
	if rate == 0 {
		rate = flowFirst
	}
	underWay := rate * roundTrip.Seconds()
	return max(spansMin, min(spansMax, int(2*underWay/spanBytes)+1))
}

func (r *remote) corrupt(id content.ID, format string, args ...any) error {
	return &CorruptError{ID: id, Peer: r.id, Reason: fmt.Sprintf(format, args...)}
}

func (r *remote) size(ctx context.Context, id content.ID) (int64, error) {
	var size int64
	err := r.try(ctx, r.steady, func(l *lane) error {
		return l.ask(ctx, dataRequest{kind: frameInfo, id: id}, func(a dataAnswer) error {
			if a.kind != frameSize {
				return r.corrupt(id, "a size was asked, and something else came")
			}
			size = a.size
			return nil
		})
	})
	return size, err
}

func (r *remote) values(ctx context.Context, id content.ID, level byte, first, count int64) ([]byte, error) {
	if count >= bulkMin/content.GroupSize {
		r.widen(ctx, id) // the content itself is next: they are there by then
	}
	var got []byte
	for first, left := first, count; left > 0; {
		n := min(left, outboardCountMax)
		from := len(got)
		want := from + int(32*n)
		q := dataRequest{kind: frameOutboard, id: id, level: level, first: first, count: n}
		err := r.try(ctx, r.steady, func(l *lane) error {
			got = got[:from]
			return l.ask(ctx, q, func(a dataAnswer) error {
				if a.kind == frameSize || a.index != first+int64(len(got)-from)/32 ||
					len(a.data)%32 != 0 || len(a.data) == 0 || len(got)+len(a.data) > want {
					return r.corrupt(id, "chaining values came that were not asked for")
				}
				got = append(got, a.data...)
				if a.kind == frameLast && len(got) < want {
					return r.corrupt(id, "chaining values are missing")
				}
				return nil
			})
		})
		if err != nil {
			return nil, err
		}
		first, left = first+n, left-n
	}
	return got, nil
}

func (r *remote) span(ctx context.Context, id content.ID, size int64, span content.Span, fn func(int64, []byte) error) error {
	next := span.First
	return r.try(ctx, r.widest, func(l *lane) error {
		q := dataRequest{kind: frameSpan, id: id, first: next, count: span.End() - next}
		return l.ask(ctx, q, func(a dataAnswer) error {
			switch {
			case a.kind == frameSize || a.index != next || next >= span.End():
				return r.corrupt(id, "chunk groups came that were not asked for")
			case a.kind == frameLast && next != span.End()-1:
				return r.corrupt(id, "chunk groups are missing")
			}
			next++
			r.took(ctx, id, int64(len(a.data)))
			return fn(a.index, a.data)
		})
	})
}

// local is this library as a source.
type local struct {
	library *Library
	// unscoped leaves out what is not shared with everybody: for what will be.
	unscoped bool
}

func (s local) peer() peer.ID { return s.library.node.ID() }
func (s local) via() node.Via { return ViaLocal }
func (s local) close()        {}

func (s local) open(ctx context.Context, id content.ID) (*held, error) {
	h, err := s.library.openHeld(ctx, id, ownShares(s.unscoped))
	if errors.Is(err, ErrNotShared) || errors.Is(err, ErrModified) {
		return nil, errNotHeld
	}
	return h, err
}

func (s local) size(ctx context.Context, id content.ID) (int64, error) {
	h, err := s.open(ctx, id)
	if err != nil {
		return 0, err
	}
	defer h.close()
	return h.identity.size, nil
}

func (s local) values(ctx context.Context, id content.ID, level byte, first, count int64) ([]byte, error) {
	size, err := s.size(ctx, id)
	if err != nil {
		return nil, err
	}
	if level == 0 {
		b, err := s.library.catalog.outboardRange(id, first, count)
		if err == nil && b == nil {
			err = errNotHeld
		}
		return b, err
	}
	o, err := s.library.catalog.outboard(id, size)
	if err != nil || o == nil {
		return nil, errors.Join(err, errNotHeld)
	}
	return content.EncodeCVs(o.Segments()[first : first+count]), nil
}

func (s local) span(ctx context.Context, id content.ID, size int64, span content.Span, fn func(int64, []byte) error) error {
	h, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	defer h.close()
	if h.identity.size != size {
		return errNotHeld
	}
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	defer groupBuffers.Put(buf)
	for i := span.First; i < span.End(); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := readHeld(h, size, i, buf)
		if errors.Is(err, ErrModified) || errors.Is(err, errDamaged) || err == nil && !h.unchanged() {
			return errNotHeld // as if it had been so when we opened it
		}
		if err != nil {
			return err
		}
		if err := fn(i, buf[:content.GroupLen(size, i)]); err != nil {
			return err
		}
	}
	return nil
}
