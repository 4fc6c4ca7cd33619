package coord

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// ErrSplit says that two recoveries began the same epoch, each with a record of
// its own: the group is two groups of one name now, and nobody can say which of
// them is right. This member has stopped, and a person has to decide.
var ErrSplit = errors.New("two recoveries began the same epoch of the group")

// errRecord is of an epoch record that this member has no reason to believe.
var errRecord = errors.New("epoch record is not believed")

const (
	epochsMax   = 16 // epochs of a group after its first
	epochFormat = 1
)

// An epoch of a group begins with a record: an envelope of kind "epoch", whose
// content is that of pinset.Epoch.Statement. It is signed by the group's recovery
// key, or by who was an admin in the epoch before.
type epochRecord struct {
	V       int                  `json:"v"`
	Group   pinset.Digest        `json:"group"`
	Epoch   uint64               `json:"epoch"`
	State   pinset.Digest        `json:"state"` // Hash that it was decided on
	Members []pinset.EpochMember `json:"members"`
	Admin   pinset.Peer          `json:"admin,omitempty"`
}

// knownEpoch is a record as a member keeps it.
type knownEpoch struct {
	Record node.Envelope `json:"record"`
	// Signers are whose word began it, or would have: the admins of the epoch before.
	Signers []pinset.Peer `json:"signers,omitempty"`
	// Void are those of them who have ceased to be admins since, and not by being
	// left out of the epoch: another record of theirs is not believed any more.
	Void []pinset.Peer `json:"void,omitempty"`
}

// digest names a record. Two of one epoch are two recoveries.
func (k knownEpoch) digest() pinset.Digest { return pinset.Digest(content.Root(k.Record.Encode())) }

// sealEpoch signs a record.
func sealEpoch(key crypto.PrivKey, group GroupID, c *pinset.Epoch) (node.Envelope, error) {
	data, err := json.Marshal(epochRecord{V: epochFormat, Group: pinset.Digest(group), Epoch: c.Epoch, State: c.State,
		Members: c.Members, Admin: c.Admin})
	if err != nil {
		return node.Envelope{}, err
	}
	return node.Seal(key, node.KindEpoch, data)
}

// openEpoch reads the record that begins an epoch of a group. Whether its sender
// may say so is for the caller.
func openEpoch(e node.Envelope, group GroupID, epoch uint64) (epochRecord, error) {
	var r epochRecord
	data, err := e.Open(node.KindEpoch)
	if err == nil {
		err = node.DecodeStrict(data, &r)
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("%w: %w", errRecord, err)
	case r.V != epochFormat || GroupID(r.Group) != group || r.Epoch != epoch || len(r.Members) == 0 || len(r.Members) > pinset.MembersMax:
		return r, fmt.Errorf("%w: it is of version %d, group %s and epoch %d", errRecord, r.V, r.Group, r.Epoch)
	}
	for i, m := range r.Members {
		if !validPeer(m.Peer) || i > 0 && r.Members[i-1].Peer >= m.Peer {
			return r, fmt.Errorf("%w: its members are not peers, in order", errRecord)
		}
	}
	return r, nil
}

func (r epochRecord) voteOf(p pinset.Peer) pinset.Vote {
	for _, m := range r.Members {
		if m.Peer == p {
			return m.Vote
		}
	}
	return 0
}

// command is what the record has the state do. at is when, in Unix milliseconds.
func (r epochRecord) command(e node.Envelope, recovery peer.ID, self pinset.Peer, at int64) *pinset.Epoch {
	c := &pinset.Epoch{Epoch: r.Epoch, State: r.State, Members: r.Members, Admin: r.Admin}
	c.Header = pinset.Header{Client: pinset.Client(e.Signature[:len(pinset.Client{})]), Seq: 1, By: pinset.Peer(e.Sender.String()), At: at}
	if e.Sender == recovery {
		c.By = self
		signature := pinset.Signature(e.Signature)
		c.Signature = &signature
	}
	return c
}

// recoverySigner is the group's recovery key as the sender of an envelope.
func recoverySigner(key pinset.Key) (peer.ID, error) {
	public, err := crypto.UnmarshalEd25519PublicKey(key[:])
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(public)
}

// recoveryKey turns the private half into what signs envelopes.
func recoveryKey(key ed25519.PrivateKey) (crypto.PrivKey, error) {
	return crypto.UnmarshalEd25519PrivateKey(key)
}

// recoveryPeer returns who signs with the recovery key of the founding record.
func (f groupFile) recoveryPeer() (peer.ID, error) {
	r, err := openFounding(f.Record)
	if err != nil {
		return "", err
	}
	return recoverySigner(r.Recovery)
}

// record returns the digest of the record that began the epoch that this member is
// in, zero in the first.
func (f groupFile) record() (d pinset.Digest) {
	if n := len(f.Epochs); n > 0 {
		d = f.Epochs[n-1].digest()
	}
	return d
}

// has says whether a peer is in the epoch that this member is in, by its record.
func (f groupFile) has(p pinset.Peer) bool {
	r, err := openEpoch(f.Epochs[len(f.Epochs)-1].Record, f.ID, f.Epoch)
	return err == nil && r.voteOf(p) != 0
}

// records are the envelopes of all epochs after the first.
func (f groupFile) records() []node.Envelope {
	var list []node.Envelope
	for _, k := range f.Epochs {
		list = append(list, k.Record)
	}
	return list
}

// mayBegin returns the record if its sender may begin that epoch.
func (f groupFile) mayBegin(e node.Envelope, epoch uint64, signers []pinset.Peer) (epochRecord, error) {
	r, err := openEpoch(e, f.ID, epoch)
	if err != nil {
		return r, err
	}
	recovery, err := f.recoveryPeer()
	if err != nil {
		return r, err
	}
	if e.Sender != recovery && !slices.Contains(signers, pinset.Peer(e.Sender.String())) {
		return r, fmt.Errorf("%w: %s is no admin that this member knows", errRecord, e.Sender)
	}
	return r, nil
}

// take returns what a member knows after it was shown the records of another one,
// self being who it is: the same as before; that it is in a later epoch, and has
// to begin it or was left out; or that the group is split, with ErrSplit. Records
// that are not believed change nothing, with an error that is errRecord. Nor do
// those of one that is in an earlier epoch: it is the one to stop, and a split is
// overcome by one more epoch.
func (f groupFile) take(records []node.Envelope, self pinset.Peer) (groupFile, error) {
	if len(records) > epochsMax {
		return f, fmt.Errorf("%w: %d epochs, at most %d", errRecord, len(records), epochsMax)
	}
	if len(records) < len(f.Epochs) {
		return f, nil
	}
	next := f
	next.Epochs = slices.Clone(f.Epochs)
	for i, e := range records {
		epoch := uint64(i) + 2
		if i < len(f.Epochs) {
			theirs := knownEpoch{Record: e}
			if theirs.digest() == f.Epochs[i].digest() {
				continue
			}
			if _, err := f.mayBegin(e, epoch, f.Epochs[i].Signers); err != nil {
				return f, err
			}
			if slices.Contains(f.Epochs[i].Void, pinset.Peer(e.Sender.String())) {
				return f, fmt.Errorf("%w: %s was an admin, and is none any more", errRecord, e.Sender)
			}
			f.Split = &split{Epoch: epoch, Record: e}
			return f, fmt.Errorf("%w: epoch %d, by %s and by %s", ErrSplit, epoch, f.Epochs[i].Record.Sender, e.Sender)
		}
		if int(next.Epoch) != i+1 {
			return f, nil // it knows the number of an epoch without its record: it has just joined
		}
		r, err := next.mayBegin(e, epoch, next.Admins)
		if err != nil {
			return f, err
		}
		next.enter(e, r)
	}
	if next.Epoch == f.Epoch {
		return f, nil
	}
	last := next.Epochs[len(next.Epochs)-1].Record
	r, err := openEpoch(last, f.ID, next.Epoch)
	if err != nil {
		return f, err
	}
	if r.voteOf(self) == 0 {
		next.Removed, next.Begin = &removal{By: pinset.Peer(last.Sender.String()), Epoch: next.Epoch}, false
	}
	return next, nil
}

// void takes over who is an admin now. Those who have ceased to be one could
// otherwise stop the group for good, with another record of an epoch that began
// while they were.
func (f *groupFile) void(admins []pinset.Peer) {
	var ceased []pinset.Peer
	for _, p := range f.Admins {
		if !slices.Contains(admins, p) {
			ceased = append(ceased, p)
		}
	}
	f.Admins = admins
	if len(ceased) == 0 {
		return
	}
	f.Epochs = slices.Clone(f.Epochs)
	for i := range f.Epochs {
		k := &f.Epochs[i]
		k.Void = slices.Clone(k.Void)
		for _, p := range ceased {
			if slices.Contains(k.Signers, p) && !slices.Contains(k.Void, p) {
				k.Void = append(k.Void, p)
			}
		}
	}
}

// enter adds the record of the next epoch, which this member is to begin.
func (f *groupFile) enter(e node.Envelope, r epochRecord) {
	f.Epochs = append(f.Epochs, knownEpoch{Record: e, Signers: f.Admins})
	f.Epoch, f.Begin, f.Founding = r.Epoch, true, nil
	f.Voters, f.MayVote = nil, nil
	for _, m := range r.Members {
		if m.Vote == pinset.Voter {
			f.Voters = append(f.Voters, m.Peer)
		}
	}
	var admins []pinset.Peer
	for _, p := range f.Admins {
		if r.voteOf(p) != 0 { // others lose what they were granted, or may have
			admins = append(admins, p)
		}
	}
	if r.Admin != "" && !slices.Contains(admins, r.Admin) {
		admins = append(admins, r.Admin)
	}
	f.Admins = admins
}
