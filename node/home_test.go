package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

func mustOpenHome(t *testing.T, dir string) *Home {
	t.Helper()
	h, err := OpenHome(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestOpenHomeMakesANewHome(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	h := mustOpenHome(t, dir)
	if h.Dir() != dir {
		t.Errorf("Dir = %q, want %q", h.Dir(), dir)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "format")); err != nil || string(data) != "1\n" {
		t.Errorf("format holds %q, %v, want \"1\\n\"", data, err)
	}
	if got := readPID(filepath.Join(dir, "lock")); got != os.Getpid() {
		t.Errorf("lock names process %d, want %d", got, os.Getpid())
	}
	if info, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("home has mode %v, %v, want 0700", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("home holds %v, %v, want format and lock", entries, err)
	}
}

func TestOpenHomeGivesAnAbsolutePath(t *testing.T) {
	t.Chdir(t.TempDir())
	if h := mustOpenHome(t, "home"); !filepath.IsAbs(h.Dir()) {
		t.Errorf("Dir = %q, want an absolute path", h.Dir())
	}
}

func TestOpenHomeAgainAfterClose(t *testing.T) {
	dir := t.TempDir()
	for range 3 {
		h := mustOpenHome(t, dir)
		var locked *HomeLockedError
		if _, err := OpenHome(dir); !errors.As(err, &locked) || !errors.Is(err, ErrHomeLocked) {
			t.Fatalf("OpenHome of an open home = %v, want *HomeLockedError", err)
		}
		if *locked != (HomeLockedError{Dir: dir, PID: os.Getpid()}) {
			t.Errorf("error is %+v, want dir %s and our process %d", *locked, dir, os.Getpid())
		}
		for range 2 {
			if err := h.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
		}
		if got := readPID(filepath.Join(dir, "lock")); got != 0 {
			t.Errorf("after Close the lock names process %d, want none", got)
		}
	}
}

func TestOpenHomeTakesWhatMayBeThereBeforehand(t *testing.T) {
	dir := t.TempDir()
	want := identityOf(t, dir) // a restored identity
	for _, name := range []string{"config.toml", ".DS_Store", ".format-123.tmp", "lock"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustOpenHome(t, dir)
	if got := identityOf(t, dir); got != want {
		t.Errorf("identity is %s, want %s", got, want)
	}
}

func TestOpenHomeRefusesAndLeavesAlone(t *testing.T) {
	for _, test := range []struct{ name, file, data, want string }{
		{"a newer format", "format", "2\n", "has format 2, this p2pshare knows up to 1: upgrade p2pshare"},
		{"a format that is no number", "format", "one\n", "does not hold a version number"},
		{"an empty format", "format", "", "does not hold a version number"},
		{"a negative format", "format", "-1\n", "does not hold a version number"},
		{"a directory of other files", "thesis.odt", "x", `"thesis.odt": choose an empty directory`},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, test.file)
			if err := os.WriteFile(path, []byte(test.data), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenHome(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("OpenHome = %v, want %q in it", err, test.want)
			}
			entries, _ := os.ReadDir(dir)
			if data, err := os.ReadFile(path); err != nil || string(data) != test.data || len(entries) != 1 {
				t.Errorf("the directory was changed: %v, %q, %v", entries, data, err)
			}
		})
	}
}

func TestOpenHomeRefusesWhatIsNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHome(file); err == nil || !strings.Contains(err.Error(), "is not a directory: choose another home") {
		t.Errorf("OpenHome of a file = %v", err)
	}
	if _, err := OpenHome(filepath.Join(file, "below")); err == nil {
		t.Error("OpenHome below a file = nil, want an error")
	}
	if _, err := OpenHome(""); err == nil {
		t.Error("OpenHome of no path = nil, want an error")
	}
}

func TestOpenHomeRefusesWhatIsNotWritable(t *testing.T) {
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("modes do not bind this user")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	for _, home := range []string{dir, filepath.Join(dir, "below")} {
		if _, err := OpenHome(home); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "is not writable") {
			t.Errorf("OpenHome(%s) = %v, want that it is not writable", home, err)
		}
	}
}

func TestReadPIDSurvivesAnyContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for data, want := range map[string]int{
		"": 0, "12\n": 0, " 12        \n": 12, "\x0012        \n": 12, " -5        \n": 0, " rubbish   \n": 0, "           \n": 0,
	} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readPID(path); got != want {
			t.Errorf("readPID of %q = %d, want %d", data, got, want)
		}
	}
}

const homeDirEnv = "NODE_TEST_HOME_DIR"

// TestHomeChild is the child process of the test below: it holds the home until
// its standard input ends.
func TestHomeChild(t *testing.T) {
	dir := os.Getenv(homeDirEnv)
	if dir == "" {
		t.Skip("only as a child process")
	}
	mustOpenHome(t, dir)
	fmt.Println("opened", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
}

func TestOpenHomeIsLockedByAnotherProcessUntilItDies(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestHomeChild$")
	child.Env = append(os.Environ(), homeDirEnv+"="+dir)
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if want := fmt.Sprintf("opened %d\n", child.Process.Pid); err != nil || line != want {
		t.Fatalf("child says %q, %v, want %q", line, err, want)
	}
	_, err = OpenHome(dir)
	var locked *HomeLockedError
	if !errors.As(err, &locked) || locked.Dir != dir || locked.PID != child.Process.Pid {
		t.Errorf("OpenHome = %v, want *HomeLockedError for process %d", err, child.Process.Pid)
	}
	if text := fmt.Sprint(err); !strings.Contains(text, strconv.Itoa(child.Process.Pid)) || !strings.Contains(text, "stop it first") {
		t.Errorf("error %q does not say what to do", text)
	}
	child.Process.Kill() // no Close: the system must let go of the lock
	child.Wait()
	mustOpenHome(t, dir)
	if got := readPID(filepath.Join(dir, "lock")); got != os.Getpid() {
		t.Errorf("lock names process %d, want ours, %d", got, os.Getpid())
	}
}
