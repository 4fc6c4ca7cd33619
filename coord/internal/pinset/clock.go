package pinset

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/p2pshare/p2pshare/share/content"
)

// clocks tell in which order a content meets the members, who stand by descending
// capacity: level by level (see fill), and in each as their clocks ring (see fit).
type clocks struct {
	seeds   []uint64 // by member
	periods []uint64 // by member, 1/rate
	levels  []level
	mix     []class // of contents, that they are made for
}

// mixParts is how finely a mix of replication factors is told apart: clocks are the
// same as long as it is.
const mixParts = 16

// seedOf makes the clocks of a member independent of those of all others.
func seedOf(p Peer) uint64 {
	digest := sha256.Sum256([]byte("p2pshare/clock/1\x00" + string(p)))
	return binary.BigEndian.Uint64(digest[:])
}

// mixOf returns by how many parts of all bytes the classes are, but for those of
// hardly any.
func mixOf(classes []class) (mix []class) {
	var sum uint64
	for _, c := range classes {
		sum += c.bytes
	}
	for _, c := range classes {
		if parts := (mulDiv2(c.bytes, 2*mixParts, max(1, sum)) + 1) / 2; parts > 0 {
			mix = append(mix, class{c.copies, parts})
		}
	}
	return mix
}

func newClocks(seeds []uint64, capacities []int64, mix []class) *clocks {
	c := &clocks{seeds: seeds, mix: mix, levels: fill(capacities, mix), periods: make([]uint64, len(seeds))}
	for _, l := range c.levels {
		c.set(l, capacities[l.first:l.end])
	}
	return c
}

// set finds the periods of the members of a level.
func (c *clocks) set(l level, capacities []int64) {
	var parts, sum, always uint64
	for _, m := range c.mix {
		parts += m.bytes
	}
	for _, capacity := range capacities {
		sum += uint64(capacity)
	}
	var classes []drawn
	for _, m := range c.mix {
		switch copies, weight := m.copies-l.first, m.bytes*(one/parts); {
		case copies >= len(capacities):
			always += weight // on each of them
		case copies > 0:
			classes = append(classes, drawn{copies, weight})
		}
	}
	rates := make([]uint64, len(capacities))
	for i, capacity := range capacities {
		share := mulDiv2(l.share*(one/parts), uint64(capacity), sum)
		rates[i] = max(share, always+1) - always
	}
	// With one copy, rates are what is wanted.
	if n := len(classes); n > 0 && classes[n-1].copies > 1 && rates[0] != rates[len(rates)-1] {
		rates = fit(rates, classes)
	}
	greatest := slices.Max(rates)
	for i, r := range rates {
		c.periods[l.first+i] = mulDiv2(one, max(1, greatest), max(1, r))
	}
	periods := c.periods[l.first:l.end]
	shift := min(20, bits.LeadingZeros64(slices.Max(periods))) // as fine as there is room
	for i := range periods {
		periods[i] <<= shift
	}
}

// scramble mixes the bits of x: the finalizer of SplitMix64.
//
// Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators"
// (2014), with the constants of Stafford's variant 13.
func scramble(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// order yields members in the order in which a content meets them. It is worked
// out as far as it is asked for.
type order struct {
	clocks *clocks
	id     uint64
	met    []member // so far
	level  int      // the next one
	rings  []ring   // of the members of the level before that were not met yet
	sorted bool
}

// ring is when a member's clock rings.
type ring struct {
	at     uint64
	member member
}

func (o *order) reset(c *clocks, id *content.ID) {
	o.clocks, o.id = c, binary.BigEndian.Uint64(id[:])
	o.met, o.level, o.rings, o.sorted = o.met[:0], 0, o.rings[:0], false
}

// at returns the i-th member that is met, false when there are no more.
func (o *order) at(i int) (member, bool) {
	for len(o.met) <= i {
		if len(o.rings) == 0 && !o.wind() {
			return 0, false
		}
		o.next()
	}
	return o.met[i], true
}

// wind sets the clocks of the next level.
func (o *order) wind() bool {
	if o.level == len(o.clocks.levels) {
		return false
	}
	l := o.clocks.levels[o.level]
	o.level++
	o.sorted = false
	for i := l.first; i < l.end; i++ {
		// Of a uniformly distributed number, -log2 is exponentially distributed.
		age := uint64(64)<<fractionBits - log2(scramble(o.id^o.clocks.seeds[i])|3)
		o.rings = append(o.rings, ring{mulHigh(age<<(64-6-fractionBits), o.clocks.periods[i]), member(i)})
	}
	return true
}

// next moves the member whose clock rings next to those that were met.
func (o *order) next() {
	if !o.sorted && len(o.met) >= sortAfter {
		slices.SortFunc(o.rings, func(a, b ring) int { return -compareRings(a, b) })
		o.sorted = true
	}
	first := len(o.rings) - 1
	if !o.sorted {
		for i := range o.rings {
			if compareRings(o.rings[i], o.rings[first]) < 0 {
				first = i
			}
		}
	}
	last := len(o.rings) - 1
	o.met = append(o.met, o.rings[first].member)
	o.rings[first] = o.rings[last]
	o.rings = o.rings[:last]
}

// sortAfter members, sorting all is quicker than looking for the next.
const sortAfter = 8

func compareRings(a, b ring) int {
	switch {
	case a.at < b.at, a.at == b.at && a.member < b.member:
		return -1
	case a == b:
		return 0
	}
	return 1
}
