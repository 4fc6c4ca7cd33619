package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/coord"
)

// ledger is what was acknowledged: names that must be bound to that value.
type ledger struct {
	mu    sync.Mutex
	acked map[string]value // guarded by mu
}

func (l *ledger) add(name string, v value) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[name] = v
}

func (l *ledger) snapshot() map[string]value {
	l.mu.Lock()
	defer l.mu.Unlock()
	copied := make(map[string]value, len(l.acked))
	for name, v := range l.acked {
		copied[name] = v
	}
	return copied
}

// fill pins a name of its own after the other until ctx ends, and goes on with the
// next when it does not know what became of one.
func (l *ledger) fill(ctx context.Context, a *asker) {
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("pin-%d-%d", a.id, n)
		if a.pin(ctx, name, false) == nil {
			l.add(name, a.known[name].value)
		}
		delete(a.known, name)
	}
}

// check reads all pins and fails for each acknowledged one that is not there. What
// is acknowledged before the read begins must be in it.
func (l *ledger) check(t testing.TB, c *cluster, when string) {
	t.Helper()
	want := l.snapshot()
	have, err := c.pinned(t)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	lost := 0
	for name, v := range want {
		if have[name] != v {
			if lost++; lost <= 10 {
				t.Errorf("%s: %s = %d was acknowledged, the group has %d", when, name, v, have[name])
			}
		}
	}
	t.Logf("%s: %d pins acknowledged, %d there, %d lost", when, len(want), len(have), lost)
}

// pinned is what names mean by a fresh read, as soon as there is one.
func (c *cluster) pinned(t testing.TB) (have map[string]value, err error) {
	client := c.watcher.Client(c.group, c.via...)
	for deadline := time.Now().Add(electionMax); time.Now().Before(deadline); {
		have, err = map[string]value{}, nil
		for p, e := range client.Pins(t.Context(), coord.ReadOptions{}) {
			if e != nil {
				err = e
				break
			}
			for _, name := range p.Names {
				have[name] = valueOf(p.ID)
			}
		}
		if err == nil {
			return have, nil
		}
	}
	return nil, err
}

// TestKill kills random members while clients pin, and then all at once, and looks
// for every pin that was acknowledged. At full length, 200 kills and 50 of all:
//
//	go test ./cli/e2e -run '^TestKill$' -v -timeout 30m -args -long
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 s")
	}
	one, all, checkEvery := 5, 2, 5
	if *long {
		one, all, checkEvery = 200, 50, 25
	}
	c := newCluster(t)
	l := &ledger{acked: map[string]value{}}
	h := newHistory()
	var asks []func(context.Context)
	for i := range writerCount {
		a := newAsker(i, c.watcher, c.group, c.from(i), h, nil, writerPatience)
		asks = append(asks, func(ctx context.Context) { l.fill(ctx, a) })
	}
	var people crowd
	people.run(t.Context(), asks...)
	defer people.stop()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	round := func(n int, what string, victims func() []*member) {
		for i := range n {
			l.grows(t)
			ms := victims()
			pause(t.Context(), time.Duration(random.Int64N(int64(50*time.Millisecond)))) // at any moment of a write
			c.kill(ms...)
			c.startAll(ms...)
			if (i+1)%checkEvery == 0 || i == n-1 {
				l.check(t, c, fmt.Sprintf("after %d kills of %s", i+1, what))
			}
		}
	}
	round(one, "one member", func() []*member { i := random.IntN(voterCount); return c.members[i : i+1] })
	round(all, "all members", func() []*member { return c.members })
	people.stop()
	l.check(t, c, "at the end")
}

// grows waits until the group acknowledges pins.
func (l *ledger) grows(t testing.TB) {
	t.Helper()
	was := len(l.snapshot())
	for deadline := time.Now().Add(electionMax); time.Now().Before(deadline); pause(t.Context(), 10*time.Millisecond) {
		if len(l.snapshot()) > was+writerCount {
			return
		}
	}
	t.Fatalf("no pin is acknowledged within %v", electionMax)
}
