package e2e

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Goals for how long a group goes without a committed write.
const (
	killedMedian = time.Second
	killedMax    = 2500 * time.Millisecond
	stoppedMax   = 300 * time.Millisecond
)

// writes has one client pin without a break, and keeps when each pin was
// acknowledged.
type writes struct {
	crowd
	mu    sync.Mutex
	acked []time.Time // guarded by mu
	grew  chan struct{}
}

func (c *cluster) startWrites() *writes {
	w := &writes{grew: make(chan struct{}, 1)}
	h := newHistory()
	a := newAsker(0, c.watcher, c.group, c.from(0), h, []string{"failover"}, writerPatience)
	w.run(c.t.Context(), func(ctx context.Context) {
		for ctx.Err() == nil {
			if a.pin(ctx, "failover", true) != nil {
				continue
			}
			w.mu.Lock()
			w.acked = append(w.acked, time.Now())
			w.mu.Unlock()
			select {
			case w.grew <- struct{}{}:
			default:
			}
		}
	})
	return w
}

// after waits for a write acknowledged after at, and returns when that was.
func (w *writes) after(t testing.TB, at time.Time) time.Time {
	t.Helper()
	deadline := time.After(electionMax)
	for {
		w.mu.Lock()
		i, _ := slices.BinarySearchFunc(w.acked, at, time.Time.Compare)
		if i < len(w.acked) {
			defer w.mu.Unlock()
			return w.acked[i]
		}
		w.mu.Unlock()
		select {
		case <-w.grew:
		case <-deadline:
			t.Fatalf("no write is acknowledged within %v", electionMax)
		}
	}
}

// pause returns the longest time between two writes since from.
func (w *writes) pause(from time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearchFunc(w.acked, from, time.Time.Compare)
	for i = max(i, 1); i < len(w.acked); i++ {
		longest = max(longest, w.acked[i].Sub(w.acked[i-1]))
	}
	return longest
}

// TestFailover measures how long a client that keeps trying writes nothing when
// the leader is killed, and when it is told to stop. The goals are those of a
// machine with nothing else to do, and are held against the long run only:
//
//	go test ./cli/e2e -run '^TestFailover$' -v -args -long
func TestFailover(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 s")
	}
	trials := 2
	if *long {
		trials = 20
	}
	c := newCluster(t)
	w := c.startWrites()
	defer w.stop()
	w.after(t, time.Now())
	var killed, stopped []time.Duration
	for range trials {
		l := c.leader(nil)
		at := time.Now()
		c.kill(l)
		killed = append(killed, w.after(t, time.Now()).Sub(at))
		c.restore(l)
	}
	for range trials {
		l := c.leader(nil)
		from := time.Now()
		if code := l.daemon.end(t, syscall.SIGTERM); code != 0 {
			t.Errorf("a daemon that is told to stop exits with %d", code)
		}
		w.after(t, time.Now())
		stopped = append(stopped, w.pause(from))
		c.restore(l)
	}
	report := func(what string, list []time.Duration) (median, worst time.Duration) {
		slices.Sort(list)
		median, worst = list[len(list)/2], list[len(list)-1]
		t.Logf("leader %s, %d times: min %v, median %v, max %v", what, len(list),
			list[0].Round(time.Millisecond), median.Round(time.Millisecond), worst.Round(time.Millisecond))
		return median, worst
	}
	median, worst := report("killed", killed)
	_, pause := report("stopped", stopped)
	if *long && (median > killedMedian || worst > killedMax) {
		t.Errorf("leader killed: median %v, max %v, want at most %v and %v", median, worst, killedMedian, killedMax)
	}
	if *long && pause > stoppedMax {
		t.Errorf("leader stopped: max %v, want at most %v", pause, stoppedMax)
	}
}

// restore starts a member that is down, and returns when it has caught up.
func (c *cluster) restore(m *member) {
	c.t.Helper()
	c.startAll(m)
	awaitGroup(c.t, m, "its voters", func(g event) bool {
		return g.text("leader") != "" && g.number("voters_up") == voterCount
	})
}
