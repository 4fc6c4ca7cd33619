// Package swarm decides whom to ask for what. It is pure: it has no goroutine,
// clock or socket, takes events and returns decisions, and is not safe for
// concurrent use.
//
// A Download goes through these states for each chunk group:
//
//	missing → asked of one source → asked of two (at the end) → held
//	   ↑___________ not delivered ____________|
//
// Invariants: a group that is held is never asked for again; a group is asked
// of at most two sources at a time, and of two only when no group is left that
// is asked of none; one source is never asked twice for what it still owes.
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
	asked   []uint8 // how many sources owe each group: 0, 1 or 2
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

// again returns a run that one other source owes: at the end a slow source
// must not make all wait.
func (d *Download) again(s Source) (content.Span, bool) {
	for _, o := range d.owed {
		if o.source == s {
			continue
		}
		for i := d.have.NextClear(o.span.First); i < o.span.End(); i = d.have.NextClear(i + 1) {
			if d.asked[i] != 1 || d.owes(s, i) {
				continue
			}
			span := content.Span{First: i}
			for ; i < o.span.End() && d.asked[i] == 1 && !d.have.Has(i) && !d.owes(s, i); i++ {
				span.Count++
			}
			return span, true
		}
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
