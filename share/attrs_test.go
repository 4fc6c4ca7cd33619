package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

func TestParseAttrsRefuses(t *testing.T) {
	for _, good := range []string{
		`{"path":"a","mtime":0,"mode":0}`,
		`{"path":"a\",\"mtime\":1","mtime":7258118399999999999,"mode":511}`,
	} {
		if a, err := parseAttrs([]byte(good + "\n")); err != nil || string(appendAttrs(nil, a)) != good+"\n" {
			t.Errorf("parseAttrs(%s) = %+v, %v", good, a, err)
		}
	}
	for what, line := range map[string]string{
		"nothing":            "",
		"no JSON":            "x",
		"no path":            `{"mtime":0,"mode":0}`,
		"no mode":            `{"path":"a","mtime":0}`,
		"a parent":           `{"path":"../a","mtime":0,"mode":420}`,
		"an absolute path":   `{"path":"/a","mtime":0,"mode":420}`,
		"a quote unescaped":  `{"path":"a"b","mtime":0,"mode":420}`,
		"white space":        `{"path":"a", "mtime":0,"mode":420}`,
		"another key":        `{"path":"a","mtime":0,"mode":420,"uid":0}`,
		"a key twice":        `{"path":"a","mtime":0,"mtime":0,"mode":420}`,
		"keys out of order":  `{"path":"a","mode":420,"mtime":0}`,
		"before 1970":        `{"path":"a","mtime":-1,"mode":420}`,
		"after 2200":         `{"path":"a","mtime":7258118400000000000,"mode":420}`,
		"beyond int64":       `{"path":"a","mtime":9223372036854775808,"mode":420}`,
		"a fraction":         `{"path":"a","mtime":1.5,"mode":420}`,
		"a leading zero":     `{"path":"a","mtime":01,"mode":420}`,
		"a sign":             `{"path":"a","mtime":+1,"mode":420}`,
		"setuid":             `{"path":"a","mtime":0,"mode":2541}`,
		"Go's setuid":        `{"path":"a","mtime":0,"mode":8388608}`,
		"a negative mode":    `{"path":"a","mtime":0,"mode":-1}`,
		"a mode as text":     `{"path":"a","mtime":0,"mode":"0644"}`,
		"two things a line":  `{"path":"a","mtime":0,"mode":0}{"path":"b","mtime":0,"mode":0}`,
		"a path not in NFC":  "{\"path\":\"e\u0301\",\"mtime\":0,\"mode\":420}",
		"a carriage return":  "{\"path\":\"a\",\"mtime\":0,\"mode\":420}\r",
		"a control in it":    "{\"path\":\"a\x1b\",\"mtime\":0,\"mode\":420}",
		"an escape not ours": `{"path":"\u0061","mtime":0,"mode":420}`,
	} {
		if a, err := parseAttrs([]byte(line + "\n")); !errors.Is(err, errBadAttrs) {
			t.Errorf("%s: parseAttrs(%s) = %+v, %v, want errBadAttrs", what, line, a, err)
		}
	}
}

func FuzzReadAttrs(f *testing.F) {
	f.Add([]byte("{\"path\":\"a\",\"mtime\":1767323045678000000,\"mode\":420}\n{\"path\":\"b\\\"\",\"mtime\":0,\"mode\":511}\n"))
	f.Add([]byte("{\"path\":\"b\",\"mtime\":0,\"mode\":0}\n{\"path\":\"a\",\"mtime\":0,\"mode\":0}\n"))
	f.Add([]byte("{\"path\":\"a\",\"mtime\":0,\"mode\":0}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var again []byte
		for a, err := range readAttrs(bytes.NewReader(data)) {
			if err != nil {
				if !errors.Is(err, errBadAttrs) {
					t.Fatalf("%q: %v, want errBadAttrs", data, err)
				}
				return
			}
			if !a.fits() || a.mode(false)&^0o666 != 0 || a.mode(true)&^0o777 != 0 || a.mode(false)&0o600 != 0o600 {
				t.Fatalf("%q is accepted as %+v", data, a)
			}
			again = appendAttrs(again, a)
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("%q was read, and is written %q", data, again)
		}
	})
}

// attrsTree makes a directory whose files have times and modes of their own, and
// returns those times.
func attrsTree(t *testing.T, p *testPeer) (dir string, times map[string]time.Time) {
	t.Helper()
	dir, times = filepath.Join(p.dir, "tree"), map[string]time.Time{}
	for i, name := range []string{"a.txt", "bin/run", "big.bin", "deep/er/x", "empty.txt", "twin.txt"} {
		data := randomBytes(i*100_000, "attrs")
		if name == "empty.txt" || name == "twin.txt" {
			data = nil
		}
		path := p.write(t, "tree/"+name, data)
		times[name] = time.Unix(1e9+int64(i), 123_456_700)
		mode := fs.FileMode(0o640)
		if name == "bin/run" {
			mode = 0o750
		}
		if err := errors.Join(os.Chmod(path, mode), os.Chtimes(path, times[name], times[name])); err != nil {
			t.Fatal(err)
		}
	}
	return dir, times
}

// mustHaveAttrs fails unless the file has the time, and the mode as far as the
// umask lets it.
func mustHaveAttrs(t *testing.T, path string, mtime time.Time, mode fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !info.ModTime().Equal(mtime) {
		t.Errorf("%s is of %s, want %s", path, info.ModTime(), mtime)
	}
	if want := mode &^ umask(); info.Mode() != want && runtime.GOOS != "windows" {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
}

func TestGetDirectorySetsTimesAndModes(t *testing.T) {
	net := startNetwork(t, 3)
	sharer, getter, second := net[1], net[2], net[3]
	root, times := attrsTree(t, sharer)
	s := sharer.add(t, root, AddOptions{})
	got, err := getter.get(t, "tree", GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(dir string, names map[string]time.Time) {
		t.Helper()
		for name, at := range names {
			mode := fs.FileMode(0o640)
			if name == "bin/run" {
				mode = 0o750
			}
			mustHaveAttrs(t, filepath.Join(dir, filepath.FromSlash(name)), at, mode)
		}
	}
	check(got.Path, times)
	// What the catalog knows is the file as it is now.
	r := sharedAt(t, getter.lib, got.Path)
	for name := range times {
		path := filepath.Join(got.Path, filepath.FromSlash(name))
		now, err := identifyPath(path)
		if f, ok, err2 := getter.lib.catalog.file(r.key, path); err != nil || err2 != nil || !ok || f.identity != now {
			t.Errorf("%s is recorded as %+v, %t, and is %+v: %v, %v", name, f.identity, ok, now, err, err2)
		}
	}
	if again := getter.add(t, got.Path, AddOptions{}); again.ID != s.ID {
		t.Errorf("what was got has the ID %s, and was %s", again.ID, s.ID)
	}

	// A part gets what belongs to it, into a directory that is there, from the
	// getter alone.
	sharer.lib.Remove(t.Context(), root)
	second.write(t, "tree/other", nil)
	part, err := second.get(t, s.ID.String(), GetOptions{Include: []string{"bin/*", "big.bin"}})
	if err != nil {
		t.Fatal(err)
	}
	check(part.Path, map[string]time.Time{"bin/run": times["bin/run"], "big.bin": times["big.bin"]})
	part, err = second.get(t, s.ID.String(), GetOptions{Path: "deep"})
	if err != nil {
		t.Fatal(err)
	}
	check(part.Path, map[string]time.Time{"er/x": times["deep/er/x"]})
}

func TestGetDirectoryWithoutGoodAttributes(t *testing.T) {
	for what, document := range map[string]string{
		"cut short":    `{"path":"a.txt","mtime":1,"mode":420}`,
		"out of order": "{\"path\":\"b\",\"mtime\":1,\"mode\":420}\n{\"path\":\"a\",\"mtime\":1,\"mode\":420}\n",
		"setuid":       "{\"path\":\"a.txt\",\"mtime\":1,\"mode\":2541}\n",
		"nowhere":      "",
	} {
		t.Run(what, func(t *testing.T) {
			net := startNetwork(t, 2)
			sharer, getter := net[1], net[2]
			root, times := attrsTree(t, sharer)
			s := sharer.add(t, root, AddOptions{})
			nameAttrs(t, sharer, s, document)
			var notes []string
			got, err := getter.get(t, "tree", GetOptions{Note: func(line string) { notes = append(notes, line) }})
			if err != nil {
				t.Fatal(err)
			}
			if files := readTree(t, got.Path); len(files) != len(times) {
				t.Errorf("%d files came, want %d", len(files), len(times))
			}
			if !strings.Contains(fmt.Sprint(notes), "times and modes are not set") {
				t.Errorf("notes %q, want one that says so", notes)
			}
			info, err := os.Stat(filepath.Join(got.Path, "a.txt"))
			if err != nil || time.Since(info.ModTime()) > time.Hour || info.Mode() != 0o666&^umask() {
				t.Errorf("a.txt is %v, %v, want it as new files are", info, err)
			}
		})
	}
}

// nameAttrs has p's manifest of s name other attributes: document, which p serves
// unless it is empty.
func nameAttrs(t *testing.T, p *testPeer, s Share, document string) {
	t.Helper()
	r := sharedAt(t, p.lib, s.Path)
	r.Attrs = content.Root([]byte("nobody has it"))
	if document != "" {
		r.Attrs = p.add(t, p.write(t, "document", []byte(document)), AddOptions{}).ID
	}
	_, err := p.lib.signAndRecord(&r, func() (shareKey, error) { return 0, p.lib.catalog.update(r) })
	if err != nil {
		t.Fatal(err)
	}
}

// Attributes of more, and of other files than there are, mean nothing.
func TestAttrsWalk(t *testing.T) {
	l := openLibrary(t, Config{})
	f, err := l.newListing()
	if err != nil {
		t.Fatal(err)
	}
	defer f.discard()
	for i, p := range []Path{"a", "a/b", "c", "e", "f"} {
		if err := f.writeAttrs(fileAttrs{p, int64(i), 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.writeAttrs(fileAttrs{"g", -1, 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.name(context.Background()); err != nil {
		t.Fatal(err)
	}
	w := walkAttrs(f)
	defer w.stop()
	for _, tt := range []struct {
		path Path
		want fileAttrs
	}{
		{"a/b", fileAttrs{"a/b", 1, 0o600}}, {"b", fileAttrs{}}, {"c", fileAttrs{"c", 2, 0o600}},
		{"d", fileAttrs{}}, {"f", fileAttrs{"f", 4, 0o600}}, {"g", fileAttrs{}}, {"h", fileAttrs{}},
	} {
		if got := w.of(tt.path); got != tt.want {
			t.Errorf("of(%s) = %+v, want %+v", tt.path, got, tt.want)
		}
	}
}
