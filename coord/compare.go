package coord

import (
	"slices"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// difference is how a member's store differs from what the state wants of it.
type difference struct {
	planned map[content.ID]bool // what is to be here
	missing []content.ID        // of that, what is not: the most endangered first
	held    []content.ID        // here, of use, and not in the state
	gone    []content.ID        // in the state, and not here
	spare   []content.ID        // in the state and here, while enough others have it
	drop    []content.ID        // here, not in the state, and of no use
	mend    []content.ID        // here, and damaged or not proven
}

// compare is a pure function: what the store has, against the state and its plan.
//
// What is here and planned elsewhere is of use until it may be dropped: see
// mayDrop. So the copy comes first, and the drop later; and a member
// that was away and returns helps where others were lost meanwhile.
func compare(state *pinset.State, plan *pinset.Plan, self pinset.Peer, have map[content.ID]share.Held) difference {
	d := difference{planned: map[content.ID]bool{}}
	for id := range plan.Of(self) {
		d.planned[id] = true
	}
	for _, f := range plan.Fetches(state, self, func(id content.ID) bool { _, here := have[id]; return here }) {
		d.missing = append(d.missing, f.ID)
	}
	pinned := 0
	for p := range state.Pins(content.ID{}) {
		x, here := have[p.ID]
		inState := slices.Contains(p.Copies, self)
		if !here && !inState {
			continue
		}
		if here {
			pinned++
		}
		d.look(state, plan, self, p, x, here, inState)
	}
	if pinned < len(have) {
		for id := range have {
			if _, ok := state.Pin(id); !ok {
				d.drop = append(d.drop, id)
			}
		}
	}
	return d
}

// look sorts out one content that is pinned, and here or in the state as being here.
func (d *difference) look(state *pinset.State, plan *pinset.Plan, self pinset.Peer, p pinset.Pin, x share.Held, here, inState bool) {
	whole := here && !x.Damaged
	if here && (x.Damaged || slices.Contains(p.Unproven, self)) {
		d.mend = append(d.mend, p.ID)
	}
	useless := !d.planned[p.ID] && mayDrop(state, plan, self, p.ID)
	switch {
	case inState && !whole:
		d.gone = append(d.gone, p.ID)
	case inState && useless:
		d.spare = append(d.spare, p.ID)
	case !inState && here && useless:
		d.drop = append(d.drop, p.ID)
	case !inState && whole:
		d.held = append(d.held, p.ID)
	}
}

// mayDrop says whether a copy here is of no use: as many members as are wanted are
// planned, and have verified theirs. Where fewer are planned, for want of members or
// of room, those that have a copy keep it.
func mayDrop(state *pinset.State, plan *pinset.Plan, self pinset.Peer, id content.ID) bool {
	if !plan.MayDrop(state, self, id) {
		return false
	}
	place, pinned := plan.Place(id)
	return !pinned || place.Lack == pinset.LackNone
}

// soundMembers are those whose copies count: they are there, and could prove what
// they hold.
func soundMembers(state *pinset.State) map[pinset.Peer]bool {
	sound := map[pinset.Peer]bool{}
	for _, m := range state.Members() {
		sound[m.Peer] = !m.Away && !m.Unproven
	}
	return sound
}

// verified counts the copies of a pin that count.
func verified(p pinset.Pin, sound map[pinset.Peer]bool) (n int) {
	for _, c := range p.Copies {
		if sound[c] {
			n++
		}
	}
	return n
}
