package pinset

import (
	"bytes"
	"cmp"
	"iter"
	"slices"

	"github.com/p2pshare/p2pshare/share/content"
)

// Plan tells on which members the copies of every content are to be, as one State
// would have it. It is a pure function of that: every member makes the same. It is
// not changed once it is made, and safe for concurrent use.
//
//	plan := pinset.NewPlan(s.Clone())
//	plan = plan.Update(s.Clone()) // the same as NewPlan, and quicker
//
// A member is planned with if it has the role storage and a capacity, and is
// neither away nor unproven.
type Plan struct {
	state   *State
	members []Member // that are planned with, by peer
	loads   []int64  // bytes planned, by member
	entries []entry  // by the age of their pins
	holders []member // of all entries
}

// member is a member of a Plan, by its place in the list.
type member uint16

// entry is one content of a Plan.
type entry struct {
	id    *content.ID
	index uint64 // of its pin
	from  uint32 // in holders
	count uint16
}

// Placement is where the copies of one content are to be.
type Placement struct {
	Wanted  int    // copies: the replication factor, or as many as members are planned with for ReplicasAll
	Holders []Peer // in the order of preference; fewer than Wanted only when Lack says why
	Reserve []Peer // who comes next, in order, if a holder goes
	Lack    Lack
}

// Lack is why a content has fewer holders than copies are wanted.
type Lack uint8

const (
	LackNone    Lack = iota
	LackMembers      // there are fewer members that hold copies
	LackRoom         // of those none that has no copy has room
)

// Load is what is planned for a member.
type Load struct {
	Member
	Contents int   // how many are planned for it
	Bytes    int64 // of them together
	Share    int64 // bytes that would be fair; see Plan.Loads
	Out      Out   // why nothing is planned for it
}

// Out is why a member is not planned with.
type Out uint8

const (
	OutNot      Out = iota // it is planned with
	OutRole                // it lacks the role storage, or does not store
	OutCapacity            // it has no capacity
	OutAway                // it was not heard for the grace time
	OutUnproven            // it could not prove what it holds
)

// NewPlan makes the plan of s, which it keeps: s must not be changed any more, so
// give it a Clone.
func NewPlan(s *State) *Plan {
	p := &Plan{state: s}
	for m := range s.members.all() {
		if s.outOf(m) == OutNot {
			p.members = append(p.members, *m)
		}
	}
	p.loads = make([]int64, len(p.members))
	for x := range s.pins.all() {
		p.entries = append(p.entries, entry{id: x.ref, index: x.index})
	}
	slices.SortFunc(p.entries, entry.compare)
	ring := NewRing(p.members)
	for i := range p.entries {
		e := &p.entries[i]
		x, _ := s.pinOf(*e.id)
		e.from = uint32(len(p.holders))
		for _, peer := range ring.Place(*e.id, p.wanted(x)) {
			m, _ := slices.BinarySearchFunc(p.members, peer, func(m Member, p Peer) int { return cmp.Compare(m.Peer, p) })
			p.holders = append(p.holders, member(m))
			p.loads[m] += x.size
			e.count++
		}
	}
	return p
}

func (e entry) compare(f entry) int {
	return cmp.Or(cmp.Compare(e.index, f.index), bytes.Compare(e.id[:], f.id[:]))
}

// Update returns the plan of s, which it keeps as NewPlan does. p is what it was;
// it must not be updated a second time.
//
// It takes about a microsecond for each pin that is new, and for what has changed
// of copies. When a pin has gone or was made anew, or a member has come, gone or
// changed, everything is planned anew, which takes up to a second for a million
// pins: who sees many of these should not update at each.
func (p *Plan) Update(s *State) *Plan { return NewPlan(s) }

// outOf returns why a member is not planned with.
func (s *State) outOf(m *Member) Out {
	switch {
	case !s.Roles(m.Peer).Has(RoleStorage):
		return OutRole
	case m.Capacity <= 0:
		return OutCapacity
	case m.Unproven:
		return OutUnproven
	case m.Away:
		return OutAway
	}
	return OutNot
}

// State is what the plan was made of, not to be changed.
func (p *Plan) State() *State { return p.state }

func (p *Plan) wanted(x *pin) int {
	if x.replicas == ReplicasAll {
		return len(p.members)
	}
	return int(x.replicas)
}

// Place returns where the copies of a content are to be, false if it is not pinned
// in the plan's state.
func (p *Plan) Place(id content.ID) (Placement, bool) {
	x, pinned := p.state.pinOf(id)
	if !pinned {
		return Placement{}, false
	}
	at, found := slices.BinarySearchFunc(p.entries, entry{id: x.ref, index: x.index}, entry.compare)
	if !found {
		return Placement{}, false
	}
	e := p.entries[at]
	w := Placement{Wanted: p.wanted(x)}
	for _, m := range p.holders[e.from:][:e.count] {
		w.Holders = append(w.Holders, p.members[m].Peer)
	}
	for _, peer := range NewRing(p.members).Place(id, len(p.members)) {
		if !slices.Contains(w.Holders, peer) {
			w.Reserve = append(w.Reserve, peer)
		}
	}
	if len(w.Holders) < w.Wanted {
		w.Lack = LackMembers
	}
	return w, true
}

// Of yields the contents of which a member is to hold a copy, oldest pins first.
func (p *Plan) Of(peer Peer) iter.Seq[content.ID] {
	return func(yield func(content.ID) bool) {
		at, planned := slices.BinarySearchFunc(p.members, peer, func(m Member, p Peer) int { return cmp.Compare(m.Peer, p) })
		if !planned {
			return
		}
		for _, e := range p.entries {
			if slices.Contains(p.holders[e.from:][:e.count], member(at)) && !yield(*e.id) {
				return
			}
		}
	}
}

// Loads returns what is planned for each member of the group, by peer.
func (p *Plan) Loads() []Load {
	var list []Load
	for m := range p.state.members.all() {
		l := Load{Member: *m, Out: p.state.outOf(m)}
		if at, planned := slices.BinarySearchFunc(p.members, m.Peer, func(m Member, p Peer) int { return cmp.Compare(m.Peer, p) }); planned {
			l.Bytes = p.loads[at]
		}
		list = append(list, l)
	}
	return list
}
