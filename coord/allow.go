package coord

import "github.com/p2pshare/p2pshare/coord/internal/pinset"

// needs is which role an op takes that writes. Those that are not here take a member.
var needs = map[op]pinset.Roles{
	opPin: pinset.RoleWriter, opUnpin: pinset.RoleWriter,
	opInvite: pinset.RoleAdmin, opRemove: pinset.RoleAdmin, opGrant: pinset.RoleAdmin, opRevoke: pinset.RoleAdmin, opSet: pinset.RoleAdmin,
}

// mayWrite says no to what the state would deny. The state decides; but a command
// takes a place in the log and among the results that are kept, whatever becomes of
// it, and those of others must not be pushed out by who may not write.
func (g *Group) mayWrite(m *member, who asker, r request, c pinset.Command) error {
	if r.Op == opJoin {
		if err := g.checkJoin(who, r); err != nil {
			return err
		}
	}
	var err error
	m.fsm.view(func(s *pinset.State) {
		if by, member := s.Member(who.via); who.forwarded && (!member || by.Vote != pinset.Voter) {
			err = denied("only a voter may ask for another peer")
			return
		}
		if join, is := c.(*pinset.Join); is {
			err = resultError(s.MayJoin(join))
			return
		}
		err = allowed(s, who.peer, r)
	})
	return err
}

// allowed says whether a peer may do what it asks for.
func allowed(s *pinset.State, p pinset.Peer, r request) error {
	need := needs[r.Op]
	if r.Op == opRemove && r.Peer == p {
		need = 0 // it leaves
	}
	roles := s.Roles(p)
	switch _, member := s.Member(p); {
	case need == 0 && !member:
		return denied("this peer is no member of the group")
	case need != 0 && roles == 0:
		return denied("this peer has no role in the group")
	case !roles.Has(need):
		return denied("only one with the role %q may do that", need)
	}
	return nil
}
