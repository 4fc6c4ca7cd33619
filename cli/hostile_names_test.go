package cli

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// refusedNames are what can be no name: exit code 2, wherever a name stands.
var refusedNames = map[string]string{
	"empty":               "",
	"dot":                 ".",
	"dots":                "..",
	"escape":              "x\x1b[31my",
	"bell":                "x\ay",
	"newline":             "x\ny",
	"C1 control":          "x\u009b31my",
	"right-to-left":       "x\u202egpj.exe",
	"isolate":             "x\u2066y\u2069",
	"line separator":      "x\u2028y",
	"paragraph separator": "x\u2029y",
	"private use":         "x\ue000y",
	"backslash":           `x\y`,
	"not UTF-8":           "x\xff\xfey",
	"overlong UTF-8":      "x\xc0\xafy",
	"a surrogate":         "x\xed\xa0\x80y",
	"one byte too long":   strings.Repeat("n", 256),
	"thousands of bytes":  strings.Repeat("n", 5000),
	"only invisible":      "\u200d\u00ad",
}

// shownNames are names, and can't be shown as they are.
var shownNames = map[string]string{
	"invisible":      "x\u200dy",
	"soft hyphens":   "x\u00ady",
	"many marks":     "x" + strings.Repeat("\u0301", 60),
	"tags":           "x\U000e0041y",
	"invisible plus": "x\u2064y",
	"a noncharacter": "x\ufdd0y",
}

// nameUses are the commands that take a name, a WHAT, a peer or a path, with % in its
// place: with what codes they may end for one that is refused, and for one that is a
// name.
var nameUses = []nameUse{
	{"get %", "2", "3"}, {"get --literal %", "2", "3"}, {"get @office/%", "2", "3"}, {"get @%/report.pdf", "2", "3"},
	{"get %#9f3c21ab", "2", "3"}, {"get PEER/%", "2", "7"}, {"get %/report.pdf", "2", "2"}, {"get p2pshare:b3:HASH?name=%", "2 3", "3"},
	{"get x --from %", "2", "2"}, {"get x --path %", "2", "3"}, {"find %", "2 3", "3"}, {"find ext:%", "2 3", "3"},
	{"ls %", "2", "3"}, {"rm %", "2", "3"}, {"verify %", "2", "3"}, {"serve-link %", "2", "3"},
	{"pin %-", "2 3", "3"}, {"pin x --group %", "2 3", "3"}, {"unpin %", "2", "3"},
	{"trust PEER --as %", "2", "0"}, {"trust PEER/%", "2", "0"}, {"trust %/x", "2", "0 2"}, {"untrust %", "2", "0 2"},
	{"forget %", "2", "0 3"}, {"block %", "2", "2"}, {"unblock %", "2", "2"},
	{"id --name %", "2", "0"}, {"add --exit a.txt --name %", "2", "0"}, {"add --exit a.txt --to %", "2", "2"}, {"add --exit ./no/%-", "1 2", "1"},
	{"group create %", "2", "0 2 9"}, {"group join %", "2", "2"}, {"group follow %", "2", "2"},
	{"group unfollow %", "2 3", "2 3"}, {"group status --group %", "2 3", "0 3"},
	{"group remove %", "2", "2"}, {"group grant % writer", "2", "2"}, {"group revoke % writer", "2", "2"}, {"group grant PEER %", "2", "2"},
	{"group plan remove %", "2", "2"}, {"group plan revoke % voter", "2", "2"}, {"group plan invite %", "2", "2"},
	{"group backup --group office ./no/%-", "1 2", "1"}, {"group verify ./no/%-", "1 2", "1"}, {"group restore ./no/%-", "1 2", "1"},
	{"transfers pause %", "2 3", "3"}, {"transfers resume %", "2 3", "3"}, {"transfers cancel %", "2 3", "3"},
	{"config %", "2", "2"}, {"man %", "2", "2"}, {"completion %", "2", "2"}, {"help %", "2", "2"}, {"group help %", "2", "2"}, {"service help %", "2", "2"}, {"transfers help %", "2", "2"}, {"lan --probe %-", "2", "2"},
}

type nameUse struct{ args, refused, shown string }

const (
	somePeer = "12D3KooWGao1MmQGD67A1z3MZaVSuWeHeCZvw4gxmRHKkXhj76C5"
	someHash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
)

// TestNoNameDrivesATerminalInAnyCommand runs every command that takes a name, in any
// form, with every hostile name, and a peer behind it.
func TestNoNameDrivesATerminalInAnyCommand(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	env := map[string]string{"P2PSHARE_HOME": home, "P2PSHARE_LISTEN": "/ip4/127.0.0.1/tcp/0", "P2PSHARE_NO_LAN": "true", "P2PSHARE_NO_DHT": "true"}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("a.txt", []byte("a"), 0o644); err != nil {
		t.Fatal(err)
	}
	runDaemon(t, env)
	run := func(args []string) (int, string) {
		var out bytes.Buffer
		code := Run(t.Context(), args, IO{In: strings.NewReader(""), Out: &out, Err: &out, Env: func(k string) string { return env[k] }})
		return code, out.String()
	}
	if code, out := run([]string{"group", "create", "office"}); code != 0 {
		t.Fatalf("group create ends with %d:\n%s", code, out)
	}
	check := func(use, what, name, want string) {
		t.Helper()
		for _, format := range []string{"--json", "--json=false"} {
			args := []string{format}
			for _, arg := range strings.Fields(use) {
				args = append(args, strings.NewReplacer("%", name, "PEER", somePeer, "HASH", someHash).Replace(arg))
			}
			code, out := run(args)
			if !slices.Contains(strings.Fields(want), strconv.Itoa(code)) {
				t.Errorf("%s with a name that is %s: exit %d, want %s:\n%.300q", use, what, code, want, out)
			}
			if i := strings.IndexFunc(out, drives); i >= 0 {
				t.Errorf("%s with a name that is %s prints %q", use, what, out[max(0, i-40):min(len(out), i+40)])
			}
		}
	}
	for _, use := range nameUses {
		for what, name := range refusedNames {
			check(use.args, what, name, use.refused)
		}
		for what, name := range shownNames {
			check(use.args, what, name, use.shown)
		}
	}
	for what, name := range shownNames { // and where they are listed then
		if code, out := run([]string{"trust", somePeer + "/" + name}); code != 0 {
			t.Errorf("trust of a name that is %s ends with %d:\n%s", what, code, out)
		}
		if code, out := run([]string{"add", "--exit", "a.txt", "--name", name}); code != 0 {
			t.Errorf("add of a name that is %s ends with %d:\n%s", what, code, out)
		}
		for _, list := range []string{"trust", "ls", "status", "group status --group office", "pins --group office", "transfers", "verify", "peers", "config", "find a"} {
			check(list, what, "", "0 3")
		}
	}

	// The table is whole: every command that takes something is in it.
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, k := range c.Commands() {
			walk(k)
		}
		name := strings.TrimPrefix(c.CommandPath(), "p2pshare ")
		_, takes, _ := strings.Cut(c.Use, " ")
		if takes != "" && !slices.ContainsFunc(nameUses, func(use nameUse) bool { return strings.HasPrefix(use.args, name+" ") }) {
			t.Errorf("%s takes %s, and is not tried with hostile names", name, takes)
		}
	}
	walk((&app{}).root())
}

// drives reports whether a character in the output could drive a terminal.
func drives(r rune) bool {
	return r != '\n' && (unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Noncharacter_Code_Point) || r == utf8.RuneError)
}

// runDaemon runs a daemon, as a process of its own, until the test ends.
func runDaemon(t *testing.T, env map[string]string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := exec.CommandContext(ctx, "p2pshare", "daemon", "--json")
	for k, v := range env {
		c.Env = append(c.Env, k+"="+v)
	}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		c.Wait()
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), `{"event":"ready"`) {
			return
		}
	}
	t.Fatal("the daemon has ended")
}
