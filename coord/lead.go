package coord

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"golang.org/x/sync/errgroup"
)

const (
	leadEvery   = 500 * time.Millisecond // a look of the leader at its group
	steadyFor   = 2 * time.Second        // a learner has been caught up before it is promoted
	markEvery   = 30 * time.Second       // between comparisons of the members' states
	expireEvery = time.Second
	votersMax   = 5
)

// tenure is what a leader remembers while it leads.
type tenure struct {
	term   uint64
	steady map[pinset.Peer]time.Time // since when a learner has been caught up
	goal   uint64                    // commit index at the last look: who has that is caught up
	marked time.Time
	swept  time.Time // when expiry was last looked at
}

// lead does the leader's work while this member leads.
func (g *Group) lead(ctx context.Context, m *member) error {
	tick := time.NewTicker(leadEvery)
	defer tick.Stop()
	var t *tenure
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-g.kicked:
		}
		if !m.leads() {
			t = nil
			g.reports.end()
			continue
		}
		if term := m.term(); t == nil || t.term != term {
			t = &tenure{term: term, steady: map[pinset.Peer]time.Time{}}
			g.reports.begin(term)
			g.log.Info("this member leads the group", "term", term)
		}
		if err := g.leadOnce(ctx, m, t); err != nil && ctx.Err() == nil {
			g.log.Debug("leader's work is put off", "err", err)
		}
	}
}

// leadOnce does what is due. What fails is tried again at the next look.
func (g *Group) leadOnce(ctx context.Context, m *member, t *tenure) error {
	if err := m.fence(ctx); err != nil {
		return err
	}
	if err := g.found(ctx, m); err != nil {
		return err
	}
	if err := g.reconcile(ctx, m); err != nil {
		return err
	}
	return errors.Join(g.promote(ctx, m, t), g.expire(ctx, m, t), g.commitReports(ctx, m), g.attend(ctx, m), g.mark(ctx, m, t))
}

// found proposes the first command, if this member made the group.
func (g *Group) found(ctx context.Context, m *member) error {
	founded := false
	m.fsm.view(func(s *pinset.State) { _, founded = s.Group() })
	f := g.known()
	if founded {
		return nil
	}
	if f.Founding == nil {
		return errors.New("the group is not founded, and not by this member")
	}
	record, err := openFounding(f.Record)
	if err != nil {
		return err
	}
	c := &pinset.Found{Group: pinset.Digest(g.id), Name: record.Name, Recovery: record.Recovery,
		Capacity: f.Founding.Capacity, Zone: f.Founding.Zone, NoStore: f.Founding.NoStore, Addrs: g.c.addrs(), Grace: f.Founding.Grace}
	r, err := g.propose(ctx, m, c, &c.Header)
	return errors.Join(err, resultError(r))
}

// reconcile brings Raft's configuration to what the state says, a member at a time.
func (g *Group) reconcile(ctx context.Context, m *member) error {
	for {
		var members []pinset.Member
		m.fsm.view(func(s *pinset.State) { members = s.Members() })
		c, p, found := nextChange(members, m.servers())
		if !found {
			return nil
		}
		if p == g.c.self() && c != addVoter {
			if !m.otherVoters() {
				return nil // nobody could go on
			}
			return m.transfer(ctx)
		}
		g.log.Info("the group's configuration changes", "peer", p, "change", c)
		if err := m.configure(ctx, c, p); err != nil {
			return err
		}
	}
}

// nextChange returns a change that brings the configuration nearer to the members:
// first who goes, so that a dead voter does not count against a new one.
func nextChange(members []pinset.Member, servers []server) (change, pinset.Peer, bool) {
	for _, s := range servers {
		if !slices.ContainsFunc(members, func(x pinset.Member) bool { return x.Peer == s.id }) {
			return remove, s.id, true
		}
	}
	for _, x := range members {
		i := slices.IndexFunc(servers, func(s server) bool { return s.id == x.Peer })
		votes := x.Vote == pinset.Voter
		switch {
		case i < 0 && votes:
			return addVoter, x.Peer, true
		case i < 0:
			return addLearner, x.Peer, true
		case votes && !servers[i].voter:
			return addVoter, x.Peer, true
		case !votes && servers[i].voter:
			return demote, x.Peer, true
		}
	}
	return 0, "", false
}

// promote gives votes to learners that are to have one and have been caught up for
// a while, one after the other.
func (g *Group) promote(ctx context.Context, m *member, t *tenure) error {
	var members []pinset.Member
	atOnce := map[pinset.Peer]bool{}
	m.fsm.view(func(s *pinset.State) {
		members = s.Members()
		for _, x := range members {
			atOnce[x.Peer] = s.VotesAtOnce(x)
		}
	})
	waiting := slices.DeleteFunc(slices.Clone(members), func(x pinset.Member) bool {
		return x.Vote != pinset.Learner || !x.MayVote
	})
	if len(waiting) == 0 {
		clear(t.steady)
		return nil
	}
	g.look(ctx, m, t, waiting)
	for _, p := range promotions(members, atOnce, t.steady, time.Now()) {
		c := &pinset.SetMember{Peer: p, Vote: pinset.Voter}
		r, err := g.propose(ctx, m, c, &c.Header)
		if err := errors.Join(err, resultError(r)); err != nil {
			return err
		}
		if err := g.reconcile(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// promotions returns who gets a vote now: as many as make 1, 3 or 5 voters of what
// there are, of the learners that may vote and have been steady, by peer. Those
// that are to vote at once come first, and may make it 2 or 4.
func promotions(members []pinset.Member, atOnce map[pinset.Peer]bool, steady map[pinset.Peer]time.Time, now time.Time) []pinset.Peer {
	voters := 0
	var first, ready []pinset.Peer
	for _, x := range members {
		since, caughtUp := steady[x.Peer]
		switch {
		case x.Vote == pinset.Voter:
			voters++
		case x.MayVote && caughtUp && now.Sub(since) >= steadyFor:
			if atOnce[x.Peer] {
				first = append(first, x.Peer)
			} else {
				ready = append(ready, x.Peer)
			}
		}
	}
	ready = append(first, ready...)
	n := min(len(ready), votersMax-voters)
	if n > len(first) && (voters+n)%2 == 0 {
		n--
	}
	return ready[:max(n, 0)]
}

// Waiting tells why a learner that is to vote has no vote yet; "" for any other
// member. members are all of the group.
func Waiting(members []Member, m Member) string {
	if m.Vote == Voter || !m.MayVote {
		return ""
	}
	voters, waiting := 0, 0
	for _, x := range members {
		switch {
		case x.Vote == Voter:
			voters++
		case x.MayVote:
			waiting++
		}
	}
	switch n := voters + 1; {
	case voters >= votersMax:
		return fmt.Sprintf("the group has %d voters, and takes no more", voters)
	case m.AtOnce || n%2 == 1 || waiting > 1:
		return "until it has caught up"
	default:
		return fmt.Sprintf("%d voters would be an even count, of which no more may fail than of %d: until another one is invited", n, voters)
	}
}

// look asks learners how far they are. Raft knows, and does not tell.
func (g *Group) look(ctx context.Context, m *member, t *tenure, learners []pinset.Member) {
	goal := t.goal
	t.goal = m.commitIndex()
	if goal == 0 {
		return // the first look
	}
	ctx, cancel := context.WithTimeout(ctx, statusPollWait)
	defer cancel()
	var mu sync.Mutex
	var tasks errgroup.Group
	tasks.SetLimit(16)
	for _, x := range learners {
		tasks.Go(func() error {
			a, err := g.ask(ctx, x.Peer, request{Op: opStatus, Read: readStale})
			mu.Lock()
			defer mu.Unlock()
			if err != nil || a.Status == nil || a.Status.Applied < goal {
				delete(t.steady, x.Peer)
			} else if _, was := t.steady[x.Peer]; !was {
				t.steady[x.Peer] = time.Now()
			}
			return nil
		})
	}
	tasks.Wait()
}

// ask sends another member one request.
func (g *Group) ask(ctx context.Context, p pinset.Peer, r request) (answer, error) {
	id, err := peer.Decode(string(p))
	if err != nil {
		return answer{}, err
	}
	return g.c.links.ask(ctx, link{g.id, id}, g.where(id), g.opening(), r)
}

// expire drops what is due.
func (g *Group) expire(ctx context.Context, m *member, t *tenure) error {
	now := time.Now()
	if now.Sub(t.swept) < expireEvery {
		return nil
	}
	t.swept = now
	due := false
	m.fsm.view(func(s *pinset.State) { due = s.Due(now.UnixMilli()) })
	for due {
		c := &pinset.Expire{}
		r, err := g.propose(ctx, m, c, &c.Header)
		if err := errors.Join(err, resultError(r)); err != nil {
			return err
		}
		due = r.More
	}
	return nil
}

// mark compares the members' states, if something changed since the last time.
func (g *Group) mark(ctx context.Context, m *member, t *tenure) error {
	now := time.Now()
	if t.marked.IsZero() {
		t.marked = now
	}
	if now.Sub(t.marked) < markEvery {
		return nil
	}
	c := &pinset.Mark{}
	changed := false
	m.fsm.view(func(s *pinset.State) {
		c.Index, c.Hash = s.Mark()
		changed = s.Index() > c.Index
	})
	if !changed {
		return nil
	}
	t.marked = now
	r, err := g.propose(ctx, m, c, &c.Header)
	return errors.Join(err, resultError(r))
}
