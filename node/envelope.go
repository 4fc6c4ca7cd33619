package node

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// EnvelopeMax is the length of the longest encoded envelope, in bytes. Base64
// takes a third more than it holds, so content may have about 48 KiB.
const EnvelopeMax = 64 << 10

// envelopePrefix begins the signed bytes. The version of the envelope is in it:
// a next version signs other bytes.
const envelopePrefix = "p2pshare/envelope/1\x00"

// senderMax is the length of the longest peer ID worth decoding. An Ed25519 one
// has 52 characters; decoding base58 takes time with the square of the length.
const senderMax = 64

// ErrBadEnvelope is matched by the errors of DecodeEnvelope and Open: the bytes
// are not what their sender signed, or not as that kind. Drop them.
var ErrBadEnvelope = errors.New("bad envelope")

// Kind says what a signed message is. It is part of the signed bytes, so that
// nothing signed as one kind passes as another.
type Kind string

// The kinds, append-only.
const (
	KindPresence Kind = "presence" // a LAN beacon
	KindManifest Kind = "manifest" // a publisher's word on a content
	KindName     Kind = "name"     // that a publisher has withdrawn a name, as a DHT value
	KindEpoch    Kind = "epoch"    // a group's membership, for those outside
	KindBackup   Kind = "backup"   // a group's exported state
)

func (k Kind) known() bool {
	switch k {
	case KindPresence, KindManifest, KindName, KindEpoch, KindBackup:
		return true
	}
	return false
}

// Envelope is one signed JSON message. As JSON it is
//
//	{"sender":"<peer ID>","content":"<base64>","signature":"<base64>"}
//
// with the peer ID in base58 and standard, padded base64. The signature is
// Ed25519 over
//
//	"p2pshare/envelope/1\x00" ‖ kind ‖ "\x00" ‖ content
//
// The kind is not in the JSON: the reader knows it from where the envelope came.
// testdata/envelope.txt has an example of every kind.
//
// An Envelope is only a claim until Open has returned its content.
type Envelope struct {
	Sender    peer.ID `json:"sender"`    // an Ed25519 identity: the ID holds the public key
	Content   []byte  `json:"content"`   // JSON, the exact bytes that were signed
	Signature []byte  `json:"signature"` // 64 bytes
}

// envelopeJSON is Envelope with its fields still encoded. Decoding goes through
// it because encoding/json takes several spellings of one []byte (line breaks,
// stray bits, an array of numbers) and peer.ID takes several of one ID.
type envelopeJSON struct {
	Sender    string `json:"sender"`
	Content   string `json:"content"`
	Signature string `json:"signature"`
}

// Seal signs content, which must satisfy DecodeStrict, as a message of the given
// kind. The key must be Ed25519. Content is signed and sent byte for byte as it
// is given; Seal keeps a copy.
//
// Errors match ErrBadJSON when content is not strict JSON; the others, for a
// wrong key or kind, or content too long for EnvelopeMax, are the caller's own.
func Seal(key crypto.PrivKey, kind Kind, content []byte) (Envelope, error) {
	if !kind.known() {
		return Envelope{}, fmt.Errorf("seal envelope: unknown kind %q", kind)
	}
	if key == nil || key.Type() != crypto.Ed25519 {
		return Envelope{}, fmt.Errorf("seal %s: the key is not Ed25519", kind)
	}
	if err := checkStrict(content, nil); err != nil {
		return Envelope{}, fmt.Errorf("seal %s: %w", kind, err)
	}
	sender, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Envelope{}, fmt.Errorf("seal %s: %w", kind, err)
	}
	signature, err := key.Sign(signedBytes(kind, content))
	if err != nil {
		return Envelope{}, fmt.Errorf("seal %s: %w", kind, err)
	}
	e := Envelope{Sender: sender, Content: append([]byte(nil), content...), Signature: signature}
	if n := len(e.Encode()); n > EnvelopeMax {
		return Envelope{}, fmt.Errorf("seal %s: %d bytes as an envelope, more than %d", kind, n, EnvelopeMax)
	}
	return e, nil
}

// Open returns the content if Sender signed it as a message of the given kind,
// and it is strict JSON. The slice is e's own, and is what DecodeStrict should
// get next. Whether Sender may say what the content says is for the caller.
//
// Errors match ErrBadEnvelope.
func (e Envelope) Open(kind Kind) ([]byte, error) {
	if !kind.known() {
		return nil, fmt.Errorf("%w: unknown kind %q", ErrBadEnvelope, kind)
	}
	public, err := ed25519Key(e.Sender)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadEnvelope, err)
	}
	if ok, err := public.Verify(signedBytes(kind, e.Content), e.Signature); err != nil || !ok {
		return nil, fmt.Errorf("%w: not signed by %s as %s", ErrBadEnvelope, e.Sender, kind)
	}
	if err := checkStrict(e.Content, nil); err != nil {
		return nil, fmt.Errorf("%w: content signed by %s: %w", ErrBadEnvelope, e.Sender, err)
	}
	return e.Content, nil
}

// DecodeEnvelope reads what Encode wrote, at most EnvelopeMax bytes. It checks
// the form only; the signature is checked by Open.
//
// White space, the order of the keys and keys it does not know are not signed,
// so anyone on the way may have changed them: compare and store e.Encode(), of
// which there is one for each Envelope, not data. The values have one spelling
// each. Errors match ErrBadEnvelope, and ErrBadJSON where that is why.
func DecodeEnvelope(data []byte) (Envelope, error) {
	if len(data) > EnvelopeMax {
		return Envelope{}, fmt.Errorf("%w: %d bytes, more than %d", ErrBadEnvelope, len(data), EnvelopeMax)
	}
	var j envelopeJSON
	if err := DecodeStrict(data, &j); err != nil {
		return Envelope{}, fmt.Errorf("%w: %w", ErrBadEnvelope, err)
	}
	var (
		e   Envelope
		err error
	)
	if e.Sender, err = decodeSender(j.Sender); err != nil {
		return Envelope{}, fmt.Errorf("%w: %w", ErrBadEnvelope, err)
	}
	if e.Content, err = decodeBase64(j.Content); err != nil {
		return Envelope{}, fmt.Errorf("%w: content: %w", ErrBadEnvelope, err)
	}
	if e.Signature, err = decodeBase64(j.Signature); err != nil {
		return Envelope{}, fmt.Errorf("%w: signature: %w", ErrBadEnvelope, err)
	}
	if len(e.Signature) != ed25519.SignatureSize {
		return Envelope{}, fmt.Errorf("%w: signature of %d bytes, not %d", ErrBadEnvelope, len(e.Signature), ed25519.SignatureSize)
	}
	return e, nil
}

// Encode returns e as one line of JSON without a line break: the keys in the
// order sender, content, signature, no white space.
func (e Envelope) Encode() []byte {
	data, err := json.Marshal(envelopeJSON{
		Sender:    e.Sender.String(),
		Content:   base64.StdEncoding.EncodeToString(e.Content),
		Signature: base64.StdEncoding.EncodeToString(e.Signature),
	})
	if err != nil {
		panic(err) // three strings
	}
	return data
}

// MarshalJSON returns e.Encode(), so that an envelope inside another message has
// the same form as one alone.
func (e Envelope) MarshalJSON() ([]byte, error) { return e.Encode(), nil }

// UnmarshalJSON is DecodeEnvelope, for an envelope inside another message. A null
// is refused.
func (e *Envelope) UnmarshalJSON(data []byte) error {
	decoded, err := DecodeEnvelope(data)
	if err != nil {
		return err
	}
	*e = decoded
	return nil
}

func signedBytes(kind Kind, content []byte) []byte {
	b := make([]byte, 0, len(envelopePrefix)+len(kind)+1+len(content))
	b = append(b, envelopePrefix...)
	b = append(b, kind...)
	b = append(b, 0)
	return append(b, content...)
}

// ed25519Key returns the public key inside id. The ID must be the one that
// belongs to the key: a protobuf inside it that is padded with other fields would
// give one key many IDs.
func ed25519Key(id peer.ID) (crypto.PubKey, error) {
	public, err := id.ExtractPublicKey()
	if err != nil || public.Type() != crypto.Ed25519 || !id.MatchesPublicKey(public) {
		return nil, errors.New("sender is not an Ed25519 identity")
	}
	return public, nil
}

func decodeSender(s string) (peer.ID, error) {
	if s == "" {
		return "", errors.New("no sender")
	}
	if len(s) > senderMax {
		return "", fmt.Errorf("sender of %d characters, more than %d", len(s), senderMax)
	}
	id, err := peer.Decode(s)
	if err != nil || id.String() != s {
		return "", fmt.Errorf("sender %q is not a peer ID in base58", s)
	}
	if _, err := ed25519Key(id); err != nil {
		return "", err
	}
	return id, nil
}

func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || base64.StdEncoding.EncodeToString(b) != s {
		return nil, errors.New("not canonical base64 with padding")
	}
	return b, nil
}
