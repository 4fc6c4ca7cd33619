package node

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

func identityOf(t *testing.T, dir string) string {
	t.Helper()
	key, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

func TestLoadIdentityIsStable(t *testing.T) {
	dir := t.TempDir()
	first := identityOf(t, dir)
	if again := identityOf(t, dir); again != first {
		t.Errorf("second LoadIdentity gives %s, want %s", again, first)
	}
	if other := identityOf(t, t.TempDir()); other == first {
		t.Errorf("two directories have one identity %s", first)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "identity.key" {
		t.Errorf("directory holds %v, want identity.key only", entries)
	}
	info, err := entries[0].Info()
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("identity.key has mode %v, want 0600", info.Mode())
	}
}

func TestLoadIdentityRefusesAndKeeps(t *testing.T) {
	_, good := newIdentity(t, crypto.Ed25519)
	_, secp := newIdentity(t, crypto.Secp256k1)
	wrongHalf := bytes.Clone(good)
	wrongHalf[len(wrongHalf)-1] ^= 1
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "empty"},
		{"text", []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "not a libp2p private key"},
		{"zeros", make([]byte, 68), "not a libp2p private key"},
		{"cut", good[:40], "not a libp2p private key"},
		{"too large", make([]byte, identityMax+1), "too large"},
		{"not Ed25519", secp, "of type Secp256k1"},
		{"wrong public half", wrongHalf, "do not belong together"},
		{"two keys", append(bytes.Clone(good), good...), "more in it"},
		{"unknown field added", append(bytes.Clone(good), 0x18, 0x01), "more in it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "identity.key")
			if err := os.WriteFile(path, test.data, 0o600); err != nil {
				t.Fatal(err)
			}
			key, err := LoadIdentity(dir)
			if err == nil || key != nil {
				t.Fatalf("LoadIdentity = %v, %v, want an error", key, err)
			}
			for _, want := range []string{test.want, path, "restore it from a backup"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, test.data) {
				t.Errorf("the file was changed: %q, %v", now, err)
			}
		})
	}
}

func newIdentity(t *testing.T, typ int) (crypto.PrivKey, []byte) {
	t.Helper()
	key, _, err := crypto.GenerateKeyPairWithReader(typ, 0, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, data
}

func TestLoadIdentityRefusesAFileOpenToOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are not checked on Windows")
	}
	dir := t.TempDir()
	want := identityOf(t, dir)
	path := filepath.Join(dir, "identity.key")
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o620, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") || !strings.Contains(err.Error(), path) {
			t.Errorf("mode %04o: %v, want an error with the path and chmod 600", mode, err)
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if got := identityOf(t, dir); got != want {
			t.Errorf("mode %04o: %s, want %s", mode, got, want)
		}
	}
}

func TestLoadIdentityRefusesWhatIsNotAFile(t *testing.T) {
	t.Run("directory", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "identity.key"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("LoadIdentity = %v, want not a regular file", err)
		}
	})
	t.Run("link to nothing", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "identity.key")
		if err := os.Symlink(filepath.Join(dir, "absent"), path); err != nil {
			t.Skip(err)
		}
		if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("LoadIdentity = %v, want that the link's file is missing", err)
		}
		if _, err := os.Readlink(path); err != nil {
			t.Errorf("the link was replaced: %v", err)
		}
	})
	t.Run("no home", func(t *testing.T) {
		if _, err := LoadIdentity(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("LoadIdentity = %v, want fs.ErrNotExist", err)
		}
	})
}

func TestLoadIdentityFollowsALink(t *testing.T) {
	elsewhere, dir := t.TempDir(), t.TempDir()
	want := identityOf(t, elsewhere)
	if err := os.Symlink(filepath.Join(elsewhere, "identity.key"), filepath.Join(dir, "identity.key")); err != nil {
		t.Skip(err)
	}
	if got := identityOf(t, dir); got != want {
		t.Errorf("through a link: %s, want %s", got, want)
	}
}

func TestLoadIdentityAtOnceGivesOneKey(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		var wg sync.WaitGroup
		ids := make([]string, 16)
		for i := range ids {
			wg.Go(func() {
				if key, err := LoadIdentity(dir); err != nil {
					ids[i] = err.Error()
				} else if id, err := peer.IDFromPrivateKey(key); err == nil {
					ids[i] = id.String()
				}
			})
		}
		wg.Wait()
		want := identityOf(t, dir)
		for _, id := range ids {
			if id != want {
				t.Fatalf("LoadIdentity gave %q, want %q", id, want)
			}
		}
	}
}

const identityDirEnv = "NODE_TEST_IDENTITY_DIR"

// TestIdentityChild is the child process of the test below.
func TestIdentityChild(t *testing.T) {
	dir := os.Getenv(identityDirEnv)
	if dir == "" {
		t.Skip("only as a child process")
	}
	os.Stdin.Read(make([]byte, 1)) // all start together, when the pipe closes
	fmt.Printf("identity=%s\n", identityOf(t, dir))
}

func TestLoadIdentityInProcessesAtOnceGivesOneKey(t *testing.T) {
	dir := t.TempDir()
	start, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer start.Close()
	defer release.Close()
	var children []*exec.Cmd
	outputs := make([]bytes.Buffer, 8)
	for i := range outputs {
		c := exec.Command(os.Args[0], "-test.run=^TestIdentityChild$")
		c.Env = append(os.Environ(), identityDirEnv+"="+dir)
		c.Stdin, c.Stdout, c.Stderr = start, &outputs[i], &outputs[i]
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, c)
	}
	release.Close()
	for i, c := range children {
		if err := c.Wait(); err != nil {
			t.Errorf("child: %v: %s", err, outputs[i].String())
		}
	}
	want := "identity=" + identityOf(t, dir) + "\n"
	for i := range outputs {
		if got := outputs[i].String(); !strings.Contains(got, want) {
			t.Errorf("child says %q, want %q in it", got, want)
		}
	}
}

// TestPlaceNewWithoutHardLinks has a file system that refuses them.
func TestPlaceNewWithoutHardLinks(t *testing.T) {
	noLink := func(string, string) error { return errors.ErrUnsupported }
	dir := t.TempDir()
	path := filepath.Join(dir, "identity.key")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			temp, err := writeTemp(dir, ".identity-*.tmp", fmt.Appendf(nil, "key %02d", i))
			if err != nil {
				t.Error(err)
				return
			}
			if err := placeNew(temp, path, noLink); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	first, err := os.ReadFile(path)
	if err != nil || len(first) != len("key 00") {
		t.Fatalf("identity.key holds %q, %v", first, err)
	}
	temp, err := writeTemp(dir, ".identity-*.tmp", []byte("late"))
	if err != nil {
		t.Fatal(err)
	}
	if err := placeNew(temp, path, noLink); err != nil {
		t.Error(err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, first) {
		t.Errorf("identity.key was replaced: %q, %v, want %q", now, err, first)
	}
}
