package pinset

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"slices"
	"strconv"
)

func (s *State) memberOf(p Peer) (*Member, bool) {
	return s.members.get(0, func(m *Member) int { return cmp.Compare(m.Peer, p) })
}

func (s *State) tokenOf(k Key) (*Token, bool) {
	return s.tokens.get(0, func(t *Token) int { return bytes.Compare(t.Token[:], k[:]) })
}

func (s *State) isVoter(p Peer) bool {
	m, member := s.memberOf(p)
	return member && m.Vote == Voter
}

func (s *State) isAdmin(p Peer) bool { return s.granted(p).Has(RoleAdmin) }

// granted returns the roles that p was given, without those its vote brings.
func (s *State) granted(p Peer) Roles {
	g, found := s.grants.get(0, func(g *grant) int { return cmp.Compare(g.peer, p) })
	if !found {
		return 0
	}
	return g.roles
}

// setGranted gives p just those roles.
func (s *State) setGranted(p Peer, roles Roles) {
	before := s.granted(p)
	s.admins += int(bit(roles.Has(RoleAdmin))) - int(bit(before.Has(RoleAdmin)))
	switch {
	case roles > 0:
		put(s, &s.grants, &grant{peer: p, roles: roles})
	case before > 0:
		drop(s, &s.grants, &grant{peer: p})
	}
}

// leavesNoAdmin reports whether giving p just those roles takes the last admin.
func (s *State) leavesNoAdmin(p Peer, roles Roles) bool {
	return s.admins == 1 && s.isAdmin(p) && !roles.Has(RoleAdmin)
}

// manyPeers reports whether giving p a role is beyond the limit.
func (s *State) manyPeers(p Peer) bool {
	return s.grants.length >= PeersMax && s.granted(p) == 0
}

func (s *State) found(c *Found) (outcome, string) {
	if s.group != nil {
		return refuse(Exists, isFounded), ""
	}
	s.setGroup(&Group{ID: c.Group, Name: c.Name, Founder: c.By, Recovery: c.Recovery, At: c.At, Index: s.applied,
		Epoch: 1, EpochBy: c.By, EpochAt: c.At, EpochIndex: s.applied, Grace: c.Grace})
	s.admit(&Member{Peer: c.By, Vote: Voter, MayVote: true, NoStore: c.NoStore,
		Capacity: c.Capacity, Zone: c.Zone, Addrs: c.Addrs, By: c.By, At: c.At, Index: s.applied})
	s.setGranted(c.By, RoleAdmin|RoleWriter)
	return done, c.Name
}

func (s *State) setMember(c *SetMember) (outcome, string) {
	old, known := s.memberOf(c.Peer)
	admin := s.isAdmin(c.By)
	switch {
	case !known && !admin:
		return refuse(Denied, needsAdmin), ""
	case !known && s.members.length >= MembersMax:
		return refuse(Invalid, tooManyMembers), ""
	case known && !admin && !s.maySetMember(c, old):
		return refuse(Denied, needsAdmin), ""
	case c.Roles != nil && s.leavesNoAdmin(c.Peer, *c.Roles):
		return refuse(Denied, lastAdmin), ""
	case c.Roles != nil && *c.Roles > 0 && s.manyPeers(c.Peer):
		return refuse(Invalid, tooManyPeers), ""
	}
	m := Member{Peer: c.Peer, Vote: Learner, By: c.By, At: c.At, Index: s.applied}
	if known {
		m = *old
	}
	m.apply(c)
	m.MayVote = m.MayVote || m.Vote == Voter
	s.admit(&m)
	if c.Roles != nil {
		s.setGranted(c.Peer, *c.Roles)
	}
	return done, string(c.Peer)
}

// maySetMember reports whether one that is not an admin may change a member so.
func (s *State) maySetMember(c *SetMember, old *Member) bool {
	if c.MayVote != nil || c.Roles != nil {
		return false
	}
	own := c.Capacity != nil || c.Zone != nil || c.Addrs != nil || c.NoStore != nil
	if own && c.By != c.Peer {
		return false
	}
	if c.Vote != 0 {
		return old.MayVote && s.isVoter(c.By)
	}
	return own
}

// apply sets what c has.
func (m *Member) apply(c *SetMember) {
	if c.Vote != 0 {
		m.Vote = c.Vote
	}
	set(&m.MayVote, c.MayVote)
	set(&m.Capacity, c.Capacity)
	set(&m.Zone, c.Zone)
	set(&m.Addrs, c.Addrs)
	set(&m.NoStore, c.NoStore)
}

func set[T any](field *T, v *T) {
	if v != nil {
		*field = *v
	}
}

// admit puts a member, who is not a removed one any more.
func (s *State) admit(m *Member) {
	put(s, &s.members, m)
	s.slots = s.slots.with(m.Peer)
	if _, removed := s.Tombstone(m.Peer); removed {
		drop(s, &s.tombstones, &Tombstone{Peer: m.Peer})
	}
}

func (s *State) remove(c *Remove) (outcome, string) {
	_, known := s.memberOf(c.Peer)
	switch {
	case c.By != c.Peer && !s.isAdmin(c.By):
		return refuse(Denied, needsAdmin), ""
	case !known:
		return refuse(NotFound, notMember), ""
	case s.leavesNoAdmin(c.Peer, 0):
		return refuse(Denied, lastAdmin), ""
	}
	s.bury(c.Peer, &c.Header)
	return done, string(c.Peer)
}

// bury takes a member out and its copies, and lets the oldest tombstone go.
func (s *State) bury(p Peer, h *Header) {
	s.forgetCopies(p)
	drop(s, &s.members, &Member{Peer: p})
	s.setGranted(p, 0)
	put(s, &s.tombstones, &Tombstone{Peer: p, By: h.By, At: h.At, Index: s.applied})
	if s.tombstones.length <= TombstonesMax {
		return
	}
	var oldest *Tombstone
	for t := range s.tombstones.all() {
		if oldest == nil || t.Index < oldest.Index {
			oldest = t
		}
	}
	drop(s, &s.tombstones, oldest)
}

func (s *State) grant(c *Grant) (outcome, string) {
	before := s.granted(c.Peer)
	switch {
	case !s.isAdmin(c.By):
		return refuse(Denied, needsAdmin), ""
	case before.Has(c.Role):
		return refuse(Exists, roleGranted), ""
	case s.manyPeers(c.Peer):
		return refuse(Invalid, tooManyPeers), ""
	}
	s.setGranted(c.Peer, before|c.Role)
	return done, c.Role.String() + " " + string(c.Peer)
}

func (s *State) revoke(c *Revoke) (outcome, string) {
	before := s.granted(c.Peer)
	after := before &^ c.Role
	switch {
	case !s.isAdmin(c.By):
		return refuse(Denied, needsAdmin), ""
	case before == after:
		return refuse(NotFound, roleNotGranted), ""
	case s.leavesNoAdmin(c.Peer, after):
		return refuse(Denied, lastAdmin), ""
	}
	s.setGranted(c.Peer, after)
	return done, c.Role.String() + " " + string(c.Peer)
}

func (s *State) invite(c *Invite) (outcome, string) {
	_, known := s.tokenOf(c.Token)
	switch {
	case !s.isAdmin(c.By):
		return refuse(Denied, needsAdmin), ""
	case known:
		return refuse(Exists, tokenExists), ""
	case c.Expires <= c.At:
		return refuse(TokenExpired, tokenExpired), ""
	case s.tokens.length >= TokensMax:
		return refuse(Invalid, tooManyTokens), ""
	}
	put(s, &s.tokens, &Token{Token: c.Token, Role: c.Role, Expires: c.Expires,
		Issuer: c.By, At: c.At, Index: s.applied})
	return done, c.Token.String()
}

// admissionRoles are granted to who joins. A voter's are granted to it while it
// waits for its vote.
var admissionRoles = map[Admission]Roles{
	AsVoter:   RoleWriter | RoleReader | RoleStorage,
	AsStorage: RoleReader | RoleStorage,
	AsWriter:  RoleReader | RoleWriter,
	AsReader:  RoleReader,

	AsVoterAtOnce: RoleWriter | RoleReader | RoleStorage,
}

// mayJoin returns the token of a join, and what the join would be answered.
func (s *State) mayJoin(c *Join) (*Token, outcome) {
	t, known := s.tokenOf(c.Token)
	_, member := s.memberOf(c.By)
	switch {
	case !known:
		return nil, refuse(TokenUnknown, tokenUnknown)
	case t.UsedBy != "":
		return nil, refuse(TokenUsed, tokenUsed)
	case t.Expires <= c.At:
		return nil, refuse(TokenExpired, tokenExpired)
	case !s.isAdmin(t.Issuer):
		return nil, refuse(Denied, issuerGone)
	case member:
		return nil, refuse(Exists, isMember)
	case s.members.length >= MembersMax:
		return nil, refuse(Invalid, tooManyMembers)
	case s.manyPeers(c.By):
		return nil, refuse(Invalid, tooManyPeers)
	}
	return t, done
}

func (s *State) join(c *Join) (outcome, string) {
	t, o := s.mayJoin(c)
	if t == nil {
		return o, ""
	}
	used := *t
	used.UsedBy, used.UsedIndex = c.By, s.applied
	put(s, &s.tokens, &used)
	s.admit(&Member{Peer: c.By, Vote: Learner, MayVote: t.Role == AsVoter || t.Role == AsVoterAtOnce, NoStore: c.NoStore,
		Capacity: c.Capacity, Zone: c.Zone, Addrs: c.Addrs, By: t.Issuer, At: c.At, Index: s.applied})
	s.setGranted(c.By, s.granted(c.By)|admissionRoles[t.Role])
	return done, string(c.By)
}

func (s *State) uninvite(c *Uninvite) (outcome, string) {
	t, known := s.tokenOf(c.Token)
	switch {
	case !s.isAdmin(c.By):
		return refuse(Denied, needsAdmin), ""
	case !known:
		return refuse(TokenUnknown, tokenUnknown), ""
	}
	drop(s, &s.tokens, t)
	return done, c.Token.String()
}

// expireTokens drops tokens some time after they expired: until then their users
// are told.
func (s *State) expireTokens(at int64) int {
	var due []*Token
	for t := range s.tokens.all() {
		if t.Expires <= at-TokenRetainedMs && len(due) < DropsMax {
			due = append(due, t)
		}
	}
	for _, t := range due {
		drop(s, &s.tokens, t)
	}
	return len(due)
}

func (s *State) epoch(c *Epoch) (outcome, string) {
	switch {
	case !s.isAdmin(c.By) && !s.signed(c):
		return refuse(Denied, needsAdmin), ""
	case c.Epoch != s.group.Epoch+1:
		o := refuse(Conflict, otherEpoch)
		o.current = s.group.Epoch
		return o, ""
	case c.Admin == "" && !s.keepsAdmin(c):
		return refuse(Denied, lastAdmin), ""
	case c.Admin != "" && s.manyPeers(c.Admin):
		return refuse(Invalid, tooManyPeers), ""
	}
	g := *s.group
	g.Epoch, g.EpochBy, g.EpochAt, g.EpochIndex, g.EpochState = c.Epoch, c.By, c.At, s.applied, c.State
	s.setGroup(&g)
	if c.Admin != "" {
		s.setGranted(c.Admin, s.granted(c.Admin)|RoleAdmin)
	}
	for _, m := range s.Members() {
		if !c.has(m.Peer) {
			s.bury(m.Peer, &c.Header)
		}
	}
	for _, t := range s.Tokens() {
		if t.UsedBy == "" {
			drop(s, &s.tokens, &t)
		}
	}
	for _, e := range c.Members {
		m := Member{Peer: e.Peer, By: c.By, At: c.At, Index: s.applied}
		if old, known := s.memberOf(e.Peer); known {
			m = *old
		}
		m.Vote = e.Vote
		m.MayVote = m.MayVote || m.Vote == Voter
		s.admit(&m)
	}
	return done, strconv.FormatUint(c.Epoch, 10)
}

func (s *State) signed(c *Epoch) bool {
	return c.Signature != nil && ed25519.Verify(s.group.Recovery[:], c.Statement(s.group.ID), c.Signature[:])
}

// keepsAdmin reports whether an admin is not removed by c: one of its members, or
// one that is no member of the group now.
func (s *State) keepsAdmin(c *Epoch) bool {
	for g := range s.grants.all() {
		if _, member := s.memberOf(g.peer); g.roles.Has(RoleAdmin) && (!member || c.has(g.peer)) {
			return true
		}
	}
	return false
}

func (c *Epoch) has(p Peer) bool {
	_, found := slices.BinarySearchFunc(c.Members, p, func(m EpochMember, p Peer) int { return cmp.Compare(m.Peer, p) })
	return found
}
