package raftlog

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// long runs the tests of random damage at their full counts, for a minute:
//
//	go test ./coord/internal/raftlog -args -long
var long = flag.Bool("long", false, "1,000 flipped bits, 4,000 torn tails and 200 kills rather than a tenth or less")

// small makes segments that fill after some hundred entries.
var small = Config{SegmentSize: 16 << 10}

func mustOpen(t testing.TB, dir string, c Config) (*Log, *Snapshots) {
	t.Helper()
	l, s, err := Open(dir, c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return l, s
}

// entry is what the tests store at an index.
func entry(index uint64) *raft.Log {
	e := &raft.Log{
		Index: index, Term: 1 + index/100, Type: raft.LogType(index % 2),
		Data:       bytes.Repeat([]byte(fmt.Sprint(index)), int(20+index%30)),
		AppendedAt: time.Unix(1_800_000_000, int64(index)).UTC(),
	}
	if index%5 == 0 {
		e.Extensions = fmt.Appendf(nil, "extension of %d", index)
	}
	return e
}

func batch(first uint64, n int) []*raft.Log {
	var es []*raft.Log
	for i := range n {
		es = append(es, entry(first+uint64(i)))
	}
	return es
}

// mustStore stores the entries from first to last, n at a time.
func mustStore(t testing.TB, l *Log, first, last uint64, n int) {
	t.Helper()
	for i := first; i <= last; i += uint64(n) {
		if err := l.StoreLogs(batch(i, min(n, int(last-i+1)))); err != nil {
			t.Fatalf("StoreLogs from %d: %v", i, err)
		}
	}
}

func bounds(l *Log) (first, last uint64) {
	first, _ = l.FirstIndex()
	last, _ = l.LastIndex()
	return first, last
}

func mustHold(t testing.TB, l *Log, first, last uint64) {
	t.Helper()
	if f, la := bounds(l); f != first || la != last {
		t.Fatalf("the log holds %d to %d, want %d to %d", f, la, first, last)
	}
	for i := first; i <= last && i > 0; i++ {
		var got raft.Log
		if err := l.GetLog(i, &got); err != nil {
			t.Fatalf("GetLog(%d): %v", i, err)
		}
		if !same(entry(i), &got) {
			t.Fatalf("GetLog(%d) (-want +got):\n%s", i, cmp.Diff(*entry(i), got))
		}
	}
}

// same is cmp.Equal, a hundred times as fast.
func same(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) &&
		bytes.Equal(a.Extensions, b.Extensions) && a.AppendedAt.Equal(b.AppendedAt)
}

func TestLogKeepsWhatRaftStores(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	if !l.IsMonotonic() {
		t.Error("IsMonotonic() = false, want raft-wal's answer, true")
	}
	mustHold(t, l, 0, 0)
	es := batch(1, 7)
	if err := l.StoreLogs(es); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(batch(1, 7), es); diff != "" {
		t.Errorf("StoreLogs changed Raft's entries (-before +after):\n%s", diff)
	}
	mustStore(t, l, 8, 600, 64) // over several segments
	if err := l.StoreLog(entry(601)); err != nil {
		t.Fatal(err)
	}
	mustHold(t, l, 1, 601)
	for _, index := range []uint64{0, 602} {
		if err := l.GetLog(index, new(raft.Log)); err != raft.ErrLogNotFound {
			t.Errorf("GetLog(%d) = %v, want raft.ErrLogNotFound itself", index, err)
		}
	}
	if err := l.DeleteRange(1, 300); err != nil { // compaction
		t.Fatal(err)
	}
	if err := l.DeleteRange(580, 601); err != nil { // a conflict
		t.Fatal(err)
	}
	mustHold(t, l, 301, 579)
	mustStore(t, l, 580, 610, 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close twice: %v", err)
	}

	// A log may begin after 1 only behind a snapshot.
	_, _, err := Open(dir, small)
	if d := (*DamagedError)(nil); !errors.As(err, &d) || d.First != 301 || d.Last != 610 {
		t.Fatalf("Open of a log from 301 without a snapshot = %v, want a DamagedError", err)
	}
	mustSnapshot(t, mustSnapshots(t, dir), 300, 4, "state")
	l, _ = mustOpen(t, dir, small)
	mustHold(t, l, 301, 610)
	if err := l.DeleteRange(301, 610); err != nil { // a snapshot from the leader
		t.Fatal(err)
	}
	mustHold(t, l, 0, 0)
	mustStore(t, l, 9000, 9010, 4)
	mustHold(t, l, 9000, 9010)
}

func TestStableValues(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, Config{})
	if v, err := l.Get([]byte("LastVoteCand")); v != nil || err != nil {
		t.Errorf("Get of nothing = %q, %v", v, err)
	}
	if v, err := l.GetUint64([]byte("CurrentTerm")); v != 0 || err != nil {
		t.Errorf("GetUint64 of nothing = %d, %v", v, err)
	}
	for term := range uint64(5) {
		if err := errors.Join(l.SetUint64([]byte("CurrentTerm"), term), l.Set([]byte("LastVoteCand"), fmt.Append(nil, "peer", term))); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	l, _ = mustOpen(t, dir, Config{})
	term, err1 := l.GetUint64([]byte("CurrentTerm"))
	vote, err2 := l.Get([]byte("LastVoteCand"))
	if term != 4 || string(vote) != "peer4" || err1 != nil || err2 != nil {
		t.Errorf("after a restart: term %d (%v), vote %q (%v), want 4 and peer4", term, err1, vote, err2)
	}
}

// A crash between the batch that closes a segment and the table that says so
// left raft-wal with a segment it opened for writing and then refused to write.
func TestLogGoesOnAfterACrashWhileChangingSegments(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	var before []byte // the state before the change
	first, err := os.ReadFile(filepath.Join(dir, logDir, stateName))
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for before == nil {
		mustStore(t, l, last+1, last+10, 10)
		last += 10
		if len(l.state.segments()) > 1 {
			before = first
		}
	}
	l.Close()
	if err := os.WriteFile(filepath.Join(dir, logDir, stateName), before, 0o600); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(dir, logDir, "*.wal"))
	if err := os.Remove(segments[1]); err != nil {
		t.Fatal(err)
	}
	closedBy := l.state.record.WAL.Segments[0].MaxIndex
	l, _ = mustOpen(t, dir, small)
	mustHold(t, l, 1, closedBy)
	mustStore(t, l, closedBy+1, closedBy+300, 7)
	l.Close()
	l, _ = mustOpen(t, dir, small)
	mustHold(t, l, 1, closedBy+300)
}

func TestOpenRefusesALogBehindItsWatermark(t *testing.T) {
	dir := t.TempDir()
	l, snapshots := mustOpen(t, dir, small)
	mustStore(t, l, 1, 20, 5)
	l.SetCommitted(15)
	l.SetCommitted(12)
	if got := l.Committed(); got != 15 {
		t.Errorf("Committed() = %d after 15 and 12, want 15", got)
	}
	l.Close()
	l, _ = mustOpen(t, dir, small)
	if got := l.Committed(); got != 15 {
		t.Errorf("Committed() = %d after a restart, want 15", got)
	}
	if err := l.DeleteRange(11, 20); err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, _, err := Open(dir, small)
	if d := (*DamagedError)(nil); !errors.As(err, &d) || d.First != 1 || d.Last != 10 || d.Watermark != 15 {
		t.Fatalf("Open of a log to 10 that was committed to 15 = %v, want a DamagedError{1, 10, 15}", err)
	}
	mustSnapshot(t, snapshots, 15, 1, "up to 15")
	l, _ = mustOpen(t, dir, small) // a snapshot is as good, and the log before it has been replaced
	mustHold(t, l, 0, 0)
	mustStore(t, l, 16, 18, 1)
}

func TestOpenDropsALogThatContradictsTheSnapshot(t *testing.T) {
	for _, tt := range []struct {
		index, term uint64
		holds       bool
	}{{10, 1, true}, {10, 2, false}, {20, 1, true}, {21, 1, false}} {
		dir := t.TempDir()
		l, snapshots := mustOpen(t, dir, small)
		mustStore(t, l, 1, 20, 5)
		mustSnapshot(t, snapshots, tt.index, tt.term, "")
		l.Close()
		l, _ = mustOpen(t, dir, small)
		if _, last := bounds(l); (last == 20) != tt.holds {
			t.Errorf("log 1 to 20 of term 1, snapshot of %d in term %d: the log ends at %d", tt.index, tt.term, last)
		}
	}
}

func TestRunWritesTheWatermarkOnceASecond(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l, _, err := Open(dir, small)
		if err != nil {
			t.Fatal(err)
		}
		mustStore(t, l, 1, 20, 20)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		onDisk := func() uint64 {
			b, err := os.ReadFile(filepath.Join(dir, watermarkName))
			if err != nil {
				t.Fatal(err)
			}
			_, payload, err := newestCopy(kindWatermark, b)
			if err != nil {
				t.Fatal(err)
			}
			n, _ := decodeWatermark(payload)
			return n
		}
		for i := uint64(1); i <= 3; i++ {
			l.SetCommitted(5 * i)
			time.Sleep(watermarkEvery - time.Millisecond)
			if got := onDisk(); got == 5*i {
				t.Errorf("the watermark is %d before a second has passed", got)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if got := onDisk(); got != 5*i {
				t.Errorf("after %d s the watermark is %d, want %d", i, got, 5*i)
			}
		}
		l.SetCommitted(20)
		cancel()
		if err := errors.Join(<-done, l.Close()); err != nil {
			t.Error(err)
		}
		if got := onDisk(); got != 20 {
			t.Errorf("after Close the watermark is %d, want 20", got)
		}
	})
}

func TestWipedMemberRemembersThatItMustNotVote(t *testing.T) {
	dir := t.TempDir()
	if r, err := ReadRejoin(dir); r != nil || err != nil {
		t.Fatalf("ReadRejoin of a new member = %v, %v", r, err)
	}
	l, snapshots := mustOpen(t, dir, small)
	mustStore(t, l, 1, 20, 5)
	mustSnapshot(t, snapshots, 10, 1, "")
	l.Close()
	if err := Wipe(dir, Rejoin{Reason: "entry 7", Committed: 20}); err != nil {
		t.Fatal(err)
	}
	if err := Wipe(dir, Rejoin{Reason: string(make([]byte, 1<<20))}); err != nil { // its watermark was gone by now
		t.Fatal(err)
	}
	if r, err := ReadRejoin(dir); err != nil || r.Committed != 20 {
		t.Fatalf("ReadRejoin = %v, %v, want committed to 20", r, err)
	}
	l, snapshots = mustOpen(t, dir, small)
	mustHold(t, l, 0, 0)
	if metas, err := snapshots.List(); len(metas) > 0 || err != nil {
		t.Errorf("snapshots of a wiped member: %v, %v", metas, err)
	}
	l.Close()

	path := filepath.Join(dir, rejoinName)
	whole, _ := os.ReadFile(path)
	whole[10] ^= 1
	os.WriteFile(path, whole, 0o600)
	if r, err := ReadRejoin(dir); err != nil || r.Committed != 20 {
		t.Errorf("ReadRejoin with one copy damaged = %v, %v", r, err)
	}
	whole[rejoinRoom+10] ^= 1
	os.WriteFile(path, whole, 0o600)
	if _, err := ReadRejoin(dir); err == nil {
		t.Error("ReadRejoin with both copies damaged: no error")
	}
	if err := errors.Join(ClearRejoin(dir), ClearRejoin(dir)); err != nil {
		t.Error(err)
	}
	if r, err := ReadRejoin(dir); r != nil || err != nil {
		t.Errorf("ReadRejoin after ClearRejoin = %v, %v", r, err)
	}
}

func TestConfigIsValidated(t *testing.T) {
	for _, c := range []Config{{SegmentSize: 1}, {SlowAfter: -1}, {SlowAfter: time.Hour}} {
		if _, _, err := Open(t.TempDir(), c); err == nil {
			t.Errorf("Open with %+v: no error", c)
		}
	}
}

// fsm counts what Raft applies.
type fsm struct{ applied uint64 }

func (f *fsm) Apply(*raft.Log) any                 { f.applied++; return nil }
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return fsmState(fmt.Sprint(f.applied)), nil }
func (f *fsm) Restore(r io.ReadCloser) error {
	_, err := fmt.Fscan(r, &f.applied)
	return err
}

type fsmState string

func (s fsmState) Persist(k raft.SnapshotSink) error {
	if _, err := k.Write([]byte(s)); err != nil {
		return err
	}
	return k.Close()
}
func (s fsmState) Release() {}

func TestRaftRunsOnIt(t *testing.T) {
	dir := t.TempDir()
	for run := range uint64(3) {
		l, snapshots := mustOpen(t, dir, small)
		addr, transport := raft.NewInmemTransport("a")
		c := raft.DefaultConfig()
		c.LocalID, c.Logger, c.TrailingLogs = "a", hclog.NewNullLogger(), 20
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
		if run == 0 {
			if err := raft.BootstrapCluster(c, l, l, snapshots, transport, raft.Configuration{
				Servers: []raft.Server{{ID: "a", Address: addr}}}); err != nil {
				t.Fatal(err)
			}
		}
		f := new(fsm)
		r, err := raft.NewRaft(c, f, l, l, snapshots, transport)
		if err != nil {
			t.Fatal(err)
		}
		<-r.LeaderCh()
		if err := r.Barrier(0).Error(); err != nil {
			t.Fatal(err)
		}
		if f.applied != 200*run {
			t.Fatalf("run %d begins with %d commands applied, want %d", run, f.applied, 200*run)
		}
		for i := range 200 {
			if err := r.Apply(make([]byte, 100+i), 0).Error(); err != nil {
				t.Fatal(err)
			}
		}
		l.SetCommitted(r.AppliedIndex())
		if err := r.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		if err := r.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// seeded returns a generator and prints its seed when the test fails.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}
