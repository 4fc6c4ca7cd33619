package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
	"go.etcd.io/bbolt"
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

func getUsed(tx *bbolt.Tx) (charge, error) {
	v := tx.Bucket(bucketStore).Get(keyUsed)
	if v == nil {
		return charge{}, nil
	}
	if len(v) != 16 {
		return charge{}, fmt.Errorf("catalog: %d bytes say what the store takes", len(v))
	}
	return charge{int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))}, nil
}

func addUsed(tx *bbolt.Tx, c charge) error {
	used, err := getUsed(tx)
	if err != nil {
		return err
	}
	used = used.plus(c)
	v := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(used.bytes)), uint64(used.cost))
	return tx.Bucket(bucketStore).Put(keyUsed, v)
}

func getHold(tx *bbolt.Tx, id content.ID) (r holdRecord, ok bool, err error) {
	v := tx.Bucket(bucketHolds).Get(id[:])
	if v == nil {
		return r, false, nil
	}
	r, err = decodeHoldRecord(v)
	return r, err == nil, err
}

func putHold(tx *bbolt.Tx, id content.ID, r holdRecord) error {
	return tx.Bucket(bucketHolds).Put(id[:], r.encode())
}

func getStored(tx *bbolt.Tx, id content.ID) (s storedRecord, ok bool, err error) {
	v := tx.Bucket(bucketStored).Get(id[:])
	if v == nil {
		return s, false, nil
	}
	s, err = decodeStoredRecord(v)
	return s, err == nil, err
}

func partKey(hold, id content.ID) []byte { return append(bytes.Clone(hold[:]), id[:]...) }

// hold returns the record of a hold.
func (c *catalog) hold(id content.ID) (r holdRecord, ok bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		r, ok, err = getHold(tx, id)
		return err
	})
	return r, ok, err
}

// putHold records a hold, whatever there was.
func (c *catalog) putHold(id content.ID, r holdRecord) error {
	return c.db.Update(func(tx *bbolt.Tx) error { return putHold(tx, id, r) })
}

// holdAt is a hold with its ID.
type holdAt struct {
	id content.ID
	holdRecord
}

// holdsAfter returns up to pageMax holds whose ID is larger than after, in order.
func (c *catalog) holdsAfter(after *content.ID) (page []holdAt, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketHolds).Cursor()
		var k, v []byte
		if after == nil {
			k, v = cursor.First()
		} else if k, v = cursor.Seek(after[:]); bytes.Equal(k, after[:]) {
			k, v = cursor.Next()
		}
		for ; k != nil && len(page) < pageMax; k, v = cursor.Next() {
			r, err := decodeHoldRecord(v)
			if err != nil || len(k) != 32 {
				return errors.Join(err, fmt.Errorf("catalog: hold %x", k))
			}
			page = append(page, holdAt{content.ID(k), r})
		}
		return nil
	})
	return page, err
}

// stored returns the record of a content that lies in the store.
func (c *catalog) stored(id content.ID) (s storedRecord, ok bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		s, ok, err = getStored(tx, id)
		return err
	})
	return s, ok, err
}

// part is a content that a hold is made of, with its ID.
type part struct {
	id content.ID
	partRecord
}

// partsAfter returns up to max parts of a hold whose ID is larger than after.
func (c *catalog) partsAfter(hold content.ID, after *content.ID, max int) (page []part, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		from := hold[:]
		if after != nil {
			from = partKey(hold, *after)
		}
		cursor := tx.Bucket(bucketParts).Cursor()
		k, v := cursor.Seek(from)
		if after != nil && bytes.Equal(k, from) {
			k, v = cursor.Next()
		}
		for ; bytes.HasPrefix(k, hold[:]) && len(page) < max; k, v = cursor.Next() {
			p, err := decodePartRecord(v)
			if err != nil || len(k) != 64 {
				return errors.Join(err, fmt.Errorf("catalog: part %x", k))
			}
			page = append(page, part{content.ID(k[32:]), p})
		}
		return nil
	})
	return page, err
}

// claim makes contents parts of a hold. It returns the charge for those that are not
// in the store yet, and what of the hold is.
func (c *catalog) claim(hold content.ID, parts []part) (missing charge, err error) {
	err = c.db.Update(func(tx *bbolt.Tx) error {
		missing = charge{}
		r, ok, err := getHold(tx, hold)
		if err != nil || !ok {
			return errors.Join(err, errors.New("catalog: no such hold"))
		}
		for _, p := range parts {
			there, err := claimPart(tx, hold, &r, p)
			if err != nil {
				return err
			}
			if !there {
				missing = missing.plus(chargeOf(p.size))
			}
		}
		return putHold(tx, hold, r)
	})
	return missing, err
}

// claimPart makes one content part of a hold r, and reports whether it is stored.
func claimPart(tx *bbolt.Tx, hold content.ID, r *holdRecord, p part) (there bool, err error) {
	parts, key := tx.Bucket(bucketParts), partKey(hold, p.id)
	if v := parts.Get(key); v != nil {
		known, err := decodePartRecord(v)
		if err == nil && known.size != p.size {
			err = errSizeInListing
		}
		if err != nil || known.there {
			return true, err
		}
	}
	s, there, err := getStored(tx, p.id)
	if err != nil {
		return false, err
	}
	if there {
		if s.size != p.size {
			return false, errSizeInListing
		}
		s.refs++
		r.bytes += p.size
		err = tx.Bucket(bucketStored).Put(p.id[:], s.encode())
	}
	return there, errors.Join(err, parts.Put(key, partRecord{there, p.size}.encode()))
}

// putStored records files that have come to their places in the store as parts of a
// hold, and the hold as r says when that is not nil. used is what they add.
func (c *catalog) putStored(hold content.ID, files []hashedFile, change func(*holdRecord)) (used charge, err error) {
	err = c.db.Update(func(tx *bbolt.Tx) error {
		used = charge{}
		r, ok, err := getHold(tx, hold)
		if err != nil || !ok {
			return errors.Join(err, errors.New("catalog: no such hold"))
		}
		for _, f := range files {
			added, err := putStoredFile(tx, f)
			if err != nil {
				return err
			}
			used = used.plus(added)
			if _, err := claimPart(tx, hold, &r, part{f.record.id, partRecord{size: f.record.identity.size}}); err != nil {
				return err
			}
		}
		change(&r)
		return errors.Join(putHold(tx, hold, r), addUsed(tx, used))
	})
	return used, err
}

// putStoredFile records a file without a ref, unless it is recorded already.
func putStoredFile(tx *bbolt.Tx, f hashedFile) (charge, error) {
	id, size := f.record.id, f.record.identity.size
	if _, known, err := getStored(tx, id); known || err != nil {
		return charge{}, err
	}
	if err := putOutboard(tx, f); err != nil {
		return charge{}, err
	}
	return chargeOf(size), tx.Bucket(bucketStored).Put(id[:], storedRecord{size: size}.encode())
}

// removeParts takes up to batchMax parts from a hold, and returns which contents no
// hold needs any more, what that frees, and whether more parts are left.
func (c *catalog) removeParts(hold content.ID) (gone []content.ID, freed charge, more bool, err error) {
	err = c.db.Update(func(tx *bbolt.Tx) error {
		gone, freed, more = nil, charge{}, false
		parts := tx.Bucket(bucketParts)
		var keys [][]byte
		cursor := parts.Cursor()
		for k, v := cursor.Seek(hold[:]); bytes.HasPrefix(k, hold[:]); k, v = cursor.Next() {
			if len(keys) == batchMax {
				more = true
				break
			}
			p, err := decodePartRecord(v)
			if err != nil {
				return err
			}
			keys = append(keys, bytes.Clone(k))
			if !p.there {
				continue
			}
			id := content.ID(k[32:])
			last, err := unrefStored(tx, id)
			if err != nil {
				return err
			}
			if last {
				gone, freed = append(gone, id), freed.plus(chargeOf(p.size))
			}
		}
		for _, k := range keys {
			if err := parts.Delete(k); err != nil {
				return err
			}
		}
		return addUsed(tx, charge{}.minus(freed))
	})
	return gone, freed, more, err
}

// unrefStored takes one ref from a content, and forgets it with the last one.
func unrefStored(tx *bbolt.Tx, id content.ID) (last bool, err error) {
	s, ok, err := getStored(tx, id)
	if err != nil || !ok {
		return false, err
	}
	if s.refs--; s.refs > 0 {
		return false, tx.Bucket(bucketStored).Put(id[:], s.encode())
	}
	if err := errors.Join(tx.Bucket(bucketStored).Delete(id[:]), clearDamage(tx, id)); err != nil {
		return true, err
	}
	return true, dropOutboard(tx, id)
}

// forgetHold removes the record of a hold that has no parts any more.
func (c *catalog) forgetHold(id content.ID) error {
	return c.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketHolds).Delete(id[:]) })
}

// clearDamage forgets what was found wrong in a content.
func clearDamage(tx *bbolt.Tx, id content.ID) error {
	damaged := tx.Bucket(bucketDamaged)
	cursor := damaged.Cursor()
	var keys [][]byte
	for k, _ := cursor.Seek(id[:]); bytes.HasPrefix(k, id[:]); k, _ = cursor.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := damaged.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// used is what all stored contents take.
func (c *catalog) used() (used charge, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		used, err = getUsed(tx)
		return err
	})
	return used, err
}

// parts yields the parts of a hold in the order of their IDs.
func (c *catalog) parts(hold content.ID) iter.Seq2[part, error] {
	return func(yield func(part, error) bool) {
		var after *content.ID
		for {
			page, err := c.partsAfter(hold, after, pageMax)
			if err != nil {
				yield(part{}, err)
				return
			}
			for _, p := range page {
				after = &p.id
				if !yield(p, nil) {
					return
				}
			}
			if len(page) < pageMax {
				return
			}
		}
	}
}

// damageMax is how many damaged groups of one content are remembered, and
// damagedMax of how many contents: to scrub finds them all.
const (
	damageMax  = 256
	damagedMax = 10_000
)

// putDamage remembers that a group of a stored content was found wrong.
func (c *catalog) putDamage(id content.ID, group int64) error {
	key := binary.BigEndian.AppendUint64(bytes.Clone(id[:]), uint64(group))
	known := true
	err := c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketDamaged).Cursor()
		k, _ := cursor.Seek(key)
		known = bytes.Equal(k, key)
		return nil
	})
	if known || err != nil {
		return err // a stranger who asks again costs no transaction
	}
	return c.db.Update(func(tx *bbolt.Tx) error {
		if _, ok, err := getStored(tx, id); !ok || err != nil {
			return err
		}
		damaged := tx.Bucket(bucketDamaged)
		n := 0
		cursor := damaged.Cursor()
		for k, _ := cursor.Seek(id[:]); bytes.HasPrefix(k, id[:]); k, _ = cursor.Next() {
			n++
		}
		if n >= damageMax {
			return nil
		}
		return damaged.Put(key, nil)
	})
}

// putDamages remembers the groups of a stored content that are not good, in place of
// what was known.
func (c *catalog) putDamages(id content.ID, good *swarm.Bitfield) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		if _, ok, err := getStored(tx, id); !ok || err != nil {
			return err
		}
		if err := clearDamage(tx, id); err != nil {
			return err
		}
		n := 0
		for i := good.NextClear(0); i < good.Len() && n < damageMax; i = good.NextClear(i + 1) {
			key := binary.BigEndian.AppendUint64(bytes.Clone(id[:]), uint64(i))
			if err := tx.Bucket(bucketDamaged).Put(key, nil); err != nil {
				return err
			}
			n++
		}
		return nil
	})
}

// clearDamage forgets what was found wrong in a content: it was repaired.
func (c *catalog) clearDamage(id content.ID) error {
	return c.db.Update(func(tx *bbolt.Tx) error { return clearDamage(tx, id) })
}

// damageOf returns the groups of a content that were found wrong, in order.
func (c *catalog) damageOf(id content.ID) (groups []int64, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketDamaged).Cursor()
		for k, _ := cursor.Seek(id[:]); bytes.HasPrefix(k, id[:]) && len(k) == 40; k, _ = cursor.Next() {
			groups = append(groups, int64(binary.BigEndian.Uint64(k[32:])))
		}
		return nil
	})
	return groups, err
}

// damage returns the contents in which something was found wrong.
func (c *catalog) damage() (ids []content.ID, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketDamaged).Cursor()
		for k, _ := cursor.First(); len(k) == 40 && len(ids) < damagedMax; {
			id := content.ID(k[:32])
			ids = append(ids, id)
			last := binary.BigEndian.AppendUint64(bytes.Clone(id[:]), 1<<64-1)
			if k, _ = cursor.Seek(last); bytes.Equal(k, last) {
				k, _ = cursor.Next()
			}
		}
		return nil
	})
	return ids, err
}

// isDamaged reports whether a hold has one of the damaged contents among its parts.
func (c *catalog) isDamaged(hold content.ID, kind Kind, damaged []content.ID) (yes bool, err error) {
	if len(damaged) == 0 {
		return false, nil
	}
	if kind != KindDir {
		_, yes = slices.BinarySearchFunc(damaged, hold, compareIDs)
		return yes, nil
	}
	err = c.db.View(func(tx *bbolt.Tx) error {
		parts := tx.Bucket(bucketParts)
		for _, id := range damaged {
			if v := parts.Get(partKey(hold, id)); v != nil {
				p, err := decodePartRecord(v)
				yes = yes || p.there
				if err != nil || yes {
					return err
				}
			}
		}
		return nil
	})
	return yes, err
}

func compareIDs(a, b content.ID) int { return bytes.Compare(a[:], b[:]) }

// verifiedHold notes when a hold was found right, if it is held still.
func (c *catalog) verifiedHold(id content.ID, at time.Time) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		r, ok, err := getHold(tx, id)
		if err != nil || !ok || r.stage != holdWhole {
			return err
		}
		r.verified = at.UnixNano()
		return putHold(tx, id, r)
	})
}

// replaceOutboard records an outboard in place of one that is damaged, if the
// content is stored still.
func (c *catalog) replaceOutboard(id content.ID, o *content.Outboard) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		if _, ok, err := getStored(tx, id); err != nil || !ok {
			return err
		}
		return putOutboard(tx, hashedFile{record: fileRecord{id: id, identity: fileIdentity{size: o.Size()}}, outboard: o})
	})
}
