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

// pins fills a page: a pin has up to 256 names.
func (a *answer) pins(s *pinset.State, r request) {
	limit, room := limited(r.Limit), pageBytes
	var after content.ID
	if r.ID != nil {
		after = *r.ID
	}
	for p := range s.Pins(after) {
		if len(a.Pins) == limit || room < 0 {
			a.More = true
			return
		}
		w := newPin(s, p)
		room -= 512
		for _, n := range w.Names {
			room -= escaped(n)
		}
		a.Pins = append(a.Pins, w)
	}
}

// members fills a page with those that come after a peer, in order.
func (a *answer) members(s *pinset.State, after pinset.Peer, limit int) {
	room := pageBytes
	for _, x := range s.Members() {
		if x.Peer <= after {
			continue
		}
		if len(a.Members) == limit || room < 0 {
			a.More = true
			return
		}
		a.Members = append(a.Members, newMember(s, x))
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
