package swarm

import (
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

const (
	// firstOwed is what a source may owe before it has delivered anything, in
	// groups, and guessedRate what it is taken to deliver in a second till then.
	firstOwed   = 8
	guessOwed   = 4 // of one that will soon tell what it holds, and who else asks
	guessedRate = 4.0
	// owedTime is for how long of its work a source is asked at a time: many
	// round trips of any path. spanParts is in how many spans at least.
	owedTime  = time.Second
	spanParts = 4
	// othersPart is which part of its allowance a source that holds all may owe of
	// what partial holders have or are about to get: enough that a slow one does not
	// hold up the others, and little enough to be sent twice.
	othersPart = 8
	// surplusAfter is from when on what such a source would bring is not worth
	// waiting for, when another getter is about to have it.
	surplusAfter = time.Second
	// silenceMin is how long any source may be silent while it owes something,
	// silenceGroups how many times the time between two of its groups in
	// addition, and silenceMax the most: whoever has never delivered gets
	// silenceMin, as the first answer of a path should not take longer.
	silenceMin    = 2 * time.Second
	silenceGroups = 4
	silenceMax    = 10 * time.Second
	// blocksMin is into how many blocks a content is cut at least, for getters to
	// share.
	blocksMin = 64
	// lookMax is how many places one decision looks at.
	lookMax = 256
)

// rateOf is a source's rate in groups a second, measured or guessed.
func rateOf(src *source) float64 {
	if r := src.rate.perSecond(); r > 0 {
		return r
	}
	return guessedRate
}

// allowance is how many groups a source may owe.
func (d *Download) allowance(src *source) int64 {
	if src.guessed {
		return min(guessOwed, d.config.OwedMax)
	}
	if src.rate.perSecond() == 0 {
		return min(firstOwed, d.config.OwedMax)
	}
	n := src.rate.perSecond() * owedTime.Seconds()
	return int64(min(max(1, n), float64(d.config.OwedMax)))
}

// spanLength shares what is missing among the sources, so that small contents
// come from several, too, and gives slow ones little.
func (d *Download) spanLength(src *source) int64 {
	share := d.Missing() / int64(4*max(1, len(d.sources)))
	part := (d.allowance(src) + spanParts - 1) / spanParts
	return max(1, min(d.config.SpanMax, share, part))
}

// patience is how long a source may be silent while it owes something.
func patience(src *source) time.Duration {
	r := src.rate.perSecond()
	if r == 0 {
		return silenceMin
	}
	between := min(silenceMax.Seconds(), silenceGroups/r)
	return min(silenceMax, silenceMin+time.Duration(between*float64(time.Second)))
}

// lapse finds the sources that have stalled, and sets free what they owe.
func (d *Download) lapse(now time.Duration) {
	for _, s := range d.order {
		src := d.sources[s]
		if src.owes == 0 || src.stalls || now-src.since < patience(src) {
			continue
		}
		src.stalls = true
		for _, o := range d.owed {
			if o.source == s && !o.lapsed {
				o.lapsed = true
				d.release(o.span)
			}
		}
	}
}

// end is the first group that must not be asked for yet.
func (d *Download) end() int64 {
	d.low = d.have.NextClear(d.low)
	if d.config.Window == 0 {
		return d.have.Len()
	}
	return min(d.have.Len(), d.low+d.config.Window)
}

// pick returns a run of at most room groups that nobody owes, for s.
func (d *Download) pick(s Source, src *source, room int64) (content.Span, bool) {
	if d.config.OnDemand {
		return d.pickFocused(s, src, room)
	}
	end := d.end()
	if d.low == end {
		return content.Span{}, false
	}
	var first int64
	switch {
	case d.config.Window > 0:
		first = d.wanted(src, d.low, end, s)
	case d.partial == 0:
		if first = d.wanted(src, d.cursor, end, s); first == end {
			first = d.wanted(src, d.low, end, s)
		}
	default:
		first = d.rarest(s, src, end)
	}
	if first >= end {
		return content.Span{}, false
	}
	if src.holds == nil && d.partial > 0 && (d.rare[first] > 0 || !d.own(first)) {
		room = min(room, max(1, d.allowance(src)/othersPart)-src.owes)
	}
	if room < 1 {
		return content.Span{}, false
	}
	span := d.extend(s, src, first, end, room)
	d.cursor = span.End()
	return span, true
}

// wanted returns the first group from i on, below end, that can be asked of s.
func (d *Download) wanted(src *source, i, end int64, s Source) int64 {
	for {
		if i = nextOf(i, end, src.holds, d.have, d.asked); i >= end || !d.owes(s, i) {
			return i
		}
		i++
	}
}

// rarest returns a group that can be asked of s and that few others hold. It
// goes on with the block that the last span has begun, where that is no worse;
// else it looks at places in order from a start by chance, and takes the first
// of the best.
func (d *Download) rarest(s Source, src *source, end int64) int64 {
	best, least := end, 2*256
	perfect := 0
	if src.holds != nil {
		perfect = 2 // it is one of those that hold it
	}
	consider := func(i int64) bool {
		bad := 2 * int(d.rare[i])
		if src.holds == nil && !d.own(i) {
			bad++
		}
		if bad < least && !d.leave(src, i) {
			best, least = i, bad
		}
		return least <= perfect
	}
	block := d.block()
	if src.at >= 0 && src.at < end && src.at%block != 0 {
		if i := d.wanted(src, src.at, min(end, src.at/block*block+block), s); i < min(end, src.at/block*block+block) && consider(i) {
			return best
		}
	}
	start := d.low + d.chance.Int64N(end-d.low)
	looks := 0
	for _, part := range [][2]int64{{start, end}, {d.low, start}} {
		for i := part[0]; looks < lookMax || best == end; looks++ {
			if i = d.wanted(src, i, part[1], s); i >= part[1] {
				break
			}
			if consider(i) {
				return best
			}
			i = (i/block + 1) * block
			if i >= part[1] {
				break
			}
		}
	}
	return best
}

// block is the length of the aligned runs in which groups are asked for and
// shared among getters: a longest span, and less where that would be a large
// part of the content.
func (d *Download) block() int64 {
	if d.partial == 0 {
		return d.config.SpanMax
	}
	return max(1, min(d.config.SpanMax, d.have.Len()/blocksMin))
}

// own reports whether the block of group i is this getter's share: that of the
// getters whose tag, hashed with the block's number, is highest. So all who know
// of each other agree, and who knows fewer differs little.
//
// Source: Thaler and Ravishankar 1998, rendezvous hashing.
func (d *Download) own(i int64) bool {
	block := uint64(i / d.block())
	mine := mix(d.config.Self, block)
	for _, s := range d.order {
		if p := d.sources[s]; p.holds != nil && mix(p.tag, block) > mine {
			return false
		}
	}
	return true
}

// mix hashes two numbers. Source: Steele et al. 2014, SplitMix64's finalizer.
func mix(a, b uint64) uint64 {
	x := a + (b+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// leave reports whether group i should be left to partial holders: src has
// everything, and one of them can take a request for it now.
func (d *Download) leave(src *source, i int64) bool {
	if src.holds != nil || d.rare[i] == 0 {
		return false
	}
	for _, s := range d.order {
		p := d.sources[s]
		if p.holds != nil && p.holds.Has(i) && !p.stalls && p.owes < d.allowance(p) && !d.owes(s, i) {
			return true
		}
	}
	return false
}

// extend makes a span of up to room groups around first: back to the beginning
// of its block, and on to the end of it, as far as all are as good as first.
func (d *Download) extend(s Source, src *source, first, end, room int64) content.Span {
	same := func(i int64) bool {
		return !d.have.Has(i) && !d.asked.Has(i) && (src.holds == nil || src.holds.Has(i)) &&
			d.rare[i] == d.rare[first] && !d.owes(s, i)
	}
	block := first / d.block() * d.block()
	limit := min(end, block+d.block())
	from := first
	for from > max(block, d.low) && same(from-1) {
		from--
	}
	span := content.Span{First: from}
	for i := from; i < limit && span.Count < room && same(i); i++ {
		span.Count++
	}
	return span
}

// owes reports whether s owes a group, lapsed or not.
func (d *Download) owes(s Source, group int64) bool {
	for _, o := range d.owed {
		if o.source == s && o.span.First <= group && group < o.span.End() {
			return true
		}
	}
	return false
}

// gainMin is what asking for a group twice must save: below it, it only costs.
const gainMin = 50 * time.Millisecond

// again returns a run that slower sources owe and that s would bring much
// sooner: at the end a slow source must not make all wait.
func (d *Download) again(s Source, src *source, room int64, now time.Duration) (content.Span, bool) {
	var best content.Span
	latest := 0.0
	end := d.end()
	for _, o := range d.owed {
		if o.source == s || d.config.OnDemand && !d.focused(o.span) {
			continue
		}
		due := d.due(o, now)
		if due <= latest {
			continue
		}
		if span, ok := d.tail(s, src, o.span, min(room, d.worth(src, due)), end); ok {
			best, latest = span, due
		}
	}
	return best, latest > 0
}

// due is in how many seconds the source of o will have delivered it.
func (d *Download) due(o *owed, now time.Duration) float64 {
	src := d.sources[o.source]
	if src == nil || src.stalls {
		return silenceMax.Seconds()
	}
	left := 0.0
	for _, p := range d.owed {
		if p.source == o.source {
			left += float64(p.span.Count - d.heldOf(p.span))
		}
		if p == o {
			break
		}
	}
	r := rateOf(src)
	if silent := (now - src.since).Seconds(); silent*r > 1 {
		r = 1 / silent // it has slowed down, and the measured rate is not told yet
	}
	return left / r
}

func (d *Download) heldOf(span content.Span) (n int64) {
	for i := span.First; i < span.End(); i++ {
		if d.have.Has(i) {
			n++
		}
	}
	return n
}

// worth is how many groups s would bring in half of due seconds; 0 when that
// does not save gainMin.
func (d *Download) worth(src *source, due float64) int64 {
	if due/2 < gainMin.Seconds() {
		return 0
	}
	return int64(due/2*rateOf(src)) - src.owes
}

// tail returns the last run within span, of n groups at most, that is missing,
// held by s, and that s may owe, too.
func (d *Download) tail(s Source, src *source, span content.Span, n, end int64) (content.Span, bool) {
	var run content.Span
	for i := min(span.End(), end) - 1; i >= span.First && run.Count < n; i-- {
		ok := !d.have.Has(i) && (src.holds == nil || src.holds.Has(i)) && d.mayOwe(s, i)
		if !ok && run.Count > 0 {
			break
		}
		if ok {
			run = content.Span{First: i, Count: run.Count + 1}
		}
	}
	return run, run.Count > 0
}

// mayOwe reports whether s may be asked for a group that others owe: it owes it
// not itself, and no more than one who does is alive.
func (d *Download) mayOwe(s Source, group int64) bool {
	alive := 0
	for _, o := range d.owed {
		if o.span.First > group || group >= o.span.End() {
			continue
		}
		if o.source == s {
			return false
		}
		if !o.lapsed {
			alive++
		}
	}
	return alive < 2
}
