package coord

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

// The grace time of a group: how long a member may be away before its copies are
// made elsewhere.
const (
	GraceMin     = pinset.GraceMsMin * time.Millisecond
	GraceMax     = pinset.GraceMsMax * time.Millisecond
	GraceDefault = pinset.GraceMsDefault * time.Millisecond
)

// SetGrace changes the group's grace time, GraceMin … GraceMax.
func (cl *Client) SetGrace(ctx context.Context, d time.Duration) error {
	_, err := cl.write(ctx, request{Op: opSet, Grace: d.Milliseconds()})
	return err
}

// MemberChange is what a member changes of what it brings into a group: what is not nil.
type MemberChange struct {
	Capacity *int64  // bytes for copies; above 0
	Zone     *string // members of one zone fail together
	NoStore  *bool   // holds no copies: those that it has go elsewhere first
	Adopt    *bool   // see MemberOptions
}

// ChangeMember changes this peer's own entry. ErrNoGroup if it is no member.
func (cl *Client) ChangeMember(ctx context.Context, c MemberChange) error {
	g, err := cl.c.group(cl.group)
	if err != nil {
		return err
	}
	if c.Adopt != nil {
		if err := g.change(func(f *groupFile) { f.Adopt = *c.Adopt }); err != nil {
			return err
		}
	}
	if c.Capacity == nil && c.Zone == nil && c.NoStore == nil {
		return nil
	}
	_, err = cl.write(ctx, request{Op: opUpdate, Change: &memberChange{c.Capacity, c.Zone, c.NoStore}})
	return err
}

// PinsOf returns those of some contents that are pinned, at most 500, in the order of
// ids. With explain they have their reserve order.
func (cl *Client) PinsOf(ctx context.Context, ids []content.ID, o ReadOptions, explain bool) ([]Pin, Freshness, error) {
	a, err := cl.read(ctx, request{Op: opPins, IDs: ids, Read: o.mode(), Explain: explain})
	if err != nil {
		return nil, a.freshness(), err
	}
	for _, p := range a.Pins {
		if !slices.Contains(ids, p.ID) {
			return nil, a.freshness(), fmt.Errorf("the member's answer has a pin that was not asked for")
		}
	}
	return a.Pins, a.freshness(), nil
}

// Draining is how far a member has got that is about to leave.
type Draining struct {
	Contents int   // that it has copies of, and that others have not enough of
	Bytes    int64 // of them
	// Short are those of them for which no other member has room: their copies here
	// would be missing.
	Short int
}

// Drain has the group move this peer's copies to others: it holds no copies from
// now on, but keeps those that it has until others have them. progress is told how
// much remains, and that nothing does at the end. It returns when nothing remains,
// or only what no other member has room for; what remains then is told by the last
// Draining. When ctx ends the moving goes on; ChangeMember with NoStore false takes it
// back.
func (cl *Client) Drain(ctx context.Context, progress func(Draining)) (Draining, error) {
	yes := true
	if err := cl.ChangeMember(ctx, MemberChange{NoStore: &yes}); err != nil {
		return Draining{}, err
	}
	g, err := cl.c.group(cl.group)
	if err != nil {
		return Draining{}, err
	}
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	var last Draining
	for first := true; ; first = false {
		m, err := g.running()
		if err != nil {
			return last, err
		}
		if d, settled := g.draining(m); settled {
			if first || d != last {
				progress(d)
			}
			last = d
			if d.Contents == d.Short {
				return d, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
}

// drainEvery is how often a member that drains looks.
const drainEvery = 250 * time.Millisecond

// draining tells what remains, and false while the state does not know yet that this
// member holds no copies.
func (g *Group) draining(m *member) (d Draining, settled bool) {
	state, plan := g.plan(m)
	self := g.c.self()
	own, member := state.Member(self)
	if !member || !own.NoStore {
		return d, false
	}
	for p := range state.Pins(content.ID{}) {
		if !slices.Contains(p.Copies, self) || mayDrop(state, plan, self, p.ID) {
			continue
		}
		d.Contents++
		d.Bytes += p.Size
		place, _ := plan.Place(p.ID)
		if place.Lack == pinset.LackNone {
			continue
		}
		if !slices.ContainsFunc(place.Holders, func(h pinset.Peer) bool { return !slices.Contains(p.Copies, h) }) {
			d.Short++ // whom it is planned for has it, and there is nobody else
		}
	}
	return d, true
}
