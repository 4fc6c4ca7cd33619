package coord

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// serve does one request of a peer, as its connection proved, and answers it.
func (g *Group) serve(ctx context.Context, from pinset.Peer, n nonce, r request) answer {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	a, err := g.do(ctx, from, n, r)
	if err != nil {
		a = errorAnswer(err)
	}
	a.Tag = r.Tag
	return a
}

func denied(format string, args ...any) error {
	return answered(wordDenied, format, args...)
}

func (g *Group) do(ctx context.Context, from pinset.Peer, n nonce, r request) (answer, error) {
	m, err := g.running()
	if err != nil {
		return answer{}, err
	}
	who := asker{peer: from, nonce: n}
	if r.Origin != "" {
		if err := g.mayForward(ctx, m, from); err != nil {
			return answer{}, err
		}
		who = asker{peer: r.Origin, forwarded: true, via: from}
	}
	switch r.Op {
	case opStatus:
		return g.status(m, who)
	case opHolding:
		return g.holding(m, who, r)
	}
	if r.Read == readStale && isRead(r.Op) {
		return g.answerRead(m, who, r)
	}
	if !m.leads() {
		return g.forward(ctx, m, who, r)
	}
	switch {
	case r.Op == opReport:
		return g.takeReport(m, who, r)
	case isRead(r.Op):
		if err := m.readIndex(ctx); err != nil {
			return answer{}, err
		}
		return g.answerRead(m, who, r)
	case r.Op == opRejoin:
		if err := m.fence(ctx); err != nil {
			return answer{}, err
		}
		if g.voteOf(m, who.peer) == 0 {
			return answer{}, denied("only a member has a vote to give back")
		}
		index, err := g.giveBack(ctx, m, who.peer)
		return answer{Index: index}, err
	}
	return g.write(ctx, m, who, r)
}

// asker is whose request it is.
type asker struct {
	peer      pinset.Peer
	nonce     nonce       // ours for its stream
	forwarded bool        // by a voter, which has checked what can be checked
	via       pinset.Peer // that voter
}

// mayForward says no to who is no voter. A member that has just been elected, or
// started, may not have applied yet what made the other one a voter.
func (g *Group) mayForward(ctx context.Context, m *member, from pinset.Peer) error {
	if g.voteOf(m, from) == pinset.Voter {
		return nil
	}
	if m.leads() {
		if err := m.fence(ctx); err != nil {
			return err
		}
		if g.voteOf(m, from) == pinset.Voter {
			return nil
		}
	} else if slices.Contains(m.servers(), server{from, true}) {
		return g.leaderless() // it votes in Raft's log: who leads will know
	}
	return denied("only a voter may ask for another peer")
}

func (g *Group) voteOf(m *member, p pinset.Peer) (v pinset.Vote) {
	m.fsm.view(func(s *pinset.State) {
		if x, ok := s.Member(p); ok {
			v = x.Vote
		}
	})
	return v
}

// forward passes a request to the leader, if this member votes and the request is
// not one that was passed on already; otherwise it says who leads.
func (g *Group) forward(ctx context.Context, m *member, who asker, r request) (answer, error) {
	leader := m.leader()
	if leader == "" || leader == g.c.node.ID() {
		return answer{}, g.leaderless()
	}
	if who.forwarded || g.voteOf(m, g.c.self()) != pinset.Voter {
		e := &notLeaderError{leader: pinset.Peer(leader.String())}
		for _, a := range g.where(leader).Addrs {
			e.addrs = append(e.addrs, a.String())
		}
		return answer{}, e
	}
	if r.Op == opJoin {
		if err := g.checkJoin(who, r); err != nil {
			return answer{}, err
		}
	}
	if who.peer != g.c.self() {
		r.Origin = who.peer
	}
	// A leader that says nothing is given up, and the asker asks again: elsewhere,
	// or the next leader. What it asked for is done once all the same.
	ctx, cancel := context.WithTimeout(ctx, g.c.config.Timing.scale(forwardWait))
	defer cancel()
	a, err := g.ask(ctx, pinset.Peer(leader.String()), r)
	if err != nil {
		return answer{}, fmt.Errorf("%w (%w)", ErrNoLeader, err)
	}
	if a.Error == wordNotLeader || a.Error == wordStopped {
		return answer{}, ErrNoLeader // it has just changed, or is about to
	}
	return a, nil
}

func isRead(o op) bool {
	switch o {
	case opResolve, opPins, opMembers, opLog:
		return true
	}
	return false
}

// answerRead answers from the state as it is.
func (g *Group) answerRead(m *member, who asker, r request) (a answer, err error) {
	if r.Op == opPins || r.Op == opMembers {
		return g.answerPlanned(m, who, r)
	}
	a.Index = m.fsm.view(func(s *pinset.State) {
		if err = g.mayRead(s, who); err != nil {
			return
		}
		switch r.Op {
		case opResolve:
			b, ok := s.Resolve(r.Lookup)
			if !ok {
				err = answered(wordNotFound, "nothing is bound to the name")
				return
			}
			binding := newBinding(b)
			a.Binding = &binding
			if p, ok := s.Pin(b.ID); ok {
				pin := newPin(s, p)
				a.Pin = &pin
			}
		case opLog:
			a.changes(s, r.After, limited(r.Limit))
		}
	})
	g.setAge(m, r, &a)
	return a, err
}

// answerPlanned answers what takes the plan, which is not made under the state's lock.
func (g *Group) answerPlanned(m *member, who asker, r request) (a answer, err error) {
	a.Index = m.fsm.view(func(s *pinset.State) { err = g.mayRead(s, who) })
	if err != nil {
		g.setAge(m, r, &a)
		return a, err
	}
	state, plan := g.plan(m)
	silent := g.whoIsSilent(m, state)
	if r.Op == opPins {
		a.pins(state, plan, silent, r)
	} else {
		a.members(state, plan, silent, r.Peer, limited(r.Limit))
	}
	g.setAge(m, r, &a)
	return a, nil
}

func (g *Group) setAge(m *member, r request, a *answer) {
	if r.Read == readStale {
		a.Stale = !m.leads()
		a.Age = m.age().Milliseconds()
	}
}

// mayRead says no to who has no role to read. The state of a member that lacks the
// member itself is not up to date: it does not know who may, and others do.
func (g *Group) mayRead(s *pinset.State, who asker) error {
	if s.MayRead(who.peer) {
		return nil
	}
	_, member := s.Member(g.c.self())
	if _, gone := s.Tombstone(g.c.self()); !member && !gone {
		return fmt.Errorf("%w: it is being brought up to date", ErrStopped)
	}
	return denied("only a reader may ask the group")
}

// status needs no quorum: it says how this member sees the group.
func (g *Group) status(m *member, who asker) (answer, error) {
	st := &Status{Group: g.id, Peer: g.c.self(), Term: m.term(), Commit: m.commitIndex()}
	if l := m.leader(); l != "" {
		st.Leader = pinset.Peer(l.String())
	}
	for _, s := range m.servers() {
		if s.voter {
			st.Voters = append(st.Voters, s.id)
		}
	}
	var err error
	m.fsm.view(func(s *pinset.State) {
		info, founded := s.Group()
		known := who.peer == g.c.self() // which may not have its own entry yet
		if !founded {                   // the leader asks how far it is
			known = known || slices.ContainsFunc(g.known().Members, func(k knownMember) bool { return k.Peer == who.peer })
		}
		if !known {
			err = g.mayRead(s, who)
		}
		n := s.Counts()
		st.Name, st.Epoch, st.Pins, st.Names, st.Members = info.Name, info.Epoch, n.Pins, n.Names, n.Members
		st.Admins, st.Open, st.Grace = n.Admins, s.ReadingOpen(), s.Grace().Milliseconds()
	})
	st.Applied = m.appliedIndex()
	st.LastTerm, st.Last = m.lastEntry()
	if err != nil {
		return answer{}, err
	}
	return answer{Status: st, Index: st.Applied, Stale: !m.leads(), Age: m.age().Milliseconds()}, nil
}

// write has a command done. The leader calls it.
func (g *Group) write(ctx context.Context, m *member, who asker, r request) (answer, error) {
	if err := m.fence(ctx); err != nil {
		return answer{}, err
	}
	result, err := g.done(ctx, m, who, r)
	if err != nil {
		return answer{}, err
	}
	a := resultAnswer(result)
	if r.Op == opJoin && result.Code == pinset.OK {
		f := g.known()
		a.Record, a.Epochs = &f.Record, f.Epochs
		m.fsm.view(func(s *pinset.State) {
			a.founders(s)
		})
	}
	return a, nil
}

// done returns the result of a command, which is repeated or proposed now.
func (g *Group) done(ctx context.Context, m *member, who asker, r request) (result pinset.Result, err error) {
	repeated := false
	m.fsm.view(func(s *pinset.State) { result, repeated = s.Result(r.Client, r.Seq) })
	if repeated {
		return result, nil
	}
	h := pinset.Header{Client: r.Client, Seq: r.Seq, By: who.peer, At: time.Now().UnixMilli()}
	c, err := command(h, r)
	if err != nil {
		return result, err
	}
	frame, err := pinset.EncodeCommand(c)
	if err != nil {
		return result, err
	}
	if err := g.mayWrite(m, who, r, c); err != nil {
		return result, err
	}
	return m.apply(ctx, frame)
}

// checkJoin checks that who joins holds the token's private half, and said so to
// this member on this stream. A voter that forwards has done it.
func (g *Group) checkJoin(who asker, r request) error {
	if r.Token == nil || r.Signature == nil {
		return answered(wordInvalid, "a join needs a token and a signature")
	}
	if who.forwarded {
		return nil
	}
	statement := joinStatement(g.id, g.known().Epoch, who.peer, g.c.self(), r.Nonce, who.nonce)
	if !ed25519.Verify(r.Token[:], statement, r.Signature[:]) {
		return answered(wordUnknown, "the token's signature is wrong")
	}
	return nil
}

// command is the command that a request asks for.
func command(h pinset.Header, r request) (pinset.Command, error) {
	switch r.Op {
	case opPin:
		if r.ID == nil {
			break
		}
		return &pinset.SetPin{Header: h, Name: r.Name, Lookup: r.Lookup, ID: *r.ID, Kind: r.Kind, Size: r.Size,
			Replicas: r.Replicas, Expires: r.Expires, Source: r.Source, Expect: r.Expect}, nil
	case opUnpin:
		return &pinset.Unpin{Header: h, Lookup: r.Lookup, ID: r.ID, Expect: r.Expect}, nil
	case opInvite:
		if r.Token == nil || r.TTL <= 0 || r.TTL > pinset.IntMax-h.At {
			break
		}
		return &pinset.Invite{Header: h, Token: *r.Token, Role: r.Admit, Expires: h.At + r.TTL}, nil
	case opJoin:
		if r.Token == nil {
			break
		}
		return &pinset.Join{Header: h, Token: *r.Token, Capacity: r.Capacity, Zone: r.Zone, Addrs: r.Addrs, NoStore: r.NoStore}, nil
	case opRemove:
		return &pinset.Remove{Header: h, Peer: r.Peer}, nil
	case opLeave:
		return &pinset.Remove{Header: h, Peer: h.By}, nil
	case opGrant:
		if !validPeer(r.Peer) && r.Peer != pinset.Everyone {
			break
		}
		return &pinset.Grant{Header: h, Peer: r.Peer, Role: r.Role}, nil
	case opRevoke:
		return &pinset.Revoke{Header: h, Peer: r.Peer, Role: r.Role}, nil
	case opUpdate:
		if x := r.Change; x != nil {
			return &pinset.SetMember{Header: h, Peer: h.By, Capacity: x.Capacity, Zone: x.Zone, NoStore: x.NoStore}, nil
		}
		return &pinset.SetMember{Header: h, Peer: h.By, Addrs: &r.Addrs}, nil
	case opSet:
		return &pinset.Settings{Header: h, Grace: &r.Grace}, nil
	}
	return nil, answered(wordInvalid, "%.40q: unknown, or a field is wrong", string(r.Op))
}

// validPeer says whether p is a peer ID's text.
func validPeer(p pinset.Peer) bool {
	id, err := peer.Decode(string(p))
	return err == nil && pinset.Peer(id.String()) == p
}
