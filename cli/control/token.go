package control

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// tokenName is the file in the home that holds the bearer token of the TCP
// side, readable by this user only.
const tokenName = "api.token"

// newToken draws a token for this run and writes it to home: to a temporary
// file, then renamed, so that a crash leaves the old one or the new one. No
// fsync: after a power cut the next start draws another. On a full disk it takes the
// place of the last one, byte by byte, which needs no space.
func newToken(home string) (string, error) {
	var b [32]byte
	rand.Read(b[:])
	token := hex.EncodeToString(b[:])
	path := filepath.Join(home, tokenName)
	err := replaceToken(path, token+"\n")
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = overwriteToken(path, token+"\n")
	}
	if err != nil {
		return "", fmt.Errorf("write API token: %w", err)
	}
	return token, nil
}

func replaceToken(path, line string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+tokenName+"-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

func overwriteToken(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}
