package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// moving returns once a get that runs has fetched that many bytes.
func moving(t *testing.T, get *process, bytes int64) {
	t.Helper()
	get.await(t, "bytes", func(e event) bool {
		if e.text("event") == "error" {
			t.Fatalf("the get ended too early: %v", e)
		}
		return e.text("phase") == "fetching" && e.number("done") >= bytes
	})
}

// TestDiskFillsInTheMiddleOfAGet has something else take the room that a get had
// found when it began: the get exits 10 and keeps its partial file, and when there is
// room again the same command fetches the rest and no more. A file for which there is
// no room to begin with is refused before anything of it is fetched.
func TestDiskFillsInTheMiddleOfAGet(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const size = 24 << 20
	disk := smallDisk(t, "tmpfs", 40)
	sharer, getter := newPeer(t, loopback...), newPeer(t, loopback...)
	film, huge := filepath.Join(sharer.dir, "film.mkv"), filepath.Join(sharer.dir, "huge.mkv")
	writeRandom(t, film, size, "film")
	writeRandom(t, huge, 48<<20, "huge")
	serving := sharer.serve(t, "daemon", "--max-up", "8M")
	link, hugeLink := sharer.must(t, "add", film).text("link"), sharer.must(t, "add", huge).text("link")
	target := filepath.Join(disk, "film.mkv")
	args := []string{"get", link, "-o", target, "--peer", serving.addr(t)}

	get := getter.start(t, args...)
	moving(t, get, 6<<20)
	empty := fill(t, disk)
	failed := get.await(t, "an error", func(e event) bool { return e.text("event") == "error" })
	if code := failed.number("code"); code != 10 || failed.text("reason") != "no_space" || failed.text("hint") == "" {
		t.Errorf("a disk that fills is told as %v, want code 10 and a hint", failed)
	}
	for range get.events { // until it has ended
	}
	partial := filepath.Join(disk, ".film.mkv.p2p-part")
	if exists(target) || !exists(partial) {
		t.Error("after a full disk the target is there, or the partial file is not")
	}
	if r := getter.run(t, args...); r.code != 10 {
		t.Errorf("get to a disk that is full still: exit %d, want 10: %s", r.code, r.stderr)
	}
	empty()
	done := getter.must(t, args...)
	if fetched := done.number("bytes_fetched"); fetched > size-(5<<20) {
		t.Errorf("%d bytes were fetched to go on, though 6 MiB were there", fetched)
	}
	sameFile(t, film, target)

	r := getter.run(t, "get", hugeLink, "-o", filepath.Join(disk, "huge.mkv"), "--peer", serving.addr(t))
	if last := r.events[len(r.events)-1]; r.code != 10 || last.number("bytes_fetched") != 0 || exists(filepath.Join(disk, ".huge.mkv.p2p-part")) {
		t.Errorf("a file that is too large: exit %d, %v, want 10 and nothing kept", r.code, last)
	}
}

// TestSourceEditedInTheMiddleOfAGet writes into a shared file while another peer
// gets it. Bytes that are not those that were shared must not come to the target, and
// the getter is told why and by whom; with what was shared there again, it goes on.
func TestSourceEditedInTheMiddleOfAGet(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const size = 24 << 20
	sharer, getter := newPeer(t, loopback...), newPeer(t, loopback...)
	film := filepath.Join(sharer.dir, "film.mkv")
	writeRandom(t, film, size, "film")
	serving := sharer.serve(t, "daemon", "--max-up", "8M")
	link := sharer.must(t, "add", film).text("link")
	args := []string{"get", link, "--peer", serving.addr(t)}

	get := getter.start(t, args...)
	moving(t, get, 4<<20)
	f, err := os.OpenFile(film, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(size >> 20) { // one byte of each MiB
		if _, err := f.WriteAt([]byte{'!'}, i<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	failed := get.await(t, "an error", func(e event) bool { return e.text("event") == "error" })
	if message := failed.text("message"); failed.number("code") != 6 || !strings.Contains(message, "modified") ||
		!strings.Contains(message, serving.id()) || !strings.Contains(message, "film.mkv") {
		t.Errorf("an edited source is told as %v, want code 6, and the file and the peer named", failed)
	}
	for range get.events {
	}
	target := filepath.Join(getter.dir, "film.mkv")
	if exists(target) {
		t.Error("the target is there, of a file that can't be had")
	}
	if found, err := fs.Glob(os.DirFS(getter.dir), ".*p2p-part"); err != nil || len(found) != 1 {
		t.Errorf("the partial files are %v, %v, want one", found, err)
	}

	writeRandom(t, film, size, "film") // the bytes that were shared
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(film, past, past); err != nil {
		t.Fatal(err)
	}
	done := getter.must(t, args...)
	if fetched := done.number("bytes_fetched"); fetched > size-(3<<20) {
		t.Errorf("%d bytes were fetched to go on, though 4 MiB were there", fetched)
	}
	sameFile(t, filepath.Join(sharer.dir, "film.mkv"), target)
}
