package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// healMax is how long a member with a damaged file may take until it votes again
// with all of the state.
const healMax = 30 * time.Second

// groupFiles are the files that a member keeps of its groups, but the room that its
// log has in reserve.
func (m *member) groupFiles(t *testing.T) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(m.home, "groups"), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "spare" {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) < 5 {
		t.Fatalf("files of the group: %q, %v", files, err)
	}
	return files
}

// flip flips one bit of what is written in a file, and says which.
func flip(t *testing.T, path string, rng *rand.Rand) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at, bit := rng.IntN(len(bytes.TrimRight(data, "\x00"))), rng.IntN(8)
	data[at] ^= 1 << bit
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("bit %d of byte %d of %s", bit, at, filepath.Base(path))
}

// TestMemberWithAFlippedBitHeals flips a bit in one of the files of a member that is
// down: when it is back it votes again within 30 s, with a state equal to the others'.
// Once for a log and group.json; with -long 30 rounds, and enough pins that there is a
// snapshot. (Package coord flips a thousand bits in files of one process.)
func TestMemberWithAFlippedBitHeals(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	all := newGroup(t, 3)
	l := newLoad(t, all)
	rounds, pins := 2, 100
	if *long {
		rounds, pins = 30, 70_000
	}
	l.start(min(pins/10, 64), "flip")
	l.awaitMore(t, pins, commandMax)
	l.end()
	if *long {
		awaitSnapshot(t, all[2])
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var longest time.Duration
	began := 0
	for round := range rounds {
		_, others := leaderOf(t, all)
		hurt := others[0]
		if round%4 == 3 {
			hurt, _ = leaderOf(t, all)
		}
		hurt.daemon.end(t, syscall.SIGTERM)
		files := hurt.groupFiles(t)
		if round < 2 { // both in the short version
			part := []string{".wal", "group.json"}[round]
			files = filesWith(files, part)[:1]
		}
		what := flip(t, files[rng.IntN(len(files))], rng)
		back := time.Now()
		hurt.daemon = hurt.serve(t, "daemon", "-v")
		awaitWhole(t, all, healMax)
		took := time.Since(back)
		anew := strings.Contains(hurt.daemon.stderr.String(), "begins anew")
		if anew {
			began++
		}
		longest = max(longest, took)
		t.Logf("%s: whole after %v; began anew: %v", what, took.Round(time.Millisecond), anew)
	}
	t.Logf("%d flips, %d members began anew, longest %v", rounds, began, longest.Round(time.Millisecond))
	l.check(t, all[2], "after all flips")
}

func filesWith(files []string, part string) (list []string) {
	for _, f := range files {
		if strings.HasSuffix(f, part) {
			list = append(list, f)
		}
	}
	return list
}

func awaitSnapshot(t *testing.T, m *member) {
	t.Helper()
	for deadline := time.Now().Add(commandMax); ; time.Sleep(time.Second) { // nothing tells of it
		if list, _ := filepath.Glob(filepath.Join(m.home, "groups", "*", "snapshots", "*.snapshot")); len(list) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no snapshot was taken")
		}
	}
}

// damageLog flips a bit amid the log of a member that is down, where it can't be
// taken for the torn end of a crash.
func (m *member) damageLog(t *testing.T) {
	t.Helper()
	path := filesWith(m.groupFiles(t), ".wal")[0]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(bytes.TrimRight(data, "\x00"))/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMemberWithADamagedLogDoesNotVote starts one with the one whole member that is
// left of three: its vote would make a leader. There is none until the third is back.
func TestMemberWithADamagedLogDoesNotVote(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	all := newGroup(t, 3)
	if code := all[0].pin(t, "before"); code != 0 {
		t.Fatalf("pin: exit %d", code)
	}
	awaitWhole(t, all, healMax)
	for _, m := range all[1:] {
		m.daemon.end(t, syscall.SIGTERM)
	}
	all[1].damageLog(t)
	all[1].start(t)
	// Three elections would have been held by then.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if r := all[0].runPlain(t, "pins", "--fresh"); r.code != 5 {
			t.Fatalf("pins --fresh beside a member with a damaged log: exit %d, want 5", r.code)
		}
	}
	all[2].start(t)
	awaitWhole(t, all, healMax)
	if !all[1].pins(t)["before"] {
		t.Error("a pin is lost")
	}
}

// TestDamagedGroupStopsAlone damages what nobody else can mend: the log of an only
// voter. The daemon starts, tells the remedy, and serves its other group.
func TestDamagedGroupStopsAlone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	m := startMember(t, loopback...)
	m.group(t, "create", "office")
	if code := m.pin(t, "report"); code != 0 {
		t.Fatalf("pin: exit %d", code)
	}
	m.daemon.end(t, syscall.SIGTERM)
	m.damageLog(t)
	m.start(t)
	g := awaitGroup(t, m, "the group has stopped", func(g event) bool { return strings.HasPrefix(g.text("problem"), "stopped: ") })
	if !strings.Contains(g.text("problem"), "damaged") || !strings.Contains(g.text("hint"), "p2pshare group restore") {
		t.Errorf("group status = %v, want the damage, and a hint of group restore", g)
	}
	if r := m.runPlain(t, "pins"); r.code != 6 || !strings.Contains(r.stderr, "hint: p2pshare group restore") {
		t.Errorf("pins: exit %d, want 6 and a hint of group restore: %s", r.code, r.stderr)
	}
	m.group(t, "create", "home")
	if r := m.runPlain(t, "pin", "--group", "home", "report"); r.code != 0 {
		t.Errorf("pin in another group: exit %d: %s", r.code, r.stderr)
	}
}
