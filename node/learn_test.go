package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

// listenWith answers each connection to a port of 127.0.0.1 with fn until the
// test ends. A connection is closed when its fn returns.
func listenWith(t *testing.T, fn func(net.Conn)) peer.AddrInfo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn // guarded by mu
	var answering sync.WaitGroup
	answering.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			answering.Go(func() {
				defer c.Close()
				fn(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		answering.Wait()
	})
	return unknownAt(l.Addr().(*net.TCPAddr).Port)
}

func unknownAt(port int) peer.AddrInfo { return peer.AddrInfo{Addrs: loopback(port)} }

// unknown is n as a person knows it who has only its address.
func unknown(n *Node) peer.AddrInfo { return peer.AddrInfo{Addrs: n.Addrs()} }

// untilClosed reads until the other side closes.
func untilClosed(c net.Conn) { io.Copy(io.Discard, c) }

// offering answers multistream-select with the one protocol, and goes on with fn.
func offering(id protocol.ID, fn func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		mux := multistream.NewMultistreamMuxer[protocol.ID]()
		mux.AddHandler(id, nil)
		if _, _, err := mux.Negotiate(c); err == nil {
			fn(c)
		}
		untilClosed(c)
	}
}

// asPeer answers as a libp2p peer with that key.
func asPeer(t *testing.T, key crypto.PrivKey) func(net.Conn) {
	t.Helper()
	security, err := libp2ptls.New(libp2ptls.ID, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return offering(libp2ptls.ID, func(c net.Conn) { security.SecureInbound(context.Background(), c, "") })
}

// withCertificate answers with TLS as a web server does. padding is the length
// of an extension of the certificate.
func withCertificate(t *testing.T, padding int) func(net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, padding)}}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
	return func(c net.Conn) { tls.Server(c, config).Handshake() }
}

// forever sends text again and again.
func forever(text string) func(net.Conn) {
	return func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

func learner(t *testing.T) *Node {
	t.Helper()
	n, _ := start(t, Config{NoDHT: true})
	return n
}

func TestLearnTellsWhoListens(t *testing.T) {
	n, other := learner(t), learner(t)
	port, err := other.Addrs()[0].ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{"/ip4/127.0.0.1/tcp/", "/dns4/localhost/tcp/", "/dns/localhost/tcp/"} {
		addr := ma.StringCast(form + port)
		p, err := n.Learn(t.Context(), peer.AddrInfo{Addrs: []ma.Multiaddr{addr, ma.StringCast("/ip4/192.0.2.1/tcp/1")}})
		if err != nil {
			t.Errorf("Learn(%s): %v", addr, err)
			continue
		}
		if p.ID != other.ID() || len(p.Addrs) != 1 || !p.Addrs[0].Equal(addr) {
			t.Errorf("Learn(%s) = %v, want %s there", addr, p, other.ID())
		}
	}
}

func TestConnectLearnsAPeerWithoutID(t *testing.T) {
	n, other := learner(t), learner(t)
	if err := n.Connect(t.Context(), unknown(other)); err != nil {
		t.Fatalf("Connect(%s): %v", other.Addrs()[0], err)
	}
	if conns := n.Conns(); len(conns) != 1 || conns[0].Peer != other.ID() {
		t.Errorf("Conns = %+v, want one to %s", conns, other.ID())
	}
	if err := n.Connect(t.Context(), unknownAt(port(t))); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Connect to a closed port = %v, want %v", err, syscall.ECONNREFUSED)
	}
}

func TestLearnReturnsAKnownPeerAsItIs(t *testing.T) {
	n := learner(t)
	for _, addrs := range [][]ma.Multiaddr{nil, loopback(1), {ma.StringCast("/dnsaddr/example.org")}} {
		p := peer.AddrInfo{ID: n.ID(), Addrs: addrs}
		got, err := n.Learn(t.Context(), p)
		if err != nil || got.ID != p.ID || len(got.Addrs) != len(addrs) {
			t.Errorf("Learn(%v) = %v, %v, want it as it is", p, got, err)
		}
	}
}

func TestLearnDialsPlainTCPOnly(t *testing.T) {
	n := learner(t)
	for _, a := range []string{"/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/127.0.0.1/tcp/1/ws",
		"/dnsaddr/localhost", "/unix/a", "/ip6zone/lo/ip6/fe80::1/tcp/1", "/tcp/1", "/ip4/127.0.0.1/tcp/1/p2p/" + n.ID().String() + "/p2p-circuit"} {
		if got, err := n.Learn(t.Context(), peer.AddrInfo{Addrs: []ma.Multiaddr{ma.StringCast(a)}}); err == nil || !strings.Contains(err.Error(), a) {
			t.Errorf("Learn(%s) = %v, %v, want an error that names it", a, got, err)
		}
	}
	if got, err := n.Learn(t.Context(), peer.AddrInfo{}); err == nil {
		t.Errorf("Learn of no address = %v, want an error", got)
	}
}

func TestLearnTellsWhatListensInstead(t *testing.T) {
	rsa, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	header := "\x13/multistream/1.0.0\n"
	n := learner(t)
	for _, tt := range []struct {
		what   string
		answer func(net.Conn)
		why    string
	}{
		{"an SSH server, which greets and waits", func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n"); untilClosed(c) }, "does not speak libp2p"},
		{"a web server", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); untilClosed(c) }, "does not speak libp2p"},
		{"endless noughts", forever("\x00"), "does not speak libp2p"},
		{"endless garbage", forever("lorem ipsum\n"), "does not speak libp2p"},
		{"endless headers", forever(header), "does not offer libp2p's /tls/1.0.0"},
		{"a protocol name without end", forever(header + "\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "does not offer libp2p's /tls/1.0.0"},
		{"a libp2p peer without TLS", offering(noise.ID, untilClosed), "does not offer libp2p's /tls/1.0.0"},
		{"endless garbage after the negotiation", offering(libp2ptls.ID, forever("lorem ipsum\n")), "no libp2p handshake"},
		{"TLS with a certificate that is no peer's", offering(libp2ptls.ID, withCertificate(t, 0)), "no libp2p handshake"},
		{"TLS with a huge certificate", offering(libp2ptls.ID, withCertificate(t, 2*learnBytesMax)), "more than 16384 bytes"},
		{"a peer with an RSA key", asPeer(t, rsa), "not an Ed25519 key"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			at := listenWith(t, tt.answer)
			got, err := n.Learn(t.Context(), at)
			if !errors.Is(err, ErrNotPeer) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("Learn = %v, %v, want ErrNotPeer because %q", got, err, tt.why)
			}
			if _, address, _ := learnableAt(at.Addrs[0]); err != nil && !strings.HasPrefix(err.Error(), "learn who is at "+address+": ") {
				t.Errorf("Learn: %v, want an error that begins with %s", err, address)
			}
		})
	}
}

func TestLearnTellsWhenNothingListens(t *testing.T) {
	free := port(t)
	_, err := learner(t).Learn(t.Context(), unknownAt(free))
	if want := fmt.Sprintf("learn who is at 127.0.0.1:%d: connection refused", free); err == nil || !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != want {
		t.Errorf("Learn = %v, want %s", err, want)
	}
	_, err = learner(t).Learn(t.Context(), peer.AddrInfo{Addrs: []ma.Multiaddr{ma.StringCast("/dns/name.invalid/tcp/1")}})
	if err == nil || !strings.HasPrefix(err.Error(), "learn who is at name.invalid:1: ") || errors.Is(err, ErrNotPeer) {
		t.Errorf("Learn of a name that does not exist = %v", err)
	}
}

// Hanging up is what many servers do with what they don't understand, and what a
// peer does that has connections enough.
func TestLearnTellsWhenItIsHungUpOn(t *testing.T) {
	n := learner(t)
	for what, answer := range map[string]func(net.Conn){
		"at once":               func(net.Conn) {},
		"a web server with TLS": withCertificate(t, 0),
		"after the negotiation": offering(libp2ptls.ID, func(c net.Conn) { c.Close() }),
	} {
		t.Run(what, func(t *testing.T) {
			got, err := n.Learn(t.Context(), listenWith(t, answer))
			if err == nil || !strings.Contains(err.Error(), "whoever listens there hung up") || errors.Is(err, ErrNotPeer) {
				t.Errorf("Learn = %v, %v, want that it hung up", got, err)
			}
		})
	}
}

func TestLearnRefusesItself(t *testing.T) {
	n := learner(t)
	for range 2 { // asked, and remembered
		if got, err := n.Learn(t.Context(), unknown(n)); err == nil || !strings.HasSuffix(err.Error(), "it is this peer itself") {
			t.Errorf("Learn of the own address = %v, %v, want that it is this peer itself", got, err)
		}
	}
}

func TestLearnDialsNobodyOffline(t *testing.T) {
	n, err := New(t.Context(), Config{Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	at := listenWith(t, func(net.Conn) { t.Error("an offline peer dials") })
	if got, err := n.Learn(t.Context(), at); err == nil || !strings.HasSuffix(err.Error(), "offline") {
		t.Errorf("Learn = %v, %v, want that this peer is offline", got, err)
	}
}

func TestLearnEndsWithItsContext(t *testing.T) {
	n := learner(t)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	silent := listenWith(t, func(c net.Conn) {
		cancel()
		untilClosed(c)
		close(left)
	})
	if got, err := n.Learn(ctx, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("Learn = %v, %v, want %v", got, err, context.Canceled)
	}
	<-left
	at := listenWith(t, untilClosed)
	if got, err := n.Learn(ctx, at); !errors.Is(err, context.Canceled) {
		t.Errorf("Learn with a context that was cancelled before = %v, %v, want %v", got, err, context.Canceled)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	got, err := n.Learn(ctx, at)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasSuffix(err.Error(), ": timed out") {
		t.Errorf("Learn with a deadline, of a server that says nothing = %v, %v, want that it timed out", got, err)
	}
}

func TestLearnHasADeadlineOfItsOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes learnMax")
	}
	t.Parallel()
	n := learner(t)
	var callers sync.WaitGroup
	defer callers.Wait()
	for what, answer := range map[string]func(net.Conn){
		"says nothing": untilClosed,
		"says what it must, a byte a second": func(c net.Conn) {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for _, b := range []byte(multistreamHeader) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				<-tick.C
			}
		},
		"stops in the handshake": offering(libp2ptls.ID, untilClosed),
	} {
		at := listenWith(t, answer)
		callers.Go(func() {
			begun := time.Now()
			got, err := n.Learn(t.Context(), at)
			if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took < learnMax || took > 2*learnMax {
				t.Errorf("Learn of a server that %s = %v, %v after %s, want that it timed out after %s", what, got, err, took, learnMax)
			}
		})
	}
}

func TestLearnRemembersAndSharesItsAnswer(t *testing.T) {
	n := learner(t)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var conns atomic.Int32
	answer := asPeer(t, key)
	at := listenWith(t, func(c net.Conn) {
		conns.Add(1)
		answer(c)
	})
	var answers [8]peer.AddrInfo
	var callers sync.WaitGroup
	for i := range answers {
		callers.Go(func() {
			p, err := n.Learn(t.Context(), at)
			if err != nil {
				t.Errorf("Learn: %v", err)
				return
			}
			p.Addrs[0] = nil // it is the caller's own
			answers[i] = p
		})
	}
	callers.Wait()
	for _, p := range answers {
		if !p.ID.MatchesPrivateKey(key) {
			t.Errorf("Learn = %v, want the peer there", p)
		}
	}
	if p, err := n.Learn(t.Context(), at); err != nil || len(p.Addrs) != 1 || !p.Addrs[0].Equal(at.Addrs[0]) {
		t.Errorf("Learn again = %v, %v, want the address of %v", p, err, at)
	}
	if got := conns.Load(); got != 1 {
		t.Errorf("%d connections for one address, want 1", got)
	}
}

func TestLearnAsksAgainWhenAnotherCallerGaveUp(t *testing.T) {
	n := learner(t)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	answer := asPeer(t, key)
	var conns atomic.Int32
	first := make(chan struct{})
	at := listenWith(t, func(c net.Conn) {
		if conns.Add(1) == 1 {
			close(first)
			untilClosed(c)
			return
		}
		answer(c)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	callers.Go(func() {
		if got, err := n.Learn(ctx, at); !errors.Is(err, context.Canceled) {
			t.Errorf("Learn that was cancelled = %v, %v", got, err)
		}
	})
	<-first
	waits := make(chan struct{})
	callers.Go(func() {
		close(waits)
		if got, err := n.Learn(t.Context(), at); err != nil || !got.ID.MatchesPrivateKey(key) {
			t.Errorf("Learn beside one that was cancelled = %v, %v, want the peer", got, err)
		}
	})
	<-waits
	cancel()
	callers.Wait()
}

func TestLearntForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l learnt
		asked := 0
		who := func(address string) {
			t.Helper()
			id, err := l.who(t.Context(), address, func() (peer.ID, error) { asked++; return peer.ID(address), nil })
			if err != nil || id != peer.ID(address) {
				t.Fatalf("who(%s) = %q, %v", address, id, err)
			}
		}
		want := func(n int, when string) {
			t.Helper()
			if asked != n {
				t.Errorf("asked %d times %s, want %d", asked, when, n)
			}
		}
		for i := range learntMax {
			who(fmt.Sprint(i))
			time.Sleep(time.Millisecond)
		}
		who("0")
		want(learntMax, "for as many addresses as are remembered")
		who("one more")
		who("1")
		want(learntMax+1, "after one more")
		who("0")
		want(learntMax+2, "after the oldest had to give way")
		time.Sleep(learntFor)
		who("one more")
		want(learntMax+3, "after the answers have expired")
		if len(l.answers) > learntMax || len(l.asking) != 0 {
			t.Errorf("%d answers and %d questions are kept, want %d and 0", len(l.answers), len(l.asking), learntMax)
		}
		refused := errors.New("refused")
		for range 2 {
			if id, err := l.who(t.Context(), "nobody", func() (peer.ID, error) { asked++; return "", refused }); id != "" || err != refused {
				t.Errorf("who = %q, %v, want the error", id, err)
			}
		}
		want(learntMax+5, "when there was no answer to remember")
	})
}
