package swarm

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// network is a seeded simulation: sources of all rates, that hold all or a
// growing part, that lie, stall, come and go, on paths that lose requests. It
// checks the package's invariants at every request, and writes a transcript.
type network struct {
	t    *testing.T
	rand *rand.Rand
	d    *Download
	now  time.Duration
	all  []*simulated
	log  strings.Builder

	fast float64 // rate of the honest sources that hold all and stay
}

type simulated struct {
	number Source
	rate   float64 // groups a second
	kind   simKind
	here   bool
	gone   bool          // for good
	leaves time.Duration // 0: never
	credit float64
	queue  []*simRequest
}

type simKind string

const (
	honest   simKind = "honest"
	partial  simKind = "partial" // holds more and more
	lying    simKind = "lying"   // its third group does not verify
	stalling simKind = "stalling"
)

type simRequest struct {
	span content.Span
	next int64
}

const simStep = 20 * time.Millisecond

func newNetwork(t *testing.T, seed uint64) *network {
	r := rand.New(rand.NewPCG(seed, 1))
	config := Config{SpanMax: r.Int64N(20), Window: r.Int64N(2) * (20 + r.Int64N(60)), Seed: seed, Self: r.Uint64()}
	n := &network{t: t, rand: r, d: New(NewBitfield(1+r.Int64N(600)), config)}
	kinds := []simKind{honest, partial, lying, stalling}
	for i := range 2 + r.IntN(7) {
		s := &simulated{number: Source(i), rate: 2 + 100*r.Float64()*r.Float64(), kind: kinds[r.IntN(len(kinds))]}
		if i == 0 {
			s.kind = honest // somebody stays who has it
		} else if r.IntN(3) == 0 {
			s.leaves = time.Duration(1+r.IntN(5000)) * time.Millisecond
		}
		if s.kind == honest && s.leaves == 0 {
			n.fast += s.rate
		}
		n.all = append(n.all, s)
	}
	fmt.Fprintf(&n.log, "%d groups\n", n.d.have.Len())
	for _, s := range n.all {
		fmt.Fprintf(&n.log, "source %d is %s, %.0f groups a second\n", s.number, s.kind, s.rate)
	}
	return n
}

func (n *network) say(format string, args ...any) {
	fmt.Fprintf(&n.log, "%6.2f  %s\n", n.now.Seconds(), fmt.Sprintf(format, args...))
}

func (n *network) run() {
	best := float64(n.d.have.Len()) / n.fast
	limit := time.Duration((2*best + 15) * float64(time.Second)) // 15 s: what is only held by those who stall is noticed late
	for ; !n.d.Done(); n.now += simStep {
		if n.now > limit {
			n.t.Fatalf("not done after %v, and the good sources need %.1f s: %d of %d groups are missing\n%s", n.now, best, n.d.Missing(), n.d.have.Len(), n.log.String())
		}
		for _, s := range n.all {
			n.step(s)
		}
		for _, r := range n.d.Pointless(n.now) {
			n.cancel(r)
		}
	}
	n.say("done; the good sources alone need %.2f s", best)
}

func (n *network) step(s *simulated) {
	switch {
	case !s.here && !s.gone && n.rand.IntN(20) == 0 || s.number == 0 && n.now == 0:
		s.here = true
		if s.kind == partial {
			n.d.JoinPartial(s.number, uint64(s.number))
		} else {
			n.d.Join(s.number, uint64(s.number))
		}
		n.say("%d joins", s.number)
	case s.here && s.leaves > 0 && n.now > s.leaves:
		n.say("%d leaves", s.number)
		n.drop(s, n.d.Leave)
	}
	if !s.here {
		return
	}
	if s.kind == partial && n.rand.IntN(5) == 0 {
		n.d.Holds(s.number, content.Span{First: n.rand.Int64N(n.d.have.Len()), Count: 1 + n.rand.Int64N(10)})
	}
	for len(s.queue) < 8 {
		span, ok := n.d.Next(s.number, n.now)
		if !ok {
			break
		}
		n.check(s, span)
		s.queue = append(s.queue, &simRequest{span, span.First})
		n.say("%d is asked for %d+%d", s.number, span.First, span.Count)
	}
	n.answer(s)
}

// check holds the invariants against one request.
func (n *network) check(s *simulated, span content.Span) {
	d := n.d
	if span.Count < 1 || span.Count > d.config.SpanMax || span.First < 0 || span.End() > d.end() {
		n.t.Fatalf("%v: span %v is too long, or outside 0…%d", n.now, span, d.end())
	}
	unowed := d.wanted(d.sources[s.number], d.low, d.end(), s.number) < d.end()
	for g := span.First; g < span.End(); g++ {
		alive := 0
		for _, o := range n.all {
			owes := slices.ContainsFunc(o.queue, func(r *simRequest) bool { return r.span.First <= g && g < r.span.End() })
			if owes && o == s {
				n.t.Fatalf("%v: source %d owes group %d, and is asked for it again", n.now, s.number, g)
			}
		}
		for _, o := range d.owed { // and has not stalled since it was asked
			if !o.lapsed && o.span.First <= g && g < o.span.End() && o.source != s.number {
				alive++
			}
		}
		switch src := d.sources[s.number]; {
		case d.have.Has(g):
			n.t.Fatalf("%v: group %d is held, and asked for again", n.now, g)
		case src.holds != nil && !src.holds.Has(g):
			n.t.Fatalf("%v: source %d is asked for group %d, which it lacks", n.now, s.number, g)
		case alive > 1:
			n.t.Fatalf("%v: group %d is asked of a third source", n.now, g)
		case alive > 0 && unowed && d.partial == 0:
			n.t.Fatalf("%v: group %d is asked of a second source, and others are owed by nobody", n.now, g)
		}
	}
}

// answer sends what a source can in one step.
func (n *network) answer(s *simulated) {
	if len(s.queue) == 0 {
		s.credit = 0
		return
	}
	if s.kind == stalling && n.rand.IntN(400) > 0 {
		return
	}
	for s.credit += s.rate * simStep.Seconds(); s.credit >= 1 && len(s.queue) > 0; s.credit-- {
		r := s.queue[0]
		if s.kind == lying && n.rand.IntN(3) == 0 {
			n.say("%d lies about %d and is expelled", s.number, r.next)
			n.drop(s, n.d.Expel)
			return
		}
		if n.rand.IntN(200) == 0 {
			n.say("%d loses %d+%d", s.number, r.next, r.span.End()-r.next)
			n.settle(s, r)
			continue
		}
		held := n.d.have.Has(r.next)
		if fresh := n.d.Arrived(s.number, r.next, n.now); fresh == held {
			n.t.Fatalf("%v: group %d was held: %t, and is fresh: %t", n.now, r.next, held, fresh)
		}
		if r.next++; r.next == r.span.End() {
			n.say("%d has brought %d+%d", s.number, r.span.First, r.span.Count)
			n.settle(s, r)
		}
	}
}

func (n *network) settle(s *simulated, r *simRequest) {
	s.queue = slices.DeleteFunc(s.queue, func(q *simRequest) bool { return q == r })
	n.d.Settled(s.number, r.span)
}

func (n *network) cancel(r Request) {
	s := n.all[r.Source]
	for _, q := range slices.Clone(s.queue) {
		if q.span == r.Span {
			n.say("%d need not bring %d+%d", s.number, r.Span.First, r.Span.Count)
			n.settle(s, q)
		}
	}
}

func (n *network) drop(s *simulated, out func(Source)) {
	for len(s.queue) > 0 {
		n.settle(s, s.queue[0])
	}
	out(s.number)
	s.here, s.gone = false, true
	if s.kind == lying { // it tries again
		n.d.Join(s.number, uint64(s.number))
		if span, ok := n.d.Next(s.number, n.now); ok && n.d.expels[s.number] {
			n.t.Fatalf("%v: the liar %d is asked for %v", n.now, s.number, span)
		}
		n.d.Leave(s.number)
	}
}

func TestAnyNetworkBringsEverythingInTime(t *testing.T) {
	for seed := range uint64(400) {
		n := newNetwork(t, seed)
		n.run()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestTranscript(t *testing.T) {
	const path, seed = "testdata/transcript.txt", 10
	n := newNetwork(t, seed)
	n.run()
	got := n.log.String()
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

func BenchmarkNext(b *testing.B) {
	const groups = 4096 // 1 GiB
	for b.Loop() {
		d := New(NewBitfield(groups), Config{})
		for s := range Source(8) {
			d.Join(s, uint64(s))
		}
		now := time.Duration(0)
		for s := Source(0); !d.Done(); s = (s + 1) % 8 {
			span, ok := d.Next(s, now)
			if !ok {
				b.Fatal("nothing to ask")
			}
			for i := span.First; i < span.End(); i++ {
				now += 100 * time.Microsecond
				d.Arrived(s, i, now)
			}
			d.Settled(s, span)
		}
	}
}
