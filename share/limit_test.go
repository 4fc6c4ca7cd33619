package share

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// TestLimitsHold gets a file for about 2 s through a limit of either side, and then
// through both. The bounds are wide, for a machine that does other things too: what
// the limiter itself keeps to is tested with a clock of its own (package limit, and
// below), and whole processes for 5 s in cli/e2e. A limit that is taken away in the
// middle must let the rest go at once.
func TestLimitsHold(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const rate, size = 8 << 20, 16 << 20
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	s := sharer.add(t, sharer.write(t, "film.mkv", randomBytes(size, "film")), AddOptions{})
	get := func(onProgress func(Progress)) time.Duration {
		t.Helper()
		got, err := getter.get(t, sharer.lib.Link(s).String(), GetOptions{Output: io.Discard, Progress: onProgress})
		if err != nil {
			t.Fatal(err)
		}
		return got.Took
	}
	for _, c := range []struct {
		name     string
		up, down int64
	}{{"up", rate, 0}, {"down", 0, rate}, {"both", rate, rate}} {
		sharer.lib.SetLimits(c.up, 0)
		getter.lib.SetLimits(0, c.down)
		took := get(nil).Seconds()
		if part := size / took / rate; part < 0.8 || part > 1.1 {
			t.Errorf("limit %s: %.3f of the rate, want about 1", c.name, part)
		}
	}
	took := get(func(p Progress) {
		if p.Phase == PhaseFetching && p.Done > 0 {
			sharer.lib.SetLimits(0, 0)
			getter.lib.SetLimits(0, 0)
		}
	})
	if took > 1500*time.Millisecond {
		t.Errorf("with limits that were taken away the get took %s, want much less than 2 s", took)
	}
}

// TestLimiterSharesFairly has one peer with eight streams and one with one stream
// move all they can for 5 s of a clock that the test moves.
func TestLimiterSharesFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1_000_000
		l := &limiter{}
		l.setRate(rate)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var mu sync.Mutex
		moved := map[peer.ID]int{}
		var streams sync.WaitGroup
		for i := range 9 {
			who := peer.ID("many")
			if i == 8 {
				who = "one"
			}
			streams.Go(func() {
				for ctx.Err() == nil {
					n := int(l.piece.Load())
					l.wait(ctx.Done(), who, n)
					mu.Lock()
					moved[who] += n
					mu.Unlock()
				}
			})
		}
		streams.Wait()
		for who, n := range moved {
			if part := float64(n) / (5 * rate); part < 0.49 || part > 0.54 {
				t.Errorf("%s moved %.3f of what the rate allows, want a half", who, part)
			}
		}
		if len(l.turns) > 0 {
			t.Errorf("%d turns wait for nobody", len(l.turns))
		}
	})
}
