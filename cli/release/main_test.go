package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckFindsWhatComesFromThisMachine builds a program with a package from outside of
// the source, which is another one where the source is built the second time.
func TestCheckFindsWhatComesFromThisMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program with an empty cache")
	}
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("here/source/go.mod", "module "+module+"\n\ngo 1.26\n\nrequire outside.example v0.0.0\n\nreplace outside.example => ../../outside\n")
	write("here/source/cli/p2pshare/main.go", "package main\n\nimport \"outside.example\"\n\nfunc main() { println(outside.Name) }\n")
	for place, name := range map[string]string{"": "here", "tmp/": "hers"} {
		write(place+"outside/go.mod", "module outside.example\n\ngo 1.26\n")
		write(place+"outside/name.go", "package outside\n\nconst Name = \""+name+"\"\n")
	}
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp")) // the second place is below it
	t.Setenv("TMP", filepath.Join(dir, "tmp"))
	r := release{root: filepath.Join(dir, "here", "source"), out: dir, version: "v0", check: true}
	if _, err := r.one("linux/amd64"); err == nil || !strings.Contains(err.Error(), "built twice") {
		t.Errorf("one = %v, want that the two differ", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "tmp", "p2pshare-release-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
