package coord

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// mayVote says whether a peer votes, or was let in to: whose word counts. Raft
// believes whoever speaks it, be it that a leader was elected, what the log says, or
// which term it is; a group has members that it would not ask for that: who was
// invited to read, or to store. A member with a vote to come is believed, as others
// may know already that it has one.
func (g *Group) mayVote(p pinset.Peer) bool {
	if m, err := g.voting(); err == nil {
		if slices.Contains(m.servers(), server{p, true}) {
			return true // in Raft's configuration one that was removed still may lead
		}
		founded, votes := false, false
		m.fsm.view(func(s *pinset.State) {
			_, founded = s.Group()
			x, member := s.Member(p)
			votes = member && votesOrMay(x)
		})
		if founded {
			return votes || g.isVouched(p)
		}
	}
	f := g.known()
	return slices.Contains(f.Voters, p) || slices.Contains(f.MayVote, p)
}

func (g *Group) isVouched(p pinset.Peer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.vouched == p
}

// inquireEvery is how often the voters are asked about one who speaks Raft.
const inquireEvery = time.Second

// inquire asks the voters about those who speak Raft and may not, as far as this
// member knows. It may have been away while others joined, and one of them leads: it
// would never hear of that if it did not listen to it.
func (g *Group) inquire(ctx context.Context) error {
	for {
		select {
		case p := <-g.unsure:
			if name := pinset.Peer(p.String()); g.votersVouch(ctx, name) {
				g.log.Info("a peer votes that this member has not heard of", "peer", p)
				g.mu.Lock()
				g.vouched = name
				g.mu.Unlock()
			}
		case <-ctx.Done():
			return nil
		}
		select {
		case <-time.After(inquireEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// votersVouch says whether a voter has a peer as one in Raft's configuration.
func (g *Group) votersVouch(ctx context.Context, p pinset.Peer) bool {
	for _, to := range g.members() {
		if name := pinset.Peer(to.ID.String()); name == p || !g.mayVote(name) {
			continue
		}
		call, cancel := context.WithTimeout(ctx, statusPollWait)
		a, err := g.ask(call, pinset.Peer(to.ID.String()), request{Op: opStatus})
		cancel()
		if err == nil && a.Status != nil && slices.Contains(a.Status.Voters, p) {
			return true
		}
	}
	return false
}

func votesOrMay(m pinset.Member) bool { return m.MayVote || m.Vote == pinset.Voter }

// voterCarrier keeps from Raft what members without a vote answer beyond how far
// they are. Raft v1.8.0 gives up leadership for any answer with a higher term, and
// for a heartbeat that any member does not take. No honest learner gives one, other
// than to a leader that has been followed by another, and that has lost its voters.
type voterCarrier struct {
	carrier
	votes func(pinset.Peer) bool
}

// AppendEntries sends entries, or a heartbeat.
func (t voterCarrier) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.carrier.AppendEntries(id, to, args, resp)
	if err == nil && !t.votes(pinset.Peer(id)) {
		resp.Term = min(resp.Term, args.Term)
		if len(args.Entries) == 0 && args.PrevLogEntry == 0 {
			resp.Success = true
		}
	}
	return err
}

// AppendEntriesPipeline is for voters: learners get their entries one after the other.
func (t voterCarrier) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	if !t.votes(pinset.Peer(id)) {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	return t.carrier.AppendEntriesPipeline(id, to)
}

// InstallSnapshot sends a whole state.
func (t voterCarrier) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := t.carrier.InstallSnapshot(id, to, args, resp, data)
	if err == nil && !t.votes(pinset.Peer(id)) {
		resp.Term = min(resp.Term, args.Term)
	}
	return err
}
