package raftlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

// files is the types.VFS below raft-wal. It sees to it that a write never has to
// ask the disk for space, and that no failure goes unseen: raft-wal changes
// segments in a goroutine that has nobody to return an error to.
//
// The space of a segment is allocated before its name exists: as the file
// "spare", which a new segment takes over by rename. So there is always room for
// the change of segments, and a disk without room for the next spare is known
// about a whole segment ahead.
type files struct {
	dir  string
	size int64 // at which raft-wal closes a segment
	c    Config
	fail func(error) // stops the log

	// ahead has Sync of the last segment leave the file in late, to be synced by who
	// set it.
	ahead  atomic.Bool
	late   atomic.Pointer[segmentFile]
	flush  func() error // returns when no sync of a segment is left, or the log has stopped
	settle func()       // returns when no sync of a segment is left

	// tail is how far the last segment is written, and limit the size at which
	// raft-wal closes it.
	tail, limit atomic.Int64

	mu     sync.Mutex // guards the spare: its file and all below
	spare  bool       // it is there
	asked  time.Time  // when the disk last had no room for it
	reason error      // and what it said
}

const (
	// overshoot is allocated past a segment's size. raft-wal closes a segment
	// after the batch that passes it, so it holds that batch; larger ones are
	// allocated for when they come.
	overshoot = 1 << 20
	// askAgain is how long a full disk is left alone.
	askAgain = 200 * time.Millisecond
	// entryOverhead bounds what raft-wal adds to an entry's data and extensions:
	// frame, varints, seal, time, padding and the entry's place in the index.
	entryOverhead = 128
)

// roomFor returns nil when a batch can be appended without asking the disk for
// a spare, or with one that is there.
func (d *files) roomFor(logs []*raft.Log, newSegment bool) error {
	err := d.keepSpare()
	if newSegment || !errors.Is(err, ErrDiskFull) {
		return err
	}
	need := d.tail.Load()
	need += need / 8 // the index: 4 bytes for each entry, which has 32 at least
	for _, l := range logs {
		need += int64(len(l.Data)+len(l.Extensions)) + entryOverhead
	}
	if need < d.limit.Load() {
		return nil // the segment will not be closed
	}
	return err
}

// keepSpare makes the spare if it is not there; ErrDiskFull if it can't.
func (d *files) keepSpare() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.spare:
		return nil
	case d.reason != nil && time.Since(d.asked) < askAgain:
		return d.reason
	}
	d.reason = fullOr(d.makeSpare())
	d.spare, d.asked = d.reason == nil, time.Now()
	return d.reason
}

// makeSpare is called with mu held. A crash leaves a spare that Open discards.
func (d *files) makeSpare() error {
	name := filepath.Join(d.dir, spareName)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = d.reserve(f, 0, d.size+overshoot)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name)) // half of it would keep others from what is left
	}
	return nil
}

// reserve allocates the bytes of f from one offset to another.
func (d *files) reserve(f *os.File, from, to int64) error {
	if err := d.c.Faults.Reserve(); err != nil {
		return err
	}
	return reserve(f, from, to)
}

// discardSpare removes what an earlier process left: it may be short.
func (d *files) discardSpare() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spare, d.reason = false, nil
	err := os.Remove(filepath.Join(d.dir, spareName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// ListDir returns the names of the segments and other files.
func (d *files) ListDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Create makes a segment of the spare, and then the next spare if the disk has
// room for it. A crash leaves the spare, or the empty segment, which raft-wal
// has in its table already and makes anew if it is not there.
func (d *files) Create(dir, name string, limit uint64) (types.WritableFile, error) {
	if err := d.flush(); err != nil { // the table must not call a segment closed that is not on the disk
		return nil, err
	}
	f, err := d.create(filepath.Join(dir, name), int64(limit))
	if err != nil {
		d.fail(err) // this segment is in the table by now: raft-wal can't go on without it
		return nil, err
	}
	if err := d.keepSpare(); err != nil && !errors.Is(err, ErrDiskFull) {
		d.fail(err)
	}
	return f, nil
}

func (d *files) create(path string, limit int64) (*segmentFile, error) {
	if err := d.keepSpare(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s exists", path), err)
	}
	if err := os.Rename(filepath.Join(d.dir, spareName), path); err != nil {
		return nil, err
	}
	d.spare = false
	d.tail.Store(0)
	d.limit.Store(limit)
	return d.open(path, true)
}

// OpenWriter opens the last segment after a restart. What is read from it is on the
// disk from then on: a process that was killed may have left it in memory.
func (d *files) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := d.open(filepath.Join(dir, name), false)
	if err != nil {
		return nil, err
	}
	if err := f.sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *files) open(path string, unsynced bool) (*segmentFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &segmentFile{WritableFile: d.c.Faults.File(filepath.Base(path), dataFile{f}), file: f, in: d,
		reserved: info.Size(), unsynced: unsynced}, nil
}

// OpenReader opens a closed segment.
func (d *files) OpenReader(dir, name string) (types.ReadableFile, error) {
	return os.Open(filepath.Join(dir, name))
}

// Delete removes a segment. A crash leaves one that raft-wal no longer has in
// its table, and removes when it opens.
func (d *files) Delete(dir, name string) error {
	err := os.Remove(filepath.Join(dir, name))
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		d.c.Log.Warn("a segment of the Raft log could not be removed", "file", name, "err", err)
	}
	return err
}

// segmentFile is the segment being written. raft-wal writes from one goroutine
// at a time.
type segmentFile struct {
	types.WritableFile
	file     *os.File
	in       *files
	reserved int64 // bytes allocated
	unsynced bool  // its name is not known to be on the disk
}

// dataFile is a file whose length does not change with what is written.
type dataFile struct{ *os.File }

func (f dataFile) Sync() error { return syncData(f.File) }

// WriteAt allocates first. When that fails for lack of space nothing has been
// written, and raft-wal takes the batch back. Any other failure may have left a
// part of it, which a later and shorter batch would not cover: the log stops.
func (f *segmentFile) WriteAt(b []byte, off int64) (int, error) {
	if end := off + int64(len(b)); end > f.reserved {
		to := max(end, f.in.size+overshoot)
		if err := f.in.reserve(f.file, f.reserved, to); err != nil {
			if !IsFull(err) {
				f.in.fail(err)
			}
			return 0, fullOr(err)
		}
		f.reserved = to
	}
	n, err := f.WritableFile.WriteAt(b, off)
	if err != nil {
		f.in.fail(err)
	}
	f.in.tail.Store(off + int64(n))
	return n, err
}

// Sync makes the bytes and, the first time, the name durable; or leaves the bytes to
// StoreLogsAhead.
func (f *segmentFile) Sync() error {
	if f.in.ahead.Load() && !f.unsynced {
		f.in.late.Store(f)
		return nil
	}
	return f.sync()
}

// Close closes the segment once nobody syncs it.
func (f *segmentFile) Close() error {
	f.in.settle()
	return f.WritableFile.Close()
}

func (f *segmentFile) sync() error {
	err := f.WritableFile.Sync()
	if err == nil && f.unsynced {
		err = syncDir(f.in.dir)
		f.unsynced = err != nil
	}
	if err != nil {
		f.in.fail(err)
	}
	return err
}

// fullOr returns err as ErrDiskFull if it is of a full disk, and else as it is.
func fullOr(err error) error {
	if err != nil && IsFull(err) {
		return fmt.Errorf("%w (%w)", ErrDiskFull, err)
	}
	return err
}

// zeroFill allocates by writing, where the system has no better way.
func zeroFill(f *os.File, from, to int64) error {
	zeros := make([]byte, 1<<20)
	for from < to {
		n, err := f.WriteAt(zeros[:min(to-from, int64(len(zeros)))], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

// syncDir makes the names in dir durable. Windows does so by itself.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
