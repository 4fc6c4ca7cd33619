package raftlog

import (
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// A leader need not wait for its own disk before it sends entries to the others:
// it may write in parallel, if it does not count itself, nor let anybody see that
// an entry is committed, before the entry is on its disk too (Ongaro,
// "Consensus: Bridging Theory and Practice", §10.2.1). hashicorp/raft waits, and
// counts itself when StoreLogs returns. StoreLogsAhead returns before the entries
// are on the disk, and AwaitSynced is for what must not be seen before.
//
// One batch at most is ahead: whatever else is done to the log waits for it. So
// batches grow while the disk works, as they do otherwise, and the terms and votes
// of a leader that steps down are stored after its entries: when it acknowledges
// something to the next leader, they are durable.
type ahead struct {
	jobs  chan aheadSync // has room for the one
	ended chan struct{}  // closed when the worker has ended

	mu      sync.Mutex
	pending chan struct{} // guarded by mu: closed when the batch is on the disk, or never will be; nil before the first
}

// aheadSync is a batch that is written and not on the disk yet.
type aheadSync struct {
	file *segmentFile
	last uint64 // log index
	done chan struct{}
}

func (l *Log) startAhead() {
	l.ahead.jobs, l.ahead.ended = make(chan aheadSync, 1), make(chan struct{})
	go func() {
		defer close(l.ahead.ended)
		for j := range l.ahead.jobs {
			if l.write("append to the log", j.file.sync) == nil {
				l.synced.Store(j.last)
			}
			close(j.done)
		}
	}()
}

// flush waits until nothing is ahead, or the log has stopped. A write that hangs is
// the watchdog's.
func (l *Log) flush() error {
	l.ahead.mu.Lock()
	pending := l.ahead.pending
	l.ahead.mu.Unlock()
	if pending != nil {
		select {
		case <-pending:
		case <-l.Failed():
		}
	}
	return l.Err()
}

// settle waits until nothing is ahead, however long a write hangs.
func (l *Log) settle() {
	l.ahead.mu.Lock()
	pending := l.ahead.pending
	l.ahead.mu.Unlock()
	if pending != nil {
		<-pending
	}
}

// StoreLogsAhead is StoreLogs, but that it may return before the entries are on the
// disk: AwaitSynced tells when they are. A crash before that may leave a part of
// them. For a leader's own commands only; others acknowledge what they store.
func (l *Log) StoreLogsAhead(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	l.files.ahead.Store(true)
	err := l.store(logs)
	l.files.ahead.Store(false)
	file := l.files.late.Swap(nil)
	if err != nil {
		return err
	}
	last := logs[len(logs)-1].Index
	if file == nil { // the segment is new, and was synced with its name
		l.synced.Store(last)
		return nil
	}
	j := aheadSync{file, last, make(chan struct{})}
	l.ahead.mu.Lock()
	l.ahead.pending = j.done
	l.ahead.mu.Unlock()
	l.ahead.jobs <- j // there is room: store waited for the one before
	return nil
}

// AwaitSynced returns once the entries up to index are on the disk. The error is
// that of a log that has stopped.
func (l *Log) AwaitSynced(index uint64) error {
	for l.synced.Load() < index {
		if last, err := l.wal.LastIndex(); err != nil || last < index {
			return errors.Join(err, fmt.Errorf("entry %d is not in the log, which ends at %d", index, last))
		}
		if err := l.flush(); err != nil {
			return err
		}
	}
	return nil
}

// Synced returns the highest index up to which all entries are on the disk.
func (l *Log) Synced() uint64 { return l.synced.Load() }
