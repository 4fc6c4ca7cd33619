package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// lab makes network namespaces that end with the test.
type lab struct {
	t      testing.TB
	prefix string
	links  int
}

// newLab skips the test where namespaces can't be made.
func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need ip, from iproute2")
	}
	l := &lab{t: t, prefix: fmt.Sprintf("p2p%d-", os.Getpid())}
	if out, err := exec.Command("ip", "netns", "add", l.prefix+"try").CombinedOutput(); err != nil {
		t.Skipf("network namespaces are not allowed here: %v: %s", err, out)
	}
	l.run("ip", "netns", "del", l.prefix+"try")
	return l
}

func (l *lab) run(args ...string) string {
	l.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// host makes a namespace with nothing but a loopback interface.
func (l *lab) host(name string) string {
	l.t.Helper()
	ns := l.prefix + name
	l.run("ip", "netns", "add", ns)
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	// An address is used at once, not after a second of asking for duplicates.
	l.in(ns, "sh", "-c", "for i in all default; do echo 0 >/proc/sys/net/ipv6/conf/$i/accept_dad; done")
	l.run("ip", "-n", ns, "link", "set", "lo", "up")
	return ns
}

// bridge makes a bridge called br0 in a namespace.
func (l *lab) bridge(ns string) {
	l.t.Helper()
	l.run("ip", "-n", ns, "link", "add", "br0", "type", "bridge")
	l.run("ip", "-n", ns, "link", "set", "br0", "up")
}

// plug gives ns an interface with an address on the bridge of hub.
func (l *lab) plug(ns, dev, cidr, hub string) {
	l.t.Helper()
	l.links++
	port := fmt.Sprintf("p%d", l.links)
	l.run("ip", "-n", ns, "link", "add", dev, "type", "veth", "peer", "name", port, "netns", hub)
	l.run("ip", "-n", hub, "link", "set", port, "master", "br0", "up")
	l.run("ip", "-n", ns, "addr", "add", cidr, "dev", dev)
	l.run("ip", "-n", ns, "link", "set", dev, "up")
}

// hub makes a namespace that is a bridge.
func (l *lab) hub(name string) string {
	l.t.Helper()
	hub := l.host(name)
	l.bridge(hub)
	return hub
}

// lan makes n hosts on one bridge, 10.77.0.1 and on, without a default route.
// Each host has an IPv6 link-local address besides.
func (l *lab) lan(n int) []string {
	l.t.Helper()
	return l.lanOf(n, "10.77.0.%d/24")
}

// lanOf makes n hosts on one bridge; format makes an address of 1, 2 and on.
func (l *lab) lanOf(n int, format string) []string {
	l.t.Helper()
	hub := l.hub("sw")
	var hosts []string
	for i := 1; i <= n; i++ {
		h := l.host(fmt.Sprintf("h%d", i))
		l.plug(h, "eth0", fmt.Sprintf(format, i), hub)
		hosts = append(hosts, h)
	}
	return hosts
}

// in runs a command in a namespace and returns its output.
func (l *lab) in(ns string, args ...string) string {
	l.t.Helper()
	return l.run(append([]string{"ip", "netns", "exec", ns}, args...)...)
}

// needNFT skips a test of a packet filter where there is none.
func needNFT(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("a packet filter needs nft, from nftables")
	}
}

// traffic is what a host sent: datagrams to multicast groups of either family,
// other datagrams, and everything, link-layer protocols excluded.
type traffic struct{ Multicast4, Multicast6, Unicast, Total packets }

type packets struct{ Packets, Bytes int64 }

func (t traffic) plus(u traffic) traffic {
	sum := func(a, b packets) packets { return packets{a.Packets + b.Packets, a.Bytes + b.Bytes} }
	return traffic{sum(t.Multicast4, u.Multicast4), sum(t.Multicast6, u.Multicast6), sum(t.Unicast, u.Unicast), sum(t.Total, u.Total)}
}

// count begins to count what ns sends through its interfaces but lo. It needs
// nft.
func (l *lab) count(ns string) {
	l.t.Helper()
	l.in(ns, "nft", `table inet traffic {
		counter multicast4 {}
		counter multicast6 {}
		counter unicast {}
		counter total {}
		chain out { type filter hook output priority 0;
			oifname "lo" return
			counter name total
			meta l4proto != udp return
			ip daddr 224.0.0.0/4 counter name multicast4 return
			ip6 daddr ff00::/8 counter name multicast6 return
			counter name unicast
		}
	}`)
}

// sent is what ns sent since count.
func (l *lab) sent(ns string) traffic {
	l.t.Helper()
	var list struct {
		NFTables []struct {
			Counter struct {
				Name string
				packets
			}
		}
	}
	if err := json.Unmarshal([]byte(l.in(ns, "nft", "-j", "list", "counters")), &list); err != nil {
		l.t.Fatal(err)
	}
	var sent traffic
	of := map[string]*packets{"multicast4": &sent.Multicast4, "multicast6": &sent.Multicast6, "unicast": &sent.Unicast, "total": &sent.Total}
	for _, entry := range list.NFTables {
		if c, ok := of[entry.Counter.Name]; ok {
			*c = entry.Counter.packets
		}
	}
	return sent
}

// manyNeighbors makes room for some ten thousand entries in the tables of
// link-layer addresses, until the end of the test. These have a limit over all
// namespaces, which 50 hosts that answer one another exceed.
func (l *lab) manyNeighbors() {
	l.t.Helper()
	for _, family := range []string{"ipv4", "ipv6"} {
		for i, n := range []string{"8192", "16384", "32768"} {
			path := fmt.Sprintf("/proc/sys/net/%s/neigh/default/gc_thresh%d", family, i+1)
			before, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, []byte(n), 0)
			}
			if err != nil {
				l.t.Skipf("many hosts need larger neighbor tables: %v", err)
			}
			l.t.Cleanup(func() {
				if err := os.WriteFile(path, before, 0); err != nil {
					l.t.Error(err)
				}
			})
		}
	}
}

// home makes a host behind a NAT router with the WAN address wan on the bridge
// of inet: outgoing connections only, source ports kept.
func (l *lab) home(name, wan, net, inet string) string {
	l.t.Helper()
	router := l.host("nat" + name)
	l.plug(router, "wan0", wan+"/24", inet)
	l.bridge(router)
	l.run("ip", "-n", router, "addr", "add", net+".1/24", "dev", "br0")
	l.in(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	l.in(router, "nft", `table ip nat {
		chain post { type nat hook postrouting priority 100; oifname "wan0" masquerade; }
		chain in { type filter hook input priority 0; ct state established,related accept; iifname "wan0" drop; }
		chain forwarded { type filter hook forward priority 0; policy drop; iifname "br0" accept; ct state established,related accept; }
	}`)
	h := l.host(name)
	l.plug(h, "eth0", net+".10/24", router)
	l.run("ip", "-n", h, "route", "add", "default", "via", net+".1")
	return h
}

// TestPeersBehindNATsReachEachOther has two homes behind NATs and a bootstrap
// peer in public: the relay arranges, a punched hole carries the file.
func TestPeersBehindNATsReachEachOther(t *testing.T) {
	needNFT(t)
	l := newLab(t)
	inet := l.host("inet")
	l.bridge(inet)
	// Addresses that count as public, in a network that leads nowhere.
	boot := newPeer(t, "--no-lan")
	boot.netns = l.host("boot")
	l.plug(boot.netns, "eth0", "44.0.0.10/24", inet)
	ready := boot.serve(t, "bootstrap")
	flags := []string{"--no-lan", "--bootstrap", ready.addr(t)}
	ann, bob := newPeer(t, flags...), newPeer(t, flags...)
	ann.netns = l.home("ann", "44.0.0.1", "192.168.1", inet)
	bob.netns = l.home("bob", "44.0.0.2", "192.168.2", inet)

	path := filepath.Join(ann.dir, "talk.mp4")
	writeRandom(t, path, 3*mib, "talk")
	add := ann.start(t, "add", "talk.mp4")
	add.await(t, "ready", func(e event) bool { return e.text("event") == "ready" })
	done := bob.must(t, "get", "talk.mp4")
	same(t, path, filepath.Join(bob.dir, "talk.mp4"))
	sources, _ := done["sources"].([]any)
	if len(sources) != 1 || sources[0].(map[string]any)["via"] != "direct" {
		t.Errorf("sources = %v, want one via direct", sources)
	}
}

// TestPrivateNetworkNeedsNoFlags runs three hosts that know nothing but one
// bootstrap address, with the default listeners.
func TestPrivateNetworkNeedsNoFlags(t *testing.T) {
	hosts := newLab(t).lan(3)
	boot := newPeer(t)
	boot.netns = hosts[0]
	ready := boot.serve(t, "bootstrap")
	addrs, _ := ready.ready["addrs"].([]any)
	addr := ""
	for _, a := range addrs {
		if strings.Contains(a.(string), "/127.0.0.1/") {
			t.Errorf("the bootstrap peer tells its loopback address %s", a)
		}
		if strings.HasPrefix(a.(string), "/ip4/10.77.0.1/tcp/") {
			addr = a.(string)
		}
	}
	if addr == "" {
		t.Fatalf("no address of the bridge among %v", addrs)
	}
	ann, bob := newPeer(t, "--bootstrap", addr), newPeer(t, "--bootstrap", addr)
	ann.netns, bob.netns = hosts[1], hosts[2]
	path := filepath.Join(ann.dir, "talk.mp4")
	writeRandom(t, path, 3*mib, "talk")
	add := ann.start(t, "add", "talk.mp4")
	added := add.await(t, "added", func(e event) bool { return e.text("event") == "added" })
	if strings.Contains(added.text("link"), "/127.0.0.1/") || !strings.Contains(added.text("link"), "/10.77.0.2/") {
		t.Errorf("link = %s, want the bridge's address and no loopback address", added.text("link"))
	}
	add.await(t, "ready", func(e event) bool { return e.text("event") == "ready" })
	done := bob.must(t, "get", "talk.mp4")
	same(t, path, filepath.Join(bob.dir, "talk.mp4"))
	sources, _ := done["sources"].([]any)
	if len(sources) != 1 || sources[0].(map[string]any)["via"] != "lan" {
		t.Errorf("sources = %v, want one via lan", sources)
	}
}
