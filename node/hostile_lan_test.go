package node

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node/internal/lan"
)

// attacker is somebody on loopback who has the group's traffic and a socket,
// and signs what he likes with a key of his own.
type attacker struct {
	t    *testing.T
	conn *net.UDPConn // its own: answers come here
	to   netip.AddrPort
	key  crypto.PrivKey
	n    int64
}

func newAttacker(t *testing.T, port int) *attacker {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &attacker{t: t, conn: c, to: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), key: key}
}

func (a *attacker) id() peer.ID {
	id, err := peer.IDFromPrivateKey(a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

// send sends raw bytes to the only peer that has the port.
func (a *attacker) send(data []byte) {
	a.t.Helper()
	if _, err := a.conn.WriteToUDPAddrPort(data, a.to); err != nil {
		a.t.Fatal(err)
	}
}

// say sends a datagram that it signs.
func (a *attacker) say(p presence) {
	a.t.Helper()
	a.n++
	if p.N == 0 {
		p.N = a.n
	}
	if p.Boot == 0 {
		p.Boot = 1
	}
	data, err := p.seal(a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.send(data)
}

// answer returns the next answer, and how long it is.
func (a *attacker) answer() (peer.ID, presence, int) {
	a.t.Helper()
	buf := make([]byte, 2*lan.DatagramMax)
	a.conn.SetReadDeadline(time.Now().Add(lanWait))
	n, _, err := a.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		a.t.Fatal(err)
	}
	id, p, err := openPresence(buf[:n])
	if err != nil {
		a.t.Fatalf("the answer %q: %v", buf[:n], err)
	}
	return id, p, n
}

// silence checks that what was sent before is not answered: a question that is
// answered follows, and its answer is the next thing that comes.
func (a *attacker) silence(what string) {
	a.t.Helper()
	const mark = "00000000deadbeef"
	a.say(presence{Type: presenceHello, Ask: mark, Boot: int64(1000 + a.n)}) // a new life: answered at once
	if _, p, _ := a.answer(); p.Echo != echoOf(mark, a.id()) {
		a.t.Errorf("%s is answered with %+v", what, p)
	}
}

var attackerAddrs = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/6666")}

func TestForgedAndReplayedDatagramsChangeNothing(t *testing.T) {
	port := lanPort(t)
	victim := onLAN(t, port, Config{})
	eve := newAttacker(t, port)

	// A stranger is answered once, with a nonce to echo, and is no neighbor.
	eve.say(presence{Type: presenceHello, Addrs: attackerAddrs, Ask: "0011"})
	_, p, _ := eve.answer()
	if p.Echo != echoOf("0011", eve.id()) || p.Ask == "" {
		t.Fatalf("the answer to a stranger's hello = %+v, want an echo and a nonce", p)
	}
	if got := victim.Neighbors(); len(got) != 0 {
		t.Fatalf("neighbors = %v before anything was proved", got)
	}

	// Neither a made-up echo nor one in another's name brings anybody in.
	eve.say(presence{Type: presenceHere, Addrs: attackerAddrs, Echo: "0123456789abcdef"})
	real := presence{Type: presenceHere, Addrs: attackerAddrs, Echo: echoOf(p.Ask, victim.ID()), Boot: 1, N: 500}
	data, err := real.seal(eve.key)
	if err != nil {
		t.Fatal(err)
	}
	e, err := DecodeEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	e.Sender = victimOf(t)
	eve.send(e.Encode())
	e.Sender = eve.id()
	e.Signature[0] ^= 1
	eve.send(e.Encode())
	eve.send(data[:len(data)-1])
	eve.send(append(slices.Clone(data), "{}"...))
	eve.silence("a forged datagram")
	if got := victim.Neighbors(); len(got) != 0 {
		t.Fatalf("neighbors = %v after forged datagrams", got)
	}

	// The true one does, and says goodbye; recorded and sent again it does not.
	eve.send(data)
	awaitNeighbors(t, victim, "the attacker", hasNeighbor(eve.id()))
	bye, err := presence{Type: presenceBye, Boot: 1, N: 501}.seal(eve.key)
	if err != nil {
		t.Fatal(err)
	}
	eve.send(bye)
	awaitNeighbors(t, victim, "nobody", func(all []Neighbor) bool { return len(all) == 0 })
	eve.send(data)
	eve.silence("a recorded echo")
	if got := victim.Neighbors(); len(got) != 0 {
		t.Errorf("neighbors = %v after a recorded echo", got)
	}

	// While it is there, its own recorded goodbye from before does not remove it.
	again, err := presence{Type: presenceHere, Addrs: attackerAddrs, Echo: echoOf(p.Ask, victim.ID()), Boot: 1, N: 502}.seal(eve.key)
	if err != nil {
		t.Fatal(err)
	}
	eve.send(again)
	awaitNeighbors(t, victim, "the attacker", hasNeighbor(eve.id()))
	eve.send(bye)
	eve.silence("a recorded goodbye")
	if got := victim.Neighbors(); len(got) != 1 {
		t.Errorf("neighbors = %v after a recorded goodbye, want the attacker", got)
	}
}

// A nonce is for the one who was asked, where he was asked, and its echo for the
// one who asks.
func TestANonceServesOneIdentityOnly(t *testing.T) {
	port, far := lanPort(t), lanPort(t)
	victim, zoe := onLAN(t, port, Config{}), onLAN(t, far, Config{})
	eve := newAttacker(t, port)
	eve.say(presence{Type: presenceHello, Addrs: attackerAddrs, Ask: "0011"})
	_, p, _ := eve.answer()
	for i := range 20 { // others, who were not asked
		newAttackerAt(t, port, fmt.Sprintf("127.0.1.%d", i+1)).say(
			presence{Type: presenceHere, Addrs: attackerAddrs, Echo: echoOf(p.Ask, victim.ID())})
	}
	// A peer of another network, who is made to sign an echo of a nonce of ours.
	there := newAttacker(t, far)
	there.say(presence{Type: presenceHello, Addrs: attackerAddrs, Ask: p.Ask})
	buf := make([]byte, 2*lan.DatagramMax)
	there.conn.SetReadDeadline(time.Now().Add(lanWait))
	n, err := there.conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := openPresence(buf[:n]); err != nil || id != zoe.ID() {
		t.Fatalf("%s answers there: %v", id, err)
	}
	eve.send(buf[:n])
	eve.say(presence{Type: presenceHere, Addrs: attackerAddrs, Echo: echoOf(p.Ask, victim.ID())})
	got := awaitNeighbors(t, victim, "the attacker", hasNeighbor(eve.id()))
	if len(got) != 1 {
		t.Errorf("neighbors = %v, want the one who was asked", got)
	}
}

// victimOf is an identity that the attacker has no key of.
func victimOf(t *testing.T) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(envelopeKey(t, 9))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestOnlyOnLinkAddressesAreTakenFromANeighbor(t *testing.T) {
	port := lanPort(t)
	victim := onLAN(t, port, Config{})
	eve := newAttacker(t, port)
	eve.say(presence{Type: presenceHello, Addrs: attackerAddrs, Ask: "0011"})
	_, p, _ := eve.answer()
	eve.say(presence{Type: presenceHere, Echo: echoOf(p.Ask, victim.ID()), Addrs: []ma.Multiaddr{
		ma.StringCast("/ip4/8.8.8.8/tcp/53"), ma.StringCast("/ip4/10.0.0.1/tcp/22"), ma.StringCast("/dns/example.org/tcp/443"),
		ma.StringCast("/ip6/::1/tcp/1"), ma.StringCast("/ip4/127.0.0.1/udp/53"), ma.StringCast("/unix/tmp/x"),
		ma.StringCast("/ip4/0.0.0.0/tcp/6666"), ma.StringCast("/ip6/::/tcp/6666"),
	}})
	got := awaitNeighbors(t, victim, "the attacker", hasNeighbor(eve.id()))
	if len(got[0].Addrs) != 1 || got[0].Addrs[0].String() != "/ip4/127.0.0.1/tcp/6666" {
		t.Errorf("addresses = %v, want the datagram's source in place of the unspecified one, and no other", got[0].Addrs)
	}
}

// TestAnswersDoNotAmplify counts bytes: who sends small questions in another's
// name gets little more sent to him than he sent himself, and not often.
func TestAnswersDoNotAmplify(t *testing.T) {
	port := lanPort(t)
	victim := onLAN(t, port, Config{Alias: "a name that is as long as a name of a computer may be, sixty-four"},
		func(n *Node) { n.HandleWant(func(peer.ID, []byte) bool { return true }) })
	eve := newAttacker(t, port)
	small, err := presence{Type: presenceHello, Boot: 1, N: 1, Ask: "1"}.seal(eve.key)
	if err != nil {
		t.Fatal(err)
	}
	eve.send(small)
	if _, _, n := eve.answer(); n > 2*len(small) {
		t.Errorf("%d bytes are answered with %d", len(small), n)
	}
	wants, err := presence{Type: presenceWant, Boot: 1, N: 2, Want: make([]keyPrefix, wantMax)}.seal(eve.key)
	if err != nil {
		t.Fatal(err)
	}
	eve.send(wants)
	if _, _, n := eve.answer(); n > 2*len(wants) {
		t.Errorf("%d bytes are answered with %d", len(wants), n)
	}
	// Questions without end, each of a new life: the answers run dry.
	answers := 2
	for i := range 3 * answerBurst {
		eve.say(presence{Type: presenceHello, Ask: "1", Boot: int64(100 + i)})
	}
	buf := make([]byte, 2*lan.DatagramMax)
	for {
		eve.conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := eve.conn.Read(buf); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		answers++
	}
	if answers < answerBurst || answers > answerBurst+2*answerRate {
		t.Errorf("%d answers, want %d at once and %d a second", answers, answerBurst, answerRate)
	}
	if got := victim.Neighbors(); len(got) != 0 {
		t.Errorf("neighbors = %v", got)
	}
}

// TestFloodLeavesNeighborsAlone sends a hundred thousand datagrams of all bad
// kinds as fast as it can; a real peer comes meanwhile and is found.
func TestFloodLeavesNeighborsAlone(t *testing.T) {
	port := lanPort(t)
	victim := onLAN(t, port, Config{})
	eve := newAttacker(t, port)
	good, err := presence{Type: presenceHello, Boot: 1, N: 1, Addrs: attackerAddrs, Ask: hex.EncodeToString(make([]byte, 8))}.seal(eve.key)
	if err != nil {
		t.Fatal(err)
	}
	random := make([]byte, lan.DatagramMax)
	rand.Read(random)
	var before = victim.Neighbors()
	for i := range 100_000 {
		switch i % 5 {
		case 0:
			eve.send(good)
		case 1:
			eve.send(good[:i%len(good)])
		case 2:
			eve.send(random[:i%len(random)])
		case 3:
			forged := slices.Clone(good)
			forged[100+i%100] ^= 1
			eve.send(forged)
		case 4:
			eve.send(append(slices.Clone(good), random...))
		}
	}
	if got := victim.Neighbors(); len(got) != len(before) {
		t.Errorf("neighbors = %v after a flood, want none", got)
	}
	// All of loopback shares one source's budget here; it fills up again.
	other := onLAN(t, port, Config{})
	awaitNeighbors(t, victim, "one who came after the flood", hasNeighbor(other.ID()))
	awaitNeighbors(t, other, "the one who was flooded", hasNeighbor(victim.ID()))
}
