package share

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// catalog is what this peer shares, on disk: nothing of it is held in memory,
// and a crash at any moment leaves a catalog that opens. It is a bbolt file
// with these buckets (integers big-endian):
//
//	shares     key(8)                 → shareRecord, JSON
//	paths      root path              → key            the share of a path
//	names      name digest(32) key(8) → ""             shares by name
//	ids        content ID(32) key(8)  → ""             shares by ID
//	files      key(8) path            → fileRecord     each file that is served
//	contents   content ID(32) key(8) path → ""         files by content
//	outboards  content ID(32) segment(4)  → chaining values of up to 4,096 groups
//	inodes     device(8) inode(8) key(8) path → ""     files of shares that are watched
//	words      word digest(32) key(8) → …              what may be searched by word; words.go
//	listed     LAN only(1) length(2) to key(8) → expiry(8), Unix seconds   what may be listed, by audience
//
// and those of what it holds for others (storerecords.go).
//
// A share comes into being in stages: its record is written as adding, its
// files in batches, and one last transaction makes it live and its predecessor
// at the same path removing. What open finds adding or removing is cleared.
type catalog struct{ db *bbolt.DB }

var (
	bucketShares    = []byte("shares")
	bucketPaths     = []byte("paths")
	bucketNames     = []byte("names")
	bucketIDs       = []byte("ids")
	bucketFiles     = []byte("files")
	bucketContents  = []byte("contents")
	bucketOutboards = []byte("outboards")
	bucketListed    = []byte("listed")
	bucketInodes    = []byte("inodes")
)

// batchMax is how many files one transaction takes: large enough that its
// fsync does not count, small enough to hold in memory.
const batchMax = 1000

type shareKey uint64

func (k shareKey) bytes() []byte { return binary.BigEndian.AppendUint64(nil, uint64(k)) }

type stage string

const (
	stageAdding   stage = "adding"
	stageLive     stage = "live"
	stageRemoving stage = "removing"
)

// shareRecord is one share as the catalog keeps it.
type shareRecord struct {
	Share
	Stage    stage          `json:"stage"`
	Envelope *node.Envelope `json:"envelope,omitempty"` // the signed manifest; nil: none known
	Own      bool           `json:"own,omitempty"`      // the manifest is this peer's
	Seq      int64          `json:"seq,omitempty"`      // of the manifest
	Expires  time.Time      `json:"expires,omitzero"`   // of the manifest
	Watch    *watchRecord   `json:"watch,omitempty"`    // nil: it is not watched

	key shareKey
	// instead is the share that it takes the place of, and of no other; 0: of any.
	instead shareKey
}

// fileRecord is one file of a share.
type fileRecord struct {
	id       content.ID
	identity fileIdentity
	modified bool // known to hold something else under this identity
}

const fileRecordLen = 32 + fileIdentityLen + 1

func (f fileRecord) encode() []byte {
	b := append(make([]byte, 0, fileRecordLen), f.id[:]...)
	b = f.identity.append(b)
	if f.modified {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeFileRecord(b []byte) (fileRecord, error) {
	if len(b) != fileRecordLen {
		return fileRecord{}, fmt.Errorf("catalog: file record of %d bytes", len(b))
	}
	return fileRecord{
		id:       content.ID(b[:32]),
		identity: decodeFileIdentity(b[32:]),
		modified: b[fileRecordLen-1] != 0,
	}, nil
}

// heldFile is a file that may be served, and where it is.
type heldFile struct {
	fileRecord
	path  string
	share shareKey
}

// openCatalog opens the catalog at path, or makes a new one. One that is damaged
// where opening it looks is an error, and stays as it is.
func openCatalog(path string) (_ *catalog, err error) {
	// bbolt panics at a page that makes no sense, or reads wherever it points to.
	// The file then stays locked until this process ends, which it does: there is
	// no going on without a catalog.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("open catalog %s: it is damaged: %v", path, r)
		}
	}()
	if err := checkWhole(path); err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	// The list of free pages is written with each change, 8 bytes a page: without
	// it bbolt reads the whole file to open it, 0.7 s for a million files.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("open catalog %s: %w", path, err)
	}
	c := &catalog{db}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketShares, bucketPaths, bucketNames, bucketIDs, bucketFiles, bucketContents, bucketOutboards, bucketInodes,
			bucketHolds, bucketParts, bucketStored, bucketDamaged, bucketStore} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return errors.Join(makeWords(tx), makeListed(tx))
	})
	if err == nil {
		err = c.clear()
	}
	if err == nil {
		err = c.clearListings(listingDir(filepath.Dir(path)))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open catalog %s: %w", path, err), db.Close())
	}
	return c, nil
}

// lockWait is how long another process may hold the catalog: longer than one
// that is being killed needs to be gone.
const lockWait = 2 * time.Second

// checkWhole returns an error when the file at path is shorter than it says
// itself: bbolt maps it into memory, and the system ends a process that reads
// there beyond a file's end.
func checkWhole(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil // made anew by Open
	}
	if err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, ReadOnly: true})
	if err != nil {
		return err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("it is damaged: it was cut to %d bytes, and had %d at least", info.Size(), tx.Size())
		}
		return nil
	})
	return errors.Join(err, db.Close())
}

func (c *catalog) close() error { return c.db.Close() }

// clear removes what a crash left half added or half removed.
func (c *catalog) clear() error {
	var stale []shareKey
	err := c.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketShares).ForEach(func(k, v []byte) error {
			r, err := decodeShare(k, v)
			if err == nil && r.Stage != stageLive {
				stale = append(stale, r.key)
			}
			return err
		})
	})
	for _, key := range stale {
		err = errors.Join(err, c.remove(key))
	}
	return err
}

// clearListings removes the listings in dir that no file record names: a crash
// came between the listing's rename and its record, or between a share's removal
// and its listing's.
func (c *catalog) clearListings(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.db.View(func(tx *bbolt.Tx) error {
		for _, e := range entries {
			if id, err := content.Parse(e.Name()); err == nil && holds(tx, id) {
				continue
			}
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
		return nil
	})
}
