package raftlog

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// victimDir names the directory in the environment of a process to be killed.
const victimDir = "P2PSHARE_TEST_RAFTLOG"

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		fmt.Fprintln(os.Stderr, beVictim(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// beVictim does what a busy member does, and says what it has acknowledged. Its
// segments change every hundred entries, and it compacts every three hundred.
func beVictim(dir string) error {
	l, snapshots, err := Open(dir, small)
	if err != nil {
		return err
	}
	_, last := bounds(l)
	for {
		if err := l.StoreLogs(batch(last+1, 5)); err != nil {
			return err
		}
		last += 5
		if err := l.SetUint64([]byte("CurrentTerm"), last); err != nil {
			return err
		}
		fmt.Println(last)
		l.SetCommitted(last)
		if err := l.writeWatermark(); err != nil {
			return err
		}
		if last%300 > 4 || last < 300 {
			continue
		}
		k, err := snapshots.Create(1, last-20, entry(last-20).Term, members, 1, nil)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(k, last-20); err != nil {
			return err
		}
		first, _ := bounds(l)
		if err := errors.Join(k.Close(), l.DeleteRange(first, last-40)); err != nil {
			return err
		}
	}
}

func TestKilledMemberLosesNothing(t *testing.T) {
	kills := times(200, 10, 3)
	dir := filepath.Join(t.TempDir(), "m")
	rng := seeded(t)
	acked := uint64(0)
	for range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victimDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := rng.IntN(150); lines.Scan(); n-- {
			if acked, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()

		l, snapshots, err := Open(dir, small)
		if err != nil {
			t.Fatalf("Open after %d was acknowledged: %v", acked, err)
		}
		first, last := bounds(l)
		newest, _ := snapshots.newest()
		if max(last, newest.Index) < acked || newest.Index > 0 && first > newest.Index+1 {
			t.Fatalf("%d was acknowledged: the log holds %d to %d, the snapshot up to %d", acked, first, last, newest.Index)
		}
		if term, err := l.GetUint64([]byte("CurrentTerm")); err != nil || term < acked {
			t.Fatalf("term %d, %v, want %d at least", term, err, acked)
		}
		mustHold(t, l, first, last)
		l.Close()
	}
	t.Logf("%d kills, %d entries acknowledged", kills, acked)
}
