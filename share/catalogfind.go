package share

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/multiformats/go-multihash"
	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// pageMax is how many shares are read in one transaction while iterating: an
// open read transaction keeps bbolt from reusing pages.
const pageMax = 256

// shares yields the live shares in the order they were added.
func (c *catalog) shares() iter.Seq2[shareRecord, error] {
	return func(yield func(shareRecord, error) bool) {
		var after []byte
		for {
			var page []shareRecord
			err := c.db.View(func(tx *bbolt.Tx) error {
				cursor := tx.Bucket(bucketShares).Cursor()
				k, v := cursor.Seek(after)
				if after != nil && bytes.Equal(k, after) {
					k, v = cursor.Next()
				}
				for ; k != nil && len(page) < pageMax; k, v = cursor.Next() {
					r, err := decodeShare(k, v)
					if err != nil {
						return err
					}
					after = bytes.Clone(k)
					page = append(page, r)
				}
				return nil
			})
			if err != nil {
				yield(shareRecord{}, err)
				return
			}
			for _, r := range page {
				if r.Stage == stageLive && !yield(r, nil) {
					return
				}
			}
			if len(page) < pageMax {
				return
			}
		}
	}
}

// indexed returns up to max live shares whose key in an index bucket begins
// with prefix, newest first.
func (c *catalog) indexed(bucket, prefix []byte, max int) ([]shareRecord, error) {
	var found []shareRecord
	err := c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucket).Cursor()
		for k, _ := cursor.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = cursor.Next() {
			r, ok, err := getShare(tx, k[len(prefix):])
			if err != nil {
				return err
			}
			if ok && r.Stage == stageLive {
				found = append([]shareRecord{r}, found...)
			}
			if len(found) > max {
				found = found[:max]
			}
		}
		return nil
	})
	return found, err
}

// matches reports whether a live share that allow accepts has a name or a word
// whose digest begins with prefix, or a content whose ID does.
func (c *catalog) matches(prefix []byte, allow func(shareRecord) bool) (found bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		for _, bucket := range [][]byte{bucketNames, bucketContents, bucketWords} {
			cursor := tx.Bucket(bucket).Cursor()
			k, _ := cursor.Seek(prefix)
			for range holdingSharesMax {
				if !bytes.HasPrefix(k, prefix) {
					break
				}
				share := shareKey(binary.BigEndian.Uint64(k[32:]))
				r, ok, err := getShare(tx, share.bytes())
				if err != nil {
					return err
				}
				if ok && r.Stage == stageLive && allow(r) {
					found = true
					return nil
				}
				k, _ = cursor.Seek(append(bytes.Clone(k[:32]), (share + 1).bytes()...))
			}
		}
		return nil
	})
	return found, err
}

func (c *catalog) byName(digest [32]byte, max int) ([]shareRecord, error) {
	return c.indexed(bucketNames, digest[:], max)
}

func (c *catalog) byID(id content.ID, max int) ([]shareRecord, error) {
	return c.indexed(bucketIDs, id[:], max)
}

// byPath returns the live share whose root is path.
func (c *catalog) byPath(path string) (r shareRecord, ok bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		k := tx.Bucket(bucketPaths).Get([]byte(path))
		if k == nil {
			return nil
		}
		r, ok, err = getShare(tx, k)
		return err
	})
	return r, ok, err
}

// nameDigest is the digest inside a name's key.
func nameDigest(n Name) [32]byte {
	d, err := multihash.Decode(n.Key())
	if err != nil {
		panic(err) // we made it
	}
	return [32]byte(d.Digest)
}
