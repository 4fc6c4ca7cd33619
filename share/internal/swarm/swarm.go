// Package swarm decides whom to ask for what. It is pure: it has no goroutine,
// clock or socket, takes events and returns decisions, and is not safe for
// concurrent use.
//
// A Download goes through these states for each chunk group:
//
//	missing → asked of one source → asked of several (at the end) → held
//	   ↑_____________ not delivered ______________|
//
// Invariants: a group that is held is never asked for again; a group is asked
// of more than one source only when none is left that nobody owes, and of four
// at most; one source is never asked twice for what it still owes.
package swarm

import (
	"slices"

	"github.com/p2pshare/p2pshare/share/content"
)

// Source stands for one peer; the caller numbers them.
type Source int

// Config bounds a Download's requests. The zero value works.
type Config struct {
	// SpanMax is the longest span asked at once, in groups. 0: 16, which is
	// 4 MiB: long enough that requests cost nothing, short enough that a slow
	// source does not hold much.
	SpanMax int64

	// Window, if not 0, keeps requests within this many groups of the first one
	// that is missing: for output that must be in order.
	Window int64
}

// Download is one content on its way here.
type Download struct {
	config  Config
	have    *Bitfield
	asked   []uint8 // how many sources owe each group
	owed    []owed
	sources map[Source]bool
	low     int64 // every group below it is held
}

type owed struct {
	source Source
	span   content.Span
}

// New starts a download of which have is held already; New keeps have.
func New(have *Bitfield, config Config) *Download {
	if config.SpanMax == 0 {
		config.SpanMax = 16
	}
	return &Download{
		config: config, have: have,
		asked:   make([]uint8, have.Len()),
		sources: map[Source]bool{},
	}
}

// Done reports whether every group is held.
func (d *Download) Done() bool { return d.have.Count() == d.have.Len() }

// Missing is how many groups are not held.
func (d *Download) Missing() int64 { return d.have.Len() - d.have.Count() }

// Join and Leave tell which sources take part. What a source that leaves still
// owes goes back with Settled, as for any request.
func (d *Download) Join(s Source)  { d.sources[s] = true }
func (d *Download) Leave(s Source) { delete(d.sources, s) }

// Next returns a span to ask of s, and false when there is nothing for s now:
// all is held, owed by enough sources, or beyond the window. Each span must be
// settled.
func (d *Download) Next(s Source) (content.Span, bool) {
	span, ok := d.unasked()
	if !ok {
		span, ok = d.again(s)
	}
	if !ok {
		return span, false
	}
	for i := span.First; i < span.End(); i++ {
		d.asked[i]++
	}
	d.owed = append(d.owed, owed{s, span})
	return span, true
}

// spanLength shares what is missing among the sources, so that small contents
// come from several, too.
func (d *Download) spanLength() int64 {
	share := d.Missing() / int64(4*max(1, len(d.sources)))
	return max(1, min(d.config.SpanMax, share))
}

// end is the first group that must not be asked for yet.
func (d *Download) end() int64 {
	d.low = d.have.NextClear(d.low)
	if d.config.Window == 0 {
		return d.have.Len()
	}
	return min(d.have.Len(), d.low+d.config.Window)
}

// unasked returns the first run of groups that nobody owes.
func (d *Download) unasked() (content.Span, bool) {
	end := d.end()
	for i := d.low; i < end; i = d.have.NextClear(i + 1) {
		if d.asked[i] > 0 {
			continue
		}
		span := content.Span{First: i}
		for limit := min(end, i+d.spanLength()); i < limit && d.asked[i] == 0 && !d.have.Has(i); i++ {
			span.Count++
		}
		return span, true
	}
	return content.Span{}, false
}

// owersMax is how many sources may owe one group: at the end two slow ones must
// not keep a fast one idle, and what comes more than once is wasted.
const owersMax = 4

// again returns a run that others owe, and as few as possible: at the end a
// slow source must not make all wait.
func (d *Download) again(s Source) (content.Span, bool) {
	for owers := uint8(1); owers < owersMax; owers++ {
		for _, o := range d.owed {
			if span, ok := d.shared(s, o.span, owers); ok {
				return span, true
			}
		}
	}
	return content.Span{}, false
}

// shared returns the first run within span that is missing, owed by just so
// many sources, and not by s.
func (d *Download) shared(s Source, within content.Span, owers uint8) (content.Span, bool) {
	wanted := func(i int64) bool { return !d.have.Has(i) && d.asked[i] == owers && !d.owes(s, i) }
	for i := within.First; i < within.End(); i++ {
		if !wanted(i) {
			continue
		}
		span := content.Span{First: i}
		for ; i < within.End() && wanted(i); i++ {
			span.Count++
		}
		return span, true
	}
	return content.Span{}, false
}

func (d *Download) owes(s Source, group int64) bool {
	return slices.ContainsFunc(d.owed, func(o owed) bool {
		return o.source == s && o.span.First <= group && group < o.span.End()
	})
}

// Arrived notes that a group has come and was verified, from whomever, and
// reports whether it is new.
func (d *Download) Arrived(group int64) (fresh bool) { return d.have.Set(group) }

// Settled ends a span that Next returned for s, whether it was delivered or
// not: what has not arrived is missing again.
func (d *Download) Settled(s Source, span content.Span) {
	i := slices.Index(d.owed, owed{s, span})
	if i < 0 {
		return
	}
	d.owed = slices.Delete(d.owed, i, i+1)
	for i := span.First; i < span.End(); i++ {
		d.asked[i]--
	}
}
