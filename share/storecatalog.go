package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

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
