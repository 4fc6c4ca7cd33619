package share

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
	"go.etcd.io/bbolt"
)

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
