package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	p2ppeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"golang.org/x/sync/errgroup"
)

// Clients of one run. Writers read, too, and go to another member when one does
// not answer; readers stay with one, as those do who are led astray, and soon ask
// again: what began before a write was acknowledged proves nothing.
const (
	writerCount    = 12
	readerCount    = 24
	nameCount      = 6
	writerPatience = 3 * time.Second
	readerPatience = 250 * time.Millisecond
)

// run is one history: its clients, and who does the faults.
type run struct {
	*cluster
	random *rand.Rand
	self   *asker // of the test itself
	probes []*asker
	names  []string
}

// fault is one thing that goes wrong, and is over when it returns.
type fault struct {
	name string
	do   func(*run)
}

// hunts are the faults that stale reads come from; faults are all.
var (
	hunts = []fault{
		{"leader killed after an acknowledgement, the other follower behind", (*run).killBeforeBehind},
		{"leader stopped until another leads", (*run).pauseLeader},
		{"leader killed after an acknowledgement", (*run).killLeader},
	}
	faults = append([]fault{
		{"follower killed", (*run).killFollower},
		{"leader cut off", func(r *run) { r.cutLeader(in, out) }},
		{"leader hears nothing", func(r *run) { r.cutLeader(in) }},
		{"leader is not heard", func(r *run) { r.cutLeader(out) }},
		{"follower is not heard", (*run).cutFollower},
	}, hunts...)
)

// write pins a name, as often as it takes for one pin to be acknowledged.
func (r *run) write() {
	r.t.Helper()
	for deadline := time.Now().Add(electionMax); time.Now().Before(deadline); {
		if r.self.pin(r.t.Context(), r.names[r.random.IntN(len(r.names))], true) == nil {
			return
		}
	}
	r.t.Fatalf("no write is acknowledged within %v, though a majority is well", electionMax)
}

func (r *run) killLeader() {
	l := r.leader(nil)
	r.write()
	r.kill(l)
	r.startAll(l)
}

// killBeforeBehind kills the leader when one follower lacks what the group has
// done for a while, so that the other leads, and has much to send before it can
// know what was committed.
func (r *run) killBeforeBehind() {
	l := r.leader(nil)
	behind := r.follower(l)
	r.cut(behind, in, out)
	for range 20 {
		r.write()
	}
	r.write()
	r.kill(l)
	r.heal(behind)
	r.startAll(l)
}

// pauseLeader stops the leader's process until another one leads and has done a
// write, asks the stopped one, and lets it go on: it does not know what it missed.
func (r *run) pauseLeader() {
	l := r.leader(nil)
	var asking errgroup.Group
	probes := r.probes[r.index(l)*len(r.probes)/voterCount:][:len(r.probes)/voterCount]
	for _, p := range probes {
		p.read(r.t.Context(), r.names[0]) // the stream is open before
	}
	r.signal(l, syscall.SIGSTOP)
	defer r.signal(l, syscall.SIGCONT)
	r.leader(l)
	for range nameCount {
		r.write()
	}
	asked := make(chan struct{}, len(probes))
	for i, p := range probes {
		asking.Go(func() error {
			asked <- struct{}{}
			return p.read(r.t.Context(), r.names[i%len(r.names)])
		})
	}
	for range probes {
		<-asked
	}
	r.write() // long enough for the requests to be sent
	r.signal(l, syscall.SIGCONT)
	asking.Wait()
}

func (r *run) killFollower() {
	f := r.follower(r.leader(nil))
	r.kill(f)
	r.write()
	r.startAll(f)
}

func (r *run) cutLeader(directions ...string) {
	l := r.leader(nil)
	r.cut(l, directions...)
	r.leader(l)
	r.write()
	r.heal(l)
}

func (r *run) cutFollower() {
	f := r.follower(r.leader(nil))
	r.cut(f, out)
	for range 10 {
		r.write()
	}
	r.heal(f)
}

// history runs clients for at least so long and so many faults, and returns what
// they saw.
func (c *cluster) history(t testing.TB, nodes []*coord.Coord, number int, list []fault, length time.Duration, faultsMin int) *history {
	t.Helper()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	h := newHistory()
	r := &run{cluster: c, random: random}
	for i := range nameCount {
		r.names = append(r.names, fmt.Sprintf("run-%d-%d", number, i))
	}
	var asks []func(context.Context)
	for i := range writerCount + readerCount {
		n, via, patience := nodes[i%len(nodes)], c.from(i), writerPatience
		if i >= writerCount {
			via, patience = via[:1], readerPatience
		}
		a := newAsker(i, n, c.group, via, h, r.names, patience)
		own := rand.New(rand.NewPCG(seed, uint64(i+1)))
		asks = append(asks, func(ctx context.Context) { a.work(ctx, own, i >= writerCount) })
	}
	r.self = newAsker(len(asks), c.watcher, c.group, c.from(0), h, r.names, writerPatience)
	for i := range voterCount * 24 {
		via := c.via[i/24]
		r.probes = append(r.probes, newAsker(len(asks)+1+i, c.watcher, c.group, []p2ppeer.AddrInfo{via}, h, r.names, writerPatience))
	}
	began := time.Now()
	var people crowd
	people.run(t.Context(), asks...)
	defer people.stop()
	done := 0
	for time.Since(began) < length || done < faultsMin {
		for _, i := range random.Perm(len(list)) {
			if time.Since(began) >= length && done >= faultsMin {
				break
			}
			at := time.Since(began)
			list[i].do(r)
			r.write()
			done++
			t.Logf("%6.2f s: %s; over and written after %v", at.Seconds(), list[i].name, (time.Since(began) - at).Round(time.Millisecond))
		}
	}
	people.stop()
	t.Logf("seed %d: %d faults in %v", seed, done, time.Since(began).Round(time.Millisecond))
	return h
}

// TestLinearizable has clients read and write through kills, stops and cuts, and
// porcupine look for an order that explains what they saw. It then does the same
// to builds whose reads are wrong, and must find that.
//
// At full length, 4 runs of at least 25 s and 10 faults, and as many of both wrong
// builds:
//
//	go test ./cli/e2e -run '^TestLinearizable$' -v -timeout 30m -args -long
func TestLinearizable(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	runs, length, faultsMin := 1, 4*time.Second, 3
	list := hunts
	wrong := wrongReads[:1]
	if *long {
		runs, length, faultsMin = 4, 25*time.Second, 10
		list, wrong = faults, wrongReads
	}
	c := newCluster(t)
	var nodes []*coord.Coord
	for i := range 4 {
		nodes = append(nodes, c.node(i+1))
	}
	number := 0
	for range runs {
		if result := c.history(t, nodes, number, list, length, faultsMin).check(t); result != porcupine.Ok {
			t.Errorf("run %d is %s, want %s", number, result, porcupine.Ok)
		}
		number++
	}
	for _, w := range wrong {
		c.replaceProgram(mutant(t, "coord/raft.go", rightRead, w.text))
		found := 0
		for range runs {
			if c.history(t, nodes, number, hunts, length, faultsMin).check(t) == porcupine.Illegal {
				found++
			}
			number++
		}
		t.Logf("a build that %s: found in %d of %d runs", w.name, found, runs)
		if found < runs {
			t.Errorf("a build that %s: found in %d of %d runs, want all", w.name, found, runs)
		}
	}
}

// rightRead is what readIndex does, once it is known that this member leads.
const rightRead = `	if err := m.fence(ctx); err != nil {
		return err
	}
	term, commit := m.raft.CurrentTerm(), m.raft.CommitIndex()
	if err := m.verify(ctx, term); err != nil {
		return err
	}
	if m.raft.CurrentTerm() != term || !m.fenced(term) {
		return ErrNoLeader // it led again, in a later term: without a barrier the wait may not end
	}
	return m.fsm.wait(ctx, commit)
`

// wrongReads are what people do instead.
var wrongReads = []struct{ name, text string }{
	{"reads the leader's memory", "\treturn nil\n"},
	{"only verifies that it leads", "\treturn leadership(await(ctx, m.raft.VerifyLeader()))\n"},
}
