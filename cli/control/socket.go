package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// socketName is the control socket's name in the home. Where the socket itself
// had to go elsewhere, it is a symbolic link to it: so commands find it
// whatever their own environment says of runtime directories.
const socketName = "control.sock"

// socketPathMax keeps below the 104 (BSD, macOS) and 108 (Linux) bytes that
// the path of a unix socket may have.
const socketPathMax = 100

// socketPlace returns where home's socket goes: in the home, or when that path
// is too long, under a hash of it in runtimeDir (empty: in tempDir).
func socketPlace(home, runtimeDir, tempDir string, uid int) (string, error) {
	path := filepath.Join(home, socketName)
	if len(path) <= socketPathMax {
		return path, nil
	}
	dir := filepath.Join(tempDir, "p2pshare-"+strconv.Itoa(uid))
	if runtimeDir != "" {
		dir = filepath.Join(runtimeDir, "p2pshare")
	}
	sum := sha256.Sum256([]byte(home))
	path = filepath.Join(dir, hex.EncodeToString(sum[:8])+".sock")
	if len(path) > socketPathMax {
		return "", fmt.Errorf("the path of the control socket is too long: %q and %q have more than %d bytes; use a shorter home", home, path, socketPathMax)
	}
	return path, nil
}

// listenSocket opens home's control socket for this user only. The caller
// holds the lock on home, so a socket that is there already is a dead peer's,
// and is removed.
func listenSocket(home string) (net.Listener, error) {
	name := filepath.Join(home, socketName)
	path, err := socketPlace(home, os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), os.Getuid())
	if err != nil {
		return nil, err
	}
	if err := removeStale(name); err != nil {
		return nil, err
	}
	if path != name {
		if err := privateDir(filepath.Dir(path)); err != nil {
			return nil, err
		}
		if err := removeStale(path); err != nil {
			return nil, err
		}
		if err := os.Symlink(path, name); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	// Until here the directory, 0700, keeps others out.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func removeStale(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the control socket of a dead peer: %w", err)
	}
	return nil
}

// privateDir makes dir for this user only. A directory that is there already
// must be so: in a temporary directory somebody else may have made it first.
func privateDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ownedByUs(info) {
		return fmt.Errorf("%s must be a directory that only you can enter: correct or remove it, or use a shorter home", dir)
	}
	return nil
}

// dialPath is the path to connect to for home's control socket.
func dialPath(home string) string {
	name := filepath.Join(home, socketName)
	if target, err := os.Readlink(name); err == nil {
		return target
	}
	return name
}
