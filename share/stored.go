package share

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// storedFile is what an open file of the store is checked by. Nobody but us writes
// there, so it is not asked whether the file has changed: each chunk group that is
// read is verified, against what the disk may have done to it. It is for one
// goroutine at a time.
type storedFile struct {
	library *Library
	id      content.ID
	size    int64
	values  []byte // chaining values of segment
	segment int64  // -1: of none
	sound   bool   // the outboard was found to be the content's
}

// errDamaged: a chunk group of the store is not what it was. It is known now, and
// not given to anybody.
var errDamaged = errors.New("damaged in the store")

// openStored opens a content of the store. It returns ErrNotShared when there is no
// such content, or when its file is gone.
func (l *Library) openStored(id content.ID) (*held, error) {
	s, ok, err := l.catalog.stored(id)
	if err == nil && !ok {
		err = ErrNotShared
	}
	if err != nil {
		return nil, err
	}
	path := l.store.path(id)
	file, _, err := openShared(func(flag int) (*os.File, error) { return os.OpenFile(path, flag, 0) })
	if err != nil {
		l.damaged(id, 0, err)
		return nil, ErrNotShared
	}
	return &held{
		file: file, record: heldFile{fileRecord: fileRecord{id: id}, path: path}, identity: fileIdentity{size: s.size},
		stored: &storedFile{library: l, id: id, size: s.size, segment: -1},
	}, nil
}

// there reports whether the store still has the content.
func (f *storedFile) there() bool {
	_, ok, err := f.library.catalog.stored(f.id)
	return err == nil && ok
}

// check verifies a group that was read. A wrong one is remembered, and is
// errDamaged.
func (f *storedFile) check(index int64, data []byte) error {
	right, err := f.matches(index, data)
	if err != nil || right {
		return err
	}
	f.library.damaged(f.id, index, errDamaged)
	return fmt.Errorf("chunk group %d of %s: %w", index, f.id, errDamaged)
}

// checkOutboard verifies the outboard, before any of it is sent: who gets a wrong one
// takes us for a liar. That of a content above 64 GiB is too large to be read for
// each who asks, and is left to Scrub.
func (f *storedFile) checkOutboard() error {
	if f.sound || content.GroupCount(f.size) == 1 || content.TwoLevel(f.size) {
		return nil
	}
	o, err := f.library.catalog.outboard(f.id, f.size)
	if err != nil {
		return err
	}
	if o == nil || o.Verify(f.id) != nil {
		f.library.damaged(f.id, 0, errDamaged)
		return fmt.Errorf("outboard of %s: %w", f.id, errDamaged)
	}
	f.sound = true
	return nil
}

func (f *storedFile) matches(index int64, data []byte) (bool, error) {
	if content.GroupCount(f.size) == 1 {
		return content.VerifyData(f.id, data) == nil, nil
	}
	if seg := index / content.SegmentGroups; seg != f.segment {
		span := content.SegmentSpan(f.size, seg)
		values, err := f.library.catalog.outboardRange(f.id, span.First, span.Count)
		if err == nil && values == nil {
			err = fmt.Errorf("outboard of %s: %w", f.id, errDamaged)
		}
		if err != nil {
			return false, err
		}
		f.values, f.segment = values, seg
	}
	want := f.values[32*(index%content.SegmentGroups):][:32]
	cv := content.GroupCV(data, index)
	return bytes.Equal(cv[:], want), nil
}

// damaged remembers that a group of the store is wrong.
func (l *Library) damaged(id content.ID, group int64, why error) {
	l.log.Warn("damage found in the store", "id", id, "group", group, "err", why)
	if err := l.catalog.putDamage(id, group); err != nil {
		l.log.Warn("remember damage", "id", id, "err", err)
	}
}

// storesPrefix reports whether a content lies in the store whose ID begins with
// prefix.
func (c *catalog) storesPrefix(prefix []byte) (found bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(bucketStored).Cursor().Seek(prefix)
		found = bytes.HasPrefix(k, prefix)
		return nil
	})
	return found, err
}
