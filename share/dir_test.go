package share

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readTree returns what is below dir: file contents, "/" for directories that
// hold nothing.
func readTree(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			entries, err := os.ReadDir(path)
			if err == nil && len(entries) == 0 {
				tree[filepath.ToSlash(rel)] = "/"
			}
			return err
		}
		data, err := os.ReadFile(path)
		tree[filepath.ToSlash(rel)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// makeTree writes a directory with what trees have: Unicode names, empty
// files, empty directories, names that sort around '/'.
func (p *testPeer) makeTree(t *testing.T, name string, files int) string {
	t.Helper()
	for i := range files {
		p.write(t, fmt.Sprintf("%s/d%d/naïve файл %d 日本.txt", name, i%10, i), randomBytes(i*7, fmt.Sprint(i)))
	}
	p.write(t, name+"/a.txt", []byte("before a/"))
	p.write(t, name+"/a/b.txt", []byte("inside a/"))
	p.write(t, name+"/a-b/c", nil)
	p.write(t, name+"/big.bin", randomBytes(700_000, "big"))
	for _, d := range []string{"empty", "a0/deep/empty", "a!"} {
		if err := os.MkdirAll(filepath.Join(p.dir, name, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(p.dir, name)
}

func TestGetDirectoryBringsTheTree(t *testing.T) {
	net := startNetwork(t, 3)
	sharer, getter, second := net[1], net[2], net[3]
	root := sharer.makeTree(t, "album", 200)
	s := sharer.add(t, root, AddOptions{})
	got, err := getter.get(t, "album", GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := readTree(t, root)
	if diff := cmp.Diff(want, readTree(t, got.Path)); diff != "" {
		t.Errorf("the tree differs (-shared +got):\n%s", diff)
	}
	if got.ID != s.ID || got.Files != s.Files || got.Size != s.Size {
		t.Errorf("Get = %+v, want ID, files and size of %+v", got, s)
	}
	again, err := getter.get(t, "album", GetOptions{})
	if err != nil || !again.Already || again.BytesFetched > 1<<20 {
		t.Errorf("second Get = %+v, %v, want the tree found in place", again, err)
	}
	// What was got is shared on: the second getter needs no sharer.
	sharer.lib.Remove(t.Context(), root)
	got, err = second.get(t, s.ID.String(), GetOptions{Peers: nil})
	if err != nil {
		t.Fatalf("Get from the getter: %v", err)
	}
	if diff := cmp.Diff(want, readTree(t, got.Path)); diff != "" {
		t.Errorf("the tree from the getter differs:\n%s", diff)
	}
	if filepath.Base(got.Path) != "album" {
		t.Errorf("saved as %s, want album", got.Path)
	}
}

func TestGetDirectoryKeepsWhatDiffers(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	sharer.add(t, sharer.makeTree(t, "album", 20), AddOptions{})
	getter.write(t, "album/a.txt", []byte("mine"))
	_, err := getter.get(t, "album", GetOptions{})
	if !errors.Is(err, ErrExists) {
		t.Fatalf("Get = %v, want ErrExists", err)
	}
	mustBe(t, filepath.Join(getter.dir, "album/a.txt"), []byte("mine"))
	if entries, _ := os.ReadDir(filepath.Join(getter.dir, "album")); len(entries) != 1 {
		t.Errorf("Get wrote %v beside a file it must not replace", entries)
	}
	if _, err := getter.get(t, "album", GetOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTree(t, filepath.Join(sharer.dir, "album")), readTree(t, filepath.Join(getter.dir, "album"))); diff != "" {
		t.Errorf("the tree differs after Force:\n%s", diff)
	}
}

func TestGetPathTakesOnePartOfADirectory(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	sharer.add(t, sharer.makeTree(t, "album", 20), AddOptions{})
	if _, err := getter.get(t, "album", GetOptions{Path: "a/b.txt"}); err != nil {
		t.Fatal(err)
	}
	mustBe(t, filepath.Join(getter.dir, "b.txt"), []byte("inside a/"))
	if _, err := getter.get(t, "album", GetOptions{Path: "d3"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTree(t, filepath.Join(sharer.dir, "album/d3")), readTree(t, filepath.Join(getter.dir, "d3"))); diff != "" {
		t.Errorf("the part differs:\n%s", diff)
	}
	if _, err := getter.get(t, "album", GetOptions{Path: "no/such"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of a path that is not in it = %v, want ErrNotFound", err)
	}
}
