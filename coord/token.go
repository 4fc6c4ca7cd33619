package coord

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

const (
	tokenPrefix = "p2pshare-invite-"
	tokenMax    = 8 << 10
	tokenFormat = 1
	tokenPeers  = 5 // members named in a token
)

// Token lets who has it join a group, once. The group keeps only the public key of
// its seed, so that neither the index nor a backup lets anyone in.
type Token struct {
	Group   GroupID
	Epoch   uint64
	Name    string // the group's, for people
	Members []peer.AddrInfo
	seed    [ed25519.SeedSize]byte
}

// tokenJSON is a Token on the wire: tokenPrefix and this in unpadded URL base64.
type tokenJSON struct {
	V       int           `json:"v"`
	Group   GroupID       `json:"group"`
	Epoch   uint64        `json:"epoch"`
	Name    string        `json:"name"`
	Members []knownMember `json:"members"`
	Seed    string        `json:"seed"` // hex
}

// String returns the token as one word. It is a secret.
func (t Token) String() string {
	w := tokenJSON{V: tokenFormat, Group: t.Group, Epoch: t.Epoch, Name: t.Name, Seed: hex.EncodeToString(t.seed[:])}
	for _, m := range t.Members {
		k := knownMember{Peer: pinset.Peer(m.ID.String())}
		for _, a := range m.Addrs {
			k.Addrs = append(k.Addrs, a.String())
		}
		w.Members = append(w.Members, k)
	}
	data, err := json.Marshal(w)
	if err != nil {
		panic(err) // there is nothing in it that JSON can't hold
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseToken reads what Token.String returns.
func ParseToken(s string) (Token, error) {
	text, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok || len(s) > tokenMax {
		return Token{}, fmt.Errorf("%.40q is not an invitation to a group: they begin with %s", s, tokenPrefix)
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Token{}, fmt.Errorf("the invitation is cut or changed: %w", err)
	}
	var w tokenJSON
	if err := node.DecodeStrict(data, &w); err != nil {
		return Token{}, fmt.Errorf("the invitation is cut or changed: %w", err)
	}
	if w.V != tokenFormat {
		return Token{}, fmt.Errorf("the invitation is of version %d, this program reads %d: use a newer p2pshare", w.V, tokenFormat)
	}
	t := Token{Group: w.Group, Epoch: w.Epoch, Name: w.Name}
	seed, err := hex.DecodeString(w.Seed)
	if err != nil || len(seed) != len(t.seed) || len(w.Members) > tokenPeers {
		return Token{}, fmt.Errorf("the invitation is cut or changed")
	}
	t.seed = [ed25519.SeedSize]byte(seed)
	for _, k := range w.Members {
		info, err := k.info()
		if err != nil {
			return Token{}, fmt.Errorf("the invitation is cut or changed: %w", err)
		}
		t.Members = append(t.Members, info)
	}
	return t, nil
}

func (k knownMember) info() (peer.AddrInfo, error) {
	id, err := peer.Decode(string(k.Peer))
	if err != nil {
		return peer.AddrInfo{}, err
	}
	info := peer.AddrInfo{ID: id}
	for _, a := range k.Addrs {
		if m, err := ma.NewMultiaddr(a); err == nil {
			info.Addrs = append(info.Addrs, m)
		}
	}
	return info, nil
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
