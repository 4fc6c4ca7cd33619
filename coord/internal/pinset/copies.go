package pinset

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// A slot is a member's number within this State, from 1, and nowhere else: who
// holds copies is kept as such, two bytes each, a few of them in the pin itself,
// for there may be millions. Encoded, and in the Hash, they are peers. A member
// that goes has no copies any more, so that another can have its slot.
type slot uint16

// fewMax slots fit into a pin without making it larger than 64 bytes.
const fewMax = 4

// slots are the members by slot. It is not changed once it is in a State: clones
// have it, too.
type slots struct {
	peers  []shared // by slot, from 1; the zero handle where none is
	byPeer map[shared]slot
}

// with returns slots that have p, in the least free slot if it has none.
func (s *slots) with(p Peer) *slots {
	peer := sharedPeer(p)
	if _, known := s.byPeer[peer]; known {
		return s
	}
	w := s.clone()
	free := slices.Index(w.peers, shared{})
	if free < 0 {
		free = len(w.peers)
		w.peers = append(w.peers, shared{})
	}
	w.peers[free], w.byPeer[peer] = peer, slot(free+1)
	return w
}

func (s *slots) without(p Peer) *slots {
	peer := sharedPeer(p)
	at, known := s.byPeer[peer]
	if !known {
		return s
	}
	w := s.clone()
	w.peers[at-1] = shared{}
	delete(w.byPeer, peer)
	return w
}

func (s *slots) clone() *slots {
	w := &slots{peers: slices.Clone(s.peers), byPeer: maps.Clone(s.byPeer)}
	if w.byPeer == nil {
		w.byPeer = map[shared]slot{}
	}
	return w
}

// of returns the slot of p, 0 if it is no member.
func (s *slots) of(p Peer) slot { return s.byPeer[sharedPeer(p)] }

func (s *slots) peer(x slot) shared { return s.peers[x-1] }

// list returns members by peer, nil for none.
func (s *slots) list(of iter.Seq[slot]) (peers []Peer) {
	for x := range of {
		peers = append(peers, Peer(s.peer(x).Value()))
	}
	slices.Sort(peers)
	return peers
}

// held yields who holds a copy.
func (p *pin) held() iter.Seq[slot] {
	list := p.few[:]
	if p.more != nil && len(p.more.many) > 0 {
		list = p.more.many
	}
	return func(yield func(slot) bool) {
		for _, x := range list {
			if x == 0 || !yield(x) {
				return
			}
		}
	}
}

// unproven yields who could not prove its copy.
func (p *pin) unproven() iter.Seq[slot] {
	if p.more == nil {
		return func(func(slot) bool) {}
	}
	return slices.Values(p.more.unproven)
}

// copied reports whether there is anything to tell of copies.
func (p *pin) copied() bool {
	return p.few[0] != 0 || p.more != nil && len(p.more.many)+len(p.more.unproven) > 0
}

// setHeld is for a pin that is in no table yet. list is kept.
func (p *pin) setHeld(list []slot) {
	p.few = [fewMax]slot{}
	if len(list) <= fewMax {
		copy(p.few[:], list)
		list = nil
	}
	if list != nil || p.more != nil && p.more.many != nil {
		p.edit(func(m *more) { m.many = list })
	}
}

// setUnproven is for a pin that is in no table yet. list is kept.
func (p *pin) setUnproven(list []slot) {
	if len(list) > 0 || p.more != nil && p.more.unproven != nil {
		p.edit(func(m *more) { m.unproven = list })
	}
}

func contains(list iter.Seq[slot], x slot) bool {
	for y := range list {
		if x == y {
			return true
		}
	}
	return false
}

// added returns a list with x, in a new slice; nil if it has it.
func added(list iter.Seq[slot], x slot) []slot {
	if contains(list, x) {
		return nil
	}
	return append(slices.Collect(list), x)
}

// dropped returns a list without x, in a new slice.
func dropped(list iter.Seq[slot], x slot) []slot {
	return slices.DeleteFunc(slices.Collect(list), func(y slot) bool { return x == y })
}

// editCopies changes what a pin has of copies: change gets a copy of it, and reports whether it differs
// now.
func (s *State) editCopies(p *pin, change func(*pin) bool) {
	if q := *p; change(&q) {
		s.putPin(&q, p)
	}
}

func hold(p *pin, x slot) bool {
	list := added(p.held(), x)
	if list != nil {
		p.setHeld(list)
	}
	return list != nil
}

func release(p *pin, x slot) bool {
	if !contains(p.held(), x) {
		return false
	}
	p.setHeld(dropped(p.held(), x))
	return true
}

func accuse(p *pin, x slot) bool {
	list := added(p.unproven(), x)
	if list != nil {
		p.setUnproven(list)
	}
	return release(p, x) || list != nil
}

func acquit(p *pin, x slot) bool {
	if !contains(p.unproven(), x) {
		return false
	}
	p.setUnproven(dropped(p.unproven(), x))
	return true
}

func (s *State) setCopies(c *Copies) (outcome, string) {
	x := s.slots.of(c.Peer)
	judge := s.isVoter(c.By) && c.By != c.Peer
	switch {
	case c.By != c.Peer && !s.isVoter(c.By), len(c.Unproven) > 0 && !s.isVoter(c.By):
		return refuse(Denied, needsVoter), ""
	case x == 0:
		return refuse(NotFound, notMember), ""
	}
	for _, id := range c.Gone {
		if p, pinned := s.pinOf(id); pinned {
			s.editCopies(p, func(p *pin) bool { return release(p, x) })
		}
	}
	for _, id := range c.Held {
		if p, pinned := s.pinOf(id); pinned {
			s.editCopies(p, func(p *pin) bool {
				proved := judge && acquit(p, x)
				return !contains(p.unproven(), x) && hold(p, x) || proved
			})
		}
	}
	for _, id := range c.Unproven {
		if p, pinned := s.pinOf(id); pinned {
			s.editCopies(p, func(p *pin) bool { return accuse(p, x) })
		}
	}
	return done, ""
}

// forgetCopies drops all copies of a member that goes. It looks at every pin,
// which takes 0.7 s where there are a million on 20 members.
func (s *State) forgetCopies(peer Peer) {
	x := s.slots.of(peer)
	var with []*pin
	for p := range s.pins.all() {
		if p.copied() && (contains(p.held(), x) || contains(p.unproven(), x)) {
			with = append(with, p)
		}
	}
	for _, p := range with {
		s.editCopies(p, func(p *pin) bool {
			held, accused := release(p, x), acquit(p, x)
			return held || accused
		})
	}
	s.slots = s.slots.without(peer)
}

func (s *State) setAway(c *Away) (outcome, string) {
	if !s.isVoter(c.By) {
		return refuse(Denied, needsVoter), ""
	}
	var changed []string
	set := func(peers []Peer, word string, change func(*Member)) {
		for _, p := range peers {
			old, known := s.memberOf(p)
			if !known {
				continue
			}
			m := *old
			if change(&m); m.Away != old.Away || m.Unproven != old.Unproven {
				put(s, &s.members, &m)
				changed = append(changed, word+" "+string(p))
			}
		}
	}
	set(c.Away, "away", func(m *Member) { m.Away = true })
	set(c.Back, "back", func(m *Member) { m.Away = false })
	set(c.Unproven, "unproven", func(m *Member) { m.Unproven = true })
	set(c.Proven, "proven", func(m *Member) { m.Unproven = false })
	switch len(changed) {
	case 0:
		return done, ""
	case 1:
		return done, changed[0]
	}
	return done, fmt.Sprintf("%s and %d more", changed[0], len(changed)-1)
}

func (s *State) settings(c *Settings) (outcome, string) {
	if !s.isAdmin(c.By) {
		return refuse(Denied, needsAdmin), ""
	}
	g := *s.group
	g.Grace = *c.Grace
	s.setGroup(&g)
	return done, fmt.Sprintf("grace %s", s.Grace())
}

// members writes a list of members as their peers, sorted.
func (e *encoder) members(list iter.Seq[slot]) {
	var room [2 * fewMax]shared
	peers := room[:0]
	for x := range list {
		peers = append(peers, e.slots.peer(x))
	}
	slices.SortFunc(peers, compareShared)
	e.uint(uint64(len(peers)))
	for _, p := range peers {
		e.shared(p)
	}
}

func (d *decoder) members() (list []slot) {
	var before shared
	for i := range d.count(MembersMax) {
		p := d.sharedPeer()
		if d.err != nil {
			return nil
		}
		x := d.slots.byPeer[p]
		d.check(unless(x != 0, "a copy is of no member"),
			unless(i == 0 || compareShared(before, p) < 0, "copies are not in order"))
		list, before = append(list, x), p
	}
	return list
}

func compareShared(a, b shared) int { return cmp.Compare(a.Value(), b.Value()) }
