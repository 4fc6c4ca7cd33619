package limit

import (
	"fmt"
	"testing"
	"time"
)

// crowd is peers that have one request of requestBytes under way, made of
// turns of a piece, and come again after retry when they are turned away.
type crowd struct {
	q     *Queue
	now   time.Time
	peers []*crowdPeer
	owner map[*Turn]*crowdPeer
}

type crowdPeer struct {
	name   string
	given  int64
	left   int           // of the request under way
	asked  time.Time     // when its turn began to wait
	wait   time.Duration // the longest of any turn
	again  time.Time     // it was turned away, and comes again then
	served time.Time     // when it was given something last
	hunger time.Duration // the longest time that it got nothing
}

const (
	requestBytes = 256 << 10
	retry        = 4 * time.Second
)

func newCrowd(rate int64, peers int) *crowd {
	now := time.Unix(1_700_000_000, 0)
	c := &crowd{q: NewSlotted(rate, now), now: now, owner: map[*Turn]*crowdPeer{}}
	for i := range peers {
		c.peers = append(c.peers, &crowdPeer{name: fmt.Sprint("peer", i), served: now})
	}
	return c
}

func (c *crowd) ask(p *crowdPeer) {
	if p.left == 0 {
		if c.now.Before(p.again) {
			return
		}
		if !c.q.Admit(p.name, requestBytes, c.now) {
			p.again = c.now.Add(retry)
			return
		}
		p.left = requestBytes
	}
	p.asked = c.now
	c.owner[c.q.Ask(p.name, min(p.left, c.q.Piece()))] = p
}

// runFor moves the time on by d, and reports how many peers in slots waited for their
// turn at once, at most.
func (c *crowd) runFor(d time.Duration) (together int) {
	for end := c.now.Add(d); c.now.Before(end); {
		idle := map[*crowdPeer]bool{}
		for _, p := range c.peers {
			idle[p] = true
		}
		for _, p := range c.owner {
			idle[p] = false
		}
		for _, p := range c.peers {
			if idle[p] {
				c.ask(p)
			}
		}
		given, wait := c.q.Next(c.now)
		sharing := 0
		for _, f := range c.q.slots.held {
			if len(f.waiting) > 0 {
				sharing++
			}
		}
		together = max(together, sharing)
		for _, t := range given {
			p := c.owner[t]
			delete(c.owner, t)
			p.given += int64(t.bytes)
			p.left -= t.bytes
			p.wait = max(p.wait, c.now.Sub(p.asked))
			p.hunger = max(p.hunger, c.now.Sub(p.served))
			p.served = c.now
		}
		if len(given) == 0 {
			c.now = c.now.Add(min(max(wait, time.Millisecond), 50*time.Millisecond))
		}
	}
	for _, p := range c.peers {
		p.hunger = max(p.hunger, c.now.Sub(p.served))
	}
	return together
}

func TestSlotsServeEverybody(t *testing.T) {
	for _, c := range []struct {
		rate          int64
		peers         int
		slots, places int
	}{
		{64 << 10, 5, 1, 1},
		{200 << 10, 3, 2, 4},
		{200 << 10, 4, 2, 4},
		{200 << 10, 12, 2, 4},
		{1 << 20, 40, 10, 20},
		{100 << 20, 50, 32, 64},
	} {
		t.Run(fmt.Sprintf("%d/%d", c.rate, c.peers), func(t *testing.T) {
			const took = 10 * time.Minute
			d := took
			if c.rate > 10<<20 {
				d = 20 * time.Second
			}
			l := newCrowd(c.rate, c.peers)
			if got := l.runFor(d); got > c.slots {
				t.Errorf("%d peers were in slots at once, want at most %d", got, c.slots)
			}
			total, fair := int64(0), float64(c.rate)*d.Seconds()/float64(c.peers)
			for _, p := range l.peers {
				total += p.given
				if p.wait > 2*slice {
					t.Errorf("a turn of %s, which had a place, waited %s, want at most %s", p.name, p.wait, 2*slice)
				}
				if part := float64(p.given) / fair; part < 0.5 || part > 1.6 {
					t.Errorf("%s got %.2f of its fair part", p.name, part)
				}
				rounds := time.Duration((c.peers + c.places - 1) / c.places)
				if limit := (rounds + 1) * (2*tenure*slice + retry + idleMax); p.hunger > limit {
					t.Errorf("%s got nothing for %s, want at most %s", p.name, p.hunger, limit)
				}
			}
			least := 0.95
			if c.places == 1 {
				least = 0.8 // nobody is here when the only place becomes free
			}
			if part := float64(total) / (float64(c.rate) * d.Seconds()); part < least || part > 1.02 {
				t.Errorf("%.3f of the rate was given", part)
			}
		})
	}
}

func TestNewcomerWaitsForNoSlot(t *testing.T) {
	l := newCrowd(200<<10, 12)
	l.runFor(time.Minute)
	if !l.q.Admit("new", newcomerBytes, l.now) {
		t.Fatal("a newcomer was turned away")
	}
	if l.q.Admit("new", smallBytes+1, l.now) {
		t.Error("more than a newcomer may have was admitted")
	}
	p := &crowdPeer{name: "new", left: newcomerBytes, served: l.now}
	begun := l.now
	l.peers = append(l.peers, p)
	for p.left > 0 && l.now.Sub(begun) < time.Minute {
		l.runFor(time.Millisecond)
	}
	if took := p.served.Sub(begun); p.left > 0 || took > 2*time.Second {
		t.Errorf("its first %d bytes took %s, want a third of the rate: 1 s", newcomerBytes, took)
	}
}

// TestIdleSlotIsUsedByOthers has the only slot be held by one who asks for nothing.
func TestIdleSlotIsUsedByOthers(t *testing.T) {
	l := newCrowd(100<<10, 0)
	for _, who := range []string{"idle", "other"} {
		if !l.q.Admit(who, requestBytes, l.now) {
			t.Fatalf("%s was turned away", who)
		}
	}
	l.q.Ask("idle", 2*smallBytes)
	l.q.Next(l.now)
	other, begun := l.q.Ask("other", 2*smallBytes), l.now
	for l.now.Sub(begun) < time.Second {
		given, wait := l.q.Next(l.now)
		if len(given) == 1 && given[0] == other {
			return
		}
		l.now = l.now.Add(max(wait, time.Millisecond))
	}
	t.Error("a slot that nobody used was kept from others for a second")
}

func TestTurnsThatLeaveKeepNoPlace(t *testing.T) {
	l := newCrowd(64<<10, 0) // one place
	l.q.Admit("gone", requestBytes, l.now)
	turn := l.q.Ask("gone", l.q.Piece())
	if l.q.Admit("next", requestBytes, l.now) {
		t.Fatal("there were two places")
	}
	l.q.Leave(turn)
	l.q.Next(l.now)
	l.now = l.now.Add(idleMax)
	if !l.q.Admit("next", requestBytes, l.now) {
		t.Error("the place of one who left was not given to the next")
	}
	l.now = l.now.Add(time.Minute)
	l.q.Next(l.now)
	if len(l.q.flows) > 0 {
		t.Errorf("%d flows are remembered a minute after all", len(l.q.flows))
	}
}
