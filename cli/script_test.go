package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/cli"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary serve as p2pshare: the scripts run real
// processes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"p2pshare": func() { os.Exit(cli.Main()) },
	})
}

// TestScripts runs the user stories in testdata/script. Beside testscript's own
// commands they have:
//
//	start NAME ARG…         run p2pshare --json ARG… in the background until it is
//	                        ready; sets $NAME_ADDR, $NAME_ID, $NAME_API, and
//	                        $NAME_LINK after an add
//	begin NAME REGEXP ARG…  the same, until a line of its stdout matches
//	end NAME SIGNAL CODE    send INT, TERM or KILL, and wait for that exit code
//	finish NAME CODE        wait for it to end by itself
//	told NAME REGEXP        its stdout, so far or in all, matches
//	exits CODE ARG…         run p2pshare ARG… and check its exit code
//	until REGEXP ARG…       run p2pshare ARG… again and again until its output matches
//	capture VAR REGEXP      set $VAR to the first group's match in stdout
//	mkfile NAME SIZE        a file of random bytes; SIZE as 3000 or 64M
//	same FILE FILE          both hold the same bytes
//
// Each story has homes of its own, and all traffic stays on loopback. It has a
// local network only when it sets P2PSHARE_LAN_PORT to its $LAN_PORT and clears
// P2PSHARE_NO_LAN.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			for _, kv := range []string{
				"HOME=" + env.WorkDir,
				"P2PSHARE_HOME=" + filepath.Join(env.WorkDir, "home"),
				"P2PSHARE_LISTEN=/ip4/127.0.0.1/tcp/0",
				"P2PSHARE_NO_LAN=true",
				"ESC=\x1b[31m", "BIDI=\u202e", "NEWLINE=\n",
			} {
				k, v, _ := strings.Cut(kv, "=")
				env.Setenv(k, v)
			}
			env.Values[processesKey{}] = map[string]*process{}
			port, err := freeUDPPort()
			env.Setenv("LAN_PORT", strconv.Itoa(port))
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":   cmdStart,
			"begin":   cmdBegin,
			"end":     cmdEnd,
			"finish":  cmdFinish,
			"told":    cmdTold,
			"exits":   cmdExits,
			"until":   cmdUntil,
			"capture": cmdCapture,
			"mkfile":  cmdMkfile,
			"same":    cmdSame,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, errors.New("unknown condition")
		},
	})
}

// freeUDPPort draws a port for a story's own local network.
func freeUDPPort() (int, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port, nil
}

// processMax is how long a background process may take to get somewhere.
const processMax = 60 * time.Second

type processesKey struct{}

// process is a p2pshare that a script runs in the background.
type process struct {
	cmd    *exec.Cmd
	stderr lockedBuffer
	stdout lockedBuffer
	more   chan struct{} // capacity 1: stdout has grown, or ended
	ended  chan struct{} // closed when the process has been waited for
}

// scriptEnv are the variables that reach a background process.
var scriptEnv = []string{"HOME", "PATH", "TMPDIR", "XDG_RUNTIME_DIR", "P2PSHARE_HOME", "P2PSHARE_LISTEN",
	"P2PSHARE_BOOTSTRAP", "P2PSHARE_PEER", "P2PSHARE_NO_LAN", "P2PSHARE_LAN_PORT", "P2PSHARE_NO_DHT"}

func startProcess(ts *testscript.TestScript, args []string) *process {
	exe, err := exec.LookPath("p2pshare")
	ts.Check(err)
	p := &process{cmd: exec.Command(exe, append([]string{"--json"}, args...)...),
		more: make(chan struct{}, 1), ended: make(chan struct{})}
	for _, key := range scriptEnv {
		if v := ts.Getenv(key); v != "" {
			p.cmd.Env = append(p.cmd.Env, key+"="+v)
		}
	}
	p.cmd.Dir = ts.MkAbs(".")
	p.cmd.Stderr = &p.stderr
	p.cmd.Stdout = io.MultiWriter(&p.stdout, signalWriter(p.more))
	ts.Check(p.cmd.Start())
	go func() { // ends with the process, which the Defer below sees to
		defer close(p.ended)
		p.cmd.Wait()
	}()
	ts.Defer(func() {
		p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// signalWriter signals each write to whoever waits on the channel.
type signalWriter chan struct{}

func (w signalWriter) Write(b []byte) (int, error) {
	select {
	case w <- struct{}{}:
	default: // one signal is waiting already
	}
	return len(b), nil
}

// until waits for stdout to match.
func (p *process) until(ts *testscript.TestScript, match *regexp.Regexp) {
	giveUp := time.After(processMax)
	for !match.MatchString(p.stdout.String()) {
		select {
		case <-p.more:
			continue
		case <-p.ended:
			if match.MatchString(p.stdout.String()) {
				return
			}
		case <-giveUp:
		}
		ts.Fatalf("stdout of %v does not match %q:\n%s\nstderr:\n%s", p.cmd.Args, match, p.stdout.String(), p.stderr.String())
	}
}

// wait waits for the process to end and checks its exit code. What it wrote to
// stderr goes to the script's log.
func (p *process) wait(ts *testscript.TestScript, name string, code string) {
	select {
	case <-p.ended:
	case <-time.After(processMax):
		ts.Fatalf("%s does not end; stderr:\n%s", name, p.stderr.String())
	}
	ts.Logf("[%s: stderr]\n%s", name, p.stderr.String())
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != code {
		ts.Fatalf("%s exited with %s, want %s", name, got, code)
	}
}

func processes(ts *testscript.TestScript) map[string]*process {
	return ts.Value(processesKey{}).(map[string]*process)
}

func named(ts *testscript.TestScript, name string) *process {
	p := processes(ts)[name]
	if p == nil {
		ts.Fatalf("no process is called %q", name)
	}
	return p
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME ARG…")
	}
	p := startProcess(ts, args[1:])
	processes(ts)[args[0]] = p
	p.until(ts, regexp.MustCompile(`(?m)^{"event":"ready".*}$`))
	for line := range strings.Lines(p.stdout.String()) {
		var e struct {
			Event, Link, API string
			PeerID           string `json:"peer_id"`
			Addrs            []string
		}
		ts.Check(json.Unmarshal([]byte(line), &e))
		switch e.Event {
		case "added":
			ts.Setenv(args[0]+"_LINK", e.Link)
		case "ready":
			ts.Setenv(args[0]+"_ID", e.PeerID)
			ts.Setenv(args[0]+"_ADDR", e.Addrs[0])
			ts.Setenv(args[0]+"_API", e.API)
		}
	}
}

func cmdBegin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: begin NAME REGEXP ARG…")
	}
	match, err := regexp.Compile(args[1])
	ts.Check(err)
	p := startProcess(ts, args[2:])
	processes(ts)[args[0]] = p
	p.until(ts, match)
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	if neg || len(args) != 3 || signals[args[1]] == 0 {
		ts.Fatalf("usage: end NAME INT|TERM|KILL CODE")
	}
	p := named(ts, args[0])
	ts.Check(p.cmd.Process.Signal(signals[args[1]]))
	p.wait(ts, args[0], args[2])
}

func cmdFinish(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: finish NAME CODE")
	}
	named(ts, args[0]).wait(ts, args[0], args[1])
}

func cmdTold(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] told NAME REGEXP")
	}
	match, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if stdout := named(ts, args[0]).stdout.String(); match.MatchString(stdout) == neg {
		ts.Fatalf("stdout of %s matches %q = %v:\n%s", args[0], match, !neg, stdout)
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE ARG…")
	}
	err := ts.Exec("p2pshare", args[1:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("p2pshare exited with %d, want %s", code, args[0])
	}
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP ARG…")
	}
	match, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for giveUp := time.Now().Add(processMax); ; {
		err := ts.Exec("p2pshare", args[1:]...)
		if output := ts.ReadFile("stdout") + ts.ReadFile("stderr"); match.MatchString(output) {
			return
		} else if time.Now().After(giveUp) {
			ts.Fatalf("p2pshare %v does not print what matches %q (%v):\n%s", args[1:], args[0], err, output)
		}
	}
}

func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture VAR REGEXP")
	}
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("no group of %q matches in stdout", args[1])
	}
	ts.Setenv(args[0], m[1])
}

func cmdMkfile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mkfile NAME SIZE")
	}
	digits, mega := strings.CutSuffix(args[1], "M")
	n, err := strconv.ParseInt(digits, 10, 64)
	ts.Check(err)
	if mega {
		n <<= 20
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	var seed [32]byte
	copy(seed[:], args[0])
	_, err = io.CopyN(f, rand.NewChaCha8(seed), n)
	ts.Check(err)
}

func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same FILE FILE")
	}
	if same := sameFiles(ts, ts.MkAbs(args[0]), ts.MkAbs(args[1])); same == neg {
		ts.Fatalf("%s and %s: same bytes = %v", args[0], args[1], same)
	}
}

func sameFiles(ts *testscript.TestScript, a, b string) bool {
	var readers [2]*bufio.Reader
	for i, name := range []string{a, b} {
		f, err := os.Open(name)
		ts.Check(err)
		defer f.Close()
		readers[i] = bufio.NewReaderSize(f, 1<<20)
	}
	var x, y [64 << 10]byte
	for {
		n, errX := io.ReadFull(readers[0], x[:])
		m, errY := io.ReadFull(readers[1], y[:])
		if !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		if errX != nil || errY != nil {
			return (errX != nil) == (errY != nil)
		}
	}
}

// lockedBuffer is a buffer that a process writes while the script reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
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
