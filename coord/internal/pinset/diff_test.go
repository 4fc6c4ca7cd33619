package pinset

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestDifferenceIsWhatOneOfTwoTablesHas(t *testing.T) {
	type number struct{ n, version int }
	rng := rand.New(rand.NewPCG(7, 7))
	for _, size := range []int{0, 1, 10, 100, 5000} {
		was := newTable(func(a, b *number) int { return a.n - b.n })
		for n := range size {
			was.set(&number{n: 10 * n})
		}
		for _, changes := range []int{0, 1, 3, 50, 4000, 60_000} {
			is := was.clone()
			for range changes {
				n := rng.IntN(10*size + 10)
				if rng.IntN(3) > 0 {
					is.set(&number{n: n, version: 1})
				} else {
					is.remove(0, func(x *number) int { return x.n - n })
				}
			}
			gone, came := difference(&was, &is)
			a, b := slices.Collect(was.all()), slices.Collect(is.all())
			wantGone, wantCame := onlyOne(a, b)
			byNumber := func(a, b *number) int { return a.n - b.n }
			slices.SortFunc(gone, byNumber)
			slices.SortFunc(came, byNumber)
			if !slices.Equal(gone, wantGone) || !slices.Equal(came, wantCame) {
				t.Errorf("size %d, %d changes: %d gone and %d came, want %d and %d", size, changes, len(gone), len(came), len(wantGone), len(wantCame))
			}
		}
	}
}
