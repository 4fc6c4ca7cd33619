package raftlog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

// disk stands between the log and its files, and fails where told. It knows what
// was written since the last fsync: a kernel may drop that when one fails.
type disk struct {
	mu    sync.Mutex
	match string // files whose name ends so
	write error
	sync  error
	hang  chan struct{} // Sync waits for it
}

func (d *disk) config() Config {
	c := small
	c.Faults.File = func(name string, f types.WritableFile) types.WritableFile {
		return &brokenFile{WritableFile: f, name: name, d: d}
	}
	return c
}

func (d *disk) fail(match string, write, sync error, hang chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.match, d.write, d.sync, d.hang = match, write, sync, hang
}

type brokenFile struct {
	types.WritableFile
	name  string
	d     *disk
	dirty []func() // undo what no fsync has confirmed, last first
}

func (f *brokenFile) faults() (hang chan struct{}, write, sync error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.match == "" || !strings.HasSuffix(f.name, f.d.match) {
		return nil, nil, nil
	}
	return f.d.hang, f.d.write, f.d.sync
}

func (f *brokenFile) WriteAt(b []byte, off int64) (int, error) {
	old := make([]byte, len(b))
	f.ReadAt(old, off)
	f.dirty = append(f.dirty, func() { f.WritableFile.WriteAt(old, off) })
	if _, write, _ := f.faults(); write != nil {
		n, _ := f.WritableFile.WriteAt(b[:len(b)/2], off)
		return n, write
	}
	return f.WritableFile.WriteAt(b, off)
}

func (f *brokenFile) Sync() error {
	hang, _, err := f.faults()
	if hang != nil {
		<-hang
	}
	if err != nil { // the pages are dropped
		for i := len(f.dirty) - 1; i >= 0; i-- {
			f.dirty[i]()
		}
		return err
	}
	f.dirty = nil
	return f.WritableFile.Sync()
}

func mustStop(t *testing.T, l *Log, cause error, what string) {
	t.Helper()
	select {
	case <-l.Failed():
	default:
		t.Fatalf("%s: Failed is not closed", what)
	}
	for name, err := range map[string]error{
		"Err":         l.Err(),
		"StoreLog":    l.StoreLog(entry(1000)),
		"Set":         l.Set([]byte("k"), nil),
		"SetUint64":   l.SetUint64([]byte("k"), 1),
		"DeleteRange": l.DeleteRange(1, 2),
		"Room":        l.Room(),
		"Run":         l.Run(t.Context()),
	} {
		if !errors.Is(err, ErrStopped) || !errors.Is(err, cause) {
			t.Errorf("%s: %s = %v, want ErrStopped because of %v", what, name, err, cause)
		}
	}
}

func TestFirstFailedWriteStopsTheLog(t *testing.T) {
	for _, tt := range []struct {
		what, match string
		write, sync error
		do          func(*Log) error
	}{
		{"append, write", ".wal", syscall.EIO, nil, func(l *Log) error { return l.StoreLogs(batch(41, 5)) }},
		{"append, fsync", ".wal", nil, syscall.EIO, func(l *Log) error { return l.StoreLogs(batch(41, 5)) }},
		{"append, no space where there was some", ".wal", syscall.ENOSPC, nil, func(l *Log) error { return l.StoreLogs(batch(41, 5)) }},
		{"append, fsync without space", ".wal", nil, syscall.ENOSPC, func(l *Log) error { return l.StoreLogs(batch(41, 5)) }},
		{"term, write", stateName, syscall.EIO, nil, func(l *Log) error { return l.SetUint64([]byte("CurrentTerm"), 2) }},
		{"vote, fsync", stateName, nil, syscall.EIO, func(l *Log) error { return l.Set([]byte("LastVoteCand"), []byte("b")) }},
		{"conflict, table", stateName, nil, syscall.EIO, func(l *Log) error { return l.DeleteRange(40, 40) }},
		{"conflict, segment", ".wal", nil, syscall.EIO, func(l *Log) error { return l.DeleteRange(40, 40) }},
		{"compaction", stateName, nil, syscall.EIO, func(l *Log) error { return l.DeleteRange(1, 10) }},
		{"watermark", watermarkName, nil, syscall.EIO, func(l *Log) error {
			l.SetCommitted(40)
			return l.Run(t.Context())
		}},
	} {
		d := new(disk)
		dir := t.TempDir()
		l, _ := mustOpen(t, dir, d.config())
		mustStore(t, l, 1, 40, 8)
		if err := l.SetUint64([]byte("CurrentTerm"), 1); err != nil {
			t.Fatal(err)
		}
		d.fail(tt.match, tt.write, tt.sync, nil)
		cause := tt.sync
		if cause == nil {
			cause = tt.write
		}
		if err := tt.do(l); !errors.Is(err, ErrStopped) || !errors.Is(err, cause) {
			t.Errorf("%s: %v, want ErrStopped because of %v", tt.what, err, cause)
		}
		d.fail("", nil, nil, nil) // the next fsync would say all is well
		mustStop(t, l, cause, tt.what)
		mustHold(t, l, 1, 40) // reads go on

		// The crash, and a new process.
		l.Close()
		again, _, err := Open(dir, small)
		if tt.what == "compaction" { // the table may say it was compacted, and there is no snapshot
			if err == nil {
				again.Close()
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: Open after it: %v", tt.what, err)
			continue
		}
		first, last := bounds(again)
		if first != 1 || last < 39 || last == 39 && !strings.HasPrefix(tt.what, "conflict") {
			t.Errorf("%s: afterwards the log holds %d to %d, want 1 to 40 at least", tt.what, first, last)
		}
		if term, err := again.GetUint64([]byte("CurrentTerm")); err != nil || term != 1 && tt.match != stateName {
			t.Errorf("%s: afterwards the term is %d, %v", tt.what, term, err)
		}
		mustHold(t, again, 1, last)
		mustStore(t, again, last+1, last+20, 4)
		again.Close()
	}
}

// raft-wal changes segments in a goroutine that logs its errors and no more.
func TestFailureWhileChangingSegmentsStopsTheLog(t *testing.T) {
	d := new(disk)
	l, _ := mustOpen(t, t.TempDir(), d.config())
	d.fail(stateName, syscall.EIO, nil, nil)
	acked := uint64(0)
	var err error
	for err == nil {
		if err = l.StoreLogs(batch(acked+1, 9)); err == nil {
			acked += 9
		}
	}
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("the write after the change = %v, want the change's EIO", err)
	}
	mustStop(t, l, syscall.EIO, "change of segments")
	_, last := bounds(l) // the batch that closes a segment is stored, and may hear of the change
	if last < acked {
		t.Errorf("the log ends at %d, and %d was acknowledged", last, acked)
	}
	mustHold(t, l, 1, last)
}

func TestWatchdog(t *testing.T) {
	d := new(disk)
	slow := make(chan struct{}, 10)
	c := d.config()
	c.SlowAfter, c.StopAfter = 50*time.Millisecond, time.Second // a busy disk takes some of it
	c.OnSlow = func() { slow <- struct{}{} }
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, c)
	mustStore(t, l, 1, 10, 10)
	for len(slow) > 0 { // of this write, on a busy disk
		<-slow
	}

	hang := make(chan struct{})
	d.fail(".wal", nil, nil, hang)
	result := make(chan error)
	go func() { result <- l.StoreLogs(batch(11, 10)) }()
	<-slow
	<-l.Failed()
	close(hang) // the write succeeds, too late to count
	if err := <-result; !errors.Is(err, ErrStopped) {
		t.Errorf("StoreLogs that took longer than StopAfter = %v, want ErrStopped", err)
	}
	if len(slow) > 0 {
		t.Error("OnSlow was called twice for one write")
	}
	if !strings.Contains(l.Err().Error(), "pending") {
		t.Errorf("Err() = %v, want a word on the write that is pending", l.Err())
	}
	l.Close()
	l, _ = mustOpen(t, dir, small)
	if _, last := bounds(l); last != 10 && last != 20 {
		t.Errorf("afterwards the log ends at %d, want 10 or 20", last)
	}
}

func TestSlowWriteThatEndsIsKept(t *testing.T) {
	d := new(disk)
	slow := make(chan struct{}, 1)
	c := d.config()
	c.SlowAfter, c.StopAfter = time.Millisecond, time.Hour
	c.OnSlow = func() {
		select {
		case slow <- struct{}{}:
		default:
		}
	}
	l, _ := mustOpen(t, t.TempDir(), c)
	hang := make(chan struct{})
	d.fail(".wal", nil, nil, hang)
	result := make(chan error)
	go func() { result <- l.StoreLogs(batch(1, 10)) }()
	<-slow
	close(hang)
	if err := <-result; err != nil || l.Err() != nil {
		t.Errorf("StoreLogs = %v, Err = %v, want nil", err, l.Err())
	}
	mustHold(t, l, 1, 10)
}

func TestDamageMetWhileReadingStopsTheLog(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, small)
	mustStore(t, l, 1, 40, 8)
	names, _ := filepath.Glob(filepath.Join(dir, logDir, "*.wal"))
	f, err := os.OpenFile(names[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteAt([]byte{'x'}, 50) // in the first entry's data
	var e raft.Log
	err = l.GetLog(1, &e)
	if d := (*DamagedError)(nil); !errors.As(err, &d) || d.First != 1 || d.Last != 40 || len(e.Data) > 0 {
		t.Errorf("GetLog of a damaged entry = %v, %+v, want a DamagedError and nothing", err, e)
	}
	if !errors.Is(l.Err(), ErrStopped) {
		t.Errorf("Err() = %v, want ErrStopped", l.Err())
	}
}
