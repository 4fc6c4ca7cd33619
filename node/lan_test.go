package node

import (
	"context"
	"crypto/sha256"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
)

// lanPort draws a port that no other test and no peer of this machine uses.
func lanPort(t testing.TB) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// onLAN runs a peer that lives on loopback and on the local network of port.
func onLAN(t testing.TB, port int, c Config, before ...func(*Node)) *Node {
	t.Helper()
	c.Listen, c.LANPort, c.NoDHT = loopback(0), port, true
	n, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range before {
		f(n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		n.Close()
	})
	<-n.Listening()
	return n
}

// lanWait bounds what takes milliseconds.
const lanWait = 20 * time.Second

// awaitNeighbors waits until n's neighbors are as ok has them.
func awaitNeighbors(t testing.TB, n *Node, what string, ok func([]Neighbor) bool) []Neighbor {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lanWait)
	defer cancel()
	var last []Neighbor
	for all := range n.WatchNeighbors(ctx) {
		if last = all; ok(all) {
			return all
		}
	}
	t.Fatalf("neighbors = %v, want %s", last, what)
	return nil
}

func hasNeighbor(id peer.ID) func([]Neighbor) bool {
	return func(all []Neighbor) bool {
		return slices.ContainsFunc(all, func(n Neighbor) bool { return n.ID == id })
	}
}

func TestNeighborsSeeEachOtherAndSayGoodbye(t *testing.T) {
	port := lanPort(t)
	ann := onLAN(t, port, Config{Alias: "ann"})
	ben := onLAN(t, port, Config{Alias: "ben"})
	seen := awaitNeighbors(t, ann, "ben", hasNeighbor(ben.ID()))
	awaitNeighbors(t, ben, "ann", hasNeighbor(ann.ID()))
	if got := seen[0]; got.Alias != "ben" || len(got.Addrs) != 1 || !got.Addrs[0].Equal(ben.Addrs()[0]) {
		t.Errorf("ben is seen as %q at %v, want at %v", got.Alias, got.Addrs, ben.Addrs())
	}
	if err := ann.Connect(t.Context(), peer.AddrInfo{ID: ben.ID()}); err != nil {
		t.Errorf("a neighbor can't be dialled by its ID alone: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cass, err := New(t.Context(), Config{Listen: loopback(0), LANPort: port, NoDHT: true})
	if err != nil {
		t.Fatal(err)
	}
	defer cass.Close()
	ended := make(chan error, 1)
	go func() { ended <- cass.Run(ctx) }()
	awaitNeighbors(t, ann, "cass", hasNeighbor(cass.ID()))
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	awaitNeighbors(t, ann, "no cass", func(all []Neighbor) bool { return !hasNeighbor(cass.ID())(all) })
}

func TestWantFindsWhoHasIt(t *testing.T) {
	port := lanPort(t)
	key, err := mh.Sum([]byte("talk.mp4"), mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("talk.mp4"))
	askers := make(chan peer.ID, 16)
	has := onLAN(t, port, Config{}, func(n *Node) {
		n.HandleWant(func(p peer.ID, prefix []byte) bool {
			select {
			case askers <- p:
			default:
			}
			return string(prefix) == string(digest[:8])
		})
	})
	onLAN(t, port, Config{}, func(n *Node) { n.HandleWant(func(peer.ID, []byte) bool { return false }) })
	visitor := onLAN(t, port, Config{Role: RoleVisitor})
	ctx, cancel := context.WithTimeout(t.Context(), lanWait)
	defer cancel()
	for p := range visitor.Want(ctx, key) {
		if p.ID != has.ID() || len(p.Addrs) != 1 || !p.Addrs[0].Equal(has.Addrs()[0]) {
			t.Errorf("Want yields %v, want %s at %v", p, has.ID(), has.Addrs())
		}
		break
	}
	if ctx.Err() != nil {
		t.Fatal("nobody answered")
	}
	if asker := <-askers; asker != visitor.ID() {
		t.Errorf("asked by %s, want %s", asker, visitor.ID())
	}
	if got := has.Neighbors(); slices.ContainsFunc(got, func(n Neighbor) bool { return n.ID == visitor.ID() }) {
		t.Errorf("the visitor is a neighbor: %v", got)
	}
}

func TestWantIsAnsweredByOneWhoComesLater(t *testing.T) {
	port := lanPort(t)
	key, _ := mh.Sum([]byte("talk.mp4"), mh.SHA2_256, -1)
	asks := onLAN(t, port, Config{Role: RoleVisitor})
	ctx, cancel := context.WithTimeout(t.Context(), lanWait)
	defer cancel()
	found := make(chan peer.AddrInfo, 1)
	begun := make(chan struct{})
	go func() {
		close(begun)
		for p := range asks.Want(ctx, key) {
			found <- p
			return
		}
	}()
	<-begun
	late := onLAN(t, port, Config{}, func(n *Node) { n.HandleWant(func(peer.ID, []byte) bool { return true }) })
	select {
	case p := <-found:
		if p.ID != late.ID() {
			t.Errorf("Want yields %s, want %s", p.ID, late.ID())
		}
	case <-ctx.Done():
		t.Fatal("one who came later was not asked")
	}
}
