package share

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// addKnown adds a directory of files until the catalog would know all of them.
func addKnown(t *testing.T, l *Library, dir string, files ...string) shareRecord {
	t.Helper()
	makeFiles(t, dir, files...)
	for _, name := range files {
		addSettled(t, l, dir, filepath.Join(dir, filepath.FromSlash(name)))
	}
	return sharedAt(t, l, dir)
}

func TestAddOfWhatIsSharedUnchangedWritesAManifestOnly(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := filepath.Join(t.TempDir(), "d")
	before := addKnown(t, l, dir, "a", "b/c", "b/d")
	s := addTo(t, l, dir, AddOptions{Scope: Scope{LANOnly: true}})
	after := sharedAt(t, l, dir)
	if after.key != before.key || after.ID != before.ID || after.Files != 3 || s.Size != before.Size {
		t.Errorf("it became %+v, want the records of %+v kept", after, before)
	}
	if after.Seq <= before.Seq || !after.Scope.LANOnly || !s.Scope.LANOnly {
		t.Errorf("the record is %+v, want a newer manifest than %d and the new scope", after, before.Seq)
	}
	l.mustKeep(t, 1)

	file := filepath.Join(dir, "a")
	addSettled(t, l, file, file)
	key := sharedAt(t, l, file).key
	if addTo(t, l, file, AddOptions{}); sharedAt(t, l, file).key != key {
		t.Error("an unchanged file has new records")
	}
}

func TestAddSeesEveryChange(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(l *Library, r shareRecord, dir string) error
		options AddOptions
		want    []string
	}{
		"a file more": {func(_ *Library, _ shareRecord, dir string) error {
			return os.WriteFile(filepath.Join(dir, "b", "e"), []byte("e"), 0o644)
		}, AddOptions{}, []string{"a", "b/c", "b/d", "b/e"}},
		"a file less": {func(_ *Library, _ shareRecord, dir string) error {
			return os.Remove(filepath.Join(dir, "b", "c"))
		}, AddOptions{}, []string{"a", "b/d"}},
		"a file renamed": {func(_ *Library, _ shareRecord, dir string) error {
			return os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "z"))
		}, AddOptions{}, []string{"b/c", "b/d", "z"}},
		"a file edited": {func(_ *Library, _ shareRecord, dir string) error {
			return os.WriteFile(filepath.Join(dir, "b", "d"), []byte("e"), 0o644)
		}, AddOptions{}, []string{"a", "b/c", "b/d"}},
		"an empty directory more": {func(_ *Library, _ shareRecord, dir string) error {
			return os.Mkdir(filepath.Join(dir, "n"), 0o755)
		}, AddOptions{}, []string{"a", "b/c", "b/d", "n"}},
		"a file excluded": {func(*Library, shareRecord, string) error { return nil },
			AddOptions{Exclude: []string{"c"}}, []string{"a", "b/d"}},
		"another name": {func(*Library, shareRecord, string) error { return nil },
			AddOptions{Name: "e"}, []string{"a", "b/c", "b/d"}},
		"a time": {func(_ *Library, _ shareRecord, dir string) error {
			return os.Chtimes(filepath.Join(dir, "a"), time.Time{}, time.Unix(1, 0))
		}, AddOptions{}, []string{"a", "b/c", "b/d"}},
		"the attributes lost": {func(l *Library, r shareRecord, _ string) error {
			return os.Remove(l.listingPath(r.Attrs))
		}, AddOptions{}, []string{"a", "b/c", "b/d"}},
		"the listing lost": {func(l *Library, r shareRecord, _ string) error {
			return os.Remove(l.listingPath(r.ID))
		}, AddOptions{}, []string{"a", "b/c", "b/d"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := openLibrary(t, Config{})
			dir := filepath.Join(t.TempDir(), "d")
			before := addKnown(t, l, dir, "a", "b/c", "b/d")
			if err := test.change(l, before, dir); err != nil {
				t.Fatal(err)
			}
			s := addTo(t, l, dir, test.options)
			var paths []string
			files := 2 // the listing and the attributes
			for _, e := range l.listingOf(t, s) {
				paths = append(paths, string(e.Path))
				if e.Kind == KindFile {
					files++
				}
			}
			if !slices.Equal(paths, test.want) {
				t.Errorf("it lists %q, want %q", paths, test.want)
			}
			after := sharedAt(t, l, dir)
			recorded := 0
			if err := l.catalog.shareFiles(after.key, func(content.ID, int64) { recorded++ }); err != nil {
				t.Fatal(err)
			}
			if after.key == before.key || recorded != files {
				t.Errorf("share %d became %d with %d files recorded, want another with %d", before.key, after.key, recorded, files)
			}
			l.mustKeep(t, 1)
		})
	}
}

func TestAddAgainMakesAShareTheNewestOfItsName(t *testing.T) {
	l := openLibrary(t, Config{})
	first, second := filepath.Join(t.TempDir(), "d"), filepath.Join(t.TempDir(), "d")
	addKnown(t, l, first, "a")
	addKnown(t, l, second, "b")
	s := addTo(t, l, first, AddOptions{})
	found, err := l.catalog.byName(nameDigest(s.Name), 10)
	if err != nil || len(found) != 2 || found[0].Path != first {
		t.Errorf("byName = %+v, %v, want %s first", found, err, first)
	}
}

func TestAddOfAChangedTreeWarnsOnce(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := filepath.Join(t.TempDir(), "d")
	addKnown(t, l, dir, "a", "z")
	if err := os.Symlink("nowhere", filepath.Join(dir, "b")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	writeFile(t, dir, "z", "changed, behind the link")
	var warnings []string
	addTo(t, l, dir, AddOptions{Warn: func(line string) { warnings = append(warnings, line) }})
	if len(warnings) != 1 {
		t.Errorf("warnings %q, want one", warnings)
	}
}
