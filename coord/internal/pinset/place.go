package pinset

import (
	"math/bits"
	"slices"
)

// progress is what placing has come to: all that decides where the next content
// goes.
type progress struct {
	loads   []int64 // bytes, by member
	placed  uint64  // all bytes: the sum of loads
	squares wide    // sum of the squares of the bytes of each copy
	classes []class // of what is placed
	next    int     // entry at which bounds are to be set anew
	bounds  []bound // by member
	refit   int     // entry at which clocks are to be looked at
}

// bound is what a member is to hold at most, as long as others can hold it.
type bound struct {
	fair  uint64 // of 2^64 parts of all bytes
	slack uint64 // bytes above that
}

// wide is a number of 128 bits.
type wide struct{ hi, lo uint64 }

func (w *wide) add(x uint64) {
	hi, lo := bits.Mul64(x, x)
	var carry uint64
	w.lo, carry = bits.Add64(w.lo, lo, 0)
	w.hi, carry = bits.Add64(w.hi, hi, carry)
	if carry > 0 {
		w.hi, w.lo = ^uint64(0), ^uint64(0)
	}
}

func newProgress(members int) progress {
	return progress{loads: make([]int64, members), bounds: make([]bound, members)}
}

func (g *progress) clone() progress {
	c := *g
	c.loads, c.classes, c.bounds = slices.Clone(g.loads), slices.Clone(g.classes), slices.Clone(g.bounds)
	return c
}

const (
	savedEvery = 4096

	overload  = 10 // the bound is a share and 1/overload of it
	deviation = 2  // or so many standard deviations above, when that is more
)

// placer places one content after the other.
type placer struct {
	plan       *Plan
	capacities []int64
	seeds      []uint64
	zones      []int // by member; nil when none is set
	zoneCount  int

	*progress
	order  order
	chosen []bool // by member
	inZone []int  // chosen ones
	banned []bool // by member, of one content
}

func newPlacer(p *Plan) *placer {
	w := &placer{plan: p, capacities: capacitiesOf(p.planned), progress: &p.end,
		chosen: make([]bool, len(p.planned)), banned: make([]bool, len(p.planned))}
	byName := map[string]int{}
	zones := make([]int, len(p.planned))
	for i, m := range p.planned {
		w.seeds = append(w.seeds, seedOf(m.Peer))
		z, known := byName[m.Zone]
		if !known || m.Zone == "" { // without one, it is one of its own
			z = w.zoneCount
			w.zoneCount++
			byName[m.Zone] = z
		}
		zones[i] = z
	}
	if w.zoneCount < len(zones) {
		w.zones, w.inZone = zones, make([]int, w.zoneCount)
	}
	return w
}

// begin sets what changes with the number of contents that are placed.
func (w *placer) begin(at int) {
	if at >= w.refit {
		w.refit = max(16, 2*at)
		w.wind(at)
	}
	if at >= w.next {
		w.next = at + max(16, at/64)
		w.bound()
	}
}

// wind makes clocks for the mix of replication factors so far, if it is another.
func (w *placer) wind(at int) {
	mix := mixOf(w.classes)
	if len(mix) == 0 {
		return // nothing is placed: the first content has them made
	}
	clocks := w.plan.clocks
	if n := len(clocks); n > 0 && slices.Equal(clocks[n-1].mix, mix) {
		return
	}
	w.plan.clocks = append(clocks, started{at, newClocks(w.seeds, w.capacities, mix)})
}

// bound sets the bounds anew.
func (w *placer) bound() {
	if w.placed == 0 {
		return
	}
	deviations := deviation * root(w.squares.hi, w.squares.lo)
	var once uint64 // one copy of all
	for _, c := range w.classes {
		once += c.bytes
	}
	for i, share := range shares(w.capacities, w.classes) {
		part := mulDiv2(share, one, once) // of the contents
		part = mul(part, one-min(part, one))
		w.bounds[i] = bound{
			fair:  min(mulDiv2(share, 1<<63, w.placed), 1<<63-1) << 1,
			slack: max(share/overload, mulDiv2(deviations, root(0, part<<fractionBits), one)),
		}
	}
}

// place appends the holders of a pin to list.
func (w *placer) place(x *pin, list []member) []member {
	copies := min(w.plan.wanted(x), len(w.capacities))
	if copies == 0 {
		return list
	}
	if len(w.plan.clocks) == 0 {
		mix := []class{{copies, mixParts}}
		w.plan.clocks = append(w.plan.clocks, started{len(w.plan.entries), newClocks(w.seeds, w.capacities, mix)})
	}
	w.ban(x, true)
	w.order.reset(w.plan.clocks[len(w.plan.clocks)-1].clocks, x.ref)
	from := len(list)
	list = w.choose(x.size, copies, list)
	w.ban(x, false)
	w.count(x.size, list[from:])
	return list
}

func (w *placer) ban(x *pin, banned bool) {
	if x.more == nil {
		return
	}
	for s := range x.unproven() {
		if m, planned := w.plan.byPeer[Peer(w.plan.state.slots.peer(s).Value())]; planned {
			w.banned[m] = banned
		}
	}
}

// choose appends the members that are to hold a content of size bytes: of those in
// their order who have room, first those that are within their bounds. As few as
// possible are in one zone, which comes before the bounds.
func (w *placer) choose(size int64, copies int, list []member) []member {
	from := len(list)
	all := w.placed + uint64(copies)*uint64(size) // no overflow: MembersMax times IntMax, twice
	quota := copies
	if w.zones != nil {
		quota = (copies + w.zoneCount - 1) / w.zoneCount
	}
	for ; ; quota++ {
		for _, bounded := range [2]bool{true, false} {
			for i := 0; len(list)-from < copies; i++ {
				m, more := w.order.at(i)
				if !more {
					break
				}
				if w.chosen[m] || w.banned[m] || w.zones != nil && w.inZone[w.zones[m]] >= quota ||
					!w.takes(m, size, all, bounded) {
					continue
				}
				list = append(list, m)
				w.mark(m, true)
			}
		}
		if len(list)-from == copies || quota >= copies {
			break
		}
	}
	for _, m := range list[from:] {
		w.mark(m, false)
	}
	return list
}

func (w *placer) mark(m member, chosen bool) {
	w.chosen[m] = chosen
	if w.zones == nil {
		return
	}
	if chosen {
		w.inZone[w.zones[m]]++
	} else {
		w.inZone[w.zones[m]]--
	}
}

// takes reports whether a member has room for size bytes, and within its bound when
// all that is placed is all bytes. Who has no more than its share is: the least
// loaded can always take a content, however large.
func (w *placer) takes(m member, size int64, all uint64, bounded bool) bool {
	load := w.loads[m]
	if size > w.capacities[m]-load {
		return false
	}
	b := &w.bounds[m]
	fair := mulHigh(b.fair, all)
	return !bounded || uint64(load) <= fair || uint64(load+size) <= fair+b.slack
}

// count adds what was placed.
func (w *placer) count(size int64, holders []member) {
	if len(holders) == 0 {
		return
	}
	for _, m := range holders {
		w.loads[m] += size
	}
	w.placed += uint64(len(holders)) * uint64(size)
	w.squares.add(uint64(size))
	w.classes = addTo(w.classes, len(holders), uint64(size))
}
