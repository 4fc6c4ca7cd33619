package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEveryFaultHasItsOwnCode has a get fail in six ways, on hosts with the default
// listeners: a script must be able to tell them apart, and soon.
func TestEveryFaultHasItsOwnCode(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for what never answers")
	}
	needNFT(t)
	l := newLab(t)
	hosts := l.lan(6)
	boot := newPeer(t, "--no-lan")
	boot.netns = hosts[0]
	ready := boot.serve(t, "bootstrap")
	flags := []string{"--no-lan", "--bootstrap", bridgeAddr(t, ready)}
	sharer := func(host int, name, data string, size int64, more ...string) *process {
		t.Helper()
		p := newPeer(t, append(append([]string{}, flags...), more...)...)
		p.netns = hosts[host]
		writeRandom(t, filepath.Join(p.dir, name), size, data)
		add := p.start(t, append([]string{"add", name}, p.flags...)...)
		added := add.await(t, "added", func(e event) bool { return e.text("event") == "added" })
		if added.text("announced") != "dht" {
			t.Fatalf("%s was announced to %q, want dht", name, added.text("announced"))
		}
		add.await(t, "ready", func(e event) bool { return e.text("event") == "ready" })
		return add
	}
	dead := sharer(1, "dead.bin", "dead", mib)
	sharer(2, "wall.bin", "wall", mib)
	sharer(3, "two.bin", "one", mib)
	sharer(4, "two.bin", "another", mib)
	sharer(4, "slow.bin", "slow", 16*mib, "--max-up", "512K")

	getter := newPeer(t, flags...)
	getter.netns = hosts[5]
	for _, name := range []string{"dead.bin", "wall.bin"} { // proves that its record is there
		getter.must(t, "get", name, "-o", "first."+name)
	}
	dead.end(t, os.Kill)
	wall(l, hosts[2], "10.77.0.6")
	lied := filepath.Join(t.TempDir(), "lied.bin")
	writeRandom(t, lied, mib, "lied")
	task, err := json.Marshal(hostileTask{Path: lied})
	if err != nil {
		t.Fatal(err)
	}
	c := roleCommand(t, hosts[5], "hostile-provider")
	c.Env = append(c.Env, taskVariable+"="+string(task))
	liar := startProcess(t, c)
	liar.awaitReady(t)

	for _, fault := range []struct {
		name   string
		args   []string
		code   int // each its own
		reason string
	}{
		{"nobody has it", []string{"nothing.bin"}, 3, "not_found"},
		{"its provider is dead", []string{"dead.bin"}, 7, "unreachable"},
		{"its provider is behind a firewall that drops", []string{"wall.bin"}, 11, "no_answer"},
		{"two contents", []string{"two.bin"}, 4, "ambiguous"},
		{"its provider is corrupt", []string{liar.ready.text("link")}, 6, "integrity"},
		{"time is up in the middle", []string{"slow.bin", "--timeout", "4s"}, 8, "timeout"},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel() // they wait for what never answers
			getter := newPeer(t, flags...)
			getter.netns = hosts[5]
			begun := time.Now()
			r := getter.run(t, append([]string{"get", "--explain"}, fault.args...)...)
			took := time.Since(begun)
			last := r.events[len(r.events)-1]
			if r.code != fault.code || last.text("reason") != fault.reason {
				t.Errorf("exit %d, reason %q, want %d, %q\n%s", r.code, last.text("reason"), fault.code, fault.reason, r.stderr)
			}
			if took > 10*time.Second {
				t.Errorf("it took %s to say so, want at most 10 s", took)
			}
			sources, why := 0, ""
			for _, e := range r.events {
				if e.text("event") == "source" {
					sources++
					why += e.text("error")
				}
			}
			if sources == 0 {
				t.Error("--explain tells no source")
			}
			if (fault.code == 7 || fault.code == 11 || fault.code == 6) && why == "" {
				t.Error("--explain tells no error")
			}
			if fault.code == 8 {
				if _, err := os.Stat(filepath.Join(getter.dir, ".slow.bin.p2p-part")); err != nil {
					t.Errorf("what was fetched before time was up: %v", err)
				}
			}
			t.Logf("exit %2d  %-12s %5.1f s  %d sources", r.code, last.text("reason"), took.Seconds(), sources)
		})
	}
}

// bridgeAddr is a full TCP address on the bridge of a peer that is ready.
func bridgeAddr(t testing.TB, p *process) string {
	t.Helper()
	addrs, _ := p.ready["addrs"].([]any)
	for _, a := range addrs {
		if text := a.(string); strings.HasPrefix(text, "/ip4/10.77.0.") && strings.Contains(text, "/tcp/") {
			return text
		}
	}
	t.Fatalf("no address of the bridge among %v", addrs)
	return ""
}

// wall has a host drop what it is sent from an address, and say nothing, as a firewall
// does.
func wall(l *lab, ns, from string) {
	l.t.Helper()
	l.in(ns, "nft", "table inet wall { chain in { type filter hook input priority 0; ip saddr "+from+" drop; }; }")
}
