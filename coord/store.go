package coord

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

// leaderLog has a leader send its commands while its own disk writes them. Raft
// counts the leader when StoreLogs returns; but until the disk has them nobody is
// told that they are committed: not the state (fsm.durable), and not the other
// members (ackCarrier.synced). What changes the configuration, and what begins a
// term, Raft acts upon by itself: that waits for the disk.
type leaderLog struct {
	replacedLog
	raft atomic.Pointer[raft.Raft] // set once Raft has been made
}

// StoreLogs is called by Raft's main loop, in which its role does not change
// meanwhile.
func (l *leaderLog) StoreLogs(logs []*raft.Log) error {
	other := func(e *raft.Log) bool { return e.Type != raft.LogCommand }
	if r := l.raft.Load(); r == nil || r.State() != raft.Leader || slices.ContainsFunc(logs, other) {
		return l.Log.StoreLogs(logs)
	}
	return l.Log.StoreLogsAhead(logs)
}

// stableStore keeps Raft from panicking when the log has stopped: it panics when
// a term can't be saved. The goroutine that would panic ends instead, its
// deferred calls done; Group.Run is told of the failed log anyway, and ends.
type stableStore struct{ *raftlog.Log }

func (s stableStore) Set(key, val []byte) error {
	return s.orEnd(s.Log.Set(key, val))
}

func (s stableStore) SetUint64(key []byte, val uint64) error {
	return s.orEnd(s.Log.SetUint64(key, val))
}

func (s stableStore) orEnd(err error) error {
	if err != nil && s.Err() != nil {
		runtime.Goexit()
	}
	return err
}

// errReplaced ends a life whose log a snapshot has replaced. Raft v1.8.0 goes on
// believing that the log ends where it ended before, if that was further: it then takes
// no entries up to there, and is sent the same snapshot again and again. Opened anew,
// it knows better.
var errReplaced = fmt.Errorf("%w: the leader's snapshot has replaced its log", errTurned)

// replacedLog tells when all of the log was deleted though it went on behind the newest
// snapshot: what a leader that was cut off has left behind, and nobody has taken.
type replacedLog struct {
	*raftlog.Log
	snapshots raft.SnapshotStore
	replaced  chan struct{} // has room for one
}

// DeleteRange deletes entries.
func (l replacedLog) DeleteRange(min, max uint64) error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	if err := l.Log.DeleteRange(min, max); err != nil || min > first || max < last {
		return err
	}
	list, err := l.snapshots.List()
	if err == nil && len(list) > 0 && min <= list[0].Index && list[0].Index < last {
		select {
		case l.replaced <- struct{}{}:
		default: // it is known
		}
		// Raft's main loop must not go on with what it believes: it would commit
		// entries that are gone.
		runtime.Goexit()
	}
	return err
}
