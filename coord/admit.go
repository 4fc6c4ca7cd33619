package coord

import (
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// admitRaft decides on a Raft stream: from a member that votes, or may. Others are
// spoken to, and never speak first.
func (g *Group) admitRaft(p peer.ID, o opening) admission {
	epoch := g.known().Epoch
	if a, other := g.otherEpoch(p, o); other {
		return a
	}
	m, err := g.voting()
	if err != nil {
		return admission{Epoch: epoch, Error: RefusedStopped, Message: err.Error()}
	}
	from := pinset.Peer(p.String())
	if o.Record != g.known().record() { // others than members have none
		return admission{Epoch: epoch, Error: RefusedSplit, Message: "a member says how its epoch began"}
	}
	if g.mayVote(from) {
		return admission{OK: true, Epoch: epoch}
	}
	select {
	case g.unsure <- p:
	default: // it will come again
	}
	a, _ := g.admitMember(m, from, epoch)
	if a.OK {
		a = admission{Epoch: epoch, Error: RefusedLearner, Message: "a member without a vote has nothing to say in Raft"}
	}
	return a
}

// keeps says whether a Raft stream goes on: who opened it would be let in now, or,
// as this member did, its other end is a member.
func (g *Group) keeps(m *member, p peer.ID, accepted bool) bool {
	if accepted {
		return g.admitRaft(p, g.opening()).OK
	}
	from := pinset.Peer(p.String())
	a, _ := g.admitMember(m, from, 0)
	return a.OK || slices.ContainsFunc(m.servers(), func(s server) bool { return s.id == from })
}

// admitGroup decides on a stream of /p2pshare/group/1: from a member, from who has
// a role or may read as everyone does, and from who says that it has a token. What
// each may do is decided request by request.
func (g *Group) admitGroup(p peer.ID, o opening) admission {
	epoch := g.known().Epoch
	if a, other := g.otherEpoch(p, o); other {
		return a
	}
	m, err := g.running()
	if err != nil {
		return admission{Epoch: epoch, Error: RefusedStopped, Message: err.Error()}
	}
	from := pinset.Peer(p.String())
	a, reads := g.admitMember(m, from, epoch)
	switch {
	case a.OK || reads:
		a = admission{OK: true, Epoch: epoch}
	case o.Join:
		select {
		case g.c.joiners <- struct{}{}:
			a = admission{OK: true, Epoch: epoch, joins: true}
		default:
			return admission{Epoch: epoch, Error: RefusedStopped, Message: "too many want to join at once: try again"}
		}
	case a.Error == RefusedStranger && !m.caughtUp():
		return admission{Epoch: epoch, Error: RefusedStopped, Message: "this member has just started, and does not know yet who has a role: try another"}
	default:
		return a
	}
	rand.Read(a.Nonce[:])
	return a
}

// admitMember lets in members of the state, and of group.json before there is one.
func (g *Group) admitMember(m *member, from pinset.Peer, epoch uint64) (a admission, reads bool) {
	a = admission{Epoch: epoch, Error: RefusedStranger, Message: "no member of the group, and has no role in it"}
	m.fsm.view(func(s *pinset.State) {
		_, member := s.Member(from)
		if _, founded := s.Group(); !founded {
			member = slices.ContainsFunc(g.known().Members, func(k knownMember) bool { return k.Peer == from })
		}
		reads = s.MayRead(from)
		if member {
			a = admission{OK: true, Epoch: epoch}
		} else if t, ok := s.Tombstone(from); ok {
			a = admission{Epoch: epoch, Error: RefusedRemoved, By: t.By, Index: t.Index,
				Message: fmt.Sprintf("%s removed it from the group at log index %d", t.By, t.Index)}
		}
	})
	return a, reads
}

// hasRemoved says whether a peer was a member and is none any more.
func (g *Group) hasRemoved(p peer.ID) (removed bool) {
	if m, err := g.running(); err == nil {
		m.fsm.view(func(s *pinset.State) { _, removed = s.Tombstone(pinset.Peer(p.String())) })
	}
	return removed
}
