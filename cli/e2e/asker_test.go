package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	p2ppeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
)

// asker is one client of a group. It asks for one thing at a time, and writes
// down what it saw.
type asker struct {
	id      int
	names   []string
	history *history
	client  *coord.Client
	renew   func() *coord.Client
	patient time.Duration // for one answer
	known   map[string]bound
}

// bound is what an asker last saw a name bound to, and where that was made.
type bound struct {
	value value
	index uint64
}

func newAsker(id int, c *coord.Coord, group coord.GroupID, via []p2ppeer.AddrInfo, h *history, names []string, patient time.Duration) *asker {
	renew := func() *coord.Client { return c.Client(group, via...) }
	return &asker{id: id, names: names, history: h, client: renew(), renew: renew, patient: patient, known: map[string]bound{}}
}

// read resolves a name. What can't be answered is left out of the history: it
// changes nothing and tells nothing.
func (a *asker) read(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, a.patient)
	defer cancel()
	call := a.history.now()
	b, _, err := a.client.Resolve(ctx, name, coord.ReadOptions{})
	var is bound
	switch {
	case err == nil:
		is = bound{valueOf(b.ID), b.Index}
		a.history.saw(is.value, is.index)
	case denies(err):
		a.history.failed(fmt.Errorf("read %s: %w", name, err))
		return err
	case !errors.Is(err, coord.ErrNotFound):
		return err
	}
	a.history.add(a.id, call, operation{name: name, read: true}, outcome{value: is.value})
	a.known[name] = is
	return nil
}

// denies says whether the group denies something. That this peer is a stranger is one
// member's word, which may not have applied the grant yet.
func denies(err error) bool {
	var refused *coord.RefusedError
	return errors.Is(err, coord.ErrDenied) && !errors.As(err, &refused)
}

// pin binds a name to a new content, where what this asker last saw is there, or
// anyway. It returns nil when that is done.
func (a *asker) pin(ctx context.Context, name string, expectAny bool) error {
	was := a.known[name]
	op := operation{name: name, expect: was.value, value: a.history.next()}
	expect := coord.Expect(was.index)
	if expectAny {
		op.expect, expect = anyway, coord.ExpectAny
	}
	return a.write(ctx, op, func(ctx context.Context) (uint64, error) {
		return a.client.Pin(ctx, coord.PinOptions{Name: share.Name(name), ID: op.value.content(), Kind: coord.KindFile, Size: 1, Expect: expect})
	})
}

// unpin takes a name away, where what this asker last saw is there, which is
// something.
func (a *asker) unpin(ctx context.Context, name string) error {
	was := a.known[name]
	return a.write(ctx, operation{name: name, expect: was.value}, func(ctx context.Context) (uint64, error) {
		return a.client.Unpin(ctx, name, coord.Expect(was.index))
	})
}

func (a *asker) write(ctx context.Context, op operation, do func(context.Context) (uint64, error)) error {
	ctx, cancel := context.WithTimeout(ctx, a.patient)
	defer cancel()
	call := a.history.now()
	index, err := do(ctx)
	var refused *coord.AnswerError
	switch {
	case err == nil:
		a.known[op.name] = bound{}
		if op.value != unbound {
			a.known[op.name] = bound{op.value, index}
			a.history.saw(op.value, index)
		}
		a.history.add(a.id, call, op, outcome{})
	case errors.Is(err, coord.ErrConflict) && errors.As(err, &refused), errors.Is(err, coord.ErrNotFound):
		var is bound
		if refused != nil && refused.Binding != nil {
			is = bound{valueOf(refused.Binding.ID), refused.Current}
			a.history.saw(is.value, is.index)
		}
		a.known[op.name] = is
		a.history.add(a.id, call, op, outcome{value: is.value, refused: true})
	case denies(err), errors.Is(err, coord.ErrInvalid):
		a.history.failed(fmt.Errorf("write %+v: %w", op, err))
	default:
		a.history.add(a.id, call, op, outcome{unknown: true})
		a.client = a.renew() // another client: this one does not know what it has done
	}
	return err
}

// work reads and writes at random until ctx ends. It begins no write while writes is
// locked.
func (a *asker) work(ctx context.Context, random *rand.Rand, readsOnly bool, writes *sync.RWMutex) {
	for ctx.Err() == nil {
		name := a.names[random.IntN(len(a.names))]
		if n := random.IntN(100); readsOnly || n < 40 {
			a.read(ctx, name)
		} else {
			writes.RLock()
			a.writeAny(ctx, name, n)
			writes.RUnlock()
		}
		pause(ctx, time.Duration(random.Int64N(int64(thinkMax))))
	}
}

// writeAny does the kind of write that n, from 40 to 99, stands for.
func (a *asker) writeAny(ctx context.Context, name string, n int) {
	switch {
	case n < 75:
		a.pin(ctx, name, false)
	case n < 90 || a.known[name].value == unbound:
		a.pin(ctx, name, true)
	default:
		a.unpin(ctx, name)
	}
}

// thinkMax is the most that an asker waits before it asks again: that leaves the
// checker as much as it can check, and leaves gaps in which followers do not know
// yet what was committed last.
const thinkMax = 20 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// crowd are askers at work.
type crowd struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (c *crowd) run(ctx context.Context, asks ...func(context.Context)) {
	ctx, c.cancel = context.WithCancel(ctx)
	for _, ask := range asks {
		c.wg.Go(func() { ask(ctx) })
	}
}

// stop returns when all have ended.
func (c *crowd) stop() {
	c.cancel()
	c.wg.Wait()
}
