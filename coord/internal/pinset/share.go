package pinset

import (
	"cmp"
	"math/bits"
	"slices"
)

// A class is the contents of one replication factor.
type class struct {
	copies int    // at most one for each member
	bytes  uint64 // of one copy of each content
}

// level is a set of members whose shares are in proportion to their capacities:
// those from first up to end, counted from the greatest capacity.
type level struct {
	first, end int
	share      uint64 // of them all
}

// fill divides what is to be held between members, whose capacities descend: each
// in proportion to its capacity, but nobody holds a content twice. Who would have
// to has one copy of each, and the rest is divided between the others in the same
// way, level by level; each level is less burdened, for its capacity, than the next.
//
// The k greatest members can't hold more than room(k), the sum over all classes of
// min(copies, k)*bytes, and it is enough to look at the greatest: they reach it
// first. That is the lexicographically optimal base of a polymatroid.
//
// The sum of room and that of the capacities are below 2^63.
//
// Source: Fujishige, "Lexicographically Optimal Base of a Polymatroid with Respect
// to a Weight Vector" (1980), whose decomposition this is; as room depends on the
// number of members only, a level is a run of them.
func fill(capacities []int64, classes []class) (levels []level) {
	room := func(members int) (sum uint64) {
		for _, c := range classes {
			sum += uint64(min(c.copies, members)) * c.bytes
		}
		return sum
	}
	for first := 0; first < len(capacities); {
		best := level{first: first}
		var bestCapacity, capacity uint64
		for end := first + 1; end <= len(capacities); end++ {
			capacity += uint64(capacities[end-1])
			share := room(end) - room(first)
			if best.end == 0 || lessRatio(share, capacity, best.share, bestCapacity) {
				best.end, best.share, bestCapacity = end, share, capacity
			}
		}
		levels = append(levels, best)
		first = best.end
	}
	return levels
}

// lessRatio reports whether a/b < c/d.
func lessRatio(a, b, c, d uint64) bool {
	hi, lo := bits.Mul64(a, d)
	hi2, lo2 := bits.Mul64(c, b)
	return cmp.Or(cmp.Compare(hi, hi2), cmp.Compare(lo, lo2)) < 0
}

// shares returns what is fair for each member.
func shares(capacities []int64, classes []class) []uint64 {
	list := make([]uint64, len(capacities))
	for _, l := range fill(capacities, classes) {
		var sum uint64
		for _, c := range capacities[l.first:l.end] {
			sum += uint64(c)
		}
		for i := l.first; i < l.end; i++ {
			list[i] = mulDiv(l.share, uint64(capacities[i]), sum)
		}
	}
	return list
}

// addTo adds to the class of that many copies. The classes stay in order.
func addTo(classes []class, copies int, bytes uint64) []class {
	i, found := slices.BinarySearchFunc(classes, copies, func(c class, n int) int { return cmp.Compare(c.copies, n) })
	if !found {
		classes = slices.Insert(classes, i, class{copies: copies})
	}
	classes[i].bytes += bytes
	return classes
}
