package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	p2ppeer "github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/node"
)

// cluster is a group of voters, each a daemon in a namespace of its own, and
// nodes of this process that are no members and ask them, all on one bridge.
// The addresses are of the range for benchmarks, RFC 2544: neither loopback nor
// in use, and others for each process of tests.
type cluster struct {
	t       testing.TB
	lab     *lab
	group   coord.GroupID
	members []*member
	via     []p2ppeer.AddrInfo // the members, in their order
	hub     string             // the bridge's namespace
	port    string             // of this namespace on the bridge
	watcher *coord.Coord       // asks for the members' status
}

const voterCount = 3

// address is one of the bridge's network: members' are from 1 on, nodes' from 101.
func address(number int) string { return fmt.Sprintf("198.18.%d.%d", os.Getpid()%256, number) }

// electionMax is how long a group may need to have a leader, or to commit a write,
// once a majority is well.
const electionMax = 10 * time.Second

func newCluster(t testing.TB) *cluster {
	t.Helper()
	needNFT(t)
	c := &cluster{t: t, lab: newLab(t)}
	c.hub = c.lab.hub("sw")
	c.port = fmt.Sprintf("p2p%d", os.Getpid())
	c.lab.run("ip", "link", "add", c.port, "type", "veth", "peer", "name", "here", "netns", c.hub)
	t.Cleanup(func() { c.lab.run("ip", "link", "del", c.port) })
	c.lab.run("ip", "-n", c.hub, "link", "set", "here", "master", "br0", "up")
	c.lab.run("ip", "link", "set", c.port, "up")
	for i := range voterCount {
		ip := address(i + 1)
		m := &member{peer: newPeer(t, "--no-lan", "--listen", "/ip4/"+ip+"/tcp/4001")}
		m.netns = c.lab.host(fmt.Sprintf("m%d", i+1))
		c.lab.plug(m.netns, "eth0", ip+"/24", c.hub)
		m.start(t)
		c.members = append(c.members, m)
		info, err := p2ppeer.AddrInfoFromString(m.daemon.addr(t))
		if err != nil {
			t.Fatal(err)
		}
		c.via = append(c.via, *info)
	}
	first := c.members[0]
	first.group(t, "create", "office")
	for _, m := range c.members[1:] {
		m.group(t, "join", first.group(t, "invite").text("token"))
	}
	status := awaitGroup(t, first, "its voters", func(g event) bool { return g.number("voters_up") == voterCount })
	id, err := coord.ParseGroupID(status.text("id"))
	if err != nil {
		t.Fatal(err)
	}
	c.group = id
	c.watcher = c.node(0)
	return c
}

// node returns a node of this process that may read and write. number tells it
// from others.
func (c *cluster) node(number int) *coord.Coord {
	c.t.Helper()
	ip := address(101 + number)
	c.lab.run("ip", "addr", "add", ip+"/24", "dev", c.port)
	n, err := node.New(c.t.Context(), node.Config{Dir: c.t.TempDir(), NoDHT: true, NoMulticast: true,
		Listen: []ma.Multiaddr{ma.StringCast("/ip4/" + ip + "/tcp/0")}})
	if err != nil {
		c.t.Fatal(err)
	}
	asks, err := coord.Open(n, coord.Config{})
	if err != nil {
		c.t.Fatal(errors.Join(err, n.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	c.t.Cleanup(func() {
		asks.Close()
		cancel()
		running.Wait()
		n.Close()
	})
	c.members[0].group(c.t, "grant", n.ID().String(), "writer")
	return asks
}

// nodes returns so many nodes, see node.
func (c *cluster) nodes(count int) (all []*coord.Coord) {
	c.t.Helper()
	for i := range count {
		all = append(all, c.node(i+1))
	}
	return all
}

// from is the members in the order in which a client asks them, that one first.
func (c *cluster) from(first int) []p2ppeer.AddrInfo {
	first %= len(c.via)
	return append(append([]p2ppeer.AddrInfo{}, c.via[first:]...), c.via[:first]...)
}

// leader waits for a member, other than not, that says of itself that it leads.
func (c *cluster) leader(not *member) *member {
	c.t.Helper()
	for deadline := time.Now().Add(electionMax); time.Now().Before(deadline); {
		for i, m := range c.members {
			if m != not && c.leads(i) {
				return m
			}
		}
	}
	c.t.Fatalf("nobody leads within %v", electionMax)
	return nil
}

func (c *cluster) leads(i int) bool {
	ctx, cancel := context.WithTimeout(c.t.Context(), 300*time.Millisecond)
	defer cancel()
	status, _, err := c.watcher.Client(c.group, c.via[i]).Status(ctx)
	return err == nil && status.Leader == status.Peer
}

// follower returns a member other than these.
func (c *cluster) follower(but ...*member) *member {
next:
	for _, m := range c.members {
		for _, b := range but {
			if m == b {
				continue next
			}
		}
		return m
	}
	return nil
}

func (c *cluster) index(m *member) int {
	for i := range c.members {
		if c.members[i] == m {
			return i
		}
	}
	panic("no member of the cluster")
}

// kill ends members as a power cut of their machines does, but for the kernel.
func (c *cluster) kill(ms ...*member) {
	c.t.Helper()
	var ps []*process
	for _, m := range ms {
		ps = append(ps, m.daemon)
	}
	endAll(c.t, os.Kill, ps...)
}

// signal sends a signal that the process outlives.
func (c *cluster) signal(m *member, s syscall.Signal) {
	c.t.Helper()
	if err := m.daemon.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// startAll starts members that are down, at once.
func (c *cluster) startAll(ms ...*member) {
	c.t.Helper()
	for _, m := range ms {
		m.daemon = m.peer.start(c.t, "daemon")
	}
	for _, m := range ms {
		m.daemon.awaitReady(c.t)
	}
}

// Directions of a cut.
const (
	in  = "input"
	out = "output"
)

// cut drops the packets between a member and the other members, in one direction
// or both. Clients still reach it: those it answers are who it could lead astray.
func (c *cluster) cut(m *member, directions ...string) {
	c.t.Helper()
	var others []*member
	for _, o := range c.members {
		if o != m {
			others = append(others, o)
		}
	}
	c.drop(m, others, directions...)
}

// part drops the packets between two members, until heal is called.
func (c *cluster) part(m, other *member) (heal func()) {
	c.t.Helper()
	c.drop(m, []*member{other}, in, out)
	return func() { c.t.Helper(); c.heal(m) }
}

func (c *cluster) drop(m *member, others []*member, directions ...string) {
	c.t.Helper()
	var addresses []string
	for _, o := range others {
		addresses = append(addresses, address(c.index(o)+1))
	}
	var rules strings.Builder
	for _, d := range directions {
		end := map[string]string{in: "saddr", out: "daddr"}[d]
		fmt.Fprintf(&rules, "chain %s { type filter hook %s priority 0; ip %s { %s } drop; }\n", d, d, end, strings.Join(addresses, ", "))
	}
	c.lab.in(m.netns, "nft", "table inet cut {\n"+rules.String()+"}")
}

func (c *cluster) heal(m *member) {
	c.t.Helper()
	c.lab.in(m.netns, "nft", "delete", "table", "inet", "cut")
}

// replaceProgram has all members run another build from now on.
func (c *cluster) replaceProgram(path string) {
	c.t.Helper()
	c.kill(c.members...)
	for _, m := range c.members {
		m.binary = path
	}
	c.startAll(c.members...)
	c.leader(nil)
}

// mutant builds the program with a text of a file replaced. The file is named from
// the module's root.
func mutant(t testing.TB, file, text, replacement string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), text); n != 1 {
		t.Fatalf("%s has the text to replace %d times, want once: change it here too\n%s", file, n, text)
	}
	dir := t.TempDir()
	mutated, overlay, binary := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "p2pshare")
	for name, data := range map[string]string{
		mutated: strings.Replace(string(source), text, replacement, 1),
		overlay: fmt.Sprintf(`{"Replace": {%q: %q}}`, path, mutated),
	} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := build(binary, "-overlay", overlay); err != nil {
		t.Fatal(err)
	}
	return binary
}
