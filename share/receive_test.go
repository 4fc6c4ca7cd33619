package share

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/p2pshare/p2pshare/node"
)

func TestReceiveSavesUnderCheckedNamesAndReplacesNothing(t *testing.T) {
	p, _ := startPeer(t, node.Config{NoDHT: true})
	dir := t.TempDir()
	receive := func(name, data string, max int64) (string, error) {
		path, _, err := p.lib.Receive(dir, name, strings.NewReader(data), max)
		return path, err
	}
	for i, want := range []string{"a.txt", "a (1).txt", "a (2).txt"} {
		path, err := receive("a.txt", string(rune('a'+i)), 10)
		if err != nil || path != filepath.Join(dir, want) {
			t.Fatalf("Receive(a.txt) = %s, %v, want %s", path, err, want)
		}
		mustBe(t, path, []byte{byte('a' + i)})
	}
	for _, name := range []string{"", ".", "..", "../a", "a/b", `a\b`, "a\x00", "a\x1b[31m", ".bashrc", ".a.p2p-part", "a\u202eb"} {
		if path, err := receive(name, "x", 10); !errors.Is(err, ErrBadName) {
			t.Errorf("Receive(%q) = %s, %v, want ErrBadName", name, path, err)
		}
	}
	if _, err := receive("large", "0123456789x", 10); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Receive of 11 bytes: %v", err)
	}
	if _, err := receive("exact", "0123456789", 10); err != nil {
		t.Errorf("Receive of 10 bytes: %v", err)
	}
	if _, _, err := p.lib.Receive(dir, "broken", io.MultiReader(strings.NewReader("x"), cutOff{}), 10); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Receive of what breaks off: %v", err)
	}
	if _, _, err := p.lib.Receive(p.Dir(), "a.txt", strings.NewReader("x"), 10); !errors.Is(err, ErrRefused) {
		t.Errorf("Receive into a home: %v", err)
	}
	long := strings.Repeat("x", 250) + ".txt"
	for range 2 {
		if _, err := receive(long, "x", 10); err != nil {
			t.Errorf("Receive of a long name: %v", err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 6 {
		t.Errorf("the directory holds %v, %v, want 6 files", files, err)
	}
}

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
