package coord

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ackCarrier notes when what the other members acknowledge was sent. Raft's own
// VerifyLeader takes any acknowledgement that is read after the call, from learners
// too: a leader whose process was stopped for a while reads, when it goes on, those
// from before another one was elected. (hashicorp/raft v1.8.0, replication.go:
// notifyAll.)
//
// What Raft sends in a pipeline is not noted: heartbeats are sent otherwise, and
// VerifyLeader has them sent at once.
//
// It also tells the others of no commit beyond what is on this member's disk: see
// leaderLog.
type ackCarrier struct {
	carrier
	synced func() uint64 // highest log index on the disk

	mu   sync.Mutex
	acks map[raft.ServerID]ack // guarded by mu
	wake chan struct{}         // guarded by mu: closed by the next ack; nil when nobody waits
}

// ack is the latest message of a leader that a member has acknowledged.
type ack struct {
	term uint64
	sent time.Time
}

// AppendEntries sends entries, or a heartbeat.
func (t *ackCarrier) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	boundCommit(args, t.synced())
	sent := time.Now()
	err := t.carrier.AppendEntries(id, target, args, resp)
	if err == nil && resp.Success {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !sent.Before(t.acks[id].sent) {
			t.acks[id] = ack{args.Term, sent}
		}
		if t.wake != nil {
			close(t.wake)
			t.wake = nil
		}
	}
	return err
}

// AppendEntriesPipeline sends entries one after the other.
func (t *ackCarrier) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := t.carrier.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	return syncedPipeline{p, t.synced}, nil
}

type syncedPipeline struct {
	raft.AppendPipeline
	synced func() uint64
}

func (p syncedPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	boundCommit(args, p.synced())
	return p.AppendPipeline.AppendEntries(args, resp)
}

// boundCommit keeps the commit index that a message tells to what is on the leader's
// disk, and to what the message vouches for. Raft's dissertation has the follower
// bound it by the last entry that it was sent (§3.5, figure 3.1); hashicorp/raft v1.8.0
// bounds it by the end of the follower's log. That may go on behind the message with
// entries of an older leader, which would be committed, or with some that a failed
// write has taken away, at which it panics: a message that was put off, by a slow one
// before it, tells of commits beyond what it carries.
func boundCommit(args *raft.AppendEntriesRequest, synced uint64) {
	last := args.PrevLogEntry
	if n := len(args.Entries); n > 0 {
		last = args.Entries[n-1].Index
	}
	args.LeaderCommitIndex = min(args.LeaderCommitIndex, synced, last)
}

// next returns a channel that is closed by the next acknowledgement.
func (t *ackCarrier) next() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wake == nil {
		t.wake = make(chan struct{})
	}
	return t.wake
}

// quorumSince says whether most of the voters have acknowledged, in that term,
// something that was sent since then; self has.
func (t *ackCarrier) quorumSince(voters []server, self raft.ServerID, term uint64, since time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, acked := 0, 0
	for _, s := range voters {
		if !s.voter {
			continue
		}
		all++
		id := raft.ServerID(s.id)
		if a := t.acks[id]; id == self || a.term == term && !a.sent.Before(since) {
			acked++
		}
	}
	return acked > all/2
}

// verify returns once a quorum has acknowledged what this leader sent it in that
// term after the call: nobody else was elected before.
func (m *member) verify(ctx context.Context, term uint64) error {
	since := time.Now()
	self := raft.ServerID(m.carrier.LocalAddr())
	if err := await(ctx, m.raft.VerifyLeader()); err != nil {
		return leadership(err)
	}
	// Heartbeats have been sent, or follow those that were under way at the call.
	for {
		next := m.carrier.next()
		switch {
		case m.carrier.quorumSince(m.servers(), self, term, since):
			return nil
		case !m.leads() || m.term() != term:
			return ErrNoLeader
		}
		select {
		case <-next:
		case <-time.After(commitTimeout): // it may lead no more
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
