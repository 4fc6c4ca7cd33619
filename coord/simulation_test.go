package coord

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

var (
	long = flag.Bool("long", false, "simulate 200 seeds, about 40 virtual hours")
	seed = flag.Uint64("seed", 0, "simulate this seed alone")
)

// TestSimulation has members of a group cut off, crashed, stopped, starved of disk,
// removed and let in again, as a seed says, while pins are made, and heals all of it
// again and again; every eighth seed has WAN's timing. There are never two leaders
// in a term, a heal commits within 10 virtual seconds, after it all states are
// equal, no pin that was acknowledged is lost, and none is there that was taken
// away or has expired.
//
// Raft's messages and the members' disks are simulated: see simNet and simDisk.
//
//	go test ./coord -run 'TestSimulation$' -timeout 1h -args -long     200 seeds
//	go test ./coord -run 'TestSimulation$' -args -seed 17              one
func TestSimulation(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	simulateSeeds(t, 8, 200, true)
}

// TestSimulationOverStreams is TestSimulation over mock streams in place of simNet,
// which has the code that carries Raft's messages run as well, and takes 20 times as
// long. Links are cut both ways, and both ends are told.
//
//	go test ./coord -run TestSimulationOverStreams -timeout 1h -args -long
func TestSimulationOverStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	simulateSeeds(t, 1, 20, false)
}

func simulateSeeds(t *testing.T, usually, atLength uint64, inMemory bool) {
	first, last := uint64(1), usually
	if *long {
		last = atLength
	}
	if *seed > 0 {
		first, last = *seed, *seed
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	var virtual atomic.Int64
	start := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for s := first; s <= last; s++ {
			t.Run(fmt.Sprint(s), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { virtual.Add(int64(simulate(t, s, inMemory))) })
			})
		}
	})
	hours := time.Duration(virtual.Load()).Hours()
	took := time.Since(start)
	t.Logf("%.1f virtual hours in %s: %.0f a minute", hours, took.Round(time.Millisecond), hours/took.Minutes())
}

// elections keeps who won which term.
type elections struct {
	slog.Handler // discards

	t    testing.TB
	peer int
	won  *sync.Map // term → peer
	told *journal
}

// journal keeps what the members' logs said last, for when a seed fails.
type journal struct {
	mu    sync.Mutex
	start time.Time
	lines []journalLine // guarded by mu
}

type journalLine struct {
	peer   int
	record slog.Record
}

const journalMax = 400

func (j *journal) add(peer int, r slog.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lines) == 2*journalMax {
		j.lines = append(j.lines[:0], j.lines[journalMax:]...)
	}
	j.lines = append(j.lines, journalLine{peer, r})
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var b strings.Builder
	for _, l := range j.lines[max(0, len(j.lines)-journalMax):] {
		fmt.Fprintf(&b, "%12s peer %d: %s", l.record.Time.Sub(j.start).Round(time.Millisecond), l.peer, l.record.Message)
		l.record.Attrs(func(a slog.Attr) bool {
			fmt.Fprintf(&b, " %s", a)
			return true
		})
		b.WriteByte('\n')
	}
	return b.String()
}

func (e elections) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelDebug }
func (e elections) WithAttrs([]slog.Attr) slog.Handler           { return e }
func (e elections) WithGroup(string) slog.Handler                { return e }

func (e elections) Handle(_ context.Context, r slog.Record) error {
	e.told.add(e.peer, r)
	if r.Message != "raft: election won" {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "term" {
			term := a.Value.Any()
			if other, loaded := e.won.LoadOrStore(term, e.peer); loaded && other != e.peer {
				e.t.Errorf("peers %v and %d both won term %v", other, e.peer, term)
			}
		}
		return true
	})
	return nil
}

// simulation is a world in which things fail.
type simulation struct {
	*world
	random *rand.Rand
	net    *simNet // nil: over mock streams
	disks  []*simDisk
	won    *sync.Map // term → peer
	told   *journal
	id     GroupID

	made     int
	acked    []string             // pins that are to be there
	unpinned []string             // pins that are not
	expiring map[string]time.Time // pins that are until then
	reader   *bool                // a stranger is one; nil: not known
	odd      bool                 // a member's state was changed
	counts   map[string]int       // what happened how often
}

// newSimulation makes a world of count peers. Its disks and, inMemory, its net
// are simulated.
func newSimulation(t testing.TB, count int, random *rand.Rand, timing Timing, inMemory bool) *simulation {
	s := &simulation{random: random, disks: make([]*simDisk, count), won: &sync.Map{}, told: &journal{start: time.Now()},
		expiring: map[string]time.Time{}, counts: map[string]int{}}
	if inMemory {
		s.net = newSimNet()
		t.Cleanup(func() { // after the peers have ended
			for _, r := range s.net.led {
				abandon(r)
			}
		})
	}
	s.world = newWorldOf(t, count, func(i int, p *testPeer) {
		p.dir, p.timing = simDir(t), timing
		if p.log == nil {
			p.log = slog.New(elections{Handler: slog.DiscardHandler, t: t, peer: i, won: s.won, told: s.told})
		}
		p.prepare = func(c *Coord) {
			s.disks[i] = new(simDisk)
			c.parts.raftlog = raftlog.Config{SegmentSize: 16 << 10, Faults: s.disks[i].faults()}
			c.parts.snapshotThreshold, c.parts.trailingLogs = 40, 10
			if s.net != nil {
				c.parts.carrier, c.links.node = s.net.carrier, simNode{p.n, s.net}
			}
		}
	})
	if s.net != nil {
		s.held.mu.Lock()
		defer s.held.mu.Unlock()
		s.held.cut = func(from, to peer.ID) bool { return s.net.state(from, to) != whole }
	}
	return s
}

func simulate(t *testing.T, seed uint64, inMemory bool) time.Duration {
	start := time.Now()
	random := rand.New(rand.NewPCG(seed, 7))
	timing := LAN
	if seed%8 == 0 {
		timing = WAN
	}
	voters := []int{3, 3, 5}[random.IntN(3)]
	s := newSimulation(t, voters+1, random, timing, inMemory)
	g := s.found(voters)[0]
	s.id = g.ID()
	for _, p := range s.peers[1:voters] {
		if err := s.peers[0].Client(s.id).Grant(t.Context(), p.n.ID(), RoleAdmin); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		for range 8 {
			s.fault()
			for range 1 + random.IntN(3) {
				s.use()
			}
			time.Sleep(time.Duration(random.IntN(10_000)) * time.Millisecond)
			s.bury()
		}
		s.heal()
		time.Sleep(time.Duration(random.IntN(30_000)) * time.Millisecond)
	}
	terms := 0
	s.won.Range(func(any, any) bool { terms++; return true })
	s.counts["terms"], s.counts["voters"] = terms, voters
	t.Logf("%s: %v", time.Since(start).Round(time.Second), s.counts)
	return time.Since(start)
}

// fault has something fail, or be mended.
func (s *simulation) fault() {
	i, j := s.random.IntN(len(s.peers)), s.random.IntN(len(s.peers)-1)
	if j >= i {
		j++
	}
	lead := s.leader(s.groups())
	switch n := s.random.IntN(20); n {
	case 0, 1:
		s.cut(i, j, s.someCut(), s.random.IntN(3) == 0)
	case 2:
		s.cut(i, j, whole, false)
	case 3, 4:
		s.cutOff(i, s.someCut())
	case 5:
		s.cutOff(i, whole)
	case 6, 7, 8: // the leader, of whom everything hangs
		if lead >= 0 {
			s.cutOff(lead, s.someCut())
		}
	case 9, 10:
		s.crash(i)
	case 11:
		if lead >= 0 {
			s.crash(lead)
		}
	case 12, 13:
		for i := range s.peers {
			s.restart(i)
		}
	case 14:
		s.planned(i)
	case 15:
		if lead >= 0 {
			s.planned(lead)
		}
	case 16: // raftlog gives up after 10 s
		s.hang(i, time.Duration(s.random.IntN(13_000))*time.Millisecond)
	case 17:
		s.disks[i].setFull(s.random.IntN(2) == 0)
		s.held.store(s.peers[i].n.ID()).setFull(s.random.IntN(2) == 0)
	case 18:
		s.comeOrGo()
	case 19:
		s.forge(i)
	}
}

func (s *simulation) someCut() cut { return []cut{refused, lossy}[s.random.IntN(2)] }

// cut cuts or mends a link, one way or both.
func (s *simulation) cut(i, j int, c cut, oneWay bool) {
	s.counts["cuts"]++
	if s.net == nil {
		s.link(i, j, c == whole)
		return
	}
	a, b := s.peers[i].n.ID(), s.peers[j].n.ID()
	s.net.set(a, b, c)
	if !oneWay {
		s.net.set(b, a, c)
	}
}

func (s *simulation) cutOff(i int, c cut) {
	for j := range s.peers {
		if j != i {
			s.cut(i, j, c, false)
		}
	}
}

// crash ends a member without a word, and what no fsync has confirmed is lost.
func (s *simulation) crash(i int) {
	p := s.peers[i]
	if p.down {
		return
	}
	s.counts["crashes"]++
	if s.net != nil {
		s.net.setOff(p.n.ID(), s.someCut())
	}
	s.disks[i].crash(s.random)
	s.held.store(p.n.ID()).setOff(true)
	s.end(i)
}

// end ends a member whose disk is dead.
func (s *simulation) end(i int) error {
	p := s.peers[i]
	for _, g := range p.Groups() {
		g.abrupt.Store(true)
	}
	p.down = true
	err := p.stop()
	p.Close()
	p.stop = func() error { return nil }
	return err
}

// bury ends the members that have given up by themselves, as a process would.
func (s *simulation) bury() {
	for i, p := range s.peers {
		select {
		case <-p.ended:
			if p.down {
				continue
			}
			s.counts["gave up"]++
			s.disks[i].crash(s.random)
			// A member that begins anew needs room for a log.
			if err := s.end(i); !isStopped(err) && !errors.Is(err, ErrDiskFull) {
				s.t.Errorf("Run of peer %d = %v, want ErrStopped or ErrDiskFull", i, err)
			}
		default:
		}
	}
}

func (s *simulation) restart(i int) {
	p := s.peers[i]
	if !p.down {
		return
	}
	if s.net != nil {
		s.net.setOff(p.n.ID(), whole)
	}
	s.held.store(p.n.ID()).setOff(false)
	p.start(s.t)
}

// planned stops a member, which hands over, and starts it again at once.
func (s *simulation) planned(i int) {
	p := s.peers[i]
	if p.down || s.disks[i].hangs() {
		return
	}
	s.counts["stops"]++
	p.down = true
	if err := p.stop(); err != nil && !isStopped(err) {
		s.t.Errorf("planned stop of peer %d: %v", i, err)
	}
	p.Close()
	p.start(s.t)
}

// hang has a member's fsyncs hang for a while.
func (s *simulation) hang(i int, d time.Duration) {
	if s.net == nil || s.peers[i].down {
		return
	}
	s.counts["hangs"]++
	disk := s.disks[i]
	disk.setHang(true)
	time.AfterFunc(d, func() { disk.setHang(false) })
}

// groups returns the peers' groups, nil for a peer that is in none or down.
func (s *simulation) groups() []*Group {
	groups := make([]*Group, len(s.peers))
	for i, p := range s.peers {
		if g, err := p.group(s.id); err == nil && !p.down {
			groups[i] = g
		}
	}
	return groups
}

// someone returns a random member that is up, -1 when there is none.
func (s *simulation) someone() int {
	var list []int
	for i, g := range s.groups() {
		if g != nil {
			list = append(list, i)
		}
	}
	if len(list) == 0 {
		return -1
	}
	return list[s.random.IntN(len(list))]
}

// within is a context of so many seconds.
func (s *simulation) within(seconds int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.t.Context(), time.Duration(seconds)*time.Second)
}

func without(list []string, x string) []string {
	return slices.DeleteFunc(list, func(y string) bool { return x == y })
}
