package coord

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

const tokenPrefix = "p2pshare-invite-"

// Token lets who has it join a group, once. The group keeps only the public key of
// its seed, so that neither the index nor a backup lets anyone in.
type Token struct {
	Link
	seed [ed25519.SeedSize]byte
}

// tokenJSON is a Token on the wire: tokenPrefix and this in unpadded URL base64.
type tokenJSON struct {
	linkJSON
	Seed string `json:"seed"` // hex
}

// String returns the token as one word. It is a secret.
func (t Token) String() string {
	return wordOf(tokenPrefix, tokenJSON{t.Link.json(), hex.EncodeToString(t.seed[:])})
}

// ParseToken reads what Token.String returns.
func ParseToken(s string) (t Token, err error) {
	var w tokenJSON
	if err = parseWord(s, tokenPrefix, "invitation to a group", &w, &w.linkJSON); err != nil {
		return t, err
	}
	seed, err := hex.DecodeString(w.Seed)
	if err != nil || len(seed) != len(t.seed) {
		return t, errors.New("the invitation to a group is cut or changed: its seed is not 64 hexadecimal digits")
	}
	t.seed = [ed25519.SeedSize]byte(seed)
	t.Link, err = w.link("invitation to a group")
	return t, err
}

func (t Token) key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(t.seed[:]) }

func (t Token) public() pinset.Key { return pinset.Key(t.key().Public().(ed25519.PublicKey)) }

// joinStatement is what the token's seed signs:
//
//	"p2pshare/join/1\x00" | group, 32 bytes | epoch, 8 bytes, big endian |
//	joiner, member: 2 bytes of length and the peer ID's text each |
//	the joiner's nonce, the member's nonce, 16 bytes each
//
// The member's nonce is in its answer to the opening, so that a signature is of
// use on one stream only, and to this joiner only.
func joinStatement(g GroupID, epoch uint64, joiner, member pinset.Peer, theirs, ours nonce) []byte {
	b := append([]byte("p2pshare/join/1\x00"), g[:]...)
	b = binary.BigEndian.AppendUint64(b, epoch)
	for _, p := range []pinset.Peer{joiner, member} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
		b = append(b, p...)
	}
	return append(append(b, theirs[:]...), ours[:]...)
}

// foundingRecord is the content of the envelope, of kind "epoch", whose hash is the
// group's ID. The sender is the founder.
type foundingRecord struct {
	V        int        `json:"v"`
	Epoch    uint64     `json:"epoch"` // 1
	Name     string     `json:"name"`
	Recovery pinset.Key `json:"recovery"` // may begin a new epoch; new for each group, so that IDs differ
	At       int64      `json:"at"`       // Unix milliseconds
}

const foundingFormat = 1

func sealFounding(key crypto.PrivKey, r foundingRecord) (node.Envelope, GroupID, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return node.Envelope{}, GroupID{}, err
	}
	e, err := node.Seal(key, node.KindEpoch, data)
	return e, groupIDOf(e), err
}

func groupIDOf(e node.Envelope) GroupID { return GroupID(content.Root(e.Encode())) }

func openFounding(e node.Envelope) (foundingRecord, error) {
	var r foundingRecord
	data, err := e.Open(node.KindEpoch)
	if err != nil {
		return r, err
	}
	if err := node.DecodeStrict(data, &r); err != nil {
		return r, err
	}
	if r.V != foundingFormat || r.Epoch != 1 {
		return r, fmt.Errorf("founding record of version %d and epoch %d, want %d and 1", r.V, r.Epoch, foundingFormat)
	}
	return r, nil
}
