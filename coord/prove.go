package coord

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// Members challenge one another: who says that it holds a content is asked for a
// random part of it, which only the bytes can answer. One that can't is accused to
// the leader, which asks itself, and for some more of what that member says that it
// holds. The group's word is the leader's alone, so that no member can talk another's
// copies away.
const (
	// challengesPerScrub is how many challenges a member makes in the time in which it
	// reads all of its own. With a week that is one in five minutes, of 256 KiB.
	challengesPerScrub = 2000
	challengeEveryMax  = 5 * time.Minute
	challengeEveryMin  = time.Second
	challengeWait      = 15 * time.Second
	// judgeMore is how many more copies of an accused member the leader asks for; when
	// most can't be shown, nothing that the member says counts.
	judgeMore      = 3
	suspicionsMax  = 64
	acquitEveryMax = time.Minute // between two looks at a member that counts for nothing
	// secondChance is how long a member counts for nothing that has nothing left to
	// prove: it may have been repaired.
	secondChance = time.Hour
)

// suspicion is a copy that is to be judged. A claim is the member's own word that it
// holds again what it could not prove.
type suspicion struct {
	peer  pinset.Peer
	id    content.ID
	claim bool
}

// suspicious has a copy judged, unless too many wait for that.
func (g *Group) suspicious(s suspicion) {
	if s.claim && len(g.suspicions) > suspicionsMax/2 {
		return // who lies must not keep accusations from being heard
	}
	select {
	case g.suspicions <- s:
	default: // it will be reported again
	}
}

func (r *replicator) challengeEvery() time.Duration {
	return min(max(r.g.c.scrubPeriod()/challengesPerScrub, challengeEveryMin), challengeEveryMax)
}

// challenge asks other members at random to prove a copy.
func (r *replicator) challenge(ctx context.Context) error {
	tick := time.NewTicker(r.challengeEvery())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		state := r.m.fsm.clone()
		p, ok := someHolder(state, r.g.c.self())
		if !ok {
			continue
		}
		for _, id := range someCopies(state, p, 1) {
			if err := r.g.prove(ctx, state, p, id); errors.Is(err, share.ErrUnproven) {
				r.g.log.Info("a member can't prove a copy", "peer", p, "id", id, "err", err)
				r.accuse(accusation{p, id})
			}
		}
	}
}

// prove challenges a member that is said to hold a content. What is not pinned any
// more is proved.
func (g *Group) prove(ctx context.Context, state *pinset.State, p pinset.Peer, id content.ID) error {
	pin, pinned := state.Pin(id)
	if !pinned {
		return nil
	}
	to, err := peer.Decode(string(p))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, challengeWait)
	defer cancel()
	return g.c.holds.store.Challenge(ctx, id, share.Kind(pin.Kind.String()), g.where(to))
}

// someHolder picks a member whose copies count, other than self.
func someHolder(state *pinset.State, self pinset.Peer) (pinset.Peer, bool) {
	list := slices.DeleteFunc(state.Members(), func(m pinset.Member) bool { return m.Peer == self || m.Away || m.Unproven })
	if len(list) == 0 {
		return "", false
	}
	return list[rand.IntN(len(list))].Peer, true
}

// someLook bounds how many pins are looked at for a few copies of one member.
const someLook = 2000

// someCopies picks up to n contents that a member holds, as the state has it. What
// comes after a rare stretch of IDs without any is picked more often.
func someCopies(state *pinset.State, p pinset.Peer, n int) (ids []content.ID) {
	for range n {
		var from content.ID
		for i := range from {
			from[i] = byte(rand.Uint32())
		}
		if id, ok := copyAfter(state, p, from); ok && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// copyAfter returns a content that a member holds, the first after an ID, or else
// the first of all.
func copyAfter(state *pinset.State, p pinset.Peer, from content.ID) (content.ID, bool) {
	looked := 0
	for _, after := range []content.ID{from, {}} {
		for pin := range state.Pins(after) {
			if slices.Contains(pin.Copies, p) {
				return pin.ID, true
			}
			if looked++; looked > someLook {
				return content.ID{}, false
			}
		}
	}
	return content.ID{}, false
}

// judge decides, while this member leads, whether those hold what they say that are
// accused, or that claim to hold again what they could not prove.
func (g *Group) judge(ctx context.Context, m *member) error {
	tick := time.NewTicker(min(acquitEveryMax, max(time.Second, g.c.scrubPeriod()/challengesPerScrub)))
	defer tick.Stop()
	since := map[pinset.Peer]time.Time{} // when a member was first seen to count for nothing
	for {
		select {
		case s := <-g.suspicions:
			if m.leads() {
				g.judgeCopy(ctx, m, s)
			}
		case <-tick.C:
			if m.leads() {
				g.judgeMembers(ctx, m, since)
			} else {
				clear(since)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (g *Group) judgeCopy(ctx context.Context, m *member, s suspicion) {
	state := m.fsm.clone()
	pin, pinned := state.Pin(s.id)
	switch {
	case !pinned:
		return
	case s.peer == g.c.self():
		g.doubtOwn(s.id)
		return
	case s.claim && !slices.Contains(pin.Unproven, s.peer), !s.claim && !slices.Contains(pin.Copies, s.peer):
		return // it is settled
	}
	err := g.prove(ctx, state, s.peer, s.id)
	switch {
	case err == nil && s.claim:
		g.reports.judged(s.peer, s.id, true)
	case errors.Is(err, share.ErrUnproven) && !s.claim:
		g.log.Warn("a member does not hold what it says", "peer", s.peer, "id", s.id)
		g.reports.judged(s.peer, s.id, false)
		g.judgeMember(ctx, m, state, s.peer)
	}
}

// doubtOwn has this member's own copy read again. That a leader lies is beyond what
// its members can do anything about.
func (g *Group) doubtOwn(id content.ID) {
	if r := g.copies(); r != nil {
		r.addMend(id)
	}
}

// judgeMember asks for more copies of a member that could not prove one.
func (g *Group) judgeMember(ctx context.Context, m *member, state *pinset.State, p pinset.Peer) {
	asked, failed := 0, 0
	for _, id := range someCopies(state, p, judgeMore) {
		err := g.prove(ctx, state, p, id)
		g.log.Debug("a member that is doubted was asked for another copy", "peer", p, "id", id, "err", err)
		if err == nil || errors.Is(err, share.ErrUnproven) {
			asked++
		}
		if errors.Is(err, share.ErrUnproven) {
			failed++
			g.reports.judged(p, id, false)
		}
	}
	if !lies(asked, failed, unprovenOf(state, p)) {
		return
	}
	g.log.Warn("a member can prove hardly anything that it says it holds: nothing of it counts", "peer", p)
	g.commitAway(ctx, m, &pinset.Away{Unproven: []pinset.Peer{p}})
}

// lies says whether nothing of a member counts any more, which could not prove one
// copy: most of the others that it was asked for neither; or it has proved none, and
// several could not be proved before. Who holds little is not asked for much.
func lies(asked, failed, before int) bool {
	return asked >= 2 && 2*failed > asked || failed == asked && 1+failed+before >= judgeMore
}

// unprovenOf counts the contents that a member could not prove, up to judgeMore.
func unprovenOf(state *pinset.State, p pinset.Peer) (n int) {
	for pin := range state.Pins(content.ID{}) {
		if slices.Contains(pin.Unproven, p) {
			if n++; n == judgeMore {
				break
			}
		}
	}
	return n
}

// judgeMembers looks again at those that count for nothing: one that can prove all
// that it is asked for counts again.
func (g *Group) judgeMembers(ctx context.Context, m *member, since map[pinset.Peer]time.Time) {
	state := m.fsm.clone()
	for _, x := range state.Members() {
		if !x.Unproven {
			delete(since, x.Peer)
			continue
		}
		if since[x.Peer].IsZero() {
			since[x.Peer] = time.Now()
		}
		if x.Away || x.Peer == g.c.self() {
			continue
		}
		ids := someCopies(state, x.Peer, judgeMore+1)
		proven := len(ids) > 0 || time.Since(since[x.Peer]) >= secondChance
		for _, id := range ids {
			err := g.prove(ctx, state, x.Peer, id)
			if errors.Is(err, share.ErrUnproven) {
				g.reports.judged(x.Peer, id, false)
			}
			proven = proven && err == nil
		}
		if proven {
			g.log.Info("a member can prove what it holds again", "peer", x.Peer)
			g.commitAway(ctx, m, &pinset.Away{Proven: []pinset.Peer{x.Peer}})
		}
	}
}

func (g *Group) commitAway(ctx context.Context, m *member, c *pinset.Away) {
	r, err := g.propose(ctx, m, c, &c.Header)
	if err := errors.Join(err, resultError(r)); err != nil {
		g.log.Debug("what was found out of a member is not committed", "err", err)
	}
}
