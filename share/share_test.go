package share

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// testPeer is a running node with a library, on loopback.
type testPeer struct {
	*node.Node
	lib *Library
	dir string // a directory of its own, for files
	// announcing is held by one test at a time of those beside one another, since
	// records are waited for a second.
	announcing *sync.Mutex
}

// startPeer runs a peer until the test ends, or stop is called. It is on a local
// network only when a LANPort is given.
func startPeer(t *testing.T, c node.Config) (p *testPeer, stop func()) {
	t.Helper()
	if c.Listen == nil {
		c.Listen = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}
	}
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.NoMulticast = c.LANPort == 0
	c.Values = ValueRecords()
	ctx, cancel := context.WithCancel(t.Context())
	n, err := node.New(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	lib, err := Open(n, Config{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- n.Run(ctx) }()
	go func() { ended <- lib.Run(ctx) }()
	<-n.Listening()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-ended, <-ended, lib.Close(), n.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	t.Cleanup(stop)
	return &testPeer{n, lib, t.TempDir(), new(sync.Mutex)}, stop
}

// fresh is the same peer with another directory to get into, for tests side by side.
func (p *testPeer) fresh(t *testing.T) *testPeer {
	return &testPeer{p.Node, p.lib, t.TempDir(), p.announcing}
}

// startNetwork runs a helper and peers that enter through it.
func startNetwork(t *testing.T, peers int) []*testPeer {
	t.Helper()
	helper, _ := startPeer(t, node.Config{Role: node.RoleHelper})
	boot := []peer.AddrInfo{helper.AddrInfo()}
	all := []*testPeer{helper}
	for range peers {
		p, _ := startPeer(t, node.Config{Bootstrap: boot})
		if !p.WaitDHT(t.Context()) {
			t.Fatal("a peer did not enter the DHT")
		}
		all = append(all, p)
	}
	return all
}

// randomBytes returns n bytes that depend on seed alone.
func randomBytes(n int, seed string) []byte {
	b := make([]byte, n)
	rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(b)
	return b
}

func (p *testPeer) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (p *testPeer) add(t *testing.T, path string, o AddOptions) Share {
	t.Helper()
	s, err := p.lib.Add(t.Context(), path, o)
	if err != nil {
		t.Fatalf("Add(%s): %v", path, err)
	}
	p.announcing.Lock()
	defer p.announcing.Unlock()
	a := p.lib.Announce(t.Context(), s)
	for range 10 { // a second each, on a machine that has other things to do
		if a != AnnouncedPending {
			break
		}
		a = p.lib.Announce(t.Context(), s)
	}
	if p.DHTPeers() > 0 && a != AnnouncedDHT {
		t.Errorf("Announce(%s) = %s, want dht", path, a)
	}
	return s
}

func (p *testPeer) get(t *testing.T, what string, o GetOptions) (Got, error) {
	t.Helper()
	w, err := ParseWhat(what)
	if err != nil {
		t.Fatal(err)
	}
	if o.Dir == "" && o.Target == "" {
		o.Dir = p.dir
	}
	return p.lib.Get(t.Context(), w, o)
}

func mustBe(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s holds %d bytes that differ from the %d shared", path, len(got), len(want))
	}
}

func TestGetByNameIDAndLinkBringsTheSharedBytes(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	for _, size := range []int{0, 1, 1023, 1024, 1025, content.GroupSize - 1, content.GroupSize, content.GroupSize + 1, 8<<20 + 7} {
		name := fmt.Sprintf("file-%d.bin", size)
		data := randomBytes(size, name)
		s := sharer.add(t, sharer.write(t, name, data), AddOptions{})
		for _, what := range []string{name, s.ID.String(), sharer.lib.Link(s).String()} {
			getter.dir = t.TempDir()
			got, err := getter.get(t, what, GetOptions{NoServe: true})
			if err != nil {
				t.Fatalf("Get(%s): %v", what, err)
			}
			mustBe(t, filepath.Join(getter.dir, name), data)
			if got.ID != s.ID || got.Size != int64(size) || got.BytesFetched != int64(size) {
				t.Errorf("Get(%s) = %+v", what, got)
			}
		}
	}
}
