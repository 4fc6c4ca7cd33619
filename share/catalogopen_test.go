package share

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

func TestOpenClearsWhatACrashLeftHalfAdded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := reopen(t, path)
	if _, err := c.begin("/begun"); err != nil {
		t.Fatal(err)
	}
	key, err := c.begin("/with files")
	if err != nil {
		t.Fatal(err)
	}
	var files []hashedFile
	for i := range 2*batchMax + 5 {
		files = append(files, numberFile(fmt.Sprintf("/with files/%d", i), i))
	}
	files = append(files, largeFile("/with files/large", 9999, 3*content.GroupSize))
	if err := c.putFiles(key, files); err != nil {
		t.Fatal(err)
	}
	if held, _, err := c.files(numberID(3)); err != nil || len(held) != 0 {
		t.Errorf("a share that is being added serves %v, %v", held, err)
	}
	c.close() // as a crash leaves it: every change is a transaction
	c = reopen(t, path)
	if got := bucketSizes(t, c); len(got) != 0 {
		t.Errorf("left after opening: %v", got)
	}
}

func TestOpenGoesOnWithARemoval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := reopen(t, path)
	var files []hashedFile
	for i := range 2*batchMax + 5 {
		files = append(files, numberFile(fmt.Sprintf("/gone/%d", i), i))
	}
	gone := putShareOf(t, c, "/gone", "gone", numberID(1), append(files, largeFile("/gone/large", 9999, 3*content.GroupSize))...)
	kept := putShareOf(t, c, "/kept", "kept", numberID(1), numberFile("/kept", 1))
	before := bucketSizes(t, c)
	// remove, stopped after its first batch.
	err := c.db.Update(func(tx *bbolt.Tx) error {
		gone.Stage = stageRemoving
		if err := unindexShare(tx, gone); err != nil {
			return err
		}
		return putShare(tx, gone)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = c.db.Update(func(tx *bbolt.Tx) error {
		more, err := removeFiles(tx, gone.key)
		if !more {
			t.Error("one batch was enough")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	c = reopen(t, path)
	want := map[string]int{"shares": 1, "paths": 1, "names": 1, "ids": 1, "files": 1, "contents": 1}
	if got := bucketSizes(t, c); !cmp.Equal(got, want) {
		t.Errorf("left after opening: %v, want %v (before: %v)", got, want, before)
	}
	if held, _, err := c.files(numberID(1)); err != nil || len(held) != 1 || held[0].share != kept.key {
		t.Errorf("the other share serves %v, %v", held, err)
	}
}

func TestOpenGoesOnWithAReplacement(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := reopen(t, path)
	putShareOf(t, c, "/a", "a", numberID(1), numberFile("/a", 1))
	key, err := c.begin("/a")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.putFiles(key, []hashedFile{numberFile("/a", 2)}); err != nil {
		t.Fatal(err)
	}
	old, err := c.makeLive(&shareRecord{Share: Share{Name: "a", ID: numberID(2), Path: "/a"}, key: key})
	if err != nil || old == 0 {
		t.Fatalf("makeLive = %d, %v, want the old share's key", old, err)
	}
	check := func(when string) {
		t.Helper()
		r, ok, err := c.byPath("/a")
		if err != nil || !ok || r.ID != numberID(2) {
			t.Errorf("%s: byPath = %+v, %v, %v", when, r, ok, err)
		}
		if held, _, _ := c.files(numberID(1)); len(held) != 0 {
			t.Errorf("%s: the old content is served", when)
		}
		if named, _ := c.byName(nameDigest("a"), 10); len(named) != 1 {
			t.Errorf("%s: %d shares of the name", when, len(named))
		}
	}
	check("before the crash")
	c.close()
	c = reopen(t, path)
	check("after it")
	want := map[string]int{"shares": 1, "paths": 1, "names": 1, "ids": 1, "files": 1, "contents": 1}
	if got := bucketSizes(t, c); !cmp.Equal(got, want) {
		t.Errorf("left after opening: %v, want %v", got, want)
	}
}

func TestOpenRefusesADamagedCatalog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := reopen(t, path)
	for i := range 300 {
		putShareOf(t, c, fmt.Sprintf("/%d", i), "a", numberID(i), largeFile(fmt.Sprintf("/%d", i), i, 20*content.GroupSize))
	}
	c.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var inUse int
	c = reopen(t, path)
	c.db.View(func(tx *bbolt.Tx) error {
		inUse = int(tx.Size())
		return nil
	})
	c.close()
	page := os.Getpagesize()
	damaged := map[string][]byte{
		"text":           []byte("this is no catalog at all\n"),
		"zeros":          make([]byte, 64<<10),
		"random":         randomBytes(64<<10, "catalog"),
		"half":           whole[:inUse/2],
		"one page short": whole[:inUse-page],
		"one byte short": whole[:inUse-1],
		"one byte":       whole[:1],
		"one page":       whole[:page],
		"two pages":      whole[:2*page],
		"three pages":    whole[:3*page],
		"no first pages": whole[2*page:],
		"both headers":   append(randomBytes(2*page, "headers"), whole[2*page:]...),
	}
	for what, data := range damaged {
		at := filepath.Join(t.TempDir(), "catalog.db")
		if err := os.WriteFile(at, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := openCatalog(at)
		if err == nil {
			c.close()
			t.Errorf("%s: opened", what)
			continue
		}
		if !strings.Contains(err.Error(), at) {
			t.Errorf("%s: the error %q does not name the file", what, err)
		}
		if left, err := os.ReadFile(at); err != nil || !bytes.Equal(left, data) {
			t.Errorf("%s: the file was changed", what)
		}
	}
	// What a crash of the very first start leaves is no damage.
	at := filepath.Join(t.TempDir(), "catalog.db")
	if err := os.WriteFile(at, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	reopen(t, at)
}

func TestOpenWaitsForNoOneForever(t *testing.T) {
	t.Parallel() // it mostly waits
	path := filepath.Join(t.TempDir(), "catalog.db")
	reopen(t, path)
	start := time.Now()
	if c, err := openCatalog(path); err == nil {
		c.close()
		t.Error("a catalog was opened twice")
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("the second open gave up after %s", took)
	}
}

func TestOpenRemovesListingsThatNoShareNeeds(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "catalog.db")
	c := reopen(t, path)
	listing := func(n int) string {
		return writeFile(t, listingDir(dir), numberID(n).Hex(), "listing")
	}
	needed, orphan := listing(1), listing(2)
	temp := writeFile(t, listingDir(dir), ".new-123", "half")
	putShareOf(t, c, "/dir", "dir", numberID(1), numberFile(needed, 1))
	c.close()
	reopen(t, path)
	for path, want := range map[string]bool{needed: true, orphan: false, temp: false} {
		if _, err := os.Stat(path); err == nil != want {
			t.Errorf("%s is there: %v, want %v", filepath.Base(path), err == nil, want)
		}
	}
}

// TestOpenOfACatalogWithADamagedPage has each page in turn hold zeros, or noise.
// Opening may find it or not; it must not bring the program down.
func TestOpenOfACatalogWithADamagedPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := reopen(t, path)
	for i := range 40 {
		putShareOf(t, c, fmt.Sprintf("/%d", i), "a", numberID(i), largeFile(fmt.Sprintf("/%d", i), i, 20*content.GroupSize))
	}
	inUse := 0
	c.db.View(func(tx *bbolt.Tx) error {
		inUse = int(tx.Size())
		return nil
	})
	c.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	opened, refused := 0, 0
	at := filepath.Join(t.TempDir(), "catalog.db")
	for from := 0; from < inUse; from += page {
		for _, noise := range [][]byte{make([]byte, page), randomBytes(page, fmt.Sprint(from))} {
			os.Remove(at) // the one before may be locked still
			data := bytes.Clone(whole)
			copy(data[from:], noise)
			if err := os.WriteFile(at, data, 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := openCatalog(at)
			if err == nil {
				opened++
				c.close()
				continue
			}
			refused++
			if !strings.Contains(err.Error(), at) {
				t.Errorf("page %d: the error %q does not name the file", from/page, err)
			}
		}
	}
	// A catalog of a million files is not read whole to open it.
	if opened == 0 || refused == 0 {
		t.Errorf("%d opened, %d refused, want some of both", opened, refused)
	}
}
