package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	libp2p "github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// load pins without a pause, from a node in the test's process that is a writer of
// the group and no member.
type load struct {
	group  coord.GroupID
	coord  *coord.Coord
	via    []libp2p.AddrInfo
	prefix string
	count  atomic.Int64
	stop   context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	acked  []string  // names
	last   time.Time // when the last pin was acknowledged
	gap    time.Duration
	failed map[string]int // errors by text
}

// newLoad makes a writer of the members' group that pins nothing yet.
func newLoad(t *testing.T, all []*member) *load {
	t.Helper()
	w := newWriters(t, all[0], 1)[0]
	l := &load{group: groupID(t, all[0]), coord: w.coord, via: addrsOf(t, all), failed: map[string]int{}}
	t.Cleanup(l.end)
	return l
}

// start pins with some clients at a time, each asking another member first, until
// end.
func (l *load) start(clients int, prefix string) {
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.prefix, l.last, l.gap = stop, prefix, time.Now(), 0
	for i := range clients {
		at := i % len(l.via)
		cl := l.coord.Client(l.group, slices.Concat(l.via[at:], l.via[:at])...)
		l.tasks.Go(func() {
			for ctx.Err() == nil {
				l.pin(ctx, cl)
			}
		})
	}
}

// end returns once all clients have stopped. It may be called twice.
func (l *load) end() {
	if l.stop != nil {
		l.stop()
	}
	l.tasks.Wait()
}

func (l *load) pin(ctx context.Context, cl *coord.Client) {
	name := fmt.Sprintf("%s-%d-%s", l.prefix, l.count.Add(1), strings.Repeat("x", 160))
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := cl.Pin(ctx, coord.PinOptions{Name: share.Name(name), ID: content.Root([]byte(name)), Kind: coord.KindFile, Size: 1})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		for _, known := range []error{coord.ErrDiskFull, coord.ErrNoQuorum, coord.ErrNoLeader, context.Canceled, context.DeadlineExceeded} {
			if errors.Is(err, known) {
				err = known
				break
			}
		}
		text, _, _ := strings.Cut(err.Error(), "\n") // one line for each member that was asked
		l.failed[text]++
		return
	}
	l.acked = append(l.acked, name)
	l.gap, l.last = max(l.gap, time.Since(l.last)), time.Now()
}

// ackedCount is how many pins were acknowledged.
func (l *load) ackedCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// awaitMore returns once count more pins are acknowledged, and how long that took.
func (l *load) awaitMore(t *testing.T, count int, atMost time.Duration) time.Duration {
	t.Helper()
	start, from := time.Now(), l.ackedCount()
	for l.ackedCount() < from+count {
		if time.Since(start) > atMost {
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("%d pins acknowledged within %v, want %d; errors %v", len(l.acked)-from, atMost, count, l.failed)
		}
		time.Sleep(10 * time.Millisecond) // nothing signals it
	}
	return time.Since(start)
}

// check compares what was acknowledged with a member's fresh list.
func (l *load) check(t *testing.T, m *member, when string) {
	t.Helper()
	have := m.pins(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	lost := 0
	for _, name := range l.acked {
		if !have[name] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%s: %d of %d acknowledged pins are lost", when, lost, len(l.acked))
	}
	t.Logf("%s: %d pins acknowledged, %d lost, longest pause %v, errors %v", when, len(l.acked), lost, l.gap.Round(time.Millisecond), l.failed)
}

// leaderOf returns who leads, and the others.
func leaderOf(t *testing.T, all []*member) (leader *member, others []*member) {
	t.Helper()
	id := awaitGroup(t, all[0], "a leader", func(g event) bool { return g.text("leader") != "" }).text("leader")
	for _, m := range all {
		if m.id == id {
			leader = m
		} else {
			others = append(others, m)
		}
	}
	return leader, others
}

// awaitWhole waits until all are up, none lags, and all members' own pins are equal.
func awaitWhole(t *testing.T, all []*member, atMost time.Duration) time.Duration {
	t.Helper()
	start := time.Now()
	var last event
	for time.Since(start) < atMost {
		last = nil
		r := all[0].runPlain(t, "group", "status")
		if r.code == 0 && len(r.events) > 0 {
			last = r.events[len(r.events)-1]
		}
		if int(last.number("voters_up")) == len(all) && last.text("leader") != "" && lagOf(last) == 0 && equalPins(t, all) {
			return time.Since(start)
		}
	}
	t.Fatalf("the group is not whole within %v: %v", atMost, last)
	return 0
}

func lagOf(status event) (lag int64) {
	list, _ := status["members"].([]any)
	for _, m := range list {
		lag += event(m.(map[string]any)).number("lag")
	}
	return lag
}

// equalPins says whether the members' own lists are the same to the byte.
func equalPins(t *testing.T, all []*member) bool {
	t.Helper()
	var first string
	for i, m := range all {
		r := m.runPlain(t, "pins", "--stale")
		var b strings.Builder
		for _, e := range r.events {
			delete(e, "stale")
			delete(e, "age_s")
			fmt.Fprintln(&b, map[string]any(e))
		}
		if r.code != 0 {
			return false
		}
		if i == 0 {
			first = b.String()
		} else if b.String() != first {
			return false
		}
	}
	return true
}
