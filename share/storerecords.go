package share

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// The store's part of the catalog (integers big-endian):
//
//	holds    content ID(32)                → holdRecord   what was asked to be held, and how far it has come
//	parts    hold's ID(32) content ID(32)  → partRecord   the contents that a hold is made of
//	stored   content ID(32)                → storedRecord the contents that lie in the store
//	damaged  content ID(32) group(8)       → ""           chunk groups that were found wrong
//	store    "used"                        → bytes(8) cost(8) of all that is stored
//
// Their outboards are among those of shares. A stored content has as many refs as
// there are parts of it that are there.
var (
	bucketHolds   = []byte("holds")
	bucketParts   = []byte("parts")
	bucketStored  = []byte("stored")
	bucketDamaged = []byte("damaged")
	bucketStore   = []byte("store")

	keyUsed = []byte("used")
)

// holdStage says how far a hold has come. The numbers are on disk.
type holdStage byte

const (
	holdFetching holdStage = 1
	holdWhole    holdStage = 2
	holdDropping holdStage = 3
)

// holdRecord is one hold.
type holdRecord struct {
	stage    holdStage
	kind     Kind
	adopted  bool
	size     int64 // as Held.Size
	files    int64
	bytes    int64 // of its parts that are stored
	verified int64 // Unix nanoseconds
}

const (
	holdRecordVersion = 1
	holdRecordLen     = 4 + 4*8
)

func (r holdRecord) encode() []byte {
	b := make([]byte, 4, holdRecordLen)
	b[0], b[1], b[2] = holdRecordVersion, byte(r.stage), 1
	if r.kind == KindDir {
		b[2] = 2
	}
	if r.adopted {
		b[3] = 1
	}
	for _, v := range []int64{r.size, r.files, r.bytes, r.verified} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func decodeHoldRecord(b []byte) (holdRecord, error) {
	if len(b) != holdRecordLen || b[0] != holdRecordVersion {
		return holdRecord{}, fmt.Errorf("catalog: hold record of %d bytes is not of version %d", len(b), holdRecordVersion)
	}
	r := holdRecord{stage: holdStage(b[1]), kind: KindFile, adopted: b[3] == 1}
	if b[2] == 2 {
		r.kind = KindDir
	}
	for i, v := range []*int64{&r.size, &r.files, &r.bytes, &r.verified} {
		*v = int64(binary.BigEndian.Uint64(b[4+8*i:]))
	}
	if r.stage < holdFetching || r.stage > holdDropping || b[2] < 1 || b[2] > 2 || b[3] > 1 ||
		r.size < 0 || r.files < 0 || r.bytes < 0 {
		return holdRecord{}, errors.New("catalog: hold record makes no sense")
	}
	return r, nil
}

func (r holdRecord) held(id content.ID) Held {
	h := Held{ID: id, Kind: r.kind, Size: r.size, Files: r.files, Bytes: r.bytes, Adopted: r.adopted}
	if r.verified != 0 {
		h.Verified = time.Unix(0, r.verified).UTC()
	}
	return h
}

// partRecord is a content that a hold is made of.
type partRecord struct {
	there bool // stored, and counted there
	size  int64
}

func (p partRecord) encode() []byte {
	b := []byte{0}
	if p.there {
		b[0] = 1
	}
	return binary.BigEndian.AppendUint64(b, uint64(p.size))
}

func decodePartRecord(b []byte) (partRecord, error) {
	if len(b) != 9 || b[0] > 1 {
		return partRecord{}, fmt.Errorf("catalog: part record of %d bytes", len(b))
	}
	p := partRecord{there: b[0] == 1, size: int64(binary.BigEndian.Uint64(b[1:]))}
	if content.CheckSize(p.size) != nil {
		return partRecord{}, errors.New("catalog: part record makes no sense")
	}
	return p, nil
}

// storedRecord is a content that lies in the store.
type storedRecord struct {
	size int64
	refs int64 // 0 only within the transaction that makes it
}

func (s storedRecord) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(s.size)), uint64(s.refs))
}

func decodeStoredRecord(b []byte) (storedRecord, error) {
	if len(b) != 16 {
		return storedRecord{}, fmt.Errorf("catalog: stored record of %d bytes", len(b))
	}
	s := storedRecord{size: int64(binary.BigEndian.Uint64(b)), refs: int64(binary.BigEndian.Uint64(b[8:]))}
	if content.CheckSize(s.size) != nil || s.refs < 0 {
		return storedRecord{}, errors.New("catalog: stored record makes no sense")
	}
	return s, nil
}
