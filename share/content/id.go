// Package content names bytes and checks them: the content ID of a file, its
// outboard, and the proof that a piece of it is what the ID promises. It is pure:
// reading files, hashing in parallel and fetching belong to its callers.
//
// # The tree
//
// A content ID is the BLAKE3-256 of the whole content, so it equals what b3sum
// prints. BLAKE3 is a tree over chunks of 1 KiB. We cut it at chunk groups of 256
// KiB, which are complete subtrees (the last may be shorter), and keep only their
// chaining values. That list is the outboard; merging it upward gives the root,
// which is the content ID. Once the list is checked, each group is checked alone,
// in any order, from anyone.
//
//	content   | group 0 | group 1 | group 2 | group 3 | group 4 |   256 KiB each
//	outboard  |   cv0   |   cv1   |   cv2   |   cv3   |   cv4   |   32 bytes each
//	               \      /            \      /           |
//	                  P                    P              |
//	                    \________P________/               |
//	                              \________ID_____________/
//
// A publisher hashes:
//
//	o := content.NewOutboard(size)
//	for i := range o.Groups() {
//		o.SetGroup(i, group(i)) // in any order, from any goroutine
//	}
//	id := o.ID()
//
// A getter checks:
//
//	o, err := content.ParseOutboard(size, list)
//	err = o.Verify(id)
//	err = o.VerifyGroup(i, group(i)) // the last group first: it proves the size
//
// # Encoding
//
// An outboard is the groups' chaining values one after the other, 32 bytes each,
// without header: 128 KiB per GiB of content. The size travels beside it. A content
// of one group has no chaining value below its root, and the one entry of its
// outboard is the content ID itself: no list needs to be fetched, and
// ParseOutboard(size, id[:]) makes one where a list is expected.
//
// A content above 64 GiB (TwoLevel) is fetched in two levels: the chaining values
// of its segments, which are the 1 GiB subtrees (VerifySegments), then each
// segment's groups (VerifySegment). The encoding is the same at both levels.
//
// # What proves the size
//
// A list that merges to the ID does not prove the size it came with. A node of the
// tree does not say how high it stands, so the two parents [P(0,1), P(2,3)] of a
// content of four groups also merge to its ID and pass for the list of a content of
// two. The bytes of the last group are the proof: each chunk is hashed with its
// position and its length, so the last entry is the chaining value of such bytes
// only if the content ends there. Until VerifyGroup has accepted the last group
// after Verify, size is a claim. A lie is harmless to bytes already accepted: each
// group that verifies is that group of the content, whatever the list says of the
// others.
//
// Source: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3", §2.1 (the tree),
// §2.4 and §2.5 (chunk and parent chaining values).
package content

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// ErrInvalidID reports text or a multihash that is not a content ID. The caller
// should ask for another spelling; the error says which are accepted.
var ErrInvalidID = errors.New("not a content ID")

// prefix begins the text form of an ID.
const prefix = "b3:"

// textMax is above the longest text that can be an ID: a CID of 36 bytes in
// multibase base2 is 289 characters. Longer text is refused undecoded, because
// some multibase decoders take quadratic time.
const textMax = 512

// An ID is a content ID: the BLAKE3-256 of the whole content. Two contents with
// one ID are the same bytes. The zero ID is nobody's content.
type ID [32]byte

// Parse reads an ID in one of three spellings:
//
//   - "b3:" and 64 hex digits in either case;
//   - 64 hex digits alone;
//   - a CIDv1 of the raw codec with a BLAKE3-256 multihash, in any multibase
//     (bafkr4i… in base32).
//
// Space around s is not removed. The error is one line that quotes the start of s
// and says what is accepted; it wraps ErrInvalidID.
func Parse(s string) (ID, error) {
	digits := strings.TrimPrefix(s, prefix)
	if id, ok := fromHex(digits); ok {
		return id, nil
	}
	if len(digits) != len(s) {
		return ID{}, invalid(s, "b3: needs 64 hex digits after it")
	}
	if len(s) > textMax {
		return ID{}, invalid(s, "too long")
	}
	c, err := cid.Decode(s)
	if err != nil {
		return ID{}, invalid(s, "neither hex nor a CID")
	}
	if c.Type() != cid.Raw {
		return ID{}, invalid(s, "a CID of another codec than raw")
	}
	id, err := FromMultihash(c.Hash())
	if err != nil {
		return ID{}, invalid(s, "a CID of another hash than BLAKE3-256")
	}
	return id, nil
}

func fromHex(digits string) (id ID, ok bool) {
	if len(digits) != hex.EncodedLen(len(id)) {
		return ID{}, false
	}
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return ID{}, false
	}
	return id, true
}

func invalid(s, reason string) error {
	return fmt.Errorf("%.80q is %w: %s; want b3: and 64 hex digits, or a CIDv1 of raw bytes and BLAKE3-256 (bafkr4i…)", s, ErrInvalidID, reason)
}

// FromMultihash returns the ID in mh, which must be a BLAKE3 multihash (code 0x1e)
// of 32 bytes; otherwise the error wraps ErrInvalidID. mh is not kept.
func FromMultihash(mh multihash.Multihash) (ID, error) {
	d, err := multihash.Decode(mh)
	if err != nil {
		return ID{}, fmt.Errorf("multihash %.40x is %w: %v", []byte(mh), ErrInvalidID, err)
	}
	if d.Code != multihash.BLAKE3 || d.Length != len(ID{}) {
		return ID{}, fmt.Errorf("multihash %.40x is %w: want BLAKE3 (0x1e) of 32 bytes", []byte(mh), ErrInvalidID)
	}
	return ID(d.Digest), nil
}

// String returns the ID's own spelling: "b3:" and 64 lower-case hex digits.
func (id ID) String() string { return prefix + id.Hex() }

// Hex returns the 64 lower-case hex digits, as b3sum prints them.
func (id ID) Hex() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hex digits, for people and logs. It does not name a
// content: it can be made to collide.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// CID returns the CIDv1 in base32, raw codec: bafkr4i and 52 more characters.
func (id ID) CID() string { return cid.NewCidV1(cid.Raw, id.Multihash()).String() }

// Multihash returns the 34 bytes 0x1e 0x20 ID, in a new slice. It is the ID's key
// in the DHT.
func (id ID) Multihash() multihash.Multihash {
	mh := make(multihash.Multihash, 0, 2+len(id))
	mh = append(mh, multihash.BLAKE3, byte(len(id)))
	return append(mh, id[:]...)
}

// IsZero reports whether id is the zero ID, which stands for no content. (The empty
// content has an ID: b3:af1349b9….)
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText returns String. The error is always nil.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText writes and no other spelling, so that an ID
// has one form in documents that are hashed or signed; Parse is for what people
// type. The error wraps ErrInvalidID, and id is then unchanged.
func (id *ID) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), prefix)
	parsed, valid := fromHex(digits)
	if !ok || !valid || parsed.Hex() != digits {
		return fmt.Errorf("%.80q is %w: want b3: and 64 lower-case hex digits", text, ErrInvalidID)
	}
	*id = parsed
	return nil
}
