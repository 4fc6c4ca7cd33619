package coord

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// takeReport notes what a member reports, if this one leads. It is committed later.
func (g *Group) takeReport(m *member, who asker, r request) (answer, error) {
	p := r.Report
	if p == nil || len(p.Held)+len(p.Gone)+len(p.Spare) > reportMax || len(p.Accused) > accusationMax {
		return answer{}, answered(wordInvalid, "a report tells of at most %d contents", reportMax)
	}
	var held, claims, gone []content.ID
	var err error
	m.fsm.view(func(s *pinset.State) {
		if _, member := s.Member(who.peer); !member {
			err = denied("this peer is no member of the group")
			return
		}
		for _, id := range p.Held {
			pin, pinned := s.Pin(id)
			switch {
			case !pinned || slices.Contains(pin.Copies, who.peer):
			case slices.Contains(pin.Unproven, who.peer):
				claims = append(claims, id)
			default:
				held = append(held, id)
			}
		}
		for _, id := range p.Gone {
			if pin, pinned := s.Pin(id); pinned && slices.Contains(pin.Copies, who.peer) {
				gone = append(gone, id)
			}
		}
		gone = append(gone, g.spared(s, who.peer, p.Spare)...)
	})
	if err != nil {
		return answer{}, err
	}
	g.reports.take(who.peer, held, gone)
	for _, id := range claims {
		g.suspicious(suspicion{who.peer, id, true})
	}
	for _, a := range p.Accused {
		g.suspicious(suspicion{a.Peer, a.ID, false})
	}
	if g.reports.mayCommit(time.Now()) {
		g.kick()
	}
	return answer{}, nil
}

// spared are those of a member's spare copies that can be let go: the others that
// are verified are as many as are wanted, without those of members that are silent.
func (g *Group) spared(s *pinset.State, self pinset.Peer, ids []content.ID) (gone []content.ID) {
	if len(ids) == 0 {
		return nil
	}
	sound := soundMembers(s)
	for p := range sound {
		if _, suspect := g.reports.silence(p, s.Grace()); suspect {
			sound[p] = false
		}
	}
	holders := len(s.Holders())
	for _, id := range ids {
		pin, pinned := s.Pin(id)
		if !pinned || !slices.Contains(pin.Copies, self) {
			continue
		}
		others := verified(pin, sound)
		if sound[self] {
			others--
		}
		want := pin.Replicas
		if want == pinset.ReplicasAll {
			want = holders
		}
		if others >= want {
			gone = append(gone, id)
		}
	}
	return gone
}

// commitReports commits what members have reported.
func (g *Group) commitReports(ctx context.Context, m *member) error {
	list := g.reports.due(time.Now())
	var tasks errgroup.Group
	tasks.SetLimit(proposalsMax)
	for p, c := range list {
		for _, x := range c.commands(p) {
			tasks.Go(func() error { return g.commitCopies(ctx, m, x) })
		}
	}
	return tasks.Wait()
}

// commands are what is to be committed, in commands of at most CopiesMax contents.
// What was proved is by the leader, who saw it; what is only reported by the member.
func (p *pendingCopies) commands(of pinset.Peer) (list []copiesCommand) {
	for _, x := range []struct {
		ids   map[content.ID]struct{}
		put   func(*pinset.Copies, []content.ID)
		judge bool
	}{
		{p.gone, func(c *pinset.Copies, ids []content.ID) { c.Gone = ids }, false},
		{p.held, func(c *pinset.Copies, ids []content.ID) { c.Held = ids }, false},
		{p.proven, func(c *pinset.Copies, ids []content.ID) { c.Held = ids }, true},
		{p.unproven, func(c *pinset.Copies, ids []content.ID) { c.Unproven = ids }, true},
	} {
		ids := slices.SortedFunc(maps.Keys(x.ids), func(a, b content.ID) int { return slices.Compare(a[:], b[:]) })
		for part := range slices.Chunk(ids, pinset.CopiesMax) {
			c := copiesCommand{&pinset.Copies{Peer: of}, x.judge}
			x.put(c.Copies, part)
			list = append(list, c)
		}
	}
	return list
}

type copiesCommand struct {
	*pinset.Copies
	judge bool // by the leader
}

func (g *Group) commitCopies(ctx context.Context, m *member, c copiesCommand) error {
	by := c.Peer
	if c.judge {
		by = g.c.self()
	}
	r, err := g.proposeBy(ctx, m, by, c.Copies, &c.Header)
	return errors.Join(err, resultError(r))
}

// attend commits who has been away for the grace time, and who is back.
func (g *Group) attend(ctx context.Context, m *member) error {
	c := &pinset.Away{}
	m.fsm.view(func(s *pinset.State) {
		grace := s.Grace()
		for _, x := range s.Members() {
			if !x.Away && !s.Roles(x.Peer).Has(pinset.RoleStorage) {
				continue // nobody relies on it
			}
			switch silent, suspect := g.reports.silence(x.Peer, grace); {
			case !x.Away && silent >= grace:
				c.Away = append(c.Away, x.Peer)
			case x.Away && !suspect && g.reports.heardFrom(x.Peer):
				c.Back = append(c.Back, x.Peer)
			}
		}
	})
	if len(c.Away)+len(c.Back) == 0 {
		return nil
	}
	for _, p := range c.Away {
		g.log.Warn("a member is away: its copies are made elsewhere", "peer", p)
	}
	for _, p := range c.Back {
		g.log.Info("a member is back", "peer", p)
	}
	r, err := g.propose(ctx, m, c, &c.Header)
	return errors.Join(err, resultError(r))
}
