package pinset

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// Group is what the group is, once.
type Group struct {
	ID       Digest
	Name     string
	Founder  Peer
	Recovery Key
	At       int64 // Unix milliseconds, as every At here
	Index    uint64

	Epoch      uint64 // 1 as founded
	EpochBy    Peer   // who began it
	EpochAt    int64
	EpochIndex uint64
	EpochState Digest // Hash that it was decided on; zero in the first

	Grace int64 // milliseconds, 0 for GraceMsDefault; see State.Grace
}

// Binding is a name's content, now or once. In a history one with a zero ID
// stands for the name being taken away.
type Binding struct {
	Name  string // display form
	ID    content.ID
	Kind  Kind
	Size  int64
	By    Peer // who pinned it by that name
	At    int64
	Index uint64 // the log index that made it: see Expect
}

// Pin is one content that the group keeps.
type Pin struct {
	ID       content.ID
	Kind     Kind
	Size     int64
	Replicas int     // ReplicasAll for every holder
	Expires  int64   // Unix milliseconds, 0 for never
	Names    int     // how many are bound to it
	Bare     bool    // pinned without a name
	By       Peer    // who pinned it last
	Index    uint64  // when
	Source   *Source // where it was then; nil when nobody said
	Copies   []Peer  // members that hold a verified copy, sorted; of those away, too
	Unproven []Peer  // members that could not prove theirs, sorted
}

// Member is a peer in the group.
type Member struct {
	Peer     Peer
	Vote     Vote
	MayVote  bool // admitted to vote: a Learner with it is promoted when it has caught up
	NoStore  bool
	Capacity int64 // bytes
	Zone     string
	Addrs    []string // not to be changed
	By       Peer     // who admitted it
	At       int64
	Index    uint64
	Away     bool // not heard for the grace time: the plan does without it
	Unproven bool // could not prove what it holds: that counts for nothing
}

// Tombstone tells of a member that was removed.
type Tombstone struct {
	Peer  Peer
	By    Peer
	At    int64
	Index uint64
}

// Token is the public half of an invitation.
type Token struct {
	Token     Key
	Role      Admission
	Expires   int64
	Issuer    Peer
	At        int64
	Index     uint64
	UsedBy    Peer   // "" until it is used
	UsedIndex uint64 // 0 until then
}

// Change is an entry of the log of changes.
type Change struct {
	Index   uint64
	At      int64
	By      Peer
	Op      Op
	Subject string // a name, ID, peer, role and peer, or token; how many, of expire
}

// Counts tells how much there is.
type Counts struct {
	Pins, Names, Members, Tokens int
	Admins                       int // peers that were granted RoleAdmin
}

// Index returns the log index of the last command, 0 before the first.
func (s *State) Index() uint64 { return s.applied }

// Counts returns how much there is.
func (s *State) Counts() Counts {
	return Counts{Pins: s.pins.length, Names: s.names.length, Members: s.members.length, Tokens: s.tokens.length, Admins: s.admins}
}

// Group returns what the group is, false before it was founded.
func (s *State) Group() (Group, bool) {
	if s.group == nil {
		return Group{}, false
	}
	return *s.group, true
}

// Grace is how long a member is not heard before the plan does without it.
func (s *State) Grace() time.Duration {
	ms := int64(GraceMsDefault)
	if s.group != nil && s.group.Grace != 0 {
		ms = s.group.Grace
	}
	return time.Duration(ms) * time.Millisecond
}

// Mark returns the log index of the last Mark and the Hash before it, for the
// next; zero when there was none.
func (s *State) Mark() (index uint64, hash Digest) {
	if s.mark == nil {
		return 0, Digest{}
	}
	return s.mark.index, s.mark.hash
}

// Resolve returns what is bound to a lookup form.
func (s *State) Resolve(lookup string) (Binding, bool) {
	n, bound := s.nameOf(lookup)
	if !bound {
		return Binding{}, false
	}
	return s.binding(n), true
}

// History returns the last bindings of a lookup form, newest first, with the
// present one; at most HistoryMax. It is empty for a name that never was, or was
// taken away long ago.
func (s *State) History(lookup string) []Binding {
	var history []Binding
	if b, bound := s.Resolve(lookup); bound {
		history = append(history, b)
	}
	if p := s.pastOf(lookup); p != nil {
		for _, v := range slices.Backward(p.versions) {
			history = append(history, v.binding())
		}
	}
	return history
}

// Pin returns the pin of a content.
func (s *State) Pin(id content.ID) (Pin, bool) {
	p, pinned := s.pinOf(id)
	if !pinned {
		return Pin{}, false
	}
	return s.public(p), true
}

func (s *State) public(p *pin) Pin {
	o := p.origin.Value()
	return Pin{ID: p.id(), Kind: p.kind, Size: p.size, Replicas: int(p.replicas), Expires: p.expires(),
		Names: p.nameCount(), Bare: p.bare, By: Peer(o.by.Value()), Index: p.index, Source: splitSource(o.source),
		Copies: s.slots.list(p.held()), Unproven: s.slots.list(p.unproven())}
}

// Pins yields the pins whose ID is greater than after, in order. The zero ID is
// before all. s must not be changed until the loop ends: a clone may.
func (s *State) Pins(after content.ID) iter.Seq[Pin] {
	return func(yield func(Pin) bool) {
		for p := range s.pins.from(func(p *pin) int { return beyond(bytes.Compare(p.ref[:], after[:])) }) {
			if !yield(s.public(p)) {
				return
			}
		}
	}
}

// Names yields lookup forms greater than after and their bindings, in order. ""
// is before all. s must not be changed until the loop ends.
func (s *State) Names(after string) iter.Seq2[string, Binding] {
	return func(yield func(string, Binding) bool) {
		for n := range s.names.from(func(n *name) int { return beyond(strings.Compare(n.lookup(), after)) }) {
			if !yield(n.lookup(), s.binding(n)) {
				return
			}
		}
	}
}

// NamesOf yields the lookup forms bound to a content and their bindings, in
// order; at most NamesPerPinMax.
func (s *State) NamesOf(id content.ID) iter.Seq2[string, Binding] {
	return func(yield func(string, Binding) bool) {
		p, pinned := s.pinOf(id)
		if !pinned {
			return
		}
		for _, n := range p.names() {
			if !yield(n.lookup(), s.binding(n)) {
				return
			}
		}
	}
}

// beyond makes what is equal less, for what begins after a cursor.
func beyond(compared int) int {
	if compared == 0 {
		return -1
	}
	return compared
}

// Members returns the members, by peer.
func (s *State) Members() []Member { return values(&s.members) }

// Member returns one member.
func (s *State) Member(p Peer) (Member, bool) {
	m, known := s.memberOf(p)
	if !known {
		return Member{}, false
	}
	return *m, true
}

// Holders returns the members that have the role to store copies, by peer.
func (s *State) Holders() []Member {
	return slices.DeleteFunc(s.Members(), func(m Member) bool { return !s.Roles(m.Peer).Has(RoleStorage) })
}

// Tombstone returns how a peer was removed, if it was and is no member now.
func (s *State) Tombstone(p Peer) (Tombstone, bool) {
	t, found := s.tombstones.get(0, func(t *Tombstone) int { return cmp.Compare(t.Peer, p) })
	if !found {
		return Tombstone{}, false
	}
	return *t, true
}

// Token returns one token, used ones too.
func (s *State) Token(k Key) (Token, bool) {
	t, known := s.tokenOf(k)
	if !known {
		return Token{}, false
	}
	return *t, true
}

// Tokens returns the tokens, used ones too, by key.
func (s *State) Tokens() []Token { return values(&s.tokens) }

// Roles returns what a peer may do: what it was granted, and what follows of that
// and of its vote. A member with NoStore has no RoleStorage, whatever else.
func (s *State) Roles(p Peer) Roles {
	r := s.granted(p)
	m, member := s.memberOf(p)
	if member && m.Vote == Voter {
		r |= RoleWriter | RoleStorage
	}
	if !member || m.NoStore {
		r &^= RoleStorage
	}
	if r > 0 || member {
		r |= RoleReader
	}
	return r
}

// MayRead reports whether a peer may ask the group: who has a role may, and
// everyone where reading is open, but for a member that was removed, which has to
// learn of that.
func (s *State) MayRead(p Peer) bool {
	if s.Roles(p) > 0 {
		return true
	}
	_, removed := s.Tombstone(p)
	return s.ReadingOpen() && !removed
}

// ReadingOpen reports whether who has no role may ask the group.
func (s *State) ReadingOpen() bool { return s.granted(Everyone).Has(RoleReader) }

// VotesAtOnce reports whether a learner's invitation gives it its vote even where
// that leaves an even count.
func (s *State) VotesAtOnce(m Member) bool {
	if m.Vote == Voter || !m.MayVote {
		return false
	}
	for t := range s.tokens.all() {
		if t.Role == AsVoterAtOnce && t.UsedBy == m.Peer && t.UsedIndex == m.Index {
			return true
		}
	}
	return false
}

// Granted yields every peer that was granted a role, and the roles, by peer.
func (s *State) Granted() iter.Seq2[Peer, Roles] {
	return func(yield func(Peer, Roles) bool) {
		for g := range s.grants.all() {
			if !yield(g.peer, g.roles) {
				return
			}
		}
	}
}

// Log yields the changes at a log index above after, oldest first; at most the
// last ChangesMax.
func (s *State) Log(after uint64) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for c := range s.changes.from(func(c *Change) int { return beyond(cmp.Compare(c.Index, after)) }) {
			if !yield(*c) {
				return
			}
		}
	}
}

func values[T any](t *table[*T]) []T {
	list := make([]T, 0, t.length)
	for r := range t.all() {
		list = append(list, *r)
	}
	return list
}

// Due reports whether an Expire at at, in Unix milliseconds, would drop anything.
func (s *State) Due(at int64) bool {
	if p, found := s.expiries.least(); found && p.expires() <= at {
		return true
	}
	for t := range s.tokens.all() {
		if t.Expires <= at-TokenRetainedMs {
			return true
		}
	}
	return false
}

// Result returns what became of a command, as long as it is kept.
func (s *State) Result(client Client, seq uint64) (Result, bool) {
	x, known := s.session(client, seq)
	if !known {
		return Result{}, false
	}
	return x.result(), true
}

// MayJoin returns what a join would be answered now: who joins has no role yet, and
// should not take a place among the results that are kept by being refused.
func (s *State) MayJoin(c *Join) Result {
	_, o := s.mayJoin(c)
	return (&session{index: s.applied, outcome: &o}).result()
}
