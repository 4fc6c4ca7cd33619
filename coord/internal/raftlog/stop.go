package raftlog

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
)

// ErrStopped is what all writes return after one has failed; it wraps why. The
// process should end: what the disk really holds is known after reading it anew.
var ErrStopped = errors.New("the Raft log has stopped after a failed write")

// ErrDiskFull is what a write returns that would need disk space which is not to
// be had. Nothing was written, the log has not stopped, and the same write
// succeeds once there is space.
//
// Why it is safe to go on: every byte of the log lies in space that was
// allocated before (files.go), so "no space" is the answer to an allocation and
// never to a write; raft-wal then puts its state in memory back, and the file is
// as it was. A write or an fsync that reports "no space" all the same (a
// copy-on-write file system, a quota) may have written, and stops the log.
var ErrDiskFull = errors.New("the disk is full: the Raft log needs space to go on")

// DamagedError says that what a member had acknowledged is no longer there, or
// no longer what it was. It must not vote or lead with what is left: Wipe it,
// and let it rejoin as learner.
type DamagedError struct {
	Reason      string // what was found, in words
	First, Last uint64 // of the entries that could be read in order; 0 when unknown
	Watermark   uint64 // the highest index known to be committed; 0 when unknown
	err         error
}

func (e *DamagedError) Error() string {
	reason := e.Reason
	if e.err != nil {
		reason += ": " + e.err.Error()
	}
	return fmt.Sprintf("the Raft log is damaged: %s (entries %d to %d, committed to %d)", reason, e.First, e.Last, e.Watermark)
}

// Unwrap returns what was met while reading, if anything.
func (e *DamagedError) Unwrap() error { return e.err }

// damage returns err as a *DamagedError with what is known, unless err speaks of
// the machine rather than the data: a member is not wiped because it ran out of
// file descriptors. Of the system's errors, EIO and a missing file are damage.
func damage(what string, err error, known DamagedError) error {
	var no syscall.Errno
	if errors.As(err, &no) && no != syscall.EIO && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", what, err)
	}
	known.Reason, known.err = what, err
	return &known
}

// catch makes an error of a panic: raft-wal's decoder slices by lengths it read.
func catch(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("not decodable: %v", r)
	}
}

// stop is the latch of a Log:
//
//	running ── fail ──> stopped      for good
//
// 0 or 1 errors are kept: the first.
type stop struct {
	failed chan struct{} // closed when stopped

	stopMu sync.Mutex // guards err
	err    error
}

// fail stops the log because of err. Only the first call counts.
func (s *stop) fail(err error) {
	s.stopMu.Lock()
	defer s.stopMu.Unlock()
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrStopped, err)
		close(s.failed)
	}
}

// Failed returns a channel that is closed when the log stops.
func (s *stop) Failed() <-chan struct{} { return s.failed }

// Err returns nil while the log works, and then an ErrStopped that wraps why.
func (s *stop) Err() error {
	select {
	case <-s.failed:
	default:
		return nil // not a lock taken for each write
	}
	s.stopMu.Lock()
	defer s.stopMu.Unlock()
	return s.err
}
