package coord

import (
	"context"
	"slices"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// plan returns the state as it is, and its plan. Neither is to be changed.
func (g *Group) plan(m *member) (*pinset.State, *pinset.Plan) {
	plan := m.planner.plan(m.fsm)
	return plan.State(), plan
}

// wantedElsewhere says whether a group of this peer's, other than but, may want a
// content here: it does, or it does not run or is not up to date just now.
func (c *Coord) wantedElsewhere(but *Group, id content.ID) bool {
	for _, g := range c.Groups() {
		if g == but || g.known().parked() != nil {
			continue
		}
		m, err := g.running()
		if err != nil || !m.caughtUp() {
			return true
		}
		state, plan := g.plan(m)
		pin, pinned := state.Pin(id)
		place, _ := plan.Place(id)
		if pinned && (slices.Contains(pin.Copies, c.self()) || slices.Contains(place.Holders, c.self())) {
			return true
		}
	}
	return false
}

// settleQuota tells the store how much all groups together may put into it.
func (c *Coord) settleQuota() {
	c.holds.setQuota(max(c.Capacity(), 1)) // 0 would be no quota
}

// Capacity is how many bytes of copies this peer offers to all its groups together: the
// quota of the store, within a second.
func (c *Coord) Capacity() (bytes int64) {
	for _, g := range c.Groups() {
		if f := g.known(); f.parked() == nil {
			bytes += g.ownCapacity(f.Capacity)
		}
	}
	return bytes
}

// ownCapacity is what this member gives to copies by the state, and as it was last
// known while there is none.
func (g *Group) ownCapacity(known int64) int64 {
	m, err := g.running()
	if err != nil {
		return known
	}
	m.fsm.view(func(s *pinset.State) {
		switch own, member := s.Member(g.c.self()); {
		case member && own.NoStore:
			known = 0
		case member:
			known = own.Capacity
		}
	})
	return known
}

// WillAdopt is called before a content is pinned that Adopt is then called for: it may
// be planned for this peer in between, and must not be fetched then.
func (c *Coord) WillAdopt(id content.ID) {
	if c.holds != nil {
		c.holds.adopt(id, true)
	}
}

// Adopt has what this peer shares in place count as its copy of a content, where it
// is whole; see MemberOptions.Adopt. ErrNoGroup if this peer is no member, or holds
// no copies.
func (c *Coord) Adopt(ctx context.Context, group GroupID, id content.ID, kind Kind) error {
	g, err := c.group(group)
	if err != nil {
		return err
	}
	if c.holds == nil {
		return ErrNoGroup
	}
	defer c.holds.adopt(id, false)
	_, err = c.holds.store.Hold(ctx, id, share.HoldOptions{Kind: share.Kind(kind.String()), Adopt: true})
	if err == nil {
		c.holds.look(id)
		if r := g.copies(); r != nil {
			r.nudge()
		}
	}
	return err
}
