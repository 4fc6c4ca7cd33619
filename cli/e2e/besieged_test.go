package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Rows beside peers that lie, dawdle or besiege.

func rowLiar(x *trial) {
	size := x.scaled(gib, 64*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	honest := x.shareWithMany(4, path)
	liar := startHostileProvider(x, path, false)
	took := x.contest(size,
		contender{"four honest providers", func(int) time.Duration { return x.fetch(link(honest...), size).took }},
		contender{"one of four lies", func(int) time.Duration {
			bob := newPeer(x, loopback...)
			to := filepath.Join(bob.dir, "got")
			r := x.run(bob, "get", link(append(honest[:3:3], liar)...), "-o", to)
			if !names(r.last, liar) {
				x.Errorf("%v does not name the liar %s", r.last, liar.process.id())
			}
			same(x, path, to)
			x.remove(to)
			return r.took
		}})
	x.atMost("time by that of honest ones", took["one of four lies"].median()/took["four honest providers"].median(), 1.5, "×")
	x.surviveFlips(int(x.scaled(1000, 10)))
}

// names tells whether a get names a source as one that lied.
func names(done event, s *source) bool {
	list, _ := done["corrupt"].([]any)
	return slices.Contains(list, any(s.process.id()))
}

// surviveFlips gets a file from a liar and an honest peer, until a wrong bit
// was noticed flips times, and compares what was saved with what it should be.
func (x *trial) surviveFlips(flips int) {
	x.Helper()
	const size = 32*mib + 1000
	path := filepath.Join(x.TempDir(), "clip.mkv")
	writeRandom(x, path, size, "clip")
	honest, liar := x.share(path), startHostileProvider(x, path, false)
	bob := newPeer(x, loopback...)
	to := filepath.Join(bob.dir, "got")
	seen, wrong, gets := 0, 0, 0
	for ; seen < flips && gets < 4*flips; gets++ {
		r := x.run(bob, "get", link(honest, liar), "-o", to)
		if names(r.last, liar) {
			seen++
		}
		if !equal(x, path, to) {
			wrong++
		}
		x.remove(to)
	}
	x.note("flips noticed", "%d in %d gets", seen, gets)
	if seen < flips {
		x.Errorf("the liar was noticed %d times in %d gets, want %d", seen, gets, flips)
	}
	x.neverMore("files with a wrong bit", float64(wrong), 0, "")
}

func rowSlow(x *trial) {
	size := x.scaled(gib, 64*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	good, slow := x.share(path), startHostileProvider(x, path, true)
	took := x.contest(size,
		contender{"the good one alone", func(int) time.Duration { return x.fetch(link(good), size).took }},
		contender{"beside one at 1 B/s", func(int) time.Duration { return x.fetch(link(good, slow), size).took }})
	x.atMost("time beyond 1.3 × that of the good one",
		took["beside one at 1 B/s"].median()-1.3*took["the good one alone"].median(), 5, "s")
}

func rowBesieged(x *trial) {
	size := x.scaled(gib, 64*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	ann := x.share(path)
	task := hostileTask{Target: ann.process.addr(x), ID: ann.added.text("id"), Count: int(x.scaled(10_000, 1_000))}
	var base int64
	var opened values
	took := x.contest(size,
		contender{"a getter alone", func(int) time.Duration { return x.fetch(link(ann), size).took }},
		contender{"a getter beside the hostile peer", func(int) time.Duration {
			if base == 0 {
				base = ann.process.memoryPeak(x)
			}
			besieger := startHostile(x, "besieger", task)
			e := besieger.await(x, "the siege", func(e event) bool { return e.text("event") == "besieging" })
			opened = append(opened, float64(e.number("opened")))
			r := x.fetch(link(ann), size)
			besieger.end(x, os.Kill)
			return r.took
		}})
	x.note("streams that the hostile peer opened", "%.0f of %d", opened.median(), task.Count)
	x.atMost("RSS beyond that without it", float64(ann.process.memoryPeak(x)-base)/mib, 128, "MiB")
	x.atLeast("rate by that alone", took["a getter alone"].median()/took["a getter beside the hostile peer"].median(), 0.5, "×")
}
