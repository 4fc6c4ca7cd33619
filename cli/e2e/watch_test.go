package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWatchedTreeIsGotAsItIs changes a watched tree under a daemon, and while it is
// killed: what others get by its name is what the disk holds.
func TestWatchedTreeIsGotAsItIs(t *testing.T) {
	sharer, getter := newPeer(t, loopback...), newPeer(t, loopback...)
	tree := filepath.Join(sharer.dir, "tree")
	writeTree(t, tree, 100)
	daemon := sharer.serve(t, "daemon")
	if added := sharer.must(t, "add", "--watch", tree); added["watched"] != true {
		t.Fatalf("added: %v, want it watched", added)
	}
	listed := func() (event, event) {
		t.Helper()
		l := sharer.must(t, "ls")
		w, _ := l["watch"].(map[string]any)
		return l, w
	}
	awaitID := func(previous string) string {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; {
			if l, _ := listed(); l.text("id") != previous {
				return l.text("id")
			}
			if time.Now().After(deadline) {
				t.Fatal("the change was not noticed within 30 s")
			}
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		_, w := listed()
		if w["running"] == true && w.text("scanned") != "" && (runtime.GOOS != "linux" || w["events"] == true && w.text("problem") == "") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ls says of the watch: %v", w)
		}
	}
	first, _ := listed()

	if err := os.Rename(filepath.Join(tree, "d1"), filepath.Join(tree, "moved")); err != nil {
		t.Fatal(err)
	}
	second := awaitID(first.text("id"))
	// A daemon that is killed follows the rest when it is back.
	daemon.end(t, syscall.SIGKILL)
	writeRandom(t, filepath.Join(tree, "moved", "new"), 300*kib, "new")
	if err := os.RemoveAll(filepath.Join(tree, "d2")); err != nil {
		t.Fatal(err)
	}
	daemon = sharer.serve(t, "daemon")
	awaitID(second)
	got := getter.must(t, "get", "tree", "--peer", daemon.addr(t))
	if l, _ := listed(); got.text("id") != l.text("id") {
		t.Errorf("got %s, want the newest, %s", got.text("id"), l.text("id"))
	}
	sameTree(t, tree, filepath.Join(getter.dir, "tree"))

	if r := sharer.runPlain(t, "rm", "tree"); r.code != 0 {
		t.Fatalf("rm: exit %d %s", r.code, r.stderr)
	}
	writeRandom(t, filepath.Join(tree, "later"), kib, "later")
	if r := sharer.runPlain(t, "ls"); r.code != 0 || len(r.events) != 0 {
		t.Errorf("ls after rm: %v", r.events)
	}
}

// TestForegroundTellsOfChanges has add itself watch.
func TestForegroundTellsOfChanges(t *testing.T) {
	sharer := newPeer(t, loopback...)
	path := filepath.Join(sharer.dir, "report")
	if err := os.WriteFile(path, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	adding := sharer.start(t, "add", "--watch", path)
	added := adding.await(t, "added", func(e event) bool { return e.text("event") == "added" })
	adding.awaitReady(t)
	if err := os.WriteFile(path, []byte("two, longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed := adding.await(t, "the change", func(e event) bool { return e.text("event") == "changed" })
	if changed.text("was") != added.text("id") || changed.number("size") != 11 || changed.number("hashed") != 11 {
		t.Errorf("changed: %v", changed)
	}
	if !strings.HasSuffix(changed.text("path"), "report") {
		t.Errorf("path %q", changed.text("path"))
	}
}
