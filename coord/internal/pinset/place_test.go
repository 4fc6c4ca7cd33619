package pinset

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/p2pshare/p2pshare/share/content"
)

func randomIDs(n int) []content.ID {
	rng := rand.New(rand.NewPCG(5, 5))
	ids := make([]content.ID, n)
	for i := range ids {
		for j := range 4 {
			binary.BigEndian.PutUint64(ids[i][8*j:], rng.Uint64())
		}
	}
	return ids
}

// load counts what each member holds.
func load(r *Ring, ids []content.ID, n int) map[Peer]int {
	held := map[Peer]int{}
	for _, id := range ids {
		for _, p := range r.Place(id, n) {
			held[p]++
		}
	}
	return held
}

func TestPlaceIsFairToCapacity(t *testing.T) {
	ids := randomIDs(100_000)
	mixed := equalMembers(20)
	for i := range mixed {
		mixed[i].Capacity = int64(i%4+1) * 50 << 30
	}
	for _, test := range []struct {
		members []Member
		n       int
		most    float64
	}{
		{equalMembers(3), 1, 1.05}, {equalMembers(5), 3, 1.05}, {equalMembers(10), 1, 1.10}, {equalMembers(10), 3, 1.06},
		{equalMembers(20), 3, 1.08}, {equalMembers(100), 3, 1.12}, {mixed, 1, 1.12}, {mixed, 3, 1.10},
	} {
		var capacity int64
		for _, m := range test.members {
			capacity += m.Capacity
		}
		held := load(NewRing(test.members), ids, test.n)
		worst := 0.0
		for _, m := range test.members {
			share := float64(len(ids)*test.n) * float64(m.Capacity) / float64(capacity)
			worst = max(worst, float64(held[m.Peer])/share)
		}
		t.Logf("%d members, %d copies: the fullest holds %.3f of its share", len(test.members), test.n, worst)
		if worst > test.most {
			t.Errorf("%d members, %d copies: the fullest holds %.3f of its share, want at most %.2f", len(test.members), test.n, worst, test.most)
		}
	}
}

func TestPlaceMovesOnlyOntoOrOffTheMemberThatComesOrLeaves(t *testing.T) {
	ids := randomIDs(20_000)
	for _, count := range []int{3, 10, 20} {
		members := equalMembers(count + 1)
		before, after := NewRing(members[:count]), NewRing(members)
		newcomer := members[count].Peer
		moved, n := 0, min(3, count)
		for _, id := range ids {
			for _, p := range after.Place(id, n) {
				if !slices.Contains(before.Place(id, n), p) {
					moved++
					if p != newcomer {
						t.Fatalf("%s comes, and a copy moves onto %s", newcomer, p)
					}
				}
			}
		}
		ideal := float64(len(ids)*n) / float64(count+1)
		t.Logf("%d members and one more: %.3f of the ideal moves", count, float64(moved)/ideal)
		if r := float64(moved) / ideal; r > 1.08 || r < 0.92 {
			t.Errorf("%d members and one more: %.3f times its share moves", count, r)
		}
	}
}

func TestPlaceSpreadsOverZones(t *testing.T) {
	ids := randomIDs(2000)
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
		members := equalMembers(len(test.zones))
		zone := map[Peer]string{}
		for i := range members {
			members[i].Zone = test.zones[i]
			zone[members[i].Peer] = test.zones[i]
		}
		ring := NewRing(members)
		for _, id := range ids {
			peers := ring.Place(id, test.n)
			in := map[string]int{}
			for _, p := range peers {
				if z := zone[p]; z != "" {
					in[z]++
				}
			}
			slices.Sort(peers)
			if len(slices.Compact(peers)) != test.n {
				t.Fatalf("zones %q: Place(%d) = %v", test.zones, test.n, peers)
			}
			for z, count := range in {
				if count > test.most {
					t.Fatalf("zones %q: %d of %d copies in %s, want at most %d", test.zones, count, test.n, z, test.most)
				}
			}
		}
	}
}

func TestPlaceEdges(t *testing.T) {
	members := equalMembers(4)
	members[1].Capacity = 0
	members[2].NoStore = true
	id := content.ID{1}
	want := []Peer{members[0].Peer, members[3].Peer}
	for n, count := range map[int]int{-1: 0, 0: 0, 1: 1, 2: 2, 9: 2} {
		got := Place(id, members, n)
		for _, p := range got {
			if !slices.Contains(want, p) {
				t.Errorf("Place onto %s, which does not store", p)
			}
		}
		if len(got) != count {
			t.Errorf("Place(%d) = %v, want %d of %v", n, got, count, want)
		}
	}
	if got := Place(id, nil, 3); got != nil {
		t.Errorf("Place without members = %v", got)
	}
	for _, edge := range []uint64{0, math.MaxUint64} {
		binary.BigEndian.PutUint64(id[:], edge)
		if got := Place(id, members, 2); len(got) != 2 {
			t.Errorf("Place at %x = %v", edge, got)
		}
	}
	reversed := slices.Clone(members)
	slices.Reverse(reversed)
	for _, id := range randomIDs(20) {
		if a, b := Place(id, members, 2), Place(id, reversed, 2); !slices.Equal(a, b) {
			t.Errorf("Place depends on the order of members: %v, %v", a, b)
		}
	}
}

// TestPlaceVectors keeps the plan: members of different builds must agree.
func TestPlaceVectors(t *testing.T) {
	members := equalMembers(5)
	members[0].Capacity *= 3
	members[1].Zone, members[2].Zone = "z", "z"
	got := ""
	for _, id := range randomIDs(4) {
		got += fmt.Sprintln(id.Short(), NewRing(members).Place(id, 3))
	}
	const want = `b46d747c [12D3KooWMember002 12D3KooWMember000 12D3KooWMember004]
0c43da11 [12D3KooWMember004 12D3KooWMember000 12D3KooWMember003]
eccc573b [12D3KooWMember002 12D3KooWMember000 12D3KooWMember004]
d356c716 [12D3KooWMember003 12D3KooWMember004 12D3KooWMember000]
`
	if got != want {
		t.Errorf("the plan is\n%swant\n%s", got, want)
	}
}
