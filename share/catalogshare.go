package share

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

func decodeShare(k, v []byte) (shareRecord, error) {
	var r shareRecord
	if err := json.Unmarshal(v, &r); err != nil || len(k) != 8 {
		return r, fmt.Errorf("catalog: share record %x: %w", k, err)
	}
	r.key = shareKey(binary.BigEndian.Uint64(k))
	return r, nil
}

func putShare(tx *bbolt.Tx, r shareRecord) error {
	v, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketShares).Put(r.key.bytes(), v)
}

func getShare(tx *bbolt.Tx, key []byte) (shareRecord, bool, error) {
	v := tx.Bucket(bucketShares).Get(key)
	if v == nil {
		return shareRecord{}, false, nil
	}
	r, err := decodeShare(key, v)
	return r, err == nil, err
}

// begin reserves a key for a share of path that is being added.
func (c *catalog) begin(path string) (shareKey, error) {
	var key shareKey
	err := c.db.Update(func(tx *bbolt.Tx) error {
		n, err := tx.Bucket(bucketShares).NextSequence()
		if err != nil {
			return err
		}
		key = shareKey(n)
		return putShare(tx, shareRecord{Share: Share{Path: path}, Stage: stageAdding, key: key})
	})
	return key, err
}

// finish makes a share live, and what was shared from its path before go. rest are
// files that are not recorded yet. A share without a key, which has no other files,
// is given one: all of it is one transaction then.
func (c *catalog) finish(r *shareRecord, rest ...hashedFile) error {
	old, err := c.makeLive(r, rest...)
	if err != nil || old == 0 {
		return err
	}
	return c.remove(old)
}

// makeLive is the short part of finish. It returns the share that is to be
// removed now, or 0.
func (c *catalog) makeLive(r *shareRecord, rest ...hashedFile) (old shareKey, err error) {
	r.Stage = stageLive
	given := r.key
	err = c.db.Update(func(tx *bbolt.Tx) error {
		if given == 0 {
			n, err := tx.Bucket(bucketShares).NextSequence()
			if err != nil {
				return err
			}
			r.key = shareKey(n)
		}
		for _, f := range rest {
			if err := putFile(tx, r.key, f); err != nil {
				return err
			}
		}
		paths := tx.Bucket(bucketPaths)
		if r.instead != 0 && !bytes.Equal(paths.Get([]byte(r.Path)), r.instead.bytes()) {
			return errReplaced
		}
		if k := paths.Get([]byte(r.Path)); k != nil {
			previous, ok, err := getShare(tx, k)
			if err != nil {
				return err
			}
			if ok {
				old = previous.key
				previous.Stage = stageRemoving
				if err := errors.Join(putShare(tx, previous), unindexShare(tx, previous)); err != nil {
					return err
				}
			}
		}
		name := nameDigest(r.Name)
		return errors.Join(
			putShare(tx, *r),
			paths.Put([]byte(r.Path), r.key.bytes()),
			tx.Bucket(bucketNames).Put(append(name[:], r.key.bytes()...), nil),
			tx.Bucket(bucketIDs).Put(append(r.ID[:], r.key.bytes()...), nil),
			listShare(tx, *r))
	})
	if err != nil {
		r.key = given
	}
	return old, err
}

// update replaces the record of a live share, whose name, ID and path stay.
func (c *catalog) update(r shareRecord) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		now, ok, err := getShare(tx, r.key.bytes())
		if err != nil || !ok || now.Stage != stageLive {
			return err // removed, or on its way out, since r was read
		}
		return errors.Join(unlistShare(tx, now), putShare(tx, r), listShare(tx, r))
	})
}

// renew is update of a share that is added again as it was. It returns errChanged
// when it is not shared any more.
func (c *catalog) renew(r shareRecord) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		now, ok, err := getShare(tx, r.key.bytes())
		if err != nil {
			return err
		}
		if !ok || now.Stage != stageLive {
			return errChanged
		}
		return errors.Join(unlistShare(tx, now), putShare(tx, r), listShare(tx, r))
	})
}

func unindexShare(tx *bbolt.Tx, r shareRecord) error {
	name := nameDigest(r.Name)
	err := errors.Join(
		tx.Bucket(bucketNames).Delete(append(name[:], r.key.bytes()...)),
		tx.Bucket(bucketIDs).Delete(append(r.ID[:], r.key.bytes()...)),
		unlistShare(tx, r))
	if paths := tx.Bucket(bucketPaths); bytes.Equal(paths.Get([]byte(r.Path)), r.key.bytes()) {
		err = errors.Join(err, paths.Delete([]byte(r.Path)))
	}
	return err
}

// remove takes a share out, whatever its stage: out of the indexes first, then
// its files in batches, its record last.
func (c *catalog) remove(key shareKey) error {
	err := c.db.Update(func(tx *bbolt.Tx) error {
		r, ok, err := getShare(tx, key.bytes())
		if err != nil || !ok {
			return err
		}
		if r.Stage == stageLive {
			if err := unindexShare(tx, r); err != nil {
				return err
			}
		}
		r.Stage = stageRemoving
		return putShare(tx, r)
	})
	for more := true; err == nil && more; {
		err = c.db.Update(func(tx *bbolt.Tx) error {
			more, err = removeFiles(tx, key)
			return err
		})
	}
	if err != nil {
		return err
	}
	return c.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketShares).Delete(key.bytes()) })
}

// removeFiles removes up to batchMax files of a share, and the outboards that
// no file needs any more.
func removeFiles(tx *bbolt.Tx, key shareKey) (more bool, err error) {
	files := tx.Bucket(bucketFiles)
	var gone [][]byte
	ids := map[content.ID]bool{}
	cursor := files.Cursor()
	for k, v := cursor.Seek(key.bytes()); bytes.HasPrefix(k, key.bytes()); k, v = cursor.Next() {
		if len(gone) == batchMax {
			more = true
			break
		}
		f, err := decodeFileRecord(v)
		if err != nil {
			return false, err
		}
		gone = append(gone, bytes.Clone(k))
		ids[f.id] = true
		err = errors.Join(tx.Bucket(bucketContents).Delete(contentKey(f.id, key, string(k[8:]))),
			tx.Bucket(bucketInodes).Delete(inodeKey(f.identity, key, string(k[8:]))))
		if err != nil {
			return false, err
		}
	}
	for _, k := range gone {
		if err := files.Delete(k); err != nil {
			return false, err
		}
	}
	for id := range ids {
		if err := dropOutboard(tx, id); err != nil {
			return false, err
		}
	}
	return more, nil
}
