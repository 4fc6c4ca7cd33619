package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// diskFault is a fault of a member's disk: strace has the system calls of the running
// daemon fail, or take long, from the moment that it is attached.
type diskFault struct {
	cmd     *exec.Cmd
	started time.Time
	path    string // where strace writes the calls that it changed
}

// needPtrace skips a test where a process can't be traced.
func needPtrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("faults of a disk need strace")
	}
	if out, err := exec.Command("strace", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		t.Skipf("processes can't be traced here: %v: %s", err, out)
	}
}

// inject makes calls, a list with commas, of a daemon go wrong as strace's --inject
// says. It returns once strace has all of the daemon's threads.
func inject(t *testing.T, p *process, calls, how string) *diskFault {
	t.Helper()
	f := &diskFault{path: filepath.Join(t.TempDir(), "strace")}
	f.cmd = exec.Command("strace", "-f", "-ttt", "-o", f.path, "-e", "trace="+calls, "-e", "inject="+calls+":"+how,
		"-p", strconv.Itoa(p.cmd.Process.Pid))
	f.started = time.Now()
	out, err := f.cmd.StderrPipe()
	if err == nil {
		err = f.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
		t.Skipf("a running process can't be traced here: %s", lines.Text())
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() { // it must not hang on its output
		}
	}()
	t.Cleanup(func() { f.end(); <-drained })
	return f
}

// end detaches strace: the disk is good again. It may be called twice.
func (f *diskFault) end() {
	if f.cmd.ProcessState == nil {
		f.cmd.Process.Signal(syscall.SIGINT)
		f.cmd.Wait()
	}
}

// first is when the first call went wrong.
func (f *diskFault) first(t *testing.T) time.Time {
	t.Helper()
	log, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.Contains(line, "INJECTED") && !strings.Contains(line, "DELAYED") {
			continue
		}
		seconds, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			t.Fatalf("strace's line %q: %v", line, err)
		}
		return time.UnixMicro(int64(seconds * 1e6))
	}
	t.Fatalf("nothing went wrong:\n%s", log)
	return time.Time{}
}

// ended waits until a process has ended by itself, and returns its exit code and when
// that was.
func (p *process) ended(t *testing.T, atMost time.Duration) (code int, at time.Time) {
	t.Helper()
	kill := time.AfterFunc(atMost, func() { p.cmd.Process.Kill() })
	for range p.events {
	}
	p.cmd.Wait()
	at = time.Now()
	if !kill.Stop() {
		t.Fatalf("the process had not ended after %v\n%s", atMost, p.stderr)
	}
	return p.cmd.ProcessState.ExitCode(), at
}

// exitMax is how long a daemon may go on after its disk has failed.
const exitMax = time.Second

// TestDiskThatFailsEndsTheMember has the disk of the leader, and of a follower, fail
// under load: the daemon ends within a second and says why, no acknowledged pin is
// lost, the group goes on, and the member catches up on a good disk. One fault of one
// member; with -long all faults, three times each.
func TestDiskThatFailsEndsTheMember(t *testing.T) {
	needPtrace(t)
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	faults := []struct{ name, calls string }{
		{"fsync", "fsync,fdatasync"},
		{"write", "pwrite64"},
	}
	rounds := 1
	if *long {
		rounds = 3
	}
	all := newGroup(t, 3)
	l := newLoad(t, all)
	for round := range rounds {
		for i, fault := range faults {
			for _, leads := range []bool{true, false} {
				if !*long && leads == (i == 1) {
					continue // two of the four
				}
				what := fmt.Sprintf("%s of a follower", fault.name)
				hurt, others := leaderOf(t, all)
				if leads {
					what = fmt.Sprintf("%s of the leader", fault.name)
				} else {
					hurt, others[0] = others[0], hurt
				}
				l.start(8, fmt.Sprintf("%s-%d-%v", fault.name, round, leads))
				l.awaitMore(t, 50, commandMax)
				f := inject(t, hurt.daemon, fault.calls, "error=EIO")
				code, at := hurt.daemon.ended(t, time.Minute)
				f.end()
				took := at.Sub(f.first(t))
				t.Logf("%s: exit %d after %v: %s", what, code, took.Round(time.Millisecond), strings.TrimSpace(hurt.daemon.stderr.String()))
				if took > exitMax {
					t.Errorf("%s: the daemon went on for %v, want at most %v", what, took, exitMax)
				}
				message := hurt.daemon.stderr.String()
				if code == 0 || !strings.Contains(message, "input/output error") || strings.Count(message, "p2pshare: ") != 1 {
					t.Errorf("%s: exit %d, want another, and one line with the reason: %q", what, code, message)
				}
				l.awaitMore(t, 50, 10*time.Second)
				hurt.start(t)
				l.awaitMore(t, 50, 10*time.Second)
				l.end()
				awaitWhole(t, all, time.Minute)
				l.check(t, hurt, what)
			}
		}
	}
}

// TestDiskThatHangsCostsTheMemberItsLeadership has each fsync of the leader take 15
// seconds, which no heartbeat shows: another one leads within seconds, no acknowledged
// pin is lost, and the member ends, or comes back.
func TestDiskThatHangsCostsTheMemberItsLeadership(t *testing.T) {
	needPtrace(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	all := newGroup(t, 3)
	l := newLoad(t, all)
	hurt, others := leaderOf(t, all)
	l.start(8, "hang")
	l.awaitMore(t, 50, commandMax)
	f := inject(t, hurt.daemon, "fsync,fdatasync", "delay_enter=15000000")
	pause := l.awaitMore(t, 50, 20*time.Second)
	if next, _ := leaderOf(t, others); next == hurt {
		t.Errorf("pins go on %v after the hang, and the leader is the same", pause)
	}
	told := hurt.daemon.awaitStderr(t, "still pending", 20*time.Second).Sub(f.started)
	code, _ := hurt.daemon.ended(t, time.Minute) // strace lets it end with the call that is delayed
	f.end()
	t.Logf("pins went on after %v; the daemon gave up after %v, exit %d: %s", pause.Round(time.Millisecond),
		told.Round(time.Millisecond), code, strings.TrimSpace(hurt.daemon.stderr.String()))
	if code == 0 || !strings.Contains(hurt.daemon.stderr.String(), "pending") {
		t.Errorf("exit %d, want another, and the reason: %s", code, hurt.daemon.stderr)
	}
	hurt.start(t)
	l.awaitMore(t, 50, 10*time.Second)
	l.end()
	awaitWhole(t, all, time.Minute)
	l.check(t, hurt, "after the hang")
}

// awaitStderr returns when a text is on stderr.
func (p *process) awaitStderr(t *testing.T, text string, atMost time.Duration) time.Time {
	t.Helper()
	deadline := time.After(atMost)
	for {
		got, more := p.stderr.after(0)
		if strings.Contains(got, text) {
			return time.Now()
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("no %q on stderr within %v: %s", text, atMost, got)
		}
	}
}
