package coord

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

var (
	long = flag.Bool("long", false, "simulate 200 seeds, about 50 virtual hours")
	seed = flag.Uint64("seed", 0, "simulate this seed alone")
)

// TestSimulation cuts links and crashes members of a group, as a seed says, while
// pins are made, and heals all of it again and again. There are never two leaders
// in a term, a heal commits within 10 virtual seconds, after it all states are
// equal, and no pin that was acknowledged is lost.
func TestSimulation(t *testing.T) {
	first, last := uint64(1), uint64(4)
	if *long {
		last = 200
	}
	if *seed > 0 {
		first, last = *seed, *seed
	}
	var virtual time.Duration
	start := time.Now()
	for s := first; s <= last && !t.Failed(); s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { virtual += simulate(t, s) })
		})
	}
	t.Logf("%s of virtual time in %s", virtual.Round(time.Second), time.Since(start).Round(time.Millisecond))
}

// elections keeps who won which term.
type elections struct {
	slog.Handler // discards

	t    testing.TB
	peer int
	won  *sync.Map // term → peer
}

func (e elections) Enabled(context.Context, slog.Level) bool { return true }
func (e elections) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e elections) WithGroup(string) slog.Handler            { return e }

func (e elections) Handle(_ context.Context, r slog.Record) error {
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

type simulation struct {
	*world
	random *rand.Rand
	id     GroupID
	acked  []string
	made   int
}

func simulate(t *testing.T, seed uint64) time.Duration {
	start := time.Now()
	won := &sync.Map{}
	random := rand.New(rand.NewPCG(seed, 7))
	count := []int{3, 3, 5}[random.IntN(3)]
	w := newLoggedWorld(t, count, func(i int) *slog.Logger {
		if l := testLog(i); l != nil {
			return l
		}
		return slog.New(elections{Handler: slog.DiscardHandler, t: t, peer: i, won: won})
	})
	s := &simulation{world: w, random: random, id: w.found(count)[0].ID()}
	terms := 0
	for range 10 {
		for range 8 {
			s.fault()
			s.pin(2 * time.Second)
			time.Sleep(time.Duration(random.IntN(10_000)) * time.Millisecond)
		}
		s.heal()
		time.Sleep(time.Duration(random.IntN(30_000)) * time.Millisecond)
	}
	won.Range(func(any, any) bool { terms++; return true })
	t.Logf("%d peers, %d pins of %d acknowledged, %d terms, %s", count, len(s.acked), s.made, terms, time.Since(start).Round(time.Second))
	return time.Since(start)
}

func (s *simulation) fault() {
	i, j := s.random.IntN(len(s.peers)), s.random.IntN(len(s.peers)-1)
	if j >= i {
		j++
	}
	switch s.random.IntN(9) {
	case 0, 1:
		s.link(i, j, false)
	case 2:
		s.link(i, j, true)
	case 3:
		s.isolate(i, true)
	case 4:
		s.isolate(i, false)
	case 5:
		if !s.peers[i].down {
			s.peers[i].crash(s.t)
		}
	case 6:
		if s.peers[i].down {
			s.peers[i].start(s.t)
		}
	default: // the leader, of whom everything hangs
		var groups []*Group
		for _, p := range s.peers {
			groups = append(groups, p.Groups()...)
		}
		if lead := s.leader(groups); lead >= 0 {
			s.isolate(lead, true)
		}
	}
}

// pin tries to pin through any peer that is up.
func (s *simulation) pin(within time.Duration) bool {
	i := s.random.IntN(len(s.peers))
	if s.peers[i].down {
		return false
	}
	s.made++
	name := fmt.Sprint(s.made)
	ctx, cancel := context.WithTimeout(s.t.Context(), within)
	defer cancel()
	_, err := s.peers[i].Client(s.id).Pin(ctx, pinOf(name))
	if err == nil {
		s.acked = append(s.acked, name)
	}
	return err == nil
}

// heal mends everything, and checks what must hold then.
func (s *simulation) heal() {
	s.t.Helper()
	for i, p := range s.peers {
		s.isolate(i, false)
		if p.down {
			p.start(s.t)
		}
	}
	start := time.Now()
	for !s.pin(10 * time.Second) {
		if time.Since(start) >= 10*time.Second {
			s.t.Fatal("no commit within 10 s of a heal")
		}
		time.Sleep(retryWait) // an answer costs no virtual time
	}
	var groups []*Group
	for _, p := range s.peers {
		g, err := p.group(s.id)
		if err != nil {
			s.t.Fatal(err)
		}
		groups = append(groups, g)
	}
	s.eventually("all states are equal", func() bool { return s.hashesAgree(groups) })
	m, err := groups[0].running()
	if err != nil {
		s.t.Fatal(err)
	}
	m.fsm.view(func(state *pinset.State) {
		for _, name := range s.acked {
			if _, ok := state.Pin(content.Root([]byte(name))); !ok {
				s.t.Errorf("pin %q was acknowledged and is lost", name)
			}
		}
	})
}
