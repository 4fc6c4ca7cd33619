package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestUnitWord(t *testing.T) {
	for word, want := range map[string]string{
		"/usr/bin/p2pshare": `"/usr/bin/p2pshare"`,
		`/a b/"c"\d`:        `"/a b/\"c\"\\d"`,
		"/100%/$HOME":       `"/100%%/$$HOME"`,
	} {
		if got, err := unitWord(word); err != nil || got != want {
			t.Errorf("unitWord(%q) = %s, %v, want %s", word, got, err, want)
		}
	}
	if got, err := unitWord("/a\nExecStartPre=/bin/evil"); err == nil {
		t.Errorf("a line break becomes %q", got)
	}
}

// The units are what systemd understands, every line of them.
func TestUnitsAreVerifiedBySystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not there")
	}
	for name, v := range map[string]service{
		"user":   {home: "/home/ann/p2p 100%"},
		"system": {home: systemHome, system: true},
		"moved":  {home: "/srv/p2p share", system: true},
	} {
		unit, err := v.unit("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), unitName)
		if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", path).CombinedOutput()
		// What it says of other units of this machine is not ours.
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, unitName) {
				t.Errorf("%s: %s", name, line)
			}
		}
		if err != nil && len(out) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every command has a page, and none has a line that roff takes for a macro.
func TestManPages(t *testing.T) {
	a := &app{}
	var visit func(cmd *cobra.Command)
	pages := 0
	macros := []string{".TH ", ".SH ", ".TP", ".B ", ".BR ", ".PP", ".nf", ".fi"}
	visit = func(cmd *cobra.Command) {
		pages++
		page := manPage(cmd)
		for line := range strings.Lines(page) {
			if strings.HasPrefix(line, "'") {
				t.Errorf("%s: %q", cmd.CommandPath(), line)
			}
			known := !strings.HasPrefix(line, ".")
			for _, m := range macros {
				known = known || strings.HasPrefix(line, m)
			}
			if !known {
				t.Errorf("%s: %q", cmd.CommandPath(), line)
			}
		}
		for _, part := range []string{".SH NAME\n", ".SH SYNOPSIS\n", ".SH EXIT STATUS\n"} {
			if !strings.Contains(page, part) {
				t.Errorf("%s lacks %q", cmd.CommandPath(), part)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(a.root())
	if pages < 30 {
		t.Errorf("%d pages", pages)
	}
	if got, want := roff(".x -y it's \\z\n'q"), "\\&.x \\-y it\\(aqs \\ez\n\\(aqq"; got != want {
		t.Errorf("roff = %q, want %q", got, want)
	}
}

func TestLogFileMakesRoomForItself(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := &logFile{path: path}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	line := []byte(strings.Repeat("x", 1<<20-1) + "\n")
	for range 40 {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + ".1"} {
		info, err := os.Stat(name)
		if err != nil || info.Size() > logMax || info.Size() == 0 || info.Mode().Perm() != 0o600 && os.PathSeparator == '/' {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// Each setting is explained, and the lines fit.
func TestSettingsAreExplained(t *testing.T) {
	for _, row := range settingTable {
		if len(row.about) < 40 || !strings.HasSuffix(row.about, ".") {
			t.Errorf("%s is explained by %q", row.key, row.about)
		}
		for _, line := range wrap(row.about, 76) {
			if len(line) > 76 {
				t.Errorf("%s: %q", row.key, line)
			}
		}
	}
}
