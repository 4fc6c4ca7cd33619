package share

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// errBusy is a source's answer when too many ask it: it is asked again later, and
// others meanwhile.
var errBusy = errors.New("busy: it can be asked again later")

const (
	// busyRetry is how long a source that was busy is left alone, and up to half as
	// much more by chance. A sharer remembers for 10 s whom it has turned away, to
	// take them in their order.
	busyRetry = 3 * time.Second
	// busyMax is how long a source may be busy without giving anything, until it is
	// dropped.
	busyMax = 10 * time.Minute
)

var errBusyTooLong = fmt.Errorf("it has been busy for %s: %w", busyMax, ErrUnreachable)

// restBusy waits until a source that was busy may be asked again, or ctx ends.
func restBusy(ctx context.Context) {
	rest := time.NewTimer(busyRetry + rand.N(busyRetry/2))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-ctx.Done():
	}
}

// proveWhenFree is prove, again as long as s is busy.
func (f *fetch) proveWhenFree(ctx context.Context, s source) (*proof, error) {
	for begun := time.Now(); ; {
		p, err := f.prove(ctx, s)
		switch {
		case !errors.Is(err, errBusy):
			return p, err
		case time.Since(begun) > busyMax:
			return nil, errBusyTooLong
		}
		restBusy(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// busy waits after the source was busy, and tells whether to ask it again. Those
// who were put aside are dialled meanwhile.
func (a *attended) busy(ctx context.Context) (again bool) {
	f := a.fetch
	f.mu.Lock()
	if a.busySince.IsZero() {
		a.busySince = time.Now()
	}
	long := time.Since(a.busySince) > busyMax
	f.mu.Unlock()
	if long {
		f.crowd.drop(a.source, errBusyTooLong)
		a.cancel()
		return false
	}
	if f.crowd.library != nil { // else there is nobody to dial with
		f.crowd.callSpares(f.get)
	}
	restBusy(ctx)
	return true
}

// busySource is a source of small files that was busy.
type busySource struct {
	since time.Time // nothing came since
	until time.Time // it is left alone
}

// wasBusy takes a file back from a source that was busy, which may be asked for it
// again.
func (s *smallFetch) wasBusy(p pipeline, f *smallFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	b := s.busy[p]
	if b == nil {
		b = &busySource{since: now}
		s.busy[p] = b
	}
	if now.After(b.until) {
		b.until = now.Add(busyRetry + rand.N(busyRetry/2))
	}
	if now.Sub(b.since) < busyMax { // else it counts as asked, and may be given up
		f.tried = slices.DeleteFunc(f.tried, func(o source) bool { return o == p })
	}
	s.queue.failed(f)
	s.wakeAll()
}

// rests is for how long p is still left alone. The caller holds s.mu.
func (s *smallFetch) rests(p pipeline) time.Duration {
	if b := s.busy[p]; b != nil {
		return max(time.Until(b.until), 0)
	}
	return 0
}
