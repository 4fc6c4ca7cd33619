package e2e

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/coord"
)

// largeGroup is what a large group is measured with, and must keep to.
type largeGroup struct {
	pins        int
	memoryMax   int64 // of each daemon, resident
	restartMax  time.Duration
	catchUpMax  time.Duration
	recoverMax  time.Duration
	writeMax    time.Duration // of each write while the learner catches up and the leader takes a snapshot
	awaitShot   bool          // a snapshot of the leader while writes go on
	inFlight    int           // while loading
	connections int
}

var (
	million = largeGroup{pins: 1_000_000, memoryMax: 400_000_000, restartMax: 5 * time.Second, catchUpMax: 15 * time.Second, recoverMax: 30 * time.Second,
		writeMax: 500 * time.Millisecond, awaitShot: true, inFlight: 128, connections: 4}
	thousands = largeGroup{pins: 5_000, memoryMax: 300_000_000, restartMax: 20 * time.Second, catchUpMax: 30 * time.Second, recoverMax: 30 * time.Second,
		writeMax: 5 * time.Second, inFlight: 128, connections: 2}
)

var longPins = flag.Int("pins", million.pins, "how many pins TestMillionPins loads with -long")

// TestMillionPins loads a group of three daemons, and looks at what that costs:
// memory, a restart, an empty learner while writes go on and the leader takes a
// snapshot, a recovery by the one that is left, a backup. In full, with a million pins, it takes some minutes:
//
//	go test ./cli/e2e -run TestMillionPins -timeout 20m -args -long
func TestMillionPins(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	c := thousands
	if *long {
		c = million
		c.pins = *longPins
	}
	all := newGroup(t, 3)
	for _, m := range all {
		m.group(t, "set", "--no-store") // it is the index that is looked at: nobody has what is pinned
	}
	group := groupID(t, all[0])
	writers := newWriters(t, all[0], c.connections)
	var next atomic.Int64
	loaded := c.load(t, group, writers, all, &next)
	t.Logf("loaded with %d in flight: %v; processor time of the members for a write %v",
		c.inFlight, loaded, daemonsCPU(t, all)/time.Duration(c.pins))
	for _, m := range all {
		c.awaitPins(t, m, writers[0].ask(t, group, m))
	}
	c.checkMemory(t, "loaded", all...)

	awaitIdle(t, all) // on one machine the others' snapshots would be in its way
	follower := leaderFirst(t, all)[1]
	took := c.restart(t, follower, group, writers[0])
	t.Logf("a member that was killed serves %v after its start", took.Round(time.Millisecond))
	if took > c.restartMax {
		t.Errorf("restart to serving: %v, want at most %v", took, c.restartMax)
	}
	c.checkMemory(t, "restarted", follower)

	learner := c.catchUp(t, group, writers, all[0], leaderFirst(t, all), &next)
	c.checkMemory(t, "caught up", append(all, learner)...)

	c.recover(t, all[0], all[1], all[2], learner)
}

// awaitIdle waits until the daemons use less than a tenth of a processor.
func awaitIdle(t *testing.T, all []*member) {
	t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	used := daemonsCPU(t, all)
	for deadline := time.Now().Add(commandMax); time.Now().Before(deadline); {
		<-tick.C
		now := daemonsCPU(t, all)
		if now-used < 100*time.Millisecond {
			return
		}
		used = now
	}
	t.Fatal("the daemons do not come to rest")
}

// recover kills all members but one, an admin's, which then goes on by itself.
func (c largeGroup) recover(t *testing.T, survivor *member, dead ...*member) {
	t.Helper()
	for _, m := range dead {
		m.daemon.end(t, os.Kill)
	}
	for deadline := time.Now().Add(commandMax); ; {
		began := time.Now()
		r := survivor.runPlain(t, "group", "recover", "--yes", "--force")
		took := time.Since(began)
		if r.code == 0 {
			t.Logf("recovered, alone, in %v", took.Round(time.Millisecond))
			if took > c.recoverMax {
				t.Errorf("recovered in %v, want at most %v", took, c.recoverMax)
			}
			break
		}
		if r.code != 9 || time.Now().After(deadline) { // 9: it has not noticed yet that the leader is dead
			t.Fatalf("group recover: exit %d\n%s", r.code, r.stderr)
		}
	}
	file := filepath.Join(survivor.dir, "backup")
	began := time.Now()
	if done := survivor.group(t, "backup", file); event(done["backup"].(map[string]any)).number("pins") < int64(c.pins) {
		t.Errorf("backup after the recovery: %v, want %d pins at least", done, c.pins)
	}
	t.Logf("backed up in %v", time.Since(began).Round(time.Millisecond))
}

// load pins, through the leader, on all connections.
func (c largeGroup) load(t *testing.T, group coord.GroupID, writers []*writer, all []*member, next *atomic.Int64) writeLoad {
	t.Helper()
	list := leaderFirst(t, all)
	var clients []*coord.Client
	for _, w := range writers {
		clients = append(clients, w.ask(t, group, list...))
	}
	l, err := write(t.Context(), clients, c.inFlight, c.pins, next, filePin)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// awaitPins waits until a member has all pins, by its own word.
func (c largeGroup) awaitPins(t *testing.T, m *member, cl *coord.Client) coord.Status {
	t.Helper()
	var last coord.Status
	var err error
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for deadline := time.Now().Add(commandMax); time.Now().Before(deadline); <-tick.C {
		if last, err = statusOf(t, cl); err == nil && last.Pins >= c.pins {
			return last
		}
	}
	t.Fatalf("%s has %d pins, want %d (%v)\n%s", m.id, last.Pins, c.pins, err, m.daemon.stderr)
	return last
}

// askEvery is between two questions to a member how far it is: it has work to do.
const askEvery = 20 * time.Millisecond

func statusOf(t *testing.T, cl *coord.Client) (coord.Status, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	s, _, err := cl.Status(ctx)
	return s, err
}

// checkMemory looks at the resident sets: as they are, and the largest there were.
func (c largeGroup) checkMemory(t *testing.T, when string, all ...*member) {
	t.Helper()
	for _, m := range all {
		now, peak := m.daemon.memory(t), m.daemon.memoryPeak(t)
		t.Logf("%s: %s VmRSS %d MB, VmHWM %d MB", when, m.id[len(m.id)-4:], now/1e6, peak/1e6)
		if peak > c.memoryMax {
			t.Errorf("%s: %s had %d MB resident (VmHWM), want at most %d", when, m.id, peak/1e6, c.memoryMax/1e6)
		}
	}
}

// restart kills a member and starts it again. It returns how long after the start
// it answers from a state that has all pins.
func (c largeGroup) restart(t *testing.T, m *member, group coord.GroupID, w *writer) time.Duration {
	t.Helper()
	m.daemon.end(t, os.Kill)
	m.start(t)
	cl := w.ask(t, group, m)
	c.awaitPins(t, m, cl)
	name := string(filePin(1).Name)
	if b, _, err := cl.Resolve(t.Context(), name, coord.ReadOptions{Stale: true}); err != nil || b.ID != contentID(1) {
		t.Fatalf("resolve %q at a member that came back: %v, %v", name, b.ID, err)
	}
	return time.Since(m.daemon.started)
}

// catchUp has an empty member join while writes go on, which go on until the
// leader has taken a snapshot, too.
func (c largeGroup) catchUp(t *testing.T, group coord.GroupID, writers []*writer, admin *member, list []*member, next *atomic.Int64) *member {
	t.Helper()
	leader := list[0]
	at := writers[0].ask(t, group, leader)
	before, err := statusOf(t, at)
	if err != nil {
		t.Fatal(err)
	}
	snapshots := snapshotsOf(t, leader)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var busy writeLoad
	var lost error
	written := make(chan struct{})
	var clients []*coord.Client
	for _, w := range writers {
		clients = append(clients, w.ask(t, group, list...))
	}
	go func() {
		defer close(written)
		busy, lost = write(ctx, clients, 16, math.MaxInt, next, filePin)
	}()

	token := admin.group(t, "invite", "--role", "storage").text("token")
	m := startMember(t, loopback...)
	joined := time.Now()
	m.group(t, "join", token, "--no-store")
	own := writers[0].ask(t, group, m)
	goal := uint64(math.MaxUint64)
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for deadline := joined.Add(commandMax); ; <-tick.C {
		s, err := statusOf(t, own)
		if err == nil && s.Applied >= goal {
			break
		}
		if err == nil && s.Pins >= c.pins && goal == math.MaxUint64 {
			// All that was committed when it had all pins: the tail of what goes on.
			ls, err := statusOf(t, at)
			if err != nil {
				t.Fatal(err)
			}
			goal = ls.Commit
		}
		if time.Now().After(deadline) {
			t.Fatalf("the learner is at %d (%v), want %d\n%s", s.Applied, err, goal, m.daemon.stderr)
		}
	}
	took := time.Since(joined)
	for deadline := time.Now().Add(commandMax); c.awaitShot && slices.Equal(snapshots, snapshotsOf(t, leader)); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the leader takes no snapshot")
		}
		if _, err := statusOf(t, at); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	<-written
	t.Logf("an empty learner had caught up %v after it asked to join; meanwhile with 16 in flight: %v", took.Round(time.Millisecond), busy)
	if took > c.catchUpMax {
		t.Errorf("an empty learner caught up in %v, want at most %v", took, c.catchUpMax)
	}
	if lost != nil {
		t.Errorf("writes were lost: %v", lost)
	}
	if slowest := busy.quantile(1); slowest > c.writeMax {
		t.Errorf("a write took %v, want at most %v", slowest, c.writeMax)
	}
	after, err := statusOf(t, at)
	if err != nil || after.Term != before.Term || after.Leader != before.Leader {
		t.Errorf("leader and term: %s in %d, then %s in %d (%v), want no change", before.Leader, before.Term, after.Leader, after.Term, err)
	}
	return m
}

// snapshotsOf are the names of the snapshots that a member keeps of its group.
func snapshotsOf(t *testing.T, m *member) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(m.home, "groups", "*", "snapshots", "*.snapshot"))
	if err != nil {
		t.Fatal(fmt.Errorf("snapshots of %s: %w", m.id, err))
	}
	return list
}
