package node

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

var (
	annIP = netip.MustParseAddrPort("10.77.0.2:42043")
	benIP = netip.MustParseAddrPort("10.77.0.3:42043")
)

// from makes a datagram as the table takes it.
func from(id peer.ID, boot, n int64, kind presenceType) heard {
	addrs := []ma.Multiaddr{ma.StringCast("/ip4/10.77.0.2/tcp/24001")}
	return heard{sender: id, presence: presence{Type: kind, Boot: boot, N: n, Addrs: addrs}, from: annIP, link: "eth0", addrs: addrs}
}

func proven(h heard) heard {
	h.proven = true
	return h
}

// TestNeighborsHear is the life of a table: each step a datagram, what is made
// of it, and how many neighbors there are then.
func TestNeighborsHear(t *testing.T) {
	asks := from("visitor", 1, 1, presenceHello)
	asks.Addrs, asks.addrs = nil, nil
	newRev := from("ann", 5, 5, presenceHere)
	newRev.Rev = 9
	for _, story := range []struct {
		name  string
		steps []struct {
			heard
			want  hearing
			count int
		}
	}{
		{"a stranger must prove to be there", []struct {
			heard
			want  hearing
			count int
		}{
			{from("ann", 5, 1, presenceHello), heardUnknown, 0},
			{from("ann", 5, 2, presenceHere), heardUnknown, 0},
			{from("ann", 5, 3, presenceBye), heardNothing, 0},
			{proven(from("ann", 5, 4, presenceHere)), heardNew, 1},
			{newRev, heardChange, 1},
			{from("ann", 5, 6, presenceBye), heardLeft, 0},
		}},
		{"a datagram counts once", []struct {
			heard
			want  hearing
			count int
		}{
			{proven(from("ann", 5, 4, presenceHere)), heardNew, 1},
			{from("ann", 5, 6, presenceHere), heardAgain, 1},
			{from("ann", 5, 6, presenceHere), heardNothing, 1},
			{from("ann", 5, 5, presenceHere), heardAgain, 1},
			{from("ann", 5, 5, presenceHere), heardNothing, 1},
			{proven(from("ann", 5, 4, presenceHere)), heardNothing, 1},
			{from("ann", 5, 3, presenceHere), heardNothing, 1}, // never seen, and older than the proof
		}},
		{"an earlier life proves nothing", []struct {
			heard
			want  hearing
			count int
		}{
			{proven(from("ann", 5, 4, presenceHere)), heardNew, 1},
			{from("ann", 4, 9, presenceHere), heardUnknown, 1},
			{from("ann", 4, 9, presenceBye), heardNothing, 1},
			{from("ann", 6, 1, presenceHello), heardUnknown, 1},
			{from("ann", 6, 2, presenceBye), heardNothing, 1},
			{proven(from("ann", 6, 3, presenceHere)), heardNew, 1},
			{from("ann", 5, 99, presenceHere), heardUnknown, 1},
			{proven(from("ann", 3, 1, presenceHere)), heardNothing, 1}, // it lived before, and has left since
		}},
		{"a recorded echo does not bring back who left", []struct {
			heard
			want  hearing
			count int
		}{
			{proven(from("ann", 5, 4, presenceHere)), heardNew, 1},
			{from("ann", 5, 5, presenceBye), heardLeft, 0},
			{proven(from("ann", 5, 4, presenceHere)), heardNothing, 0},
			{proven(from("ann", 5, 6, presenceHere)), heardNew, 1},
			{from("ann", 5, 7, presenceBye), heardLeft, 0},
			{from("ann", 3, 1, presenceHello), heardUnknown, 0}, // its clock was set back
		}},
		{"who only asks is no neighbor", []struct {
			heard
			want  hearing
			count int
		}{
			{asks, heardUnknown, 0},
			{proven(asks), heardAgain, 0},
		}},
	} {
		table, now := newNeighbors(), time.Now()
		for i, step := range story.steps {
			if got := table.hear(step.heard, now); got != step.want || len(table.byID) != step.count {
				t.Errorf("%s: step %d: hear = %d, %d neighbors, want %d, %d", story.name, i, got, len(table.byID), step.want, step.count)
			}
			now = now.Add(time.Second)
		}
	}
}

func TestNeighborsAreBoundedAndTheLeastUsefulLeaves(t *testing.T) {
	table, now := newNeighbors(), time.Now()
	add := func(i int, ip netip.AddrPort) {
		now = now.Add(time.Millisecond)
		h := proven(from(peer.ID(fmt.Sprintf("peer-%04d", i)), 1, 1, presenceHere))
		h.from = ip
		if got := table.hear(h, now); got != heardNew {
			t.Fatalf("peer %d: hear = %d, want %d", i, got, heardNew)
		}
		if i == 0 {
			table.byID[h.sender].useful = now // it had what was asked for, once
		}
	}
	host := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, byte(i / 250), byte(i%250 + 1)}), 42043)
	}
	for i := range neighborsMax + 100 {
		add(i, host(i))
	}
	if len(table.byID) != neighborsMax || table.byID["peer-0000"] == nil {
		t.Errorf("%d neighbors, and the useful one there: %v; want %d, true", len(table.byID), table.byID["peer-0000"] != nil, neighborsMax)
	}

	// Identities by the hundred, from one host: they evict one another.
	table = newNeighbors()
	for i := range 10 {
		add(i, host(i))
	}
	for i := range 1000 {
		add(1000+i, netip.AddrPortFrom(netip.MustParseAddr("10.77.9.9"), 42043))
	}
	for i := range 1000 {
		add(3000+i, netip.AddrPortFrom(netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 14: byte(i >> 8), 15: byte(i)}).WithZone("eth0"), 42043))
	}
	for i := range 10 {
		if table.byID[peer.ID(fmt.Sprintf("peer-%04d", i))] == nil {
			t.Errorf("peer %d of another host was evicted", i)
		}
	}
	if got, want := len(table.byID), 10+neighborsPerHost+neighborsPerNetwork; got != want {
		t.Errorf("%d neighbors, want %d", got, want)
	}
	if len(table.bySource) != 12 {
		t.Errorf("%d sources, want 12", len(table.bySource))
	}
}

func TestNeighborsExpire(t *testing.T) {
	table, now := newNeighbors(), time.Now()
	table.hear(proven(from("ann", 1, 1, presenceHere)), now)
	second := proven(from("ann", 1, 2, presenceHere))
	second.link, second.addrs = "wlan0", []ma.Multiaddr{ma.StringCast("/ip4/192.168.1.5/tcp/24001")}
	table.hear(second, now.Add(neighborAge/2))
	third := from("ann", 1, 3, presenceHere)
	third.link, third.addrs = second.link, second.addrs
	if got := table.hear(third, now.Add(neighborAge)); got != heardChange {
		t.Errorf("hear = %d once one of two links is silent, want %d", got, heardChange)
	}
	if got := table.byID["ann"].snapshot(); len(got.Addrs) != 1 || len(got.Links) != 1 || got.Links[0] != "wlan0" {
		t.Errorf("addresses %v on %v, want one on wlan0", got.Addrs, got.Links)
	}
	if gone := table.expire(now.Add(2*neighborAge - 1)); len(gone) != 0 {
		t.Errorf("expire = %v too early", gone)
	}
	if gone := table.expire(now.Add(2 * neighborAge)); len(gone) != 1 || len(table.byID) != 0 || len(table.byIP) != 0 {
		t.Errorf("expire = %v, %d neighbors and %d addresses left, want ann and none", gone, len(table.byID), len(table.byIP))
	}
}

func TestNeighborsWithoutMulticastAreToldByUnicast(t *testing.T) {
	table, now := newNeighbors(), time.Now()
	table.hear(proven(from("ann", 1, 1, presenceHere)), now)
	ben := proven(from("ben", 1, 1, presenceHere))
	ben.from, ben.group = benIP, true
	table.hear(ben, now.Add(2*hereEvery))
	if got := table.deaf(now.Add(2*hereEvery + time.Second)); len(got) != 1 || got[0] != annIP {
		t.Errorf("deaf = %v, want %v", got, annIP)
	}
	if got := table.deaf(now); len(got) != 0 {
		t.Errorf("deaf = %v for one that has just come, want none", got)
	}
}

func TestWindow(t *testing.T) {
	var w window
	for i, step := range []struct {
		n    int64
		want bool
	}{{1, true}, {1, false}, {3, true}, {2, true}, {2, false}, {70, true}, {6, false}, {7, true}, {7, false}, {69, true}, {200, true}, {136, false}, {137, true}, {1 << 62, true}, {200, false}} {
		if got := w.accept(step.n); got != step.want {
			t.Errorf("step %d: accept(%d) = %v, want %v", i, step.n, got, step.want)
		}
	}
}

func TestLANLimits(t *testing.T) {
	var l lanLimits
	now := time.Now()
	l.init(now)
	count := func(ips int, each int, known bool) (admitted int) {
		for i := range ips * each {
			ip := netip.AddrFrom4([4]byte{10, byte(i % ips >> 16), byte(i % ips >> 8), byte(i % ips)})
			if l.admit(ip, known, now) {
				admitted++
			}
		}
		return admitted
	}
	if got := count(1, 100_000, false); got != perSourceBurst {
		t.Errorf("100,000 datagrams of one source: %d looked at, want %d", got, perSourceBurst)
	}
	// The first source again, which has used its own up, and 49 others.
	want := 49*newcomerFirst + strangersBurst - (perSourceBurst - newcomerFirst)
	if got := count(50, 10_000, false); got != want {
		t.Errorf("500,000 datagrams of 50 sources: %d looked at, want %d", got, want)
	}
	if l.recovered(now) {
		t.Error("the flood is said to be over while it lasts")
	}
	now = now.Add(time.Second)
	count(50, 10_000, false) // it goes on
	for range newcomerFirst {
		if !l.admit(annIP.Addr(), false, now) {
			t.Error("a flood from fifty sources keeps another one out")
		}
	}
	now = now.Add(time.Second)
	if !l.recovered(now) || l.recovered(now) {
		t.Error("that the flood is over is not said once")
	}
	l.init(now)
	if got := count(50_000, 2, false); got != strangersBurst+newcomersBurst {
		t.Errorf("100,000 datagrams of 50,000 sources: %d looked at, want %d", got, strangersBurst+newcomersBurst)
	}
	if len(l.sources) > sourcesTracked {
		t.Errorf("%d sources are tracked, want %d at most", len(l.sources), sourcesTracked)
	}
	if !l.admit(annIP.Addr(), true, now) {
		t.Error("a neighbor is kept out by strangers")
	}
	l.init(now)
	count(1, 1000, false)
	now = now.Add(time.Second)
	if got := count(1, 1000, false); got != perSourceRate {
		t.Errorf("a second later %d of one source are looked at, want %d", got, perSourceRate)
	}
	answers := 0
	for range 1000 {
		if l.admitAnswer(annIP.Addr(), now) {
			answers++
		}
	}
	if answers != answerBurst {
		t.Errorf("%d answers to one source, want %d", answers, answerBurst)
	}
}
