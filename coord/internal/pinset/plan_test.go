package pinset

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/p2pshare/p2pshare/share/content"
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

var planAll = flag.Bool("plan.all", false, "all cases of TestPlanIsFairAndStable: a minute")

// TestPlanIsFairAndStable has 100,000 contents.
func TestPlanIsFairAndStable(t *testing.T) {
	cases := [][]int{
		repeat(1, 5), repeat(1, 10), repeat(1, 20),
		{8, 4, 2, 1, 1},
		append([]int{60}, repeat(1, 9)...),
		slices.Concat(repeat(4, 5), repeat(3, 5), repeat(2, 5), repeat(1, 5)),
	}
	if testing.Short() {
		cases = cases[2:4]
	}
	for _, replicas := range [][]int{{3}, {1}, {2}, {1, 2, 3}, {ReplicasAll, 1, 3}} {
		for kind, size := range sizes {
			if !*planAll && (kind != "mixed" || replicas[0] != 3) {
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
					if slices.Contains(replicas, ReplicasAll) {
						continue // who goes has copies that nobody else has to make
					}
					without := NewPlan(with(pins, slices.Delete(slices.Clone(members), i, i+1)))
					ideal := float64(loadOf(plan, members[i].Peer))
					_, joins := without.Moves(plan)
					_, leaves := plan.Moves(without)
					report += fmt.Sprintf("; %d comes %.3f, goes %.3f", parts[i], float64(joins)/ideal, float64(leaves)/ideal)
					if float64(max(joins, leaves)) > 1.10*ideal && len(replicas) == 1 {
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

// comparePlans fails unless two plans are the same, and of the same state.
func comparePlans(t *testing.T, what string, got, want *Plan) {
	t.Helper()
	if got.state.Hash() != want.state.Hash() {
		t.Fatalf("%s: the plan is of another state", what)
	}
	if !slices.EqualFunc(got.entries, want.entries, func(a, b entry) bool { return a.compare(b) == 0 && a.from == b.from && a.count == b.count }) ||
		!slices.Equal(got.holders, want.holders) || !slices.Equal(got.end.loads, want.end.loads) || got.end.placed != want.end.placed ||
		!slices.Equal(got.end.bounds, want.end.bounds) || !slices.Equal(got.end.classes, want.end.classes) || len(got.clocks) != len(want.clocks) ||
		len(got.saved) != len(want.saved) {
		t.Fatalf("%s: the updated plan is another than one made anew", what)
	}
	for i := range got.clocks {
		if a, b := got.clocks[i], want.clocks[i]; a.first != b.first || !slices.Equal(a.periods, b.periods) {
			t.Fatalf("%s: clocks from entry %d differ from those from %d", what, a.first, b.first)
		}
	}
}

// TestUpdatedPlanIsThatMadeAnew pins, unpins, pins anew, reports copies and changes
// members at random.
func TestUpdatedPlanIsThatMadeAnew(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 9))
		g := newGroup(t)
		for i := range 6 {
			peer := Peer(fmt.Sprint("dan", i))
			g.admit(&Member{Peer: peer, Vote: Learner, By: "ann", Capacity: rng.Int64N(1<<40) + 1, Zone: []string{"", "a", "b"}[rng.IntN(3)*int(seed%2)]})
			g.setGranted(peer, RoleStorage)
		}
		peer := func() Peer { return Peer(fmt.Sprint("dan", rng.IntN(6))) }
		size := sizes["mixed"]
		ids := func(n int) (list []content.ID) {
			for range n {
				list = append(list, idOf(1+rng.IntN(9000)))
			}
			return list
		}
		command := func() Command {
			switch rng.IntN(60) {
			case 0:
				return &Unpin{ID: new(ids(1)[0]), Expect: ExpectAny}
			case 1:
				return &Copies{Peer: peer(), Held: ids(50), Gone: ids(5), Unproven: ids(rng.IntN(2))}
			case 2:
				if rng.IntN(40) == 0 {
					return &Away{Away: []Peer{peer()}, Back: []Peer{peer()}}
				}
				fallthrough
			case 3:
				if rng.IntN(100) == 0 {
					return &SetMember{Peer: peer(), Capacity: new(rng.Int64N(1 << 40))}
				}
			}
			id := ids(1)[0]
			return &SetPin{ID: id, Kind: KindFile, Size: size(rand.New(rand.NewPCG(uint64(id[0]), uint64(id[1])))),
				Replicas: []int64{1, 2, 3, 3, 3, ReplicasAll}[rng.IntN(6)], Expect: ExpectAny}
		}
		plan := NewPlan(g.Clone())
		for step := range 40 {
			for range 1 + rng.IntN(600) {
				g.do("ann", command())
			}
			plan = plan.Update(g.Clone())
			comparePlans(t, fmt.Sprintf("seed %d, step %d", seed, step), plan, NewPlan(g.Clone()))
			if step == 20 { // as on a member that starts from a snapshot
				decoded, err := Decode(bytes.NewReader(encoded(t, g.State)))
				if err != nil {
					t.Fatal(err)
				}
				comparePlans(t, "decoded", NewPlan(decoded), plan)
			}
		}
		if len(plan.entries) < 1000 {
			t.Errorf("seed %d: only %d contents", seed, len(plan.entries))
		}
	}
}

func TestPinsThatAreAddedMoveNoOther(t *testing.T) {
	list := somePins(20_000, sizes["mixed"], 1, 2, 3)
	members := capable(4, 4, 3, 2, 1, 1)
	all := NewPlan(with(pinned(list), members))
	for _, n := range []int{1, 10, 5000, 19_999} {
		if moved, _ := NewPlan(with(pinned(list[:n]), members)).Moves(all); moved > 0 {
			t.Errorf("after %d pins, the rest moves %d of them", n, moved)
		}
	}
}

func TestUnpinMovesFewOthers(t *testing.T) {
	list := somePins(20_000, sizes["mixed"], 3)
	members := capable(4, 4, 3, 2, 1, 1, 1, 1)
	all := NewPlan(with(pinned(list), members))
	var total, bytes int64
	for _, x := range list {
		total += 3 * x.Size
	}
	for i := 100; i < len(list); i += 1999 {
		less := pinned(list)
		x, _ := less.pinOf(list[i].ID)
		less.dropPin(x)
		_, moved := all.Moves(NewPlan(with(less, members)))
		bytes += moved
	}
	t.Logf("an unpin moves %.6f of all bytes", float64(bytes)/10/float64(total))
	if bytes/10 > total/1000 {
		t.Errorf("an unpin moves %d of %d bytes", bytes/10, total)
	}
}

func TestPlanNeverExceedsACapacity(t *testing.T) {
	members := capable(1, 1, 1, 1)
	for i := range members {
		members[i].Capacity = 1000
	}
	members[3].Capacity = 10
	list := somePins(400, func(rng *rand.Rand) int64 { return rng.Int64N(40) }, 2)
	plan := NewPlan(with(pinned(list), members))
	lacks := map[Lack]int{}
	for _, l := range plan.Loads() {
		if l.Bytes > l.Capacity || l.Capacity == 1000 && l.Bytes < 950 {
			t.Errorf("%s has %d bytes of %d", l.Peer, l.Bytes, l.Capacity)
		}
	}
	for _, x := range list {
		w, ok := plan.Place(x.ID)
		if !ok || (w.Lack == LackNone) != (len(w.Holders) == 2) {
			t.Fatalf("%s: %+v", x.ID, w)
		}
		lacks[w.Lack]++
	}
	if lacks[LackRoom] < 100 || lacks[LackMembers] > 0 {
		t.Errorf("lacks are %v", lacks)
	}
}

func TestPlanWithoutEnoughMembers(t *testing.T) {
	list := somePins(50, sizes["mixed"], 3)
	for n := range 5 {
		plan := NewPlan(with(pinned(list), capable(repeat(1, n)...)))
		w, _ := plan.Place(list[7].ID)
		want := LackMembers
		if n >= 3 {
			want = LackNone
		}
		if w.Wanted != 3 || len(w.Holders) != min(3, n) || len(w.Reserve) != max(0, n-3) || w.Lack != want {
			t.Errorf("%d members: %+v", n, w)
		}
	}
}

func TestPlanLeavesOutWhoDoesNotCount(t *testing.T) {
	g := newGroup(t)
	for _, peer := range []Peer{"bob", "cat", "dan", "eve", "fay"} {
		g.want(OK, "ann", &SetMember{Peer: peer, Capacity: new(int64(1 << 40)), Roles: new(RoleStorage)})
	}
	pin := pinAs("a", 1)
	pin.Replicas = ReplicasAll
	g.want(OK, "ann", pin)
	check := func(what string, want ...Peer) {
		t.Helper()
		plan := NewPlan(g.Clone())
		w, _ := plan.Place(idOf(1))
		if got := slices.Sorted(slices.Values(w.Holders)); !slices.Equal(got, want) {
			t.Errorf("%s: holders are %v, want %v", what, got, want)
		}
		for _, l := range plan.Loads() {
			if (l.Out == OutNot) != (slices.Contains(want, l.Peer)) && what != "unproven content" {
				t.Errorf("%s: %s is out for %d", what, l.Peer, l.Out)
			}
		}
	}
	check("all", "ann", "bob", "cat", "dan", "eve", "fay")
	g.want(OK, "ann", &Away{Away: []Peer{"bob"}, Unproven: []Peer{"cat"}})
	check("away", "ann", "dan", "eve", "fay")
	g.want(OK, "ann", &SetMember{Peer: "dan", NoStore: new(true)})
	check("no store", "ann", "eve", "fay")
	g.want(OK, "ann", &SetMember{Peer: "eve", Capacity: new(int64(0))})
	check("no capacity", "ann", "fay")
	g.want(OK, "ann", &Copies{Peer: "fay", Unproven: []content.ID{idOf(1)}})
	check("unproven content", "ann")
	g.want(OK, "ann", &Away{Back: []Peer{"bob"}, Proven: []Peer{"cat"}})
	g.want(OK, "ann", &Copies{Peer: "fay", Held: []content.ID{idOf(1)}})
	check("back", "ann", "bob", "cat", "fay")
	g.want(OK, "ann", &Remove{Peer: "bob"})
	check("removed", "ann", "cat", "fay")
}

func TestPlanSpreadsOverZones(t *testing.T) {
	list := somePins(2000, sizes["mixed"], 1)
	for _, test := range []struct {
		zones []string // of the members
		n     int
		most  int // in one zone
	}{
		{[]string{"a", "a", "a", "b", "c"}, 3, 1},
		{[]string{"a", "a", "a", "b", "b"}, 3, 2},
		{[]string{"a", "a", "a", "b"}, 3, 2},
		{[]string{"a", "a", "a", "b"}, 4, 3},
		{[]string{"a", "a", "", ""}, 3, 1},
		{[]string{"", "", "", ""}, 3, 1},
		{[]string{"a", "a", "a", "a"}, 3, 3},
	} {
		members := capable(repeat(1, len(test.zones))...)
		zone := map[Peer]string{}
		for i := range members {
			members[i].Zone = test.zones[i]
			zone[members[i].Peer] = test.zones[i]
		}
		for i := range list {
			list[i].Replicas = test.n
		}
		plan := NewPlan(with(pinned(list), members))
		for _, x := range list {
			w, _ := plan.Place(x.ID)
			in := map[string]int{}
			for _, p := range w.Holders {
				if z := zone[p]; z != "" {
					in[z]++
				}
			}
			slices.Sort(w.Holders)
			if len(slices.Compact(w.Holders)) != test.n {
				t.Fatalf("zones %q: %d copies on %v", test.zones, test.n, w.Holders)
			}
			for z, count := range in {
				if count > test.most {
					t.Fatalf("zones %q: %d of %d copies in %s, want at most %d", test.zones, count, test.n, z, test.most)
				}
			}
		}
	}
}

// TestPlanVectors keeps the plan: members of different builds must agree.
func TestPlanVectors(t *testing.T) {
	members := capable(9, 5, 4, 4, 2, 1)
	members[1].Zone, members[2].Zone = "z", "z"
	list := somePins(5000, sizes["mixed"], 1, 2, 3, 4)
	plan := NewPlan(with(pinned(list), members))
	sum := sha256.New()
	for _, m := range plan.holders {
		fmt.Fprintln(sum, plan.planned[m].Peer)
	}
	got := fmt.Sprintf("%x\n", sum.Sum(nil))
	for _, i := range []int{0, 1, 17, 4999} {
		w, _ := plan.Place(list[i].ID)
		got += fmt.Sprintln(list[i].ID.Short(), w.Holders, w.Reserve)
	}
	for _, l := range plan.Loads() {
		got += fmt.Sprintln(l.Peer, l.Contents, l.Bytes, l.Share)
	}
	golden(t, "testdata/plan.txt", got)
}
