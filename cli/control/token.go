package control

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tokenName is the file in the home that holds the bearer token of the TCP
// side, readable by this user only.
const tokenName = "api.token"

// newToken draws a token for this run and writes it to home: to a temporary
// file, then renamed, so that a crash leaves the old one or the new one. No
// fsync: after a power cut the next start draws another.
func newToken(home string) (string, error) {
	var b [32]byte
	rand.Read(b[:])
	token := hex.EncodeToString(b[:])
	f, err := os.CreateTemp(home, "."+tokenName+"-*") // 0600
	if err != nil {
		return "", fmt.Errorf("write API token: %w", err)
	}
	_, err = f.WriteString(token + "\n")
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(home, tokenName))
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("write API token: %w", err)
	}
	return token, nil
}
