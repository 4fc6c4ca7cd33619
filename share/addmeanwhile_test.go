package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestAddOfAFileThatDoesNotStandStill(t *testing.T) {
	large := string(randomBytes(3*content.GroupSize, "still"))
	for what, change := range map[string]func(f *os.File) error{
		"grows":        func(f *os.File) error { _, err := f.Write([]byte("more")); return err },
		"shrinks":      func(f *os.File) error { info, _ := f.Stat(); return f.Truncate(info.Size() - 1) },
		"becomes void": func(f *os.File) error { return f.Truncate(0) },
	} {
		for size, data := range map[string]string{"small": "before", "large": large} {
			l := openLibrary(t, Config{})
			path := writeFile(t, t.TempDir(), "a", data)
			old := addTo(t, l, path, AddOptions{})
			f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil { // read it again
				t.Fatal(err)
			}
			first := true
			a := addingTo(l, path, func() {
				if first { // what is expected, before the file is opened
					first = false
					return
				}
				if what == "becomes void" { // from its old length, each time
					if err := f.Truncate(int64(len(data))); err != nil {
						t.Error(err)
					}
				}
				if err := change(f); err != nil {
					t.Error(err)
				}
			})
			s, err := a.run(t.Context())
			f.Close()
			// One that is empty by the second try stands still.
			if what == "becomes void" && err == nil {
				if s.ID != content.Root(nil) {
					t.Errorf("a %s file that %s: Add = %+v", size, what, s)
				}
				continue
			}
			if !errors.Is(err, ErrModified) {
				t.Errorf("a %s file that %s: Add = %+v, %v, want ErrModified", size, what, s, err)
				continue
			}
			if r := sharedAt(t, l, path); r.ID != old.ID {
				t.Errorf("a %s file that %s: the earlier share is %s now", size, what, r.ID)
			}
			want := map[string]int{"shares": 1, "paths": 1, "names": 1, "listed": 1, "words": 1, "ids": 1, "files": 1, "contents": 1}
			if size == "large" {
				want["outboards"] = 1
			}
			if got := bucketSizes(t, l.catalog); !cmp.Equal(got, want) {
				t.Errorf("a %s file that %s: the catalog holds %v, want %v", size, what, got, want)
			}
		}
	}
}

func TestAddLeavesOutWhatDoesNotStandStillInADirectory(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := makeFiles(t, filepath.Join(t.TempDir(), "d"), "a", "moving", "z")
	f, err := os.OpenFile(filepath.Join(dir, "moving"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := addingTo(l, dir, func() {
		if _, err := f.Write([]byte("more")); err != nil {
			t.Error(err)
		}
	})
	var warnings []string
	a.options.Warn = func(w string) { warnings = append(warnings, w) }
	s, err := a.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, e := range l.listingOf(t, s) {
		paths = append(paths, string(e.Path))
	}
	if !cmp.Equal(paths, []string{"a", "z"}) || s.Files != 2 {
		t.Errorf("shared %q, %d files, want a and z", paths, s.Files)
	}
	if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "left out moving: it changed while it was read") {
		t.Errorf("warnings %q", warnings)
	}
}

func TestCancelledAddLeavesNoTrace(t *testing.T) {
	dir := makeFiles(t, filepath.Join(t.TempDir(), "d"), "a", "b/c", "e/")
	writeFile(t, dir, "large", string(randomBytes(5*content.GroupSize, "large")))
	for what, path := range map[string]string{"directory": dir, "small file": filepath.Join(dir, "a"), "large file": filepath.Join(dir, "large")} {
		l := openLibrary(t, Config{})
		for before := range 12 {
			ctx, cancel := context.WithCancel(t.Context())
			reports := 0
			a := addingTo(l, path, func() {
				if reports++; reports > before {
					cancel()
				}
			})
			s, err := a.run(ctx)
			cancelled := ctx.Err() != nil
			cancel()
			if !cancelled { // it was done before
				if err != nil {
					t.Errorf("%s, %d reports: %v", what, reports, err)
				}
				break
			}
			if err == nil { // the cancel came with the last report, after the share was published
				if _, ok, _ := l.catalog.byPath(path); !ok {
					t.Errorf("%s, cancelled at report %d: Add = %+v, and it is not shared", what, before+1, s)
				}
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s, cancelled at report %d: %v, want context.Canceled", what, before+1, err)
			}
			if got, listings := bucketSizes(t, l.catalog), l.listings(t); len(got) != 0 || len(listings) != 0 {
				t.Errorf("%s, cancelled at report %d: left %v in the catalog, listings %q", what, before+1, got, listings)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		was := bucketSizes(t, l.catalog)
		if _, err := l.Add(ctx, path, AddOptions{Name: "other"}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled before: %v, want context.Canceled", what, err)
		}
		if got := bucketSizes(t, l.catalog); !cmp.Equal(got, was) {
			t.Errorf("%s, cancelled before: the catalog went from %v to %v", what, was, got)
		}
	}
}

func TestConcurrentAdds(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	const adds = 24
	paths := make([]string, adds)
	for i := range paths {
		// Every third is the same path, every second a directory.
		switch {
		case i%3 == 0:
			paths[i] = filepath.Join(dir, "same")
		case i%2 == 0:
			paths[i] = makeFiles(t, filepath.Join(dir, fmt.Sprint(i)), "a", "b/c")
		default:
			paths[i] = writeFile(t, dir, fmt.Sprintf("file %d", i), fmt.Sprint(i))
		}
	}
	writeFile(t, dir, "same", string(randomBytes(3*content.GroupSize, "same")))
	var wg sync.WaitGroup
	for _, path := range paths {
		wg.Go(func() {
			if _, err := l.Add(t.Context(), path, AddOptions{Name: "one name"}); err != nil {
				t.Errorf("Add(%s): %v", path, err)
			}
		})
	}
	wg.Wait()
	seqs := map[int64]string{}
	count := 0
	for r, err := range l.catalog.shares() {
		if err != nil {
			t.Fatal(err)
		}
		count++
		if other, ok := seqs[r.Seq]; ok {
			t.Errorf("%s and %s have one sequence number", r.Path, other)
		}
		seqs[r.Seq] = r.Path
		h, err := l.openHeld(t.Context(), r.ID, anyShare)
		if err != nil {
			t.Errorf("%s is not served: %v", r.Path, err)
			continue
		}
		h.close()
	}
	slices.Sort(paths)
	if want := len(slices.Compact(paths)); count != want {
		t.Errorf("%d shares, want %d", count, want)
	}
	sizes := bucketSizes(t, l.catalog)
	if sizes["paths"] != count || sizes["names"] != count || sizes["ids"] != count || sizes["shares"] != count || sizes["outboards"] != 1 {
		t.Errorf("the catalog holds %v for %d shares", sizes, count)
	}
	l.mustKeep(t, 1)
}

func TestSequenceNumbersOfOneNameDiffer(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	// Signed within the same millisecond, as fast processors do.
	for round := range 20 {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				key, err := l.catalog.begin(fmt.Sprint(dir, round, i))
				if err == nil {
					err = l.publish(shareRecord{Share: Share{Name: "n", ID: numberID(i), Kind: KindFile, Path: fmt.Sprint(dir, round, i)}, key: key})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	seen := map[int64]bool{}
	for r, err := range l.catalog.shares() {
		if err != nil || seen[r.Seq] {
			t.Fatalf("%s has the sequence number %d of another, %v", r.Path, r.Seq, err)
		}
		seen[r.Seq] = true
	}
}

func TestAddWhileTheEarlierShareIsRemoved(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := filepath.Join(t.TempDir(), "d")
	file := writeFile(t, dir, "large", string(randomBytes(3*content.GroupSize, "x")))
	if err := os.Symlink("nowhere", filepath.Join(dir, "z")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	addSettled(t, l, dir, file)
	known := 0
	a := addingTo(l, dir, func() {
		if known++; known == 2 { // what is expected was told, then that the file is known
			if _, err := l.Remove(t.Context(), dir); err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := a.run(t.Context()); !errors.Is(err, errOutboardGone) {
		t.Errorf("run = %v, want errOutboardGone: a share without outboard can't be served", err)
	}
	if got, listings := bucketSizes(t, l.catalog), l.listings(t); len(got) != 0 || len(listings) != 0 {
		t.Errorf("it left %v, listings %q", got, listings)
	}

	// Add itself then hashes the file, whenever the removal comes.
	addSettled(t, l, dir, file)
	removed := false
	s := addTo(t, l, dir, AddOptions{Warn: func(string) {
		if !removed {
			removed = true
			if _, err := l.Remove(t.Context(), dir); err != nil {
				t.Error(err)
			}
		}
	}})
	if !removed {
		t.Fatal("there was no warning to remove it at")
	}
	id := l.listingOf(t, s)[0].ID
	if o, err := l.catalog.outboard(id, 3*content.GroupSize); err != nil || o == nil {
		t.Errorf("the outboard is %v, %v", o, err)
	}
}
