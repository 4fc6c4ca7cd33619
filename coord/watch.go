package coord

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

const (
	watchEvery = 500 * time.Millisecond // a look at who is a member
	tellEvery  = time.Minute            // a look at this member's own addresses
)

// watch keeps group.json up to date, ends the streams of those who are no members
// any more, and finds out when this member isn't.
func (g *Group) watch(ctx context.Context, m *member) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		m.calm()
		if m.leader() != "" {
			g.mu.Lock()
			g.heard = time.Now()
			g.mu.Unlock()
		}
		if err := g.unlessFull(g.remember(m)); err != nil {
			return err
		}
		m.carrier.reset(func(p peer.ID, accepted bool) bool { return !g.keeps(m, p, accepted) })
		if r := g.removal(m); r != nil {
			if m.leads() && m.otherVoters() {
				// It still has to hand over; the next leader takes it out of the
				// configuration.
				m.transfer(ctx)
			} else {
				g.log.Warn("this member was removed from the group", "by", r.By, "index", r.Index)
				err := g.change(func(f *groupFile) { f.Removed = r })
				if err == nil {
					return errTurned
				}
				if err := g.unlessFull(err); err != nil {
					return err
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// unlessFull returns the error of a change of group.json, but nil if the disk is
// full: the next look tries again, and until then the file says what it said.
func (g *Group) unlessFull(err error) error {
	if err == nil || !raftlog.IsFull(err) {
		return err
	}
	g.log.Warn("the disk is full: what is known of the group is not written", "err", err)
	return nil
}

// remember writes to group.json who is in the group.
func (g *Group) remember(m *member) error {
	var members []knownMember
	var admins, mayVote []pinset.Peer
	var epoch uint64
	var own pinset.Member
	m.fsm.view(func(s *pinset.State) {
		info, _ := s.Group()
		epoch = info.Epoch
		own, _ = s.Member(g.c.self())
		for _, x := range s.Members() {
			members = append(members, knownMember{x.Peer, x.Addrs})
			if votesOrMay(x) {
				mayVote = append(mayVote, x.Peer)
			}
		}
		for p, roles := range s.Granted() {
			if roles.Has(pinset.RoleAdmin) {
				admins = append(admins, p)
			}
		}
	})
	if epoch == 0 {
		return nil // not founded, as far as this member knows
	}
	var voters []pinset.Peer
	for _, s := range m.servers() {
		if s.voter {
			voters = append(voters, s.id)
		}
	}
	return g.change(func(f *groupFile) {
		if f.Epoch == epoch { // and not in a later one already, which is to begin
			f.Members, f.Voters, f.MayVote, f.Founding = members, voters, mayVote, nil
			f.Capacity = 0
			if !own.NoStore {
				f.Capacity = own.Capacity
			}
			f.void(admins)
		}
	})
}

// tell keeps the group informed of where this member is.
func (g *Group) tell(ctx context.Context, m *member) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	client := g.c.Client(g.id)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var known []string
		member := false
		m.fsm.view(func(s *pinset.State) {
			var x pinset.Member
			x, member = s.Member(g.c.self())
			known = slices.Clone(x.Addrs)
		})
		now := g.c.addrs()
		slices.Sort(known)
		if !member || len(now) == 0 || slices.Equal(known, slices.Sorted(slices.Values(now))) {
			continue
		}
		if _, err := client.write(ctx, request{Op: opUpdate, Addrs: now}); err != nil && ctx.Err() == nil {
			g.log.Info("the group does not know this member's new addresses", "err", err)
		}
	}
}

// removal returns how this member was removed, nil while it is one.
func (g *Group) removal(m *member) *removal {
	var r *removal
	self := g.c.self()
	applied := m.fsm.view(func(s *pinset.State) {
		t, removed := s.Tombstone(self)
		if _, member := s.Member(self); removed && !member {
			r = &removal{By: t.By, Index: t.Index}
		}
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if r == nil && g.told != nil && g.told.Index > applied {
		return g.told
	}
	return r
}
