package coord

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// The protocols of a group; the package comment describes them.
const (
	raftProtocol  protocol.ID = "/p2pshare/raft/1"
	groupProtocol protocol.ID = "/p2pshare/group/1"
)

// Limits and deadlines of the opening.
const (
	openingMax   = 4 << 10
	admissionMax = 1 << 20 // of the answer: up to epochsMax records
	openingWait  = 5 * time.Second
	whyMax       = 40  // bytes kept of admission.Error
	messageMax   = 400 // and of its Message, which are logged
)

// Limits of Raft's streams, of all groups together. Raft keeps up to five to a
// member (pool, heartbeats, pipeline, snapshot), and a cut may leave as many of
// before. libp2p's own limit is 64 a peer and protocol.
const (
	raftStreamsPerPeer = 60
	raftStreams        = 2048
)

// Limits and deadlines of /p2pshare/group/1.
const (
	lineMax        = 1 << 20  // of an answer
	requestMax     = 64 << 10 // of a request: the longest names, all escaped, are half of it
	requestsMax    = 64       // at work at once on one stream
	pagesAtOnce    = 4        // of those, that read more than a name
	groupStreams   = 1024
	groupPerPeer   = 16
	requestWait    = 10 * time.Second // for what a member does for one request
	forwardWait    = 3 * time.Second  // for the leader's answer, which is passed on
	lineWait       = 20 * time.Second // for one line to be taken by the other side
	groupIdle      = 10 * time.Minute // without a request
	pageMax        = 500              // pins, members or changes in an answer
	statusPollWait = time.Second      // for another member's word on how it is
	pollWait       = 2 * time.Second  // the same, for people
	pollsMax       = 64               // members asked at once
	reportMax      = 800              // IDs in a report, of 70 bytes each
)

// Limits of those who have no role yet, and say that they have a token: anybody can.
const (
	joinMax    = 8 << 10 // of a request
	joinersMax = 64      // streams at once; a further one is refused
	// openingsMax bounds the openings of strangers under way at once: they last up to
	// openingWait, and would take the place of members' streams. Further ones are reset.
	openingsMax = 256
	joinerWait  = 30 * time.Second // for all that is done on one
)

// GroupID names a group: the BLAKE3 of its signed founding record.
type GroupID [32]byte

// String is the group's ID in 64 hexadecimal digits.
func (g GroupID) String() string { return hex.EncodeToString(g[:]) }

// Short is how an ID begins, for people.
func (g GroupID) Short() string { return g.String()[:8] }

// MarshalText returns String.
func (g GroupID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (g *GroupID) UnmarshalText(text []byte) error {
	id, err := ParseGroupID(string(text))
	if err == nil {
		*g = id
	}
	return err
}

// ParseGroupID reads what GroupID.String returns.
func ParseGroupID(s string) (GroupID, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(GroupID{}) || hex.EncodeToString(raw) != s {
		return GroupID{}, fmt.Errorf("group ID %.70q is not 64 hexadecimal digits", s)
	}
	return GroupID(raw), nil
}

// opening is the first line of a stream.
type opening struct {
	Group GroupID `json:"group"`
	Epoch uint64  `json:"epoch"`
	// Record is the digest of the record that began the epoch, where the opener has
	// it: members from the second epoch on.
	Record pinset.Digest `json:"record,omitzero"`
	Join   bool          `json:"join,omitempty"` // it wants to become a member, and has a token
}

// Refusal is why a stream is refused.
type Refusal string

// The words of Refusal, append-only.
const (
	RefusedGroup    Refusal = "group"    // no such group here
	RefusedEpoch    Refusal = "epoch"    // the opener's epoch is over
	RefusedStranger Refusal = "stranger" // it is no member and has no role
	RefusedRemoved  Refusal = "removed"  // it was a member
	RefusedStopped  Refusal = "stopped"  // the member does not take part just now
	RefusedBehind   Refusal = "behind"   // the opener's epoch is not known here
	RefusedSplit    Refusal = "split"    // the opener's epoch began with another recovery here
	RefusedLearner  Refusal = "learner"  // Raft, from a member that has no vote and none to come
)

// admission is the answer to an opening.
type admission struct {
	OK    bool   `json:"ok,omitempty"`
	Epoch uint64 `json:"epoch,omitempty"` // of the one that answers
	Nonce nonce  `json:"nonce,omitzero"`  // with OK, to be signed by one that joins

	Error   Refusal     `json:"error,omitempty"`
	Message string      `json:"message,omitempty"`
	By      pinset.Peer `json:"by,omitempty"`    // who removed the opener
	Index   uint64      `json:"index,omitempty"` // at which log index
	// Records began the epochs after the first. They are shown to who is or was a
	// member and is not of this epoch.
	Records []node.Envelope `json:"records,omitempty"`

	joins bool // the opener has no role, and holds a place of Coord.joiners
}

// nonce is 16 random bytes, used once.
type nonce [16]byte

func (n nonce) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, n[:]), nil }

func (n *nonce) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(n) {
		return fmt.Errorf("%.40q is not a nonce of 32 hexadecimal digits", text)
	}
	*n = nonce(raw)
	return nil
}

// RefusedError is a member's answer to one whom it does not let in.
type RefusedError struct {
	Why     Refusal
	Message string  // for people: hostile text
	Peer    peer.ID // who refuses
	Epoch   uint64  // of who refuses, 0 when it does not say

	// With RefusedRemoved: who removed this peer, and at which log index.
	By    Peer
	Index uint64

	records []node.Envelope // admission.Records
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s refuses this peer (%.20q): %.200q", e.Peer, string(e.Why), e.Message)
}

// Is makes errors.Is(err, ErrDenied) true for who has no business there: asking
// another member does not help.
func (e *RefusedError) Is(target error) bool {
	return target == ErrDenied && (e.Why == RefusedStranger || e.Why == RefusedRemoved)
}

// op is what a request asks for. Append-only.
type op string

const (
	opResolve op = "resolve" // name → binding
	opPin     op = "pin"
	opUnpin   op = "unpin"
	opPins    op = "pins"   // pins after an ID, with their names
	opStatus  op = "status" // of the member, and of the group as it knows it
	opMembers op = "members"
	opInvite  op = "invite"
	opJoin    op = "join"
	opRemove  op = "remove"
	opLeave   op = "leave"
	opGrant   op = "grant"
	opRevoke  op = "revoke"
	opLog     op = "log"     // changes after a log index
	opUpdate  op = "update"  // of a member's own addresses, capacity, zone
	opRejoin  op = "rejoin"  // of a member that lost its log: take my vote away
	opReport  op = "report"  // of a member to the leader: which copies it holds
	opSet     op = "set"     // of the group's settings
	opHolding op = "holding" // what this member itself has of some contents
)

// readMode says how fresh an answer must be.
type readMode string

const (
	readFresh readMode = ""      // linearizable
	readStale readMode = "stale" // what the member has, with its age
)

// request is one line to a member. Which fields count is up to the op.
type request struct {
	Tag uint64 `json:"tag"` // the opener's, not that of another request at work
	Op  op     `json:"op"`

	// Of a write: the pair makes it one that is done once, however often it is sent.
	Client pinset.Client `json:"client,omitzero"`
	Seq    uint64        `json:"seq,omitempty"`

	// Origin is whose request it is, where a voter forwards it to the leader.
	Origin pinset.Peer `json:"origin,omitempty"`

	Read readMode `json:"read,omitempty"`

	Name   string      `json:"name,omitempty"`
	Lookup string      `json:"lookup,omitempty"` // see share.LookupForm
	ID     *content.ID `json:"id,omitempty"`

	Kind     pinset.Kind    `json:"kind,omitempty"`
	Size     int64          `json:"size,omitempty"`
	Replicas int64          `json:"replicas,omitempty"`
	Expires  int64          `json:"expires,omitempty"` // Unix milliseconds
	Source   *pinset.Source `json:"source,omitempty"`
	Expect   pinset.Expect  `json:"expect,omitempty"`

	After uint64 `json:"after,omitempty"` // log
	Limit int    `json:"limit,omitempty"` // pins, members, log; 0 is pageMax

	Peer  pinset.Peer      `json:"peer,omitempty"`  // remove, grant, revoke; members: those after it
	Role  pinset.Roles     `json:"role,omitempty"`  // grant, revoke
	Admit pinset.Admission `json:"admit,omitempty"` // invite
	TTL   int64            `json:"ttl_ms,omitempty"`

	Token     *pinset.Key       `json:"token,omitempty"` // invite, join
	Nonce     nonce             `json:"nonce,omitzero"`  // join
	Signature *pinset.Signature `json:"signature,omitempty"`
	Capacity  int64             `json:"capacity,omitempty"` // join, update
	Zone      string            `json:"zone,omitempty"`
	Addrs     []string          `json:"addrs,omitempty"`
	NoStore   bool              `json:"no_store,omitempty"`

	Committed uint64 `json:"committed,omitempty"` // rejoin

	IDs     []content.ID `json:"ids,omitempty"`     // pins: these alone; holding
	Explain bool         `json:"explain,omitempty"` // pins: with the reserve order, and why
	Report  *report      `json:"report,omitempty"`
	// Change is what an update changes; nil: the addresses.
	Change *memberChange `json:"change,omitempty"`
	Grace  int64         `json:"grace_ms,omitempty"` // set
}

// memberChange is what a member changes of its own entry: what is not nil.
type memberChange struct {
	Capacity *int64  `json:"capacity,omitempty"`
	Zone     *string `json:"zone,omitempty"`
	NoStore  *bool   `json:"no_store,omitempty"`
}

// report is what a member tells the leader of its store: how it differs from the
// state that the member has applied. The same report twice is one; none is a sign
// of life.
type report struct {
	Held []content.ID `json:"held,omitempty"` // verified here, and not in the state
	Gone []content.ID `json:"gone,omitempty"` // in the state, and not here
	// Spare are in the state and here, and the plan has no use for them: as far as
	// the leader agrees they are taken out of the state, and dropped after that.
	Spare []content.ID `json:"spare,omitempty"`
	// Accused are copies of others that did not stand the proof.
	Accused []accusation `json:"accused,omitempty"`
}

// accusation says that a peer could not show that it holds a content.
type accusation struct {
	Peer pinset.Peer `json:"peer"`
	ID   content.ID  `json:"id"`
}

// word is why a request was not done. Append-only.
type word string

const (
	wordNotLeader word = "not_leader" // ask answer.Leader
	wordNoLeader  word = "no_leader"  // an election is under way: ask again
	wordNoQuorum  word = "no_quorum"  // for seconds there has been no leader
	wordDiskFull  word = "disk_full"
	wordStopped   word = "stopped" // the member does not take part just now
	wordInternal  word = "internal"
	wordRemoved   word = "removed" // the member was taken out of the group itself
	wordSplit     word = "split"

	// Of a command's result: the texts of pinset.Code.
	wordConflict word = "conflict"
	wordDenied   word = "denied"
	wordNotFound word = "not_found"
	wordUnknown  word = "token_unknown"
	wordUsed     word = "token_used"
	wordExpired  word = "token_expired"
	wordExists   word = "exists"
	wordInvalid  word = "invalid"
)

// answer is one line from a member.
type answer struct {
	Tag uint64 `json:"tag"`

	Error   word   `json:"error,omitempty"`
	Message string `json:"message,omitempty"`

	// With not_leader: who leads, and where it is.
	Leader pinset.Peer `json:"leader,omitempty"`
	Addrs  []string    `json:"addrs,omitempty"`

	Index uint64 `json:"index,omitempty"`  // of a write; or that a read saw
	Age   int64  `json:"age_ms,omitempty"` // of a stale read
	Stale bool   `json:"stale,omitempty"`

	Current uint64    `json:"current,omitempty"` // of a conflict: pinset.Result
	Binding *Binding  `json:"binding,omitempty"`
	Pin     *Pin      `json:"pin,omitempty"`
	Pins    []Pin     `json:"pins,omitempty"`
	Members []Member  `json:"members,omitempty"`
	Changes []Change  `json:"changes,omitempty"`
	Status  *Status   `json:"status,omitempty"`
	Holding []Holding `json:"holding,omitempty"` // in the order of the request's IDs

	Record *node.Envelope `json:"record,omitempty"` // of a join: the founding record
	Epochs []knownEpoch   `json:"epochs,omitempty"` // of a join: how the later epochs began

	More bool `json:"more,omitempty"` // there are more pins, members or changes
}

// readOpening reads one line of at most max bytes, byte by byte: what follows
// belongs to another reader.
func readOpening(r io.Reader, max int, v any) error {
	var line []byte
	var b [1]byte
	for {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return err
		}
		if b[0] == '\n' {
			return node.DecodeStrict(line, v)
		}
		if line = append(line, b[0]); len(line) > max {
			return errors.New("the opening line is too long")
		}
	}
}

func writeLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(line, '\n'))
	return err
}
