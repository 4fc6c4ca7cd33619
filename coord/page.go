package coord

import (
	"slices"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

// pageBytes is how much goes into one answer, by a rough count: half of what a line
// takes.
const pageBytes = lineMax / 2

// escaped is what a text may take as JSON.
func escaped(s string) int { return 6*len(s) + 3 }

func limited(limit int) int {
	if limit <= 0 || limit > pageMax {
		return pageMax
	}
	return limit
}

// pins fills a page, or gives those that are asked for: a pin has up to 256 names.
func (a *answer) pins(s *pinset.State, plan *pinset.Plan, silent map[pinset.Peer]bool, r request) {
	sound := soundMembers(s)
	room := pageBytes
	add := func(p pinset.Pin) {
		w := newPin(s, p)
		place, _ := plan.Place(p.ID)
		w.describe(p, place, sound, silent, r.Explain)
		room -= 512 + peerBytes*(len(p.Copies)+len(w.Holders)+len(w.Unproven)+len(w.Reserve))
		for _, n := range w.Names {
			room -= escaped(n)
		}
		a.Pins = append(a.Pins, w)
	}
	if len(r.IDs) > 0 {
		for _, id := range r.IDs[:min(len(r.IDs), pageMax)] {
			if p, ok := s.Pin(id); ok && room >= 0 {
				add(p)
			}
		}
		return
	}
	limit := limited(r.Limit)
	var after content.ID
	if r.ID != nil {
		after = *r.ID
	}
	for p := range s.Pins(after) {
		if len(a.Pins) == limit || room < 0 {
			a.More = true
			return
		}
		add(p)
	}
}

// peerBytes is about what a peer takes as JSON.
const peerBytes = 64

// members fills a page with those that come after a peer, in order.
func (a *answer) members(s *pinset.State, plan *pinset.Plan, silent map[pinset.Peer]bool, after pinset.Peer, limit int) {
	planned := map[pinset.Peer]int64{}
	for _, l := range plan.Loads() {
		planned[l.Peer] = l.Bytes
	}
	room := pageBytes
	for _, x := range s.Members() {
		if x.Peer <= after {
			continue
		}
		if len(a.Members) == limit || room < 0 {
			a.More = true
			return
		}
		w := newMember(s, x)
		w.Suspect, w.Planned = silent[x.Peer] && !x.Away && w.Roles.Has(RoleStorage), planned[x.Peer]
		a.Members = append(a.Members, w)
		room -= memberBytes(x)
	}
}

func memberBytes(x pinset.Member) int {
	n := 512 + escaped(x.Zone)
	for _, addr := range x.Addrs {
		n += escaped(addr)
	}
	return n
}

// founders fills the answer to a join with the members that the new one lets in
// until it has the state: those who may lead come first.
func (a *answer) founders(s *pinset.State) {
	all := s.Members()
	slices.SortStableFunc(all, func(x, y pinset.Member) int { return int(y.Vote) - int(x.Vote) })
	room := pageBytes
	for _, x := range all {
		if room -= memberBytes(x); room < 0 {
			return
		}
		a.Members = append(a.Members, newMember(s, x))
	}
}

// changes fills a page with what was done after a log index.
func (a *answer) changes(s *pinset.State, after uint64, limit int) {
	room := pageBytes
	for c := range s.Log(after) {
		if len(a.Changes) == limit || room < 0 {
			a.More = true
			return
		}
		a.Changes = append(a.Changes, newChange(c))
		room -= 512 + escaped(c.Subject)
	}
}
