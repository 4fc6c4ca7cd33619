package share

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// proof is what shows how large a content is: a verified outboard, and the
// last chunk group.
type proof struct {
	size     int64
	outboard *content.Outboard // nil for one group
	last     []byte
}

const (
	// firstAnswerMax is how long a source that is asked first may take for its
	// proof before another is asked beside it: it may be asleep, or mean to hold us
	// up.
	firstAnswerMax = 2 * time.Second
	// proversMax is how many are asked at a time.
	proversMax = 4
)

// proven is how one source's attempt has ended.
type proven struct {
	source source
	proof  *proof
	err    error
}

// open learns size and outboard from the first source that can prove them, and
// returns that source and the last chunk group, which is the proof. Sources are
// asked one after the other as they come, and beside each other when one takes
// long.
func (f *fetch) open(ctx context.Context) (source, []byte, error) {
	var asking sync.WaitGroup
	defer asking.Wait()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan proven, proversMax)
	tried := map[source]bool{}
	var last source
	var refused error // the size that a source told was not admitted: others may tell the truth
	hedge := time.NewTimer(0)
	defer hedge.Stop()
	running, due := 0, true
	for {
		s, more, change := f.untried(tried)
		switch {
		case !due || running == proversMax:
			change = nil
		case s != nil:
			tried[s], last = true, s
			running, due = running+1, false
			hedge.Reset(firstAnswerMax)
			asking.Go(func() {
				p, err := f.proveWhenFree(within, s)
				results <- proven{s, p, err}
			})
			continue
		case !more && f.crowd.more(ctx, f.id):
			continue
		case !more && running == 0 && refused != nil:
			return nil, nil, refused
		case !more && running == 0:
			return nil, nil, f.crowd.verdict(f.id)
		case running == 0 && len(tried) <= 1:
			f.crowd.meter.phase(PhaseDialling)
		}
		select {
		case r := <-results:
			running, due = running-1, true
			if r.err == nil {
				cancel()
				asking.Wait() // the others look at f.size
				f.size, f.outboard = r.proof.size, r.proof.outboard
				return r.source, r.proof.last, nil
			}
			if errors.As(r.err, new(sizeError)) {
				if refused = r.err; f.size >= 0 {
					return nil, nil, r.err // from the listing, whoever is asked
				}
			} else if !errors.Is(r.err, errNotHeld) && ctx.Err() == nil {
				f.crowd.drop(r.source, r.err)
			}
		case <-hedge.C:
			if running > 0 {
				f.crowd.demote(last)
			}
			due = true
		case <-change:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// untried returns a live source that tried does not hold, or nil, and whether
// more may come.
func (f *fetch) untried(tried map[source]bool) (s source, more bool, change <-chan struct{}) {
	live, more, change := f.crowd.members()
	for _, s := range live {
		if !tried[s] {
			return s, more, change
		}
	}
	return nil, more, change
}

// sizeError says why a content of the size that was told can't be fetched.
type sizeError struct{ error }

func (e sizeError) Unwrap() error { return e.error }

// prove is proveSize with the size that is known, or with the one that s tells.
// When the known one can't be proved by s and its own can, s is honest and the
// listing is not.
func (f *fetch) prove(ctx context.Context, s source) (*proof, error) {
	if f.size < 0 {
		size, err := s.size(ctx, f.id)
		if err != nil {
			return nil, err
		}
		return f.proveSize(ctx, s, size)
	}
	p, err := f.proveSize(ctx, s, f.size)
	if err == nil || ctx.Err() != nil || errors.Is(err, errNotHeld) || errors.As(err, new(sizeError)) {
		return p, err
	}
	size, err2 := s.size(ctx, f.id)
	if err2 != nil {
		return nil, err2 // nobody is shown to lie
	}
	if size == f.size {
		return nil, err
	}
	if _, err2 := f.proveSize(ctx, s, size); err2 != nil {
		return nil, err
	}
	return nil, sizeError{fmt.Errorf("%w: a file's size is not what it says", ErrBadListing)}
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
func (f *fetch) proveSize(ctx context.Context, s source, size int64) (*proof, error) {
	if err := f.admit(size); err != nil {
		return nil, err
	}
	groups := content.GroupCount(size)
	var o *content.Outboard
	var last []byte
	var err error
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
			return &proof{size, o, last}, nil
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
	return &proof{size, o, last}, nil
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
