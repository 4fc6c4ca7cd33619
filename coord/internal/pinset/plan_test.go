package pinset

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Sizes of contents for tests.
var sizes = map[string]func(*rand.Rand) int64{
	"equal": func(*rand.Rand) int64 { return 1 << 20 },
	"mixed": func(rng *rand.Rand) int64 { return int64(1024 * math.Exp2(20*rng.Float64())) }, // 1 KiB to 1 GiB
	"exp":   func(rng *rand.Rand) int64 { return int64(rng.ExpFloat64() * 1e7) },
}

// somePins have random IDs, sizes, and one of the replication factors.
func somePins(n int, size func(*rand.Rand) int64, replicas ...int) []Pin {
	rng := rand.New(rand.NewPCG(5, 5))
	pins := make([]Pin, n)
	for i := range pins {
		p := &pins[i]
		for j := range 4 {
			binary.BigEndian.PutUint64(p.ID[8*j:], rng.Uint64())
		}
		p.Kind, p.Size, p.Replicas, p.Index, p.By = KindFile, size(rng), replicas[rng.IntN(len(replicas))], uint64(i+1), "ann"
	}
	return pins
}

// pinned is a state with pins and no members.
func pinned(pins []Pin) *State { return Imagine(nil, pins).state }

// with returns a state that has the pins of s, and members.
func with(s *State, members []Member) *State {
	s = s.Clone()
	for _, m := range members {
		s.admit(&m)
		s.setGranted(m.Peer, RoleStorage)
	}
	return s
}

// capable are members with so many parts of capacity.
func capable(parts ...int) (members []Member) {
	for i, n := range parts {
		members = append(members, Member{Peer: Peer(fmt.Sprintf("12D3KooWMember%03d", i)), Capacity: int64(n) << 46})
	}
	return members
}

func repeat(parts, times int) []int { return slices.Repeat([]int{parts}, times) }

// worst returns how much more than its share the fullest member is to hold, and
// checks that there is nothing else wrong with a plan.
func worst(t *testing.T, p *Plan) float64 {
	t.Helper()
	full := 0.0
	for _, l := range p.Loads() {
		if l.Bytes > l.Capacity {
			t.Errorf("%s is to hold %d bytes, and has room for %d", l.Peer, l.Bytes, l.Capacity)
		}
		if l.Share > 0 {
			full = max(full, float64(l.Bytes)/float64(l.Share))
		}
	}
	for i := range p.entries {
		holders := slices.Sorted(slices.Values(p.holdersOf(&p.entries[i])))
		x, _ := p.state.pinOf(*p.entries[i].id)
		if len(slices.Compact(holders)) != min(p.wanted(x), len(p.planned)) {
			t.Fatalf("%s: holders are %v of %d, want %d", x.id(), holders, len(p.planned), p.wanted(x))
		}
	}
	return full
}

// TestPlanIsFairAndStable has 100,000 contents; with -short, fewer cases.
func TestPlanIsFairAndStable(t *testing.T) {
	cases := [][]int{
		repeat(1, 5), repeat(1, 10), repeat(1, 20),
		{8, 4, 2, 1, 1},
		append([]int{60}, repeat(1, 9)...),
		slices.Concat(repeat(4, 5), repeat(3, 5), repeat(2, 5), repeat(1, 5)),
	}
	for _, replicas := range [][]int{{3}, {1}, {2}} {
		for kind, size := range sizes {
			if testing.Short() && (kind != "mixed" || replicas[0] != 3) {
				continue
			}
			pins := pinned(somePins(100_000, size, replicas...))
			for _, parts := range cases {
				members := capable(parts...)
				plan := NewPlan(with(pins, members))
				full := worst(t, plan)
				report := fmt.Sprintf("%s sizes, x%v, capacities %v: load %.3f", kind, replicas, parts, full)
				if full > 1.10 {
					t.Errorf("%s of the fair share", report)
				}
				for _, i := range []int{0, len(members) - 1} {
					without := NewPlan(with(pins, slices.Delete(slices.Clone(members), i, i+1)))
					ideal := float64(loadOf(plan, members[i].Peer))
					_, joins := without.Moves(plan)
					_, leaves := plan.Moves(without)
					report += fmt.Sprintf("; %d comes %.3f, goes %.3f", parts[i], float64(joins)/ideal, float64(leaves)/ideal)
					if float64(max(joins, leaves)) > 1.10*ideal {
						t.Errorf("%s of the ideal", report)
					}
				}
				t.Log(report)
			}
		}
	}
}

func loadOf(p *Plan, peer Peer) int64 {
	for _, l := range p.Loads() {
		if l.Peer == peer {
			return l.Bytes
		}
	}
	return 0
}
