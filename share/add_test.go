package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"lukechampine.com/blake3"
)

// openLibrary opens a library in a home of its own, on no network.
func openLibrary(t *testing.T, c Config) *Library {
	t.Helper()
	n, err := node.New(t.Context(), node.Config{Dir: t.TempDir(), Offline: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	l, err := Open(n, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func writeFile(t *testing.T, dir, name, data string) string {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func addTo(t *testing.T, l *Library, path string, o AddOptions) Share {
	t.Helper()
	s, err := l.Add(t.Context(), path, o)
	if err != nil {
		t.Fatalf("Add(%s): %v", path, err)
	}
	return s
}

func sharedAt(t *testing.T, l *Library, path string) shareRecord {
	t.Helper()
	r, ok, err := l.catalog.byPath(path)
	if err != nil || !ok {
		t.Fatalf("byPath(%s) = %v, %v", path, ok, err)
	}
	return r
}

// addSettled adds path until the catalog would know file again: a file that was
// written within the last clock tick is hashed once more at the next look.
func addSettled(t *testing.T, l *Library, path, file string) Share {
	t.Helper()
	for start := time.Now(); time.Since(start) < time.Minute; {
		s := addTo(t, l, path, AddOptions{})
		f, ok, err := l.catalog.file(sharedAt(t, l, path).key, file)
		if err != nil || !ok {
			t.Fatalf("file(%s) = %v, %v", file, ok, err)
		}
		if f.identity.ctime != ctimeUnknown {
			return s
		}
	}
	t.Fatal("the file does not settle")
	return Share{}
}

// plantID makes the catalog believe that file holds id, and returns what undoes
// it. An Add that gives id afterwards has not read the file.
func plantID(t *testing.T, l *Library, share, file string, id content.ID) {
	t.Helper()
	key := sharedAt(t, l, share).key
	f, ok, err := l.catalog.file(key, file)
	if err != nil || !ok {
		t.Fatalf("file(%s) = %v, %v", file, ok, err)
	}
	f.id = id
	if err := l.catalog.updateFile(heldFile{f, file, key}); err != nil {
		t.Fatal(err)
	}
}

// listings returns the names of what lies in the library's directory of listings.
func (l *Library) listings(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(listingDir(l.dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// mustKeep fails unless the library keeps the listings and attributes of its shares,
// and nothing else; they are to be so many listings.
func (l *Library) mustKeep(t *testing.T, listings int) {
	t.Helper()
	ids, want := map[content.ID]bool{}, map[string]bool{}
	for r, err := range l.catalog.shares() {
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == KindDir {
			ids[r.ID], want[r.ID.Hex()], want[r.Attrs.Hex()] = true, true, true
		}
	}
	names := slices.Sorted(maps.Keys(want))
	if got := l.listings(t); !slices.Equal(got, names) || len(ids) != listings {
		t.Errorf("kept %q, want %q, of %d trees", got, names, listings)
	}
}

// listingOf reads the listing of a shared directory.
func (l *Library) listingOf(t *testing.T, s Share) []Entry {
	t.Helper()
	data, err := os.ReadFile(l.listingPath(s.ID))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := readAll(data)
	if err != nil || content.ID(blake3.Sum256(data)) != s.ID {
		t.Fatalf("the listing of %s does not verify: %v", s.Name, err)
	}
	return entries
}

// addingTo is an Add whose report is called each time that anything is counted,
// while it hashes.
func addingTo(l *Library, path string, report func()) *adding {
	a := &adding{library: l, path: path, progress: &meter{}}
	a.progress.report = func(Progress) {
		a.progress.last = time.Time{} // report again at the next byte
		report()
	}
	return a
}

func TestAddNamesFilesByTheirBLAKE3(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	for _, size := range []int{0, 1, 1023, 1024, 1025, content.GroupSize - 1, content.GroupSize, content.GroupSize + 1, 5*content.GroupSize + 3} {
		name := fmt.Sprintf("%d.bin", size)
		data := randomBytes(size, name)
		path := writeFile(t, dir, name, string(data))
		s := addTo(t, l, path, AddOptions{})
		want := Share{Name: Name(name), ID: blake3.Sum256(data), Kind: KindFile, Size: int64(size), Files: 1, Path: path, State: StateShared, Added: s.Added}
		if diff := cmp.Diff(want, s); diff != "" {
			t.Errorf("Add of %d bytes (-want +got):\n%s", size, diff)
		}
		if r := sharedAt(t, l, path); !cmp.Equal(r.Share, s) || !r.Own || r.Envelope == nil {
			t.Errorf("the catalog has %+v", r)
		}
		if b3sum, err := exec.LookPath("b3sum"); err == nil {
			out, err := exec.Command(b3sum, "--no-names", path).Output()
			if got := strings.TrimSpace(string(out)); err != nil || got != s.ID.Hex() {
				t.Errorf("b3sum of %d bytes = %s, %v, want %s", size, got, err, s.ID.Hex())
			}
		}
	}
}

func TestAddListsADirectory(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := makeFiles(t, filepath.Join(t.TempDir(), "album"), "a/b.txt", "a.txt", "a-b", "empty/", "bin/run", ".hidden", "big")
	big := randomBytes(content.GroupSize+1, "big")
	writeFile(t, dir, "big", string(big))
	if err := os.Chmod(filepath.Join(dir, "bin/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := addTo(t, l, dir, AddOptions{})
	var want []Entry
	var size int64
	for _, p := range []string{"a-b", "a.txt", "a/b.txt", "big", "bin/run", "empty"} {
		e := Entry{Path: Path(p), Kind: KindDir}
		if p != "empty" {
			data := []byte(p)
			if p == "big" {
				data = big
			}
			e = Entry{Path: Path(p), Kind: KindFile, ID: blake3.Sum256(data), Size: int64(len(data)), Executable: p == "bin/run" && runtime.GOOS != "windows"}
		}
		size += e.Size
		want = append(want, e)
	}
	if diff := cmp.Diff(want, l.listingOf(t, s)); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
	if s.Kind != KindDir || s.Files != 5 || s.Size != size || s.Name != "album" {
		t.Errorf("Add = %+v, want 5 files of %d bytes", s, size)
	}
	for _, e := range want {
		held, _, err := l.catalog.files(e.ID)
		if err != nil || len(held) == 0 != (e.Kind == KindDir) {
			t.Errorf("%s is served from %v, %v", e.Path, held, err)
		}
	}
	o, err := l.catalog.outboard(blake3.Sum256(big), int64(len(big)))
	if err != nil || o == nil || o.Verify(blake3.Sum256(big)) != nil {
		t.Errorf("the large file's outboard: %v, %v", o, err)
	}
}

func TestAddOfAnEmptyDirectory(t *testing.T) {
	l := openLibrary(t, Config{})
	s := addTo(t, l, t.TempDir(), AddOptions{Name: "nothing"})
	if s.ID != content.Root(nil) || s.Files != 0 || s.Size != 0 || s.Kind != KindDir {
		t.Errorf("Add = %+v, want the empty listing", s)
	}
}

func TestEqualTreesHaveOneID(t *testing.T) {
	first, second := openLibrary(t, Config{}), openLibrary(t, Config{})
	names := []string{"b/c", "a.txt", "a/x", "a-b", "e/", "z"}
	one := makeFiles(t, filepath.Join(t.TempDir(), "one"), names...)
	slices.Reverse(names)
	two := makeFiles(t, filepath.Join(t.TempDir(), "two"), names...)
	if err := os.Chtimes(filepath.Join(two, "z"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	a, b, c := addTo(t, first, one, AddOptions{}), addTo(t, first, two, AddOptions{}), addTo(t, second, two, AddOptions{})
	if a.ID != b.ID || b.ID != c.ID {
		t.Errorf("IDs %s, %s, %s of equal trees", a.ID, b.ID, c.ID)
	}
	// The listing is one file, and stays as long as one of them is shared.
	first.mustKeep(t, 1)
	if _, err := first.Remove(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	if h, err := first.openHeld(t.Context(), a.ID, anyShare); err != nil {
		t.Errorf("the listing is gone with one of two shares: %v", err)
	} else {
		h.close()
	}
	if _, err := first.Remove(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	if got, left := first.listings(t), bucketSizes(t, first.catalog); len(got) != 0 || len(left) != 0 {
		t.Errorf("left after removing both: listings %q, catalog %v", got, left)
	}
	writeFile(t, two, "z", "other")
	if d := addTo(t, second, two, AddOptions{}); d.ID == c.ID {
		t.Error("a changed tree has the same ID")
	}
	second.mustKeep(t, 1)
}

func TestAddDoesNotReadUnchangedFilesAgain(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := makeFiles(t, filepath.Join(t.TempDir(), "d"), "a", "b")
	file := filepath.Join(dir, "a")
	planted := numberID(7)

	addSettled(t, l, file, file)
	plantID(t, l, file, file, planted)
	if s := addTo(t, l, file, AddOptions{}); s.ID != planted {
		t.Error("the unchanged file was read again")
	}
	if err := os.Chtimes(file, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	if s := addTo(t, l, file, AddOptions{}); s.ID != content.Root([]byte("a")) {
		t.Errorf("the file with another time is %s, as if it had not been read", s.ID)
	}

	addSettled(t, l, dir, file)
	plantID(t, l, dir, file, planted)
	if e := l.listingOf(t, addTo(t, l, dir, AddOptions{})); e[0].ID != planted {
		t.Error("the unchanged file in a directory was read again")
	}
}

func TestAddHashesAChangedFileAgain(t *testing.T) {
	l := openLibrary(t, Config{})
	path := writeFile(t, t.TempDir(), "a", "before")
	old := addTo(t, l, path, AddOptions{})
	// The same length, and perhaps within the same clock tick.
	writeFile(t, filepath.Dir(path), "a", "after!")
	s := addTo(t, l, path, AddOptions{})
	if s.ID != content.Root([]byte("after!")) {
		t.Errorf("the changed file is %s", s.ID)
	}
	if held, _, _ := l.catalog.files(old.ID); len(held) != 0 {
		t.Error("the old content is served still")
	}
	if sharedAt(t, l, path).Seq <= 0 {
		t.Error("no sequence number")
	}
}

func TestAddRefuses(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	home := l.node.Dir()
	writeFile(t, dir, "plain", "x")
	writeFile(t, home, "sub/deep/file", "x")
	type test struct {
		what, path string
		want       error
	}
	tests := []test{
		{"missing", filepath.Join(dir, "missing"), fs.ErrNotExist},
		{"in a file", filepath.Join(dir, "plain", "x"), nil},
		{"home", home, ErrNotShareable},
		{"home, spelled otherwise", home + "/../" + filepath.Base(home) + "/.", ErrNotShareable},
		{"inside home", filepath.Join(home, "catalog.db"), ErrNotShareable},
		{"deep inside home", filepath.Join(home, "sub", "deep", "file"), ErrNotShareable},
		{"directory inside home", filepath.Join(home, "sub"), ErrNotShareable},
		{"the root directory", string(filepath.Separator), ErrBadName},
		{"name with ESC", writeName(dir, "a\x1b[2J"), ErrBadName},
		{"name in invalid UTF-8", writeName(dir, "a\xff"), ErrBadName},
		{"name with bidi control", writeName(dir, "a\u202egpj.exe"), ErrBadName},
	}
	link := func(what, target string, want error) {
		path := filepath.Join(dir, "link "+what)
		if os.Symlink(target, path) == nil {
			tests = append(tests, test{what, path, want})
		}
	}
	link("to home", home, ErrNotShareable)
	link("into home", filepath.Join(home, "sub", "deep"), ErrNotShareable)
	link("to a file of the home", filepath.Join(home, "catalog.db"), ErrNotShareable)
	link("to nowhere", filepath.Join(dir, "nowhere"), fs.ErrNotExist)
	link("to itself", filepath.Join(dir, "link to itself"), nil)
	hard := filepath.Join(dir, "hard link")
	if os.Link(filepath.Join(home, "catalog.db"), hard) == nil {
		tests = append(tests, test{"hard link to a file of the home", hard, ErrNotShareable})
	}
	fifo := filepath.Join(dir, "fifo")
	if makeFIFO(fifo) == nil {
		tests = append(tests, test{"FIFO", fifo, ErrNotShareable})
		link("to a FIFO", fifo, ErrNotShareable)
	}
	if listener, err := net.Listen("unix", filepath.Join(dir, "s")); err == nil {
		defer listener.Close()
		tests = append(tests, test{"socket", filepath.Join(dir, "s"), ErrNotShareable})
	}
	if _, err := os.Stat("/dev/null"); err == nil {
		tests = append(tests, test{"device", "/dev/null", ErrNotShareable})
	}
	if os.Geteuid() != 0 && runtime.GOOS != "windows" {
		closed := writeFile(t, dir, "closed", "x")
		if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
		tests = append(tests, test{"unreadable file", closed, fs.ErrPermission})
		closedDir := filepath.Join(dir, "closed dir")
		if err := os.Mkdir(closedDir, 0); err != nil {
			t.Fatal(err)
		}
		tests = append(tests, test{"unreadable directory", closedDir, fs.ErrPermission})
	}
	for _, tt := range tests {
		s, err := l.Add(t.Context(), tt.path, AddOptions{})
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: Add = %+v, %v, want %v", tt.what, s, err, tt.want)
			continue
		}
		if shown := Escape(filepath.Clean(tt.path)); !strings.Contains(err.Error(), shown) {
			t.Errorf("%s: the error %q does not name %s", tt.what, err, shown)
		}
		//lint:ignore SA1011 invalid UTF-8 is the point here
		if strings.ContainsAny(err.Error(), "\n\x1b\xff") {
			t.Errorf("%s: the error %q is not one line", tt.what, err)
		}
	}
	if got, listings := bucketSizes(t, l.catalog), l.listings(t); len(got) != 0 || len(listings) != 0 {
		t.Errorf("refused adds left %v in the catalog, and listings %q", got, listings)
	}
}

// writeName makes a file of a name that the system may not take.
func writeName(dir, name string) string {
	path := filepath.Join(dir, name)
	os.WriteFile(path, []byte("x"), 0o644)
	return path
}

func TestAddRefusesBothHomes(t *testing.T) {
	elsewhere := t.TempDir()
	l := openLibrary(t, Config{Dir: elsewhere})
	for _, path := range []string{elsewhere, filepath.Join(elsewhere, "catalog.db"), l.node.Dir(), filepath.Join(l.node.Dir(), "identity")} {
		if _, err := l.Add(t.Context(), path, AddOptions{}); !errors.Is(err, ErrNotShareable) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Add(%s) = %v, want ErrNotShareable", path, err)
		}
	}
	entries, err := os.ReadDir(l.node.Dir())
	if err != nil || len(entries) == 0 {
		t.Fatalf("the home holds %v, %v", entries, err)
	}
	for _, e := range entries {
		if _, err := l.Add(t.Context(), filepath.Join(l.node.Dir(), e.Name()), AddOptions{}); !errors.Is(err, ErrNotShareable) {
			t.Errorf("Add of the home's %s = %v, want ErrNotShareable", e.Name(), err)
		}
	}
}

func TestAddLeavesTheHomeOutOfADirectoryAroundIt(t *testing.T) {
	parent := t.TempDir()
	n, err := node.New(t.Context(), node.Config{Dir: filepath.Join(parent, "d", "home"), Offline: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	l, err := Open(n, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	writeFile(t, parent, "d/file", "x")
	if err := os.Link(filepath.Join(l.dir, "catalog.db"), filepath.Join(parent, "d", "hard")); err != nil {
		t.Skipf("no hard links here: %v", err)
	}
	var warnings []string
	s := addTo(t, l, parent, AddOptions{Name: "parent", Hidden: true, Warn: func(w string) { warnings = append(warnings, w) }})
	if entries := l.listingOf(t, s); len(entries) != 1 || entries[0].Path != "d/file" {
		t.Errorf("shared %+v, want d/file only", entries)
	}
	slices.Sort(warnings)
	want := []string{"left out d/hard: it belongs to a home of p2pshare", "left out d/home: it belongs to a home of p2pshare"}
	if !cmp.Equal(warnings, want) {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
}

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

func TestAddNames(t *testing.T) {
	l := openLibrary(t, Config{})
	path := writeFile(t, t.TempDir(), "re\u0301sume\u0301.pdf", "x")
	for _, tt := range []struct {
		name string
		want Name
	}{
		{"", "résumé.pdf"}, {"other.pdf", "other.pdf"}, {"re\u0301", "ré"}, {"with spaces #42", "with spaces #42"},
	} {
		s := addTo(t, l, path, AddOptions{Name: tt.name})
		m, err := OpenManifest(*sharedAt(t, l, path).Envelope, time.Now())
		if err != nil || s.Name != tt.want || m.Name != tt.want || m.ID != s.ID || m.Size != 1 {
			t.Errorf("name %q: shared as %q, the manifest is %+v, %v", tt.name, s.Name, m, err)
		}
	}
	kept := sharedAt(t, l, path)
	for _, name := range []string{"..", "a/b", `a\b`, "a\x1b", "a\x00", strings.Repeat("a", 256), "\u200d"} {
		if s, err := l.Add(t.Context(), path, AddOptions{Name: name}); !errors.Is(err, ErrBadName) {
			t.Errorf("name %q: Add = %+v, %v, want ErrBadName", name, s, err)
		}
	}
	if r := sharedAt(t, l, path); r.Name != kept.Name || r.Seq != kept.Seq {
		t.Errorf("after refused names it is shared as %+v", r)
	}
}

func TestAddRefusesABadExclude(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := makeFiles(t, filepath.Join(t.TempDir(), "d"), "a.log", "b", "c/a.log")
	if _, err := l.Add(t.Context(), dir, AddOptions{Exclude: []string{"*.log", "["}}); err == nil || !strings.Contains(err.Error(), `"[" is no pattern`) {
		t.Errorf("Add = %v, want an error that names the pattern", err)
	}
	if got, listings := bucketSizes(t, l.catalog), l.listings(t); len(got) != 0 || len(listings) != 0 {
		t.Errorf("it left %v, listings %q", got, listings)
	}
	s := addTo(t, l, dir, AddOptions{Exclude: []string{"*.log"}})
	if entries := l.listingOf(t, s); len(entries) != 2 || entries[0].Path != "b" || entries[1] != (Entry{Path: "c", Kind: KindDir}) {
		t.Errorf("shared %+v, want b and an empty c", entries)
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

func TestAddReportsProgress(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := makeFiles(t, filepath.Join(t.TempDir(), "d"), "a", "b/c", "e/")
	writeFile(t, dir, "large", string(randomBytes(20*content.GroupSize, "large")))
	var r reports
	s := addTo(t, l, dir, AddOptions{Progress: r.add})
	if p := r.last(); p.Phase != PhaseHashing || p.Done != s.Size || p.Total != s.Size || p.Files != 3 {
		t.Errorf("the last report is %+v, want all of %+v", p, s)
	}
}

func TestListTellsStates(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	states := map[string]State{}
	for name, change := range map[string]func(path string) error{
		"same":     func(string) error { return nil },
		"gone":     os.Remove,
		"longer":   func(path string) error { return os.WriteFile(path, []byte("longer than it was"), 0o644) },
		"edited":   func(path string) error { return os.WriteFile(path, []byte("EDITED"), 0o644) },
		"touched":  func(path string) error { return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)) },
		"replaced": func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
	} {
		path := writeFile(t, dir, name, name)
		addTo(t, l, path, AddOptions{})
		if err := change(path); err != nil {
			t.Fatal(err)
		}
	}
	tree := makeFiles(t, filepath.Join(dir, "tree"), "a")
	addTo(t, l, tree, AddOptions{})
	for s, err := range l.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		states[string(s.Name)] = s.State
	}
	want := map[string]State{
		"same": StateShared, "gone": StateMissing, "edited": StateModified, "longer": StateModified, "touched": StateShared, "replaced": StateModified, "tree": StateShared,
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

func TestLookupTakesOnlyWhatIsMeant(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	one := addTo(t, l, writeFile(t, dir, "1/report.pdf", "one"), AddOptions{})
	two := addTo(t, l, writeFile(t, dir, "2/Report.pdf", "two"), AddOptions{})
	other := keyID(t, testKey(t, 7)).String()
	for _, tt := range []struct {
		what string
		want []Share
	}{
		{one.Path, []Share{one}},
		{one.ID.String(), []Share{one}},
		{two.ID.CID(), []Share{two}},
		{Link{ID: two.ID, Name: "report.pdf"}.String(), []Share{two}},
		{"REPORT.PDF", []Share{two, one}},
		{"report.pdf#" + one.ID.Hex()[:8], []Share{one}},
		{"report.pdf#" + strings.ToUpper(two.ID.Hex()[:12]), []Share{two}},
		{"report.pdf#00000000", nil},
		{l.node.ID().String() + "/report.pdf", []Share{two, one}},
		{other + "/report.pdf", nil},
		{"@office/report.pdf", nil},
		{"none", nil},
		{filepath.Join(dir, "1"), nil},
		{content.Root(nil).String(), nil},
	} {
		got, err := l.Lookup(tt.what)
		if len(tt.want) == 0 {
			if !errors.Is(err, ErrNotShared) || len(got) != 0 {
				t.Errorf("Lookup(%s) = %v, %v, want ErrNotShared", tt.what, got, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Lookup(%s): %v", tt.what, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Lookup(%s) (-want +got):\n%s", tt.what, diff)
		}
	}
	removed, err := l.Remove(t.Context(), "report.pdf#"+one.ID.Hex()[:8])
	if err != nil || len(removed) != 1 || removed[0].ID != one.ID {
		t.Errorf("Remove of one of two = %v, %v", removed, err)
	}
	if got, err := l.Lookup("report.pdf"); err != nil || len(got) != 1 || got[0].ID != two.ID {
		t.Errorf("left: %v, %v, want the other", got, err)
	}
	mustBe(t, one.Path, []byte("one"))
}
