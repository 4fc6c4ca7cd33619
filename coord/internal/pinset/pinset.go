// Package pinset is the state machine of a group's Raft log: which name means
// which content, what is pinned, and who may say so. It is pure: it applies
// commands and answers questions. Proposing, signatures of joiners, connections,
// snapshots on disk and the copies themselves belong to its callers. It has the plan
// of which member is to hold what, too (Plan), and decides what a member fetches and
// what it may drop.
//
//	s := pinset.New()
//	frame, err := pinset.EncodeCommand(&pinset.SetPin{…}) // the leader, into the log
//	result, err := s.Apply(index, frame)                  // every member, out of it
//	go s.Clone().Encode(snapshot)                         // while s goes on
//
// A State has one owner and no lock. A Clone costs nothing that grows with it,
// and may be read, encoded and changed in another goroutine.
//
// Everything is deterministic: the same commands at the same log indices give
// equal states on every member, with equal Hash and equal bytes of Encode. Texts
// of results are not part of a state, so that a new build may word them better.
//
// # Commands
//
// A command is a frame, at most 256 KiB:
//
//	version, 1 byte | op, 1 byte | CRC-32C, 4 bytes, big endian | payload
//
// The sum (Castagnoli) is of all but itself. The payload is a JSON object with
// the fields of the struct of that op (wire.go) in the order they stand there:
// those of Header first, no space, those tagged omitempty left out when empty.
// Texts are UTF-8 and escaped as encoding/json does, except that <, > and & stay;
// the client, keys, hashes and signatures are lower-case hex; IDs are "b3:" and
// hex; enumerations are the words of wire.go, roles a list of them with commas.
// Integers are at most 2^53-1. A payload in any other spelling is refused.
//
// An unknown version or op, a wrong sum, or a payload that can't be read is an
// error of Apply, and the member must stop: going on without one command is
// going on with another state. A command that can be read always has a Result.
//
// # Who may do what
//
// What is not allowed here is denied:
//
//	found                     anybody, as the first command, and never again
//	pin, unpin                writer
//	member, remove, grant,
//	revoke, invite, uninvite  admin; a member for itself; see SetMember and Remove
//	join                      who has a token
//	expire, mark, away        voter: the leader does it
//	copies                    a member of its own; a voter of any
//	settings                  admin
//	epoch                     admin, or signed by the recovery key
//
// A voter is writer, reader and storage (not that, with NoStore) besides what it
// was granted, and every role brings that of reader. An admin does not write by
// that alone. There is always an admin: what would take the last is denied. The
// role reader can be granted to everyone, and then whoever asks may read.
//
// A command that is refused changes nothing but the list of results, and is not
// in the log of changes: that list is bounded, and whoever is denied could push
// out of it what others have done.
//
// # Repeated commands
//
// The results of the last 65,536 commands are kept by client and sequence number,
// and go in the order of their log indices. A command that is repeated within
// that many is answered as the first time. After that, what it expects of the
// binding protects a pin or unpin, and a token works once anyway. Commands that
// are Invalid whatever the state are not kept: they are that every time.
//
// # Encoded states
//
// A state is a stream:
//
//	"p2pshare/pinset/" | version, 1 byte, 2 | applied index, varint
//	{ length of a record, varint | record }…
//	0 | Hash, 32 bytes | SHA-256 of all before, 32 bytes
//
// A record is its tag, one byte, and its fields; integers are varints of the
// shortest form, as in Protocol Buffers, texts follow their length. Records come
// by tag (record.go), then in the order of their keys, without a repetition. A
// text that many have, as a peer ID, is a number: the first time it is 0 and the
// text follows, then the count of such texts up to it, from 1.
//
// The group, members and pins end where they did in version 1 when they have no
// grace time, are neither away nor unproven, and have no copies: a state of version 1
// is read, and has the Hash that it had.
//
// The Hash is the sum modulo 2^256 of the SHA-256 of all records, as little
// endian numbers, where shared texts are written in full: a multiset hash, kept
// up to date by each change. It finds states that differ by accident; it is no
// defense against who chooses the records (Wagner 2002), and need not be.
//
// Source: Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing"
// (1997), AdHash; Ongaro, "Consensus: Bridging Theory and Practice" (2014), §6.3
// for the results that are kept.
package pinset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unique"
)

// ErrIndex reports a command whose log index is not above the last applied one:
// a mistake of the caller.
var ErrIndex = errors.New("log index goes back")

// State is what the group agrees on. Make one with [New] or [Decode]; the zero
// State does not work. Not safe for concurrent use; see [State.Clone].
type State struct {
	applied uint64 // last log index

	// Records. They change only through put and drop, which keep sum.
	group      *Group // nil before Found
	mark       *mark  // nil before the first Mark
	members    table[*Member]
	grants     table[*grant]
	tombstones table[*Tombstone]
	tokens     table[*Token]
	pins       table[*pin]
	names      table[*name]
	pasts      table[*past]
	changes    table[*Change]
	sessions   table[*session] // by log index
	sum        sum

	// Derived of them.
	expiries table[*pin]     // those that expire, soonest first
	unbound  table[*past]    // of names that are not bound, oldest first
	byClient table[*session] // by client and sequence number
	admins   int             // grants that have RoleAdmin
	slots    *slots          // of the members

	scratch *encoder // for hashes
}

// New returns the state before the first command.
func New() *State {
	s := &State{
		members:    newTable(compareMembers),
		grants:     newTable(compareGrants),
		tombstones: newTable(compareTombstones),
		tokens:     newTable(compareTokens),
		pins:       newTable(comparePins),
		names:      newTable(compareNames),
		pasts:      newTable(comparePasts),
		changes:    newTable(compareChanges),
		sessions:   newTable(compareByIndex),
		expiries:   newTable(compareExpiries),
		unbound:    newTable(compareUnbound),
		byClient:   newTable(compareSessions),
		slots:      new(slots),
		scratch:    new(encoder),
	}
	s.byClient.key = (*session).key
	s.pins.key = func(p *pin) uint32 { return keyOfID(*p.ref) }
	return s
}

// Clone returns an equal state, in constant time. Both may be used and changed
// from then on, each by its own goroutine: what they have in common is copied
// before it is changed. Clone itself is a change of s.
func (s *State) Clone() *State {
	c := *s
	c.members = s.members.clone()
	c.grants = s.grants.clone()
	c.tombstones = s.tombstones.clone()
	c.tokens = s.tokens.clone()
	c.pins = s.pins.clone()
	c.names = s.names.clone()
	c.pasts = s.pasts.clone()
	c.changes = s.changes.clone()
	c.sessions = s.sessions.clone()
	c.expiries = s.expiries.clone()
	c.unbound = s.unbound.clone()
	c.byClient = s.byClient.clone()
	c.scratch = new(encoder)
	return &c
}

// Apply does one command of the log, at its log index, which must be above the
// last; indices may be left out. cmd is not kept. Whoever has no Roles should be
// refused before a command is proposed: its result takes a place among those kept.
//
// The error wraps [ErrUnknownCommand], [ErrBadCommand] or [ErrIndex]; s has not
// changed then, and must not be used any further as the group's.
func (s *State) Apply(index uint64, cmd []byte) (Result, error) {
	if index <= s.applied || index > IntMax {
		return Result{}, fmt.Errorf("%w: %d after %d", ErrIndex, index, s.applied)
	}
	c, err := DecodeCommand(cmd)
	if err != nil {
		return Result{}, fmt.Errorf("log index %d: %w", index, err)
	}
	s.applied = index
	if text := checkCommand(c); text != "" {
		return Result{Code: Invalid, Index: index, Text: text}, nil
	}
	h := c.header()
	if before, repeated := s.session(h.Client, h.Seq); repeated {
		return before.result(), nil
	}
	m, isMark := c.(*Mark)
	differs := isMark && s.differs(m)
	outcome, subject := s.do(c)
	if outcome.code == OK && subject != "" {
		s.log(h, c.Op(), subject)
	}
	result := s.remember(h, outcome)
	result.Differs = differs && outcome.code == OK
	return result, nil
}

// do is Apply's middle. subject is what the log of changes says of it, "" for
// what does not belong there.
func (s *State) do(c Command) (o outcome, subject string) {
	if _, first := c.(*Found); s.group == nil && !first {
		return refuse(Invalid, notFounded), ""
	}
	switch c := c.(type) {
	case *Found:
		return s.found(c)
	case *SetPin:
		return s.setPin(c)
	case *Unpin:
		return s.unpin(c)
	case *SetMember:
		return s.setMember(c)
	case *Remove:
		return s.remove(c)
	case *Grant:
		return s.grant(c)
	case *Revoke:
		return s.revoke(c)
	case *Invite:
		return s.invite(c)
	case *Join:
		return s.join(c)
	case *Uninvite:
		return s.uninvite(c)
	case *Expire:
		return s.expire(c)
	case *Mark:
		return s.setMark(c)
	case *Epoch:
		return s.epoch(c)
	case *Copies:
		return s.setCopies(c)
	case *Away:
		return s.setAway(c)
	case *Settings:
		return s.settings(c)
	}
	panic("pinset: an op without a case: " + c.Op().String())
}

// session returns what is known of a command, by its client's number.
func (s *State) session(c Client, seq uint64) (*session, bool) {
	return s.byClient.get(keyOfSession(&c, seq), func(x *session) int { return x.compareTo(&c, seq) })
}

// remember keeps an outcome in case the command is repeated, and lets the oldest
// go.
func (s *State) remember(h *Header, o outcome) Result {
	x := &session{client: h.Client, seq: h.Seq, index: s.applied}
	if o != done {
		x.outcome = &o
	}
	put(s, &s.sessions, x)
	s.byClient.set(x)
	if s.sessions.length > SessionsMax {
		old, _ := s.sessions.least()
		drop(s, &s.sessions, old)
		s.byClient.remove(old.key(), func(x *session) int { return compareSessions(x, old) })
	}
	return x.result()
}

// log notes a change, and lets the oldest go.
func (s *State) log(h *Header, op Op, subject string) {
	put(s, &s.changes, &Change{Index: s.applied, At: h.At, By: h.By, Op: op, Subject: subject})
	if s.changes.length > ChangesMax {
		old, _ := s.changes.least()
		drop(s, &s.changes, old)
	}
}

// put inserts or replaces a record.
func put[T record](s *State, t *table[T], r T) {
	if old, replaced := t.set(r); replaced {
		s.sum.subtract(s.digest(old))
	}
	s.sum.add(s.digest(r))
}

// drop takes out the record that is equal in order to r, which must be there.
func drop[T record](s *State, t *table[T], r T) {
	old, found := t.remove(t.keyOf(r), func(x T) int { return t.compare(x, r) })
	if !found {
		panic("pinset: a record that is not there is dropped")
	}
	s.sum.subtract(s.digest(old))
}

func (s *State) setGroup(g *Group) {
	if s.group != nil {
		s.sum.subtract(s.digest(s.group))
	}
	s.group = g
	s.sum.add(s.digest(g))
}

// Hash is equal for equal states. The index of the last command is not part of
// it, nor anything else that is not agreed on.
func (s *State) Hash() Digest {
	var d Digest
	for i, v := range s.sum {
		binary.LittleEndian.PutUint64(d[8*i:], v)
	}
	return d
}

func (s *State) digest(r record) [sha256.Size]byte {
	s.scratch.b, s.scratch.slots = s.scratch.b[:0], s.slots
	s.scratch.record(r)
	return sha256.Sum256(s.scratch.b)
}

// sum is a number of 256 bits, least significant first.
type sum [4]uint64

func (s *sum) add(d [sha256.Size]byte) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], binary.LittleEndian.Uint64(d[8*i:]), carry)
	}
}

func (s *sum) subtract(d [sha256.Size]byte) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], binary.LittleEndian.Uint64(d[8*i:]), borrow)
	}
}

// differs reports whether this state was another at the mark before.
func (s *State) differs(c *Mark) bool {
	return s.mark != nil && s.mark.index == c.Index && s.mark.hash != c.Hash
}

func (s *State) setMark(c *Mark) (outcome, string) {
	if !s.isVoter(c.By) {
		return refuse(Denied, needsVoter), ""
	}
	s.setMarkRecord(&mark{index: s.applied, hash: s.Hash()})
	return done, ""
}

func (s *State) setMarkRecord(m *mark) {
	if s.mark != nil {
		s.sum.subtract(s.digest(s.mark))
	}
	s.mark = m
	s.sum.add(s.digest(m))
}

func sharedPeer(p Peer) shared { return unique.Make(string(p)) }
