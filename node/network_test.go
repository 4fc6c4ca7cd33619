package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Ends by itself within a second of the store's close.
		goleak.IgnoreAnyFunction("github.com/syndtr/goleveldb/leveldb.(*DB).mpoolDrain"),
	)
}

// start runs a node on loopback until the test ends or stop is called.
func start(t *testing.T, c Config) (n *Node, stop func()) {
	t.Helper()
	if c.Listen == nil {
		c.Listen = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}
	}
	c.NoMulticast = true
	n, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return n, run(t, n)
}

func run(t *testing.T, n *Node) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	select {
	case <-n.Listening():
	case err := <-ended:
		cancel()
		t.Fatalf("Run: %v", err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-ended, n.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func key(t *testing.T, s string) mh.Multihash {
	t.Helper()
	k, err := mh.Sum([]byte(s), mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func providers(t *testing.T, n *Node, k mh.Multihash) []peer.AddrInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if !n.WaitDHT(ctx) {
		t.Fatal("the peer did not enter the DHT")
	}
	var found []peer.AddrInfo
	for p := range n.FindProviders(ctx, k) {
		found = append(found, p)
	}
	return found
}

// awaitProviders asks again until somebody is named: a provider record has no
// answer, and on a busy machine the question overtakes it.
func awaitProviders(t *testing.T, n *Node, k mh.Multihash) []peer.AddrInfo {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if found := providers(t, n, k); len(found) > 0 {
			return found
		}
	}
	return nil
}

// awaitRecord waits until a helper has the record of a provider. Others can't tell:
// the provider answers for itself.
func awaitRecord(t *testing.T, helper *Node, k mh.Multihash) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if found, err := helper.dht.dual.LAN.ProviderStore().GetProviders(t.Context(), k); err != nil {
			t.Fatal(err)
		} else if len(found) > 0 {
			return
		}
	}
	t.Fatal("the provider's record has not come to the helper")
}

func mustProvide(t *testing.T, n *Node, k mh.Multihash) {
	t.Helper()
	if !n.WaitDHT(t.Context()) {
		t.Fatal("the peer did not enter the DHT")
	}
	if sent, err := n.Provide(t.Context(), k, ReachAll); sent != 1 || err != nil {
		t.Fatalf("Provide = %d, %v, want 1 DHT", sent, err)
	}
}

func TestProviderIsFoundOnALoopbackNetwork(t *testing.T) {
	helper, _ := start(t, Config{Role: RoleHelper})
	boot := []peer.AddrInfo{helper.AddrInfo()}
	provider, _ := start(t, Config{Bootstrap: boot})
	visitor, _ := start(t, Config{Bootstrap: boot, Role: RoleVisitor})
	k := key(t, "talk.mp4")
	mustProvide(t, provider, k)
	found := awaitProviders(t, visitor, k)
	if len(found) != 1 || found[0].ID != provider.ID() {
		t.Fatalf("FindProviders = %v, want %s", found, provider.ID())
	}
	if err := visitor.Connect(t.Context(), found[0]); err != nil {
		t.Errorf("Connect(%v): %v", found[0], err)
	}
	if got := providers(t, visitor, key(t, "nothing")); len(got) != 0 {
		t.Errorf("FindProviders of a key nobody has = %v", got)
	}
}

// port returns a TCP port of 127.0.0.1 that was free a moment ago.
func port(t *testing.T) int {
	t.Helper()
	p, err := drawPort()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func loopback(port int) []ma.Multiaddr {
	return []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/" + strconv.Itoa(port))}
}

func TestRecordsAndAddressesSurviveAHelpersRestart(t *testing.T) {
	config := Config{Role: RoleHelper, Dir: t.TempDir(), Listen: loopback(port(t))}
	helper, stopHelper := start(t, config)
	boot := []peer.AddrInfo{helper.AddrInfo()}
	provider, stopProvider := start(t, Config{Bootstrap: boot})
	k := key(t, "talk.mp4")
	mustProvide(t, provider, k)
	want := provider.AddrInfo()
	awaitRecord(t, helper, k)
	stopProvider() // it can't come by and say where it is
	stopHelper()
	start(t, config)

	visitor, _ := start(t, Config{Bootstrap: boot, Role: RoleVisitor})
	found := awaitProviders(t, visitor, k)
	if len(found) != 1 || found[0].ID != want.ID || len(found[0].Addrs) == 0 || !found[0].Addrs[0].Equal(want.Addrs[0]) {
		t.Errorf("FindProviders after the restart = %v, want %v", found, want)
	}
}

func TestPeerReentersWhenItsHelperReturns(t *testing.T) {
	config := Config{Role: RoleHelper, Dir: t.TempDir(), Listen: loopback(port(t))}
	helper, stopHelper := start(t, config)
	p, _ := start(t, Config{Bootstrap: []peer.AddrInfo{helper.AddrInfo()}})
	if !p.WaitDHT(t.Context()) {
		t.Fatal("the peer did not enter the DHT")
	}
	<-p.Changed()
	stopHelper()
	eventually(t, "the peer notices that it is alone", func() bool { return p.DHTPeers() == 0 })
	for len(p.Changed()) > 0 {
		<-p.Changed()
	}
	start(t, config)
	eventually(t, "the peer is back", func() bool { return p.DHTPeers() == 1 })
	<-p.Changed() // what is shared is to be announced again
}

// eventually asks for a condition that nothing signals until it holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestNobodyWaitsForANetworkWithoutPeers(t *testing.T) {
	dead := peer.AddrInfo{ID: mustPeerID(t), Addrs: loopback(port(t))}
	for name, c := range map[string]Config{
		"no bootstrap peer":   {},
		"a dead one":          {Bootstrap: []peer.AddrInfo{dead}},
		"no DHT":              {NoDHT: true},
		"no network whatever": {Offline: true},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := start(t, c)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if n.WaitDHT(ctx) || ctx.Err() != nil {
				t.Errorf("WaitDHT did not see at once that there is nobody (ctx: %v)", ctx.Err())
			}
			for p := range n.FindProviders(ctx, key(t, "x")) {
				t.Errorf("FindProviders yields %v", p)
			}
			if sent, err := n.Provide(ctx, key(t, "x"), ReachAll); sent != 0 || err != nil {
				t.Errorf("Provide = %d, %v, want 0 and no error", sent, err)
			}
		})
	}
}

func TestResetProvidingCancelledAtOnceLetsTheNodeClose(t *testing.T) {
	for range 20 {
		n, stop := start(t, Config{Dir: t.TempDir()})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.ResetProviding(ctx, func(yield func(mh.Multihash) bool) { yield(key(t, "a")) }); err != nil {
			t.Fatal(err)
		}
		stop()
	}
}

func mustPeerID(t *testing.T) peer.ID {
	t.Helper()
	n, err := New(t.Context(), Config{Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	return n.ID()
}

func TestListenPortIsDrawnOnceAndKept(t *testing.T) {
	dir := t.TempDir()
	ports := func() []string {
		n, err := New(t.Context(), Config{Dir: dir, NoDHT: true, NoMulticast: true})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, n)
		defer stop()
		kept, err := os.ReadFile(filepath.Join(dir, "port"))
		if err != nil {
			t.Fatal(err)
		}
		var tcp string
		for _, a := range n.host.Network().ListenAddresses() {
			if v, err := a.ValueForProtocol(ma.P_TCP); err == nil {
				tcp = v
			}
		}
		return []string{strings.TrimSpace(string(kept)), tcp}
	}
	first, second := ports(), ports()
	if diff := cmp.Diff(first, second); diff != "" || first[0] != first[1] {
		t.Errorf("ports of two runs (kept, listening): %v, %v", first, second)
	}
	if p, _ := strconv.Atoi(first[0]); p < portMin || p > portMax {
		t.Errorf("port %s is not between %d and %d", first[0], portMin, portMax)
	}
	if err := os.WriteFile(filepath.Join(dir, "port"), []byte("none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := New(t.Context(), Config{Dir: dir, NoDHT: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "port")) {
		t.Errorf("Run with a port file that holds no port = %v, want an error that names it", err)
	}
}

func TestListenNamesTheAddressThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := loopback(l.Addr().(*net.TCPAddr).Port)
	n, err := New(t.Context(), Config{Listen: taken, NoDHT: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), taken[0].String()) {
		t.Errorf("Run on a taken port = %v, want an error that names %s", err, taken[0])
	}
}

func TestTwoPeersCantShareAPort(t *testing.T) {
	addr := loopback(port(t))
	start(t, Config{Listen: addr, NoDHT: true})
	second, err := New(t.Context(), Config{Listen: addr, NoDHT: true})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.Run(t.Context()); !errors.Is(err, ErrListen) {
		t.Errorf("a second peer on %s: Run = %v, want ErrListen", addr[0], err)
	}
}

func TestNewLeavesNothingBehindWhenItFails(t *testing.T) {
	dir := t.TempDir()
	first, err := New(t.Context(), Config{Dir: dir, Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Config{Dir: dir, Offline: true}); !errors.Is(err, ErrHomeLocked) {
		t.Fatalf("second New on one home = %v, want ErrHomeLocked", err)
	}
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "identity.key")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(t.Context(), Config{Dir: dir, Offline: true}); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("New with a corrupt key = %v, want an error that names %s", err, path)
	}
	if left, _ := os.ReadFile(path); !bytes.Equal(left, whole[:20]) {
		t.Error("the corrupt key was replaced")
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := New(t.Context(), Config{Dir: dir, Offline: true})
	if err != nil {
		t.Fatalf("New after the key was mended = %v: was the lock left behind?", err)
	}
	n.Close()
}

const echo = "/test/echo/1"

func TestHandlerEndsWithRun(t *testing.T) {
	server, err := New(t.Context(), Config{Listen: loopback(0), NoDHT: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	entered, left := make(chan struct{}), make(chan struct{})
	server.Handle(echo, HandlerConfig{}, func(ctx context.Context, s network.Stream) error {
		close(entered)
		defer close(left)
		_, err := io.Copy(io.Discard, s) // until the stream is reset
		return err
	})
	stop := run(t, server)
	client, _ := start(t, Config{NoDHT: true})
	s := openEcho(t, client, server)
	defer s.Reset()
	<-entered
	stop()
	select {
	case <-left:
	default:
		t.Error("Run returned before the handler had")
	}
}

func openEcho(t *testing.T, client, server *Node) network.Stream {
	t.Helper()
	if err := client.Connect(t.Context(), server.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	s, err := client.Open(t.Context(), server.ID(), echo, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte{1}); err != nil { // the negotiation is lazy
		t.Fatal(err)
	}
	return s
}

func TestStreamsOfOnePeerAreBounded(t *testing.T) {
	server, err := New(t.Context(), Config{Listen: loopback(0), NoDHT: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	server.Handle(echo, HandlerConfig{PerPeer: 2}, func(_ context.Context, s network.Stream) error {
		_, err := io.Copy(s, s)
		return err
	})
	run(t, server)
	client, _ := start(t, Config{NoDHT: true})
	answers := func(s network.Stream) bool {
		_, err := io.ReadFull(s, make([]byte, 1))
		return err == nil
	}
	first, second := openEcho(t, client, server), openEcho(t, client, server)
	if !answers(first) || !answers(second) {
		t.Fatal("a stream within the bound is not served")
	}
	if third := openEcho(t, client, server); answers(third) {
		t.Error("a third stream is served, and two are allowed")
	}
	first.Close()
	io.Copy(io.Discard, first) // until the server has closed it, too
	// Leaving the count comes just after the close: ask until it has.
	deadline := time.Now().Add(10 * time.Second)
	for !answers(openEcho(t, client, server)) {
		if time.Now().After(deadline) {
			t.Fatal("no stream is served after one was closed")
		}
	}
	other, _ := start(t, Config{NoDHT: true})
	if !answers(openEcho(t, other, server)) {
		t.Error("another peer is not served")
	}
}

func TestLoopbackAddressesAreToldOnlyWhereThereIsNothingElse(t *testing.T) {
	addrs := func(s ...string) []ma.Multiaddr {
		var out []ma.Multiaddr
		for _, a := range s {
			out = append(out, ma.StringCast(a))
		}
		return out
	}
	for _, test := range []struct{ in, want []ma.Multiaddr }{
		{addrs("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"), addrs("/ip4/10.0.0.1/tcp/1")},
		{addrs("/ip6/::1/tcp/1", "/ip4/44.0.0.1/udp/1/quic-v1"), addrs("/ip4/44.0.0.1/udp/1/quic-v1")},
		{addrs("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"), addrs("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1")},
		{nil, nil},
	} {
		got := preferNonLoopback(test.in)
		if len(got) != len(test.want) {
			t.Errorf("preferNonLoopback(%v) = %v, want %v", test.in, got, test.want)
			continue
		}
		for i := range got {
			if !got[i].Equal(test.want[i]) {
				t.Errorf("preferNonLoopback(%v) = %v, want %v", test.in, got, test.want)
			}
		}
	}
}
