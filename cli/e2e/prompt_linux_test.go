package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a command on it.
type terminal struct {
	master *os.File
	shown  lockedBuffer
	cmd    *exec.Cmd
	read   sync.WaitGroup
}

// openTerminal makes a terminal of that many columns.
func openTerminal(t *testing.T, columns uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	controlErr := raw.Control(func(fd uintptr) {
		number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		err = errors.Join(err, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0),
			unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: columns}))
	})
	if err := errors.Join(err, controlErr); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// onTerminal runs a command of p there, with the flags of its network. change may
// take some of its streams elsewhere.
func (p *peer) onTerminal(t *testing.T, columns uint16, change func(*exec.Cmd), args ...string) *terminal {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandMax)
	t.Cleanup(cancel)
	c := p.command(ctx, slices.Concat(args, p.flags)...)
	c.Args = slices.DeleteFunc(c.Args, func(a string) bool { return a == "--json" })
	c.Env = append(c.Env, "TERM=xterm")
	master, slave := openTerminal(t, columns)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	change(c)
	err := c.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{master: master, cmd: c}
	term.read.Go(func() { io.Copy(&term.shown, master) }) // until EIO: the last slave is closed
	t.Cleanup(func() {
		c.Process.Kill()
		term.end()
	})
	return term
}

// await waits until what is shown matches, after the first n bytes.
func (term *terminal) await(t *testing.T, n int, match *regexp.Regexp) string {
	t.Helper()
	deadline := time.After(commandMax)
	for {
		text, more := term.shown.after(n)
		if match.MatchString(text) {
			return text
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("the terminal does not show what matches %q:\n%q", match, text)
		}
	}
}

func (term *terminal) write(t *testing.T, keys string) {
	t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// end waits for the end of the command and returns its exit code.
func (term *terminal) end() int {
	term.cmd.Wait()
	term.read.Wait()
	term.master.Close()
	return term.cmd.ProcessState.ExitCode()
}

// question is what the terminal shows when it asks which content is meant.
var question = regexp.MustCompile(`which one\? \[1-4, or nothing for none\] $`)

// drawn are lines that the progress bar has drawn and taken away.
var drawn = regexp.MustCompile("\r[^\r\n]*\x1b\\[K")

// harmless checks that nothing from outside drives the terminal.
func harmless(t *testing.T, shown string) string {
	t.Helper()
	text := strings.ReplaceAll(drawn.ReplaceAllString(shown, ""), "\r\n", "\n")
	for _, r := range text {
		if r != '\n' && (unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) || r == utf8.RuneError) {
			t.Errorf("the terminal is sent %U: %q", r, text)
			break
		}
	}
	return text
}

// columnsOf counts columns of text whose only wide letters are fullwidth forms of
// ASCII.
func columnsOf(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xff00 && r < 0xff5f {
			n++
		}
	}
	return n
}

// TestATerminalAsksWhichContentIsMeant has four contents under one name, spelled so
// as to be a nuisance in a table, and a person before a terminal.
func TestATerminalAsksWhichContentIsMeant(t *testing.T) {
	boot := newPeer(t, loopback...)
	flags := append(slices.Clone(loopback), "--bootstrap", boot.serve(t, "bootstrap").addr(t))
	names := []string{"report.txt", "report" + strings.Repeat("\u200d", 70) + ".txt", "ｒｅｐｏｒｔ.ｔｘｔ", "REPO\u00adRT.txt"}
	prefixes := make([]string, len(names)) // of the contents' IDs
	for i, name := range names {
		p := newPeer(t, flags...)
		if err := os.WriteFile(filepath.Join(p.dir, "f"), fmt.Append(nil, "content ", i), 0o644); err != nil {
			t.Fatal(err)
		}
		add := p.start(t, "add", "f", "--name", name)
		id := add.await(t, "added", func(e event) bool { return e.text("event") == "added" }).text("id")
		prefixes[i] = strings.TrimPrefix(id, "b3:")[:8]
		add.awaitReady(t)
	}
	same := func(*exec.Cmd) {}
	for _, test := range []struct {
		name    string
		columns uint16
		answers []string // the first is written at the first question, and so on; %d is the number of report.txt
		code    int
		gets    bool
	}{
		{"a number", 200, []string{"%d\n"}, 0, true},
		{"a number with spaces around", 200, []string{"  %d \n"}, 0, true},
		{"a narrow terminal", 60, []string{"%d\n"}, 0, true},
		{"wrong numbers, and one that is right", 200, []string{"5\n", "0\n", "%d\n"}, 0, true},
		{"wrong answers only", 200, []string{"-1\n", "one\n", strings.Repeat("1", 60) + "\n"}, 4, false},
		{"too long an answer", 200, []string{strings.Repeat("1", 300) + "\n"}, 4, false},
		{"nothing", 200, []string{"\n"}, 4, false},
		{"an escape sequence", 200, []string{"\x1b[A\n", "\n"}, 4, false},
		{"Ctrl-C", 200, []string{"\x03"}, 130, false},
		{"Ctrl-D", 200, []string{"\x04"}, 4, false},
		{"Ctrl-C after a wrong number", 200, []string{"7\n", "\x03"}, 130, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, flags...)
			term := p.onTerminal(t, test.columns, same, "get", "report.txt")
			number, seen := 0, 0 // seen: what was shown before the last answer
			for i, answer := range test.answers {
				text := harmless(t, term.await(t, seen, question))
				if i == 0 {
					row := regexp.MustCompile(`(?m)^ *(\d+)  report\.txt#` + prefixes[0]).FindStringSubmatch(text)
					if row == nil {
						t.Fatalf("the table lacks report.txt#%s:\n%s", prefixes[0], text)
					}
					fmt.Sscan(row[1], &number)
					for line := range strings.Lines(text) {
						if w := columnsOf(strings.TrimSuffix(line, "\n")); w > int(test.columns) && !strings.HasPrefix(line, "note: ") {
							t.Errorf("a line of %d columns does not fit %d: %q", w, test.columns, line)
						}
					}
				}
				if strings.Contains(answer, "%d") {
					answer = fmt.Sprintf(answer, number)
				}
				seen = term.shown.len()
				term.write(t, answer)
			}
			code := term.end()
			text := term.shown.String()
			if code != test.code {
				t.Errorf("exit %d, want %d:\n%s", code, test.code, text)
			}
			if asked := strings.Count(text, "which one?"); asked < len(test.answers) || asked > 3 {
				t.Errorf("it asks %d times, want %d and at most 3", asked, len(test.answers))
			}
			if rows := strings.Count(text, "report.txt#"); test.code == 4 && rows != 1 {
				t.Errorf("the table is shown %d times:\n%s", rows, text)
			}
			got, err := os.ReadFile(filepath.Join(p.dir, "report.txt"))
			if test.gets && (err != nil || string(got) != "content 0") || !test.gets && err == nil {
				t.Errorf("report.txt holds %q, %v", got, err)
			}
		})
	}

	// Where nobody can answer nobody is asked.
	for name, change := range map[string]func(*exec.Cmd){
		"stdin is a pipe": func(c *exec.Cmd) {
			c.Stdin = strings.NewReader("1\n")
			c.SysProcAttr.Ctty = 1 // the controlling terminal is that of stdout
		},
		"-q":     func(c *exec.Cmd) { c.Args = append(c.Args, "-q") },
		"--json": func(c *exec.Cmd) { c.Args = append(c.Args, "--json") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			term := newPeer(t, flags...).onTerminal(t, 200, change, "get", "report.txt")
			if code := term.end(); code != 4 || strings.Contains(term.shown.String(), "which one?") {
				t.Errorf("exit %d, want 4 and no question:\n%s", code, term.shown.String())
			}
			harmless(t, term.shown.String())
		})
	}
	t.Run("stderr is a pipe", func(t *testing.T) {
		t.Parallel()
		var stderr bytes.Buffer
		term := newPeer(t, flags...).onTerminal(t, 200, func(c *exec.Cmd) { c.Stderr = &stderr }, "get", "report.txt")
		if code := term.end(); code != 4 || strings.Contains(stderr.String(), "which one?") {
			t.Errorf("exit %d, want 4 and no question:\n%s", code, stderr.String())
		}
		harmless(t, stderr.String())
	})
}
