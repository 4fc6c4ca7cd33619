package coord

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// Holding is what a member itself has of a content, when it is asked.
type Holding struct {
	Done     int64   `json:"done,omitempty"`        // bytes that are here
	Verified int64   `json:"verified_ms,omitempty"` // Unix milliseconds: when all of it was found right last; 0: it is not whole
	Fetching bool    `json:"fetching,omitempty"`
	Rate     int64   `json:"rate,omitempty"`    // bytes a second, while it is fetched
	Problem  problem `json:"problem,omitempty"` // why it is not here
}

// holding tells what this member has of some contents.
func (g *Group) holding(m *member, who asker, r request) (a answer, err error) {
	if len(r.IDs) > pageMax {
		return a, answered(wordInvalid, "at most %d contents at a time", pageMax)
	}
	m.fsm.view(func(s *pinset.State) { err = g.mayRead(s, who) })
	if err != nil {
		return a, err
	}
	a.Holding = make([]Holding, len(r.IDs))
	if g.c.holds == nil {
		return a, nil
	}
	c := g.copies()
	for i, id := range r.IDs {
		a.Holding[i] = g.c.holds.holding(id)
		if c != nil && a.Holding[i].Verified == 0 {
			a.Holding[i].Problem = c.problem(id)
		}
	}
	return a, nil
}

func (h *holds) holding(id content.ID) (x Holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held, here := h.have[id]; here {
		x.Done = held.Size
		if !held.Damaged {
			x.Verified = held.Verified.UnixMilli()
		}
	}
	if m := h.moving[id]; m != nil {
		x.Fetching, x.Done, x.Rate = true, m.told.Done, m.told.Rate
	}
	return x
}

// Health is how a pin's copies are.
type Health string

// The words of Health, append-only.
const (
	HealthOK       Health = "ok"       // as many verified copies as are wanted
	HealthCopying  Health = "copying"  // the rest is on its way
	HealthDegraded Health = "degraded" // some are missing, and nobody makes them just now
	HealthLost     Health = "lost"     // no member that is there has one
	HealthNoRoom   Health = "no room"  // some are missing, and no other member has room
)

// PinHealth tells how a pin's copies are.
type PinHealth struct {
	Health   Health
	Verified int // copies
	Wanted   int
	Done     int64   // bytes of all wanted copies that are there
	Total    int64   // bytes of all wanted copies
	Left     float64 // seconds, by the present rates; 0: not known
}

func (h PinHealth) String() string {
	switch h.Health {
	case HealthCopying:
		return fmt.Sprintf("%s %d %%", h.Health, h.percent())
	case HealthLost:
		return string(h.Health)
	}
	return fmt.Sprintf("%s %d/%d", h.Health, h.Verified, h.Wanted)
}

// percent is never 100: what has come is not verified yet.
func (h PinHealth) percent() int64 {
	if h.Total == 0 {
		return min(99, int64(h.Verified)*100/int64(max(1, h.Wanted)))
	}
	return min(99, int64(float64(h.Done)/float64(h.Total)*100))
}

// HealthOf judges a pin by the state, and by what the members said that were asked.
// Who was asked and has not answered is not in has.
func HealthOf(p Pin, has map[Peer]Holding) PinHealth {
	h := PinHealth{Verified: len(p.Copies), Wanted: p.Wanted, Done: p.Size * int64(min(len(p.Copies), p.Wanted)), Total: p.Size * int64(p.Wanted)}
	var moving, noSource, noRoom bool
	for _, holder := range p.Holders {
		if slices.Contains(p.Copies, holder) {
			continue
		}
		x, answered := has[holder]
		if !answered || slices.Contains(p.Absent, holder) {
			continue
		}
		h.Done = min(h.Total, h.Done+min(x.Done, p.Size))
		if rest := float64(p.Size - x.Done); x.Rate > 0 && rest > 0 {
			h.Left = max(h.Left, rest/float64(x.Rate))
		}
		noRoom = noRoom || x.Problem == problemRoom
		noSource = noSource || x.Problem == problemSource
		moving = moving || x.Fetching || x.Problem == ""
	}
	switch {
	case h.Verified >= h.Wanted && h.Wanted > 0:
		h.Health = HealthOK
	case moving && (h.Verified > 0 || len(p.Absent) == 0):
		h.Health = HealthCopying
	case h.Verified == 0 && (len(p.Absent) > 0 || noSource):
		h.Health = HealthLost
	case noRoom || p.Lack != "":
		h.Health = HealthNoRoom
	case h.Verified == 0:
		h.Health = HealthCopying // nobody has begun
	default:
		h.Health = HealthDegraded
	}
	if h.Health != HealthCopying {
		h.Left = 0
	}
	return h
}

// Holdings asks the members what they have of some pins, by content. Who does not
// answer within pollWait is left out.
func (cl *Client) Holdings(ctx context.Context, pins []Pin) map[content.ID]map[Peer]Holding {
	ask := map[Peer][]content.ID{}
	for _, p := range pins {
		asked := map[Peer]bool{}
		for _, list := range [][]Peer{p.Copies, p.Holders} {
			for _, x := range list {
				if !asked[x] {
					asked[x] = true
					ask[x] = append(ask[x], p.ID)
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, pollWait)
	defer cancel()
	found := map[content.ID]map[Peer]Holding{}
	var mu sync.Mutex
	var tasks errgroup.Group
	tasks.SetLimit(pollsMax)
	for p, ids := range ask {
		for part := range slices.Chunk(ids, pageMax) {
			tasks.Go(func() error {
				list := cl.holdingsOf(ctx, p, part)
				mu.Lock()
				defer mu.Unlock()
				for i, x := range list {
					if found[part[i]] == nil {
						found[part[i]] = map[Peer]Holding{}
					}
					found[part[i]][p] = x
				}
				return nil
			})
		}
	}
	tasks.Wait()
	return found
}

// holdingsOf asks one member; nil when it does not answer.
func (cl *Client) holdingsOf(ctx context.Context, p Peer, ids []content.ID) []Holding {
	id, err := peer.Decode(string(p))
	if err != nil {
		return nil
	}
	_, o := cl.targets()
	a, err := cl.one(ctx, cl.where(id), o, request{Op: opHolding, IDs: ids})
	if err != nil || a.err() != nil || len(a.Holding) != len(ids) {
		return nil
	}
	return a.Holding
}

// VerifiedAt is when a member found all of its copy right last, zero if it does not
// hold it whole.
func (x Holding) VerifiedAt() time.Time {
	if x.Verified == 0 {
		return time.Time{}
	}
	return time.UnixMilli(x.Verified)
}

func (r *replicator) problem(id content.ID) problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problems[id]
}

// whoIsSilent are the members that the leader has not heard for a while; nil for
// one that does not lead, and does not know.
func (g *Group) whoIsSilent(m *member, s *pinset.State) map[pinset.Peer]bool {
	if !m.leads() || !g.reports.begun() {
		return nil
	}
	silent := map[pinset.Peer]bool{}
	for _, x := range s.Members() {
		if _, suspect := g.reports.silence(x.Peer, s.Grace()); suspect {
			silent[x.Peer] = true
		}
	}
	return silent
}

// describe fills in where a pin's copies are, and where they are to be.
func (p *Pin) describe(pin pinset.Pin, place pinset.Placement, sound, silent map[pinset.Peer]bool, explain bool) {
	p.Wanted, p.Holders, p.Unproven = place.Wanted, place.Holders, pin.Unproven
	for _, c := range pin.Copies {
		if sound[c] && !silent[c] {
			p.Copies = append(p.Copies, c)
		} else {
			p.Absent = append(p.Absent, c)
		}
	}
	if explain {
		p.Reserve = place.Reserve[:min(len(place.Reserve), reserveMax)]
	}
	switch place.Lack {
	case pinset.LackMembers:
		p.Lack = "members"
	case pinset.LackRoom:
		p.Lack = "room"
	}
}

// reserveMax is how much of the reserve order is told.
const reserveMax = 8
