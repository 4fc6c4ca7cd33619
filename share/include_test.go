package share

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/p2pshare/p2pshare/node"
)

func TestIncludesMatch(t *testing.T) {
	for _, tt := range []struct {
		glob, path string
		want       bool
	}{
		{"*.jpg", "a.jpg", true},
		{"*.jpg", "2024/01/a.jpg", true},
		{"*.jpg", "a.jpg.txt", false},
		{"2024", "2024/01/a.jpg", true},
		{"2024/", "2024/01/a.jpg", true},
		{"a.jpg/", "a.jpg", false},
		{"2024/*.jpg", "2024/a.jpg", true},
		{"2024/*.jpg", "2024/01/a.jpg", false},
		{"/2024/*", "2024/01/a.jpg", true},
		{"/a.jpg", "a.jpg", true},
		{"01", "2024/01/a.jpg", true},
	} {
		in, err := parseIncludes([]string{"no such", tt.glob})
		if err != nil {
			t.Fatal(err)
		}
		if got := in.match(Path(tt.path), false); got != tt.want {
			t.Errorf("%q matches %q = %v, want %v", tt.glob, tt.path, got, tt.want)
		}
	}
	for _, bad := range []string{"", "/", "[a"} {
		if _, err := parseIncludes([]string{bad}); err == nil {
			t.Errorf("the pattern %q was taken", bad)
		}
	}
}

func TestGetIncludeTakesPartOfADirectory(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	files := []string{"tree/a.jpg", "tree/b.txt", "tree/sub/c.jpg", "tree/sub/d.txt", "tree/sub/deep/e.txt"}
	for _, name := range files {
		sharer.write(t, name, []byte(name))
	}
	link := sharer.lib.Link(sharer.add(t, filepath.Join(sharer.dir, "tree"), AddOptions{})).String()

	have := func() []string {
		t.Helper()
		var list []string
		err := fs.WalkDir(os.DirFS(getter.dir), "tree", func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				list = append(list, name)
				mustBe(t, filepath.Join(getter.dir, name), []byte(name))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	got, err := getter.get(t, link, GetOptions{Include: []string{"*.jpg", "sub/deep"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"tree/a.jpg", "tree/sub/c.jpg", "tree/sub/deep/e.txt"}; !slices.Equal(have(), want) || got.Files != 3 {
		t.Errorf("a part came as %v, %d files, want %v", have(), got.Files, want)
	}
	for s, err := range getter.lib.List(t.Context()) {
		t.Errorf("a part of a directory is shared: %+v, %v", s, err)
	}
	if _, err := getter.get(t, link, GetOptions{Include: []string{"b.*"}}); err != nil || len(have()) != 4 {
		t.Errorf("another part: %v; there is %v", err, have())
	}
	if _, err := getter.get(t, link, GetOptions{Include: []string{"*.png"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("what matches nothing: %v, want ErrNotFound", err)
	}
	if _, err := getter.get(t, link, GetOptions{}); err != nil || !slices.Equal(have(), files) {
		t.Errorf("the whole afterwards: %v; there is %v", err, have())
	}
}
