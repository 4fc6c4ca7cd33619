package share

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
	"golang.org/x/sync/errgroup"
)

const (
	// requestsPerSource is how many spans of up to 4 MiB one source owes at a
	// time, if it is fast enough: 32 MiB in flight fill a path of 2 Gb/s at 130 ms.
	requestsPerSource = 8
	// considerEvery is how often the decisions are looked at when nothing
	// happens: a source that falls silent makes no event.
	considerEvery = 200 * time.Millisecond
	// lonelyMax is how long a get waits for news when nobody it knows has
	// anything that it lacks: those who do may be getting it themselves.
	lonelyMax = 20 * time.Second
)

// drive keeps every source of the crowd busy until all is here. opener, if
// there is one, has proved the size.
func (f *fetch) drive(ctx context.Context, opener source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	active := map[source]bool{}
	tick := time.NewTicker(considerEvery)
	defer tick.Stop()
	for {
		live, more, change := f.crowd.members()
		for _, s := range live {
			if !active[s] {
				active[s] = true
				f.enlist(ctx, g, s, s == opener)
			}
		}
		done, useful, hope, progress := f.standing()
		if done {
			break
		}
		if !useful && !more && !f.crowd.more(ctx, f.id) && !hope {
			cancel()
			return errors.Join(f.crowd.verdict(f.id), ignoreCancelled(g.Wait()))
		}
		select {
		case <-change:
		case <-progress:
		case <-tick.C:
			f.mu.Lock()
			f.withdraw()
			f.settled()
			f.mu.Unlock()
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

// standing tells whether all is here, whether any source holds what is missing,
// and whether one that takes part may soon.
func (f *fetch) standing() (done, useful, hope bool, progress <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.numbers {
		useful = useful || f.download.Useful(n)
	}
	hope = len(f.numbers) > 0 && f.now()-f.news < lonelyMax
	return f.download.Done(), useful, hope, f.progress
}

// enlist lets s take part, with requestsOf(s) requests at a time. What a
// peer holds is asked first; of one that has proved the size it is guessed meanwhile.
func (f *fetch) enlist(ctx context.Context, g *errgroup.Group, s source, proved bool) {
	a := &attended{fetch: f, source: s, lacks: make(chan struct{}, 1)}
	if r, ok := s.(*remote); ok && f.attends() {
		a.remote = r
	}
	f.mu.Lock()
	f.next++
	a.number = f.next
	f.numbers[s] = a.number
	join := f.download.JoinPartial
	switch {
	case a.remote == nil:
		join = f.download.Join
	case proved:
		join = f.download.JoinGuessed
	}
	join(a.number, tagOf(s.peer()))
	f.mu.Unlock()

	ctx, a.cancel = context.WithCancel(ctx)
	left := new(sync.WaitGroup)
	if a.remote != nil {
		left.Add(1)
		g.Go(func() error {
			defer left.Done()
			a.attend(ctx)
			return nil
		})
	}
	workers := 0       // guarded by f.mu
	a.staff = func() { // the caller holds f.mu, and there is a worker or none was started
		for ; workers < requestsOf(s); workers++ {
			left.Add(1)
			g.Go(func() error {
				defer left.Done()
				return a.work(ctx)
			})
		}
	}
	f.mu.Lock()
	a.staff()
	f.mu.Unlock()
	g.Go(func() error { // the last request out sees the source off
		left.Wait()
		a.cancel()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.download.Leave(a.number)
		delete(f.numbers, s)
		f.settled()
		return nil
	})
}

// tagOf stands for a peer where blocks are shared among getters.
func tagOf(p peer.ID) uint64 {
	id := content.Root([]byte(p))
	return binary.BigEndian.Uint64(id[:])
}

// settled wakes whoever waits for work or for the end. The caller holds f.mu.
func (f *fetch) settled() {
	close(f.progress)
	f.progress = make(chan struct{})
}

// attended is a source that takes part in a fetch.
type attended struct {
	fetch  *fetch
	source source
	remote *remote // the source, when it is asked what it holds; else nil
	number swarm.Source
	cancel context.CancelFunc // ends its part
	staff  func()             // starts more workers, if it may owe more by now
	lacks  chan struct{}      // capacity 1: it has turned out to lack something

	told      bool      // guarded by fetch.mu: it has said what it holds
	refused   int       // guarded by fetch.mu: requests since told and its last group that it answered with "not held"
	busySince time.Time // guarded by fetch.mu: nothing came since it was busy first; zero: it is not
}

// refusedMax is how often in a row a source may not hold what it was asked for,
// when it said that it did. Some were asked before it said what it holds.
const refusedMax = 64

// work asks the source for one span after the other. It returns an error only
// when the whole fetch must end.
func (a *attended) work(ctx context.Context) error {
	f := a.fetch
	for {
		f.mu.Lock()
		span, ok := f.download.Next(a.number, f.now())
		done, progress, sinkErr := f.download.Done(), f.progress, f.sinkErr
		f.mu.Unlock()
		switch {
		case ok: // it must be settled, whatever has ended
			if again, err := a.request(ctx, span); !again {
				return err
			}
			continue
		case done || ctx.Err() != nil:
			return sinkErr
		}
		select {
		case <-progress:
		case <-ctx.Done():
		}
	}
}

// request asks for one span, and tells whether the source is asked again.
func (a *attended) request(ctx context.Context, span content.Span) (again bool, fatal error) {
	f, r := a.fetch, swarm.Request{Source: a.number, Span: span}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	f.mu.Lock()
	f.cancels[r] = cancel
	f.mu.Unlock()
	err := a.source.span(asking, f.id, f.size, span, func(index int64, data []byte) error {
		if err := f.verify(f.outboard, a.source, index, data); err != nil {
			return err
		}
		if err := f.accept(a.source, a.number, index, data); err != nil {
			return err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		a.refused, a.busySince = 0, time.Time{}
		a.staff()
		return nil
	})
	return a.settle(ctx, r, err, asking.Err() != nil)
}

// settle notes how a request has ended, and tells whether the source is asked
// again.
func (a *attended) settle(ctx context.Context, r swarm.Request, err error, pointless bool) (again bool, fatal error) {
	f := a.fetch
	f.mu.Lock()
	delete(f.cancels, r)
	f.download.Settled(a.number, r.Span)
	switch {
	case errors.Is(err, ErrCorrupt):
		f.download.Expel(a.number)
	case errors.Is(err, errNotHeld) && a.remote != nil:
		f.download.Lacks(a.number, r.Span)
		if a.told {
			a.refused++
		}
	}
	refused := a.refused
	f.settled()
	sinkErr := f.sinkErr
	f.mu.Unlock()
	switch {
	case sinkErr != nil:
		return false, sinkErr
	case err == nil:
		return true, nil
	case errors.Is(err, errBusy):
		return a.busy(ctx), nil
	case errors.Is(err, errNotHeld) && a.remote != nil && refused < refusedMax:
		select {
		case a.lacks <- struct{}{}:
		default: // it is known already
		}
		return true, nil
	case errors.Is(err, errNotHeld) && a.remote == nil:
		a.cancel() // nobody will tell when that changes
		return false, nil
	case ctx.Err() != nil:
		return false, nil
	case pointless && errors.Is(err, context.Canceled):
		return true, nil
	}
	f.crowd.drop(a.source, err)
	a.cancel()
	return false, nil
}
