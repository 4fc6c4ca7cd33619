package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// lan makes n hosts on one bridge, 10.77.0.1 and on, without a default route:
// namespaces that end with the test.
func lan(t *testing.T, n int) []string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need ip, from iproute2")
	}
	prefix := fmt.Sprintf("p2p%d-", os.Getpid())
	ip := func(args ...string) error {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	made := 0
	must := func(args ...string) {
		t.Helper()
		if err := ip(args...); err != nil {
			if made == 0 {
				t.Skipf("network namespaces are not allowed here: %v", err)
			}
			t.Fatal(err)
		}
		made++
	}
	hub := prefix + "sw"
	must("netns", "add", hub)
	t.Cleanup(func() { ip("netns", "del", hub) })
	must("-n", hub, "link", "add", "br0", "type", "bridge")
	must("-n", hub, "link", "set", "br0", "up")
	var hosts []string
	for i := 1; i <= n; i++ {
		host := fmt.Sprintf("%sh%d", prefix, i)
		must("netns", "add", host)
		t.Cleanup(func() { ip("netns", "del", host) })
		port := fmt.Sprintf("p%d", i)
		must("-n", host, "link", "set", "lo", "up")
		must("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", hub)
		must("-n", hub, "link", "set", port, "master", "br0", "up")
		must("-n", host, "addr", "add", fmt.Sprintf("10.77.0.%d/24", i), "dev", "eth0")
		must("-n", host, "link", "set", "eth0", "up")
		hosts = append(hosts, host)
	}
	return hosts
}

// TestPrivateNetworkNeedsNoFlags runs three hosts that know nothing but one
// bootstrap address, with the default listeners.
func TestPrivateNetworkNeedsNoFlags(t *testing.T) {
	hosts := lan(t, 3)
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
