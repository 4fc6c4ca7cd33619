package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	p2ppeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
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
	probeCount     = 24
	probePatience  = 100 * time.Millisecond // soon over: then it asks without a pause
)

// run is one history: its clients, and who does the faults.
type run struct {
	*cluster
	random *rand.Rand
	self   *asker   // of the test itself
	probes []*asker // probeCount of each member, which ask nobody else
	names  []string
	writes sync.RWMutex // locked, it keeps the clients from writing; r.write goes on
}

// fault is one thing that goes wrong, and is over when it returns.
type fault struct {
	name string
	do   func(*run)
}

// hunts are the faults that stale reads come from, the surest one first; faults are
// all.
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

// write pins a name, as often as it takes for one pin to be acknowledged, and
// returns the name.
func (r *run) write() string {
	r.t.Helper()
	name := r.names[r.random.IntN(len(r.names))]
	r.writeTo(name)
	return name
}

func (r *run) writeTo(name string) {
	r.t.Helper()
	for deadline := time.Now().Add(electionMax); time.Now().Before(deadline); {
		if r.self.pin(r.t.Context(), name, true) == nil {
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

// killBeforeBehind kills the leader right after an acknowledgement, when one follower
// does not know yet that this was committed, and the other one lacks much of the log.
// So the first is elected, and can't commit anything before it has sent the other one
// all of that; meanwhile it is asked.
func (r *run) killBeforeBehind() {
	l := r.leader(nil)
	behind := r.follower(l)
	next := r.follower(l, behind)
	r.turnTo(next, l, behind)
	r.writes.Lock() // another write would tell next what was committed before it
	heal := r.part(l, behind)
	r.fill(behindBy, l, next)
	name := r.write()
	r.writeTo(name) // what it was before is what a wrong read finds
	r.kill(l)
	r.writes.Unlock()
	stop := r.probe(next, name)
	r.write()
	stop()
	heal()
	r.startAll(l)
}

// behindBy is how many entries are so much that it takes a while to send them.
const behindBy = 1000

// fill has the group do so many writes, to names that are no part of the history. It
// asks these members.
func (r *run) fill(count int, ms ...*member) {
	r.t.Helper()
	const clients = 64
	ctx, cancel := context.WithTimeout(r.t.Context(), electionMax)
	defer cancel()
	via := r.viaOf(ms...)
	var all errgroup.Group
	for i := range clients {
		client := r.watcher.Client(r.group, via...)
		name := share.Name(fmt.Sprintf("filler-%d", i))
		all.Go(func() error {
			for n := range count / clients {
				id := value(n + 1).content()
				if _, err := client.Pin(ctx, coord.PinOptions{Name: name, ID: id, Kind: coord.KindFile, Size: 1, Expect: coord.ExpectAny}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		r.t.Fatalf("fill the log: %v", err)
	}
}

// probe has a member's probes read a name, again and again, until stop is called.
func (r *run) probe(m *member, name string) (stop func()) {
	var all crowd
	var asks []func(context.Context)
	for _, p := range r.probesOf(m) {
		asks = append(asks, func(ctx context.Context) {
			for ctx.Err() == nil {
				short, cancel := context.WithTimeout(ctx, probePatience)
				p.read(short, name)
				cancel()
			}
		})
	}
	all.run(r.t.Context(), asks...)
	return all.stop
}

// turnTo has the test itself ask members in this order.
func (r *run) turnTo(ms ...*member) {
	r.self.renew = func() *coord.Client { return r.watcher.Client(r.group, r.viaOf(ms...)...) }
	r.self.client = r.self.renew()
}

func (r *run) viaOf(ms ...*member) (via []p2ppeer.AddrInfo) {
	for _, m := range ms {
		via = append(via, r.via[r.index(m)])
	}
	return via
}

func (r *run) probesOf(m *member) []*asker {
	return r.probes[r.index(m)*probeCount:][:probeCount]
}

// pauseLeader stops the leader's process until another one leads and has done a
// write, asks the stopped one, and lets it go on: it does not know what it missed.
func (r *run) pauseLeader() {
	l := r.leader(nil)
	var asking errgroup.Group
	probes := r.probesOf(l)
	for _, p := range probes {
		p.read(r.t.Context(), r.names[0]) // the stream is open before
	}
	r.signal(l, sigHalt)
	defer r.signal(l, sigGoOn)
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
	r.signal(l, sigGoOn)
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
		asks = append(asks, func(ctx context.Context) { a.work(ctx, own, i >= writerCount, &r.writes) })
	}
	r.self = newAsker(len(asks), c.watcher, c.group, c.from(0), h, r.names, writerPatience)
	for i := range voterCount * probeCount {
		via := c.via[i/probeCount]
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

// hunt does one fault that leaves a wrong read much time, again and again, each in a
// history of its own, until one of these is illegal. It returns how many that took, 0
// when none of faultsMax was, or of those begun within timeMax.
func (c *cluster) hunt(t testing.TB, nodes []*coord.Coord, number int, faultsMax int, timeMax time.Duration) int {
	t.Helper()
	began := time.Now()
	for i := 0; i < faultsMax && time.Since(began) < timeMax; i++ {
		if c.history(t, nodes, number+i, hunts[:1], 0, 1).check(t) == porcupine.Illegal {
			return i + 1
		}
	}
	return 0
}

// huntFaultsMax is how many faults a wrong build may survive. Of 80 hunts 75
// ended with the first fault, and the others with the second.
const huntFaultsMax = 40

// TestLinearizable has clients read and write through kills, stops and cuts, and
// porcupine look for an order that explains what they saw. It then hunts for builds
// whose reads are wrong, and must find them.
//
// At full length, 4 runs of at least 25 s and 40 faults, and as many hunts for each
// wrong build:
//
//	go test ./cli/e2e -run '^TestLinearizable$' -v -timeout 30m -args -long
func TestLinearizable(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	runs, length, faultsMin := 1, time.Duration(0), 2
	list, wrong, huntMax := hunts, wrongReads[:1], 10*time.Second
	if *long {
		runs, length, faultsMin = 4, 25*time.Second, huntFaultsMax
		list, wrong, huntMax = faults, wrongReads, time.Minute
	}
	c := newCluster(t)
	nodes := c.nodes(4)
	number := 0
	for range runs {
		h := c.history(t, nodes, number, list, length, faultsMin)
		if err := h.err(); err != nil {
			t.Error(err)
		}
		if result := h.check(t); result != porcupine.Ok {
			t.Errorf("run %d is %s, want %s", number, result, porcupine.Ok)
		}
		number++
	}
	for _, w := range wrong {
		c.replaceProgram(mutant(t, "coord/raft.go", rightRead, w.text))
		for range runs {
			began := time.Now()
			took := c.hunt(t, nodes, number, huntFaultsMax, huntMax)
			number += huntFaultsMax // names are not used again
			after := time.Since(began).Round(time.Millisecond)
			if took == 0 {
				t.Errorf("a build that %s is not found within %v", w.name, after)
				continue
			}
			t.Logf("a build that %s: found by fault %d, after %v", w.name, took, after)
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
