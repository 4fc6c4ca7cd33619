package share

import (
	"bytes"
	"encoding/binary"
	"iter"

	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// located are the files of live shares that hold one content, and beside each
// the record of its share.
type located struct {
	files  []heldFile
	shares []shareRecord
}

// filesOf locates several contents in one transaction, which reads each share's
// record once: for a directory's small files that is most of what looking for
// them costs. What is not held is left out.
func (c *catalog) filesOf(ids []content.ID) (map[content.ID]located, error) {
	found := map[content.ID]located{}
	err := c.db.View(func(tx *bbolt.Tx) error {
		shares := liveShares{tx: tx}
		for _, id := range ids {
			if _, again := found[id]; again {
				continue
			}
			l, err := shares.locate(id)
			if err != nil {
				return err
			}
			if len(l.files) > 0 {
				found[id] = l
			}
		}
		return nil
	})
	return found, err
}

// liveShares reads the records of shares once each.
type liveShares struct {
	tx   *bbolt.Tx
	read map[shareKey]*shareRecord // nil in it: not live
}

func (s *liveShares) get(key shareKey) (*shareRecord, error) {
	if r, ok := s.read[key]; ok {
		return r, nil
	}
	r, ok, err := getShare(s.tx, key.bytes())
	if err != nil {
		return nil, err
	}
	if s.read == nil {
		s.read = map[shareKey]*shareRecord{}
	}
	s.read[key] = nil
	if ok && r.Stage == stageLive {
		s.read[key] = &r
	}
	return s.read[key], nil
}

func (s *liveShares) locate(id content.ID) (l located, err error) {
	cursor := s.tx.Bucket(bucketContents).Cursor()
	files := s.tx.Bucket(bucketFiles)
	k, _ := cursor.Seek(id[:])
	for range holdingSharesMax {
		if !bytes.HasPrefix(k, id[:]) {
			break
		}
		share := bytes.Clone(k[:40])
		key := shareKey(binary.BigEndian.Uint64(share[32:]))
		r, err := s.get(key)
		if err != nil {
			return l, err
		}
		for n := 0; r != nil && n < holdersMax && bytes.HasPrefix(k, share); n++ {
			if v := files.Get(k[32:]); v != nil {
				f, err := decodeFileRecord(v)
				if err != nil {
					return l, err
				}
				l.files = append(l.files, heldFile{fileRecord: f, path: string(k[40:]), share: key})
				l.shares = append(l.shares, *r)
			}
			k, _ = cursor.Next()
		}
		// On to the next share that has id.
		k, _ = cursor.Seek(contentKey(id, key+1, ""))
	}
	return l, nil
}

// filesOfShare yields all files of a share, a directory's listing among them.
func (c *catalog) filesOfShare(key shareKey) iter.Seq2[heldFile, error] {
	return func(yield func(heldFile, error) bool) {
		from := key.bytes()
		for {
			var page []heldFile
			err := c.db.View(func(tx *bbolt.Tx) error {
				cursor := tx.Bucket(bucketFiles).Cursor()
				k, v := cursor.Seek(from)
				for ; bytes.HasPrefix(k, key.bytes()) && len(page) < pageMax; k, v = cursor.Next() {
					f, err := decodeFileRecord(v)
					if err != nil {
						return err
					}
					page = append(page, heldFile{fileRecord: f, path: string(k[8:]), share: key})
				}
				return nil
			})
			if err != nil {
				yield(heldFile{}, err)
				return
			}
			for _, f := range page {
				if !yield(f, nil) {
					return
				}
			}
			if len(page) < pageMax {
				return
			}
			from = append(append(key.bytes(), page[pageMax-1].path...), 0)
		}
	}
}
