// Package e2e runs the real program: separate processes with homes of their
// own, on loopback or in network namespaces that the test makes.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	// For the test cache alone: it must know what the program is built from.
	_ "github.com/p2pshare/p2pshare/cli"
)

// program is the binary under test, built by TestMain.
var program string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "p2pshare-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "p2pshare")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "github.com/p2pshare/p2pshare/cli/p2pshare")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// commandMax bounds every command of these tests that should end by itself.
const commandMax = 3 * time.Minute

// peer is where commands run: a home, a working directory, and the network
// flags that commands of this home get.
type peer struct {
	home, dir string
	flags     []string
	netns     string // run inside this namespace; empty: here
}

// loopback are flags that keep a peer on this machine.
var loopback = []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--no-lan"}

func newPeer(t testing.TB, flags ...string) *peer {
	t.Helper()
	return &peer{home: filepath.Join(t.TempDir(), "home"), dir: t.TempDir(), flags: flags}
}

func (p *peer) command(ctx context.Context, args ...string) *exec.Cmd {
	args = slices.Concat([]string{program, "--home", p.home, "--json"}, args)
	if p.netns != "" {
		args = slices.Concat([]string{"ip", "netns", "exec", p.netns}, args)
	}
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Dir = p.dir
	c.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "P2PSHARE_") })
	return c
}

// event is one line of --json output.
type event map[string]any

func (e event) text(key string) string { s, _ := e[key].(string); return s }
func (e event) number(key string) int64 {
	f, _ := e[key].(float64)
	return int64(f)
}

// result is what a command that ended left.
type result struct {
	code   int
	events []event
	stderr string
}

// run runs a command with the peer's network flags to its end.
func (p *peer) run(t testing.TB, args ...string) result {
	t.Helper()
	return p.runPlain(t, slices.Concat(args, p.flags)...)
}

func (p *peer) runPlain(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandMax)
	defer cancel()
	c := p.command(ctx, args...)
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("p2pshare %s: %v\n%s", strings.Join(args, " "), errors.Join(err, ctx.Err()), stderr.String())
	}
	r := result{code: c.ProcessState.ExitCode(), stderr: stderr.String()}
	for line := range bytes.Lines(out.Bytes()) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("p2pshare %s: stdout has a line that is not JSON: %q", strings.Join(args, " "), line)
		}
		r.events = append(r.events, e)
	}
	return r
}

// must runs a command that has to succeed and returns its last event.
func (p *peer) must(t testing.TB, args ...string) event {
	t.Helper()
	r := p.run(t, args...)
	if r.code != 0 || len(r.events) == 0 {
		t.Fatalf("p2pshare %s: exit %d\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.events[len(r.events)-1]
}

// process is a command that goes on running.
type process struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
	ready  event
	events chan event // those after ready; closed when stdout ends
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a command with the peer's network flags until the test ends, and
// returns at once; its events are to be read.
func (p *peer) start(t testing.TB, args ...string) *process {
	t.Helper()
	c := p.command(t.Context(), slices.Concat(args, p.flags)...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	proc := &process{cmd: c, stderr: &lockedBuffer{}, events: make(chan event, 1024)}
	c.Stderr = proc.stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { proc.read(out) })
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		reading.Wait()
		c.Wait()
	})
	return proc
}

// read passes events on, and drops them when nobody reads: no process must
// hang on its output.
func (p *process) read(out io.Reader) {
	defer close(p.events)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		select {
		case p.events <- e:
		default:
		}
	}
}

// await returns the next event that matches.
func (p *process) await(t testing.TB, what string, match func(event) bool) event {
	t.Helper()
	deadline := time.After(commandMax)
	for {
		select {
		case e, ok := <-p.events:
			if !ok {
				t.Fatalf("the process ended before %s\n%s", what, p.stderr)
			}
			if match(e) {
				return e
			}
		case <-deadline:
			t.Fatalf("waited in vain for %s\n%s", what, p.stderr)
		}
	}
}

// serve starts a daemon, a bootstrap peer or a foreground add, and returns
// when it is ready.
func (p *peer) serve(t testing.TB, args ...string) *process {
	t.Helper()
	proc := p.start(t, args...)
	proc.ready = proc.await(t, "ready", func(e event) bool { return e.text("event") == "ready" })
	return proc
}

// addr is the first full address of a process that is ready.
func (p *process) addr(t testing.TB) string {
	t.Helper()
	addrs, _ := p.ready["addrs"].([]any)
	if len(addrs) == 0 {
		t.Fatalf("ready event without addresses: %v", p.ready)
	}
	return addrs[0].(string)
}

// end signals a process and waits until it is gone.
func (p *process) end(t testing.TB, sig os.Signal) int {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	for range p.events { // until stdout closes
	}
	p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode()
}

// memoryPeak is the process's largest resident set so far, in bytes.
func (p *process) memoryPeak(t testing.TB) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skipf("the peak of memory is read from /proc: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM in /proc")
	return 0
}
