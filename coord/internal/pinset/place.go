package pinset

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"

	"github.com/p2pshare/p2pshare/share/content"
)

// pointsMin is how many points the member of the greatest capacity has on a ring
// at least; it has fewer than twice as many, and every other in proportion. More
// make shares fairer and a ring slower to make: of 10 equal members the fullest
// holds 1.02 times its share, of 100 1.06 times (place_test.go); making the ring
// of 10 takes 4 ms.
const pointsMin = 1024

// Place returns the members that hold id: the first n distinct members met
// clockwise from id's point on the ring, without those that have no capacity or
// do not store, as far as zones allow. len(result) is n, or as many as there are.
// For many contents, make the Ring once.
func Place(id content.ID, members []Member, n int) []Peer { return NewRing(members).Place(id, n) }

// Ring is where members hold what lies between two points on a circle of 2^64.
// It is made for one set of members, and safe for concurrent use.
//
// It is a pure function of the set: every member makes the same. A member that
// comes or leaves moves about its own share of the contents, and only onto or off
// itself, but for what zones move; unless its capacity is the first to reach, or
// the last that reached, a power of two above all others: then the number of
// every member's points changes, and up to a few hundredths more move.
//
// Source: Karger et al., "Consistent Hashing and Random Trees" (1997), with points
// by capacity as in DeCandia et al., "Dynamo" (2007), §6.2. Rendezvous hashing
// (Thaler and Ravishankar 1998) would be as fair without points, but by capacity
// it needs logarithms, which machines may round differently.
type Ring struct {
	points  []point
	members []Member // that hold copies
	zones   int      // a member without a zone is one of its own
}

type point struct {
	at     uint64
	member int32 // in members
}

// NewRing returns the ring of those members that have a capacity and store.
// members need not be sorted and is not kept. [State.Holders] has left out those
// that lack the role.
func NewRing(members []Member) *Ring {
	r := new(Ring)
	var most uint64
	zones := map[string]bool{}
	for _, m := range members {
		if m.NoStore || m.Capacity <= 0 {
			continue
		}
		r.members = append(r.members, m)
		most = max(most, uint64(m.Capacity))
		if m.Zone == "" {
			r.zones++
		}
		zones[m.Zone] = true
	}
	delete(zones, "")
	r.zones += len(zones)
	slices.SortFunc(r.members, compareForRing)
	for i, m := range r.members {
		r.addPoints(int32(i), m.Peer, pointsOf(uint64(m.Capacity), most))
	}
	slices.SortFunc(r.points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.member, b.member))
	})
	return r
}

func compareForRing(a, b Member) int { return cmp.Compare(a.Peer, b.Peer) }

// pointsOf is in proportion to the capacity: pointsMin for the greatest power of
// two that is at most the greatest capacity, which seldom changes when members
// do. At least one.
func pointsOf(capacity, most uint64) int {
	unit := uint64(1) << (bits.Len64(most) - 1)
	points := (capacity*pointsMin + unit/2) / unit // no overflow: capacities are at most IntMax
	return max(1, int(points))
}

// addPoints puts the first count points of a member on the ring: four of each
// SHA-256 of the peer and a number. Those of a smaller count are among those of
// a greater one.
func (r *Ring) addPoints(member int32, p Peer, count int) {
	for i := range count {
		digest := sha256.Sum256([]byte("p2pshare/ring/1\x00" + string(p) + "\x00" + strconv.Itoa(i/4)))
		r.points = append(r.points, point{binary.BigEndian.Uint64(digest[8*(i%4):]), member})
	}
}

// Place returns the holders of id, in the order they are met, which is that of
// preference: see the function Place. As few of them as possible are in one zone,
// which makes it pass over a member that would be met first.
func (r *Ring) Place(id content.ID, n int) []Peer {
	n = min(n, len(r.members))
	if n <= 0 {
		return nil
	}
	at := binary.BigEndian.Uint64(id[:])
	start, _ := slices.BinarySearchFunc(r.points, at, func(p point, at uint64) int { return cmp.Compare(p.at, at) })
	chosen := make([]int32, 0, n)
	// So many in one zone do when each zone has as many; small ones may not.
	for quota := (n + r.zones - 1) / r.zones; len(chosen) < n; quota++ {
		chosen = r.walk(start, n, quota, chosen)
	}
	peers := make([]Peer, n)
	for i, m := range chosen {
		peers[i] = r.members[m].Peer
	}
	return peers
}

// walk goes once around, and adds members to chosen while it has fewer than n,
// and of no zone more than quota.
func (r *Ring) walk(start, n, quota int, chosen []int32) []int32 {
	for i := range r.points {
		p := r.points[(start+i)%len(r.points)]
		if slices.Contains(chosen, p.member) || r.inZone(chosen, p.member) >= quota {
			continue
		}
		if chosen = append(chosen, p.member); len(chosen) == n {
			break
		}
	}
	return chosen
}

// inZone counts the chosen that share the zone of a member.
func (r *Ring) inZone(chosen []int32, member int32) (count int) {
	zone := r.members[member].Zone
	if zone == "" {
		return 0
	}
	for _, c := range chosen {
		if r.members[c].Zone == zone {
			count++
		}
	}
	return count
}
