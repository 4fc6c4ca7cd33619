package swarm

import (
	"math/rand/v2"
	"testing"
)

func TestBitfieldAgreesWithASet(t *testing.T) {
	for _, n := range []int64{0, 1, 2, 63, 64, 65, 127, 128, 129, 1000} {
		r := rand.New(rand.NewPCG(uint64(n), 2))
		b, set := NewBitfield(n), map[int64]bool{}
		for step := int64(0); step < 2*n; step++ {
			i := r.Int64N(n)
			if fresh := b.Set(i); fresh == set[i] {
				t.Fatalf("Set(%d) of %d = %t, and it was in: %t", i, n, fresh, set[i])
			}
			set[i] = true
			if b.Count() != int64(len(set)) || b.Len() != n {
				t.Fatalf("Count, Len = %d, %d, want %d, %d", b.Count(), b.Len(), len(set), n)
			}
			from := r.Int64N(n + 1)
			want := from
			for want < n && set[want] {
				want++
			}
			if got := b.NextClear(from); got != want {
				t.Fatalf("NextClear(%d) of %d = %d, want %d", from, n, got, want)
			}
		}
		for i := range n {
			if b.Has(i) != set[i] {
				t.Errorf("Has(%d) of %d = %t, want %t", i, n, b.Has(i), set[i])
			}
			b.Set(i)
		}
		if got := b.NextClear(0); got != n {
			t.Errorf("NextClear of a full set of %d = %d", n, got)
		}
	}
}

func TestNextClearAtTheEnds(t *testing.T) {
	b := NewBitfield(64)
	for _, i := range []int64{64, 65, 1000} {
		if got := b.NextClear(i); got != 64 {
			t.Errorf("NextClear(%d) of 64 = %d, want 64", i, got)
		}
	}
}
