package pinset

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/p2pshare/p2pshare/share/content"
)

// hashRing is what the clocks were compared with: consistent hashing with points in
// proportion to the same rates, within the same bounds, so that nothing but the
// order differs. Points have their weight on a ring of their own for each level.
//
// Source: Karger et al., "Consistent Hashing and Random Trees" (1997), with points
// by capacity as in DeCandia et al., "Dynamo" (2007), §6.2.
type hashRing struct {
	levels [][]point
}

type point struct {
	at     uint64
	member member
}

// ringPoints are those of the greatest member.
const ringPoints = 1024

func newHashRing(planned []Member, c *clocks) *hashRing {
	r := new(hashRing)
	for _, l := range c.levels {
		least := slices.Min(c.periods[l.first:l.end])
		var points []point
		for m := l.first; m < l.end; m++ {
			for i := range max(1, mulDiv2(ringPoints, least, c.periods[m])) {
				digest := sha256.Sum256([]byte("ring\x00" + string(planned[m].Peer) + "\x00" + strconv.FormatUint(i/4, 10)))
				points = append(points, point{binary.BigEndian.Uint64(digest[8*(i%4):]), member(m)})
			}
		}
		slices.SortFunc(points, func(a, b point) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.member, b.member)) })
		r.levels = append(r.levels, points)
	}
	return r
}

// walk returns the members in the order in which id meets them, as many as wanted.
func (r *hashRing) walk(id *content.ID, met []member, wanted func([]member) bool) []member {
	at := binary.BigEndian.Uint64(id[:])
	for _, points := range r.levels {
		start, _ := slices.BinarySearchFunc(points, at, func(p point, at uint64) int { return cmp.Compare(p.at, at) })
		for i := range points {
			if m := points[(start+i)%len(points)].member; !slices.Contains(met, m) {
				if met = append(met, m); !wanted(met) {
					return met
				}
			}
		}
	}
	return met
}

// planOnRing plans as NewPlan does, but for the order.
func planOnRing(s *State) *Plan {
	p := &Plan{state: s, planned: s.planned()}
	p.index()
	p.end = newProgress(len(p.planned))
	w := newPlacer(p)
	var ring *hashRing
	clocks := 0
	var met []member
	for i, a := range allPins(s) {
		w.begin(i)
		copies := min(p.wanted(a.pin), len(p.planned))
		if len(p.clocks) == 0 {
			p.clocks = append(p.clocks, started{0, newClocks(w.seeds, w.capacities, []class{{copies, mixParts}})})
		}
		if clocks != len(p.clocks) {
			clocks = len(p.clocks)
			ring = newHashRing(p.planned, p.clocks[clocks-1].clocks)
		}
		from, size := len(p.holders), a.pin.size
		all := w.placed + uint64(copies)*uint64(size)
		met = ring.walk(a.pin.ref, met[:0], func(met []member) bool {
			if m := met[len(met)-1]; w.takes(m, size, all, true) {
				p.holders = append(p.holders, m)
			}
			return len(p.holders)-from < copies
		})
		for _, m := range met {
			if len(p.holders)-from < copies && !slices.Contains(p.holders[from:], m) {
				p.holders = append(p.holders, m)
			}
		}
		w.count(size, p.holders[from:])
		p.entries = append(p.entries, entry{a.pin.ref, a.index, uint32(from), uint16(len(p.holders) - from)})
	}
	return p
}

// BenchmarkPlan plans 100,000 contents of 1 KiB to 1 GiB, by clocks and on a ring,
// and tells the load and what moves when the last member goes. Run it with
// -benchtime 3x.
func BenchmarkPlan(b *testing.B) {
	for _, copies := range []int{1, 3} {
		list := pinned(somePins(100_000, sizes["mixed"], copies))
		for what, parts := range map[string][]int{
			"5-equal": repeat(1, 5), "10-equal": repeat(1, 10), "20-equal": repeat(1, 20), "100-equal": repeat(1, 100),
			"20-unequal": slices.Concat(repeat(4, 5), repeat(3, 5), repeat(2, 5), repeat(1, 5)), "8-4-2-1-1": {8, 4, 2, 1, 1},
		} {
			members := capable(parts...)
			s := with(list, members)
			for how, plan := range map[string]func(*State) *Plan{"clocks": NewPlan, "ring": planOnRing} {
				b.Run(fmt.Sprintf("x%d/%s/%s", copies, what, how), func(b *testing.B) {
					var p *Plan
					for b.Loop() {
						p = plan(s)
					}
					b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/100_000, "µs/content")
					full := 0.0
					for _, l := range p.Loads() {
						full = max(full, float64(l.Bytes)/float64(l.Share))
					}
					b.ReportMetric(full, "load")
					last := members[len(members)-1]
					_, moved := p.Moves(plan(with(list, members[:len(members)-1])))
					b.ReportMetric(float64(moved)/float64(loadOf(p, last.Peer)), "moved")
				})
			}
		}
	}
}

// BenchmarkMillionPlan plans a million contents on 20 members, and updates the plan.
func BenchmarkMillionPlan(b *testing.B) {
	list := somePins(million, sizes["mixed"], 3)
	s := with(pinned(list), capable(repeat(1, 20)...))
	for b.Loop() {
		before := liveHeap()
		p := NewPlan(s.Clone())
		b.ReportMetric(float64(liveHeap()-before)/1e6, "heap-MB")
		less := s.Clone()
		x, _ := less.pinOf(list[len(list)/2].ID)
		less.dropPin(x)
		less.slots = s.slots
		p = p.Update(less)
		if len(p.entries) != million-1 {
			b.Fatal(len(p.entries))
		}
	}
}
