package share

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
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

func TestHoldOnAFullDisk(t *testing.T) {
	home := mountSmall(t, "16")
	holder, _ := startPeer(t, node.Config{Dir: home})
	data := randomBytes(6<<20, "full hold")

	large := startGate(t, randomBytes(32<<20, "large hold"), openGate)
	o := HoldOptions{Size: 32 << 20, Sources: []peer.AddrInfo{large.AddrInfo()}}
	if _, err := holder.lib.Hold(t.Context(), large.id, o); !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrOverQuota) {
		t.Errorf("Hold of what can't fit = %v, want ErrNoSpace", err)
	}

	// There was room, and somebody takes it. The catalog has its file open already.
	g := startGate(t, data, 4)
	o = HoldOptions{Size: int64(len(data)), Sources: []peer.AddrInfo{g.AddrInfo()}}
	ended := make(chan error, 1)
	go func() {
		_, err := holder.lib.Hold(t.Context(), g.id, o)
		ended <- err
	}()
	<-g.reached
	filler := fillDisk(t, home)
	g.pass()
	if err := <-ended; !errors.Is(err, ErrNoSpace) {
		t.Fatalf("Hold = %v, want ErrNoSpace", err)
	}
	if u := holder.lib.Usage(); u.Used == 0 || u.Reserved != 0 {
		t.Errorf("Usage = %+v, want what came to be counted", u)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	holder.hold(t, g.id, o)
	holder.mustBeInOrder(t)
	mustBe(t, holder.lib.store.path(g.id), data)

	// What a full disk keeps from being held can be released.
	other := startGate(t, randomBytes(4<<20, "other hold"), 4)
	o = HoldOptions{Size: 4 << 20, Sources: []peer.AddrInfo{other.AddrInfo()}}
	go func() {
		_, err := holder.lib.Hold(t.Context(), other.id, o)
		ended <- err
	}()
	<-other.reached
	filler = fillDisk(t, home)
	other.pass()
	if err := <-ended; !errors.Is(err, ErrNoSpace) {
		t.Fatalf("Hold = %v, want ErrNoSpace", err)
	}
	if err := holder.lib.Release(t.Context(), other.id); err != nil {
		t.Fatalf("Release on a full disk: %v", err)
	}
	if u := holder.lib.Usage(); u.Used != int64(len(data)) {
		t.Errorf("Usage = %+v, want the one file", u)
	}
	holder.mustBeInOrder(t)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
}
