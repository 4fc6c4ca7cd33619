package coord

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// signer is somebody with a key.
type signer struct {
	key  crypto.PrivKey
	peer pinset.Peer
}

func newSigner(t testing.TB) signer {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, pinset.Peer(p.String())}
}

func TestTakeBelievesTheRecoveryKeyAndTheAdminsOfTheEpochBefore(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	founder, admin, other, self := newSigner(t), newSigner(t), newSigner(t), newSigner(t)
	recoverer := signer{}
	if recoverer.key, err = recoveryKey(private); err != nil {
		t.Fatal(err)
	}
	record, id, err := sealFounding(founder.key, foundingRecord{V: foundingFormat, Epoch: 1, Name: "office",
		Recovery: pinset.Key(public), At: 1})
	if err != nil {
		t.Fatal(err)
	}
	first := groupFile{ID: id, Record: record, Epoch: 1, Admins: []pinset.Peer{admin.peer}}
	seal := func(by signer, group GroupID, epoch uint64, state byte, voter pinset.Peer) node.Envelope {
		t.Helper()
		e, err := sealEpoch(by.key, group, &pinset.Epoch{Epoch: epoch, State: pinset.Digest{state},
			Members: []pinset.EpochMember{{Peer: voter, Vote: pinset.Voter}}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	byAdmin := seal(admin, id, 2, 1, admin.peer)
	second, err := first.take([]node.Envelope{byAdmin}, admin.peer)
	if err != nil {
		t.Fatal(err)
	}
	forged := byAdmin
	forged.Signature = append([]byte(nil), forged.Signature...)
	forged.Signature[0] ^= 1

	for _, c := range []struct {
		name    string
		f       groupFile
		self    pinset.Peer
		records []node.Envelope
		epoch   uint64
		removed bool
		err     error
	}{
		{"nothing", first, self.peer, nil, 1, false, nil},
		{"by an admin, with this member", first, admin.peer, []node.Envelope{byAdmin}, 2, false, nil},
		{"by an admin, without this member", first, self.peer, []node.Envelope{byAdmin}, 2, true, nil},
		{"by the recovery key", first, self.peer, []node.Envelope{seal(recoverer, id, 2, 1, self.peer)}, 2, false, nil},
		{"two epochs at once", first, admin.peer, []node.Envelope{byAdmin, seal(admin, id, 3, 1, admin.peer)}, 3, false, nil},
		{"by the founder, who is no admin any more", first, self.peer, []node.Envelope{seal(founder, id, 2, 1, self.peer)}, 1, false, errRecord},
		{"by a stranger", first, self.peer, []node.Envelope{seal(other, id, 2, 1, self.peer)}, 1, false, errRecord},
		{"with a forged signature", first, self.peer, []node.Envelope{forged}, 1, false, errRecord},
		{"of another group", first, self.peer, []node.Envelope{seal(admin, GroupID{1}, 2, 1, self.peer)}, 1, false, errRecord},
		{"of another number", first, self.peer, []node.Envelope{seal(admin, id, 3, 1, self.peer)}, 1, false, errRecord},
		{"a third epoch by an admin that the second left out", first, self.peer, []node.Envelope{seal(recoverer, id, 2, 1, self.peer), seal(admin, id, 3, 1, admin.peer)}, 1, false, errRecord},
		{"the same again", second, admin.peer, []node.Envelope{byAdmin}, 2, false, nil},
		{"of one who is in an epoch before", second, admin.peer, nil, 2, false, nil},
		{"another one by an admin", second, admin.peer, []node.Envelope{seal(admin, id, 2, 2, admin.peer)}, 2, false, ErrSplit},
		{"another one by the recovery key", second, admin.peer, []node.Envelope{seal(recoverer, id, 2, 1, self.peer)}, 2, false, ErrSplit},
		{"another one by a stranger", second, admin.peer, []node.Envelope{seal(other, id, 2, 2, other.peer)}, 2, false, errRecord},
		{"too many", first, self.peer, make([]node.Envelope, epochsMax+1), 1, false, errRecord},
	} {
		got, err := c.f.take(c.records, c.self)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if got.Epoch != c.epoch || (got.Removed != nil) != c.removed || (got.Split != nil) != (c.err == ErrSplit) {
			t.Errorf("%s: epoch %d, removed %v, split %v", c.name, got.Epoch, got.Removed != nil, got.Split != nil)
		}
		if begins := got.Epoch > c.f.Epoch && !c.removed; got.Begin && !begins && !c.f.Begin {
			t.Errorf("%s: begins an epoch", c.name)
		}
	}
}

func TestEpochRecordIsWhatTheStateVerifies(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := recoveryKey(private)
	if err != nil {
		t.Fatal(err)
	}
	self := newSigner(t)
	c := &pinset.Epoch{Epoch: 2, State: pinset.Digest{3}, Members: []pinset.EpochMember{{Peer: self.peer, Vote: pinset.Voter}}, Admin: self.peer}
	e, err := sealEpoch(key, GroupID{1}, c)
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(public, c.Statement(pinset.Digest{1}), e.Signature) {
		t.Error("the envelope's signature is not over pinset.Epoch.Statement")
	}
}

func TestFormerAdminCannotSplitAGroup(t *testing.T) {
	founder, admin, self := newSigner(t), newSigner(t), newSigner(t)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	record, id, err := sealFounding(founder.key, foundingRecord{V: foundingFormat, Epoch: 1, Name: "office", Recovery: pinset.Key(public), At: 1})
	if err != nil {
		t.Fatal(err)
	}
	seal := func(by signer, state byte) node.Envelope {
		t.Helper()
		members := []pinset.EpochMember{{Peer: min(self.peer, admin.peer), Vote: pinset.Voter}, {Peer: max(self.peer, admin.peer), Vote: pinset.Voter}}
		e, err := sealEpoch(by.key, id, &pinset.Epoch{Epoch: 2, State: pinset.Digest{state}, Members: members})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	f := groupFile{ID: id, Record: record, Epoch: 1, Admins: []pinset.Peer{admin.peer, self.peer, founder.peer}}
	if f, err = f.take([]node.Envelope{seal(self, 1)}, self.peer); err != nil {
		t.Fatal(err)
	}
	// The founder is out by the epoch itself, and may be on the other side of a split.
	if _, err := f.take([]node.Envelope{seal(founder, 2)}, self.peer); !errors.Is(err, ErrSplit) {
		t.Errorf("another record by one that the epoch left out: %v, want ErrSplit", err)
	}
	if _, err := f.take([]node.Envelope{seal(admin, 2)}, self.peer); !errors.Is(err, ErrSplit) {
		t.Errorf("another record by an admin: %v, want ErrSplit", err)
	}
	f.void([]pinset.Peer{self.peer})
	if is, err := f.take([]node.Envelope{seal(admin, 2)}, self.peer); !errors.Is(err, errRecord) || is.Split != nil {
		t.Errorf("another record by one whose role was revoked: %v, want that it is not believed", err)
	}
}
