package node

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// longest is a validator for which the longest value is the best, and one that
// begins with "bad" is none.
type longest struct{}

func (longest) Validate(_ string, v []byte) error {
	if bytes.HasPrefix(v, []byte("bad")) {
		return errors.New("bad value")
	}
	return nil
}

func (longest) Select(_ string, values [][]byte) (int, error) {
	best := 0
	for i, v := range values {
		if len(v) > len(values[best]) {
			best = i
		}
	}
	return best, nil
}

func TestAValueOutlivesWhoPutIt(t *testing.T) {
	values := map[string]ValueValidator{"test": longest{}}
	helper, _ := start(t, Config{Role: RoleHelper, Values: values})
	boot := []peer.AddrInfo{helper.AddrInfo()}
	putter, stopPutter := start(t, Config{Bootstrap: boot, Values: values, Dir: t.TempDir()})
	asker, _ := start(t, Config{Bootstrap: boot, Values: values, Role: RoleVisitor})
	for _, n := range []*Node{putter, asker} {
		if !n.WaitDHT(t.Context()) {
			t.Fatal("a node did not enter the DHT")
		}
	}
	put := func(n *Node, value string, want int, fails bool) {
		t.Helper()
		sent, err := n.PutValue(t.Context(), "/test/key", []byte(value), ReachAll)
		if sent != want || (err != nil) != fails {
			t.Errorf("PutValue(%q) = %d, %v, want %d and an error: %t", value, sent, err, want, fails)
		}
	}
	last := func() (best string) {
		for v := range asker.Values(t.Context(), "/test/key") {
			best = string(v)
		}
		return best
	}
	put(putter, "old", 1, false)
	put(putter, "newer", 1, false)
	put(putter, "old", 0, true) // it has a better one itself
	put(asker, "old", 1, false) // the servers have a better one
	put(putter, "bad", 0, true) // refused here already
	if _, err := putter.PutValue(t.Context(), "/other/key", []byte("x"), ReachAll); err == nil {
		t.Error("a value of a namespace without a validator was put")
	}
	if got := last(); got != "newer" {
		t.Errorf("the value is %q, want newer", got)
	}
	stopPutter()
	if got := last(); got != "newer" {
		t.Errorf("without who put it the value is %q, want newer", got)
	}
	for v := range asker.Values(t.Context(), "/test/nothing") {
		t.Errorf("nothing was put, and there is %q", v)
	}
}

func TestNoValuesWithoutADHT(t *testing.T) {
	n, _ := start(t, Config{NoDHT: true})
	if sent, err := n.PutValue(t.Context(), "/test/key", nil, ReachAll); sent != 0 || err != nil {
		t.Errorf("PutValue without a DHT = %d, %v, want 0, nil", sent, err)
	}
	for range n.Values(t.Context(), "/test/key") {
		t.Error("a value without a DHT")
	}
	alone, _ := start(t, Config{Values: map[string]ValueValidator{"test": longest{}}})
	begun := time.Now()
	if sent, err := alone.PutValue(t.Context(), "/test/key", []byte("x"), ReachAll); sent != 0 || err != nil {
		t.Errorf("PutValue alone in the DHT = %d, %v, want 0, nil", sent, err)
	}
	for range alone.Values(t.Context(), "/test/key") {
		t.Error("a value, alone in the DHT")
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %s to learn that nobody is there", took)
	}
}
