package share

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

const (
	// smallWindowMax is how many small files one source owes at a time: with 64
	// the requests cost as good as nothing, and 128 of 32 KiB fill 400 Mb/s at 80
	// ms. It leaves room on the stream, below requestsOpenMax, for larger files.
	smallWindowMax = 128
	// smallWindowMin is how many a source is asked for first. It grows as they
	// come, so that a source that turns out slow owes few.
	smallWindowMin = 16
	// smallWaitingMax is how many small files are looked for ahead of their
	// arrival.
	smallWaitingMax = 2048
)

// smallFetch fetches files of one chunk group, whose size and ID a listing
// tells, many at a time: requests go out dozens in one write, the answers are
// verified and written by one worker a processor. What no source gives is
// handed on to lost, and what that does is the slow way's affair.
type smallFetch struct {
	crowd *crowd
	// save writes a verified file. It is called from several goroutines, with a
	// worker's number.
	save func(ctx context.Context, worker int, f *smallFile, data []byte) error
	lost func(f *smallFile) error

	arrivals chan smallArrival // capacity one a worker: when it is full, the source is not read from
	room     chan struct{}     // a token for each file that waits; capacity smallWaitingMax

	mu    sync.Mutex
	queue smallQueue               // guarded by mu
	wake  map[source]chan struct{} // guarded by mu: capacity 1, and nil's is ask's own
	owed  map[source]int           // guarded by mu
	gone  map[source]bool          // guarded by mu: of no use any more
	busy  map[source]*busySource   // guarded by mu: those that were busy last
}

// smallArrival is a file that has come, and is not verified.
type smallArrival struct {
	file *smallFile
	from pipeline
	buf  *[content.GroupSize]byte // from groupBuffers
	size int
}

// pipeline is a source that takes many requests in one write.
type pipeline interface {
	source
	askSmall(ids []content.ID, answers []smallAnswer) (callOff func())
}

func newSmallFetch(c *crowd) *smallFetch {
	return &smallFetch{
		crowd:    c,
		arrivals: make(chan smallArrival, smallWorkers()),
		room:     make(chan struct{}, smallWaitingMax),
		wake:     map[source]chan struct{}{nil: make(chan struct{}, 1)},
		owed:     map[source]int{},
		gone:     map[source]bool{},
		busy:     map[source]*busySource{},
	}
}

func smallWorkers() int { return runtime.GOMAXPROCS(0) }

// put adds files, and waits while too many wait already.
func (s *smallFetch) put(ctx context.Context, files []*smallFile) error {
	for range files {
		select {
		case s.room <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		s.queue.put(f)
	}
	s.wakeAll()
	return nil
}

// seal tells that no more files come.
func (s *smallFetch) seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.sealed = true
	s.wakeAll()
}

// wakeAll and wakeOne have whoever waits look again. The caller holds s.mu.
func (s *smallFetch) wakeAll() {
	for who := range s.wake {
		s.wakeOne(who)
	}
}

func (s *smallFetch) wakeOne(who source) {
	select {
	case s.wake[who] <- struct{}{}:
	default: // it will look anyway
	}
}

// run returns when every file that was put has come or is lost.
func (s *smallFetch) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for worker := range smallWorkers() {
		g.Go(func() error { return s.work(ctx, worker) })
	}
	g.Go(func() error {
		defer close(s.arrivals) // nobody is asked any more
		return s.ask(ctx)
	})
	return g.Wait()
}

// ask keeps the sources busy.
func (s *smallFetch) ask(ctx context.Context) error {
	sources, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	defer g.Wait()
	defer cancel()
	for {
		live, more, change := s.crowd.members()
		able := s.pipelines(live, func(p pipeline, wake <-chan struct{}) {
			g.Go(func() error { s.keepBusy(sources, p, wake); return nil })
		})
		var lost []*smallFile
		s.mu.Lock()
		if len(able) > 0 || !more {
			lost = s.queue.giveUp(able)
		}
		finished, wake := s.queue.finished(), s.wake[nil]
		s.mu.Unlock()
		for _, f := range lost {
			<-s.room
			if err := s.lost(f); err != nil {
				return err
			}
		}
		if finished {
			return nil
		}
		if len(able) == 0 && more {
			s.crowd.meter.phase(PhaseDialling)
		}
		select {
		case <-change:
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pipelines returns those of live that take many requests at once, and calls
// begin for those that are new.
func (s *smallFetch) pipelines(live []source, begin func(p pipeline, wake <-chan struct{})) (able []source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range live {
		p, ok := l.(pipeline)
		if !ok {
			continue
		}
		able = append(able, p)
		if s.wake[p] == nil {
			s.wake[p] = make(chan struct{}, 1)
			begin(p, s.wake[p])
		}
	}
	return able
}

// keepBusy asks p for files until ctx ends or p is of no use.
func (s *smallFetch) keepBusy(ctx context.Context, p pipeline, wake <-chan struct{}) {
	var batches []func()
	defer func() {
		for _, callOff := range batches {
			callOff()
		}
	}()
	for window := smallWindowMin; ; {
		var files []*smallFile
		s.mu.Lock()
		owed, gone := s.owed[p], s.gone[p]
		rest := s.rests(p)
		if owed <= window/2 && !gone && rest == 0 {
			files = s.queue.take(p, window-owed, owed == 0)
			s.owed[p] += len(files)
		}
		s.mu.Unlock()
		if gone {
			return
		}
		if len(files) > 0 {
			if owed == 0 {
				batches = batches[:0] // all answered
			}
			batches = append(batches, s.request(ctx, p, files))
			window = min(2*window, smallWindowMax)
			continue
		}
		var rested <-chan time.Time
		if rest > 0 {
			rested = time.After(rest)
		}
		select {
		case <-wake:
		case <-rested:
		case <-ctx.Done():
			return
		}
	}
}

// request sends the requests for files to p.
func (s *smallFetch) request(ctx context.Context, p pipeline, files []*smallFile) (callOff func()) {
	s.crowd.meter.phase(PhaseFetching)
	ids := make([]content.ID, len(files))
	answers := make([]smallAnswer, len(files))
	for i, f := range files {
		ids[i] = f.entry.ID
		answers[i] = func(data []byte, err error) { s.answered(ctx, p, f, data, err) }
	}
	return p.askSmall(ids, answers)
}

// answered takes an answer over from the stream's reader.
func (s *smallFetch) answered(ctx context.Context, p pipeline, f *smallFile, data []byte, err error) {
	if err == nil && len(data) > content.GroupSize {
		err = &CorruptError{ID: f.entry.ID, Peer: p.peer(), Reason: "chunk group 0 is too large"}
	}
	if err != nil {
		if ctx.Err() == nil {
			s.refused(p, f, err)
		}
		s.settle(p)
		return
	}
	s.settle(p)
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	select {
	case s.arrivals <- smallArrival{f, p, buf, copy(buf[:], data)}:
	case <-ctx.Done():
		groupBuffers.Put(buf)
	}
}

// settle counts an answer, and wakes p's goroutine when it is time to ask for
// more.
func (s *smallFetch) settle(p pipeline) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owed[p]--
	if n := s.owed[p]; n == smallWindowMax/2 || n == 0 || n == smallWindowMin/2 || n == smallWindowMin {
		s.wakeOne(p)
	}
}

// refused takes a file back from a source that can't give it.
func (s *smallFetch) refused(p pipeline, f *smallFile, err error) {
	if errors.Is(err, errBusy) {
		s.wasBusy(p, f)
		return
	}
	useless := !errors.Is(err, errNotHeld)
	if useless {
		s.crowd.drop(p, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[p] = s.gone[p] || useless
	s.queue.failed(f)
	s.wakeAll()
}

// work verifies and saves what arrives.
func (s *smallFetch) work(ctx context.Context, worker int) error {
	for a := range s.arrivals {
		err := s.accept(ctx, worker, a)
		groupBuffers.Put(a.buf)
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *smallFetch) accept(ctx context.Context, worker int, a smallArrival) error {
	data := a.buf[:a.size]
	if content.VerifyData(a.file.entry.ID, data) != nil {
		var err error
		if data, err = s.judge(ctx, a); err != nil {
			if ctx.Err() != nil || errors.As(err, new(sizeError)) {
				return err
			}
			s.refused(a.from, a.file, err)
			return nil
		}
	}
	if int64(len(data)) != a.file.entry.Size {
		return errSizeInListing
	}
	s.mu.Lock()
	delete(s.busy, a.from)
	first := s.queue.arrived(a.file)
	if s.queue.finished() {
		s.wakeAll()
	}
	s.mu.Unlock()
	if !first {
		return nil
	}
	<-s.room
	s.crowd.gave(a.from, int64(len(data)))
	return s.save(ctx, worker, a.file, data)
}

var errSizeInListing = fmt.Errorf("%w: a file's size is not what it says", ErrBadListing)

// judge finds out whose fault wrong bytes are: the source's, or the listing's
// that tells a wrong size. Asked in earnest, the source may give the right ones.
func (s *smallFetch) judge(ctx context.Context, a smallArrival) ([]byte, error) {
	f := &fetch{crowd: s.crowd, meter: s.crowd.meter, id: a.file.entry.ID, size: a.file.entry.Size}
	p, err := f.prove(ctx, a.from)
	if err != nil {
		return nil, err
	}
	return p.last, nil
}
