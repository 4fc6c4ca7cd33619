package share

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// A file of a watched share that was only moved, inside the share or from another
// one that is watched, is not read again: it is found by its inode.

// inodeTries bounds how many records of one inode are looked at: one for each share
// and name that it is, or was, shared under.
const inodeTries = 16

func inodeKey(f fileIdentity, key shareKey, path string) []byte {
	b := binary.BigEndian.AppendUint64(nil, f.dev)
	b = binary.BigEndian.AppendUint64(b, f.ino)
	return append(append(b, key.bytes()...), path...)
}

// moveInode has the inode that f was known by replaced by the one that it has now.
func moveInode(tx *bbolt.Tx, was fileIdentity, f heldFile) error {
	inodes := tx.Bucket(bucketInodes)
	old := inodeKey(was, f.share, f.path)
	if c, _ := inodes.Cursor().Seek(old); !bytes.Equal(c, old) {
		return nil // not watched
	}
	if err := inodes.Delete(old); err != nil || f.identity.ino == 0 {
		return err
	}
	return inodes.Put(inodeKey(f.identity, f.share, f.path), nil)
}

// inode is a record of a file, and when the tree was last walked that it is of.
type inode struct {
	heldFile
	scanned time.Time
}

// byInode returns up to inodeTries records of live shares of the file that f is of.
func (c *catalog) byInode(f fileIdentity) (found []inode, err error) {
	prefix := inodeKey(f, 0, "")[:16]
	err = c.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketInodes).Cursor()
		for k, _ := cursor.Seek(prefix); bytes.HasPrefix(k, prefix) && len(found) < inodeTries; k, _ = cursor.Next() {
			v := tx.Bucket(bucketFiles).Get(k[16:])
			r, ok, err := getShare(tx, k[16:24])
			if err != nil {
				return err
			}
			if v == nil || !ok || r.Stage != stageLive || r.Watch == nil {
				continue
			}
			file, err := decodeFileRecord(v)
			if err != nil {
				return err
			}
			found = append(found, inode{heldFile{file, string(k[24:]), r.key}, time.Unix(0, r.Watch.Scanned)})
		}
		return nil
	})
	return found, err
}

// moved returns what is known of the file at path, which info is of, when it is one
// that was at another path. The same device, inode, size and time of change say so,
// if it was there already when that path was last looked at: numbers of inodes are
// used again, and whole trees are made with one time. Where the system does not tell
// when a file was made, it is read again, unless its ctime has stayed, too, as under
// a directory that was moved.
func (a *adding) moved(path string, info fs.FileInfo) (hashedFile, bool, error) {
	now := sysIdentity(info)
	if a.watch == nil || a.compare || now.ino == 0 {
		return hashedFile{}, false, nil
	}
	candidates, err := a.library.catalog.byInode(now)
	if err != nil {
		return hashedFile{}, false, err
	}
	for _, c := range candidates {
		was := c.identity
		if c.modified || was.ctime == ctimeUnknown || was.size != now.size || was.mtime != now.mtime {
			continue
		}
		if was.ctime != now.ctime {
			made, ok := birthTime(path, info)
			if !ok || !made.Before(c.scanned.Add(-clockTick)) {
				continue
			}
		}
		if there, err := os.Lstat(c.path); c.path == path || err == nil && sysIdentity(there).sameFile(now) {
			continue // it is linked, not moved
		}
		a.found.Add(1)
		// Its ctime is that of the move. A change after this look would show in its
		// mtime, which is none of now.
		if now.mtime > time.Now().Add(-clockTick).UnixNano() {
			now.ctime = ctimeUnknown
		}
		return hashedFile{path: path, record: fileRecord{id: c.id, identity: now}, watched: true}, true, nil
	}
	return hashedFile{}, false, nil
}
