package swarm

import (
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

func TestBitfieldCountsAndFindsWhatIsClear(t *testing.T) {
	for _, n := range []int64{1, 63, 64, 65, 1000} {
		b := NewBitfield(n)
		for i := range n {
			if got := b.NextClear(0); got != i {
				t.Errorf("NextClear(0) of %d with %d set = %d, want %d", n, i, got, i)
			}
			if !b.Set(i) || b.Set(i) || !b.Has(i) || b.Count() != i+1 {
				t.Errorf("Set(%d) of %d does not tell new from known", i, n)
			}
		}
		if got := b.NextClear(0); got != n {
			t.Errorf("NextClear of a full set = %d, want %d", got, n)
		}
	}
	b := NewBitfield(200)
	b.Set(5)
	for _, test := range [][2]int64{{0, 0}, {5, 6}, {6, 6}, {199, 199}, {200, 200}} {
		if got := b.NextClear(test[0]); got != test[1] {
			t.Errorf("NextClear(%d) = %d, want %d", test[0], got, test[1])
		}
	}
}

// serve lets the sources bring whatever they are asked for, each its rate of
// groups a second at best, until nothing more is asked, and returns what came
// from each.
func serve(t *testing.T, d *Download, rates map[Source]float64) map[Source][]int64 {
	t.Helper()
	got := map[Source][]int64{}
	owes := map[Source][]content.Span{}
	credit := map[Source]float64{}
	const step = 10 * time.Millisecond
	for now := time.Duration(0); !d.Done(); now += step {
		if now > time.Hour {
			t.Fatalf("not done in an hour: %d groups are missing", d.Missing())
		}
		for _, s := range d.order {
			for {
				span, ok := d.Next(s, now)
				if !ok {
					break
				}
				owes[s] = append(owes[s], span)
			}
			if len(owes[s]) == 0 {
				continue
			}
			for credit[s] += rates[s] * step.Seconds(); credit[s] >= 1 && len(owes[s]) > 0; credit[s]-- {
				span := owes[s][0]
				d.Arrived(s, span.First, now)
				got[s] = append(got[s], span.First)
				if span.Count == 1 {
					d.Settled(s, span)
					owes[s] = owes[s][1:]
					continue
				}
				// A request is settled as a whole; that the rest is asked anew is
				// as good.
				d.Settled(s, span)
				owes[s] = owes[s][1:]
			}
		}
	}
	return got
}

func TestHeldGroupsAreNeverAsked(t *testing.T) {
	have := NewBitfield(100)
	for i := int64(0); i < 100; i += 3 {
		have.Set(i)
	}
	d := New(have.Clone(), Config{})
	d.Join(0, 0)
	asked := map[int64]bool{}
	for _, i := range serve(t, d, map[Source]float64{0: 100})[0] {
		if have.Has(i) || asked[i] {
			t.Errorf("group %d is asked, and held already", i)
		}
		asked[i] = true
	}
	if len(asked) != 66 {
		t.Errorf("%d groups are asked of the only source, want the 66 missing", len(asked))
	}
}

func TestWindowBoundsWhatIsAheadAndKeepsOrder(t *testing.T) {
	d := New(NewBitfield(100), Config{Window: 6, SpanMax: 4})
	d.Join(0, 0)
	next := int64(0)
	for {
		span, ok := d.Next(0, 0)
		if !ok {
			break
		}
		if span.First != next {
			t.Errorf("span %v is asked, want it to begin at %d", span, next)
		}
		next = span.End()
	}
	if next != 6 {
		t.Errorf("spans reach to %d, want to the window's end at 6", next)
	}
	d.Arrived(0, 0, 0)
	d.Arrived(0, 1, 0)
	if end := d.end(); end != 8 {
		t.Errorf("the window ends at %d after two groups, want 8", end)
	}
}

func TestSlowSourcesAreGivenLess(t *testing.T) {
	d := New(NewBitfield(2000), Config{})
	d.Join(0, 0)
	d.Join(1, 1)
	got := serve(t, d, map[Source]float64{0: 100, 1: 10})
	if part := float64(len(got[1])) / 2000; part < 0.05 || part > 0.13 {
		t.Errorf("a source a tenth as fast brings %.2f of it", part)
	}
}

func TestEqualSourcesBringEqualParts(t *testing.T) {
	d := New(NewBitfield(4096), Config{})
	rates := map[Source]float64{}
	for s := range Source(4) {
		d.Join(s, uint64(s))
		rates[s] = 200
	}
	for s, groups := range serve(t, d, rates) {
		if part := float64(len(groups)) / 4096; part < 0.2 || part > 0.3 {
			t.Errorf("source %d brings %.2f of it, want a quarter", s, part)
		}
	}
}

func TestWhatAStalledSourceOwesIsAskedOfOthers(t *testing.T) {
	d := New(NewBitfield(8), Config{})
	d.Join(0, 0)
	owed := int64(0)
	for span, ok := d.Next(0, 0); ok; span, ok = d.Next(0, 0) {
		owed += span.Count
	}
	if owed != 8 {
		t.Fatalf("the only source owes %d groups, want all 8", owed)
	}
	d.Join(1, 1)
	again := int64(0)
	for span, ok := d.Next(1, silenceMin); ok; span, ok = d.Next(1, silenceMin) {
		again += span.Count
	}
	if again != 8 {
		t.Errorf("%d groups are asked of another when the source has stalled, want all 8", again)
	}
	if span, ok := d.Next(0, silenceMin); ok {
		t.Errorf("a source that has stalled is asked for %v", span)
	}
}

func TestAnExpelledSourceIsNeverAskedAgain(t *testing.T) {
	d := New(NewBitfield(8), Config{})
	d.Join(0, 0)
	d.Expel(0)
	d.Join(0, 0)
	d.JoinPartial(0, 0)
	d.Holds(0, content.Span{Count: 8})
	if span, ok := d.Next(0, 0); ok {
		t.Errorf("an expelled source is asked for %v", span)
	}
}

func TestTheRarestGroupsAreAskedFirst(t *testing.T) {
	for seed := range uint64(20) {
		d := New(NewBitfield(64), Config{SpanMax: 1, Seed: seed})
		for s := range Source(3) {
			d.JoinPartial(s, uint64(s))
			d.Holds(s, content.Span{Count: 64})
		}
		for s := range Source(2) {
			d.Lacks(s, content.Span{First: 30, Count: 1})
		}
		if span, ok := d.Next(2, 0); !ok || span.First != 30 {
			t.Errorf("seed %d: %v is asked of the only one that holds group 30", seed, span)
		}
	}
}

// What partial holders can bring is not asked of who holds all, and what other
// getters are about to bring little at a time.
func TestWhoHoldsAllIsAskedForWhatNobodyElseBrings(t *testing.T) {
	d := New(NewBitfield(256), Config{Self: 1})
	d.Join(0, 100)
	d.JoinPartial(1, 2)
	d.Holds(1, content.Span{Count: 128})
	others := int64(0)
	for span, ok := d.Next(0, 0); ok; span, ok = d.Next(0, 0) {
		for i := span.First; i < span.End(); i++ {
			if i < 128 {
				t.Errorf("group %d is asked of who holds all, and a partial holder is idle", i)
			}
			if !d.own(i) {
				others++
			}
		}
	}
	if others > 1 {
		t.Errorf("%d groups of the other getter's share are asked of who holds all, want one at a time", others)
	}
}

func TestGettersShareTheBlocks(t *testing.T) {
	const groups, getters = 4096, 8
	owners := make([]int, groups/16)
	for self := range uint64(getters) {
		d := New(NewBitfield(groups), Config{Self: self * 77})
		for other := range uint64(getters) {
			if other != self {
				d.JoinPartial(Source(other), other*77)
			}
		}
		share := 0
		for i := range owners {
			if d.own(int64(i) * 16) {
				owners[i]++
				share++
			}
		}
		if share < len(owners)/getters/2 || share > 2*len(owners)/getters {
			t.Errorf("getter %d has a share of %d of %d blocks", self, share, len(owners))
		}
	}
	for i, n := range owners {
		if n != 1 {
			t.Errorf("block %d is the share of %d getters", i, n)
		}
	}
}
