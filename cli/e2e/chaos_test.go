package e2e

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

var chaosSeed = flag.Uint64("chaos-seed", 0, "run TestCopiesConverge with this seed alone")

// TestCopiesConverge kills members with -9 whatever they are at (fetching, verifying,
// reporting, dropping), the leader among them, fills a disk, pins and unpins, as a seed
// says, and then lets all come back: the stores are what the plan wants, what is pinned
// has its copies, and nothing is left over. Plainly for 10 s; with -args -long a minute
// for each of 5 seeds.
func TestCopiesConverge(t *testing.T) {
	besideOthers(t)
	if testing.Short() {
		t.Skip("takes a minute")
	}
	first, last, length := uint64(1), uint64(1), 10*time.Second
	if *long {
		last, length = 5, time.Minute
	}
	if *chaosSeed > 0 {
		first, last = *chaosSeed, *chaosSeed
	}
	for seed := first; seed <= last; seed++ {
		chaos(t, seed, length)
	}
}

func chaos(t *testing.T, seed uint64, length time.Duration) {
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 11))
	homes := map[int]string{}
	disk := ""
	if os.Getuid() == 0 {
		disk = smallDisk(t, "tmpfs", 128)
		homes[3] = disk + "/home"
	}
	h := newHolders(t, holdersOptions{count: 5, grace: time.Second, homes: homes, capacity: func(int) string { return "60M" },
		daemon: []string{"--scrub", "30s"}})
	h.pinMany(30, h.size)
	down := map[*member]bool{}
	kill := func(m *member) {
		if !down[m] && len(down) < 2 {
			endAll(t, os.Kill, m.daemon)
			down[m] = true
		}
	}
	revive := func() {
		for m := range down {
			m.daemon = m.peer.start(t, "daemon")
			m.daemon.awaitReady(t)
			delete(down, m)
		}
	}
	empty := func() {}
	counts := map[string]int{}
	for start := time.Now(); time.Since(start) < length; {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		switch n := rng.IntN(20); {
		case n < 5:
			counts["kills"]++
			kill(h.members[rng.IntN(len(h.members))])
		case n < 6:
			for _, m := range h.members {
				if !down[m] && m.id == h.leading() {
					counts["leaders killed"]++
					kill(m)
				}
			}
		case n < 9:
			counts["revivals"]++
			revive()
		case n < 10 && disk != "":
			counts["full disks"]++
			empty()
			empty = fill(t, disk)
		case n < 12:
			empty()
			empty = func() {}
		case n < 14 && len(h.pins) > 20:
			var names []string
			for name := range h.pins {
				names = append(names, name)
			}
			slices.Sort(names)
			if h.unpin(ctx, names[rng.IntN(len(names))]) == nil {
				counts["unpins"]++
			}
		default:
			if _, err := h.pin(ctx, h.size()); err == nil {
				counts["pins"]++
			}
		}
		cancel()
		select { // whatever phase they are in by then
		case <-time.After(time.Duration(rng.IntN(400)) * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
	empty()
	revive()
	took, _ := h.await("all converges to the plan", 2*time.Minute, func(s standing) bool {
		for _, p := range s.lines {
			if p.Health != "ok" || len(p.Copies) != 3 || len(p.Absent) > 0 {
				return false
			}
		}
		return true
	})
	t.Logf("seed %d: %v; converged in %s", seed, counts, took.Round(time.Millisecond))
	h.awaitStores(3)
	h.checkStores(3)
}

// leading is who leads, "" when nobody is known to.
func (h *holders) leading() string {
	for g, err := range h.use.Groups(h.t.Context(), "") {
		if err == nil {
			return string(g.Leader)
		}
	}
	return ""
}
