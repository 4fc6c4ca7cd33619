package coord

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"golang.org/x/sync/errgroup"
)

// fsm is the group's state as Raft's log makes it. It is a raft.BatchingFSM: Raft
// calls ApplyBatch, Snapshot and Restore one after the other, everybody else view.
//
// The first command that can't be applied breaks it: from then on it applies
// nothing, gives no snapshot, and failed is closed. Going on without one command
// would be going on with another state than the other members have.
type fsm struct {
	group     GroupID
	committed func(index uint64) // told after each batch, without the lock
	kick      func()             // told, without the lock, that who is a member may have changed
	failed    chan struct{}      // closed when broken
	// durable waits until this member's disk has the log up to an index; nil: it has.
	durable func(index uint64) error

	mu      sync.Mutex
	state   *pinset.State // guarded by mu
	applied uint64        // guarded by mu: the highest index that the state has taken in
	broken  error         // guarded by mu: why failed is closed
	wake    chan struct{} // guarded by mu: closed by the next rise of applied; nil when nobody waits
}

func newFSM(group GroupID, committed func(uint64), kick func()) *fsm {
	return &fsm{group: group, committed: committed, kick: kick, failed: make(chan struct{}), state: pinset.New()}
}

// errDiffers says that this member's state is not the leader's. Which of the two
// is wrong can't be known here; the leader's is what the group goes on with.
var errDiffers = errors.New("this member's state differs from the leader's")

// Apply is ApplyBatch of one.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies committed entries. What it returns for each is a
// pinset.Result, nil for a configuration, or an error.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	members := false
	if f.durable != nil {
		if err := f.durable(logs[len(logs)-1].Index); err != nil {
			for i := range results { // the log has stopped, and this member ends
				results[i] = err
			}
			return results
		}
	}
	f.mu.Lock()
	for i, l := range logs {
		members = members || l.Type == raft.LogConfiguration || changesMembers(l.Data)
		if results[i] = f.applyOne(l); f.broken != nil {
			results[i] = f.broken
		}
	}
	last := f.applied
	f.rise()
	f.mu.Unlock()
	f.committed(last)
	if members {
		f.kick()
	}
	return results
}

// applyOne applies one entry; f.mu is held.
func (f *fsm) applyOne(l *raft.Log) any {
	if f.broken != nil {
		return f.broken
	}
	if l.Type != raft.LogCommand || l.Index <= f.state.Index() { // nothing for the state, or taken in by catchUp
		f.applied = max(f.applied, l.Index)
		return nil
	}
	result, err := f.state.Apply(l.Index, l.Data)
	if err == nil && result.Differs {
		err = errDiffers
	}
	if err != nil {
		f.broken = fmt.Errorf("apply log index %d: %w", l.Index, err)
		close(f.failed)
		return f.broken
	}
	f.applied = max(f.applied, l.Index)
	return result
}

// catchUp applies what a log is known to have committed. After a restart Raft
// knows nothing to be committed until it hears from a leader, and a member without
// a quorum would have nothing to tell. (Raft's own RestoreCommittedLogs, in v1.8.0,
// passes over the configurations among them.) Raft may apply the same entries at
// the same time, and applies them again: each counts once.
func (f *fsm) catchUp(log raft.LogStore, committed uint64) error {
	first, err := log.FirstIndex()
	if err != nil || first == 0 {
		return err
	}
	var next uint64
	f.view(func(s *pinset.State) { next = max(first, s.Index()+1) })
	// Reading and applying take as long: they go on side by side.
	reading, ctx := errgroup.WithContext(context.Background())
	batches := make(chan []*raft.Log, 4)
	reading.Go(func() error {
		defer close(batches)
		for ; next <= committed; next += catchUpBatch {
			batch := make([]*raft.Log, min(catchUpBatch, committed-next+1))
			for i := range batch {
				batch[i] = new(raft.Log)
				if err := log.GetLog(next+uint64(i), batch[i]); err != nil {
					return err
				}
			}
			select {
			case batches <- batch:
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	})
	reading.Go(func() error {
		for batch := range batches {
			f.ApplyBatch(batch)
		}
		return nil
	})
	return reading.Wait()
}

// catchUpBatch is how many entries are read at a time before they are applied.
const catchUpBatch = 128

// changesMembers looks at a command's second byte: see pinset, "Commands".
func changesMembers(frame []byte) bool {
	if len(frame) < 2 {
		return false
	}
	switch pinset.Op(frame[1]) {
	case pinset.OpFound, pinset.OpMember, pinset.OpRemove, pinset.OpJoin, pinset.OpEpoch:
		return true
	}
	return false
}

// rise wakes those who wait for an index; f.mu is held.
func (f *fsm) rise() {
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// reached tells that the entries up to index are applied or were none for the
// state: Raft keeps no-ops and barriers to itself.
func (f *fsm) reached(index uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = max(f.applied, index)
	f.rise()
}

// wait returns when the state has taken in the entries up to index.
func (f *fsm) wait(ctx context.Context, index uint64) error {
	for {
		f.mu.Lock()
		if f.broken != nil {
			defer f.mu.Unlock()
			return f.broken
		}
		if f.applied >= index {
			f.mu.Unlock()
			return nil
		}
		if f.wake == nil {
			f.wake = make(chan struct{})
		}
		wake := f.wake
		f.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changed returns a channel that is closed when the state takes in more.
func (f *fsm) changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	return f.wake
}

// view calls fn with the state, which fn must not keep or change. It returns the
// highest index that the state has taken in.
func (f *fsm) view(fn func(*pinset.State)) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fn != nil {
		fn(f.state)
	}
	return f.applied
}

// clone returns the state as it is, for a caller of its own.
func (f *fsm) clone() *pinset.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.Clone()
}

// err returns why the fsm is broken, nil while it is not.
func (f *fsm) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.broken
}

// Snapshot takes the state as it is. It costs nothing that grows with it.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return nil, f.broken
	}
	return fsmSnapshot{f.state.Clone()}, nil
}

// Restore replaces the state by that of a snapshot. The old one goes first, so that
// there are never two of a large group; who wants to look waits meanwhile, some
// seconds for a million pins. So there is no way back when the snapshot can't be
// read, though its checksum was right: the fsm is broken then.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	f.mu.Lock()
	if f.broken != nil {
		defer f.mu.Unlock()
		return f.broken
	}
	f.state = nil
	state, err := pinset.Decode(r)
	if err == nil {
		if g, founded := state.Group(); founded && GroupID(g.ID) != f.group {
			err = fmt.Errorf("it is of group %s, not of %s", g.ID, f.group)
		}
	}
	if err != nil {
		defer f.mu.Unlock()
		f.state = pinset.New()
		f.broken = fmt.Errorf("restore a snapshot: %w", err)
		close(f.failed)
		return f.broken
	}
	f.state, f.applied = state, state.Index()
	f.rise()
	f.mu.Unlock()
	f.kick()
	return nil
}

type fsmSnapshot struct{ state *pinset.State }

// Persist writes the state while the fsm goes on with its own.
func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.state.Encode(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (fsmSnapshot) Release() {}
