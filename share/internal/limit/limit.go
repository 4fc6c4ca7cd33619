// Package limit decides who may move how many bytes, and when: a token bucket
// whose tokens are shared fairly among flows. It has no clock and waits for
// nothing: the caller tells it the time, and waits.
//
//	q := limit.New(rate, now)
//	turn := q.Ask(flow, bytes)
//	granted, wait := q.Next(now) // again after wait, until turn is among them
//
// Fairness is start-time fair queuing with equal weights: a flow is a peer, however
// many streams it has, and the one that was given least goes next; of two that are
// equal the one that asks for less, so that a small answer is not behind large ones.
// A flow that asks for nothing saves nothing up, and its share goes to the others.
//
// With slots (slots.go) only some of the flows share the rate at a time.
//
// Source: Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM 1996.
package limit

import (
	"cmp"
	"time"
)

// Bucket is how long a flow that was idle may run ahead of the rate: what the
// bucket holds. Over 5 s it adds 2 % at most.
const Bucket = 100 * time.Millisecond

// arrears is how much time counts in full for flows that had to wait: a busy machine
// may fire the timer late, and they are then behind.
const arrears = time.Second

// The most bytes of one turn are what the rate gives in pieceTime, within these
// bounds: nobody waits longer than that for a flow that has just begun a turn.
const (
	pieceTime = 10 * time.Millisecond
	pieceMin  = 1 << 10
	pieceMax  = 256 << 10
)

// Queue shares one rate among flows. It is not safe for concurrent use.
type Queue struct {
	rate   float64 // bytes a second, > 0
	tokens float64 // bytes that may go now
	filled time.Time
	behind bool      // somebody waits since filled
	waited time.Time // until when somebody had to wait last

	flows map[string]*flow
	asked uint64 // turns so far: which of two flows that are equal goes first
	clock int64  // start tag of the last turn that was given, in bytes

	slots *slots // nil: every flow shares the rate
}

// flow is one peer's turns. Its start is the tag of its first waiting turn, or, when
// none waits, the least that the next one gets.
type flow struct {
	start   int64
	since   uint64 // Queue.asked when it began to wait
	waiting []*Turn
	seat    seat
}

// Turn is one request for bytes.
type Turn struct {
	flow  *flow
	bytes int
}

// New returns a queue that gives bytesPerSecond, which must be positive, with a
// full bucket.
func New(bytesPerSecond int64, now time.Time) *Queue {
	q := &Queue{rate: float64(bytesPerSecond), filled: now, flows: map[string]*flow{}}
	q.tokens = q.room()
	return q
}

// room is how many bytes the bucket holds.
func (q *Queue) room() float64 { return max(q.rate*Bucket.Seconds(), float64(q.Piece())) }

// Piece is the most bytes that one turn may be asked for.
func (q *Queue) Piece() int { return min(max(int(q.rate*pieceTime.Seconds()), pieceMin), pieceMax) }

// SetRate goes on with another rate, which must be positive.
func (q *Queue) SetRate(bytesPerSecond int64, now time.Time) {
	q.fill(now)
	q.rate = float64(bytesPerSecond)
	q.tokens = min(q.tokens, q.room())
}

func (q *Queue) fill(now time.Time) {
	if q.behind {
		q.waited, q.behind = now, false
	}
	room := q.room()
	if now.Sub(q.waited) < Bucket {
		room = max(room, q.rate*arrears.Seconds())
	}
	q.tokens = min(q.tokens+q.rate*max(now.Sub(q.filled), 0).Seconds(), room)
	q.filled = now
}

// Ask has a flow wait for bytes, behind its own earlier turns.
func (q *Queue) Ask(name string, bytes int) *Turn {
	f := q.flow(name)
	q.asked++
	if len(f.waiting) == 0 {
		f.start = max(f.start, q.clock)
		f.since = q.asked
	}
	t := &Turn{f, bytes}
	f.waiting = append(f.waiting, t)
	return t
}

func (q *Queue) flow(name string) *flow {
	f := q.flows[name]
	if f == nil {
		f = &flow{}
		q.flows[name] = f
		f.seat.free = newcomerBytes
	}
	return f
}

// Leave takes a turn back that was not given.
func (q *Queue) Leave(t *Turn) {
	for i, w := range t.flow.waiting {
		if w == t {
			t.flow.waiting = append(t.flow.waiting[:i], t.flow.waiting[i+1:]...)
			break
		}
	}
	if q.first() == nil {
		q.behind = false // what time passes now is nobody's
	}
}

// Next gives the turns whose time has come, in order. wait is how long until the
// next one's may have, or 0 when nobody waits.
func (q *Queue) Next(now time.Time) (given []*Turn, wait time.Duration) {
	q.fill(now)
	q.rotate(now)
	for {
		f := q.first()
		if f == nil {
			return given, q.untilRotation(now)
		}
		t := f.waiting[0]
		// After SetRate a turn may be larger than what the bucket holds.
		if need := min(float64(t.bytes), q.room()); q.tokens < need {
			q.behind = true
			return given, max(time.Duration((need-q.tokens)/q.rate*float64(time.Second)), 1)
		}
		q.tokens -= float64(t.bytes)
		q.clock = f.start
		f.start += int64(t.bytes)
		q.asked++
		f.since = q.asked
		f.waiting = f.waiting[1:]
		f.seat.credit = max(f.seat.credit-t.bytes, 0)
		given = append(given, t)
	}
}

// first is the flow whose turn is next, nil when none waits that may go. It forgets
// those that are idle and are owed no wait.
func (q *Queue) first() *flow {
	var best *flow
	for name, f := range q.flows {
		switch {
		case len(f.waiting) == 0:
			if f.start <= q.clock && q.slots == nil {
				delete(q.flows, name)
			}
		case !q.mayGo(f):
		case best == nil || f.before(best):
			best = f
		}
	}
	return best
}

func (f *flow) before(other *flow) bool {
	return cmp.Or(cmp.Compare(f.start, other.start), cmp.Compare(f.waiting[0].bytes, other.waiting[0].bytes),
		cmp.Compare(f.since, other.since)) < 0
}
