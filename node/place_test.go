package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
)

// TestNearest compares with a sort of all.
func TestNearest(t *testing.T) {
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, count := range []int{0, 1, 19, 60, 61, 500} {
		var members []member
		for i := range count {
			id := peer.ID(fmt.Sprint(count, i))
			members = append(members, member{id, kb.ConvertPeerID(id)})
		}
		slices.SortFunc(members, func(a, b member) int { return bytes.Compare(a.place, b.place) })
		for range 100 {
			key := kb.ConvertKey(fmt.Sprint(rng.Uint64()))
			var want []peer.ID
			for _, m := range members {
				want = append(want, m.ID)
			}
			want = kb.SortClosestPeers(want, key)
			n := 1 + rng.IntN(placeRegionMax)
			got := nearest(members, key, n)
			if len(got) < min(n, count) {
				t.Fatalf("seed %d: %d of %d members, want %d at least", seed, len(got), count, n)
			}
			for i, m := range got {
				if m.ID != want[i] {
					t.Fatalf("seed %d: of %d members the one of rank %d is another than when all are sorted", seed, count, i)
				}
			}
		}
	}
}
