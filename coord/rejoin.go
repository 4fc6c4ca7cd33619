package coord

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
	"golang.org/x/sync/errgroup"
)

// Both say that what a member keeps of its group is damaged, and that this is beyond
// what other members can mend. The member has stopped; nothing was changed.
var (
	// ErrDamaged is of the log of a group's only voter: there is nobody to learn
	// from. A backup brings the group back.
	ErrDamaged = errors.New("stopped: the log of the group's only voter is damaged")
	// ErrUnreadable is of what a member knows of the group besides the log, in both
	// copies. It can be removed from the group and join again.
	ErrUnreadable = errors.New("stopped: group.json and its copy are damaged")
)

// resetError says that the member has to begin anew.
type resetError struct {
	reason    string
	committed uint64 // it may have acknowledged entries up to there
}

func (e *resetError) Error() string { return e.reason }

// damaged turns the error of a damaged log into a reset.
func (g *Group) damaged(err error) error {
	var d *raftlog.DamagedError
	if !errors.As(err, &d) {
		return err
	}
	return &resetError{reason: d.Error(), committed: d.Watermark}
}

// reset wipes the member's log and state. If nobody else votes it changes nothing
// and returns ErrDamaged.
func (g *Group) reset(r *resetError) error {
	f := g.known()
	if f.Founding != nil || slices.Equal(f.Voters, []pinset.Peer{g.c.self()}) {
		return fmt.Errorf("%w (%s)", ErrDamaged, r.reason)
	}
	return raftlog.Wipe(g.dir, raftlog.Rejoin{Reason: r.reason, Committed: r.committed})
}

// rejoin waits, without Raft, until the leader has committed a configuration in
// which this member has no vote. Then an empty log can do no harm.
func (g *Group) rejoin(ctx context.Context, r raftlog.Rejoin) error {
	g.setMember(nil, fmt.Errorf("%w: it lost its log and waits until the leader has taken its vote away: %s", ErrStopped, r.Reason))
	// A crash may have left a part of what Wipe removes.
	if err := raftlog.Wipe(g.dir, r); err != nil {
		return err
	}
	if err := g.askRejoin(ctx, r.Committed); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return raftlog.ClearRejoin(g.dir)
}

// quarantine has a member whose state differs go on in Raft, without a word to who
// asks, until the leader has taken its vote away. Its log is whole, so its vote is
// as good as it was; and when the states of a majority differ, nothing can be
// committed without theirs. It must not lead: nobody would be served.
//
// It returns nil when ctx has ended, and otherwise why the member ends.
func (g *Group) quarantine(ctx context.Context, m *member, reason string) error {
	g.log.Warn("this member's state differs from the leader's: it answers nothing, and waits to begin anew", "reason", reason)
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return m.keepLog(ctx) })
	tasks.Go(func() error {
		committed := m.appliedIndex()
		if err := g.askRejoin(ctx, committed); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		return &resetError{reason: reason, committed: committed}
	})
	tasks.Go(func() error {
		tick := time.NewTicker(rejoinEvery)
		defer tick.Stop()
		for {
			if m.leads() {
				m.transferToAny(ctx)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return tasks.Wait()
}

// askRejoin asks the voters until the leader agrees, or this life ends.
func (g *Group) askRejoin(ctx context.Context, committed uint64) error {
	for {
		err := g.askVoters(ctx, committed)
		if err == nil {
			return nil
		}
		g.log.Info("no leader has taken this member's vote away yet", "err", err)
		wait, cancel := context.WithTimeout(ctx, rejoinEvery)
		err = g.idle(wait)
		cancel()
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
}

// askVoters asks each of the other voters, who pass it on to the leader. No other
// member is asked, or followed to a leader: one that says yes without having done it
// has this member vote with an empty log.
func (g *Group) askVoters(ctx context.Context, committed uint64) error {
	errs := []error{ErrNoLeader}
	for _, to := range g.members() {
		p := pinset.Peer(to.ID.String())
		if !g.mayVote(p) {
			continue
		}
		call, cancel := context.WithTimeout(ctx, g.c.config.Timing.scale(forwardWait))
		a, err := g.ask(call, p, request{Op: opRejoin, Committed: committed})
		cancel()
		if err == nil {
			err = a.err()
		}
		if err == nil && a.Index >= committed {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// giveBack is the leader's part: it takes the vote of a member away, which has
// lost its log, and returns an index at which that is committed.
func (g *Group) giveBack(ctx context.Context, m *member, from pinset.Peer) (uint64, error) {
	if err := m.readIndex(ctx); err != nil {
		return 0, err
	}
	var vote pinset.Vote
	m.fsm.view(func(s *pinset.State) {
		if x, ok := s.Member(from); ok {
			vote = x.Vote
		}
	})
	if vote == pinset.Voter {
		c := &pinset.SetMember{Peer: from, Vote: pinset.Learner}
		if r, err := g.propose(ctx, m, c, &c.Header); err != nil || r.Code != pinset.OK {
			return 0, errors.Join(err, resultError(r))
		}
	}
	if slices.Contains(m.servers(), server{from, true}) {
		if err := m.configure(ctx, demote, from); err != nil {
			return 0, err
		}
	}
	return m.commitIndex(), m.readIndex(ctx)
}

// knock asks the others, while no leader is heard of, whether they let this member
// in. A learner opens no Raft streams, and would not be told that it was removed.
func (g *Group) knock(ctx context.Context) error {
	tick := time.NewTicker(g.c.config.Timing.scale(quorumWait))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if !errors.Is(g.leaderless(), ErrNoQuorum) {
			continue
		}
		for _, to := range g.members() {
			s, _, err := dialGroup(ctx, g.c.links.node, to, groupProtocol, g.opening())
			var refused *RefusedError
			if errors.As(err, &refused) {
				g.learn(refused)
			}
			if err == nil {
				s.Reset()
			}
		}
	}
}

// members returns where the other members are, as far as is known: first those that
// vote, or may. Others have no answer but who leads, and are to be believed less.
func (g *Group) members() []peer.AddrInfo {
	var list []peer.AddrInfo
	f := g.known()
	known := slices.Clone(f.Members)
	order := map[pinset.Peer]int{}
	for _, p := range slices.Concat(f.Voters, f.MayVote) {
		order[p] = -1
	}
	slices.SortStableFunc(known, func(a, b knownMember) int { return order[a.Peer] - order[b.Peer] })
	for _, k := range known {
		if p, err := peer.Decode(string(k.Peer)); err == nil && p != g.c.node.ID() {
			list = append(list, g.where(p))
		}
	}
	return list
}
