package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/coord"
)

// etcdMember is an etcd of a cluster: its data, and the process that runs on it.
type etcdMember struct {
	args   []string
	client string // host:port
	cmd    *exec.Cmd
}

// etcdCluster is three etcds on loopback, and the program that puts into them.
type etcdCluster struct {
	load    string // program
	members []*etcdMember
}

// newEtcdCluster starts etcd as it comes: heartbeats each 100 ms, elections after
// a second, every write synced to the disk.
func newEtcdCluster(t *testing.T) *etcdCluster {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("etcd is not installed (Debian package etcd-server)")
	}
	c := &etcdCluster{load: filepath.Join(t.TempDir(), "etcdload")}
	build := exec.Command("go", "build", "-o", c.load, ".")
	build.Dir = filepath.Join("testdata", "etcdload")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("etcd's client can't be built, which needs its module: %v\n%s", err, out)
	}
	var all []string
	ports := freePorts(t, 6)
	for i := range 3 {
		all = append(all, fmt.Sprintf("m%d=http://%s", i, ports[3+i]))
	}
	for i := range 3 {
		c.members = append(c.members, &etcdMember{client: ports[i], args: []string{program, "--name", fmt.Sprintf("m%d", i),
			"--data-dir", filepath.Join(t.TempDir(), "data"), "--log-level", "error",
			"--listen-client-urls", "http://" + ports[i], "--advertise-client-urls", "http://" + ports[i],
			"--listen-peer-urls", "http://" + ports[3+i], "--initial-advertise-peer-urls", "http://" + ports[3+i],
			"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new"}})
	}
	for _, m := range c.members {
		m.start(t)
	}
	for _, m := range c.members {
		c.awaitWrite(t, m)
	}
	return c
}

func (m *etcdMember) start(t *testing.T) {
	t.Helper()
	m.cmd = exec.Command(m.args[0], m.args[1:]...)
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := m.cmd
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

// cpu is the processor time that the members have used.
func (c *etcdCluster) cpu(t *testing.T) time.Duration {
	t.Helper()
	var sum time.Duration
	for _, m := range c.members {
		sum += (&process{cmd: m.cmd}).cpu(t)
	}
	return sum
}

func (m *etcdMember) kill(t *testing.T) {
	t.Helper()
	if err := m.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	m.cmd.Wait()
}

// freePorts are addresses of loopback on which nobody listens just now.
func freePorts(t *testing.T, count int) []string {
	t.Helper()
	var addrs []string
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

func (c *etcdCluster) endpoints() string {
	var list []string
	for _, m := range c.members {
		list = append(list, m.client)
	}
	return strings.Join(list, ",")
}

func (c *etcdCluster) command(t *testing.T, atMost time.Duration, endpoints string, args ...any) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), atMost)
	defer cancel()
	list := []string{"-endpoints", endpoints}
	for _, a := range args {
		list = append(list, fmt.Sprint(a))
	}
	return exec.CommandContext(ctx, c.load, list...).Output()
}

// awaitWrite waits until a member takes a write.
func (c *etcdCluster) awaitWrite(t *testing.T, m *etcdMember) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(commandMax); time.Now().Before(deadline); {
		if _, err = c.command(t, 10*time.Second, m.client, "-count", 1); err == nil {
			return
		}
	}
	t.Fatalf("etcd at %s takes no write: %v", m.client, err)
}

func (c *etcdCluster) leader(t *testing.T) *etcdMember {
	t.Helper()
	var out []byte
	var err error
	for deadline := time.Now().Add(commandMax); time.Now().Before(deadline); {
		if out, err = c.command(t, 10*time.Second, c.endpoints(), "-leader"); err == nil {
			client := strings.TrimSpace(string(out))
			return c.members[slices.IndexFunc(c.members, func(m *etcdMember) bool { return m.client == client })]
		}
	}
	t.Fatalf("etcd has no leader: %v", err)
	return nil
}

// put is one run of puts through the leader.
func (c *etcdCluster) put(t *testing.T, connections, clients, count int, next *atomic.Int64) float64 {
	t.Helper()
	out, err := c.command(t, commandMax, c.leader(t).client, "-connections", connections, "-clients", clients, "-count", count,
		"-first", next.Add(int64(count))-int64(count))
	var r struct{ Seconds float64 }
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		t.Fatalf("etcdload: %v", err)
	}
	return float64(count) / r.Seconds
}

// etcdWriter puts one value into etcd whenever it is asked to.
type etcdWriter struct {
	in  io.WriteCloser
	out *bufio.Reader
}

func (c *etcdCluster) writer(t *testing.T) *etcdWriter {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.load, "-endpoints", c.endpoints(), "-lines")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	return &etcdWriter{in, bufio.NewReader(out)}
}

func (a *etcdWriter) put(t *testing.T) {
	t.Helper()
	_, err := fmt.Fprintln(a.in)
	if err == nil {
		_, err = a.out.ReadString('\n')
	}
	if err != nil {
		t.Fatalf("etcdload: %v", err)
	}
}

// rivalry is how long the comparison with etcd takes, and what must come out.
type rivalry struct {
	rounds   int
	runs     []rivalRun
	trials   int // of failover
	failover time.Duration
	longest  time.Duration
}

// rivalRun is a number of clients, how much they write a round, and how many
// times etcd's puts per second must be reached, 0 for any.
type rivalRun struct {
	clients, writes int
	atLeast         float64
}

var (
	fullRivalry = rivalry{rounds: 5, trials: 20, failover: time.Second, longest: 2500 * time.Millisecond,
		runs: []rivalRun{{1, 3_000, 1.3}, {16, 20_000, 2}, {128, 60_000, 2}}}
	shortRivalry = rivalry{rounds: 1, trials: 1, failover: 10 * time.Second, longest: 10 * time.Second,
		runs: []rivalRun{{1, 100, 0}, {16, 1_000, 0}, {128, 2_000, 0}}}
)

// TestBesideEtcd compares a group of three daemons with three etcds, on loopback
// and on the disk of the temporary directory, in turn: writes of 256 bytes
// (valuePin says which; etcd's have a key of 8 besides) per second, through the
// leader, with up to eight clients a connection; and how long after kill -9 of the
// leader the next write is committed. In full it takes some minutes:
//
//	go test ./cli/e2e -run TestBesideEtcd -v -timeout 20m -args -long
func TestBesideEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 seconds")
	}
	r := shortRivalry
	if *long {
		r = fullRivalry
	}
	etcd := newEtcdCluster(t)
	all := newGroup(t, 3)
	r.compareFailover(t, etcd, all) // first, while there is little to read at a start
	r.compareWrites(t, etcd, all)
}

func (r rivalry) compareWrites(t *testing.T, etcd *etcdCluster, all []*member) {
	group := groupID(t, all[0])
	most := slices.MaxFunc(r.runs, func(a, b rivalRun) int { return a.clients - b.clients }).clients
	writers := newWriters(t, all[0], connectionsOf(most))
	var next, nextPut atomic.Int64
	for _, run := range r.runs {
		var theirs, ours, ratios []float64
		var theirCPU, ourCPU time.Duration
		for range r.rounds {
			cpu := etcd.cpu(t)
			put := etcd.put(t, connectionsOf(run.clients), run.clients, run.writes, &nextPut)
			theirCPU += etcd.cpu(t) - cpu
			list := leaderFirst(t, all)
			var clients []*coord.Client
			for _, w := range writers[:connectionsOf(run.clients)] {
				cl := w.ask(t, group, list...)
				if _, _, err := cl.Status(t.Context()); err != nil { // connects
					t.Fatal(err)
				}
				clients = append(clients, cl)
			}
			cpu = daemonsCPU(t, all)
			l, err := write(t.Context(), clients, run.clients, run.writes, &next, valuePin)
			if err != nil {
				t.Fatal(err)
			}
			ourCPU += daemonsCPU(t, all) - cpu
			theirs, ours, ratios = append(theirs, put), append(ours, l.perSecond()), append(ratios, l.perSecond()/put)
		}
		each := time.Duration(r.rounds * run.writes)
		t.Logf("%3d clients: %6.0f puts/s, etcd %6.0f, ratio %.2f (medians of %d rounds; ratios %.2f); processor time of the members for a put %v, etcd %v",
			run.clients, median(ours), median(theirs), median(ratios), r.rounds, ratios, ourCPU/each, theirCPU/each)
		if median(ratios) < run.atLeast {
			t.Errorf("%d clients: %.2f times etcd's puts per second, want %.1f", run.clients, median(ratios), run.atLeast)
		}
	}
}

func daemonsCPU(t *testing.T, all []*member) time.Duration {
	t.Helper()
	var sum time.Duration
	for _, m := range all {
		sum += m.daemon.cpu(t)
	}
	return sum
}

// connectionsOf is how many connections clients share.
func connectionsOf(clients int) int { return (clients + 7) / 8 }

// compareFailover kills leaders. A write that is begun right after is tried until
// it is committed.
func (r rivalry) compareFailover(t *testing.T, etcd *etcdCluster, all []*member) {
	group := groupID(t, all[0])
	w := newWriters(t, all[0], 1)[0]
	cl := w.ask(t, group, all...)
	ask := etcd.writer(t)
	var next atomic.Int64
	pin := func() {
		t.Helper()
		if _, err := cl.Pin(t.Context(), filePin(10_000_000+int(next.Add(1)))); err != nil {
			t.Fatal(err)
		}
	}
	var theirs, ours []float64
	for trial := range r.trials {
		ask.put(t) // connects
		m := etcd.leader(t)
		died := time.Now()
		m.kill(t)
		ask.put(t)
		theirs = append(theirs, time.Since(died).Seconds())
		m.start(t)
		etcd.awaitWrite(t, m)

		pin()
		leader := leaderFirst(t, all)[0]
		died = time.Now()
		leader.daemon.end(t, os.Kill)
		pin()
		ours = append(ours, time.Since(died).Seconds())
		t.Logf("trial %d: %.2f s, etcd %.2f", trial+1, ours[trial], theirs[trial])
		leader.start(t)
		awaitGroup(t, leader, "three voters", func(g event) bool { return g.number("voters_up") == 3 && g.text("leader") != "" })
	}
	t.Logf("failover: median %.2f s, max %.2f s; etcd %.2f, %.2f (%d trials each)",
		median(ours), slices.Max(ours), median(theirs), slices.Max(theirs), r.trials)
	if m := median(ours); *long && m > median(theirs) || m > r.failover.Seconds() {
		t.Errorf("median failover: %.2f s, want at most %v and etcd's %.2f s", m, r.failover, median(theirs))
	}
	if slices.Max(ours) > r.longest.Seconds() {
		t.Errorf("longest failover: %.2f s, want at most %v", slices.Max(ours), r.longest)
	}
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
