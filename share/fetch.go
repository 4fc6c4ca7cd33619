package share

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
	"golang.org/x/sync/errgroup"
)

// requestsPerSource is how many spans of 4 MiB one source owes at a time: 16
// MiB in flight fill a path of 1 Gb/s at 130 ms.
const requestsPerSource = 4

// sink takes verified chunk groups. Its methods may be called from several
// goroutines, write for one index only once.
type sink interface {
	// admit is called first, with the size as a source claims it: an error
	// ends the fetch before anything is asked for that is as large as that.
	admit(size int64) error
	// prepare is called once, before any write, with the proven size and
	// outboard (nil for one group), and returns which groups the sink holds
	// already; nil: none.
	prepare(size int64, o *content.Outboard) (*swarm.Bitfield, error)
	write(index int64, data []byte) error
}

// prover is a sink that may have the last chunk group at hand, which then is not
// fetched to prove the size.
type prover interface {
	// proof returns the group, verified, or nil.
	proof(size int64, o *content.Outboard) ([]byte, error)
}

// fetchSizeMax is the largest content that is fetched: its outboard, 128 KiB a
// GiB, is held in memory, and 512 MiB of that are as much as a stranger's word
// about a size should cost.
const fetchSizeMax = 4 << 40

// fetch gets one content from a crowd into a sink. size is what is known of
// the content's size from a listing, or -1. It returns the size, and
// ErrBadListing when it is not the one from the listing.
//
// Nothing reaches the sink that was not verified against id.
type fetch struct {
	crowd  *crowd
	meter  *meter
	id     content.ID
	size   int64
	sink   sink
	window int64 // of the sink's order, 0 for none

	outboard *content.Outboard // nil for one group

	mu       sync.Mutex
	download *swarm.Download // guarded by mu
	progress chan struct{}   // guarded by mu: closed and replaced when something settled
	numbers  map[source]swarm.Source
	sinkErr  error // guarded by mu: why nothing can be written any more
}

func (f *fetch) run(ctx context.Context) (int64, error) {
	opener, first, err := f.open(ctx)
	if err != nil {
		return 0, err
	}
	have, err := f.sink.prepare(f.size, f.outboard)
	if err != nil {
		return 0, err
	}
	if have == nil {
		have = swarm.NewBitfield(content.GroupCount(f.size))
	}
	f.meter.begin(PhaseFetching, f.size)
	for i := int64(0); i < have.Len(); i++ {
		if have.Has(i) {
			f.meter.held(int64(content.GroupLen(f.size, i)))
		}
	}
	f.download = swarm.New(have, swarm.Config{Window: f.window})
	f.progress = make(chan struct{})
	f.numbers = map[source]swarm.Source{}
	// The group that proved the size is not asked for again.
	last := have.Len() - 1
	if !have.Has(last) && (f.window == 0 || last == 0) {
		if err := f.accept(opener, last, first); err != nil {
			return f.size, err
		}
	}
	return f.size, f.drive(ctx)
}

// untried returns a live source that tried does not hold, waiting for one as
// long as there is hope.
func (f *fetch) untried(ctx context.Context, tried map[source]bool) (source, error) {
	for {
		live, more, change := f.crowd.members()
		for _, s := range live {
			if !tried[s] {
				return s, nil
			}
		}
		if !more {
			// The last hope: whoever the DHT knows for this very content.
			if f.crowd.more(ctx, f.id) {
				continue
			}
			return nil, f.crowd.verdict(f.id)
		}
		if len(live) <= 1 {
			f.crowd.meter.phase(PhaseDialling)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// open learns size and outboard from the first source that can prove them, and
// returns that source and the last chunk group, which is the proof.
func (f *fetch) open(ctx context.Context) (source, []byte, error) {
	tried := map[source]bool{}
	var silent []source // that let firstAnswerMax pass: to be asked again when nobody else is left
	var refused error   // the size that a source told was not admitted: others may tell the truth
	for {
		s, err := f.untried(ctx, tried)
		patient := false
		if err != nil && ctx.Err() == nil && len(silent) > 0 {
			s, silent, patient, err = silent[0], silent[1:], true, nil
		}
		if err != nil {
			if refused != nil && ctx.Err() == nil {
				err = refused
			}
			return nil, nil, err
		}
		tried[s] = true
		last, err := f.prove(ctx, s, patient)
		switch {
		case err == nil:
			return s, last, nil
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case errors.Is(err, errSilent):
			silent = append(silent, s)
			f.crowd.demote(s)
		case errors.Is(err, errNotHeld):
		case errors.As(err, new(sizeError)):
			if refused = err; f.size >= 0 {
				return nil, nil, err // from the listing, whoever is asked
			}
		default:
			f.crowd.drop(s, err)
		}
	}
}

// sizeError says why a content of the size that was told can't be fetched.
type sizeError struct{ error }

func (e sizeError) Unwrap() error { return e.error }

// prove is proveSize with the size that is known, or with the one that s tells.
// When the known one can't be proved by s and its own can, s is honest and the
// listing is not.
func (f *fetch) prove(ctx context.Context, s source, patient bool) (last []byte, err error) {
	if f.size < 0 {
		size, err := f.askSize(ctx, s, patient)
		if err != nil {
			return nil, err
		}
		return f.proveSize(ctx, s, size)
	}
	known := f.size
	last, err = f.proveSize(ctx, s, known)
	if err == nil || ctx.Err() != nil || errors.Is(err, errNotHeld) || errors.As(err, new(sizeError)) {
		return last, err
	}
	size, err2 := s.size(ctx, f.id)
	if err2 != nil || size == known {
		return nil, err
	}
	if _, err2 := f.proveSize(ctx, s, size); err2 != nil {
		return nil, err
	}
	f.size, f.outboard = known, nil
	return nil, sizeError{fmt.Errorf("%w: a file's size is not what it says", ErrBadListing)}
}

// firstAnswerMax is how long a source that is asked first may think about it
// while others can be asked: it may be asleep, or mean to hold us up.
const firstAnswerMax = 2 * time.Second

var errSilent = errors.New("no answer yet")

// askSize asks s for the size, and returns errSilent when the answer takes long
// and f is not patient.
func (f *fetch) askSize(ctx context.Context, s source, patient bool) (int64, error) {
	bounded := ctx
	if !patient && s.via() != ViaLocal {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, firstAnswerMax)
		defer cancel()
	}
	size, err := s.size(bounded, f.id)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = errSilent
	}
	return size, err
}

// admit asks the sink, if there is one, whether a content of size may come.
func (f *fetch) admit(size int64) error {
	if size > fetchSizeMax {
		return sizeError{fmt.Errorf("%s: it is said to have %d bytes, and at most %d can be got: %w", f.id, size, int64(fetchSizeMax), ErrRefused)}
	}
	if f.sink != nil {
		if err := f.sink.admit(size); err != nil {
			return sizeError{err}
		}
	}
	return nil
}

// proveSize asks s for what proves the content's size: the outboard, and the
// last chunk group, without which a shorter outboard with the same root could
// not be told from the true one.
func (f *fetch) proveSize(ctx context.Context, s source, size int64) (last []byte, err error) {
	if err := f.admit(size); err != nil {
		return nil, err
	}
	groups := content.GroupCount(size)
	var o *content.Outboard
	if groups > 1 {
		if o, err = f.fetchOutboard(ctx, s, size); err != nil {
			return nil, err
		}
	}
	if p, ok := f.sink.(prover); ok && o != nil {
		if last, err = p.proof(size, o); err != nil {
			return nil, sizeError{err}
		}
		if last != nil {
			f.size, f.outboard = size, o
			return last, nil
		}
	}
	err = s.span(ctx, f.id, size, content.Span{First: groups - 1, Count: 1}, func(index int64, data []byte) error {
		last = slices.Clone(data)
		return f.verify(o, s, index, data)
	})
	if err != nil {
		return nil, err
	}
	if groups == 1 && int64(len(last)) != size {
		return nil, f.corrupt(s, "its size is not the one that was told")
	}
	f.size, f.outboard = size, o
	return last, nil
}

func (f *fetch) corrupt(s source, reason string) error {
	return blame(s, f.id, reason)
}

// verify checks one group against the ID, by way of the outboard.
func (f *fetch) verify(o *content.Outboard, s source, index int64, data []byte) error {
	var err error
	if o == nil {
		err = content.VerifyData(f.id, data)
	} else {
		err = o.VerifyGroup(index, data)
	}
	if err != nil {
		return f.corrupt(s, fmt.Sprintf("chunk group %d does not match", index))
	}
	return nil
}

// fetchOutboard gets and verifies the chaining values: all at once, or for
// contents above 64 GiB by 1 GiB segments below a verified top.
func (f *fetch) fetchOutboard(ctx context.Context, s source, size int64) (*content.Outboard, error) {
	if !content.TwoLevel(size) {
		b, err := s.values(ctx, f.id, 0, 0, content.GroupCount(size))
		if err != nil {
			return nil, err
		}
		o, err := content.ParseOutboard(size, b)
		if err == nil {
			err = o.Verify(f.id)
		}
		if err != nil {
			return nil, f.corrupt(s, "the outboard does not match")
		}
		return o, nil
	}
	b, err := s.values(ctx, f.id, 1, 0, content.SegmentCount(size))
	if err != nil {
		return nil, err
	}
	top, err := content.DecodeCVs(b)
	if err == nil {
		err = content.VerifySegments(f.id, size, top)
	}
	if err != nil {
		return nil, f.corrupt(s, "the outboard's top level does not match")
	}
	o := content.NewOutboard(size)
	for seg, want := range top {
		span := content.SegmentSpan(size, int64(seg))
		b, err := s.values(ctx, f.id, 0, span.First, span.Count)
		if err != nil {
			return nil, err
		}
		cvs, err := content.DecodeCVs(b)
		if err == nil {
			err = content.VerifySegment(size, int64(seg), want, cvs)
		}
		if err != nil {
			return nil, f.corrupt(s, fmt.Sprintf("segment %d of the outboard does not match", seg))
		}
		for i, cv := range cvs {
			o.Set(span.First+int64(i), cv)
		}
	}
	return o, nil
}

// accept writes a verified group, if it is new.
func (f *fetch) accept(s source, index int64, data []byte) error {
	f.mu.Lock()
	fresh := f.sinkErr == nil && f.download.Arrived(index)
	err := f.sinkErr
	f.mu.Unlock()
	if !fresh {
		return err
	}
	if err := f.sink.write(index, data); err != nil {
		f.mu.Lock()
		f.sinkErr = err
		f.mu.Unlock()
		return err
	}
	f.crowd.gave(s, int64(len(data)))
	f.meter.add(int64(len(data)))
	return nil
}

// drive keeps every source of the crowd busy until all is here.
func (f *fetch) drive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	active := map[source]bool{}
	for {
		live, more, change := f.crowd.members()
		for _, s := range live {
			if !active[s] {
				active[s] = true
				f.enlist(ctx, g, s)
			}
		}
		done, stuck, progress := f.standing()
		if done {
			break
		}
		if stuck && !more && !f.crowd.more(ctx, f.id) {
			cancel()
			return errors.Join(f.crowd.verdict(f.id), ignoreCancelled(g.Wait()))
		}
		select {
		case <-change:
		case <-progress:
		case <-ctx.Done():
			if err := g.Wait(); err != nil {
				return err
			}
			return context.Cause(ctx)
		}
	}
	cancel() // what was asked twice is owed no more
	err := ignoreCancelled(g.Wait())
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sinkErr != nil {
		return f.sinkErr // all has come, but the last write failed
	}
	return err
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// standing tells whether all is here, and whether no source is left that may
// bring more.
func (f *fetch) standing() (done, stuck bool, progress <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.download.Done(), len(f.numbers) == 0, f.progress
}

// enlist lets s take part, with requestsPerSource requests at a time.
func (f *fetch) enlist(ctx context.Context, g *errgroup.Group, s source) {
	f.mu.Lock()
	number := swarm.Source(len(f.numbers))
	for _, n := range f.numbers {
		number = max(number, n+1)
	}
	f.numbers[s] = number
	f.download.Join(number)
	f.mu.Unlock()

	left := new(sync.WaitGroup)
	for range requestsOf(s) {
		left.Add(1)
		g.Go(func() error {
			defer left.Done()
			return f.work(ctx, s, number)
		})
	}
	g.Go(func() error { // the last request out sees the source off
		left.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.download.Leave(number)
		delete(f.numbers, s)
		f.settled()
		return nil
	})
}

// settled wakes whoever waits for work or for the end. The caller holds f.mu.
func (f *fetch) settled() {
	close(f.progress)
	f.progress = make(chan struct{})
}

// work asks s for one span after the other. It returns an error only when the
// whole fetch must end.
func (f *fetch) work(ctx context.Context, s source, number swarm.Source) error {
	for {
		f.mu.Lock()
		span, ok := f.download.Next(number)
		done, progress := f.download.Done(), f.progress
		f.mu.Unlock()
		if done {
			return nil
		}
		if !ok {
			select {
			case <-progress:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		err := s.span(ctx, f.id, f.size, span, func(index int64, data []byte) error {
			if err := f.verify(f.outboard, s, index, data); err != nil {
				return err
			}
			return f.accept(s, index, data)
		})
		f.mu.Lock()
		f.download.Settled(number, span)
		f.settled()
		sinkErr := f.sinkErr
		f.mu.Unlock()
		switch {
		case sinkErr != nil:
			return sinkErr
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errNotHeld):
			return nil
		default:
			f.crowd.drop(s, err)
			return nil
		}
	}
}
