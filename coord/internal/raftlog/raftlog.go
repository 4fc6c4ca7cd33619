// Package raftlog keeps what a hashicorp/raft member must not forget: its log,
// its term and vote, its snapshots, and how far it knows the log committed. It
// adds to raft-wal what raft-wal leaves to the disk: that bytes read are bytes
// written, and that a disk that failed once is not believed again.
//
// The sequence most readers want:
//
//	if r, err := raftlog.ReadRejoin(dir); r != nil || err != nil { … no vote until the leader knows }
//	log, snapshots, err := raftlog.Open(dir, raftlog.Config{OnSlow: …})
//	if d := (*raftlog.DamagedError)(nil); errors.As(err, &d) { … raftlog.Wipe(dir, …), rejoin as learner }
//	group.Go(func() error { return log.Run(ctx) })   // ends with the error that stopped the log
//	raft.NewRaft(config, fsm, log, log, snapshots, transport)
//	log.SetCommitted(index)                          // from the state machine
//	log.Room()                                       // before each proposal
//	log.Close()
//
// It leaves to its caller: that one process has the directory open, that Raft
// does not run on a log that Open calls damaged, and that a wiped member does
// not vote. It does not know what entries and snapshots say.
//
// # On disk
//
//	log/*.wal      raft-wal's segments, every entry sealed (seal.go)
//	log/state      raft-wal's table of segments; term and vote (copies.go, JSON)
//	log/spare      room for the next segment (files.go)
//	watermark      the highest index known committed (copies.go, 8 bytes)
//	snapshots/*    a file a snapshot, sealed (snapshot.go)
//	rejoin         "wiped: do not vote" (copies.go, JSON)
//
// Integers are big-endian; a CRC is CRC-32C (Castagnoli).
//
// raft-wal would keep its table and the stable values in bbolt. bbolt answers a
// flipped bit in its newest meta page with the one before, which is an older
// vote, and one in a data page with whatever it then says; so both live in a
// file of ours, which also needs no space to be written.
package raftlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// Config of a Log. The zero value works.
type Config struct {
	// SegmentSize is the size in bytes at which a segment of the log is closed;
	// 0 means 16 MiB, about 50,000 entries of 256 bytes. Two of them are taken
	// from the disk at once: the one written and its spare. Smaller gives space
	// back sooner after a snapshot and pauses writes, for a few milliseconds,
	// more often.
	SegmentSize int

	// SlowAfter is how long a write may be pending before OnSlow is called; 0
	// means 5 s. Disks in good health were seen to take 50 ms at worst.
	SlowAfter time.Duration

	// OnSlow is called once for a write that is pending for SlowAfter, on a
	// goroutine of its own; nil does nothing. Raft's main loop is what hangs in
	// the write, so it can not hand leadership over when asked: a caller who wants
	// another leader has to silence the heartbeats, by closing Raft's transport.
	OnSlow func()

	// StopAfter is how long a write may be pending before the log stops as if
	// the write had failed; 0 means 10 s.
	StopAfter time.Duration

	// Log is told of damage that was passed over or healed; nil is silent.
	Log *slog.Logger

	// Faults are where tests break the disk; the zero value leaves it as it is.
	Faults Faults
}

// Faults stand between a log and its disk. A nil field does nothing.
type Faults struct {
	// File wraps every file opened for writing below log/ and the watermark. name
	// is the file's own.
	File func(name string, f types.WritableFile) types.WritableFile
	// Reserve is called before space is taken from the disk, and fails for it.
	Reserve func() error
}

const (
	segmentSizeDefault = 16 << 20
	slowAfterDefault   = 5 * time.Second
	stopAfterDefault   = 10 * time.Second

	// watermarkEvery is the least time between two writes of the watermark.
	// It bounds what a flipped bit in the last batch can hide (see Open).
	watermarkEvery = time.Second
)

// Names in a member's directory.
const (
	logDir        = "log"
	stateName     = "state"
	spareName     = "spare"
	watermarkName = "watermark"
	snapshotsDir  = "snapshots"
	rejoinName    = "rejoin"
)

func (c Config) withDefaults() (Config, error) {
	if c.SegmentSize == 0 {
		c.SegmentSize = segmentSizeDefault
	}
	if c.SegmentSize < 4<<10 || c.SegmentSize > 1<<30 {
		return c, fmt.Errorf("raftlog: Config.SegmentSize is %d: from 4 KiB to 1 GiB", c.SegmentSize)
	}
	if c.SlowAfter == 0 {
		c.SlowAfter = slowAfterDefault
	}
	if c.StopAfter == 0 {
		c.StopAfter = stopAfterDefault
	}
	if c.SlowAfter < 0 || c.StopAfter < c.SlowAfter {
		return c, fmt.Errorf("raftlog: Config.StopAfter (%s) is shorter than SlowAfter (%s)", c.StopAfter, c.SlowAfter)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Faults.File == nil {
		c.Faults.File = func(_ string, f types.WritableFile) types.WritableFile { return f }
	}
	if c.Faults.Reserve == nil {
		c.Faults.Reserve = func() error { return nil }
	}
	return c, nil
}

// Log is a raft.LogStore, raft.MonotonicLogStore and raft.StableStore. Its
// methods may be called concurrently.
//
// The first write that fails stops it: all later writes fail with ErrStopped,
// Failed is closed, Err tells why. Nothing can be known of a disk after a failed
// fsync (the kernel may have dropped the pages and call the next one good), so
// the way on is a new process that reads what is really there. Reads of what was
// acknowledged go on: it is right, and Raft panics when they fail.
//
// A full disk does not stop it: see ErrDiskFull.
type Log struct {
	stop
	c     Config
	wal   *wal.WAL
	state *state
	files *files

	watchdog watchdog

	// appending has room for one, who stores or deletes entries. raft-wal has a mutex
	// for that, and where a simulated disk hangs, the clock of testing/synctest goes on
	// only while channels are waited for.
	appending chan struct{}

	committed atomic.Uint64 // highest given to SetCommitted
	synced    atomic.Uint64 // the entries up to this index are on the disk
	ahead     ahead

	mu        sync.Mutex // guards the watermark file
	watermark *copies
	written   uint64 // what it says
	closed    bool
}

var (
	_ raft.LogStore          = (*Log)(nil)
	_ raft.MonotonicLogStore = (*Log)(nil)
	_ raft.StableStore       = (*Log)(nil)
)

// Open opens the member's stores below dir, which it makes if there is none, and
// reads all of them. A *DamagedError says that something which was acknowledged
// is not there or not as it was: Raft must not be started on it, and nothing was
// changed, so that it can be looked at. Other errors say nothing about the data
// (no permission, too many open files, no space): try again.
//
// A log that ends in a batch which a crash cut short opens without it: Raft was
// never told that it was stored. One batch is written at a time, so if an entry
// of a later batch is found behind the cut, the cut is damage; so is a cut below
// the watermark. What can still hide is a flipped bit in the very last batch, if
// it was acknowledged less than a second before a crash: nothing on the disk
// tells it from a torn one.
//
// A crash during Open leaves a directory that Open opens: each step below is
// either repeated or found done.
func Open(dir string, c Config) (*Log, *Snapshots, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, nil, err
	}
	for _, d := range []string{filepath.Join(dir, logDir), filepath.Join(dir, snapshotsDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, nil, err
		}
	}
	snapshots, err := openSnapshots(filepath.Join(dir, snapshotsDir), c.Log)
	if err != nil {
		return nil, nil, err
	}
	l := &Log{c: c, stop: stop{failed: make(chan struct{})}, appending: make(chan struct{}, 1)}
	l.watchdog = watchdog{c: c, fail: l.fail}
	if err := l.open(dir, snapshots); err != nil {
		return nil, nil, errors.Join(err, l.release())
	}
	return l, snapshots, nil
}

func (l *Log) open(dir string, snapshots *Snapshots) error {
	if err := initialize(dir, l.c, snapshots); err != nil {
		return err
	}
	var err error
	if l.watermark, l.written, err = openWatermark(dir, l.c); err != nil {
		return damage("watermark", err, DamagedError{})
	}
	l.committed.Store(l.written)
	if l.state, err = openState(filepath.Join(dir, logDir, stateName), l.c, l.fail); err != nil {
		return damage("state", err, DamagedError{Watermark: l.written})
	}

	found, err := inspect(filepath.Join(dir, logDir), l.state.segments())
	known := DamagedError{First: found.first, Last: found.last, Watermark: l.written}
	if err != nil {
		return damage("log", err, known)
	}
	newest, _ := snapshots.newest()
	if end := max(found.last, newest.Index); end < l.written {
		known.Reason = fmt.Sprintf("the log ends at %d", end)
		return &known
	}
	if found.first > newest.Index+1 {
		known.Reason = fmt.Sprintf("the newest good snapshot is of %d", newest.Index)
		return &known
	}

	// What follows writes.
	if err := found.repair(l.state); err != nil {
		return err
	}
	l.files = &files{dir: filepath.Join(dir, logDir), size: int64(l.c.SegmentSize), c: l.c, fail: l.fail, flush: l.flush, settle: l.settle}
	l.files.tail.Store(found.tail.end)
	l.files.limit.Store(int64(found.info.SizeLimit))
	if err := l.files.discardSpare(); err != nil {
		return err
	}
	l.wal, err = wal.Open(l.files.dir, wal.WithSegmentSize(l.c.SegmentSize), wal.WithLogger(hclog.NewNullLogger()),
		wal.WithMetaStore(l.state), wal.WithSegmentFiler(segment.NewFiler(l.files.dir, l.files)))
	if err != nil {
		return fmt.Errorf("open the log in %s: %w", l.files.dir, err)
	}
	first, _ := l.wal.FirstIndex()
	last, _ := l.wal.LastIndex()
	if first != found.first || last != found.last { // raft-wal and inspect must have read the same
		known.Reason = fmt.Sprintf("raft-wal reads it as %d to %d", first, last)
		return &known
	}
	l.synced.Store(last)
	if err := l.dropReplaced(newest, first, last); err != nil {
		return err
	}
	l.startAhead()
	return nil
}

// initialize makes a new member's files: the watermark, then the state. So a
// member that has a state has a watermark, and one that has entries has both.
//
// A crash before the first leaves empty directories or none; one between the two
// a watermark of 0 and nothing else. Both are as good as new.
func initialize(dir string, c Config, snapshots *Snapshots) error {
	statePath, markPath := filepath.Join(dir, logDir, stateName), filepath.Join(dir, watermarkName)
	if _, err := os.Stat(statePath); !errors.Is(err, fs.ErrNotExist) {
		return err // there, or can not tell
	}
	segments, err := filepath.Glob(filepath.Join(dir, logDir, "*.wal"))
	if err != nil {
		return err
	}
	var mark uint64
	switch f, n, err := openWatermark(dir, c); {
	case err == nil:
		mark = n
		if err := f.Close(); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return damage("watermark", err, DamagedError{})
	default:
		if err := syncDir(filepath.Dir(dir)); err != nil { // the names in dir come with the first file
			return err
		}
		if err := createCopies(markPath, kindWatermark, watermarkRoom, encodeWatermark(0)); err != nil {
			return err
		}
	}
	if newest, found := snapshots.newest(); len(segments) > 0 || mark > 0 || found {
		return &DamagedError{Reason: "state is missing", Last: newest.Index, Watermark: mark}
	}
	return createCopies(statePath, kindState, stateRoom, encodeState(stateRecord{}))
}

// dropReplaced finishes what a crash between the arrival of a snapshot and the
// removal of the log it replaces left undone. Raft itself would go on with both
// and then fail to append, since a monotonic log takes no gaps. What is dropped
// is either in the snapshot or contradicts it, and so was never committed.
func (l *Log) dropReplaced(snapshot raft.SnapshotMeta, first, last uint64) error {
	if last == 0 || snapshot.Index < first {
		return nil // an older snapshot says nothing about this log
	}
	if snapshot.Index <= last {
		var e raft.Log
		if err := l.GetLog(snapshot.Index, &e); err != nil {
			return err
		}
		if e.Term == snapshot.Term {
			return nil
		}
	}
	return l.DeleteRange(first, last)
}

// IsMonotonic implements raft.MonotonicLogStore: the log takes no gaps.
func (l *Log) IsMonotonic() bool { return l.wal.IsMonotonic() }

// FirstIndex returns the index of the first entry, 0 for an empty log.
func (l *Log) FirstIndex() (uint64, error) { return l.wal.FirstIndex() }

// LastIndex returns the index of the last entry, 0 for an empty log.
func (l *Log) LastIndex() (uint64, error) { return l.wal.LastIndex() }

// GetLog reads the entry at index into log; raft.ErrLogNotFound if there is
// none. An entry that is not the one that was stored is a *DamagedError, and
// stops the log: the process that comes next finds it in Open, and can heal.
func (l *Log) GetLog(index uint64, log *raft.Log) error {
	e, err := l.read(index)
	switch {
	case err == nil:
		*log = e
		return nil
	case errors.Is(err, raft.ErrLogNotFound), errors.Is(err, wal.ErrClosed):
		return err // as it is: Raft compares with ==
	}
	first, _ := l.wal.FirstIndex()
	last, _ := l.wal.LastIndex()
	err = damage(fmt.Sprintf("entry %d", index), err, DamagedError{First: first, Last: last, Watermark: l.committed.Load()})
	if d := (*DamagedError)(nil); errors.As(err, &d) {
		l.fail(err)
	}
	return err
}

func (l *Log) read(index uint64) (e raft.Log, err error) {
	defer catch(&err)
	if err := l.wal.GetLog(index, &e); err != nil {
		return e, err
	}
	if e.Index != index {
		return e, fmt.Errorf("found entry %d in its place", e.Index)
	}
	_, err = unseal(&e)
	return e, err
}

// StoreLog stores one entry: see StoreLogs.
func (l *Log) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends logs as one batch: when it returns nil they are on the disk,
// and a crash before that leaves all of them or none. The entries are not kept
// or changed. It may fail with ErrDiskFull, having written nothing, or ErrStopped.
func (l *Log) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	err := l.store(logs)
	if err == nil {
		l.synced.Store(logs[len(logs)-1].Index)
	}
	return err
}

func (l *Log) store(logs []*raft.Log) error {
	if err := l.flush(); err != nil {
		return err
	}
	return l.write("append to the log", func() error {
		l.appending <- struct{}{}
		defer func() { <-l.appending }()
		last, err := l.wal.LastIndex()
		if err != nil {
			return err
		}
		// An empty log may have to begin anew at another index, in a new segment.
		if err := l.files.roomFor(logs, last == 0); err != nil {
			return err
		}
		return l.wal.StoreLogs(sealAll(logs))
	})
}

// DeleteRange deletes the entries from min to max, which must reach to one end
// of the log. It may fail with ErrDiskFull, having deleted nothing, or ErrStopped.
func (l *Log) DeleteRange(min, max uint64) error {
	if err := l.flush(); err != nil {
		return err
	}
	if min <= l.synced.Load() && max >= l.synced.Load() {
		l.synced.Store(min - 1)
	}
	return l.write("delete from the log", func() error {
		l.appending <- struct{}{}
		defer func() { <-l.appending }()
		last, err := l.wal.LastIndex()
		if err != nil {
			return err
		}
		if max >= last { // needs a new segment; what compacts the log does not
			if err := l.files.keepSpare(); err != nil {
				return err
			}
		}
		err = l.wal.DeleteRange(min, max)
		if err != nil { // raft-wal does not take back what it did before, as it does when appending
			l.fail(fmt.Errorf("delete from the log: %w", err))
		}
		return err
	})
}

// Set stores a value that Raft must not forget. It needs no disk space.
func (l *Log) Set(key, val []byte) error {
	if err := l.flush(); err != nil {
		return err
	}
	return l.write("store "+string(key), func() error { return l.wal.Set(key, val) })
}

// Get returns a value stored with Set, nil if there is none.
func (l *Log) Get(key []byte) ([]byte, error) { return l.wal.Get(key) }

// SetUint64 is Set for a number.
func (l *Log) SetUint64(key []byte, val uint64) error {
	if err := l.flush(); err != nil {
		return err
	}
	return l.write("store "+string(key), func() error { return l.wal.SetUint64(key, val) })
}

// GetUint64 returns a number stored with SetUint64, 0 if there is none.
func (l *Log) GetUint64(key []byte) (uint64, error) { return l.wal.GetUint64(key) }

// write runs one write: under the watchdog, and not at all after one that failed.
func (l *Log) write(what string, fn func() error) error {
	if err := l.Err(); err != nil {
		return err
	}
	pending := l.watchdog.enter(what)
	err := fn()
	l.watchdog.leave(pending)
	switch {
	case errors.Is(err, wal.ErrClosed):
		return err
	case err == nil:
		return l.Err() // the watchdog may have given up on it: then it does not count
	}
	if errors.Is(err, ErrDiskFull) && l.Err() == nil {
		return err
	}
	l.fail(fmt.Errorf("%s: %w", what, err))
	return l.Err()
}

// Room returns nil when a proposal may be made, and ErrDiskFull when the space
// for the log's next segment can not be had. It says so a whole segment before
// the log is full, so that a leader can refuse what clients ask and go on
// leading: what Raft itself appends still fits. It is cheap enough for every
// proposal: a full disk is asked again five times a second at most.
func (l *Log) Room() error {
	if err := l.Err(); err != nil {
		return err
	}
	return l.files.keepSpare()
}

// SetCommitted tells the log that all entries up to index are committed and
// stored here or covered by a snapshot here. Lower indexes than before change
// nothing. It does not touch the disk: Run and Close do.
func (l *Log) SetCommitted(index uint64) {
	for {
		old := l.committed.Load()
		if index <= old || l.committed.CompareAndSwap(old, index) {
			return
		}
	}
}

// Committed returns the highest index known to be committed.
func (l *Log) Committed() uint64 { return l.committed.Load() }

// Run writes the watermark, once a second when it changed, until ctx ends or the
// log stops: then it returns why, an ErrStopped.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(watermarkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.Failed():
			return l.Err()
		case <-tick.C:
			if err := l.write("store the watermark", l.writeWatermark); err != nil {
				return err
			}
		}
	}
}

// Close writes the watermark and closes the log. It may be called twice.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	l.mu.Unlock()
	if closed {
		return nil
	}
	var err error
	if l.flush() == nil { // a disk that failed is not written to
		err = l.write("store the watermark", l.writeWatermark)
	}
	return errors.Join(err, l.release())
}

// release closes what is open.
func (l *Log) release() error {
	l.settle() // not under raft-wal's mutex, which closing its segments takes
	var errs []error
	switch {
	case l.wal != nil:
		errs = append(errs, l.wal.Close()) // and the state
	case l.state != nil:
		errs = append(errs, l.state.Close())
	}
	if l.watermark != nil {
		errs = append(errs, l.watermark.Close())
	}
	if l.ahead.jobs != nil {
		close(l.ahead.jobs)
		<-l.ahead.ended
	}
	l.watchdog.stop()
	return errors.Join(errs...)
}
