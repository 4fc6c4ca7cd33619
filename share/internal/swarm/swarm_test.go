package swarm

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

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

func TestHeldGroupsAreNeverAsked(t *testing.T) {
	have := NewBitfield(100)
	for i := int64(0); i < 100; i += 3 {
		have.Set(i)
	}
	d := New(have, Config{})
	d.Join(0)
	asked := map[int64]bool{}
	for {
		span, ok := d.Next(0)
		if !ok {
			break
		}
		for i := span.First; i < span.End(); i++ {
			if have.Has(i) || asked[i] {
				t.Errorf("group %d is asked, and held or owed already", i)
			}
			asked[i] = true
		}
	}
	if len(asked) != 66 {
		t.Errorf("%d groups are asked of the only source, want the 66 missing", len(asked))
	}
}

func TestWindowBoundsWhatIsAhead(t *testing.T) {
	d := New(NewBitfield(100), Config{Window: 10, SpanMax: 4})
	d.Join(0)
	var owed []content.Span
	for {
		span, ok := d.Next(0)
		if !ok {
			break
		}
		owed = append(owed, span)
	}
	if last := owed[len(owed)-1]; last.End() != 10 {
		t.Errorf("spans reach to %d, want to the window's end at 10", last.End())
	}
	for i := owed[0].First; i < owed[0].End(); i++ {
		d.Arrived(i)
	}
	d.Settled(0, owed[0])
	span, ok := d.Next(0)
	if want := (content.Span{First: 10, Count: owed[0].Count}); !ok || span != want {
		t.Errorf("Next after %d groups = %v, %v, want %v", owed[0].Count, span, ok, want)
	}
}

func TestLastSpansAreAskedOfOtherSourcesToo(t *testing.T) {
	d := New(NewBitfield(4), Config{})
	owed := map[Source][]content.Span{}
	for i := range Source(owersMax + 1) {
		d.Join(i)
		groups := 0
		for span, ok := d.Next(i); ok; span, ok = d.Next(i) {
			owed[i] = append(owed[i], span)
			groups += int(span.Count)
		}
		want := 4
		if i == owersMax {
			want = 0
		}
		if groups != want {
			t.Errorf("source %d is asked for %d groups, want %d", i, groups, want)
		}
	}
	d.Leave(0)
	for _, span := range owed[0] {
		d.Settled(0, span)
	}
	if _, ok := d.Next(owersMax); !ok {
		t.Error("what a source gave back is not asked of another")
	}
}

// sim is a seeded network of sources in rounds: in each, every source answers
// its oldest span, or part of it, or lies, or is too slow, or leaves.
type sim struct {
	rng   *rand.Rand
	d     *Download
	owed  map[Source][]content.Span
	liars map[Source]bool
	slow  map[Source]bool
	log   strings.Builder

	sent int64 // groups that arrived, twice or not
}

const simSources = 5

func newSim(seed uint64, groups int64) *sim {
	s := &sim{
		rng: rand.New(rand.NewPCG(seed, 1)), d: New(NewBitfield(groups), Config{}),
		owed: map[Source][]content.Span{}, liars: map[Source]bool{}, slow: map[Source]bool{},
	}
	for i := range Source(simSources) {
		s.d.Join(i)
		s.owed[i] = nil
		s.liars[i] = i > 0 && s.rng.IntN(4) == 0
		s.slow[i] = i > 0 && s.rng.IntN(4) == 0
	}
	return s
}

func (s *sim) round(t *testing.T, n int) {
	for i := range Source(simSources) {
		if _, here := s.owed[i]; !here {
			continue
		}
		for len(s.owed[i]) < 3 {
			span, ok := s.d.Next(i)
			if !ok {
				break
			}
			s.check(t, i, span)
			s.owed[i] = append(s.owed[i], span)
			fmt.Fprintf(&s.log, "%3d  %d is asked for %d+%d\n", n, i, span.First, span.Count)
		}
		if len(s.owed[i]) > 0 && !(s.slow[i] && n%10 != 0) {
			s.answer(i, n)
		}
	}
}

// check holds the package's invariants against one request.
func (s *sim) check(t *testing.T, i Source, span content.Span) {
	t.Helper()
	for g := span.First; g < span.End(); g++ {
		owing := 0
		for j, spans := range s.owed {
			for _, o := range spans {
				if o.First <= g && g < o.End() {
					owing++
					if j == i {
						t.Fatalf("source %d is asked for group %d, which it owes", i, g)
					}
				}
			}
		}
		if s.d.have.Has(g) || owing >= owersMax {
			t.Fatalf("group %d is asked of source %d: held %v, owed by %d", g, i, s.d.have.Has(g), owing)
		}
	}
}

// answer settles the oldest span of a source.
func (s *sim) answer(i Source, n int) {
	span := s.owed[i][0]
	s.owed[i] = s.owed[i][1:]
	if s.liars[i] { // dropped at the first bad group
		fmt.Fprintf(&s.log, "%3d  %d lies and is dropped\n", n, i)
		s.leave(i, span)
		return
	}
	count := span.Count
	if s.rng.IntN(8) == 0 { // cut off in the middle
		count = s.rng.Int64N(span.Count + 1)
	}
	for g := span.First; g < span.First+count; g++ {
		s.d.Arrived(g)
		s.sent++
	}
	fmt.Fprintf(&s.log, "%3d  %d brings %d of %d+%d\n", n, i, count, span.First, span.Count)
	s.d.Settled(i, span)
	if i > 0 && s.rng.IntN(40) == 0 {
		fmt.Fprintf(&s.log, "%3d  %d leaves\n", n, i)
		s.leave(i)
	}
}

func (s *sim) leave(i Source, also ...content.Span) {
	s.d.Leave(i)
	for _, span := range append(also, s.owed[i]...) {
		s.d.Settled(i, span)
	}
	delete(s.owed, i)
}

func (s *sim) run(t *testing.T, seed uint64) {
	t.Helper()
	groups := s.d.have.Len()
	for n := 1; !s.d.Done(); n++ {
		if n > 10*int(groups) {
			t.Fatalf("seed %d: not done after %d rounds\n%s", seed, n, s.log.String())
		}
		s.round(t, n)
	}
	if s.sent > owersMax*groups {
		t.Errorf("seed %d: %d groups came for %d", seed, s.sent, groups)
	}
}

func TestAnySourcesBringEverything(t *testing.T) {
	for seed := range uint64(500) {
		groups := int64(1 + seed%130)
		newSim(seed, groups).run(t, seed)
	}
}

func TestTranscript(t *testing.T) {
	const path, seed = "testdata/transcript.txt", 7
	s := newSim(seed, 60)
	s.run(t, seed)
	got := s.log.String()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("decisions have changed (-want +got); if that is meant, -update:\n%s", diff)
	}
}
