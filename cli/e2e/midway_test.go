package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// haltMidway waits until a get has some of a file, and halts who provides it: what
// is done before go on is called happens in the middle. It skips the test if all is
// there already.
func haltMidway(t *testing.T, get, provider *process, size int64) (goOn func()) {
	t.Helper()
	at := get.await(t, "some of the file", func(e event) bool {
		return e.text("phase") == "fetching" && e.number("done") > 8*mib || e.text("event") == "done"
	})
	if at.text("event") == "done" || at.number("done") > size-size/4 {
		t.Skip("the transfer was over before it could be disturbed")
	}
	if err := provider.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := provider.cmd.Process.Signal(syscall.SIGCONT); err != nil {
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

// TestDiskThatFillsUp has a disk become full in the middle of a get: it exits 10,
// with a hint, and goes on from what it had when there is room.
func TestDiskThatFillsUp(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const size = 256 * mib
	disk := smallDisk(t, "tmpfs", size/mib+64)
	ann := newPeer(t, loopback...)
	path := filepath.Join(ann.dir, "film.mkv")
	writeRandom(t, path, size, "film")
	daemon := ann.serve(t, "daemon")
	what := ann.must(t, "add", "film.mkv").text("link")
	bob := newPeer(t, loopback...)
	bob.dir = disk

	get := bob.start(t, "get", what)
	goOn := haltMidway(t, get, daemon, size)
	empty := fill(t, disk)
	goOn()
	if code, stderr := get.outcome(); code != 10 || !strings.Contains(stderr, "hint: ") {
		t.Errorf("get on a disk that fills up: exit %d, want 10 and a hint: %s", code, stderr)
	}
	if exists(filepath.Join(disk, "film.mkv")) {
		t.Error("the file was saved without all of it")
	}
	empty()
	done := bob.must(t, "get", what)
	if n := done.number("bytes_fetched"); n > size-8*mib {
		t.Errorf("%d MiB were fetched once there was room, of %d MiB: what was there was not used", n/mib, size/mib)
	}
	same(t, path, filepath.Join(disk, "film.mkv"))
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

// TestSourceEditedMidway edits the provider's file in the middle of a get. Nothing
// is saved from the edited file alone; with another provider all is.
func TestSourceEditedMidway(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const size = 256 * mib
	for _, providers := range []int{1, 2} {
		t.Run(fmt.Sprint(providers, " providers"), func(t *testing.T) {
			x := &trial{TB: t}
			path := filepath.Join(t.TempDir(), "film.mkv")
			writeRandom(t, path, size, "film")
			edited := filepath.Join(t.TempDir(), "film.mkv")
			x.tool("cp", path, edited)
			sources := []*source{x.share(edited)}
			if providers == 2 {
				sources = append(sources, x.share(path))
			}
			bob := newPeer(t, loopback...)
			get := bob.start(t, "get", link(sources...), "-o", "got")
			goOn := haltMidway(t, get, sources[0].process, size)
			f, err := os.OpenFile(edited, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			junk := make([]byte, size/4) // at the end, which comes last
			if _, err := f.WriteAt(junk, size-int64(len(junk))); err != nil {
				t.Fatal(err)
			}
			f.Close()
			goOn()
			code, stderr := get.outcome()
			to := filepath.Join(bob.dir, "got")
			if providers == 2 {
				if code != 0 {
					t.Fatalf("exit %d though another provider has it: %s", code, stderr)
				}
				same(t, path, to)
				return
			}
			if code == 0 || exists(to) || !strings.Contains(stderr, "hint: ") {
				t.Errorf("get of a file that was edited: exit %d, saved: %v, want neither, and a hint: %s", code, exists(to), stderr)
			}
			t.Logf("exit %d: %s", code, stderr)
		})
	}
}
