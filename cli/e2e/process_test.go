// Package e2e runs the real program: separate processes with homes of their
// own, on loopback or in network namespaces that the test makes.
package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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

// long has the tests of groups take their full length: see each of them.
var long = flag.Bool("long", false, "test groups for as long as they are judged by, rather than for seconds")

// program is the binary under test, built by TestMain.
var program string

// roles are what the test binary plays when it is run again, in a namespace,
// with roleVariable set: see roleCommand.
var roles = map[string]func() error{
	"flood":            floodRole,
	"mdns":             mdnsRole,
	"hostile-provider": hostileProviderRole,
	"besieger":         besiegerRole,
	"liar":             liarRole,
}

const roleVariable = "E2E_ROLE"

func TestMain(m *testing.M) {
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		if err := role(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "p2pshare-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "p2pshare")
	if err := build(program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds the program, with further flags of go build.
func build(path string, flags ...string) error {
	args := slices.Concat([]string{"build", "-trimpath", "-o", path}, flags, []string{"github.com/p2pshare/p2pshare/cli/p2pshare"})
	c := exec.Command("go", args...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return nil
}

// commandMax bounds every command of these tests that should end by itself.
const commandMax = 3 * time.Minute

// peer is where commands run: a home, a working directory, and the network
// flags that commands of this home get.
type peer struct {
	home, dir string
	flags     []string
	netns     string // run inside this namespace; empty: here
	binary    string // run this build; empty: program
}

// loopback are flags that keep a peer on this machine.
var loopback = []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--no-lan"}

func newPeer(t testing.TB, flags ...string) *peer {
	t.Helper()
	return &peer{home: filepath.Join(t.TempDir(), "home"), dir: t.TempDir(), flags: flags}
}

func (p *peer) command(ctx context.Context, args ...string) *exec.Cmd {
	c := commandIn(ctx, p.netns, slices.Concat([]string{cmp.Or(p.binary, program), "--home", p.home, "--json"}, args)...)
	c.Dir = p.dir
	c.Env = slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "P2PSHARE_") })
	return c
}

// commandIn is a command in a namespace, or here if ns is empty. The process is
// the command itself: ip replaces itself by it.
func commandIn(ctx context.Context, ns string, args ...string) *exec.Cmd {
	if ns != "" {
		args = slices.Concat([]string{"ip", "netns", "exec", ns}, args)
	}
	return exec.CommandContext(ctx, args[0], args[1:]...)
}

// roleCommand is the test binary in a namespace, in one of roles.
func roleCommand(t testing.TB, ns, role string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := commandIn(t.Context(), ns, self)
	c.Env = append(os.Environ(), roleVariable+"="+role)
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
	cmd     *exec.Cmd
	started time.Time // just before it was executed
	stderr  *lockedBuffer
	ready   event
	events  chan event // those after ready; closed when stdout ends
}

type lockedBuffer struct {
	mu   sync.Mutex // guards what follows
	b    bytes.Buffer
	grew chan struct{} // closed by the next Write; nil when nobody waits
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grew != nil {
		close(l.grew)
		l.grew = nil
	}
	return l.b.Write(p)
}

// after returns what was written after the first n bytes, and a channel that
// is closed when there is more.
func (l *lockedBuffer) after(n int) (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grew == nil {
		l.grew = make(chan struct{})
	}
	return string(l.b.Bytes()[n:]), l.grew
}

func (l *lockedBuffer) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
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
	return startProcess(t, p.command(t.Context(), slices.Concat(args, p.flags)...))
}

// startProcess starts a command whose context ends with the test.
func startProcess(t testing.TB, c *exec.Cmd) *process {
	t.Helper()
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	proc := &process{cmd: c, stderr: &lockedBuffer{}, events: make(chan event, 1024)}
	c.Stderr = proc.stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	proc.started = time.Now()
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
	proc.awaitReady(t)
	return proc
}

func (p *process) awaitReady(t testing.TB) {
	t.Helper()
	p.ready = p.await(t, "ready", func(e event) bool { return e.text("event") == "ready" })
}

// id is the peer ID of a process that is ready.
func (p *process) id() string { return p.ready.text("peer_id") }

// addr is the first full address of a process that is ready.
func (p *process) addr(t testing.TB) string {
	t.Helper()
	addrs, _ := p.ready["addrs"].([]any)
	if len(addrs) == 0 {
		t.Fatalf("ready event without addresses: %v", p.ready)
	}
	return addrs[0].(string)
}

// awaitLog waits until the log on stderr, from byte from on, has a line with
// each of parts, and returns when that was, by the time in the line.
func (p *process) awaitLog(t testing.TB, from int, atMost time.Duration, parts ...string) time.Time {
	t.Helper()
	deadline := time.After(atMost)
	for {
		log, more := p.stderr.after(from)
		for line := range strings.Lines(log) {
			lacks := func(part string) bool { return !strings.Contains(line, part) }
			if strings.HasSuffix(line, "\n") && !slices.ContainsFunc(parts, lacks) {
				return logTime(t, line)
			}
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("no line with %q in the log within %v:\n%s", parts, atMost, log)
		}
	}
}

// logTime is when a line was logged, by slog's text handler.
func logTime(t testing.TB, line string) time.Time {
	t.Helper()
	stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		t.Fatalf("log line %q: %v", line, err)
	}
	return at
}

// end signals processes and waits until they are gone. It returns the exit code
// of the last.
func (p *process) end(t testing.TB, sig os.Signal) int { t.Helper(); return endAll(t, sig, p) }

func endAll(t testing.TB, sig os.Signal, ps ...*process) int {
	t.Helper()
	for _, p := range ps {
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	code := 0
	for _, p := range ps {
		for range p.events { // until stdout closes
		}
		p.cmd.Wait()
		code = p.cmd.ProcessState.ExitCode()
	}
	return code
}

// memoryPeak is the process's largest resident set so far, in bytes.
func (p *process) memoryPeak(t testing.TB) int64 { t.Helper(); return p.statusBytes(t, "VmHWM") }

// memory is the process's resident set, in bytes.
func (p *process) memory(t testing.TB) int64 { t.Helper(); return p.statusBytes(t, "VmRSS") }

// statusBytes is a size that the kernel tells of the process.
func (p *process) statusBytes(t testing.TB, key string) int64 {
	t.Helper()
	status := p.proc(t, "status")
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in /proc", key)
	return 0
}

// proc reads a file of /proc/PID; those below net are of the process's network
// namespace.
func (p *process) proc(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), name))
	if err != nil && runtime.GOOS != "linux" {
		t.Skipf("this is measured by /proc: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tick is the unit of the kernel's processor times, USER_HZ.
const tick = 10 * time.Millisecond

// cpu is the processor time that the process has used, to a tick.
func (p *process) cpu(t testing.TB) time.Duration {
	t.Helper()
	stat := p.proc(t, "stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // from the third field on
	var sum time.Duration
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}
