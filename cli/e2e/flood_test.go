package e2e

import (
	"bufio"
	crand "crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/p2pshare/p2pshare/node"
)

const (
	floodCount    = 100_000
	floodSources  = 50     // addresses that the flood comes from, 10.77.0.100 and on
	floodSybils   = 2_000  // strangers' beacons with true signatures
	floodMade     = 8_009  // different datagrams, a prime: each goes to every target, from every source
	floodUnderWay = 20_000 // datagrams sent when the new neighbor starts
	lanPort       = 42042
)

var (
	group4 = netip.MustParseAddrPort("239.192.42.42:42042")
	group6 = netip.MustParseAddrPort("[ff02::4242%eth0]:42042")
)

// floodRole listens until it has heard a real beacon over either family. A line
// on stdin then makes it send floodCount datagrams as fast as it can: to both
// groups, and to the address that the line names.
func floodRole() error {
	say := json.NewEncoder(os.Stdout)
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	var heard []*net.UDPConn
	for network, group := range map[string]netip.AddrPort{"udp4": group4, "udp6": group6} {
		c, err := net.ListenMulticastUDP(network, eth0, net.UDPAddrFromAddrPort(group))
		if err != nil {
			return err
		}
		heard = append(heard, c)
	}
	if err := say.Encode(event{"event": "ready"}); err != nil {
		return err
	}
	var beacons [][]byte
	for _, c := range heard {
		buf := make([]byte, 64<<10)
		if err := c.SetReadDeadline(time.Now().Add(commandMax)); err != nil {
			return err
		}
		n, _, err := c.ReadFromUDP(buf)
		if err != nil {
			return err
		}
		beacons = append(beacons, buf[:n])
		c.Close()
	}
	sybils, err := sealAgain(beacons[0], floodSybils)
	if err != nil {
		return err
	}
	if err := say.Encode(event{"event": "captured"}); err != nil {
		return err
	}

	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil {
		return err
	}
	targets := []netip.AddrPort{group4, group6, netip.MustParseAddrPort(strings.TrimSpace(line))}
	senders, err := floodSenders()
	if err != nil {
		return err
	}
	made := make([][]byte, floodMade)
	for i := range made {
		made[i] = bogus(i, beacons[i/8%2], sybils)
	}
	began := time.Now()
	sent := 0
	for i := 0; sent < floodCount; i++ {
		if i > 10*floodCount {
			return fmt.Errorf("only %d of %d datagrams were sent", sent, i)
		}
		target := targets[i%len(targets)]
		sender := senders[i%floodSources]
		if target.Addr().Is6() {
			sender = senders[floodSources]
		}
		if _, err := sender.WriteToUDPAddrPort(made[i%floodMade], target); err != nil {
			continue // a queue is full
		}
		if sent++; sent == floodUnderWay {
			if err := say.Encode(event{"event": "flooding"}); err != nil {
				return err
			}
		}
	}
	return say.Encode(event{"event": "flooded", "seconds": time.Since(began).Seconds()})
}

// floodSenders are floodSources sockets for IPv4, each with an address of its
// own, and one for IPv6.
func floodSenders() ([]*net.UDPConn, error) {
	var senders []*net.UDPConn
	for i := range floodSources {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 77, 0, byte(100+i))})
		if err != nil {
			return nil, err
		}
		senders = append(senders, c)
	}
	c, err := net.ListenUDP("udp6", nil)
	return append(senders, c), err
}

// sealAgain signs the content of a beacon as n strangers.
func sealAgain(beacon []byte, n int) ([][]byte, error) {
	envelope, err := node.DecodeEnvelope(beacon)
	if err != nil {
		return nil, fmt.Errorf("heard a datagram that is no envelope: %w: %q", err, beacon)
	}
	var sealed [][]byte
	for range n {
		key, _, err := crypto.GenerateEd25519Key(crand.Reader)
		if err != nil {
			return nil, err
		}
		e, err := node.Seal(key, node.KindPresence, envelope.Content)
		if err != nil {
			return nil, err
		}
		sealed = append(sealed, e.Encode())
	}
	return sealed, nil
}

// bogus is the i-th datagram of the flood, made of a real beacon.
func bogus(i int, beacon []byte, sybils [][]byte) []byte {
	switch i % 8 {
	case 0: // replayed
		return beacon
	case 1: // truncated
		return beacon[:rand.IntN(len(beacon))]
	case 2: // forged: one bit of it is another
		b := []byte(string(beacon))
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
		return b
	case 3: // forged: the sender is another
		var e map[string]string
		json.Unmarshal(beacon, &e)
		var other map[string]string
		json.Unmarshal(sybils[i/8%len(sybils)], &other)
		e["sender"] = other["sender"]
		b, _ := json.Marshal(e)
		return b
	case 4: // oversized, and still JSON
		return append([]byte(string(beacon)), strings.Repeat(" ", 1201+rand.IntN(7000)-len(beacon))...)
	case 5: // random
		b := make([]byte, 1+rand.IntN(1200))
		crand.Read(b)
		return b
	case 6: // a stranger's
		return sybils[i/8%len(sybils)]
	default: // deep, or empty
		return []byte(strings.Repeat(`[`, rand.IntN(1200)))
	}
}

// TestFloodOfBeaconsIsHarmless has a host that sends nonsense as fast as it can
// while a new neighbor starts.
func TestFloodOfBeaconsIsHarmless(t *testing.T) {
	l := newLab(t)
	hosts := l.lan(3)
	for i := range floodSources {
		l.run("ip", "-n", hosts[2], "addr", "add", fmt.Sprintf("10.77.0.%d/24", 100+i), "dev", "eth0")
	}
	ann, bob := lanPeer(t, hosts[0]), lanPeer(t, hosts[1])

	cmd := roleCommand(t, hosts[2], "flood")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	flood := startProcess(t, cmd)
	flood.awaitReady(t)
	a := ann.serve(t, "daemon")
	flood.await(t, "a beacon", func(e event) bool { return e.text("event") == "captured" })

	before := a.memory(t)
	if _, err := io.WriteString(stdin, fmt.Sprintf("10.77.0.1:%d\n", lanPort)); err != nil {
		t.Fatal(err)
	}
	flood.await(t, "the flood", func(e event) bool { return e.text("event") == "flooding" })
	b := bob.serve(t, "daemon")
	isSeen, sees := a.sees(t, b).Sub(b.started), b.sees(t, a).Sub(b.started)
	if max(isSeen, sees) > 5*time.Second {
		t.Errorf("seen after %v, sees after %v, want at most 5 s", isSeen, sees)
	}
	over := flood.await(t, "the end of the flood", func(e event) bool { return e.text("event") == "flooded" })
	grown := a.memory(t) - before
	t.Logf("%d datagrams in %.2f s; new neighbor seen after %v, sees after %v; grown from %d KiB by %d KiB",
		floodCount, over["seconds"], isSeen, sees, before>>10, grown>>10)
	if grown > 10*mib {
		t.Errorf("the resident set has grown by %d KiB, want at most 10 MiB", grown>>10)
	}
	// Idle again: some second soon takes at most 3 ticks.
	const soon = 10
	var used []time.Duration
	for range soon {
		from := a.cpu(t)
		<-time.After(time.Second) // a window to measure
		if used = append(used, a.cpu(t)-from); used[len(used)-1] <= 3*tick {
			break
		}
	}
	if used[len(used)-1] > 3*tick {
		t.Errorf("processor time by the second after the flood: %v, want it idle again", used)
	}
	ann.must(t, "status") // it answers
}
