package coord

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/raft-wal/types"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

// simDisk is a member's disk until it crashes: it can hang, be full, and forgets
// in a crash what no fsync has confirmed. The log, the term and vote, and the
// watermark go through it; what is written by rename (snapshots, group.json) is
// taken to be on the disk at once.
type simDisk struct {
	mu    sync.Mutex // held by one write at a time
	dead  bool
	full  bool
	hang  chan struct{} // an fsync waits until it is closed; nil: none does
	files []*simFile
}

func (d *simDisk) faults() raftlog.Faults { return raftlog.Faults{File: d.file, Reserve: d.reserve} }

func (d *simDisk) file(name string, f types.WritableFile) types.WritableFile {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &simFile{WritableFile: f, d: d, hangs: !strings.Contains(name, "state")}
	d.files = append(d.files, s)
	return s
}

func (d *simDisk) reserve() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.dead:
		return errDead
	case d.full:
		return syscall.ENOSPC
	}
	return nil
}

var errDead = fmt.Errorf("the machine is off: %w", syscall.EIO)

func (d *simDisk) setFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// setHang has each fsync hang, or lets all go on.
func (d *simDisk) setHang(hang bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case hang && d.hang == nil && !d.dead:
		d.hang = make(chan struct{})
	case !hang && d.hang != nil:
		close(d.hang)
		d.hang = nil
	}
}

func (d *simDisk) hangs() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hang != nil
}

// crash ends all writing. Of what was written since the last fsync some may be
// there, torn, or nothing.
func (d *simDisk) crash(random *rand.Rand) {
	d.setHang(false)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	for _, f := range d.files {
		if random.IntN(3) == 0 {
			continue // all of it got there
		}
		for i := len(f.unsynced) - 1; i >= 0; i-- {
			w := f.unsynced[i]
			kept := 0
			if i == 0 {
				kept = random.IntN(len(w.old) + 1)
			}
			f.WritableFile.WriteAt(w.old[kept:], w.off+int64(kept))
		}
		f.unsynced = nil
	}
}

type simFile struct {
	types.WritableFile
	d *simDisk

	// hangs is false for the state: raft-wal writes its table there with a mutex held
	// that others wait for, and a bubble's clock would stand still until the end.
	hangs    bool
	unsynced []overwritten // guarded by d.mu

	// What was written here, for Raft reads its last entries all the time.
	written []byte // guarded by d.mu
	begin   int64  // guarded by d.mu: its offset
}

// overwritten is what was at an offset before a write.
type overwritten struct {
	old []byte
	off int64
}

func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.dead {
		return 0, errDead
	}
	old := make([]byte, len(b))
	f.WritableFile.ReadAt(old, off)
	f.unsynced = append(f.unsynced, overwritten{old, off})
	if off != f.begin+int64(len(f.written)) {
		f.written, f.begin = f.written[:0], off
	}
	f.written = append(f.written, b...)
	return f.WritableFile.WriteAt(b, off)
}

func (f *simFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if at := off - f.begin; at >= 0 && at+int64(len(b)) <= int64(len(f.written)) {
		return copy(b, f.written[at:]), nil
	}
	return f.WritableFile.ReadAt(b, off)
}

func (f *simFile) Sync() error {
	f.d.mu.Lock()
	for hang := f.d.hang; hang != nil && f.hangs; hang = f.d.hang {
		f.d.mu.Unlock()
		<-hang
		f.d.mu.Lock()
	}
	defer f.d.mu.Unlock()
	if f.d.dead {
		return errDead
	}
	f.unsynced = nil
	return nil
}

// Close takes the file off the disk's list: what it has is not forgotten, nor torn.
func (f *simFile) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	for i, x := range f.d.files {
		if x == f && len(f.unsynced) == 0 {
			f.d.files = append(f.d.files[:i], f.d.files[i+1:]...)
			break
		}
	}
	return f.WritableFile.Close()
}

// simDir is a directory in memory where there is one: what a crash of a machine
// would lose, simDisk loses.
func simDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "p2pshare-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
