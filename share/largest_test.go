package share

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/p2pshare/p2pshare/share/content"
)

func TestLargestKeepsTheLargestOnce(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := newLargest(10)
		sizes := map[content.ID]int64{}
		for range r.IntN(200) {
			var id content.ID
			binary.BigEndian.PutUint64(id[:], uint64(r.IntN(60)))
			if _, ok := sizes[id]; !ok {
				sizes[id] = int64(r.IntN(40))
			}
			l.offer(id, sizes[id])
		}
		var want []int64
		for _, size := range sizes {
			want = append(want, size)
		}
		slices.Sort(want)
		slices.Reverse(want)
		want = want[:min(10, len(want))]
		var got []int64
		ids := l.ids()
		for _, id := range ids {
			got = append(got, sizes[id])
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: sizes %v, want %v", seed, got, want)
		}
		slices.SortFunc(ids, func(a, b content.ID) int { return slices.Compare(a[:], b[:]) })
		if len(slices.Compact(ids)) != len(want) {
			t.Errorf("seed %d: one content twice", seed)
		}
		if len(l.seen) > 10 {
			t.Errorf("seed %d: %d contents remembered for 10", seed, len(l.seen))
		}
	}
}
