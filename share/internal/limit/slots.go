package limit

import (
	"slices"
	"time"
)

// Slots are for a rate that is too low for all who ask. A flow that was given a
// place (Admit) waits in line for a slot, and only those in slots share the rate.
// A slot is held for a slice, and goes to the first in line; its flow goes to the
// end. So a wait is at most one slice. Who finds no place is turned away and comes
// again; places are given in the order in which flows were turned away first, and
// when some are away a flow loses its place after a few slices. What a newcomer
// asks for first, and small answers, wait for no slot; they have their fair part of
// the rate like a flow in a slot.
const (
	// slotRate is the least that a flow in a slot gets, in bytes a second, and
	// placeRate on average with its waits: a getter whose three connections are
	// each owed a chunk group has all of them within 16 s.
	slotRate  = 96 << 10
	placeRate = slotRate / 2
	slotsMax  = 32

	slice      = 4 * time.Second
	tenure     = 4 // slices until a flow makes room for one that is away
	idleMax    = 2 * time.Second
	drained    = 200 * time.Millisecond // idle so long, a flow has all that was admitted
	awayMax    = 10 * time.Second       // without a word, until one counts as gone
	forgetIdle = 10 * time.Second       // until a flow is a newcomer again

	newcomerBytes = 64 << 10
	smallBytes    = 512 // what is never turned away, and needs no place
	overhead      = 64  // bytes around what is admitted
)

type slots struct {
	held []*flow // in slots
	line []*flow // wait for one, first come first
	away []*flow // were turned away, first come first
}

// seat is where a flow is in slots.
type seat struct {
	free    int       // bytes that it may ask for as a newcomer
	credit  int       // bytes that need no slot, of what was admitted
	placed  bool      // may ask for more
	leaving bool      // has a place until it has what was admitted
	since   time.Time // it holds its slot; zero: it holds none
	slices  int       // it has had since it was placed
	idle    time.Time // it asks for nothing since; zero: it waits
	refused time.Time // it was turned away last; zero: not since it was placed
}

// NewSlotted is New for a queue with slots: a flow asks to be admitted before it
// asks for turns.
func NewSlotted(bytesPerSecond int64, now time.Time) *Queue {
	q := New(bytesPerSecond, now)
	q.slots = &slots{}
	return q
}

func (q *Queue) slotCount() int  { return min(max(int(q.rate/slotRate), 1), slotsMax) }
func (q *Queue) placeCount() int { return min(max(int(q.rate/placeRate), 1), 2*q.slotCount()) }

// Admit reports whether a flow may ask for bytes more, or has to come again after
// a few seconds. Without slots everybody may.
func (q *Queue) Admit(name string, bytes int, now time.Time) bool {
	if q.slots == nil {
		return true
	}
	q.rotate(now)
	f := q.flow(name)
	s := &f.seat
	if s.since.IsZero() && s.credit == 0 {
		f.start = max(f.start, q.clock)
	}
	switch {
	case s.placed && !s.leaving:
		if len(f.waiting) == 0 {
			s.idle = now // its answer is still to be made
		}
		return true
	case bytes <= smallBytes:
		s.credit += bytes + overhead
		return true
	case s.free >= bytes:
		s.free -= bytes
		s.credit += bytes + overhead
		return true
	case !s.leaving && q.ahead(f) < q.placeCount()-q.placed():
		q.slots.away = without(q.slots.away, f)
		*s = seat{free: s.free, credit: s.credit, placed: true, idle: s.idle}
		if len(f.waiting) == 0 {
			s.idle = now
		}
		return true
	}
	s.refused = now
	if !slices.Contains(q.slots.away, f) {
		q.slots.away = append(q.slots.away, f)
	}
	return false
}

// ahead is how many were turned away before f.
func (q *Queue) ahead(f *flow) int {
	if i := slices.Index(q.slots.away, f); i >= 0 {
		return i
	}
	return len(q.slots.away)
}

func (q *Queue) placed() (n int) {
	for _, f := range q.flows {
		if f.seat.placed {
			n++
		}
	}
	return n
}

// mayGo tells whether the first turn of f needs no slot that f has not.
func (q *Queue) mayGo(f *flow) bool {
	return q.slots == nil || !f.seat.since.IsZero() || f.seat.credit > 0
}

// rotate brings slots and line up to date.
func (q *Queue) rotate(now time.Time) {
	s := q.slots
	if s == nil {
		return
	}
	s.away = slices.DeleteFunc(s.away, func(f *flow) bool { return now.Sub(f.seat.refused) > awayMax })
	q.clear(now)
	q.queue()
	waiting := len(s.line)
	for _, f := range slices.Clone(s.held) {
		if now.Sub(f.seat.since) < slice || waiting == 0 && len(s.away) == 0 {
			continue
		}
		f.seat.slices++
		f.seat.leaving = f.seat.leaving || f.seat.slices >= tenure && q.leaving() < len(s.away)
		if waiting == 0 {
			f.seat.since = now
			continue
		}
		waiting--
		s.held = without(s.held, f)
		f.seat.since = time.Time{}
	}
	for len(s.line) > 0 && (len(s.held) < q.slotCount() || q.unused()) {
		f := s.line[0]
		s.line = s.line[1:]
		f.seat.since = now
		f.start = max(f.start, q.clock) // the wait has saved nothing up
		s.held = append(s.held, f)
	}
	q.queue()
}

// clear takes the places of flows that are idle, and forgets those that have been
// so for long.
func (q *Queue) clear(now time.Time) {
	s := q.slots
	for name, f := range q.flows {
		if len(f.waiting) > 0 {
			f.seat.idle = time.Time{}
			continue
		}
		s.line = without(s.line, f)
		if f.seat.idle.IsZero() {
			f.seat.idle = now
		}
		if idle := now.Sub(f.seat.idle); idle >= idleMax || f.seat.leaving && idle >= drained {
			s.held = without(s.held, f)
			f.seat.placed, f.seat.leaving, f.seat.since = false, false, time.Time{}
		}
		if now.Sub(f.seat.idle) >= forgetIdle && !slices.Contains(s.away, f) {
			delete(q.flows, name)
		}
	}
}

// queue puts those in line that need a slot, in the order in which they began to
// wait.
func (q *Queue) queue() {
	from := len(q.slots.line)
	for _, f := range q.flows {
		if len(f.waiting) > 0 && !q.mayGo(f) && !slices.Contains(q.slots.line, f) {
			q.slots.line = append(q.slots.line, f)
		}
	}
	slices.SortFunc(q.slots.line[from:], func(a, b *flow) int { return int(int64(a.since) - int64(b.since)) })
}

func (q *Queue) leaving() (n int) {
	for _, f := range q.flows {
		if f.seat.leaving {
			n++
		}
	}
	return n
}

// unused tells that those who may go don't use the rate up.
func (q *Queue) unused() bool { return q.tokens >= q.room() && q.first() == nil }

// untilRotation is how long those in line wait at most until a slot is theirs: the
// bucket is full by then, and nobody else has used it. It is 0 when none is in line.
func (q *Queue) untilRotation(now time.Time) time.Duration {
	if q.slots == nil || len(q.slots.line) == 0 {
		return 0
	}
	return max(time.Duration((q.room()-q.tokens)/q.rate*float64(time.Second)), time.Millisecond)
}

func without(list []*flow, f *flow) []*flow {
	return slices.DeleteFunc(list, func(o *flow) bool { return o == f })
}
