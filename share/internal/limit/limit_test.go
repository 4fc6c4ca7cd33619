package limit

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// load is flows that ask for their next turn as soon as one is given.
type load struct {
	q     *Queue
	now   time.Time
	given map[string]int64
	owner map[*Turn]string
}

func newLoad(rate int64) *load {
	now := time.Unix(1_700_000_000, 0)
	return &load{q: New(rate, now), now: now, given: map[string]int64{}, owner: map[*Turn]string{}}
}

// ask has a flow wait with n turns at once, as one with n streams does.
func (l *load) ask(flow string, n, bytes int) {
	for range n {
		l.owner[l.q.Ask(flow, bytes)] = flow
	}
}

// runFor moves the time on by d, from one turn to the next; late is by how much a
// timer may fire after its time.
func (l *load) runFor(d time.Duration, late func() time.Duration) {
	for end := l.now.Add(d); ; {
		given, wait := l.q.Next(l.now)
		for _, t := range given {
			flow, again := l.owner[t]
			if !again {
				continue
			}
			delete(l.owner, t)
			l.given[flow] += int64(t.bytes)
			l.ask(flow, 1, t.bytes)
		}
		if len(given) > 0 {
			continue
		}
		if wait == 0 || l.now.Add(wait).After(end) {
			l.now = end
			return
		}
		l.now = l.now.Add(wait + late())
	}
}

func punctual() time.Duration { return 0 }

func TestRateIsKept(t *testing.T) {
	for _, rate := range []int64{16 << 10, 512 << 10, 10 << 20, 100_000_000, 1 << 30} {
		for _, lateMax := range []time.Duration{0, time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond} {
			t.Run(fmt.Sprintf("%d/%s", rate, lateMax), func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, uint64(rate)))
				late := func() time.Duration { return time.Duration(random.Int64N(int64(lateMax) + 1)) }
				l := newLoad(rate)
				l.ask("a", 1, l.q.Piece())
				l.runFor(5*time.Second, late)
				if got := float64(l.given["a"]) / 5 / float64(rate); got < 0.98 || got > 1.03+lateMax.Seconds()/5 {
					t.Errorf("in 5 s %.3f of the rate was given, want 0.98 to 1.03", got)
				}
			})
		}
	}
}

func TestManyStreamsGetNoMoreThanOne(t *testing.T) {
	l := newLoad(1_000_000)
	l.ask("many", 50, l.q.Piece())
	l.ask("one", 1, l.q.Piece())
	l.ask("small", 1, 700)
	l.runFor(10*time.Second, punctual)
	for flow, bytes := range l.given {
		if part := float64(bytes) / 10_000_000; part < 0.32 || part > 0.35 {
			t.Errorf("%s got %.3f of the rate, want a third", flow, part)
		}
	}
}

func TestIdleShareGoesToOthers(t *testing.T) {
	l := newLoad(1_000_000)
	l.q.Ask("gone", 100)
	l.ask("a", 1, l.q.Piece())
	l.runFor(time.Minute, punctual)
	if part := float64(l.given["a"]) / 60e6; part < 0.99 {
		t.Errorf("the only busy flow got %.3f of the rate", part)
	}
	// One that was idle for a minute has saved nothing up.
	before := l.given["a"]
	l.ask("late", 4, l.q.Piece())
	l.runFor(10*time.Second, punctual)
	if part := float64(l.given["late"]) / 10e6; part < 0.49 || part > 0.51 {
		t.Errorf("a flow that came late got %.3f of the rate, want a half", part)
	}
	if part := float64(l.given["a"]-before) / 10e6; part < 0.49 {
		t.Errorf("the other got %.3f of it, want a half", part)
	}
}

func TestSmallTurnWaitsForOnePiece(t *testing.T) {
	l := newLoad(1_000_000)
	for i := range 20 {
		l.ask(fmt.Sprint("busy", i), 8, l.q.Piece())
	}
	l.runFor(time.Second, punctual)
	begin := l.now
	small := l.q.Ask("small", 50)
	for {
		given, wait := l.q.Next(l.now)
		for _, turn := range given {
			if turn == small {
				if took := l.now.Sub(begin); took > 2*pieceTime {
					t.Errorf("a small turn waited %s behind busy flows, want at most %s", took, 2*pieceTime)
				}
				return
			}
			l.ask(l.owner[turn], 1, turn.bytes)
		}
		if len(given) == 0 {
			l.now = l.now.Add(wait)
		}
	}
}

func TestFirstTurnIsImmediate(t *testing.T) {
	l := newLoad(1 << 20)
	turn := l.q.Ask("a", l.q.Piece())
	if given, _ := l.q.Next(l.now); len(given) != 1 || given[0] != turn {
		t.Errorf("the first turn of an idle queue was not given at once")
	}
}

func TestLeave(t *testing.T) {
	l := newLoad(1000)
	l.q.Ask("a", 1024)
	l.q.Next(l.now)
	waiting := l.q.Ask("a", 1024)
	if given, wait := l.q.Next(l.now); len(given) != 0 || wait == 0 {
		t.Fatalf("Next gave %d turns from an empty bucket", len(given))
	}
	l.q.Leave(waiting)
	if given, wait := l.q.Next(l.now.Add(time.Hour)); len(given) != 0 || wait != 0 {
		t.Errorf("Next = %d turns, wait %s, after the only one had left", len(given), wait)
	}
	if len(l.q.flows) > 1 {
		t.Errorf("%d flows are remembered", len(l.q.flows))
	}
}

// TestIdleTimeIsNotArrears has everybody leave while they wait: the time until they
// are back fills the bucket, and no more.
func TestIdleTimeIsNotArrears(t *testing.T) {
	l := newLoad(1_000_000)
	l.ask("a", 1, l.q.Piece())
	l.runFor(time.Second, punctual)
	for turn := range l.owner {
		l.q.Leave(turn)
	}
	l.now = l.now.Add(time.Minute)
	clear(l.given)
	l.ask("a", 1, l.q.Piece())
	l.runFor(time.Second, punctual)
	if part := float64(l.given["a"]) / 1e6; part > 1.11 {
		t.Errorf("a second after a pause brought %.3f of the rate, want at most the bucket more", part)
	}
}

func TestSetRate(t *testing.T) {
	l := newLoad(100_000_000)
	l.ask("a", 1, l.q.Piece()) // turns that are larger than the later bucket
	l.q.SetRate(100_000, l.now)
	l.runFor(20*time.Second, punctual)
	if part := float64(l.given["a"]) / 2e6; part < 0.5 || part > 1.2 {
		t.Errorf("after SetRate %.3f of the rate was given", part)
	}
}
