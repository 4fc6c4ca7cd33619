package node

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/gofrs/flock"
	"github.com/libp2p/go-libp2p/core/crypto"
)

const (
	// identityFile holds the private key in libp2p's own encoding, a protobuf of
	// 68 bytes, so that other libp2p programs can read it.
	identityFile = "identity.key"

	// identityMax is the most that is read of it: room to see that a file is
	// something else, without reading all of what it is.
	identityMax = 1 << 10

	identityRemedy = "restore it from a backup, or move it away to start with a new identity"
)

// LoadIdentity returns the Ed25519 key in dir/identity.key, and makes one if the
// file does not exist. Any number of processes may do so at once; all get the
// same key. dir must exist.
//
// A file that is there is never replaced, whatever is in it: other people know
// this peer by its key, and a new one made in silence would lose their trust. If
// it is not exactly one Ed25519 key, the error names the file and the remedy.
//
// As ssh does with its keys, and for the same reason, LoadIdentity refuses a file
// that the group or others have any access to, instead of tightening its mode:
// the key may be known to others already, which is for a person to judge. On
// Windows the mode says nothing of who may read, and is not checked.
func LoadIdentity(dir string) (crypto.PrivKey, error) {
	path := filepath.Join(dir, identityFile)
	key, err := readIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createIdentity(path); err != nil {
		return nil, fmt.Errorf("create identity key: %w", err)
	}
	// Read it, even if it is ours: another process may have been first.
	key, err = readIdentity(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("identity key %s: a link to a file that is missing: %s", path, identityRemedy)
	}
	return key, err
}

// readIdentity returns the key at path; the error matches fs.ErrNotExist if there
// is none.
func readIdentity(path string) (crypto.PrivKey, error) {
	info, err := os.Stat(path) // before opening: a named pipe would block that
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("identity key %s: not a regular file: %s", path, identityRemedy)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("identity key %s: mode %04o lets other users read or change it: run chmod 600 on it, or move it away if someone may have its contents", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, identityMax+1))
	if err != nil {
		return nil, err
	}
	key, err := parseIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("identity key %s: %w: %s", path, err, identityRemedy)
	}
	return key, nil
}

func parseIdentity(data []byte) (crypto.PrivKey, error) {
	if len(data) == 0 {
		return nil, errors.New("the file is empty")
	}
	if len(data) > identityMax {
		return nil, fmt.Errorf("more than %d bytes, too large for a key", identityMax)
	}
	key, err := crypto.UnmarshalPrivateKey(data)
	if err != nil {
		return nil, errors.New("not a libp2p private key")
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("a key of type %s, not Ed25519", key.Type())
	}
	// The file holds the seed and the public key, and libp2p believes both. A
	// wrong public half would make signatures from which the key can be computed.
	raw, err := key.Raw()
	if err != nil || !bytes.Equal(raw, ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])) {
		return nil, errors.New("its two halves do not belong together")
	}
	if again, err := crypto.MarshalPrivateKey(key); err != nil || !bytes.Equal(again, data) {
		return nil, errors.New("more in it than one key")
	}
	return key, nil
}

// createIdentity puts a new key at path unless something is there.
//
// A crash leaves at most a temporary file with a key that nobody has used.
func createIdentity(path string) error {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	data, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	temp, err := writeTemp(dir, ".identity-*.tmp", data)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := placeNew(temp, path, os.Link); err != nil {
		return err
	}
	// The loser of a race syncs too: it is about to use the winner's key.
	return syncDir(dir)
}

// placeNew gives the file temp the name path, unless path exists, which is not an
// error. link is os.Link except in tests.
//
// Android, FAT and some network file systems have no hard links. There it renames
// under a lock beside path, which keeps out other processes of ours.
func placeNew(temp, path string, link func(from, to string) error) error {
	err := link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	lock := flock.New(path + ".lock")
	if err := lock.Lock(); err != nil {
		return err
	}
	defer lock.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(temp, path)
}
