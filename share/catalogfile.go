package share

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// holds reports whether any file of any share, whatever its stage, has id.
func holds(tx *bbolt.Tx, id content.ID) bool {
	k, _ := tx.Bucket(bucketContents).Cursor().Seek(id[:])
	return bytes.HasPrefix(k, id[:])
}

func (c *catalog) holds(id content.ID) (held bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		held = holds(tx, id)
		return nil
	})
	return held, err
}

// hashedFile is a file with its name, as add hands it over.
type hashedFile struct {
	path     string // absolute
	record   fileRecord
	outboard *content.Outboard // nil when there is one group only, or when it is known already
	watched  bool              // record its inode, too
}

// errOutboardGone: the share that had a file's outboard was removed since. Hash
// the file.
var errOutboardGone = errors.New("removed while it was added again")

// putFiles records files of a share that is being added. It returns
// errOutboardGone, and records none of them, when an outboard is neither given
// nor known.
func (c *catalog) putFiles(key shareKey, files []hashedFile) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		for _, f := range files {
			if err := putFile(tx, key, f); err != nil {
				return err
			}
		}
		return nil
	})
}

func putFile(tx *bbolt.Tx, key shareKey, f hashedFile) error {
	if err := tx.Bucket(bucketFiles).Put(append(key.bytes(), f.path...), f.record.encode()); err != nil {
		return err
	}
	if err := tx.Bucket(bucketContents).Put(contentKey(f.record.id, key, f.path), nil); err != nil {
		return err
	}
	if f.watched && f.record.identity.ino != 0 {
		if err := tx.Bucket(bucketInodes).Put(inodeKey(f.record.identity, key, f.path), nil); err != nil {
			return err
		}
	}
	return putOutboard(tx, f)
}

// putOutboard records a file's outboard, unless it has none or it is known already.
func putOutboard(tx *bbolt.Tx, f hashedFile) error {
	if f.outboard == nil {
		known := tx.Bucket(bucketOutboards).Get(outboardKey(f.record.id, 0)) != nil
		if !known && content.GroupCount(f.record.identity.size) > 1 {
			return errOutboardGone
		}
		return nil
	}
	b := f.outboard.Bytes()
	for seg := 0; len(b) > 0; seg++ {
		n := min(len(b), 32*content.SegmentGroups)
		if err := tx.Bucket(bucketOutboards).Put(outboardKey(f.record.id, seg), b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func contentKey(id content.ID, key shareKey, path string) []byte {
	return append(append(id[:], key.bytes()...), path...)
}

func outboardKey(id content.ID, seg int) []byte {
	return binary.BigEndian.AppendUint32(id[:], uint32(seg))
}

// dropOutboard removes a content's outboard, unless a share or the store needs it.
func dropOutboard(tx *bbolt.Tx, id content.ID) error {
	if holds(tx, id) || tx.Bucket(bucketStored).Get(id[:]) != nil {
		return nil
	}
	outboards := tx.Bucket(bucketOutboards)
	for seg := 0; outboards.Get(outboardKey(id, seg)) != nil; seg++ {
		if err := outboards.Delete(outboardKey(id, seg)); err != nil {
			return err
		}
	}
	return nil
}

// file returns what is recorded of one file of a share.
func (c *catalog) file(key shareKey, path string) (f fileRecord, ok bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketFiles).Get(append(key.bytes(), path...))
		if v == nil {
			return nil
		}
		ok = true
		f, err = decodeFileRecord(v)
		return err
	})
	return f, ok && err == nil, err
}

// updateFile records what a fresh look at a file told.
func (c *catalog) updateFile(f heldFile) error {
	return c.db.Update(func(tx *bbolt.Tx) error {
		k := append(f.share.bytes(), f.path...)
		v := tx.Bucket(bucketFiles).Get(k)
		if v == nil {
			return nil
		}
		was, err := decodeFileRecord(v)
		if err != nil {
			return err
		}
		return errors.Join(tx.Bucket(bucketFiles).Put(k, f.fileRecord.encode()), moveInode(tx, was.identity, f))
	})
}

// Bounds on how many files with one content are tried before giving up. Those of
// one share are bounded apart, so that a directory with many empty files, which
// the asking peer may not be allowed to know of, does not hide the other shares.
const (
	holdersMax       = 16 // of one share
	holdingSharesMax = 64
)

// files returns files of live shares that hold id, and beside each the record of
// its share.
func (c *catalog) files(id content.ID) ([]heldFile, []shareRecord, error) {
	found, err := c.filesOf([]content.ID{id})
	return found[id].files, found[id].shares, err
}

// shareFiles yields the content IDs of a share's files, its listing among
// them, in the order of their paths, with sizes.
func (c *catalog) shareFiles(key shareKey, fn func(id content.ID, size int64)) error {
	return c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketFiles).Cursor()
		for k, v := cursor.Seek(key.bytes()); bytes.HasPrefix(k, key.bytes()); k, v = cursor.Next() {
			f, err := decodeFileRecord(v)
			if err != nil {
				return err
			}
			fn(f.id, f.identity.size)
		}
		return nil
	})
}

// outboardRange returns the chaining values of groups first … first+count-1,
// 32 bytes each; nil when the catalog has no outboard of id.
func (c *catalog) outboardRange(id content.ID, first, count int64) ([]byte, error) {
	out := make([]byte, 0, 32*count)
	err := c.db.View(func(tx *bbolt.Tx) error {
		for count > 0 {
			v := tx.Bucket(bucketOutboards).Get(outboardKey(id, int(first/content.SegmentGroups)))
			from := 32 * (first % content.SegmentGroups)
			if int64(len(v)) <= from {
				out = nil
				return nil
			}
			n := min(count, int64(len(v))/32-first%content.SegmentGroups)
			out = append(out, v[from:from+32*n]...)
			first, count = first+n, count-n
		}
		return nil
	})
	return out, err
}

// outboard returns the whole outboard of a content of more than one group;
// nil when the catalog has none.
func (c *catalog) outboard(id content.ID, size int64) (*content.Outboard, error) {
	b, err := c.outboardRange(id, 0, content.GroupCount(size))
	if err != nil || b == nil {
		return nil, err
	}
	return content.ParseOutboard(size, b)
}
