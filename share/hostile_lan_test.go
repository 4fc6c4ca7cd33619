package share

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// startLANLiar claims to have everything, on the local network only.
func startLANLiar(t *testing.T, port int, hs handlers) *node.Node {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n, err := node.New(ctx, node.Config{Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, LANPort: port, NoDHT: true})
	if err != nil {
		t.Fatal(err)
	}
	for proto, h := range hs {
		n.Handle(proto, node.HandlerConfig{}, h)
	}
	n.HandleWant(func(peer.ID, []byte) bool { return true })
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	<-n.Listening()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, n.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return n
}

// hang reads nothing and says nothing until the test ends.
func hang(ctx context.Context, s network.Stream) error {
	<-ctx.Done()
	return nil
}

func startLANLiars(t *testing.T, count, port int, hs handlers) {
	t.Helper()
	for range count {
		startLANLiar(t, port, hs)
	}
}

func TestLANLiarsDoNotKeepASearchFromTheDHT(t *testing.T) {
	net := startNetwork(t, 1)
	sharer := net[1]
	port := lanPort(t)
	sharer.add(t, sharer.write(t, "talk.txt", []byte("hello")), AddOptions{})
	startLANLiars(t, 33, port, handlers{metaProtocol: hang, dataProtocol: hang})
	getter, _ := startPeer(t, node.Config{LANPort: port, Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	start := time.Now()
	found, err := getter.lib.Find(t.Context(), What{Name: "talk.txt"}, FindOptions{})
	t.Logf("%d found after %s: %v", len(found), time.Since(start), err)
	if err != nil || time.Since(start) > 3*time.Second {
		t.Errorf("%d found after %s: %v", len(found), time.Since(start), err)
	}
}

func TestManyLANLiarsDoNotUseUpTheSearch(t *testing.T) {
	if testing.Short() {
		t.Skip("runs more than 64 nodes")
	}
	net := startNetwork(t, 1)
	sharer := net[1]
	port := lanPort(t)
	sharer.add(t, sharer.write(t, "talk.txt", []byte("hello")), AddOptions{})
	startLANLiars(t, askedMax+1, port, handlers{metaProtocol: answerMeta([]byte(`{"end":true}` + "\n")), dataProtocol: hang})
	getter, _ := startPeer(t, node.Config{LANPort: port, Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	start := time.Now()
	found, err := getter.lib.Find(t.Context(), What{Name: "talk.txt"}, FindOptions{})
	t.Logf("%d found after %s: %v", len(found), time.Since(start), err)
	if err != nil {
		t.Errorf("%d found after %s: %v", len(found), time.Since(start), err)
	}
}

func TestASilentNeighborDoesNotHoldUpAGet(t *testing.T) {
	t.Parallel() // it mostly waits
	net := startNetwork(t, 1)
	sharer := net[1]
	port := lanPort(t)
	data := randomBytes(2*content.GroupSize, "x")
	s := sharer.add(t, sharer.write(t, "talk.bin", data), AddOptions{})
	startLANLiars(t, 1, port, handlers{metaProtocol: hang, dataProtocol: hang})
	getter, _ := startPeer(t, node.Config{LANPort: port, Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	start := time.Now()
	_, err := getter.get(t, s.ID.String(), GetOptions{})
	t.Logf("took %s: %v", time.Since(start), err)
	if err != nil || time.Since(start) > 8*time.Second {
		t.Errorf("took %s: %v", time.Since(start), err)
	}
}

// TestAGetLearnsOfAProviderThatComesLater has a neighbor that says nothing keep a get
// alive, for which the DHT knows nobody when it is asked first.
func TestAGetLearnsOfAProviderThatComesLater(t *testing.T) {
	t.Parallel() // it mostly waits
	net := startNetwork(t, 1)
	sharer := net[1]
	port := lanPort(t)
	data := randomBytes(2*content.GroupSize, "later")
	id, _ := nameContent(t, data)
	asked := make(chan struct{})
	once := sync.OnceFunc(func() { close(asked) })
	startLANLiars(t, 1, port, handlers{metaProtocol: hang, dataProtocol: func(ctx context.Context, s network.Stream) error {
		once()
		return hang(ctx, s)
	}})
	getter, _ := startPeer(t, node.Config{LANPort: port, Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	result := make(chan error, 1)
	go func() {
		_, err := getter.lib.Get(t.Context(), What{ID: id, Kind: KindFile, Name: "talk.bin"}, GetOptions{Dir: getter.dir})
		result <- err
	}()
	select {
	case <-asked:
	case err := <-result:
		t.Fatalf("Get has ended before the neighbor was asked: %v", err)
	}
	sharer.add(t, sharer.write(t, "talk.bin", data), AddOptions{})
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestManyLANLiarsDoNotUseUpAGet(t *testing.T) {
	if testing.Short() {
		t.Skip("runs more than 64 nodes")
	}
	net := startNetwork(t, 1)
	sharer := net[1]
	port := lanPort(t)
	data := randomBytes(2*content.GroupSize, "x")
	s := sharer.add(t, sharer.write(t, "talk.bin", data), AddOptions{})
	startLANLiars(t, triedMax+1, port, handlers{}) // no protocol: dropped at once
	getter, _ := startPeer(t, node.Config{LANPort: port, Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	start := time.Now()
	_, err := getter.get(t, s.ID.String(), GetOptions{})
	t.Logf("took %s: %v", time.Since(start), err)
	if err != nil {
		t.Errorf("took %s: %v", time.Since(start), err)
	}
}
