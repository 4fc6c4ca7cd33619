package pinset

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSharesAreFilledLevelByLevel compares with what makes them: nobody holds more
// than one copy of each, and of two members the one that has less for its capacity
// could not have more.
func TestSharesAreFilledLevelByLevel(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 3000 {
		capacities := make([]int64, 1+rng.IntN(8))
		for i := range capacities {
			capacities[i] = 1 + rng.Int64N(1<<rng.IntN(40))
		}
		slices.Sort(capacities)
		slices.Reverse(capacities)
		var classes []class
		for range 1 + rng.IntN(3) {
			classes = addTo(classes, 1+rng.IntN(len(capacities)), 1+rng.Uint64N(1<<40))
		}
		room := func(members int) (sum uint64) {
			for _, c := range classes {
				sum += uint64(min(c.copies, members)) * c.bytes
			}
			return sum
		}
		list := shares(capacities, classes)
		var all uint64
		tight := make([]bool, len(list)) // the members up to it can't have more
		for i, x := range list {
			all += x
			if all > room(i+1) {
				t.Fatalf("capacities %d, classes %v: shares %d are more than %d members can hold", capacities, classes, list, i+1)
			}
			tight[i] = room(i+1)-all <= uint64(i+1)
			if i > 0 && list[i-1]+1 < x {
				t.Fatalf("capacities %d, classes %v: shares %d are not in their order", capacities, classes, list)
			}
		}
		if !tight[len(list)-1] {
			t.Fatalf("capacities %d, classes %v: shares %d are %d, want %d", capacities, classes, list, all, room(len(list)))
		}
		for i := 1; i < len(list); i++ {
			before, burden := float64(list[i-1])/float64(capacities[i-1]), float64(list[i])/float64(capacities[i])
			slack := 2/float64(capacities[i]) + 1e-9*burden
			if before > burden+slack || !tight[i-1] && math.Abs(before-burden) > slack {
				t.Fatalf("capacities %d, classes %v: shares %d; %d could have more", capacities, classes, list, i-1)
			}
		}
	}
}

func TestSharesOfKnownGroups(t *testing.T) {
	for _, test := range []struct {
		capacities []int64
		classes    []class
		want       []uint64
	}{
		{[]int64{5, 5, 5}, []class{{1, 300}}, []uint64{100, 100, 100}},
		{[]int64{8, 4, 2, 1, 1}, []class{{1, 1600}}, []uint64{800, 400, 200, 100, 100}},
		{[]int64{8, 4, 2, 1, 1}, []class{{3, 1600}}, []uint64{1600, 1600, 800, 400, 400}},
		{[]int64{60, 1, 1}, []class{{2, 100}}, []uint64{100, 50, 50}},
		{[]int64{60, 1, 1}, []class{{1, 62}, {3, 10}}, []uint64{72, 10, 10}},
		{[]int64{7, 1}, []class{{5, 10}}, []uint64{10, 10}},
		{nil, []class{{5, 10}}, []uint64{}},
	} {
		if got := shares(test.capacities, test.classes); !slices.Equal(got, test.want) {
			t.Errorf("shares of %d, %v = %d, want %d", test.capacities, test.classes, got, test.want)
		}
	}
}

// TestFittedClocksRingAsOftenAsWanted draws with fitted rates, with clocks of its own.
func TestFittedClocksRingAsOftenAsWanted(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for _, test := range []struct {
		wanted  []float64
		classes []drawn
	}{
		{[]float64{0.8, 0.4, 0.4, 0.2, 0.1, 0.1}, []drawn{{2, one}}},
		{[]float64{0.95, 0.9, 0.6, 0.3, 0.25}, []drawn{{3, one}}},
		{[]float64{0.9, 0.4, 0.3, 0.2, 0.2}, []drawn{{1, one / 4}, {2, one / 2}, {3, one / 4}}},
	} {
		wanted := make([]uint64, len(test.wanted))
		for i, x := range test.wanted {
			wanted[i] = uint64(x * one)
		}
		rates := fit(wanted, test.classes)
		const draws = 200_000
		got := make([]int, len(rates))
		clocks := make([]float64, len(rates))
		order := make([]int, len(rates))
		for range draws {
			for i, r := range rates {
				clocks[i], order[i] = rng.ExpFloat64()/float64(r), i
			}
			slices.SortFunc(order, func(a, b int) int {
				if clocks[a] < clocks[b] {
					return -1
				}
				return 1
			})
			at := rng.Uint64N(one)
			for _, c := range test.classes {
				if at < c.weight {
					for _, i := range order[:c.copies] {
						got[i]++
					}
					break
				}
				at -= c.weight
			}
		}
		for i, x := range test.wanted {
			if p := float64(got[i]) / draws; math.Abs(p-x) > 0.005 {
				t.Errorf("member %d of %v is drawn with %.4f", i, test.wanted, p)
			}
		}
	}
}
