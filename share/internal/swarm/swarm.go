// Package swarm decides whom to ask for what. It is pure: it has no goroutine,
// clock or socket, takes events and returns decisions, and is not safe for
// concurrent use. Time comes in with the events, as the time since any fixed
// moment; it never goes back.
//
// A Download goes through these states for each chunk group:
//
//	missing → asked of one source → asked of several → held
//	   ↑________ not delivered, or stalled ____|
//
// Who is asked for what (pick.go):
//
//   - Of a source that holds all, what no partial holder can bring soon: the
//     rarest groups first, so that whoever has the whole content sends little of
//     it twice. Of a partial holder, the rarest of what it holds.
//   - Of those, what is this getter's own share of the blocks first, and of the
//     shares of other getters little at a time: they are about to bring it.
//   - Equally rare ones by chance, so that a crowd that starts at once asks for
//     different ones; in order, from a start by chance, where nobody holds a part
//     only; from the first missing one on with a Window.
//   - Of each source no more than it delivers in about a second, by its measured
//     rate, and in spans of a quarter of that.
//   - What a source owes that has fallen silent for much longer than its rate
//     explains, of others as if it had never been asked.
//   - When nothing else is left, what slower sources owe (again, in pick.go).
//
// Invariants: a group that is held is never asked for again; a group is asked
// of a second source only when all who owe it have stalled, or when none is left
// that nobody owes, and never of more than two that have not stalled; no source is
// asked for what it still owes; nothing is asked of a source that was expelled.
package swarm

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// Source stands for one peer; the caller numbers them, and gives no number to
// two of them.
type Source int

// Config bounds a Download's requests. The zero value works.
type Config struct {
	// SpanMax is the longest span asked at once, in groups. 0: 16, which is
	// 4 MiB: long enough that requests cost nothing, short enough that a slow
	// source does not hold much.
	SpanMax int64

	// OwedMax is how many groups one source may owe. 0: 128, which is 32 MiB and
	// fills a path of 2 Gb/s at 130 ms.
	OwedMax int64

	// Window, if not 0, keeps requests within this many groups of the first one
	// that is missing, and asks in order: for output that must be in order.
	Window int64

	// OnDemand keeps requests to what Focus says is wanted, in its order.
	OnDemand bool

	// Seed decides what is left to chance. Getters of one content should have
	// different ones.
	Seed uint64

	// Self is this getter's tag, by which blocks are shared among the getters of
	// a content; see JoinPartial.
	Self uint64
}

// Download is one content on its way here.
type Download struct {
	config  Config
	have    *Bitfield
	asked   *Bitfield // groups that a source owes that has not stalled
	rare    []uint8   // how many partial holders hold each group, 255 meaning at least so many
	partial int       // how many sources are partial holders
	owed    []*owed   // oldest first
	sources map[Source]*source
	order   []Source // the keys of sources, ascending: decisions must not hang on a map's order
	expels  map[Source]bool
	cursor  int64 // where requests go on, while they are in order
	low     int64 // every group below it is held
	focus   []content.Span
	chance  *rand.Rand
}

// source is what is known of one that takes part.
type source struct {
	tag     uint64
	guessed bool          // to hold everything: it will tell
	holds   *Bitfield     // nil: everything
	owes    int64         // groups asked of it and not settled, here or not
	rate    rate          // as measured
	since   time.Duration // when it delivered last, or began to owe
	stalls  bool          // owes, and has been silent for too long
	at      int64         // where its next span may go on from the last
}

type owed struct {
	source Source
	span   content.Span
	lapsed bool // its source has stalled: others may be asked
	told   bool // Pointless has returned it
}

// New starts a download of which have is held already; New keeps have.
func New(have *Bitfield, config Config) *Download {
	if config.SpanMax == 0 {
		config.SpanMax = 16
	}
	if config.OwedMax == 0 {
		config.OwedMax = 128
	}
	d := &Download{
		config: config, have: have,
		asked:   NewBitfield(have.Len()),
		rare:    make([]uint8, have.Len()),
		sources: map[Source]*source{},
		expels:  map[Source]bool{},
		chance:  rand.New(rand.NewPCG(config.Seed, 0)),
	}
	if config.Window == 0 {
		blocks := (have.Len() + config.SpanMax - 1) / config.SpanMax
		d.cursor = d.chance.Int64N(blocks) * config.SpanMax
	}
	return d
}

// Done reports whether every group is held.
func (d *Download) Done() bool { return d.have.Count() == d.have.Len() }

// Missing is how many groups are not held.
func (d *Download) Missing() int64 { return d.have.Len() - d.have.Count() }

// Join lets a source take part that holds everything, and JoinPartial one of
// which nothing is known yet. One that takes part already, or was expelled, is
// left as it is. tag is any number that stands for the source at all getters:
// while it holds a part only, it is a getter, too, and has its share of the blocks.
func (d *Download) Join(s Source, tag uint64) { d.join(s, tag, nil) }

// JoinPartial is described at Join.
func (d *Download) JoinPartial(s Source, tag uint64) { d.join(s, tag, NewBitfield(d.have.Len())) }

func (d *Download) join(s Source, tag uint64, holds *Bitfield) {
	if d.sources[s] != nil || d.expels[s] {
		return
	}
	d.sources[s] = &source{tag: tag, holds: holds, at: -1}
	i, _ := slices.BinarySearch(d.order, s)
	d.order = slices.Insert(d.order, i, s)
	if holds != nil {
		d.partial++
	}
}

// JoinGuessed is Join for a source that is believed to hold everything, and of
// which Holds, HoldsAll or Lacks will soon tell: it is asked for little till then.
func (d *Download) JoinGuessed(s Source, tag uint64) {
	d.join(s, tag, nil)
	if src := d.sources[s]; src != nil {
		src.guessed = true
	}
}

// Leave takes a source out, which may join again. What it still owes goes back
// with Settled, as for any request.
func (d *Download) Leave(s Source) {
	src := d.sources[s]
	if src == nil {
		return
	}
	d.HoldsAll(s) // takes it out of the count of partial holders
	delete(d.sources, s)
	d.order = slices.DeleteFunc(d.order, func(o Source) bool { return o == s })
}

// Expel takes a source out for good: it has sent what does not verify.
func (d *Download) Expel(s Source) {
	d.Leave(s)
	d.expels[s] = true
}

// Holds notes that a partial holder has these groups, as far as they exist.
func (d *Download) Holds(s Source, span content.Span) {
	src := d.sources[s]
	if src == nil || src.holds == nil {
		return
	}
	for i := max(0, span.First); i < min(span.End(), d.have.Len()); i++ {
		if src.holds.Set(i) {
			d.rare[i] = min(d.rare[i], 254) + 1
		}
	}
}

// HoldsAll notes that a source has everything now.
func (d *Download) HoldsAll(s Source) {
	src := d.sources[s]
	if src == nil {
		return
	}
	src.guessed = false
	if src.holds == nil {
		return
	}
	for i := src.holds.NextSet(0); i < src.holds.Len(); i = src.holds.NextSet(i + 1) {
		d.rare[i]--
	}
	src.holds = nil
	d.partial--
}

// Lacks notes that a source does not hold these groups, whatever was believed.
func (d *Download) Lacks(s Source, span content.Span) {
	src := d.sources[s]
	if src == nil {
		return
	}
	src.guessed = false
	if src.holds == nil {
		src.holds = NewBitfield(d.have.Len())
		d.partial++
		d.Holds(s, content.Span{Count: d.have.Len()})
	}
	for i := max(0, span.First); i < min(span.End(), d.have.Len()); i++ {
		if src.holds.Clear(i) {
			d.rare[i]--
		}
	}
}

// Held is how many groups s has, as far as is known.
func (d *Download) Held(s Source) int64 {
	src := d.sources[s]
	switch {
	case src == nil:
		return 0
	case src.holds == nil:
		return d.have.Len()
	}
	return src.holds.Count()
}

// Useful reports whether s holds anything that is missing, and wanted.
func (d *Download) Useful(s Source) bool {
	src := d.sources[s]
	if src != nil && d.config.OnDemand {
		return d.usefulNow(src)
	}
	return src != nil && nextOf(0, d.have.Len(), src.holds, d.have) < d.have.Len()
}

// Next returns a span to ask of s, and false when there is nothing for s now:
// it owes enough, or holds nothing that is missing, not owed by others, and
// within the window. That changes with every event, and with time: ask again.
// Each span must be settled.
func (d *Download) Next(s Source, now time.Duration) (content.Span, bool) {
	d.lapse(now)
	src := d.sources[s]
	if src == nil || src.stalls {
		return content.Span{}, false
	}
	room := min(d.spanLength(src), d.allowance(src)-src.owes)
	if room < 1 {
		return content.Span{}, false
	}
	span, ok := d.pick(s, src, room)
	if !ok {
		span, ok = d.again(s, src, room, now)
	}
	if !ok {
		return span, false
	}
	if src.owes == 0 {
		src.since = now
	}
	src.owes += span.Count
	src.at = span.End()
	for i := span.First; i < span.End(); i++ {
		d.asked.Set(i)
	}
	d.owed = append(d.owed, &owed{source: s, span: span})
	return span, true
}

// Arrived notes that a group has come from s and was verified, and reports
// whether it is new.
func (d *Download) Arrived(s Source, group int64, now time.Duration) (fresh bool) {
	if src := d.sources[s]; src != nil {
		src.rate.add(1, now-src.since)
		src.since, src.stalls = now, false
	}
	return d.have.Set(group)
}

// Settled ends a span that Next returned for s, whether it was delivered or
// not: what has not arrived is missing again.
func (d *Download) Settled(s Source, span content.Span) {
	i := slices.IndexFunc(d.owed, func(o *owed) bool { return o.source == s && o.span == span })
	if i < 0 {
		return
	}
	o := d.owed[i]
	d.owed = slices.Delete(d.owed, i, i+1)
	if src := d.sources[s]; src != nil {
		src.owes -= span.Count
		if src.owes <= 0 {
			src.owes, src.stalls = 0, false
		}
	}
	if !o.lapsed {
		d.release(span)
	}
}

// release marks the groups of a span as not asked for, but those that another
// source owes.
func (d *Download) release(span content.Span) {
	for i := span.First; i < span.End(); i++ {
		d.asked.Clear(i)
	}
	for _, o := range d.owed {
		for i := max(o.span.First, span.First); !o.lapsed && i < min(o.span.End(), span.End()); i++ {
			d.asked.Set(i)
		}
	}
}

// Request is a span that a source owes.
type Request struct {
	Source Source
	Span   content.Span
}

// Pointless returns the requests that need no answer any more, each once: cancel
// and settle them. Everything in them has come meanwhile from others; or they were
// made of a source that holds all, before it was known that another getter is
// about to bring the block, and would be answered late; or, OnDemand, nothing in
// them is wanted any more.
func (d *Download) Pointless(now time.Duration) (requests []Request) {
	for _, o := range d.owed {
		if o.told || nextOf(o.span.First, o.span.End(), nil, d.have) < o.span.End() && !d.surplus(o, now) &&
			(!d.config.OnDemand || d.focused(o.span)) {
			continue
		}
		o.told = true
		requests = append(requests, Request{o.source, o.span})
	}
	return requests
}

func (d *Download) surplus(o *owed, now time.Duration) bool {
	src := d.sources[o.source]
	return d.partial > 0 && d.config.Window == 0 && !d.config.OnDemand && src != nil && src.holds == nil && src.owes > 1 &&
		!d.own(o.span.First) && d.due(o, now) > surplusAfter.Seconds() && d.heldOf(o.span) == 0
}
