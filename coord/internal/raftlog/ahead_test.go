package raftlog

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

// gate is a disk whose segments' syncs wait while it is shut, and fail when told.
type gate struct {
	mu    sync.Mutex
	open  chan struct{} // guarded by mu: closed while syncs go through
	err   error         // guarded by mu
	begun chan struct{} // a value for each sync
}

func newGate() *gate {
	g := &gate{open: make(chan struct{}), begun: make(chan struct{}, 64)}
	close(g.open)
	return g
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) release(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	close(g.open)
}

func (g *gate) faults() Faults {
	return Faults{File: func(name string, f types.WritableFile) types.WritableFile {
		if strings.HasSuffix(name, ".wal") {
			return gatedFile{f, g}
		}
		return f
	}}
}

type gatedFile struct {
	types.WritableFile
	g *gate
}

func (f gatedFile) Sync() error {
	f.g.mu.Lock()
	open := f.g.open
	f.g.mu.Unlock()
	f.g.begun <- struct{}{}
	<-open
	f.g.mu.Lock()
	defer f.g.mu.Unlock()
	return errors.Join(f.g.err, f.WritableFile.Sync())
}

func (g *gate) drain() {
	for len(g.begun) > 0 {
		<-g.begun
	}
}

// waits runs fn and says whether it waits for the gate.
func waits(fn func()) (done chan struct{}, waits bool) {
	done = make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
		return done, false
	case <-time.After(50 * time.Millisecond): // long for what does not wait
		return done, true
	}
}

func openGated(t *testing.T, c Config) (*Log, *gate) {
	t.Helper()
	g := newGate()
	c.Faults = g.faults()
	log, _, err := Open(t.TempDir(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	if err := log.StoreLogs(entriesFrom(1, 3)); err != nil {
		t.Fatal(err)
	}
	g.drain()
	return log, g
}

func entriesFrom(first, last uint64) []*raft.Log {
	var list []*raft.Log
	for i := first; i <= last; i++ {
		list = append(list, &raft.Log{Index: i, Term: 1, Data: []byte{byte(i)}})
	}
	return list
}

func TestStoreLogsAheadReturnsBeforeTheDiskHasThem(t *testing.T) {
	log, g := openGated(t, Config{})
	g.shut()
	if _, waited := waits(func() {
		if err := log.StoreLogsAhead(entriesFrom(4, 6)); err != nil {
			t.Error(err)
		}
	}); waited {
		t.Fatal("StoreLogsAhead waits for the disk")
	}
	<-g.begun
	if last, _ := log.LastIndex(); last != 6 || log.Synced() != 3 {
		t.Errorf("last %d, synced %d, want 6 and 3", last, log.Synced())
	}
	if err := log.AwaitSynced(3); err != nil {
		t.Error(err)
	}
	var others []chan struct{}
	for name, fn := range map[string]func() error{
		"AwaitSynced": func() error { return log.AwaitSynced(5) },
		"SetUint64":   func() error { return log.SetUint64([]byte("term"), 2) },
		"Set":         func() error { return log.Set([]byte("vote"), []byte("x")) },
	} {
		done, waited := waits(func() {
			if err := fn(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		if !waited {
			t.Errorf("%s does not wait for the disk", name)
		}
		others = append(others, done)
	}
	done, waited := waits(func() {
		if err := errors.Join(log.StoreLogs(entriesFrom(7, 7)), log.StoreLogsAhead(entriesFrom(8, 8)), log.DeleteRange(6, 8)); err != nil {
			t.Error(err)
		}
	})
	if !waited {
		t.Error("StoreLogs does not wait for what is ahead")
	}
	g.release(nil)
	for _, d := range append(others, done) {
		<-d
	}
	if last, _ := log.LastIndex(); last != 5 || log.Synced() != 5 {
		t.Errorf("last %d, synced %d, want 5 and 5", last, log.Synced())
	}
}

func TestSyncThatFailsBehindStoreLogsAheadStopsTheLog(t *testing.T) {
	log, g := openGated(t, Config{})
	g.shut()
	if err := log.StoreLogsAhead(entriesFrom(4, 4)); err != nil {
		t.Fatal(err)
	}
	g.release(errors.New("the disk is gone"))
	if err := log.AwaitSynced(4); !errors.Is(err, ErrStopped) {
		t.Errorf("AwaitSynced = %v, want ErrStopped", err)
	}
	if err := log.StoreLogsAhead(entriesFrom(5, 5)); !errors.Is(err, ErrStopped) {
		t.Errorf("StoreLogsAhead = %v, want ErrStopped", err)
	}
	if log.Synced() != 3 {
		t.Errorf("synced = %d, want 3", log.Synced())
	}
}

func TestSyncThatHangsBehindStoreLogsAheadStopsTheLog(t *testing.T) {
	slow := make(chan struct{}, 1)
	log, g := openGated(t, Config{SlowAfter: 10 * time.Millisecond, StopAfter: 30 * time.Millisecond,
		OnSlow: func() { slow <- struct{}{} }})
	g.shut()
	defer g.release(nil)
	if err := log.StoreLogsAhead(entriesFrom(4, 4)); err != nil {
		t.Fatal(err)
	}
	<-slow
	if err := log.AwaitSynced(4); !errors.Is(err, ErrStopped) {
		t.Errorf("AwaitSynced = %v, want ErrStopped", err)
	}
}

func TestSegmentsThatEndAheadAreWhole(t *testing.T) {
	dir := t.TempDir()
	c := Config{SegmentSize: 16 << 10}
	log, _, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for range 200 {
		var list []*raft.Log
		for range 5 {
			last++
			list = append(list, &raft.Log{Index: last, Term: 1, Data: make([]byte, 200)})
		}
		if err := log.StoreLogsAhead(list); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if log, _, err = Open(dir, c); err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if got, _ := log.LastIndex(); got != last || log.Synced() != last {
		t.Errorf("last %d, synced %d, want %d", got, log.Synced(), last)
	}
}
