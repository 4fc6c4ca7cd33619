package share

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

func files(n int) []*smallFile {
	made := make([]*smallFile, n)
	for i := range made {
		made[i] = &smallFile{local: fmt.Sprint(i)}
	}
	return made
}

func queueOf(sealed bool, made ...*smallFile) *smallQueue {
	q := &smallQueue{sealed: sealed}
	for _, f := range made {
		q.put(f)
	}
	return q
}

func TestSmallQueueAsksForEachFileOnce(t *testing.T) {
	made := files(5)
	a, b := &madeSource{id: "a"}, &madeSource{id: "b"}
	q := queueOf(false, made...)
	if got := q.take(a, 3, true); !slices.Equal(got, made[:3]) {
		t.Errorf("a is asked for %d files, want the first 3", len(got))
	}
	if got := q.take(b, 3, true); !slices.Equal(got, made[3:]) {
		t.Errorf("b is asked for %d files, want the other 2", len(got))
	}
	if got := q.take(b, 3, true); len(got) > 0 {
		t.Errorf("b is asked for %d more while others may come, want none", len(got))
	}
}

func TestSmallQueueHandsBackWhatASourceCanNotGive(t *testing.T) {
	made := files(1)
	a, b := &madeSource{id: "a"}, &madeSource{id: "b"}
	q := queueOf(true, made...)
	q.take(a, 1, true)
	q.failed(made[0])
	if got := q.take(a, 1, true); len(got) > 0 {
		t.Error("a is asked again for what it can't give")
	}
	if lost := q.giveUp([]source{a, b}); len(lost) > 0 {
		t.Error("a file is given up before b was asked")
	}
	if got := q.take(b, 1, true); len(got) != 1 {
		t.Fatal("b is not asked for what a can't give")
	}
	q.failed(made[0])
	if lost := q.giveUp([]source{a, b}); !slices.Equal(lost, made) || !q.finished() {
		t.Errorf("given up: %d files, finished %v, want 1 and true", len(lost), q.finished())
	}
}

func TestSmallQueueLetsOthersTakeOverInTheEnd(t *testing.T) {
	made := files(40)
	slow, fast, third := &madeSource{id: "slow"}, &madeSource{id: "fast"}, &madeSource{id: "third"}
	q := queueOf(true, made...)
	q.take(slow, 40, true)
	if got := q.take(fast, 10, false); len(got) > 0 {
		t.Errorf("a source that owes files takes over %d", len(got))
	}
	over := q.take(fast, 100, true)
	if len(over) != takenOverMax || over[0] != made[39] {
		t.Fatalf("an idle source takes over %d files from %s on, want %d from the last", len(over), over[0].local, takenOverMax)
	}
	for range 3 {
		for _, f := range q.take(third, 100, true) {
			if slices.Contains(over, f) {
				t.Fatalf("file %s is asked of three sources at once", f.local)
			}
		}
	}
	if !q.arrived(made[39]) || q.arrived(made[39]) {
		t.Error("a file counts once, when it comes first")
	}
}

// TestSmallQueueEndsWhateverTheSourcesDo runs seeded sources that give, fail
// and fall silent: each file comes or is given up, exactly once.
func TestSmallQueueEndsWhateverTheSourcesDo(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 4))
		made := files(1 + rng.IntN(100))
		q := queueOf(false)
		sources := make([]source, 1+rng.IntN(4))
		owes := map[source][]*smallFile{}
		for i := range sources {
			sources[i] = &madeSource{id: peer.ID(fmt.Sprint(i))}
		}
		silent := source(nil)
		if len(sources) > 1 && rng.IntN(2) == 0 {
			silent = sources[0]
		}
		ended := map[*smallFile]int{}
		next := 0
		for step := 0; !q.finished(); step++ {
			if step > 100_000 {
				t.Fatalf("seed %d: no end, %d files are undone", seed, q.undone)
			}
			if next < len(made) && rng.IntN(3) == 0 {
				q.put(made[next])
				next++
			}
			q.sealed = next == len(made)
			if step == 2000 && silent != nil { // its deadline is over
				for _, f := range owes[silent] {
					q.failed(f)
				}
				sources, silent = sources[1:], nil
			}
			s := sources[rng.IntN(len(sources))]
			owes[s] = append(owes[s], q.take(s, 1+rng.IntN(8), len(owes[s]) == 0)...)
			if s != silent && len(owes[s]) > 0 {
				f := owes[s][0]
				owes[s] = owes[s][1:]
				if rng.IntN(4) == 0 {
					q.failed(f)
				} else if q.arrived(f) {
					ended[f]++
				}
			}
			for _, f := range q.giveUp(sources) {
				ended[f]++
			}
		}
		for _, f := range made {
			if ended[f] != 1 {
				t.Fatalf("seed %d: file %s ended %d times, want once", seed, f.local, ended[f])
			}
		}
	}
}
