package coord

import (
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

// The words of the state machine that callers of this package need.
type (
	// Peer is a peer ID as text.
	Peer = pinset.Peer
	// Kind is what a content ID is of: a file or a directory's listing.
	Kind = pinset.Kind
	// Vote tells whether a member votes.
	Vote = pinset.Vote
	// Roles are what a peer may do.
	Roles = pinset.Roles
	// Admission is as what an invitation lets its user join.
	Admission = pinset.Admission
	// Expect is the condition of a pin or unpin: the log index at which what it
	// replaces was made.
	Expect = pinset.Expect
	// Source is a peer that has a content when it is pinned.
	Source = pinset.Source
)

// See package pinset for what they mean.
const (
	KindFile = pinset.KindFile
	KindDir  = pinset.KindDir

	Learner = pinset.Learner
	Voter   = pinset.Voter

	RoleAdmin   = pinset.RoleAdmin
	RoleWriter  = pinset.RoleWriter
	RoleReader  = pinset.RoleReader
	RoleStorage = pinset.RoleStorage

	AsVoter   = pinset.AsVoter
	AsStorage = pinset.AsStorage
	AsWriter  = pinset.AsWriter
	AsReader  = pinset.AsReader

	AsVoterAtOnce = pinset.AsVoterAtOnce

	ExpectNone = pinset.ExpectNone // nothing is there
	ExpectAny  = pinset.ExpectAny  // whatever is there

	// ReplicasMax is the highest replication factor, but for ReplicasAll.
	ReplicasMax = pinset.ReplicasMax
	// ReplicasAll as a replication factor stands for a copy on every member that holds any.
	ReplicasAll = pinset.ReplicasAll
)

// Binding is what a name means.
type Binding struct {
	Name  string     `json:"name"` // display form
	ID    content.ID `json:"id"`
	Kind  Kind       `json:"kind"`
	Size  int64      `json:"size"`
	By    Peer       `json:"by"`
	At    int64      `json:"at"`    // Unix milliseconds
	Index uint64     `json:"index"` // the log index that made it: see Expect
}

// Pin is a content that the group keeps.
type Pin struct {
	ID       content.ID `json:"id"`
	Kind     Kind       `json:"kind"`
	Size     int64      `json:"size"`
	Replicas int        `json:"replicas"`
	Expires  int64      `json:"expires,omitempty"` // Unix milliseconds, 0 for never
	By       Peer       `json:"by"`
	Index    uint64     `json:"index"`
	Source   *Source    `json:"source,omitempty"`
	Names    []string   `json:"names,omitempty"` // display forms

	Wanted   int    `json:"wanted,omitempty"`   // copies: Replicas, or as many as members hold any for ReplicasAll
	Copies   []Peer `json:"copies,omitempty"`   // who has a verified copy that counts
	Absent   []Peer `json:"absent,omitempty"`   // who has one that does not: it is away or silent, or nothing it says counts
	Unproven []Peer `json:"unproven,omitempty"` // who could not prove that it holds one
	Holders  []Peer `json:"holders,omitempty"`  // who is to hold one, as planned
	Reserve  []Peer `json:"reserve,omitempty"`  // who comes next, when it was asked for
	Lack     string `json:"lack,omitempty"`     // why fewer are planned than wanted: "members" or "room"
}

// Member is a peer in the group.
type Member struct {
	Peer     Peer     `json:"peer"`
	Vote     Vote     `json:"vote"`
	MayVote  bool     `json:"may_vote,omitempty"` // a learner that is to be promoted
	AtOnce   bool     `json:"at_once,omitempty"`  // and that even where it leaves an even count
	Roles    Roles    `json:"roles,omitempty"`
	Capacity int64    `json:"capacity"` // bytes
	Zone     string   `json:"zone,omitempty"`
	Addrs    []string `json:"addrs,omitempty"`
	NoStore  bool     `json:"no_store,omitempty"`
	By       Peer     `json:"by"`
	Index    uint64   `json:"index"`
	Away     bool     `json:"away,omitempty"`     // not heard for the grace time: the plan does without it
	Suspect  bool     `json:"suspect,omitempty"`  // not heard for a while, as far as the leader was asked
	Unproven bool     `json:"unproven,omitempty"` // could not prove what it holds: nothing of it counts
	Planned  int64    `json:"planned,omitempty"`  // bytes that are to be on it
}

// Change is an entry of the group's log of changes.
type Change struct {
	Index   uint64    `json:"index"`
	At      int64     `json:"at"` // Unix milliseconds
	By      Peer      `json:"by"`
	Op      pinset.Op `json:"op"`
	Subject string    `json:"subject,omitempty"`
}

// Status is how a member sees itself and the group.
type Status struct {
	Group   GroupID `json:"group"`
	Name    string  `json:"name"` // as the founder called it
	Epoch   uint64  `json:"epoch"`
	Peer    Peer    `json:"peer"` // who says so
	Leader  Peer    `json:"leader,omitempty"`
	Term    uint64  `json:"term"`
	Commit  uint64  `json:"commit"`  // commit index
	Applied uint64  `json:"applied"` // applied index
	// The log's last entry, committed or not: its term and index.
	LastTerm uint64 `json:"last_term"`
	Last     uint64 `json:"last"`
	Voters   []Peer `json:"voters"` // of Raft's configuration
	Pins     int    `json:"pins"`
	Names    int    `json:"names"`
	Members  int    `json:"members"`
	Admins   int    `json:"admins"`
	Open     bool   `json:"open,omitempty"`     // anyone may read
	Grace    int64  `json:"grace_ms,omitempty"` // how long a member may be away before its copies are made elsewhere
}

func newBinding(b pinset.Binding) Binding {
	return Binding{Name: b.Name, ID: b.ID, Kind: b.Kind, Size: b.Size, By: b.By, At: b.At, Index: b.Index}
}

func newPin(s *pinset.State, p pinset.Pin) Pin {
	w := Pin{ID: p.ID, Kind: p.Kind, Size: p.Size, Replicas: p.Replicas, Expires: p.Expires, By: p.By, Index: p.Index, Source: p.Source}
	for _, b := range s.NamesOf(p.ID) {
		w.Names = append(w.Names, b.Name)
	}
	return w
}

func newMember(s *pinset.State, m pinset.Member) Member {
	return Member{Peer: m.Peer, Vote: m.Vote, MayVote: m.MayVote, AtOnce: s.VotesAtOnce(m), Roles: s.Roles(m.Peer), Capacity: m.Capacity,
		Zone: m.Zone, Addrs: m.Addrs, NoStore: m.NoStore, By: m.By, Index: m.Index, Away: m.Away, Unproven: m.Unproven}
}

func newChange(c pinset.Change) Change {
	return Change{Index: c.Index, At: c.At, By: c.By, Op: c.Op, Subject: c.Subject}
}
