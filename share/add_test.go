package share

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"lukechampine.com/blake3"
)

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
