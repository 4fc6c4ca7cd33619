package coord

import (
	"fmt"

	"github.com/hashicorp/raft"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

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
	}
	return err
}
