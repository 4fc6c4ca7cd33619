package share

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
