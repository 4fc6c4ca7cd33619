package pinset

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"

	"github.com/p2pshare/p2pshare/share/content"
)

// Versions of the two formats.
const (
	commandVersion = 1
	stateVersion   = 2
)

// stateVersionLeast can still be read. Version 1 has no copies, and members, the
// group and pins end before what only version 2 has; what has none of that is
// written alike in both, and has the same Hash.
const stateVersionLeast = 1

// Limits. Those in bytes are of UTF-8. A command beyond one is answered
// Invalid, a state beyond one is not decoded.
const (
	CommandBytesMax = 256 << 10 // of a frame: an epoch of 1,000 members fits

	NameBytesMax    = 255
	LookupBytesMax  = 4096 // NFKC makes a name up to 11 times longer
	PeerBytesMax    = 128
	ZoneBytesMax    = 64
	AddrsMax        = 8
	AddrBytesMax    = 128
	ReplicasMax     = 64
	IntMax          = 1<<53 - 1 // what every JSON reader keeps exact: sizes, times, indices
	HistoryMax      = 16        // bindings kept of one name
	NamesPerPinMax  = 256       // so that no unpin takes longer than about a millisecond
	PinsMax         = 10_000_000
	NamesMax        = 10_000_000
	MembersMax      = 1_000
	PeersMax        = 10_000 // with a role
	TokensMax       = 10_000
	TombstonesMax   = 1_000   // of them and of the next three the oldest go
	UnboundMax      = 10_000  // names that are not bound any more, and have a history
	ChangesMax      = 10_000  // in the log
	SessionsMax     = 1 << 16 // results kept for commands that are repeated
	DropsMax        = 512     // pins and names that one Expire drops, and NamesPerPinMax more
	TokenRetainedMs = 30 * 24 * 3600 * 1000

	CopiesMax      = 3_000 // contents that one Copies tells of, all lists together
	GraceMsMin     = 1_000
	GraceMsMax     = 30 * 24 * 3600 * 1000
	GraceMsDefault = 15 * 60 * 1000
)

// Op is what a command does: the second byte of its frame. Numbers are never
// reused, and new ones come at the end.
type Op uint8

const (
	OpFound Op = iota + 1
	OpPin
	OpUnpin
	OpMember
	OpRemove
	OpGrant
	OpRevoke
	OpInvite
	OpJoin
	OpUninvite
	OpExpire
	OpMark
	OpEpoch
	OpCopies
	OpAway
	OpSettings
)

var opWords = words[Op]{"", "found", "pin", "unpin", "member", "remove", "grant", "revoke",
	"invite", "join", "uninvite", "expire", "mark", "epoch", "copies", "away", "settings"}

func (o Op) String() string                { return opWords.text(o) }
func (o Op) MarshalText() ([]byte, error)  { return opWords.marshal(o) }
func (o *Op) UnmarshalText(b []byte) error { return opWords.unmarshal(o, b) }

// ReplicasAll as a replication factor stands for a copy on every member that
// holds any. Of two pins of one content it is the higher factor.
const ReplicasAll = 255

// Kind is what a content ID is of: a file's bytes or a directory's listing.
type Kind uint8

const (
	KindFile Kind = iota + 1
	KindDir
)

var kindWords = words[Kind]{"", "file", "dir"}

func (k Kind) String() string                { return kindWords.text(k) }
func (k Kind) MarshalText() ([]byte, error)  { return kindWords.marshal(k) }
func (k *Kind) UnmarshalText(b []byte) error { return kindWords.unmarshal(k, b) }

// Vote tells whether a member votes in Raft. Zero stands for no change in a
// command, and is not in a state.
type Vote uint8

const (
	Learner Vote = iota + 1
	Voter
)

var voteWords = words[Vote]{"", "learner", "voter"}

func (v Vote) String() string                { return voteWords.text(v) }
func (v Vote) MarshalText() ([]byte, error)  { return voteWords.marshal(v) }
func (v *Vote) UnmarshalText(b []byte) error { return voteWords.unmarshal(v, b) }

// Admission is as what a token lets its user join. All begin as learners.
type Admission uint8

const (
	AsVoter       Admission = iota + 1 // writes, stores, and is to be promoted
	AsStorage                          // stores
	AsWriter                           // writes
	AsReader                           // reads
	AsVoterAtOnce                      // as AsVoter, and is promoted even where that leaves an even count
)

var admissionWords = words[Admission]{"", "voter", "storage", "writer", "reader", "voter_at_once"}

func (a Admission) String() string                { return admissionWords.text(a) }
func (a Admission) MarshalText() ([]byte, error)  { return admissionWords.marshal(a) }
func (a *Admission) UnmarshalText(b []byte) error { return admissionWords.unmarshal(a, b) }

// Roles is a set of what a peer may do.
type Roles uint8

const (
	RoleAdmin   Roles = 1 << iota // members, tokens, roles
	RoleWriter                    // pin and unpin
	RoleReader                    // ask
	RoleStorage                   // hold copies
	rolesEnd
)

var roleWords = []string{"admin", "writer", "reader", "storage"}

// Has reports whether r has all roles of q.
func (r Roles) Has(q Roles) bool { return r&q == q }

// String lists the roles in the order of the constants: "admin,writer".
func (r Roles) String() string {
	var list []string
	for i, w := range roleWords {
		if r.Has(1 << i) {
			list = append(list, w)
		}
	}
	return strings.Join(list, ",")
}

func (r Roles) MarshalText() ([]byte, error) {
	if r >= rolesEnd {
		return nil, fmt.Errorf("roles %#x: unknown", uint8(r))
	}
	return []byte(r.String()), nil
}

func (r *Roles) UnmarshalText(b []byte) error {
	*r = 0
	for w := range strings.SplitSeq(string(b), ",") {
		for i, known := range roleWords {
			if w == known {
				*r |= 1 << i
			}
		}
	}
	if r.String() != string(b) {
		return fmt.Errorf("roles %.80q: unknown, or not in order", b)
	}
	return nil
}

// words are the texts of an enumeration by number; 0 stands for nothing.
type words[T ~uint8] []string

func (w words[T]) known(v T) bool { return v > 0 && int(v) < len(w) }

func (w words[T]) text(v T) string {
	if v > 0 && !w.known(v) {
		return fmt.Sprintf("unknown(%d)", v)
	}
	return w[v]
}

func (w words[T]) marshal(v T) ([]byte, error) {
	if v > 0 && !w.known(v) {
		return nil, fmt.Errorf("%d: want at most %d", v, len(w)-1)
	}
	return []byte(w[v]), nil
}

func (w words[T]) unmarshal(v *T, b []byte) error {
	for i, text := range w {
		if text == string(b) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("%.80q: want one of %s", b, strings.Join(w[1:], ", "))
}

// Peer is a peer ID in its text form: 1 to 128 visible ASCII characters. That
// it is one, and whose, is checked by who makes a command.
type Peer string

// Everyone is not a peer: granted RoleReader, it opens reading to whoever asks. No
// other role can be given to it, and it is never a member.
const Everyone Peer = "everyone"

// Client names whoever numbers its commands: 16 random bytes, not all zero.
type Client [16]byte

// Key is an Ed25519 public key.
type Key [32]byte

// Digest is a Hash of a state, or a group's ID.
type Digest [32]byte

// Signature is of Ed25519. Zero stands for none.
type Signature [64]byte

func (c Client) MarshalText() ([]byte, error)     { return hexText(c[:]) }
func (c *Client) UnmarshalText(b []byte) error    { return unhex(c[:], b) }
func (k Key) MarshalText() ([]byte, error)        { return hexText(k[:]) }
func (k *Key) UnmarshalText(b []byte) error       { return unhex(k[:], b) }
func (k Key) String() string                      { return hex.EncodeToString(k[:]) }
func (d Digest) MarshalText() ([]byte, error)     { return hexText(d[:]) }
func (d *Digest) UnmarshalText(b []byte) error    { return unhex(d[:], b) }
func (d Digest) String() string                   { return hex.EncodeToString(d[:]) }
func (s Signature) MarshalText() ([]byte, error)  { return hexText(s[:]) }
func (s *Signature) UnmarshalText(b []byte) error { return unhex(s[:], b) }

func hexText(b []byte) ([]byte, error) { return hex.AppendEncode(nil, b), nil }

func unhex(to, text []byte) error {
	if len(text) != hex.EncodedLen(len(to)) || bytes.ContainsFunc(text, unicode.IsUpper) {
		return fmt.Errorf("%.80q: want %d lower-case hex digits", text, hex.EncodedLen(len(to)))
	}
	_, err := hex.Decode(to, text)
	return err
}

// Command is one of the structs below, by pointer. Fields are in the order of
// the canonical JSON.
type Command interface {
	Op() Op
	header() *Header
	// check returns why the command can never be done, "" when it may be.
	check() string
	// payload reads or writes the fields after the header.
	payload(*payload)
}

// Header begins every command.
type Header struct {
	// Client and Seq tell a command from every other one: the second time a
	// pair comes, it is answered as the first time, and nothing is done.
	Client Client `json:"client"`
	Seq    uint64 `json:"seq"` // 1…IntMax

	By Peer  `json:"by"` // who asked for it, as its connection proved
	At int64 `json:"at"` // Unix milliseconds on the leader's clock, 1…IntMax
}

func (h *Header) header() *Header { return h }

// Expect is the condition of a pin or unpin: the log index at which the binding
// (or the pin, where no name is given) that it replaces was made.
type Expect int64

const (
	ExpectNone Expect = 0  // nothing is there
	ExpectAny  Expect = -1 // whatever is there, or nothing
)

// Source is a peer that has a content when it is pinned. An empty one is none.
type Source struct {
	Peer  Peer     `json:"peer"`
	Addrs []string `json:"addrs,omitempty"` // multiaddrs, at most AddrsMax
}

// Found makes the group. Only the first command can; its By becomes admin,
// writer, and a voter.
type Found struct {
	Header
	Group    Digest   `json:"group"` // the group's ID
	Name     string   `json:"name"`  // as people call it
	Recovery Key      `json:"recovery"`
	Capacity int64    `json:"capacity"` // and the rest: the founder as a member
	Zone     string   `json:"zone,omitempty"`
	Addrs    []string `json:"addrs,omitempty"`
	NoStore  bool     `json:"no_store,omitempty"`
	Grace    int64    `json:"grace,omitempty"` // milliseconds; 0 is GraceMsDefault
}

// SetPin pins a content, and binds a name to it unless Name is empty. The
// replicas, expiry and source become those given, but for a content that is
// pinned under another name too, or without one: then it keeps the higher
// replication factor and the later expiry, as others rely on them.
type SetPin struct {
	Header
	Name     string     `json:"name,omitempty"`   // display form
	Lookup   string     `json:"lookup,omitempty"` // its lookup form, computed by who makes the command
	ID       content.ID `json:"id"`
	Kind     Kind       `json:"kind"`
	Size     int64      `json:"size"`
	Replicas int64      `json:"replicas"`          // 1…ReplicasMax, or ReplicasAll; not int, which machines bound differently
	Expires  int64      `json:"expires,omitempty"` // Unix milliseconds; 0 is never
	Source   *Source    `json:"source,omitempty"`  // nil leaves the one that is known
	Expect   Expect     `json:"expect"`
}

// Unpin takes away the binding of Lookup, and the pin when no other name is
// bound to it and it was not pinned without one; or, with ID, the pin and every
// name of it. One of the two is given.
type Unpin struct {
	Header
	Lookup string      `json:"lookup,omitempty"`
	ID     *content.ID `json:"id,omitempty"`
	Expect Expect      `json:"expect"` // not ExpectNone
}

// SetMember adds a member, or changes what is not nil (or zero, Vote) of one.
//
// An admin may change all; a member its own Capacity, Zone, Addrs and NoStore;
// and a voter the Vote of a member that MayVote, which is how the leader
// promotes and demotes. Only an admin adds.
type SetMember struct {
	Header
	Peer     Peer      `json:"peer"`
	Vote     Vote      `json:"vote,omitempty"`     // of a new one: Learner
	MayVote  *bool     `json:"may_vote,omitempty"` // set by Vote: Voter of an admin, too
	Roles    *Roles    `json:"roles,omitempty"`    // all that are granted
	Capacity *int64    `json:"capacity,omitempty"`
	Zone     *string   `json:"zone,omitempty"`
	Addrs    *[]string `json:"addrs,omitempty"`
	NoStore  *bool     `json:"no_store,omitempty"`
}

// Remove takes a member and its roles out, and leaves a tombstone. A member may
// remove itself.
type Remove struct {
	Header
	Peer Peer `json:"peer"`
}

// Grant gives a role to a peer, which need not be a member.
type Grant struct {
	Header
	Peer Peer  `json:"peer"`
	Role Roles `json:"role"` // just one
}

// Revoke takes a role that was granted. What a vote brings is not affected.
type Revoke struct {
	Header
	Peer Peer  `json:"peer"`
	Role Roles `json:"role"` // just one
}

// Invite puts a token into the state: the public half of it.
type Invite struct {
	Header
	Token   Key       `json:"token"`
	Role    Admission `json:"role"`
	Expires int64     `json:"expires"` // Unix milliseconds
}

// Join consumes a token and makes By a member, in one step. That By holds the
// private half was checked by who makes the command.
type Join struct {
	Header
	Token    Key      `json:"token"`
	Capacity int64    `json:"capacity"`
	Zone     string   `json:"zone,omitempty"`
	Addrs    []string `json:"addrs,omitempty"`
	NoStore  bool     `json:"no_store,omitempty"`
}

// Uninvite drops a token, used or not.
type Uninvite struct {
	Header
	Token Key `json:"token"`
}

// Expire drops pins that expire at At or before, with their names, and tokens
// that expired 30 days before. It does no more than takes a few milliseconds,
// and says when there is more: send another.
type Expire struct{ Header }

// Mark compares the members' states: it carries the leader's Hash at the mark
// before, which every member compares with its own, and begins the next.
type Mark struct {
	Header
	Index uint64 `json:"index"` // of the mark before, 0 when there was none
	Hash  Digest `json:"hash"`  // at that mark; zero when there was none
}

// Epoch begins a new epoch after the quorum was lost: the group goes on with
// Members alone, every other member is removed, and invitations that were not used
// are void.
//
// By is an admin, or Signature is that of the group's recovery key over what
// Statement returns.
type Epoch struct {
	Header
	Epoch     uint64        `json:"epoch"`           // one more than the last
	State     Digest        `json:"state"`           // Hash that it was decided on; kept, not compared
	Members   []EpochMember `json:"members"`         // a voter at least, sorted by peer
	Admin     Peer          `json:"admin,omitempty"` // one of them that becomes admin
	Signature *Signature    `json:"signature,omitempty"`
}

// EpochMember is one that stays, or comes.
type EpochMember struct {
	Peer Peer `json:"peer"`
	Vote Vote `json:"vote"`
}

// Copies tells which copies a member holds: what changed since it was last told.
// By is the member itself, or a voter that looked. A content that is not pinned is
// passed over, as it may have been unpinned meanwhile. Of a content that is in two
// lists the later list counts.
type Copies struct {
	Header
	Peer Peer `json:"peer"` // whose
	// Gone are held no more.
	Gone []content.ID `json:"gone,omitempty"`
	// Held are whole, verified and on disk. One that is unproven stays so, unless
	// By is a voter other than Peer: then it was challenged again, and proved it.
	Held []content.ID `json:"held,omitempty"`
	// Unproven could not be proved when challenged. Only a voter may say so. They
	// are no copies, and Peer is not to hold them.
	Unproven []content.ID `json:"unproven,omitempty"`
}

// Away tells which members the plan is to do without, and which again with. Only a
// voter may say so: the leader, who hears them. Peers that are not members are
// passed over.
type Away struct {
	Header
	Away []Peer `json:"away,omitempty"` // not heard for the grace time
	Back []Peer `json:"back,omitempty"`
	// Unproven could prove hardly any of the contents that they reported: nothing
	// they hold counts. Proven did, later.
	Unproven []Peer `json:"unproven,omitempty"`
	Proven   []Peer `json:"proven,omitempty"`
}

// Settings changes what of the group is not nil. Only an admin may.
type Settings struct {
	Header
	// Grace is how long a member is not heard before the plan does without it, in
	// milliseconds: GraceMsMin…GraceMsMax. A short one copies what a restart would
	// have brought back; in a long one a second member may fail.
	Grace *int64 `json:"grace,omitempty"`
}

func (*Found) Op() Op     { return OpFound }
func (*SetPin) Op() Op    { return OpPin }
func (*Unpin) Op() Op     { return OpUnpin }
func (*SetMember) Op() Op { return OpMember }
func (*Remove) Op() Op    { return OpRemove }
func (*Grant) Op() Op     { return OpGrant }
func (*Revoke) Op() Op    { return OpRevoke }
func (*Invite) Op() Op    { return OpInvite }
func (*Join) Op() Op      { return OpJoin }
func (*Uninvite) Op() Op  { return OpUninvite }
func (*Expire) Op() Op    { return OpExpire }
func (*Mark) Op() Op      { return OpMark }
func (*Epoch) Op() Op     { return OpEpoch }
func (*Copies) Op() Op    { return OpCopies }
func (*Away) Op() Op      { return OpAway }
func (*Settings) Op() Op  { return OpSettings }

// newCommand returns an empty command, nil when the op is unknown.
func newCommand(op Op) Command {
	switch op {
	case OpFound:
		return new(Found)
	case OpPin:
		return new(SetPin)
	case OpUnpin:
		return new(Unpin)
	case OpMember:
		return new(SetMember)
	case OpRemove:
		return new(Remove)
	case OpGrant:
		return new(Grant)
	case OpRevoke:
		return new(Revoke)
	case OpInvite:
		return new(Invite)
	case OpJoin:
		return new(Join)
	case OpUninvite:
		return new(Uninvite)
	case OpExpire:
		return new(Expire)
	case OpMark:
		return new(Mark)
	case OpEpoch:
		return new(Epoch)
	case OpCopies:
		return new(Copies)
	case OpAway:
		return new(Away)
	case OpSettings:
		return new(Settings)
	}
	return nil
}
