package share

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

func newCatalog(t *testing.T) *catalog {
	t.Helper()
	return reopen(t, filepath.Join(t.TempDir(), "catalog.db"))
}

// reopen opens the catalog at path until the test ends.
func reopen(t *testing.T, path string) *catalog {
	t.Helper()
	c, err := openCatalog(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.close() })
	return c
}

// bucketSizes returns how many keys each bucket has that has any, but for withdrawals,
// which outlast what they are of.
func bucketSizes(t *testing.T, c *catalog) map[string]int {
	t.Helper()
	sizes := map[string]int{}
	err := c.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if !bytes.Equal(name, bucketWithdrawals) {
					sizes[string(name)]++
				}
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

// numberID is an ID made of a number.
func numberID(n int) (id content.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n))
	id[31] = 1
	return id
}

// numberFile is a file of one group whose content is numberID(n).
func numberFile(path string, n int) hashedFile {
	return hashedFile{path: path, record: fileRecord{id: numberID(n), identity: fileIdentity{ino: uint64(n), size: 10}}}
}

// largeFile is a file of many groups with an outboard that is made up.
func largeFile(path string, n int, size int64) hashedFile {
	o := content.NewOutboard(size)
	for i := range o.Groups() {
		var cv content.CV
		binary.BigEndian.PutUint64(cv[:], uint64(n)<<32|uint64(i))
		o.Set(i, cv)
	}
	f := numberFile(path, n)
	f.record.identity.size = size
	f.outboard = o
	return f
}

// putShareOf makes a live share of files at path.
func putShareOf(t *testing.T, c *catalog, path string, name Name, id content.ID, files ...hashedFile) shareRecord {
	t.Helper()
	key, err := c.begin(path)
	if err != nil {
		t.Fatal(err)
	}
	for len(files) > 0 {
		n := min(len(files), batchMax)
		if err := c.putFiles(key, files[:n]); err != nil {
			t.Fatal(err)
		}
		files = files[n:]
	}
	r := shareRecord{Share: Share{Name: name, ID: id, Kind: KindFile, Path: path, State: StateShared}, key: key}
	if err := c.finish(&r); err != nil {
		t.Fatal(err)
	}
	r.Stage = stageLive
	return r
}

func TestFileRecordRoundTrip(t *testing.T) {
	for _, f := range []fileRecord{
		{},
		{id: numberID(7), identity: fileIdentity{1, 2, 3, 4, 5}, modified: true},
		{id: numberID(7), identity: fileIdentity{1, 2, 3, -4, ctimeUnknown}},
	} {
		got, err := decodeFileRecord(f.encode())
		if err != nil || got != f {
			t.Errorf("%+v comes back as %+v, %v", f, got, err)
		}
	}
	for _, n := range []int{0, fileRecordLen - 1, fileRecordLen + 1} {
		if _, err := decodeFileRecord(make([]byte, n)); err == nil {
			t.Errorf("a record of %d bytes is taken", n)
		}
	}
}

func TestCatalogKeepsShares(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := reopen(t, path)
	key := testKey(t, 7)
	e, err := testManifest(t).sign(key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.begin("/a")
	if err != nil {
		t.Fatal(err)
	}
	want := shareRecord{
		Share: Share{
			Name: "a", ID: numberID(1), Kind: KindFile, Size: 10, Files: 1, Path: "/a", State: StateShared,
			Scope: Scope{LANOnly: true, Unlisted: true, To: keyID(t, key)}, Added: manifestTime,
		},
		Stage: stageLive, Envelope: &e, Own: true, Seq: 5, Expires: manifestTime, key: k,
	}
	if err := c.finish(&want); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	c = reopen(t, path)
	got, ok, err := c.byPath("/a")
	if err != nil || !ok {
		t.Fatalf("byPath = %v, %v", ok, err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(shareRecord{})); diff != "" {
		t.Errorf("the record came back differently (-put +got):\n%s", diff)
	}
}

func TestFinishReplacesTheShareAtItsPath(t *testing.T) {
	c := newCatalog(t)
	for i := 1; i <= 3; i++ {
		putShareOf(t, c, "/a", Name(fmt.Sprintf("name %d", i)), numberID(i), numberFile("/a", i))
	}
	want := map[string]int{"shares": 1, "paths": 1, "names": 1, "ids": 1, "files": 1, "contents": 1}
	if got := bucketSizes(t, c); !cmp.Equal(got, want) {
		t.Errorf("after three shares of one path: %v, want %v", got, want)
	}
	for i := 1; i <= 3; i++ {
		named, err := c.byName(nameDigest(Name(fmt.Sprintf("name %d", i))), 10)
		if err != nil || len(named) != i/3 {
			t.Errorf("name %d finds %d shares, %v", i, len(named), err)
		}
	}
}

func TestOutboardLivesAsLongAsAShareNeedsIt(t *testing.T) {
	c := newCatalog(t)
	size := int64(3 * content.GroupSize)
	first := putShareOf(t, c, "/a", "a", numberID(1), largeFile("/a", 1, size))
	known := largeFile("/b", 1, size)
	known.outboard = nil // as for a file that the catalog knows
	second := putShareOf(t, c, "/b", "b", numberID(1), known, largeFile("/b/twice", 1, size))
	for _, key := range []shareKey{first.key, second.key} {
		b, err := c.outboardRange(numberID(1), 0, 3)
		if err != nil || len(b) != 96 {
			t.Errorf("the outboard has %d bytes, %v", len(b), err)
		}
		if err := c.remove(key); err != nil {
			t.Fatal(err)
		}
	}
	if got := bucketSizes(t, c); len(got) != 0 {
		t.Errorf("left after removing both: %v", got)
	}
}

func TestPutFilesRefusesAFileWhoseOutboardIsGone(t *testing.T) {
	c := newCatalog(t)
	key, err := c.begin("/a")
	if err != nil {
		t.Fatal(err)
	}
	known := largeFile("/a", 1, 3*content.GroupSize)
	known.outboard = nil
	if err := c.putFiles(key, []hashedFile{numberFile("/b", 2), known}); err != errOutboardGone {
		t.Errorf("putFiles = %v, want errOutboardGone", err)
	}
	if got := bucketSizes(t, c); !cmp.Equal(got, map[string]int{"shares": 1}) {
		t.Errorf("it recorded %v", got)
	}
}

func TestOutboardRangeAcrossSegments(t *testing.T) {
	c := newCatalog(t)
	groups := int64(2*content.SegmentGroups + 5)
	f := largeFile("/a", 1, groups*content.GroupSize-7)
	putShareOf(t, c, "/a", "a", f.record.id, f)
	all := f.outboard.Bytes()
	seg := int64(content.SegmentGroups)
	for _, r := range [][2]int64{
		{0, 1}, {0, seg - 1}, {0, seg}, {0, seg + 1}, {0, groups}, {1, seg}, {seg - 1, 1}, {seg - 1, 2}, {seg, seg}, {seg - 1, seg + 2},
		{2 * seg, 5}, {2*seg + 4, 1}, {2*seg - 3, 8},
	} {
		got, err := c.outboardRange(f.record.id, r[0], r[1])
		if err != nil || !bytes.Equal(got, all[32*r[0]:32*(r[0]+r[1])]) {
			t.Errorf("values %d from %d: %d bytes, %v", r[1], r[0], len(got), err)
		}
	}
	for _, r := range [][2]int64{{groups, 1}, {groups - 1, 2}, {0, groups + 1}, {3 * seg, 1}, {1 << 40, 1}} {
		if got, err := c.outboardRange(f.record.id, r[0], r[1]); got != nil || err != nil {
			t.Errorf("values %d from %d, which are not there: %d bytes, %v", r[1], r[0], len(got), err)
		}
	}
	if got, err := c.outboardRange(numberID(2), 0, 1); got != nil || err != nil {
		t.Errorf("an unknown content has %d bytes, %v", len(got), err)
	}
	o, err := c.outboard(f.record.id, f.record.identity.size)
	if err != nil || !bytes.Equal(o.Bytes(), all) {
		t.Errorf("outboard: %v", err)
	}
}

func TestIndexesFindSharesNewestFirst(t *testing.T) {
	c := newCatalog(t)
	for i := range 10 {
		putShareOf(t, c, fmt.Sprintf("/%d", i), []Name{"Report.pdf", "report.PDF", "other"}[i%3], numberID(i%2), numberFile(fmt.Sprintf("/%d", i), i%2))
	}
	if err := c.remove(7); err != nil { // "/6"
		t.Fatal(err)
	}
	paths := func(r []shareRecord, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		var s []string
		for _, r := range r {
			s = append(s, r.Path)
		}
		return strings.Join(s, " ")
	}
	for _, tt := range []struct{ what, got, want string }{
		{"name in any case", paths(c.byName(nameDigest("REPORT.pdf"), 10)), "/9 /7 /4 /3 /1 /0"},
		{"three of them", paths(c.byName(nameDigest("report.pdf"), 3)), "/9 /7 /4"},
		{"ID", paths(c.byID(numberID(0), 10)), "/8 /4 /2 /0"},
		{"unknown name", paths(c.byName(nameDigest("none"), 10)), ""},
		{"unknown ID", paths(c.byID(numberID(5), 10)), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("by %s: %q, want %q", tt.what, tt.got, tt.want)
		}
	}
	var all []shareRecord
	for r, err := range c.shares() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if got := paths(all, nil); got != "/0 /1 /2 /3 /4 /5 /7 /8 /9" {
		t.Errorf("shares yields %q", got)
	}
}

func TestSharesPagesThroughChanges(t *testing.T) {
	c := newCatalog(t)
	err := c.db.Update(func(tx *bbolt.Tx) error {
		for i := range 2*pageMax + 10 {
			r := shareRecord{Share: Share{Path: fmt.Sprint(i)}, Stage: stageLive, key: shareKey(i + 1)}
			if i%5 == 0 {
				r.Stage = stageAdding
			}
			if err := putShare(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for r, err := range c.shares() {
		if err != nil || r.Stage != stageLive || seen[r.Path] {
			t.Fatalf("share %s, stage %s, %v, seen %v", r.Path, r.Stage, err, seen[r.Path])
		}
		seen[r.Path] = true
		// Writing while iterating must neither block nor repeat.
		if err := c.remove(r.key); err != nil {
			t.Fatal(err)
		}
	}
	if want := (2*pageMax + 10) * 4 / 5; len(seen) != want {
		t.Errorf("%d shares, want %d", len(seen), want)
	}
	for range c.shares() {
		t.Error("a share is left")
	}
}

func TestFilesOfManyHoldersFindsEveryShare(t *testing.T) {
	c := newCatalog(t)
	var same []hashedFile
	for i := range 3 * holdersMax {
		same = append(same, numberFile(fmt.Sprintf("/dir/%03d", i), 1))
	}
	dir := putShareOf(t, c, "/dir", "dir", numberID(2), same...)
	if _, err := c.begin("/half"); err != nil {
		t.Fatal(err)
	}
	one := putShareOf(t, c, "/one", "one", numberID(1), numberFile("/one", 1))
	held, shares, err := c.files(numberID(1))
	if err != nil || len(held) != len(shares) {
		t.Fatalf("%d files, %d shares, %v", len(held), len(shares), err)
	}
	count := map[shareKey]int{}
	for i, h := range held {
		count[h.share]++
		if h.share != shares[i].key {
			t.Errorf("file %s stands beside share %s", h.path, shares[i].Path)
		}
	}
	if want := map[shareKey]int{dir.key: holdersMax, one.key: 1}; !cmp.Equal(count, want) {
		t.Errorf("files by share: %v, want %v", count, want)
	}
}

func TestUpdateLeavesARemovedShareAlone(t *testing.T) {
	c := newCatalog(t)
	r := putShareOf(t, c, "/a", "a", numberID(1), numberFile("/a", 1))
	// Another goroutine has begun to remove it.
	err := c.db.Update(func(tx *bbolt.Tx) error {
		removing := r
		removing.Stage = stageRemoving
		return putShare(tx, removing)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Seq = 9
	if err := c.update(r); err != nil {
		t.Fatal(err)
	}
	for r := range c.shares() {
		t.Errorf("%s is live again", r.Path)
	}
	if err := c.remove(r.key); err != nil {
		t.Fatal(err)
	}
	if err := c.update(r); err != nil {
		t.Fatal(err)
	}
	if got := bucketSizes(t, c)["shares"]; got != 0 {
		t.Error("update brought a removed share back")
	}
}

func TestUpdateFile(t *testing.T) {
	c := newCatalog(t)
	r := putShareOf(t, c, "/a", "a", numberID(1), numberFile("/a", 1))
	held, _, err := c.files(numberID(1))
	if err != nil || len(held) != 1 {
		t.Fatal(held, err)
	}
	held[0].modified = true
	if err := c.updateFile(held[0]); err != nil {
		t.Fatal(err)
	}
	if f, ok, err := c.file(r.key, "/a"); err != nil || !ok || !f.modified {
		t.Errorf("file = %+v, %v, %v, want it modified", f, ok, err)
	}
	if err := c.remove(r.key); err != nil {
		t.Fatal(err)
	}
	if err := c.updateFile(held[0]); err != nil {
		t.Fatal(err)
	}
	if got := bucketSizes(t, c); len(got) != 0 {
		t.Errorf("updateFile brought a removed file back: %v", got)
	}
}

func TestCatalogOfAHundredThousandFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const files = 100_000
	c := newCatalog(t)
	c.db.NoSync = true // the disk is not what is measured
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, peak := heap(), uint64(0)
	start := time.Now()
	key, err := c.begin("/dir")
	if err != nil {
		t.Fatal(err)
	}
	batch := make([]hashedFile, 0, batchMax)
	for i := range files {
		batch = append(batch, numberFile(fmt.Sprintf("/dir/%d/a file with a name of some length %d", i%100, i), i))
		if len(batch) == batchMax {
			if err := c.putFiles(key, batch); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
			if i%(20*batchMax) > 19*batchMax-1 {
				peak = max(peak, heap())
			}
		}
	}
	r := shareRecord{Share: Share{Name: "dir", ID: numberID(1), Kind: KindDir, Path: "/dir"}, key: key}
	if err := c.finish(&r); err != nil {
		t.Fatal(err)
	}
	l := &Library{catalog: c, book: emptyBook(t)}
	k, err := l.keysOf(r)
	if err != nil || len(k.files) != fileKeysMax {
		t.Errorf("keysOf has %d files, %v, want %d", len(k.files), err, fileKeysMax)
	}
	lookups := time.Now()
	for i := 0; i < files; i += 100 {
		if held, _, err := c.files(numberID(i)); err != nil || len(held) != 1 {
			t.Fatalf("content %d: %d files, %v", i, len(held), err)
		}
	}
	if took := time.Since(lookups); took > 10*time.Second {
		t.Errorf("1,000 lookups took %s", took)
	}
	peak = max(peak, heap())
	if err := c.remove(key); err != nil {
		t.Fatal(err)
	}
	peak = max(peak, heap())
	if got := bucketSizes(t, c); len(got) != 0 {
		t.Errorf("left after removal: %v", got)
	}
	// A million of them must fit too, so next to nothing may be kept for each.
	if grown := int64(peak) - int64(before); grown > 32<<20 {
		t.Errorf("the heap grew by %d KiB for %d files", grown>>10, files)
	}
	if took := time.Since(start); took > 2*time.Minute {
		t.Errorf("it took %s", took)
	}
}
