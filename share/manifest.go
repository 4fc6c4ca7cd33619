package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// Manifest is what a publisher says about a content, signed in an envelope of
// kind "manifest". Times are RFC 3339 in UTC.
type Manifest struct {
	V         int        `json:"v"` // 1
	Name      Name       `json:"name"`
	ID        content.ID `json:"id"`
	Kind      Kind       `json:"kind"`
	Size      int64      `json:"size"`            // bytes; of a directory: of all its files
	Media     string     `json:"media,omitempty"` // media type by extension: a hint
	Publisher peer.ID    `json:"publisher"`       // the envelope's sender
	Seq       int64      `json:"seq"`             // max(previous + 1, Unix milliseconds): the highest of a publisher's name counts
	Issued    time.Time  `json:"issued"`
	Expires   time.Time  `json:"expires"`
	Attrs     content.ID `json:"attrs,omitzero"`    // of a directory: its files' times and modes; see attrs.go
	Note      string     `json:"note,omitempty"`    // for people; at most noteMax bytes of anything: hostile
	Mirrors   []string   `json:"mirrors,omitempty"` // URLs of a file's raw bytes, see ParseMirror; at most MirrorsMax
}

const (
	manifestVersion = 1
	// manifestLife is how long a manifest is believed. Its publisher signs a
	// new one at half of it, so only those of publishers that left run out.
	manifestLife = 30 * 24 * time.Hour
	// clockSkew is how wrong a clock may be before we call it a lie.
	clockSkew = 24 * time.Hour

	// noteMax is the most bytes that a note has.
	noteMax = 1024
)

// ErrBadNote is returned for a note that is not published.
var ErrBadNote = fmt.Errorf("a note is one line of at most %d bytes", noteMax)

// ParseNote returns a note as it is published: one line of Unicode without what drives a
// terminal or turns its direction, and without space around it. The notes of others may
// hold that all the same: Escape them before they are shown.
//
// Errors: ErrBadNote.
func ParseNote(text string) (string, error) {
	text = strings.TrimSpace(text)
	bad := func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) }
	switch {
	case len(text) > noteMax:
		return "", fmt.Errorf("the note has %d bytes: %w", len(text), ErrBadNote)
	case !utf8.ValidString(text):
		return "", fmt.Errorf("the note is not UTF-8: %w", ErrBadNote)
	case strings.ContainsFunc(text, bad):
		return "", fmt.Errorf("the note has control characters: %w", ErrBadNote)
	}
	return text, nil
}

// newManifest is what this publisher says now about a share. previous is the
// highest seq it has used, 0 for none.
func newManifest(s Share, publisher peer.ID, previous int64, now time.Time) Manifest {
	return Manifest{
		V: manifestVersion, Name: s.Name, ID: s.ID, Kind: s.Kind, Size: s.Size,
		Media:     mediaOf(s.Name, s.Kind),
		Publisher: publisher,
		Seq:       max(previous+1, now.UnixMilli()),
		Issued:    now.UTC().Truncate(time.Second),
		Expires:   now.Add(manifestLife).UTC().Truncate(time.Second),
		Attrs:     s.Attrs,
		Note:      s.Note,
		Mirrors:   s.Mirrors,
	}
}

// sign seals m with its publisher's key.
func (m Manifest) sign(key crypto.PrivKey) (node.Envelope, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return node.Envelope{}, err
	}
	return node.Seal(key, node.KindManifest, body)
}

// ErrBadManifest is returned for a manifest that must not be believed.
var ErrBadManifest = errors.New("bad manifest")

// OpenManifest verifies an envelope that holds a manifest, and that it says
// what a manifest can say, at time now. The error matches ErrBadManifest, or
// node.ErrBadEnvelope when the signature is at fault.
func OpenManifest(e node.Envelope, now time.Time) (Manifest, error) {
	var m Manifest
	if err := openSigned(e, node.KindManifest, &m); err != nil {
		return Manifest{}, err
	}
	if reason := m.fault(now); reason != "" {
		return Manifest{}, fmt.Errorf("%w: %s", ErrBadManifest, reason)
	}
	return m, nil
}

// openSigned verifies an envelope of that kind and reads what it holds into v, which
// begins as a Manifest does.
func openSigned(e node.Envelope, kind node.Kind, v any) error {
	body, err := e.Open(kind)
	if err != nil {
		return err
	}
	// Two fields are read first, and alone. The version, because the rest means
	// nothing under another one; and the publisher as text, because a peer ID has
	// several spellings, and decoding base58 takes time with the square of its length.
	var head struct {
		V         int    `json:"v"`
		Publisher string `json:"publisher"`
	}
	if err := node.DecodeStrict(body, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrBadManifest, err)
	}
	if head.V != manifestVersion {
		return fmt.Errorf("%w: version %d, and this program knows %d", ErrBadManifest, head.V, manifestVersion)
	}
	if head.Publisher != e.Sender.String() {
		return fmt.Errorf("%w: publisher is not the signer", ErrBadManifest)
	}
	if err := node.DecodeStrict(body, v); err != nil {
		return fmt.Errorf("%w: %w", ErrBadManifest, err)
	}
	return nil
}

// fault names what is wrong with m at time now, or returns "".
func (m Manifest) fault(now time.Time) string {
	if reason := faultOfName(m.Name, m.Seq, m.Issued, m.Expires, now); reason != "" {
		return reason
	}
	switch {
	case m.ID.IsZero():
		return "no content ID"
	case m.Kind != KindFile && m.Kind != KindDir:
		return "unknown kind"
	case m.Size < 0 || m.Size > content.SizeMax:
		return fmt.Sprintf("impossible size %d", m.Size)
	case len(m.Note) > noteMax || len(m.Mirrors) > MirrorsMax || len(m.Media) > 255:
		return "too long"
	case m.Kind != KindDir && !m.Attrs.IsZero():
		return "only a directory has attributes"
	}
	if err := checkMirrors(m.Kind, m.Mirrors); err != nil {
		return err.Error()
	}
	return ""
}

// faultOfName names what is wrong at time now with what a publisher says of a name, or
// returns "".
func faultOfName(n Name, seq int64, issued, expires, now time.Time) string {
	name, err := ParseName(string(n))
	switch {
	case err != nil:
		return err.Error()
	case name != n:
		return "name is not in normal form"
	case seq < 1:
		return fmt.Sprintf("impossible sequence number %d", seq)
	case seq > now.Add(clockSkew).UnixMilli():
		return fmt.Sprintf("sequence number %d is from the future", seq)
	case issued.After(now.Add(clockSkew)):
		return "issued in the future"
	case expires.Before(now.Add(-clockSkew)):
		return "expired " + expires.UTC().Format(time.DateOnly)
	case expires.Before(issued):
		return "expires before it was issued"
	}
	return ""
}
