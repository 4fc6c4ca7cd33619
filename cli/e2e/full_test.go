package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts a file system of some MiB, of which a peer can have its home.
// kind is tmpfs, or ext4 on a loop device.
func smallDisk(t *testing.T, kind string, mebibytes int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	size := fmt.Sprintf("%dm", mebibytes)
	mount := []string{"mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", dir}
	if kind == "ext4" {
		image := filepath.Join(t.TempDir(), "image")
		if _, err := exec.LookPath("mkfs.ext4"); err != nil {
			t.Skip("an ext4 of its own needs mkfs.ext4, from e2fsprogs")
		}
		if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", image, size).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.ext4: %v: %s", err, out)
		}
		mount = []string{"mount", "-o", "loop", image, dir}
	}
	if out, err := exec.Command(mount[0], mount[1:]...).CombinedOutput(); err != nil {
		t.Skipf("mounting is not allowed here: %v: %s", err, out)
	}
	t.Cleanup(func() { // after the daemon, whose cleanup was registered later, has ended
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// fill takes all that is left of a disk, and returns what gives it back.
func fill(t *testing.T, disk string) (empty func()) {
	t.Helper()
	path := filepath.Join(disk, "ballast")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; { // down to the last byte
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill %s: %v", disk, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// diskMiB holds a home whose log has begun its second segment, and no spare third.
const diskMiB = 64

// onSmallDisks makes a group of three voters with their homes on small disks.
func onSmallDisks(t *testing.T, kind string) (all []*member, disks map[*member]string) {
	t.Helper()
	disks = map[*member]string{}
	for i := range 3 {
		disk := smallDisk(t, kind, diskMiB)
		m := newMember(t, loopback...)
		m.home = filepath.Join(disk, "home")
		m.begin(t)
		disks[m] = disk
		all = append(all, m)
		if i == 0 {
			m.group(t, "create", "office")
			continue
		}
		m.group(t, "join", all[0].group(t, "invite").text("token"))
	}
	awaitGroup(t, all[0], "its voters", func(g event) bool { return int(g.number("voters_up")) == 3 })
	return all, disks
}

// full fills a member's disk such that its log has no room to go on: a log takes the
// room for its next segment long before it needs it, and here others took that.
func full(t *testing.T, m *member, disk string) (empty func()) {
	t.Helper()
	m.daemon.end(t, syscall.SIGTERM)
	spares, err := filepath.Glob(filepath.Join(m.home, "groups", "*", "log", "spare"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range spares {
		if err := os.Remove(s); err != nil {
			t.Fatal(err)
		}
	}
	empty = fill(t, disk)
	m.start(t)
	return empty
}

// reads checks that a member with a full disk answers.
func (m *member) reads(t *testing.T, what, name string, fresh bool) {
	t.Helper()
	if fresh {
		if !m.pins(t)[name] {
			t.Errorf("%s: pins --fresh lacks %s", what, name)
		}
		if r := m.runPlain(t, "get", "@office/"+name, "-o", filepath.Join(t.TempDir(), "got")); r.code != 0 {
			t.Errorf("%s: get: exit %d: %s", what, r.code, r.stderr)
		}
	}
	if g := m.group(t, "status"); g.text("problem") != "" || g.number("names") == 0 {
		t.Errorf("%s: group status: %v", what, g)
	}
}

// TestGroupWithFullDisks fills the disk of a follower, of the leader, and of all.
// A follower's is nobody else's business; with the leader's full a pin says so, and
// exits 10; all read on; and writes go on when there is room, without a restart. On
// tmpfs; with -long on ext4 too.
func TestGroupWithFullDisks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	kinds := []string{"tmpfs"}
	if *long {
		kinds = append(kinds, "ext4")
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { testFullDisks(t, kind) })
	}
}

func testFullDisks(t *testing.T, kind string) {
	all, disks := onSmallDisks(t, kind)
	for i, m := range all {
		if code := m.pin(t, fmt.Sprintf("first-%d", i)); code != 0 {
			t.Fatalf("pin: exit %d", code)
		}
	}
	pinned := []string{"first-0", "first-1", "first-2"}
	must := func(m *member, name string) {
		t.Helper()
		if code := m.pin(t, name); code != 0 {
			t.Errorf("pin %s: exit %d", name, code)
		}
		pinned = append(pinned, name)
	}

	_, others := leaderOf(t, all)
	empty := full(t, others[0], disks[others[0]])
	must(others[1], "with-a-full-follower")
	others[0].reads(t, "a follower whose disk is full", "with-a-full-follower", true)
	empty()
	awaitWhole(t, all, 30*time.Second)

	// The leader, and those of the others who may lead next: whoever leads is full.
	var free []func()
	last := all[2] // it adds files, which needs a disk of its own
	if err := os.WriteFile(filepath.Join(last.dir, "refused"), []byte("refused"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := last.runPlain(t, "add", "refused"); r.code != 0 {
		t.Fatalf("add: exit %d: %s", r.code, r.stderr)
	}
	for _, m := range all {
		free = append(free, full(t, m, disks[m]))
	}
	awaitGroup(t, all[0], "a leader of full members", func(g event) bool { return g.text("leader") != "" && g.number("voters_up") == 3 })
	for _, m := range all {
		r := last.runPlain(t, "pin", "./refused")
		if r.code != 10 || !strings.Contains(r.stderr, "disk") || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("pin while all disks are full: exit %d, want 10 and a hint: %s", r.code, r.stderr)
		}
		m.reads(t, "a member of a group of full disks", "first-1", true)
	}
	pids := make([]int, len(all))
	for i, m := range all {
		pids[i] = m.daemon.cmd.Process.Pid
		free[i]()
	}
	deadline := time.Now().Add(10 * time.Second)
	for last.runPlain(t, "pin", "./refused").code != 0 {
		if time.Now().After(deadline) {
			t.Fatal("there is room again, and no pin is taken")
		}
	}
	pinned = append(pinned, "refused")
	awaitWhole(t, all, 30*time.Second)
	for _, m := range all {
		m.daemon.end(t, syscall.SIGTERM)
		m.start(t)
	}
	awaitWhole(t, all, 30*time.Second)
	have := all[1].pins(t)
	for _, name := range pinned {
		if !have[name] {
			t.Errorf("%s was acknowledged, and is not pinned", name)
		}
	}
}
