package control

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSocketPlace(t *testing.T) {
	short, long := "/home/ann/p2p", "/home/"+strings.Repeat("a", 100)
	tests := []struct {
		name, home, runtimeDir, tempDir string
		want                            string // "" for an error; a * at the end stands for the hash
	}{
		{"short", short, "/run/user/7", "/tmp", short + "/control.sock"},
		{"longest that fits", "/" + strings.Repeat("a", socketPathMax-14), "", "/tmp", "/" + strings.Repeat("a", socketPathMax-14) + "/control.sock"},
		{"one more", "/" + strings.Repeat("a", socketPathMax-13), "", "/tmp", "/tmp/p2pshare-7/*"},
		{"long, runtime directory", long, "/run/user/7", "/tmp", "/run/user/7/p2pshare/*"},
		{"long, none", long, "", "/tmp", "/tmp/p2pshare-7/*"},
		{"all long", long, "", long, ""},
	}
	for _, tt := range tests {
		got, err := socketPlace(tt.home, tt.runtimeDir, tt.tempDir, 7)
		if prefix, ok := strings.CutSuffix(tt.want, "*"); ok {
			ok = strings.HasPrefix(got, prefix) && strings.HasSuffix(got, ".sock") && len(got) == len(prefix)+16+len(".sock")
			if !ok {
				t.Errorf("%s: socketPlace(%q) = %q, %v, want %s", tt.name, tt.home, got, err, tt.want)
			}
		} else if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: socketPlace(%q) = %q, %v, want %q", tt.name, tt.home, got, err, tt.want)
		}
		if len(got) > socketPathMax {
			t.Errorf("%s: socketPlace(%q) has %d bytes, want at most %d", tt.name, tt.home, len(got), socketPathMax)
		}
	}
	a, _ := socketPlace(long+"a", "", "/tmp", 7)
	b, _ := socketPlace(long+"b", "", "/tmp", 7)
	if a == b {
		t.Errorf("two homes share the socket %s", a)
	}
}

func TestSocketReplacesADeadPeers(t *testing.T) {
	for name, home := range map[string]string{
		"in the home": filepath.Join(t.TempDir(), "h"),
		"elsewhere":   filepath.Join(t.TempDir(), strings.Repeat("h", socketPathMax)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", "")
			temp, err := os.MkdirTemp("", "p2p")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(temp)
			t.Setenv("TMPDIR", temp)
			if err := os.Mkdir(home, 0o700); err != nil {
				t.Fatal(err)
			}
			dead, err := listenSocket(home)
			if err != nil {
				t.Fatal(err)
			}
			dead.(*net.UnixListener).SetUnlinkOnClose(false) // as kill -9 leaves it
			dead.Close()

			l, err := listenSocket(home)
			if err != nil {
				t.Fatalf("second listenSocket: %v", err)
			}
			defer l.Close()
			path := dialPath(home)
			if len(path) > socketPathMax {
				t.Errorf("dialPath = %q, longer than %d bytes", path, socketPathMax)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if mode := info.Mode().Perm(); mode != 0o600 {
				t.Errorf("socket has mode %o, want 600", mode)
			}
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatalf("dial: %v", err)
			}
			conn.Close()
		})
	}
}

func TestPrivateDirRefusesWhatOthersCanEnter(t *testing.T) {
	base := t.TempDir()
	open := filepath.Join(base, "open")
	os.Mkdir(open, 0o755)
	link := filepath.Join(base, "link")
	os.Mkdir(filepath.Join(base, "target"), 0o700)
	os.Symlink(filepath.Join(base, "target"), link)
	for _, dir := range []string{open, link} {
		if err := privateDir(dir); err == nil {
			t.Errorf("privateDir(%s) = nil, want an error", dir)
		}
	}
	fresh := filepath.Join(base, "fresh")
	for range 2 { // made, then found
		if err := privateDir(fresh); err != nil {
			t.Errorf("privateDir(%s) = %v", fresh, err)
		}
	}
}

func TestTokenIsNewAtEachStartAndPrivate(t *testing.T) {
	home := t.TempDir()
	first, err := newToken(home)
	if err != nil {
		t.Fatal(err)
	}
	second, err := newToken(home)
	if err != nil {
		t.Fatal(err)
	}
	if first == second || len(second) != 64 {
		t.Errorf("tokens %q and %q, want two different ones of 64 digits", first, second)
	}
	data, err := os.ReadFile(filepath.Join(home, tokenName))
	if err != nil || strings.TrimSpace(string(data)) != second {
		t.Errorf("token file holds %q, %v, want %q", data, err, second)
	}
	info, err := os.Stat(filepath.Join(home, tokenName))
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("token file has mode %o, want 600", mode)
	}
	entries, err := os.ReadDir(home)
	if err != nil || len(entries) != 1 {
		t.Errorf("home holds %v, %v, want the token alone", entries, err)
	}
}
