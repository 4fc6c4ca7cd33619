package swarm

import (
	"slices"

	"github.com/p2pshare/p2pshare/share/content"
)

// spansPerFocus is into how many requests the run that is asked for is cut at
// least, so that several sources bring it and the first groups come soon.
const spansPerFocus = 4

// Focus says which groups are wanted of an OnDemand download, those of the first
// span first. It replaces what was said before, and keeps the slice. What is asked
// for and not wanted any more is Pointless. Spans may overlap, and may be partly
// outside the content.
func (d *Download) Focus(spans []content.Span) { d.focus = spans }

// Lost notes that a group is not held any more.
func (d *Download) Lost(group int64) {
	d.have.Clear(group)
	d.low = min(d.low, group)
}

// pickFocused returns a run of at most room groups that are wanted and that nobody
// owes, for s: the first there is.
func (d *Download) pickFocused(s Source, src *source, room int64) (content.Span, bool) {
	for _, f := range d.focus {
		end := min(f.End(), d.have.Len())
		first := d.wanted(src, max(0, f.First), end, s)
		if first >= end {
			continue
		}
		room = min(room, max(1, f.Count/spansPerFocus))
		span := content.Span{First: first, Count: 1}
		for span.Count < room && span.End() < end && d.wanted(src, span.End(), end, s) == span.End() {
			span.Count++
		}
		return span, true
	}
	return content.Span{}, false
}

// focused reports whether a group of span is wanted.
func (d *Download) focused(span content.Span) bool {
	return slices.ContainsFunc(d.focus, func(f content.Span) bool {
		return f.First < span.End() && span.First < f.End()
	})
}

// usefulNow reports whether src holds a group that is wanted and missing, or, while
// nothing is, that it takes part.
func (d *Download) usefulNow(src *source) bool {
	missing := false
	for _, f := range d.focus {
		from, end := max(0, f.First), min(f.End(), d.have.Len())
		if nextOf(from, end, src.holds, d.have) < end {
			return true
		}
		missing = missing || nextOf(from, end, nil, d.have) < end
	}
	return !missing
}
