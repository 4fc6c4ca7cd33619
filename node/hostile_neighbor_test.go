package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

// A recorded hello, sent again from elsewhere, must not keep its signer from
// being answered.
func TestARecordedHelloDoesNotSilenceItsSender(t *testing.T) {
	port := lanPort(t)
	onLAN(t, port, Config{})
	zoe, eve := newAttacker(t, port), newAttackerAt(t, port, "127.0.0.2")
	hello, err := presence{Type: presenceHello, Boot: 1, N: 1, Addrs: attackerAddrs, Ask: "0011"}.seal(zoe.key)
	if err != nil {
		t.Fatal(err)
	}
	eve.send(hello) // recorded
	eve.answer()
	zoe.say(presence{Type: presenceHello, Boot: 1, N: 2, Addrs: attackerAddrs, Ask: "0022"})
	zoe.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, _, err := zoe.conn.ReadFromUDPAddrPort(make([]byte, 2000)); err != nil {
		t.Errorf("the true sender is not answered: %v", err)
	}
}

// What somebody was told by unicast, relayed, must not move a neighbor.
func TestARelayedDatagramDoesNotMoveANeighbor(t *testing.T) {
	table, now := newNeighbors(), time.Now()
	table.hear(proven(from("ann", 1, 1, presenceHere)), now)
	relayed := from("ann", 1, 2, presenceHere)
	relayed.from = benIP
	table.hear(relayed, now)
	if got := table.byID["ann"].from; got != annIP || table.byIP[annIP.Addr()] != 1 {
		t.Errorf("ann is at %s after a relayed datagram, want %s", got, annIP)
	}
}

func TestChangesWithoutPauseAreTold(t *testing.T) {
	port := lanPort(t)
	busy := onLAN(t, port, Config{})
	other := onLAN(t, port, Config{})
	awaitNeighbors(t, other, "the busy one", hasNeighbor(busy.ID()))
	<-time.After(helloAt[len(helloAt)-1] + time.Second) // its hellos would carry the change too
	end := time.After(12 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			busy.LANChanged()
			if other.Neighbors()[0].Rev > 0 {
				return
			}
		case <-end:
			t.Fatal("nothing was said in 12 s of changes")
		}
	}
}

func TestWantGoesOnWhileTheNodeEnds(t *testing.T) {
	port := lanPort(t)
	n, err := New(t.Context(), Config{Listen: loopback(0), LANPort: port, NoDHT: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	<-n.Listening()
	key, _ := mh.Sum([]byte("x"), mh.SHA2_256, -1)
	wanting, stop := context.WithCancel(t.Context())
	done, rounds := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for wanting.Err() == nil {
			short, c := context.WithTimeout(wanting, time.Millisecond)
			for range n.Want(short, key) {
			}
			c()
			n.LANStatus()
			select {
			case rounds <- struct{}{}:
			case <-wanting.Done():
			}
		}
	}()
	for range 20 {
		<-rounds
	}
	cancel()
	for range 20 {
		<-rounds
	}
	<-ended
	<-rounds
	stop()
	<-done
}

// A neighbor that changes with every datagram is asked anew each time: at the
// address that the datagram claims to be from.
func TestANeighborThatChangesWithoutEndIsNotAskedWithoutEnd(t *testing.T) {
	port := lanPort(t)
	victim := onLAN(t, port, Config{Role: RoleVisitor})
	eve := newAttacker(t, port)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 16 { // one get listens for as many
		key, _ := mh.Sum([]byte{byte(i)}, mh.SHA2_256, -1)
		go func() {
			for range victim.Want(ctx, key) {
			}
		}()
	}
	<-time.After(wantAt[len(wantAt)-1] + 500*time.Millisecond) // the bursts are over
	start, last := time.Now(), time.Now()
	eve.say(presence{Type: presenceHello, Addrs: attackerAddrs, Ask: "0011"})
	_, p, _ := eve.answer()
	eve.say(presence{Type: presenceHere, Addrs: attackerAddrs, Echo: echoOf(p.Ask, victim.ID())})
	awaitNeighbors(t, victim, "eve", hasNeighbor(eve.id()))
	const sent = 100
	got := 0
	go func() {
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for i := range sent {
			eve.say(presence{Type: presenceHere, Addrs: attackerAddrs, Rev: int64(i + 1)})
			<-pace.C
		}
	}()
	buf := make([]byte, 2000)
	for {
		eve.conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := eve.conn.Read(buf); err != nil {
			break
		}
		got++
		last = time.Now()
	}
	const more = 20 // what it says of itself, to the whole network
	most := answerBurst + more + int(answerRate*last.Sub(start).Seconds())
	t.Logf("%d datagrams bring %d within %v", sent, got, last.Sub(start))
	if got > most {
		t.Errorf("%d datagrams bring %d, want at most %d", sent, got, most)
	}
}

func TestAnswersToStrangersWithManyAddressesDoNotAmplify(t *testing.T) {
	port := lanPort(t)
	n, err := New(t.Context(), Config{LANPort: port, NoDHT: true, Alias: "a name that is as long as a name of a computer may be, sixty-four",
		Listen: []ma.Multiaddr{loopback(0)[0], loopback(0)[0], loopback(0)[0], loopback(0)[0], loopback(0)[0], loopback(0)[0], loopback(0)[0], loopback(0)[0]}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() { cancel(); <-ended; n.Close() }()
	<-n.Listening()
	eve := newAttacker(t, port)
	e, err := Seal(eve.key, KindPresence, []byte(`{"v":1,"type":"hello","boot":1,"n":1,"ask":"1"}`))
	if err != nil {
		t.Fatal(err)
	}
	small := e.Encode()
	eve.send(small)
	if _, _, got := eve.answer(); got > 3*len(small) {
		t.Errorf("%d bytes are answered with %d", len(small), got)
	} else {
		t.Logf("%d bytes are answered with %d", len(small), got)
	}
}

func TestKnownSourcesAreBoundedTogether(t *testing.T) {
	var l lanLimits
	now := time.Now()
	l.init(now)
	admitted := 0
	for range 10 {
		for i := range neighborsMax {
			for range perSourceRate {
				if l.admit(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), true, now) {
					admitted++
				}
			}
		}
		now = now.Add(time.Second)
	}
	if admitted/10 > 5000 {
		t.Errorf("%d datagrams a second of known sources are looked at", admitted/10)
	}
}

// Who fills the table, with a useful liar at each of 512 addresses, pushes out
// none that was there.
func TestSybilsEvictThemselves(t *testing.T) {
	table, now := newNeighbors(), time.Now()
	add := func(id string, i int, kind presenceType) {
		now = now.Add(time.Millisecond)
		h := proven(from(peer.ID(id), 1, 1, kind))
		h.from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, byte(i / 250), byte(i % 250)}), 42043)
		table.hear(h, now)
	}
	for i := range 10 {
		add(fmt.Sprintf("honest-%d", i), i, presenceHere)
	}
	for i := range neighborsMax {
		add(fmt.Sprintf("liar-%d", i), 10+i, presenceHave)
	}
	left := 0
	for i := range 10 {
		if table.byID[peer.ID(fmt.Sprintf("honest-%d", i))] != nil {
			left++
		}
	}
	if left < 10 {
		t.Errorf("%d of 10 who were there first are left", left)
	}
}

func heapKiB() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) >> 10
}

// One host makes identities without end; each is believed.
func TestIdentitiesWithoutEndDoNotFillThePeerstore(t *testing.T) {
	n := onLAN(t, lanPort(t), Config{})
	l := n.lanNow()
	before := heapKiB()
	now := time.Now()
	for i := range 15_000 {
		var addrs []ma.Multiaddr
		for p := range 8 {
			addrs = append(addrs, ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 1+(i*8+p)%65535)))
		}
		h := proven(from(peer.ID(fmt.Sprintf("peer-%032d", i)), 1, 1, presenceHere))
		h.addrs, h.Addrs = addrs, addrs
		l.mu.Lock()
		what := l.neighbors.hear(h, now)
		l.mu.Unlock()
		l.note(what, h)
	}
	after := heapKiB()
	t.Logf("heap grew by %d KiB; the peerstore knows %d peers", after-before, len(n.host.Peerstore().PeersWithAddrs()))
	if after-before > 10<<10 {
		t.Errorf("heap grew by %d KiB", after-before)
	}
}

func newAttackerAt(t *testing.T, port int, ip string) *attacker {
	a := newAttacker(t, port)
	a.conn.Close()
	c, err := listenAt(ip)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	a.conn = c
	return a
}

func listenAt(ip string) (*net.UDPConn, error) {
	return net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
}

func TestAnAnswerIsCutToItsQuestion(t *testing.T) {
	key := envelopeKey(t, 1)
	p := presence{Type: presenceHere, Boot: 1795516800000, N: 7, Time: time.Now(), Alias: "a name that is as long as a name of a computer may be, sixty-four", Echo: "0123456789abcdef", Ask: "0123456789abcdef"}
	for i := range 8 {
		p.Addrs = append(p.Addrs, ma.StringCast(fmt.Sprintf("/ip6/2001:db8:1234:5678:9abc:def0:1234:%d/udp/24001/quic-v1", 1000+i)))
	}
	e, _ := Seal(key, KindPresence, []byte(`{"v":1,"type":"hello","boot":1,"n":1,"ask":"1"}`))
	question := len(e.Encode())
	full, _ := p.seal(key)
	cut, _ := p.sealWithin(key, answerGrowth*question)
	t.Logf("question %d, whole answer %d, cut %d", question, len(full), len(cut))
	if len(cut) > answerGrowth*question {
		t.Errorf("%d bytes are answered with %d", question, len(cut))
	}
}
