package share

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/multiformats/go-multihash"
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
//	listed     LAN only(1) length(2) to key(8) → expiry(8), Unix seconds   what may be listed, by audience
//
// and those of what it holds for others (storecatalog.go).
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

	key shareKey
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
		for _, name := range [][]byte{bucketShares, bucketPaths, bucketNames, bucketIDs, bucketFiles, bucketContents, bucketOutboards,
			bucketHolds, bucketParts, bucketStored, bucketDamaged, bucketStore} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return makeListed(tx)
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

// hashedFile is a file with its name, as add hands it over.
type hashedFile struct {
	path     string // absolute
	record   fileRecord
	outboard *content.Outboard // nil when there is one group only, or when it is known already
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
		if err := tx.Bucket(bucketContents).Delete(contentKey(f.id, key, string(k[8:]))); err != nil {
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

// matches reports whether a live share that allow accepts has a name whose
// digest begins with prefix, or a content whose ID does.
func (c *catalog) matches(prefix []byte, allow func(shareRecord) bool) (found bool, err error) {
	err = c.db.View(func(tx *bbolt.Tx) error {
		for _, bucket := range [][]byte{bucketNames, bucketContents} {
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
		if tx.Bucket(bucketFiles).Get(k) == nil {
			return nil
		}
		return tx.Bucket(bucketFiles).Put(k, f.fileRecord.encode())
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

// nameDigest is the digest inside a name's key.
func nameDigest(n Name) [32]byte {
	d, err := multihash.Decode(n.Key())
	if err != nil {
		panic(err) // we made it
	}
	return [32]byte(d.Digest)
}
