// Package nodetest runs several nodes in one test, on libp2p's mock network:
// no socket is opened, and inside testing/synctest time is free.
package nodetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
)

// New returns count nodes that do not run yet, so that handlers can be set
// first. The first is the bootstrap peer of the others, and a helper. They are
// closed when the test ends.
func New(t testing.TB, count int) []*node.Node {
	t.Helper()
	addrs := make([]string, count)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)
	}
	return NewAt(t, addrs...)
}

// NewAt is New for nodes at given IPv4 addresses.
func NewAt(t testing.TB, addrs ...string) []*node.Node {
	t.Helper()
	net := mocknet.New()
	nodes := make([]*node.Node, len(addrs))
	var first []peer.AddrInfo
	for i := range nodes {
		c := node.Config{Host: newHost(t, net, addrs[i]), Bootstrap: first, NoMulticast: true}
		if i == 0 {
			c.Role = node.RoleHelper
			first = []peer.AddrInfo{{ID: c.Host.ID(), Addrs: c.Host.Addrs()}}
		}
		n, err := node.New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Errorf("close node %d: %v", i, err)
			}
		})
		nodes[i] = n
	}
	if err := net.LinkAll(); err != nil {
		t.Fatal(err)
	}
	return nodes
}

// newHost makes a mock host with an identity as ours are.
func newHost(t testing.TB, net mocknet.Mocknet, addr string) host.Host {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h, err := net.AddPeer(key, ma.StringCast("/ip4/"+addr+"/tcp/4001"))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Run runs nodes, and whatever else a test hands over, until the returned stop
// is called, which waits for them all. It returns when the nodes listen and
// each but the first has entered the DHT.
func Run(t testing.TB, nodes []*node.Node, others ...func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	runs := others
	for _, n := range nodes {
		runs = append(runs, n.Run)
	}
	ended := make(chan error, len(runs))
	for _, run := range runs {
		go func() { ended <- run(ctx) }()
	}
	for i, n := range nodes {
		<-n.Listening()
		if i > 0 && !n.WaitDHT(ctx) {
			t.Errorf("node %d did not enter the DHT", i)
		}
	}
	return func() {
		cancel()
		var errs []error
		for range runs {
			errs = append(errs, <-ended)
		}
		if err := errors.Join(errs...); err != nil {
			t.Errorf("run: %v", err)
		}
	}
}
