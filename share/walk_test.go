package share

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// walkResult is what a walk said: entries in its order, those of empty
// directories with a '/' behind, and the warnings.
type walkResult struct {
	entries  []string
	warnings []string
}

// walkDir walks dir. change may set what the walker is to do otherwise.
func walkDir(t *testing.T, dir string, change func(*walker)) (r walkResult) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	w := &walker{
		root: root,
		skip: func(string, fileIdentity, bool) bool { return false },
		warn: func(format string, args ...any) { r.warnings = append(r.warnings, fmt.Sprintf(format, args...)) },
		visit: func(e walked) error {
			name := string(e.path)
			if e.dir {
				name += "/"
			}
			r.entries = append(r.entries, name)
			return nil
		},
	}
	if change != nil {
		change(w)
	}
	if err := w.walk(); err != nil {
		t.Fatalf("walk: %v", err)
	}
	return r
}

// excluding has the walker leave out what patterns match.
func excluding(t *testing.T, patterns ...string) func(*walker) {
	return func(w *walker) {
		for _, text := range patterns {
			p, err := newPattern(text, "")
			if err != nil {
				t.Fatal(err)
			}
			w.exclude = append(w.exclude, p)
		}
	}
}

// makeFiles makes files, and directories where a name ends in '/'.
func makeFiles(t *testing.T, dir string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if d, ok := strings.CutSuffix(name, "/"); ok {
			if err := os.MkdirAll(filepath.Join(dir, filepath.FromSlash(d)), 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		writeFile(t, dir, name, name)
	}
	return dir
}

func symlink(t *testing.T, target, link string) {
	t.Helper()
	if err := os.Symlink(target, link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

// wantWalk checks entries, and that each warning begins with what is wanted.
func wantWalk(t *testing.T, got walkResult, entries []string, warnings ...string) {
	t.Helper()
	if diff := cmp.Diff(entries, got.entries); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	slices.Sort(got.warnings)
	slices.Sort(warnings)
	ok := len(got.warnings) == len(warnings)
	for i := range min(len(warnings), len(got.warnings)) {
		ok = ok && strings.HasPrefix(got.warnings[i], warnings[i])
	}
	if !ok {
		t.Errorf("warnings %q, want %q", got.warnings, warnings)
	}
}

func TestWalkOrderIsThatOfWholePaths(t *testing.T) {
	for _, names := range [][]string{
		{"a/", "a.txt", "a-b", "a!", "a0"},
		{"a/x", "a.txt", "a-b", "a!", "a0", "a/a/", "a/a.txt", "a/a-b"},
		{"a/b/c/d", "a/b!", "a/b.txt", "a/b0", "a!/b/", "a!/b!"},
		{"A", "a", "B/x", "b", "Z", "_", "~", " ", "é", "日本/語"},
		{"x/y/", "x.y", "x-/y", "x/y.", "x/y-/z"},
	} {
		got := walkDir(t, makeFiles(t, t.TempDir(), names...), nil)
		want := slices.Clone(names)
		// An empty directory stands under its own name, without the '/'.
		slices.SortFunc(want, func(a, b string) int { return strings.Compare(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/")) })
		wantWalk(t, got, want)
	}
}

// naiveWalk is what a walk of a tree of plain files and directories must visit.
func naiveWalk(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			if entries, err := os.ReadDir(path); err != nil || len(entries) > 0 {
				return err
			}
			rel += "\x00" // an empty directory, sorted under its own name
		}
		paths = append(paths, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	for i, p := range paths {
		if d, ok := strings.CutSuffix(p, "\x00"); ok {
			paths[i] = d + "/"
		}
	}
	return paths
}

func TestWalkOfRandomTreesMatchesANaiveOne(t *testing.T) {
	words := []string{"a", "a.txt", "a-b", "a!", "a0", "aa", "A", "b", "~", " b", "é", "zz z", "\U0001F642"}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		dir := t.TempDir()
		var grow func(at string, depth int)
		grow = func(at string, depth int) {
			for _, i := range r.Perm(len(words))[:r.IntN(6)] {
				name := filepath.Join(at, words[i])
				if depth < 4 && r.IntN(2) == 0 {
					if os.Mkdir(name, 0o755) == nil {
						grow(name, depth+1)
					}
				} else if f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o644); err == nil { // not where case does not count
					f.Close()
				}
			}
		}
		grow(dir, 0)
		got := walkDir(t, dir, nil)
		if diff := cmp.Diff(naiveWalk(t, dir), got.entries); diff != "" {
			t.Fatalf("seed %d (-naive +walk):\n%s", seed, diff)
		}
		if len(got.warnings) > 0 {
			t.Fatalf("seed %d: warnings %q", seed, got.warnings)
		}
	}
}

func TestWalkLeavesOutDotEntriesUnlessHidden(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), ".env", ".git/config", "a", "b/.secret", "c/.git/x", "c/y", ".p2pignore")
	wantWalk(t, walkDir(t, dir, nil), []string{"a", "b/", "c/y"})
	wantWalk(t, walkDir(t, dir, func(w *walker) { w.hidden = true }),
		[]string{".env", ".git/config", "a", "b/.secret", "c/.git/x", "c/y"})
}

func TestWalkExcludes(t *testing.T) {
	names := []string{"a.log", "a.txt", "b/a.log", "b/build/x", "b/c/a.txt", "build", "top/a.txt"}
	for _, tt := range []struct {
		patterns []string
		want     []string
	}{
		{nil, names},
		{[]string{"*.log"}, []string{"a.txt", "b/build/x", "b/c/a.txt", "build", "top/a.txt"}},
		{[]string{"build/"}, []string{"a.log", "a.txt", "b/a.log", "b/c/a.txt", "build", "top/a.txt"}},
		{[]string{"build"}, []string{"a.log", "a.txt", "b/a.log", "b/c/a.txt", "top/a.txt"}},
		{[]string{"/a.*"}, []string{"b/a.log", "b/build/x", "b/c/a.txt", "build", "top/a.txt"}},
		{[]string{"b/*.log"}, []string{"a.log", "a.txt", "b/build/x", "b/c/a.txt", "build", "top/a.txt"}},
		{[]string{"b/*/x"}, []string{"a.log", "a.txt", "b/a.log", "b/build/", "b/c/a.txt", "build", "top/a.txt"}},
		{[]string{"*.txt", "*.log", "x"}, []string{"b/build/", "b/c/", "build", "top/"}}, // empty because everything in them is left out
		{[]string{"[ab].txt"}, []string{"a.log", "b/a.log", "b/build/x", "b/c/", "build", "top/"}},
		{[]string{"?"}, []string{"a.log", "a.txt", "build", "top/a.txt"}},
		{[]string{"*"}, nil},
		{[]string{"b/", "top/", "build"}, []string{"a.log", "a.txt"}},
		{[]string{"A.LOG", "b/c", "./a.txt"}, []string{"a.log", "a.txt", "b/a.log", "b/build/x", "build", "top/a.txt"}},
	} {
		t.Run(strings.Join(tt.patterns, ","), func(t *testing.T) {
			dir := makeFiles(t, t.TempDir(), names...)
			wantWalk(t, walkDir(t, dir, excluding(t, tt.patterns...)), tt.want)
		})
	}
}

func TestNewPatternRefuses(t *testing.T) {
	for _, text := range []string{"", "/", "//", "[", "a[", "[]a]", `a\`, "[a-", "x/["} {
		if p, err := newPattern(text, ""); err == nil {
			t.Errorf("newPattern(%q) = %+v, want an error", text, p)
		}
	}
}

func TestWalkExcludesANameInEitherSpelling(t *testing.T) {
	nfc, nfd := "r\u00e9sum\u00e9", "re\u0301sume\u0301"
	for _, onDisk := range []string{nfc, nfd} {
		for _, pattern := range []string{nfc + ".*", nfd + ".*", "d/" + nfc + ".pdf"} {
			dir := makeFiles(t, t.TempDir(), "d/a", "d/"+onDisk+".pdf")
			wantWalk(t, walkDir(t, dir, excluding(t, pattern)), []string{"d/a"})
		}
	}
}

func TestWalkReadsIgnoreFiles(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), "a.log", "a.txt", "sub/a.log", "sub/a.txt", "sub/deep/a.txt", "sub/deep/b.txt", "other/a.txt", "x#y", "keep/tmp", "keep/dir/tmp/f")
	writeFile(t, dir, ".p2pignore", "# a comment\r\n\n   \n*.log\r\n  x#y  \n[\n/\n")
	writeFile(t, dir, "sub/.p2pignore", "/a.txt\ndeep/b.txt\n")
	writeFile(t, dir, "keep/.p2pignore", "tmp/\n")
	want := []string{"a.txt", "keep/dir/", "keep/tmp", "other/a.txt", "sub/deep/a.txt"}
	wantWalk(t, walkDir(t, dir, nil), want,
		`.p2pignore:6: "[" is no pattern`, `.p2pignore:7: "" is no pattern`)
	got := walkDir(t, dir, func(w *walker) { w.hidden = true })
	if diff := cmp.Diff(want, got.entries); diff != "" {
		t.Errorf("with hidden entries (-want +got):\n%s", diff)
	}
}

func TestWalkWarnsOfIgnoreFilesItCantRead(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), "a/.p2pignore/x", "a/f", "b/f", "c/f")
	writeFile(t, dir, "b/.p2pignore", "g\n"+strings.Repeat("x", 100_000)+"\nf\n")
	writeFile(t, dir, "c/.p2pignore", strings.Repeat("#\n", ignoreLinesMax)+"f\n")
	wantWalk(t, walkDir(t, dir, nil), []string{"a/f", "b/f", "c/f"},
		"a/.p2pignore: it is a directory", "b/.p2pignore: what follows line 1 does not count", "c/.p2pignore: only its first 10000 lines count")
}

func TestWalkFollowsLinksThatStayInside(t *testing.T) {
	outside := makeFiles(t, t.TempDir(), "secret", "dir/secret")
	dir := makeFiles(t, t.TempDir(), "a/file", "b/", "e/")
	symlink(t, "a/file", filepath.Join(dir, "tofile"))
	symlink(t, "a", filepath.Join(dir, "todir"))
	symlink(t, "../a/file", filepath.Join(dir, "b/up"))
	symlink(t, "tofile", filepath.Join(dir, "chain"))
	symlink(t, filepath.Join(outside, "secret"), filepath.Join(dir, "out1"))
	symlink(t, filepath.Join(outside, "dir"), filepath.Join(dir, "out2"))
	symlink(t, "../../../../../../../../etc/passwd", filepath.Join(dir, "out3"))
	symlink(t, filepath.Join(dir, "a"), filepath.Join(dir, "out4")) // inside, but absolute
	symlink(t, "nowhere", filepath.Join(dir, "dangling"))
	symlink(t, "self", filepath.Join(dir, "self"))
	symlink(t, ".", filepath.Join(dir, "e/here"))
	symlink(t, "..", filepath.Join(dir, "e/up"))
	symlink(t, "../e", filepath.Join(dir, "a/around"))
	// a/around is e, which holds nothing but circles: an empty directory.
	want := []string{"a/around/", "a/file", "b/up", "chain", "e/", "todir/around/", "todir/file", "tofile"}
	var warnings []string
	for _, name := range []string{"out1", "out2", "out3", "out4", "dangling", "self"} {
		warnings = append(warnings, "left out "+name+": the symbolic link leads out of the directory, or nowhere")
	}
	for _, name := range []string{"a/around/here", "a/around/up", "e/here", "e/up", "todir/around/here", "todir/around/up"} {
		warnings = append(warnings, "left out "+name+": the symbolic link leads to a directory around it")
	}
	wantWalk(t, walkDir(t, dir, nil), want, warnings...)
}

func TestWalkEndsWhereLinksLeadInACircle(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), "a/b/file")
	symlink(t, "../..", filepath.Join(dir, "a/b/root"))
	symlink(t, "../../a", filepath.Join(dir, "a/b/parent"))
	symlink(t, ".", filepath.Join(dir, "here"))
	cycle := ": the symbolic link leads to a directory around it"
	wantWalk(t, walkDir(t, dir, nil), []string{"a/b/file"},
		"left out a/b/root"+cycle, "left out a/b/parent"+cycle, "left out here"+cycle)
}

func TestWalkWarnsOfSpecialFiles(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), "a", "d/")
	want := []string{}
	if makeFIFO(filepath.Join(dir, "fifo")) == nil {
		want = append(want, "left out fifo: it is a FIFO")
		symlink(t, "fifo", filepath.Join(dir, "link"))
		want = append(want, "left out link: it is a FIFO")
	}
	// The path of a socket may be short only.
	if l, err := net.Listen("unix", filepath.Join(dir, "d", "s")); err == nil {
		defer l.Close()
		want = append(want, "left out d/s: it is a socket")
	}
	if len(want) == 0 {
		t.Skip("this system makes no special files")
	}
	if runtime.GOOS == "linux" {
		// A device can't be made without privileges; one that is there can be walked to.
		root, err := os.OpenRoot("/dev")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		var warned []string
		w := &walker{root: root, skip: func(string, fileIdentity, bool) bool { return false }, warn: func(f string, args ...any) { warned = append(warned, fmt.Sprintf(f, args...)) }}
		if _, err := w.children(".", nil, func(walked) bool { return true }); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(warned, "left out null: it is a device") {
			t.Errorf("no warning of /dev/null in %q", warned)
		}
	}
	wantWalk(t, walkDir(t, dir, nil), []string{"a", "d/"}, want...)
}

func TestWalkDoesNotWaitForAnIgnoreFileThatIsAFIFO(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), "a")
	fifo := filepath.Join(dir, ignoreFile)
	if err := makeFIFO(fifo); err != nil {
		t.Skipf("no FIFOs here: %v", err)
	}
	// With a writer that writes nothing a read would never end.
	writer, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	wantWalk(t, walkDir(t, dir, nil), []string{"a"}, ".p2pignore: it is a FIFO")
}

func TestWalkWarnsOfWhatCantBeRead(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can read everything")
	}
	if runtime.GOOS == "windows" {
		t.Skip("modes do not keep anybody from reading there")
	}
	dir := makeFiles(t, t.TempDir(), "a", "closed/x", "d/closed/x", "file")
	for _, d := range []string{"closed", "d/closed"} {
		if err := os.Chmod(filepath.Join(dir, d), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(filepath.Join(dir, d), 0o755) })
	}
	// A directory that can't be read is no empty one.
	wantWalk(t, walkDir(t, dir, nil), []string{"a", "file"}, "left out closed: ", "left out d/closed: ")
}

func TestWalkNamesTwinsOnce(t *testing.T) {
	nfc, nfd := "\u00e9", "e\u0301"
	dir := makeFiles(t, t.TempDir(), nfc+".txt")
	if f, err := os.OpenFile(filepath.Join(dir, nfd+".txt"), os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		t.Skip("the file system takes both spellings for one name")
	} else {
		f.Close()
	}
	makeFiles(t, dir, nfd+"d/x", nfc+"d/y", nfd+"only", nfc+"e/", nfd+"e/z")
	got := walkDir(t, dir, nil)
	// The spelling that sorts first on disk is the one that is taken: NFD.
	wantWalk(t, got, []string{nfc + ".txt", nfc + "d/x", nfc + "e/", nfc + "only"},
		"left out "+nfc+".txt: its name is that of "+nfd+".txt in another spelling",
		"left out "+nfc+"d: its name is that of "+nfd+"d in another spelling",
		"left out "+nfd+"e: its name is that of "+nfc+"e in another spelling")
	var local []string
	walkDir(t, dir, func(w *walker) {
		w.visit = func(e walked) error { local = append(local, e.local); return nil }
	})
	if want := []string{nfd + ".txt", nfd + "d/x", nfc + "e", nfd + "only"}; !cmp.Equal(local, want) {
		t.Errorf("read from %q, want %q", local, want)
	}
}

func TestWalkWarnsOfNamesThatCantBePublished(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), "good")
	want := []string{}
	for _, name := range []string{"not\xffutf8", "esc\x1b[2J", `back\slash`, "new\nline", "bidi\u202e", "\u200d"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err == nil {
			want = append(want, "left out "+Escape(name)+": bad name")
		}
	}
	if len(want) == 0 {
		t.Skip("the file system takes none of these names")
	}
	got := walkDir(t, dir, nil)
	wantWalk(t, got, []string{"good"}, want...)
	for _, w := range got.warnings {
		//lint:ignore SA1011 invalid UTF-8 is the point here
		if strings.ContainsAny(w, "\x1b\n\xff\u202e") {
			t.Errorf("the warning %q could drive a terminal", w)
		}
	}
	// The same in a directory that would be empty without them.
	inner := makeFiles(t, t.TempDir(), "d/")
	if err := os.WriteFile(filepath.Join(inner, "d", "esc\x1b"), nil, 0o644); err == nil {
		wantWalk(t, walkDir(t, inner, nil), []string{"d/"}, "left out d/esc")
	}
}

func TestWalkSkipsTheHome(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), "a", "home/key", "home/sub/x", "z/")
	home, err := identifyPath(filepath.Join(dir, "home"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := identifyPath(filepath.Join(dir, "home/key"))
	if err != nil {
		t.Fatal(err)
	}
	symlink(t, "home", filepath.Join(dir, "link"))
	symlink(t, "../home/key", filepath.Join(dir, "z/key"))
	belongs := ": it belongs to a home of p2pshare"
	got := walkDir(t, dir, func(w *walker) {
		w.skip = func(_ string, id fileIdentity, _ bool) bool { return id.sameFile(home) || id.sameFile(key) }
	})
	// z is empty, once the key in it is left out.
	if want := []string{"a", "z/"}; !cmp.Equal(got.entries, want) {
		t.Errorf("entries %q, want %q", got.entries, want)
	}
	for _, name := range []string{"home", "link"} {
		if !slices.Contains(got.warnings, "left out "+name+belongs) {
			t.Errorf("no warning of %s in %q", name, got.warnings)
		}
	}
}

func TestWalkStopsAtTheVisitorsError(t *testing.T) {
	dir := makeFiles(t, t.TempDir(), "a/b/c", "d")
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	stop := errors.New("enough")
	calls := 0
	w := &walker{
		root: root, skip: func(string, fileIdentity, bool) bool { return false }, warn: t.Errorf,
		visit: func(walked) error { calls++; return stop },
	}
	if err := w.walk(); err != stop || calls != 1 {
		t.Errorf("walk = %v after %d visits, want the visitor's error after one", err, calls)
	}
}
