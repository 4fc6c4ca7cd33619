package coord

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// How a group's epochs meet. Who is of a later epoch refuses who is of an earlier
// one, and shows the records of what came between; who is of the earlier one
// refuses too, and looks at the other one's records by presenting itself there.
// Those who were left out by a recovery are presented to from time to time, as
// nothing else makes two halves of a group that went on by themselves meet.
const (
	greetEvery = 30 * time.Second
	greetAgain = time.Second // at the earliest, to the same peer
	// greetStranger is how often any stranger is looked at: it may have restored a
	// backup, and may just as well only keep this member busy.
	greetStranger = 30 * time.Second
	aheadMax      = 8    // peers to look at: of others there is another chance
	greetedMax    = 1000 // peers whose last greeting is remembered
)

// split is another record of an epoch that this member has seen begin.
type split struct {
	Epoch  uint64        `json:"epoch"`
	Record node.Envelope `json:"record"` // the other one
}

func (s *split) err() error {
	return fmt.Errorf("%w: epoch %d; the other one is by %s", ErrSplit, s.Epoch, s.Record.Sender)
}

// otherEpoch refuses one that is in another epoch, or in another one of that number.
func (g *Group) otherEpoch(p peer.ID, o opening) (a admission, other bool) {
	f := g.known()
	a = admission{Epoch: f.Epoch}
	switch {
	case o.Epoch < f.Epoch && o.Join:
		a.Error = RefusedEpoch
		a.Message = fmt.Sprintf("the invitation is of epoch %d of the group, which is over: it is in epoch %d, after a recovery", o.Epoch, f.Epoch)
	case o.Epoch < f.Epoch:
		a.Error = RefusedEpoch
		a.Message = fmt.Sprintf("the group is in epoch %d, after a recovery; epoch %d is over", f.Epoch, o.Epoch)
	case o.Epoch > f.Epoch:
		a.Error = RefusedBehind
		a.Message = fmt.Sprintf("this member is in epoch %d of the group, and has not heard of epoch %d", f.Epoch, o.Epoch)
	case o.Record != f.record() && o.Record != (pinset.Digest{}):
		a.Error = RefusedSplit
		a.Message = fmt.Sprintf("epoch %d of the group began with another recovery here", f.Epoch)
	default:
		return a, false
	}
	if a.Error != RefusedEpoch {
		select { // also at a stranger: a backup may have been restored there
		case g.ahead <- p:
		default: // it will come again
		}
	}
	if !g.acquainted(f, p) {
		return a, true
	}
	a.Records = f.records()
	if r := f.Removed; r != nil && r.Epoch > 0 {
		a.By, a.Index = r.By, r.Index // the opener's fate, or it would know
	}
	if m, err := g.running(); err == nil {
		m.fsm.view(func(s *pinset.State) {
			if t, removed := s.Tombstone(pinset.Peer(p.String())); removed {
				a.By, a.Index = t.By, t.Index
			}
		})
	}
	return a, true
}

// acquainted says whether a peer is or was in the group, as far as this one knows:
// those may see who began its epochs.
func (g *Group) acquainted(f groupFile, p peer.ID) bool {
	name := pinset.Peer(p.String())
	is := func(k knownMember) bool { return k.Peer == name }
	if slices.ContainsFunc(f.Members, is) || slices.ContainsFunc(f.Former, is) || slices.Contains(f.Admins, name) {
		return true
	}
	known := false
	if m, err := g.running(); err == nil {
		m.fsm.view(func(s *pinset.State) {
			_, removed := s.Tombstone(name)
			known = removed || s.Roles(name) != 0
		})
	}
	return known
}

// meet presents this member to those who may be in another epoch.
func (g *Group) meet(ctx context.Context) error {
	tick := time.NewTicker(greetEvery)
	defer tick.Stop()
	greeted := map[peer.ID]time.Time{}
	var stranger time.Time // when one was looked at
	for {
		var who []peer.ID
		select {
		case p := <-g.ahead:
			who = append(who, p)
		case <-tick.C:
			for _, k := range g.known().Former {
				if p, err := peer.Decode(string(k.Peer)); err == nil {
					who = append(who, p)
				}
			}
		case <-ctx.Done():
			return nil
		}
		for _, p := range who {
			if !g.acquainted(g.known(), p) {
				if time.Since(stranger) < greetStranger {
					continue
				}
				stranger = time.Now()
			}
			if time.Since(greeted[p]) >= greetAgain {
				if len(greeted) >= greetedMax {
					clear(greeted)
				}
				greeted[p] = time.Now()
				g.greet(ctx, p)
			}
		}
	}
}

// greet presents this member to one peer. What that refuses is what it is for.
func (g *Group) greet(ctx context.Context, p peer.ID) {
	s, _, err := dialGroup(ctx, g.c.node, g.where(p), groupProtocol, g.opening())
	if err == nil {
		s.Reset()
		return
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		g.learn(refused)
	}
}

// learn is told why another peer does not let this one in. That this one was removed
// is taken from a voter alone: else whoever is dialled could end it.
func (g *Group) learn(e *RefusedError) {
	g.log.Info("a member refuses this one", "peer", e.Peer, "why", string(e.Why), "message", e.Message)
	if e.Why == RefusedRemoved && e.Index > 0 && g.mayVote(pinset.Peer(e.Peer.String())) {
		g.mu.Lock()
		if g.told == nil || e.Index > g.told.Index {
			g.told = &removal{By: e.By, Index: e.Index}
		}
		g.mu.Unlock()
	}
	if len(e.records) > 0 {
		g.heed(e)
	}
}

// heed takes what a refusal shows of the group's epochs. A file that can't be
// written leaves things as they are: the next refusal shows it again.
func (g *Group) heed(e *RefusedError) {
	var taken error
	was := g.known()
	err := g.change(func(f *groupFile) {
		if f.parked() == nil {
			*f, taken = f.take(e.records, g.c.self())
			if f.Removed != nil && f.Removed.Epoch == e.Epoch {
				f.Removed.Index = e.Index
				if e.By != "" && validPeer(e.By) { // a member, where the record is signed by the recovery key
					f.Removed.By = e.By
				}
			}
		}
	})
	is := g.known()
	switch {
	case err != nil:
		g.log.Warn("the group's epoch can't be written", "err", err)
	case is.Split != nil && was.Split == nil:
		g.log.Error("the group is split: this member stops", "epoch", is.Split.Epoch, "other", is.Split.Record.Sender)
		g.turn()
	case is.Epoch > was.Epoch:
		g.log.Warn("the group began a new epoch", "epoch", is.Epoch, "by", is.Epochs[len(is.Epochs)-1].Record.Sender)
		g.turn()
	case taken != nil:
		g.log.Warn("a member shows epochs of the group that are not believed", "peer", e.Peer, "err", taken)
	}
}

// turn ends the present life: group.json says something else now.
func (g *Group) turn() {
	g.c.links.drop(g.id)
	select {
	case g.turned <- struct{}{}:
	default: // it is about to
	}
}
