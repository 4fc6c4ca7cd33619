package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// haltMidway waits until a get has some of a file, and halts who provides it: what
// is done before go on is called happens in the middle. The get must be slow enough:
// it fails the test when all is there already.
func haltMidway(t *testing.T, get, provider *process, size int64) (goOn func()) {
	t.Helper()
	at := get.await(t, "some of the file", func(e event) bool {
		return e.text("phase") == "fetching" && e.number("done") > 8*mib || e.text("event") == "done"
	})
	if at.text("event") == "done" || at.number("done") > size-size/4 {
		t.Fatal("the transfer was over before it could be disturbed")
	}
	if err := provider.cmd.Process.Signal(sigHalt); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := provider.cmd.Process.Signal(sigGoOn); err != nil {
			t.Fatal(err)
		}
	}
}

// outcome waits until a get ends, and returns its exit code and what it wrote to
// stderr.
func (p *process) outcome() (code int, stderr string) {
	for range p.events { // until stdout closes
	}
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode(), p.stderr.String()
}

// TestDiskThatIsTooSmall has a get find out before it fetches.
func TestDiskThatIsTooSmall(t *testing.T) {
	disk := smallDisk(t, "tmpfs", 16)
	ann := newPeer(t, loopback...)
	writeRandom(t, filepath.Join(ann.dir, "film.mkv"), 64*mib, "film")
	ann.serve(t, "daemon")
	what := ann.must(t, "add", "film.mkv").text("link")
	bob := newPeer(t, loopback...)
	bob.dir = disk
	r := bob.run(t, "get", what)
	if r.code != 10 || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("get of 64 MiB on a disk of 16 MiB: exit %d, want 10 and a hint: %s", r.code, r.stderr)
	}
	for _, e := range r.events {
		if e.text("phase") == "fetching" && e.number("done") > mib {
			t.Errorf("it fetched %d bytes first", e.number("done"))
			break
		}
	}
}

// TestSourceEditedBesideAnother edits one of two providers' files in the middle of a
// get: the other gives what that one no longer has.
func TestSourceEditedBesideAnother(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const size = 256 * mib
	x := &trial{TB: t}
	path := filepath.Join(t.TempDir(), "film.mkv")
	writeRandom(t, path, size, "film")
	edited := filepath.Join(t.TempDir(), "film.mkv")
	x.tool("cp", path, edited)
	first, other := x.share(edited), x.share(path)
	bob := newPeer(t, loopback...)
	get := bob.start(t, "get", link(first, other), "-o", "got", "--max-down", "64MB") // so that it has a middle
	goOn := haltMidway(t, get, first.process, size)
	f, err := os.OpenFile(edited, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, size), 0); err != nil {
		t.Fatal(err)
	}
	goOn()
	if code, stderr := get.outcome(); code != 0 {
		t.Fatalf("exit %d though another provider has it: %s", code, stderr)
	}
	same(t, path, filepath.Join(bob.dir, "got"))
}
