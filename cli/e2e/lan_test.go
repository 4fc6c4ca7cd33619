package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// seenMax is how long the tests wait for a neighbor on a busy machine, or for
// an interface to be used. BenchmarkLANStartToSeen measures it.
const seenMax = 10 * time.Second

// lanPeer is a peer in a namespace that knows of nobody and logs whom it hears.
func lanPeer(t testing.TB, ns string, flags ...string) *peer {
	t.Helper()
	p := newPeer(t, append([]string{"-v"}, flags...)...)
	p.netns = ns
	return p
}

// sees waits until p has heard of q, and returns when it did.
func (p *process) sees(t testing.TB, q *process) time.Time {
	t.Helper()
	return p.awaitLog(t, 0, seenMax, `msg="neighbor joined"`, "peer="+q.id())
}

func (p *process) loses(t testing.TB, q *process) time.Time {
	t.Helper()
	return p.awaitLog(t, 0, seenMax, `msg="neighbor left"`, "peer="+q.id())
}

func seeEachOther(t testing.TB, p, q *process) {
	t.Helper()
	p.sees(t, q)
	q.sees(t, p)
}

// share adds a file that has the name for its content.
func (p *peer) share(t testing.TB, name string) event {
	t.Helper()
	writeRandom(t, filepath.Join(p.dir, name), 300*kib, name)
	return p.must(t, "add", name)
}

// gets gets by name, without a daemon and by nothing but the LAN, what owner
// shares.
func (p *peer) gets(t testing.TB, name string, owner *peer, args ...string) {
	t.Helper()
	out := filepath.Join(p.dir, name)
	done := p.must(t, slices.Concat([]string{"get", name, "-o", out}, args)...)
	same(t, filepath.Join(owner.dir, name), out)
	sources, _ := done["sources"].([]any)
	if len(sources) != 1 || sources[0].(map[string]any)["via"] != "lan" {
		t.Errorf("sources of %s = %v, want one via lan", name, sources)
	}
}

// neighbors runs p2pshare lan and returns its lines by peer ID.
func (p *peer) neighbors(t testing.TB, args ...string) map[string]event {
	t.Helper()
	r := p.run(t, append([]string{"lan"}, args...)...)
	if r.code != 0 {
		t.Fatalf("lan %v: exit %d\n%s", args, r.code, r.stderr)
	}
	lines := map[string]event{}
	for _, e := range r.events {
		lines[e.text("peer")] = e
	}
	return lines
}

func TestNeighborsSeeEachOtherAndPart(t *testing.T) {
	hosts := newLab(t).lan(2)
	ann, bob := lanPeer(t, hosts[0]), lanPeer(t, hosts[1])
	a := ann.serve(t, "daemon")
	b := bob.serve(t, "daemon")
	seeEachOther(t, a, b)

	now := time.Now()
	b.end(t, syscall.SIGTERM)
	if took := a.loses(t, b).Sub(now); took > time.Second {
		t.Errorf("a neighbor that ends is lost after %v, want at most 1 s", took)
	}
	from := a.stderr.len()
	b = bob.serve(t, "daemon") // the same peer again
	a.awaitLog(t, from, seenMax, `msg="neighbor joined"`, "peer="+b.id())
	b.sees(t, a)
}

// TestNameIsFoundOnTheLAN has neither a DHT nor a daemon on the getter's side.
func TestNameIsFoundOnTheLAN(t *testing.T) {
	hosts := newLab(t).lan(3)
	ann, bob, cat := lanPeer(t, hosts[0], "--alias", "Ann's laptop"), lanPeer(t, hosts[1]), lanPeer(t, hosts[2])
	a := ann.serve(t, "daemon")
	b := bob.serve(t, "daemon")
	watch := bob.start(t, "lan", "--watch")
	of := func(state string) func(event) bool {
		return func(e event) bool {
			return e.text("event") == "neighbor" && e.text("state") == state && e.text("peer") == a.id()
		}
	}
	watch.await(t, "a neighbor", of("joined"))
	added := ann.share(t, "talk.mp4")
	watch.await(t, "a share", of("changed"))

	for _, asker := range []*peer{bob, cat} { // with a daemon, and without
		line, ok := asker.neighbors(t)[a.id()]
		if !ok {
			t.Fatalf("%v are the neighbors, want %s among them", asker.neighbors(t), a.id())
		}
		if line.text("name") != "Ann's laptop" || line.number("shares") != 1 {
			t.Errorf("lan: %v, want 1 share of Ann's laptop", line)
		}
		addrs, _ := line["addrs"].([]any)
		onBridge := func(a any) bool { return strings.HasPrefix(a.(string), "/ip4/10.77.0.1/tcp/") }
		if !slices.ContainsFunc(addrs, onBridge) {
			t.Errorf("lan: addresses %v, want the one on the bridge among them", addrs)
		}
		if _, err := time.Parse(time.RFC3339Nano, line.text("seen")); err != nil {
			t.Errorf("lan: seen: %v", err)
		}
		first, _ := line["first"].([]any)
		if len(first) != 1 {
			t.Errorf("lan: first = %v, want what is shared", first)
			continue
		}
		if got := event(first[0].(map[string]any)); got.text("name") != "talk.mp4" || got.text("kind") != "file" ||
			got.text("id") != added.text("id") || got.number("size") != 300*kib {
			t.Errorf("lan: first = %v, want %v", got, added)
		}
	}
	cat.gets(t, "talk.mp4", ann)
	bob.gets(t, "talk.mp4", ann)

	a.end(t, syscall.SIGTERM)
	watch.await(t, "the neighbor's end", of("left"))
	b.loses(t, a)
	if r := cat.run(t, "get", "talk.pdf"); r.code != 3 {
		t.Errorf("get of what nobody has: exit %d, want 3\n%s", r.code, r.stderr)
	}
}

// twoNetworks makes a host with an interface on each of two bridges, eth0 on
// 10.77.0.0/24 and, if both, eth1 on 10.78.0.0/24, and n hosts more on each.
func (l *lab) twoNetworks(n int, both bool) (middle, hub2 string, side1, side2 []string) {
	l.t.Helper()
	hosts := l.lan(n + 1)
	middle, side1 = hosts[0], hosts[1:]
	hub2 = l.hub("sw2")
	for i := range n {
		h := l.host(fmt.Sprintf("g%d", i))
		l.plug(h, "eth0", fmt.Sprintf("10.78.0.%d/24", i+2), hub2)
		side2 = append(side2, h)
	}
	if both {
		l.plug(middle, "eth1", "10.78.0.1/24", hub2)
	}
	return middle, hub2, side1, side2
}

func TestHostOnTwoNetworksIsFoundOnBoth(t *testing.T) {
	middle, _, side1, side2 := newLab(t).twoNetworks(1, true)
	ann, bob, cat := lanPeer(t, middle), lanPeer(t, side1[0]), lanPeer(t, side2[0])
	a := ann.serve(t, "daemon")
	b := bob.serve(t, "daemon")
	c := cat.serve(t, "daemon")
	seeEachOther(t, a, b)
	seeEachOther(t, a, c)
	ann.share(t, "talk.mp4")
	endAll(t, syscall.SIGTERM, b, c)
	bob.gets(t, "talk.mp4", ann)
	cat.gets(t, "talk.mp4", ann)
	for _, p := range []*process{b, c} { // what one network says stays on it
		other := map[*process]*process{b: c, c: b}[p]
		if strings.Contains(p.stderr.String(), "peer="+other.id()) {
			t.Errorf("a peer of the other network is a neighbor:\n%s", p.stderr)
		}
	}
}

func TestInterfaceIsUsedWhenItAppears(t *testing.T) {
	l := newLab(t)
	middle, hub2, _, side2 := l.twoNetworks(1, false)
	ann, cat := lanPeer(t, middle), lanPeer(t, side2[0])
	a := ann.serve(t, "daemon")
	c := cat.serve(t, "daemon")
	ann.share(t, "talk.mp4")
	plugged := time.Now()
	l.plug(middle, "eth1", "10.78.0.1/24", hub2)
	a.sees(t, c)
	if took := c.sees(t, a).Sub(plugged); took > 4*time.Second {
		t.Errorf("the new interface is used after %v, want at most 3 s", took)
	}
	c.end(t, syscall.SIGTERM)
	cat.gets(t, "talk.mp4", ann)
}

func TestInterfaceThatGoesTakesNoOtherAlong(t *testing.T) {
	l := newLab(t)
	middle, _, side1, side2 := l.twoNetworks(2, true)
	ann, bob, cat, dan := lanPeer(t, middle), lanPeer(t, side1[0]), lanPeer(t, side2[0]), lanPeer(t, side1[1])
	a := ann.serve(t, "daemon")
	b := bob.serve(t, "daemon")
	c := cat.serve(t, "daemon")
	a.sees(t, b)
	a.sees(t, c)
	ann.share(t, "talk.mp4")
	l.run("ip", "-n", middle, "link", "del", "eth1")
	d := dan.serve(t, "daemon")
	seeEachOther(t, a, d)
	seeEachOther(t, b, d)
	endAll(t, syscall.SIGTERM, b, d)
	a.loses(t, b)
	a.loses(t, d)
	bob.gets(t, "talk.mp4", ann)
}

func TestPeersOfOneHostWithoutANetworkSeeEachOther(t *testing.T) {
	host := newLab(t).host("h")
	ann, bob, cat := lanPeer(t, host), lanPeer(t, host), lanPeer(t, host)
	a := ann.serve(t, "daemon")
	b := bob.serve(t, "daemon")
	seeEachOther(t, a, b)
	ann.share(t, "talk.mp4")
	cat.gets(t, "talk.mp4", ann)
}

func TestNeighborsWithoutIPv4(t *testing.T) {
	hosts := newLab(t).lanOf(3, "fd00::%d/64")
	ann, bob, cat := lanPeer(t, hosts[0]), lanPeer(t, hosts[1]), lanPeer(t, hosts[2])
	a := ann.serve(t, "daemon")
	b := bob.serve(t, "daemon")
	seeEachOther(t, a, b)
	ann.share(t, "talk.mp4")
	cat.gets(t, "talk.mp4", ann)
}

// doctor returns what p2pshare doctor says of the LAN.
func (p *peer) doctor(t testing.TB) []event {
	t.Helper()
	return slices.DeleteFunc(p.run(t, "doctor").events, func(e event) bool { return e.text("check") != "lan" })
}

func TestBlockedMulticastIsDiagnosedAndHasAWayRound(t *testing.T) {
	needNFT(t)
	l := newLab(t)
	hosts := l.lan(2)
	ann, bob := lanPeer(t, hosts[0]), lanPeer(t, hosts[1])
	a := ann.serve(t, "daemon")
	ann.share(t, "talk.mp4")
	for _, e := range bob.doctor(t) {
		if e.text("state") != "ok" {
			t.Errorf("doctor where nothing is wrong: %v", e)
		}
	}
	for _, hook := range []string{"input", "output"} {
		t.Run(hook, func(t *testing.T) {
			l.in(hosts[1], "nft", `table inet block {
				chain block { type filter hook `+hook+` priority 0
					ip daddr 239.192.42.42 drop
					ip6 daddr ff02::4242 drop
				}
			}`)
			defer l.in(hosts[1], "nft", "delete table inet block")
			said := bob.doctor(t)
			wrong := func(e event) bool {
				return (e.text("state") == "warn" || e.text("state") == "fail") && e.text("message") != "" && e.text("remedy") != ""
			}
			if !slices.ContainsFunc(said, wrong) {
				t.Errorf("doctor: %v, want a warning with a remedy", said)
			}
			if found := bob.neighbors(t, "--probe", "10.77.0.0/24"); found[a.id()] == nil {
				t.Errorf("lan --probe: %v, want %s", found, a.id())
			}
			bob.gets(t, "talk.mp4", ann, "--peer", fmt.Sprintf("10.77.0.1:%s", a.tcpPort(t)))
			os.Remove(filepath.Join(bob.dir, "talk.mp4"))
		})
	}
}

// tcpPort is the TCP port of a process that is ready, in decimal.
func (p *process) tcpPort(t testing.TB) string {
	t.Helper()
	addrs, _ := p.ready["addrs"].([]any)
	for _, a := range addrs {
		if f := strings.Split(a.(string), "/"); len(f) > 4 && f[3] == "tcp" {
			return f[4]
		}
	}
	t.Fatalf("no TCP address among %v", addrs)
	return ""
}

// hasSocketOn reports whether a UDP socket of p's namespace has a port.
func (p *process) hasSocketOn(t testing.TB, port int) bool {
	t.Helper()
	local := fmt.Appendf(nil, ":%04X ", port)
	for _, file := range []string{"net/udp", "net/udp6"} {
		for line := range bytes.Lines([]byte(p.proc(t, file))) {
			if i := bytes.Index(line, local); i >= 0 && i < bytes.LastIndexByte(line, ':') {
				return true
			}
		}
	}
	return false
}

func TestNoLANIsSilent(t *testing.T) {
	needNFT(t)
	l := newLab(t)
	hosts := l.lan(3)
	for _, h := range hosts {
		l.count(h)
	}
	ann, bob, cat := lanPeer(t, hosts[0], "--no-lan"), lanPeer(t, hosts[1]), lanPeer(t, hosts[2])
	a := ann.serve(t, "daemon")
	ann.share(t, "talk.mp4")
	b := bob.serve(t, "daemon")
	c := cat.serve(t, "daemon")
	seeEachOther(t, b, c)
	if r := cat.run(t, "get", "talk.mp4"); r.code != 3 {
		t.Errorf("get from a peer that is not on the LAN: exit %d, want 3\n%s", r.code, r.stderr)
	}
	if r := ann.run(t, "lan"); len(r.events) > 0 && r.code == 0 {
		t.Errorf("lan with --no-lan: %v", r.events)
	}
	for _, p := range []*process{a, b, c} {
		if got, want := p.hasSocketOn(t, lanPort), p != a; got != want {
			t.Errorf("--no-lan is %v, and a socket on port %d is %v", !want, lanPort, got)
		}
		if strings.Contains(p.stderr.String(), "peer="+a.id()) || p == a && strings.Contains(p.stderr.String(), "neighbor") {
			t.Errorf("--no-lan, and yet a neighbor:\n%s", p.stderr)
		}
	}
	if sent := l.sent(hosts[0]); sent.Multicast4.Packets+sent.Multicast6.Packets+sent.Unicast.Packets > 0 {
		t.Errorf("--no-lan, and yet datagrams were sent: %+v", sent)
	}
	if sent := l.sent(hosts[1]); sent.Multicast4.Packets == 0 || sent.Multicast6.Packets == 0 {
		t.Errorf("the count of datagrams does not count: %+v", sent)
	}
}
