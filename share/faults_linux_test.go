package share

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/p2pshare/p2pshare/node"
)

// mountSmall mounts a file system of a few MiB until the test ends.
func mountSmall(t *testing.T, sizeMiB string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("to fill a disk, one must be mounted, and so the test run by root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("p2pshare-test", dir, "tmpfs", 0, "size="+sizeMiB+"m"); err != nil {
		t.Skipf("a disk to fill can't be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func TestGetOnAFullDisk(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	getter.dir = mountSmall(t, "8")
	data := randomBytes(6<<20, "full")

	// It is seen at once that there is no room.
	large := startGate(t, randomBytes(12<<20, "large"), openGate)
	got := <-getter.start(t.Context(), large.film(), GetOptions{})
	if !errors.Is(got.err, ErrNoSpace) || got.got.BytesFetched > 0 {
		t.Errorf("Get of what can't fit = %+v, %v, want ErrNoSpace and nothing fetched", got.got, got.err)
	}
	if left := readTree(t, getter.dir); left["."] != "/" {
		t.Errorf("left behind: %d files", len(left))
	}

	// There was room, and somebody takes it.
	g := startGate(t, data, 4)
	get := getter.start(t.Context(), g.film(), GetOptions{})
	g.wait(t, get)
	filler := fillDisk(t, getter.dir)
	g.pass()
	first := <-get
	if !errors.Is(first.err, ErrNoSpace) {
		t.Fatalf("Get = %v, want ErrNoSpace", first.err)
	}
	if left := partials(t, getter.dir); len(left) != 1 {
		t.Errorf("partial files: %v, want one", left)
	}
	if again := <-getter.start(t.Context(), g.film(), GetOptions{}); !errors.Is(again.err, ErrNoSpace) {
		t.Errorf("Get while the disk is full = %v, want ErrNoSpace", again.err)
	}

	// There is room again: it goes on.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	second := <-getter.start(t.Context(), g.film(), GetOptions{})
	if second.err != nil {
		t.Fatal(second.err)
	}
	if sum := first.got.BytesFetched + second.got.BytesFetched; first.got.BytesFetched == 0 || sum != int64(len(data)) {
		t.Errorf("fetched %d + %d bytes, want %d in all", first.got.BytesFetched, second.got.BytesFetched, len(data))
	}
	mustBe(t, filepath.Join(getter.dir, "film.mp4"), data)
}

// fillDisk takes all the room there is in dir.
func fillDisk(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return path
}
