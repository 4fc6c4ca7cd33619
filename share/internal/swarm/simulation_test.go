package swarm

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/p2pshare/p2pshare/share/content"
)

// state shows each group: a digit is how many sources owe it, # that it is held.
func state(d *Download) string {
	var b strings.Builder
	for i := range d.have.Len() {
		switch {
		case d.have.Has(i):
			b.WriteByte('#')
		default:
			b.WriteByte('0' + d.asked[i])
		}
	}
	if d.Done() {
		b.WriteString(" done")
	}
	return b.String()
}

func TestNothingIsAskedOfADownloadThatIsDone(t *testing.T) {
	have := NewBitfield(70)
	for i := range have.Len() {
		have.Set(i)
	}
	d := New(have, Config{})
	d.Join(0)
	if span, ok := d.Next(0); ok || !d.Done() || d.Missing() != 0 {
		t.Errorf("Next = %v, %t of a download that is done: %t", span, ok, d.Done())
	}
}

func TestOnlyWhatIsMissingIsAsked(t *testing.T) {
	have := NewBitfield(200)
	missing := map[int64]bool{0: true, 63: true, 64: true, 127: true, 199: true}
	for i := range have.Len() {
		if !missing[i] {
			have.Set(i)
		}
	}
	d := New(have, Config{})
	d.Join(0)
	for {
		span, ok := d.Next(0)
		if !ok {
			break
		}
		for i := span.First; i < span.End(); i++ {
			if !missing[i] {
				t.Errorf("asked for group %d, which is held or was asked before", i)
			}
			delete(missing, i)
		}
	}
	if len(missing) > 0 {
		t.Errorf("never asked for %v", missing)
	}
}

func TestSettlingWhatWasNotAskedChangesNothing(t *testing.T) {
	d := New(NewBitfield(8), Config{})
	d.Join(0)
	span, _ := d.Next(0)
	before := state(d)
	d.Settled(1, span)
	d.Settled(0, content.Span{First: 5, Count: 1})
	if after := state(d); after != before {
		t.Errorf("state is %s, want %s", after, before)
	}
	d.Settled(0, span)
	d.Settled(0, span)
	if after := state(d); after != "00000000" {
		t.Errorf("state is %s after the request was settled, want nothing asked", after)
	}
}

// world is a seeded simulation: sources that answer fast, slowly, wrongly or
// not at all, that come and go, over a network that loses requests. It checks
// the invariants of the package after every step.
type world struct {
	t        *testing.T
	rand     *rand.Rand
	download *Download
	window   int64
	here     map[Source]kind
	owed     []owed
	next     Source
	steps    int
}

// kind is what a source does with a request.
type kind int

const (
	honest kind = iota
	slow        // answers in the end
	liar        // sends what does not verify, and is thrown out
	lazy        // answers only the first groups of a request
	kinds
)

func (w *world) step() {
	w.steps++
	switch n := w.rand.IntN(10); {
	case n == 0 && len(w.here) < 8 || len(w.here) == 0:
		w.here[w.next] = kind(w.rand.IntN(int(kinds)))
		w.download.Join(w.next)
		w.next++
	case n == 1 && len(w.here) > 1:
		w.leave(w.any())
	case n < 6:
		w.ask(w.any())
	case len(w.owed) > 0:
		w.answer(w.rand.IntN(len(w.owed)))
	}
	w.check()
}

// any returns a source that takes part, the same for the same seed.
func (w *world) any() Source {
	for {
		if s := Source(w.rand.IntN(int(w.next))); w.has(s) {
			return s
		}
	}
}

func (w *world) has(s Source) bool { _, ok := w.here[s]; return ok }

// owers is how many requests for group i are unanswered.
func (w *world) owers(i int64) (n int) {
	for _, o := range w.owed {
		if o.span.First <= i && i < o.span.End() {
			n++
		}
	}
	return n
}

func (w *world) ask(s Source) {
	d := w.download
	low := d.have.NextClear(0)
	end := d.have.Len()
	if w.window > 0 {
		end = min(end, low+w.window)
	}
	unasked := int64(0)
	for i := low; i < end; i++ {
		if !d.have.Has(i) && w.owers(i) == 0 {
			unasked++
		}
	}
	span, ok := d.Next(s)
	if !ok {
		if unasked > 0 {
			w.t.Fatalf("step %d: nothing for source %d, while %d groups are owed by nobody: %s", w.steps, s, unasked, state(d))
		}
		return
	}
	if span.Count < 1 || span.Count > d.config.SpanMax || span.First < low || span.End() > end {
		w.t.Fatalf("step %d: span %v is too long, or outside %d…%d", w.steps, span, low, end)
	}
	for i := span.First; i < span.End(); i++ {
		switch n := w.owers(i); {
		case d.have.Has(i):
			w.t.Fatalf("step %d: group %d is held, and asked for again", w.steps, i)
		case n >= owersMax:
			w.t.Fatalf("step %d: group %d is asked of %d sources", w.steps, i, n+1)
		case n > 0 && unasked > 0:
			w.t.Fatalf("step %d: group %d is asked of several, while %d are owed by nobody", w.steps, i, unasked)
		}
		for _, o := range w.owed {
			if o.source == s && o.span.First <= i && i < o.span.End() {
				w.t.Fatalf("step %d: source %d owes group %d, and is asked for it again", w.steps, s, i)
			}
		}
	}
	w.owed = append(w.owed, owed{s, span})
}

// answer ends request number i as its source does.
func (w *world) answer(i int) {
	o := w.owed[i]
	arrived := o.span.Count
	switch w.here[o.source] {
	case slow:
		if w.rand.IntN(20) > 0 {
			return
		}
	case liar:
		if w.rand.IntN(4) == 0 {
			w.leave(o.source)
			return
		}
	case lazy:
		arrived = w.rand.Int64N(o.span.Count + 1)
	}
	if w.rand.IntN(10) == 0 {
		arrived = 0 // lost
	}
	for g := o.span.First; g < o.span.First+arrived; g++ {
		held := w.download.have.Has(g)
		if fresh := w.download.Arrived(g); fresh == held {
			w.t.Fatalf("step %d: group %d was held: %t, and is fresh: %t", w.steps, g, held, fresh)
		}
	}
	w.settle(i)
}

func (w *world) settle(i int) {
	o := w.owed[i]
	w.owed = append(w.owed[:i], w.owed[i+1:]...)
	w.download.Settled(o.source, o.span)
}

func (w *world) leave(s Source) {
	for i := len(w.owed) - 1; i >= 0; i-- {
		if w.owed[i].source == s {
			w.settle(i)
		}
	}
	w.download.Leave(s)
	delete(w.here, s)
}

// check compares the download's books with ours.
func (w *world) check() {
	d := w.download
	held := int64(0)
	for i := range d.have.Len() {
		if n := w.owers(i); int(d.asked[i]) != n {
			w.t.Fatalf("step %d: group %d is owed %d times, and by the books %d times", w.steps, i, n, d.asked[i])
		}
		if d.have.Has(i) {
			held++
		}
	}
	if d.have.Count() != held || d.Missing() != d.have.Len()-held || d.Done() != (held == d.have.Len()) {
		w.t.Fatalf("step %d: %d of %d groups are held, and by the books %d", w.steps, held, d.have.Len(), d.have.Count())
	}
}

func TestSimulation(t *testing.T) {
	const stepsMax = 20_000
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		groups := 1 + r.Int64N(150)
		config := Config{SpanMax: r.Int64N(20), Window: r.Int64N(2) * (1 + r.Int64N(30))}
		have := NewBitfield(groups)
		for range r.IntN(int(groups)) {
			have.Set(r.Int64N(groups))
		}
		w := &world{t: t, rand: r, download: New(have, config), window: config.Window, here: map[Source]kind{}}
		for !w.download.Done() && w.steps < stepsMax && !t.Failed() {
			w.step()
		}
		if !w.download.Done() {
			t.Errorf("not done after %d steps: %s", w.steps, state(w.download))
		}
		if t.Failed() {
			t.Fatalf("seed %d: %d groups, %+v", seed, groups, config)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	const groups = 4096 // 1 GiB
	for b.Loop() {
		d := New(NewBitfield(groups), Config{})
		for s := range Source(8) {
			d.Join(s)
		}
		for s := Source(0); !d.Done(); s = (s + 1) % 8 {
			span, ok := d.Next(s)
			if !ok {
				b.Fatal("nothing to ask")
			}
			for i := span.First; i < span.End(); i++ {
				d.Arrived(i)
			}
			d.Settled(s, span)
		}
	}
}
