package pinset

import (
	"cmp"
	"iter"
	"slices"

	"github.com/p2pshare/p2pshare/share/content"
)

// Fetch is a copy that a member is to make.
type Fetch struct {
	Pin           // as the state has it
	Wanted int    // copies
	Sound  int    // verified copies on members that count
	From   []Peer // members that have one, those that count first, without the member itself
}

// counts reports whether the copies of a member count: one that stores no more, as
// it is about to leave, keeps what it has until others have it.
func (m *Member) counts() bool { return !m.Away && !m.Unproven }

// sound yields the members that count and hold a verified copy.
func (s *State) sound(p *pin) iter.Seq[Peer] {
	return func(yield func(Peer) bool) {
		for x := range p.held() {
			peer := Peer(s.slots.peer(x).Value())
			if m, known := s.memberOf(peer); known && m.counts() && !yield(peer) {
				return
			}
		}
	}
}

// Sound returns how many verified copies there are on members that count: those
// that are not away and not unproven.
func (s *State) Sound(id content.ID) (n int) {
	if p, pinned := s.pinOf(id); pinned {
		for range s.sound(p) {
			n++
		}
	}
	return n
}

// Fetches returns what a member is to fetch: what the plan gives it and has does
// not have. The contents come first that fewest members hold; of these, the
// smallest, so that soon few are in danger. A content that nobody has may not be
// had at all: who fetches must not wait with the rest for it.
//
// s is the present state, which may be newer than the plan's.
func (p *Plan) Fetches(s *State, self Peer, has func(content.ID) bool) []Fetch {
	var list []Fetch
	for id := range p.Of(self) {
		x, pinned := s.pinOf(id)
		if !pinned || has(id) {
			continue
		}
		f := Fetch{Pin: s.public(x), Wanted: p.wanted(x)}
		for peer := range s.sound(x) {
			if peer != self {
				f.From = append(f.From, peer)
			}
		}
		f.Sound = len(f.From)
		for _, peer := range f.Copies {
			if peer != self && !slices.Contains(f.From, peer) {
				f.From = append(f.From, peer)
			}
		}
		list = append(list, f)
	}
	slices.SortStableFunc(list, func(a, b Fetch) int {
		return cmp.Or(cmp.Compare(a.Sound, b.Sound), cmp.Compare(b.Wanted, a.Wanted), cmp.Compare(a.Size, b.Size))
	})
	return list
}

// MayDrop reports whether a member may drop its copy: the content is not pinned,
// or the plan has others hold it, all of which have verified their copies, and as
// many as are wanted. Copy first, drop later: what is planned is never enough. A
// member that is away may drop nothing that is pinned: as soon as it is known to be
// back, all of that is its own again.
//
// s is the present state, which may be newer than the plan's. It must be one that
// a quorum has committed.
func (p *Plan) MayDrop(s *State, self Peer, id content.ID) bool {
	x, pinned := s.pinOf(id)
	if !pinned {
		return true
	}
	m, member := s.memberOf(self)
	at, planned := p.entryOf(x)
	if !planned || member && m.Away { // or it was pinned anew: the next plan tells
		return false
	}
	others := slices.DeleteFunc(slices.Collect(s.sound(x)), func(peer Peer) bool { return peer == self })
	for _, m := range p.holdersOf(&p.entries[at]) {
		peer := p.planned[m].Peer
		if peer == self || !slices.Contains(others, peer) {
			return false
		}
	}
	return len(others) >= p.wanted(x)
}
