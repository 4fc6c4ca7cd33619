package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const (
	kib   = 1 << 10
	mib   = 1 << 20
	gib   = 1 << 30
	group = 256 * kib
)

// writeRandom writes size bytes that depend on seed alone.
func writeRandom(t testing.TB, path string, size int64, seed string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8(sha256.Sum256([]byte(seed))), size); err != nil {
		t.Fatal(err)
	}
}

// writeTree writes a directory of n files with Unicode names, some of them
// empty, and empty directories.
func writeTree(t testing.TB, root string, n int) {
	t.Helper()
	names := []string{"naïve", "файл", "日本語", "emoji 🎈", "a b", "-rf", "it's \"quoted\"", "ﬁ", "é"}
	for i := range n {
		name := fmt.Sprintf("d%d/%s/%s %d.txt", i%13, names[i%len(names)], names[(i/7)%len(names)], i)
		size := int64(i * 37 % 5000)
		if i%50 == 0 {
			size = 0
		}
		writeRandom(t, filepath.Join(root, filepath.FromSlash(name)), size, name)
	}
	for _, d := range []string{"empty", "d1/empty", "deep/er/empty"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// sameTree fails the test unless two trees are equal: by diff -r where it is
// installed, and by names and sizes in any case.
func sameTree(t testing.TB, want, got string) {
	t.Helper()
	list := func(root string) string {
		var b strings.Builder
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(root, path)
			info, err := d.Info()
			if err == nil && !d.IsDir() {
				fmt.Fprintf(&b, "%s %d\n", rel, info.Size())
			} else if err == nil {
				fmt.Fprintf(&b, "%s/\n", rel)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if w, g := list(want), list(got); w != g {
		t.Errorf("trees differ: %d bytes of listing in %s, %d in %s", len(w), want, len(g), got)
	}
	if _, err := exec.LookPath("diff"); err != nil {
		return
	}
	if out, err := exec.Command("diff", "-r", want, got).CombinedOutput(); err != nil {
		t.Errorf("diff -r: %v\n%.2000s", err, out)
	}
}

func sameFile(t testing.TB, want, got string) {
	t.Helper()
	if !equal(t, want, got) {
		t.Errorf("%s and %s differ", want, got)
	}
}

// equal tells whether two files have the same bytes.
func equal(t testing.TB, want, got string) bool {
	t.Helper()
	a, err := os.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := os.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ha, hb := sha256.New(), sha256.New()
	if _, err := io.Copy(ha, a); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(hb, b); err != nil {
		t.Fatal(err)
	}
	return string(ha.Sum(nil)) == string(hb.Sum(nil))
}

// TestFivePeers is the whole story: a bootstrap peer, two that add, two that
// get, by name, by ID and by link; then the adders are killed, and what was
// got from them is got from the getters.
func TestFivePeers(t *testing.T) {
	boot := newPeer(t, loopback...).serve(t, "bootstrap")
	flags := append([]string{"--bootstrap", boot.addr(t)}, loopback...)
	ann, bob, cat, dan := newPeer(t, flags...), newPeer(t, flags...), newPeer(t, flags...), newPeer(t, flags...)

	const large = 256 * mib // more than any of them may use of the memory
	sizes := []int64{0, 1, 1023, 1024, 1025, group - 1, group, group + 1, 8*mib + 7}
	if !testing.Short() {
		sizes = append(sizes, large)
	}
	annArgs, bobArgs := []string{"add"}, []string{"add"}
	for i, size := range sizes {
		name := strconv.FormatInt(size, 10) + ".bin"
		sharer, args := ann, &annArgs
		if i%2 == 1 {
			sharer, args = bob, &bobArgs
		}
		writeRandom(t, filepath.Join(sharer.dir, name), size, name)
		*args = append(*args, name)
	}
	writeTree(t, filepath.Join(ann.dir, "album"), 500)
	annArgs = append(annArgs, "album")

	// ann serves in the foreground, bob has a daemon.
	added := map[string]event{}
	annAdd := ann.start(t, annArgs...)
	annAdd.await(t, "ready", func(e event) bool {
		if e.text("event") == "added" {
			added[e.text("name")] = e
		}
		return e.text("event") == "ready"
	})
	bobDaemon := bob.serve(t, "daemon")
	for _, e := range bob.run(t, bobArgs...).events {
		if e.text("event") == "added" {
			added[e.text("name")] = e
		}
	}
	if len(added) != len(sizes)+1 {
		t.Fatalf("%d things were added, want %d", len(added), len(sizes)+1)
	}
	source := func(name string) string {
		if path := filepath.Join(ann.dir, name); exists(path) {
			return path
		}
		return filepath.Join(bob.dir, name)
	}

	catDaemon := cat.serve(t, "daemon")
	for name, e := range added {
		if b3sum, err := exec.LookPath("b3sum"); err == nil && e.text("kind") == "file" {
			out, err := exec.Command(b3sum, "--no-names", source(name)).Output()
			if err != nil || "b3:"+strings.TrimSpace(string(out)) != e.text("id") {
				t.Errorf("b3sum of %s = %s, %v, and add says %s", name, out, err, e.text("id"))
			}
		}
		// cat has a daemon and gets by name; dan has none and gets by ID and link.
		done := cat.must(t, "get", name)
		if done.text("event") != "done" || done.text("id") != e.text("id") {
			t.Errorf("get %s = %v, want the ID of %v", name, done, e)
		}
		same(t, source(name), filepath.Join(cat.dir, name))
		for _, what := range []string{e.text("id"), e.text("link")} {
			if err := os.RemoveAll(filepath.Join(dan.dir, name)); err != nil {
				t.Fatal(err)
			}
			dan.must(t, "get", what)
			same(t, source(name), filepath.Join(dan.dir, name))
		}
	}
	for _, p := range []*process{annAdd, bobDaemon, catDaemon} {
		if peak := p.memoryPeak(t); peak > 150*mib {
			t.Errorf("%v used %d MiB, want less than 150", p.cmd.Args[4:6], peak>>20)
		}
	}

	annAdd.end(t, syscall.SIGKILL)
	bobDaemon.end(t, syscall.SIGKILL)
	eve := newPeer(t, flags...)
	for name, e := range added {
		for _, what := range []string{name, e.text("id"), e.text("link")} {
			if e.number("size") == large && what != name {
				continue // once is enough
			}
			if err := os.RemoveAll(filepath.Join(eve.dir, name)); err != nil {
				t.Fatal(err)
			}
			eve.must(t, "get", what)
			same(t, source(name), filepath.Join(eve.dir, name))
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func same(t testing.TB, want, got string) {
	t.Helper()
	if info, err := os.Stat(want); err == nil && info.IsDir() {
		sameTree(t, want, got)
		return
	}
	sameFile(t, want, got)
}

func TestAddKeepsNoCopy(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a gibibyte")
	}
	p := newPeer(t, loopback...)
	writeRandom(t, filepath.Join(p.dir, "big.bin"), gib, "big")
	p.must(t, "add", "--exit", "big.bin")
	var size int64
	err := filepath.WalkDir(p.home, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if size > gib/200 {
		t.Errorf("the home has %d bytes after adding a gibibyte, want less than 0.5 %%", size)
	}
}

func TestNamesAreFoundAfterTheBootstrapPeerRestarts(t *testing.T) {
	home := newPeer(t, loopback...)
	boot := home.serve(t, "bootstrap")
	addr := boot.addr(t)
	listen, _, _ := strings.Cut(addr, "/p2p/")
	home.flags = []string{"--listen", listen, "--no-lan"}
	flags := append([]string{"--bootstrap", addr}, loopback...)
	ann, bob := newPeer(t, flags...), newPeer(t, flags...)
	ann.serve(t, "daemon")
	for i, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		name := fmt.Sprintf("talk%d.mp4", i)
		writeRandom(t, filepath.Join(ann.dir, name), 5000, name)
		ann.must(t, "add", name)
		boot.end(t, sig)
		boot = home.serve(t, "bootstrap")
		bob.must(t, "get", name)
		same(t, filepath.Join(ann.dir, name), filepath.Join(bob.dir, name))
	}
}

func TestInterruptedGetGoesOn(t *testing.T) {
	boot := newPeer(t, loopback...).serve(t, "bootstrap")
	flags := append([]string{"--bootstrap", boot.addr(t)}, loopback...)
	ann := newPeer(t, flags...)
	ann.serve(t, "daemon")
	const size = 256 * mib
	path := filepath.Join(ann.dir, "film.mkv")
	writeRandom(t, path, size, "film")
	ann.must(t, "add", "film.mkv")
	for _, test := range []struct {
		name string
		sig  syscall.Signal
		code int
	}{
		{"Ctrl-C", syscall.SIGINT, 130},
		{"kill -9", syscall.SIGKILL, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			bob := newPeer(t, flags...)
			get := bob.start(t, "get", "film.mkv")
			// Stop ann's sending in the middle, so that half of it is really half.
			half := get.await(t, "some of the file", func(e event) bool {
				return e.text("phase") == "fetching" && e.number("done") > 8*mib
			})
			if code := get.end(t, test.sig); code == 0 {
				t.Skip("the transfer was over before it could be interrupted")
			} else if code != test.code {
				t.Errorf("exit %d, want %d\n%s", code, test.code, get.stderr)
			}
			part := filepath.Join(bob.dir, ".film.mkv.p2p-part")
			if info, err := os.Stat(part); err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("partial file: %v, %v, want mode 0600", info, err)
			}
			done := bob.must(t, "get", "film.mkv")
			if again := half.number("done") + done.number("bytes_fetched") - size; again > 8*mib {
				t.Errorf("%d MiB were fetched twice, want at most 8", again>>20)
			}
			same(t, path, filepath.Join(bob.dir, "film.mkv"))
			if exists(part) {
				t.Error("the partial file is still there")
			}
		})
	}
}

func TestCommandTakesOverWhenTheRunningPeerEnds(t *testing.T) {
	boot := newPeer(t, loopback...).serve(t, "bootstrap")
	flags := append([]string{"--bootstrap", boot.addr(t)}, loopback...)
	ann, bob := newPeer(t, flags...), newPeer(t, flags...)
	ann.serve(t, "daemon")
	path := filepath.Join(ann.dir, "film.mkv")
	writeRandom(t, path, 512*mib, "film")
	ann.must(t, "add", "film.mkv")
	daemon := bob.serve(t, "daemon")
	get := bob.start(t, "get", "film.mkv")
	get.await(t, "the transfer", func(e event) bool { return e.text("phase") == "fetching" && e.number("done") > mib })
	daemon.end(t, syscall.SIGKILL)
	get.await(t, "done", func(e event) bool { return e.text("event") == "done" })
	same(t, path, filepath.Join(bob.dir, "film.mkv"))
}
