package control

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
)

func runLANNode(t *testing.T, c node.Config, before func(*node.Node)) *node.Node {
	t.Helper()
	c.Listen, c.NoDHT = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, true
	n, err := node.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	before(n)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; n.Close() })
	<-n.Listening()
	return n
}

// A client that leaves is not waited out by silent neighbors.
func TestNeighborsEndWithTheirRequest(t *testing.T) {
	port := lanPort(t)
	runLANNode(t, node.Config{LANPort: port}, func(n *node.Node) {
		n.Handle("/p2pshare/meta/1", node.HandlerConfig{}, func(ctx context.Context, _ network.Stream) error { <-ctx.Done(); return nil })
	})
	home := t.TempDir()
	n := runLANNode(t, node.Config{LANPort: port, Dir: home}, func(*node.Node) {})
	l, err := share.Open(n, share.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := Listen(Config{Home: home, Node: n, Library: l, Service: ServiceServing})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range n.WatchNeighbors(t.Context()) {
		if len(n.Neighbors()) == 1 {
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	func() {
		defer func() { recover() }() // http.ErrAbortHandler
		s.listNeighbors(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", pathNeighbors, nil))
	}()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it went on for %s", took)
	}
}
