package share

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// watching is a library that runs, with what it tells of watched shares.
type watching struct {
	*Library
	t       *testing.T
	changes chan Change
	stop    func()
}

func startWatching(t *testing.T, l *Library) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{Library: l, t: t, changes: make(chan Change, 1000)}
	ended := make(chan struct{}, 2)
	changes := l.Changes(ctx)
	go func() {
		for c := range changes {
			w.changes <- c
		}
		ended <- struct{}{}
	}()
	go func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
		ended <- struct{}{}
	}()
	w.stop = func() {
		cancel()
		<-ended
		<-ended
		w.stop = func() {}
	}
	t.Cleanup(func() { w.stop() })
	return w
}

// becomes waits until path is shared as a fresh look at it says it is, and returns
// what was read and found meanwhile.
func (w *watching) becomes(path string, o AddOptions) (now Share, hashed, moved int64) {
	w.t.Helper()
	o.Watch = false
	want := addTo(w.t, openLibrary(w.t, Config{}), path, o)
	deadline := time.After(60 * time.Second)
	for {
		is, err := w.Lookup(path)
		if err == nil && is[0].ID == want.ID && is[0].Attrs == want.Attrs {
			for {
				select {
				case c := <-w.changes:
					hashed, moved = hashed+c.Hashed, moved+c.Moved
				default:
					return is[0], hashed, moved
				}
			}
		}
		select {
		case c := <-w.changes:
			if c.Err != nil {
				w.t.Logf("meanwhile: %v", c.Err)
			}
			hashed, moved = hashed+c.Hashed, moved+c.Moved
		case <-deadline:
			w.t.Fatalf("%s is shared as %v (%v), want %v", path, is, err, want.ID)
		}
	}
}

// settle waits until what was written is old enough for its times to tell of the next
// change.
func settle() {
	for at := time.Now(); time.Since(at) < 2*clockTick; {
		runtime.Gosched()
	}
}

func (w *watching) scanned(path string) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if s, ok := w.Watching(path); ok && !s.Scanned.IsZero() {
			if runtime.GOOS == "linux" && (!s.Events || s.Problem != "") {
				w.t.Fatalf("Watching(%s) = %+v, want events", path, s)
			}
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s was not scanned", path)
		}
		runtime.Gosched()
	}
}

// A storm of edits, moves and deletes ends in what the disk holds, and what was only
// moved is not read.
func TestWatchFollowsAStorm(t *testing.T) {
	const files, storm, size = 1000, 500, 8 << 10
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(8, 8))
	write := func(path string) {
		data := make([]byte, size)
		for i := 0; i < len(data); i += 8 {
			data[i] = byte(random.Uint32())
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var paths []string
	for i := range files {
		path := filepath.Join(dir, fmt.Sprintf("d%d/e%d/f%04d", i%10, i%3, i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(path)
		paths = append(paths, path)
	}
	settle()
	w := startWatching(t, openLibrary(t, Config{}))
	first := addTo(t, w.Library, dir, AddOptions{Watch: true})
	w.scanned(dir)
	before, _, err := w.catalog.byPath(dir)
	if err != nil {
		t.Fatal(err)
	}

	edited := map[string]bool{} // by path: what may be read
	renamed := func(from, to string) {
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		if edited[from] {
			delete(edited, from)
			edited[to] = true
		}
	}
	edits := 0
	for n := range storm {
		i := random.IntN(len(paths))
		switch path := paths[i]; n % 5 {
		case 0, 1: // edit
			write(path)
			edited[path] = true
			edits++
		case 2: // move, some into new directories
			to := filepath.Join(dir, fmt.Sprintf("d%d/n%d/m%04d", random.IntN(12), random.IntN(4), n))
			renamed(path, to)
			paths[i] = to
		case 3: // save as editors do, over another
			tmp := filepath.Join(dir, fmt.Sprintf("tmp%d", n))
			write(tmp)
			renamed(tmp, path)
			edited[path] = true
			edits++
		case 4:
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			delete(edited, path)
			paths = append(paths[:i], paths[i+1:]...)
		}
	}
	// And a directory with all that is below it.
	renamed(filepath.Join(dir, "d3"), filepath.Join(dir, "moved", "d3"))

	now, hashed, moved := w.becomes(dir, AddOptions{})
	if now.ID == first.ID || now.Files != int64(len(paths)) {
		t.Errorf("Files = %d, want %d of another ID", now.Files, len(paths))
	}
	// Scans in the middle may read what is edited once more afterwards.
	if most := int64(2 * edits * size); hashed > most {
		t.Errorf("%d bytes were read for %d edits of %d bytes", hashed, edits, size)
	}
	if moved < storm/5-storm/50 {
		t.Errorf("%d files were found moved, want about %d and those of a directory", moved, storm/5)
	}
	after, _, err := w.catalog.byPath(dir)
	if err != nil || after.Seq <= before.Seq || !after.Own || !after.Watched {
		t.Errorf("seq %d → %d, watched %v, %v: want a newer version", before.Seq, after.Seq, after.Watched, err)
	}
	t.Logf("%d edits: %d of %d bytes read, %d files found moved", edits, hashed, files*size, moved)
}

// readByProcess is how many bytes this process has read from files, and all else.
func readByProcess(t *testing.T) (n int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip("the system does not tell what was read: ", err)
	}
	if _, err := fmt.Sscanf(string(b), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The kernel counts, too: moves alone read nothing.
func TestWatchReadsNothingThatWasMoved(t *testing.T) {
	const files, size = 64, 1 << 20
	one := t.TempDir()
	for i := range files {
		writeFile(t, one, fmt.Sprintf("a/%d", i), strings.Repeat(fmt.Sprint(i, " "), size)[:size])
	}
	settle()
	w := startWatching(t, openLibrary(t, Config{}))
	addTo(t, w.Library, one, AddOptions{Watch: true})
	w.scanned(one)
	before := readByProcess(t)
	for i := range files {
		if err := os.MkdirAll(filepath.Join(one, "b", fmt.Sprint(i%7)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(one, "a", fmt.Sprint(i)), filepath.Join(one, "b", fmt.Sprint(i%7), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	for c := range w.changes {
		if c.Err != nil {
			t.Fatal(c.Err)
		}
		if c.Moved == files {
			break
		}
		t.Logf("%d moved, %d read", c.Moved, c.Hashed)
	}
	if read := readByProcess(t) - before; read > files*size/16 {
		t.Errorf("%d bytes were read to follow moves of %d", read, files*size)
	}
	w.becomes(one, AddOptions{})
}

// What only looks like a file that was moved is read: numbers of inodes are used
// again, and trees are unpacked with one time.
func TestWatchReadsWhatOnlyLooksMoved(t *testing.T) {
	dir := t.TempDir()
	old := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	write := func(name, data string) {
		path := writeFile(t, dir, name, data)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		write(fmt.Sprint("a", i), fmt.Sprintf("old %04d", i))
	}
	settle()
	w := startWatching(t, openLibrary(t, Config{}))
	addTo(t, w.Library, dir, AddOptions{Watch: true})
	w.scanned(dir)
	for i := range 20 {
		if err := os.Remove(filepath.Join(dir, fmt.Sprint("a", i))); err != nil {
			t.Fatal(err)
		}
		write(fmt.Sprint("b", i), fmt.Sprintf("new %04d", i)) // of the same size, and likely the same inode
	}
	w.becomes(dir, AddOptions{})
}

// A share goes on being watched by the next run, which finds what happened between.
func TestWatchOutlivesARestart(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	writeFile(t, dir, "a", "one")
	writeFile(t, dir, ".hidden", "not shared")
	writeFile(t, dir, "x.tmp", "not shared")
	o := AddOptions{Watch: true, Name: "tree", Exclude: []string{"*.tmp"}, Scope: Scope{Unlisted: true}}
	w := startWatching(t, l)
	addTo(t, l, dir, o)
	w.scanned(dir)
	w.stop()
	writeFile(t, dir, "sub/b", "two")
	writeFile(t, dir, "y.tmp", "not shared")

	w = startWatching(t, l)
	now, _, _ := w.becomes(dir, o)
	if now.Files != 2 || now.Name != "tree" || !now.Scope.Unlisted || !now.Watched {
		t.Errorf("after the restart: %+v", now)
	}
	w.stop()
	addTo(t, l, dir, AddOptions{}) // not watched any more
	w = startWatching(t, l)
	l.watcher.look()
	if _, ok := w.Watching(dir); ok {
		t.Error("it is watched still")
	}
}

// A single file is followed through the ways in which programs save, and through
// being away.
func TestWatchFollowsAFile(t *testing.T) {
	t.Parallel() // it mostly waits
	dir := t.TempDir()
	path := writeFile(t, dir, "report", "one")
	w := startWatching(t, openLibrary(t, Config{}))
	addTo(t, w.Library, path, AddOptions{Watch: true})
	w.scanned(path)
	writeFile(t, dir, "report", "two, in place")
	w.becomes(path, AddOptions{})
	if err := os.Rename(writeFile(t, dir, "report.new", "three, renamed over it"), path); err != nil {
		t.Fatal(err)
	}
	w.becomes(path, AddOptions{})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for c := range w.changes {
		if errors.Is(c.Err, os.ErrNotExist) {
			break
		}
	}
	writeFile(t, dir, "report", "four, back again")
	w.becomes(path, AddOptions{})
}

// What is removed stays removed, whatever a scan under way finds.
func TestRescanDoesNotBringBackWhatWasRemoved(t *testing.T) {
	for step := range 2 { // in the walk that compares, and in the one that adds
		l := openLibrary(t, Config{})
		dir := t.TempDir()
		writeFile(t, dir, "a", "one")
		addTo(t, l, dir, AddOptions{Watch: true})
		writeFile(t, dir, "b", "two")
		entered := 0
		_, _, err := l.rescan(t.Context(), dir, func(string) {
			if entered++; entered != step+1 {
				return
			}
			if _, err := l.Remove(t.Context(), dir); err != nil {
				t.Error(err)
			}
		})
		if !errors.Is(err, errReplaced) {
			t.Errorf("step %d: rescan = %v, want that it was replaced", step, err)
		}
		if _, err := l.Lookup(dir); !errors.Is(err, ErrNotShared) {
			t.Errorf("step %d: Lookup = %v, want it removed", step, err)
		}
	}
}

// A scan that finds nothing new publishes nothing.
func TestRescanLeavesWhatHasNotChanged(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	writeFile(t, dir, "a", "one")
	settle()
	addTo(t, l, dir, AddOptions{Watch: true})
	addTo(t, l, writeFile(t, t.TempDir(), "x", "newer"), AddOptions{Name: filepath.Base(dir)})
	before, _, _ := l.catalog.byPath(dir)
	if _, published, err := l.rescan(t.Context(), dir, nil); err != nil || published {
		t.Errorf("rescan published %v, %v", published, err)
	}
	after, _, _ := l.catalog.byPath(dir)
	if after.Seq != before.Seq || after.key != before.key || !after.Added.Equal(before.Added) {
		t.Errorf("record %d of seq %d → %d of %d", before.key, before.Seq, after.key, after.Seq)
	}
}

// The table of inodes holds what is watched, and nothing else.
func TestInodesGoWithTheirShare(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	path := writeFile(t, dir, "a", "one")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	count := func() int {
		found, err := l.catalog.byInode(sysIdentity(info))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	for _, step := range []struct {
		do   func()
		want int
	}{
		{func() { addTo(t, l, dir, AddOptions{}) }, 0},
		{func() { addTo(t, l, dir, AddOptions{Watch: true}) }, 1},
		{func() { addTo(t, l, dir, AddOptions{}) }, 0},
		{func() { addTo(t, l, dir, AddOptions{Watch: true}); l.Remove(t.Context(), dir) }, 0},
	} {
		if step.do(); runtime.GOOS != "windows" && count() != step.want {
			t.Errorf("%d records of the inode, want %d", count(), step.want)
		}
	}
}

func TestWatchDue(t *testing.T) {
	at := func(seconds float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(seconds * 1e9)) }
	for name, row := range map[string]struct {
		root watchedRoot
		want time.Time
	}{
		"at once":          {watchedRoot{now: true, scanned: at(0)}, time.Time{}},
		"nothing changed":  {watchedRoot{scanned: at(0), events: true}, at(600)},
		"no events":        {watchedRoot{scanned: at(0)}, at(30)},
		"one change":       {watchedRoot{scanned: at(0), events: true, first: at(9), last: at(9)}, at(9.5)},
		"still changing":   {watchedRoot{scanned: at(0), events: true, first: at(9), last: at(13.8)}, at(14)},
		"a large tree":     {watchedRoot{scanned: at(0), events: true, first: at(9), last: at(9), took: 4 * time.Second}, at(13)},
		"a very large one": {watchedRoot{scanned: at(0), took: time.Minute}, at(1200)},
	} {
		if got := row.root.due(); !got.Equal(row.want) {
			t.Errorf("%s: due after %v, want %v", name, got.Sub(at(0)), row.want.Sub(at(0)))
		}
	}
}

func TestWatchConcerns(t *testing.T) {
	for _, row := range []struct {
		rest   string
		hidden bool
		want   bool
	}{
		{"", false, true}, {"/a", false, true}, {"/a/.b.swp", false, false}, {"/.git/x", false, false},
		{"/.git/x", true, true}, {"/a/" + ignoreFile, false, true}, {"/.a.p2p-part", true, false},
	} {
		r := watchedRoot{hidden: row.hidden}
		if got := r.concerns(filepath.FromSlash(row.rest)); got != row.want {
			t.Errorf("concerns(%q, hidden %v) = %v", row.rest, row.hidden, got)
		}
	}
}
