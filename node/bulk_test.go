package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// echoStream answers what comes until the other side closes or resets.
func echoStream(_ context.Context, s Stream) error {
	_, err := io.Copy(s, s)
	return err
}

// startBulk runs a server of echo, and a client that is connected to it.
func startBulk(t *testing.T, c HandlerConfig, fn func(context.Context, Stream) error) (server, client *Node, stop func()) {
	t.Helper()
	server, err := New(t.Context(), Config{Listen: loopback(0), NoDHT: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	server.HandleBulk(echo, c, c, fn)
	stop = run(t, server)
	client, _ = start(t, Config{NoDHT: true})
	if err := client.Connect(t.Context(), server.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	return server, client, stop
}

func openBulk(t *testing.T, client *Node, p peer.ID) Stream {
	t.Helper()
	s, err := client.OpenBulk(t.Context(), p, echo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Reset() })
	if err := errors.Join(s.SetReadDeadline(time.Now().Add(20*time.Second)), s.SetWriteDeadline(time.Now().Add(20*time.Second))); err != nil {
		t.Fatal(err)
	}
	return s
}

// answers tells whether one byte comes back.
func answers(s Stream) bool {
	b := []byte{7}
	_, err := s.Write(b)
	if err == nil {
		_, err = io.ReadFull(s, b)
	}
	return err == nil && b[0] == 7
}

func TestBulkConnectionCarriesBytesBothWays(t *testing.T) {
	from := make(chan peer.ID, 1)
	server, client, _ := startBulk(t, HandlerConfig{}, func(ctx context.Context, s Stream) error {
		from <- s.Peer()
		return echoStream(ctx, s)
	})
	s := openBulk(t, client, server.ID())
	data := make([]byte, 10<<20)
	rand.Read(data)
	sent := make(chan error, 1)
	go func() {
		var errs []error
		for rest, n := data, 1; len(rest) > 0; n = n*3 + 1 { // from single bytes to megabytes
			n = min(n, len(rest))
			_, err := s.Write(rest[:n])
			errs = append(errs, err)
			rest = rest[n:]
		}
		sent <- errors.Join(errs...)
	}()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("what came back is not what was sent: %v", err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if p := <-from; p != client.ID() || s.Peer() != server.ID() || s.Via() != ViaLAN {
		t.Errorf("the server sees %s, the client %s over %s", p, s.Peer(), s.Via())
	}
	s.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := s.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read after the deadline = %v", err)
	}
	s.SetReadDeadline(time.Now().Add(20 * time.Second))
	if !answers(s) {
		t.Error("a deadline that has passed is the connection's end")
	}
	// What is idle keeps no buffers.
	if below := s.(*bulkConn).below; below.buf != nil || below.out != nil {
		t.Error("an idle connection holds its buffers")
	}
}

func TestHandlerOfABulkConnectionEndsWithRun(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	server, client, stop := startBulk(t, HandlerConfig{}, func(_ context.Context, s Stream) error {
		close(entered)
		defer close(left)
		_, err := io.Copy(io.Discard, s)
		return err
	})
	openBulk(t, client, server.ID())
	<-entered
	stop()
	select {
	case <-left:
	default:
		t.Error("Run returned before the handler had")
	}
}

func TestBulkConnectionsOfOnePeerAreBounded(t *testing.T) {
	server, client, _ := startBulk(t, HandlerConfig{PerPeer: 2}, echoStream)
	first, second := openBulk(t, client, server.ID()), openBulk(t, client, server.ID())
	if !answers(first) || !answers(second) {
		t.Fatal("a connection within the bound is not served")
	}
	if answers(openBulk(t, client, server.ID())) {
		t.Error("a third connection is served, and two are allowed")
	}
	first.Close()
	// Leaving the count comes after the close: ask until it has.
	deadline := time.Now().Add(10 * time.Second)
	for !answers(openBulk(t, client, server.ID())) {
		if time.Now().After(deadline) {
			t.Fatal("no connection is served after one was closed")
		}
	}
}

func TestBulkConnectionIsToTheRightPeerOnly(t *testing.T) {
	server, client, _ := startBulk(t, HandlerConfig{}, echoStream)
	other, _ := start(t, Config{NoDHT: true})
	if c, err := client.bulk.dial(t.Context(), other.ID(), echo, server.Addrs()[0]); err == nil {
		t.Errorf("a connection to %s was opened to %s", other.ID(), c.Peer())
	}
	if c, err := client.bulk.dial(t.Context(), server.ID(), "/test/unknown/1", server.Addrs()[0]); err == nil {
		t.Errorf("a connection with an unknown protocol was opened to %s", c.Peer())
	}
}

// TestBulkConnectionWithoutAProtocolIsRefused has a peer that is connected shake
// hands and name no protocol, which TLS lets pass.
func TestBulkConnectionWithoutAProtocolIsRefused(t *testing.T) {
	server, client, _ := startBulk(t, HandlerConfig{}, echoStream)
	_, host, err := manet.DialArgs(server.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	config, _ := client.bulk.identity.ConfigForPeer(server.ID())
	config.NextProtos = nil
	s := tls.Client(c, config)
	if err := errors.Join(s.SetDeadline(time.Now().Add(20*time.Second)), s.Handshake()); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %d, %v, want an end", n, err)
	}
	if !answers(openBulk(t, client, server.ID())) {
		t.Error("another connection is not served")
	}
}

func TestBulkConnectionNeedsOneOfLibp2p(t *testing.T) {
	server, client, _ := startBulk(t, HandlerConfig{}, echoStream)
	stranger, _ := start(t, Config{NoDHT: true})
	c, err := stranger.bulk.dial(t.Context(), server.ID(), echo, server.Addrs()[0])
	if err == nil {
		defer c.Reset()
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if answers(c) {
			t.Error("a peer that is not connected is served")
		}
	}
	if !answers(openBulk(t, client, server.ID())) {
		t.Error("a peer that is connected is not served")
	}
}

func TestThereIsNoBulkConnectionWithoutTCP(t *testing.T) {
	server, err := New(t.Context(), Config{Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")}, NoDHT: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	server.HandleBulk(echo, HandlerConfig{}, HandlerConfig{}, echoStream)
	run(t, server)
	client, _ := start(t, Config{NoDHT: true})
	if err := client.Connect(t.Context(), server.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.OpenBulk(t.Context(), server.ID(), echo); !errors.Is(err, ErrNoBulk) {
		t.Errorf("OpenBulk = %v, want ErrNoBulk", err)
	}
	if _, err := client.OpenBulk(t.Context(), client.ID(), echo); !errors.Is(err, ErrNoBulk) {
		t.Errorf("OpenBulk to a peer that is not connected = %v, want ErrNoBulk", err)
	}
}

func TestEveryListenerTakesBulkConnections(t *testing.T) {
	any := loopback(0)[0]
	server, err := New(t.Context(), Config{Listen: []ma.Multiaddr{any, any, any}, NoDHT: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	server.HandleBulk(echo, HandlerConfig{}, HandlerConfig{}, echoStream)
	run(t, server)
	addrs := server.Addrs()
	if len(addrs) != 3 {
		t.Fatalf("it listens on %v, want three ports", addrs)
	}
	for _, a := range addrs {
		client, _ := start(t, Config{NoDHT: true})
		if err := client.Connect(t.Context(), peer.AddrInfo{ID: server.ID(), Addrs: []ma.Multiaddr{a}}); err != nil {
			t.Fatal(err)
		}
		if !answers(openBulk(t, client, server.ID())) {
			t.Errorf("no bulk connection at %s", a)
		}
	}
}

// A peer that was dialled by the other side is asked at the port that it has
// told, and nowhere but on its own host.
func TestBulkAddressIsOnThePeersOwnHost(t *testing.T) {
	server, err := New(t.Context(), Config{Listen: loopback(0), NoDHT: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	server.HandleBulk(echo, HandlerConfig{}, HandlerConfig{}, echoStream)
	run(t, server)
	getter, _ := start(t, Config{NoDHT: true})
	if err := server.Connect(t.Context(), getter.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	store := getter.host.Peerstore()
	store.ClearAddrs(server.ID()) // and what identify says later comes beside what is set here
	store.AddAddr(server.ID(), ma.StringCast("/ip4/192.0.2.7/tcp/80"), time.Hour)
	store.AddAddr(server.ID(), server.Addrs()[0], time.Hour)
	if a := getter.bulk.addrOf(server.ID()); a == nil || !a.Equal(server.Addrs()[0]) {
		t.Errorf("address for bulk connections is %v, want %v", a, server.Addrs()[0])
	}
	if !answers(openBulk(t, getter, server.ID())) {
		t.Error("the peer that dialled does not answer")
	}
}

func TestHandshakesThatDoNotEndAreBounded(t *testing.T) {
	server, client, _ := startBulk(t, HandlerConfig{}, echoStream)
	network, address, err := manet.DialArgs(server.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	const more = 8
	ended := make(chan error, handshakesPerAddress+more)
	var conns []net.Conn
	for range handshakesPerAddress + more {
		c, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte{0x16, 3, 1}); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
	}
	start := time.Now()
	for range more {
		<-ended
	}
	if took := time.Since(start); took >= bulkAcceptTimeout {
		t.Errorf("those too many were ended after %s, want at once", took)
	}
	for _, c := range conns {
		c.Close()
	}
	for range handshakesPerAddress {
		<-ended
	}
	deadline := time.Now().Add(bulkAcceptTimeout + 5*time.Second)
	for {
		s, err := client.OpenBulk(t.Context(), server.ID(), echo)
		if err == nil {
			defer s.Reset()
			s.SetReadDeadline(deadline)
			if answers(s) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no handshake succeeds after those: %v", err)
		}
	}
}

func TestHandshakeThatDoesNotEndIsCut(t *testing.T) {
	server, _, _ := startBulk(t, HandlerConfig{}, echoStream)
	network, address, err := manet.DialArgs(server.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(4 * bulkAcceptTimeout))
	if _, err := c.Write([]byte{0x16, 3, 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a handshake that does not go on is waited for")
	}
}

// tlsPair is a TLS connection over two recordConns.
func tlsPair(t *testing.T) (a, b *bulkConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	greet := func(c net.Conn, side func(net.Conn, *tls.Config) *tls.Conn) *bulkConn {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Error(err)
			return nil
		}
		identity, err := libp2ptls.NewIdentity(key)
		if err != nil {
			t.Error(err)
			return nil
		}
		config, keys := identity.ConfigForPeer("")
		below := &recordConn{Conn: c}
		conn, err := newBulkConn(t.Context(), below, side(below, tuned(config)), keys)
		if err != nil {
			t.Error(err)
		}
		return conn
	}
	done := make(chan *bulkConn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			done <- nil
			return
		}
		done <- greet(c, tls.Server)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a = greet(c, tls.Client)
	if b = <-done; a == nil || b == nil {
		t.FailNow()
	}
	t.Cleanup(func() { a.Reset(); b.Reset() })
	return a, b
}

// Writes of several goroutines do not mix, whatever is gathered.
func TestGatheredWritesStayWhole(t *testing.T) {
	a, b := tlsPair(t)
	const messages, writers = 40, 3
	var want [writers]byte
	sent := make(chan error, writers)
	for w := range writers {
		want[w] = byte(w + 1)
		go func() {
			var err error
			for i := range messages {
				size := 1 << (10 + i%11) // 1 KiB to 1 MiB: TLS writes each in one go
				if _, e := a.Write(bytes.Repeat([]byte{want[w]}, size)); e != nil {
					err = e
				}
			}
			sent <- err
		}()
	}
	var total int
	for i := range messages {
		total += writers << (10 + i%11)
	}
	counts := map[byte]int{}
	buf := make([]byte, 300_000)
	b.SetReadDeadline(time.Now().Add(30 * time.Second))
	for got := 0; got < total; {
		n, err := b.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range buf[:n] {
			counts[c]++
		}
		got += n
	}
	for range writers {
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
	for _, c := range want {
		if counts[c] != total/writers {
			t.Errorf("%d bytes of writer %d came, want %d", counts[c], c, total/writers)
		}
	}
}

func TestSecuredStreamIsWhole(t *testing.T) {
	server, err := New(t.Context(), Config{Listen: loopback(0), NoDHT: true, NoMulticast: true})
	if err != nil {
		t.Fatal(err)
	}
	sums := make(chan [32]byte, 1)
	server.Handle(echo, HandlerConfig{}, func(_ context.Context, s network.Stream) error {
		h := sha256.New()
		_, err := io.Copy(h, s)
		sums <- [32]byte(h.Sum(nil))
		return err
	})
	run(t, server)
	client, _ := start(t, Config{NoDHT: true})
	if err := client.Connect(t.Context(), server.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	s, err := client.Open(t.Context(), server.ID(), echo, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 20<<20)
	rand.Read(data)
	for rest, n := data, 1; len(rest) > 0; n = n*2 + 1 {
		n = min(n, len(rest))
		if _, err := s.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	s.CloseWrite()
	if got := <-sums; got != sha256.Sum256(data) {
		t.Error("what was sent over a libp2p stream is not what came")
	}
}
