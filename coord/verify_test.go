package coord

import (
	"testing"

	"github.com/hashicorp/raft"
)

// sentCarrier keeps what it is given to send.
type sentCarrier struct {
	carrier
	sent []uint64 // commit indices
}

func (c *sentCarrier) AppendEntries(_ raft.ServerID, _ raft.ServerAddress, a *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) error {
	c.sent = append(c.sent, a.LeaderCommitIndex)
	return nil
}

func (c *sentCarrier) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return sentPipeline{c}, nil
}

type sentPipeline struct{ *sentCarrier }

func (p sentPipeline) AppendEntries(a *raft.AppendEntriesRequest, _ *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.sent = append(p.sent, a.LeaderCommitIndex)
	return nil, nil
}

func (p sentPipeline) Consumer() <-chan raft.AppendFuture { return nil }
func (p sentPipeline) Close() error                       { return nil }

func TestNobodyIsToldOfACommitBeyondTheMessageOrTheLeadersDisk(t *testing.T) {
	entries := func(first, last uint64) (list []*raft.Log) {
		for i := first; i <= last; i++ {
			list = append(list, &raft.Log{Index: i})
		}
		return list
	}
	for _, c := range []struct {
		name         string
		prev         uint64
		entries      []*raft.Log
		commit, disk uint64
		want         uint64
	}{
		{"heartbeat", 0, nil, 0, 9, 0},
		{"nothing new, all committed", 9, nil, 9, 9, 9},
		{"nothing new, put off while the leader went on", 4, nil, 9, 9, 4},
		{"entries, put off while the leader went on", 4, entries(5, 7), 9, 9, 7},
		{"entries that are not committed", 4, entries(5, 7), 5, 9, 5},
		{"entries that are not on the leader's disk", 4, entries(5, 7), 7, 6, 6},
	} {
		inner := &sentCarrier{}
		a := &ackCarrier{carrier: inner, synced: func() uint64 { return c.disk }, acks: map[raft.ServerID]ack{}}
		message := func() *raft.AppendEntriesRequest {
			return &raft.AppendEntriesRequest{PrevLogEntry: c.prev, Entries: c.entries, LeaderCommitIndex: c.commit}
		}
		if err := a.AppendEntries("x", "x", message(), &raft.AppendEntriesResponse{}); err != nil {
			t.Fatal(err)
		}
		p, err := a.AppendEntriesPipeline("x", "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.AppendEntries(message(), &raft.AppendEntriesResponse{}); err != nil {
			t.Fatal(err)
		}
		if len(inner.sent) != 2 || inner.sent[0] != c.want || inner.sent[1] != c.want {
			t.Errorf("%s: told of commits to %v, want %d", c.name, inner.sent, c.want)
		}
	}
}
