package e2e

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestLimitsChangeMidway has a get begin under a limit that it would take minutes
// with, and the limit taken away.
func TestLimitsChangeMidway(t *testing.T) {
	const size = 12 << 20
	sharer, getter := newPeer(t, loopback...), newPeer(t, loopback...)
	film := filepath.Join(sharer.dir, "film.mkv")
	writeRandom(t, film, size, "film")
	serving := sharer.serve(t, "daemon", "--max-up", "64K")
	link := sharer.must(t, "add", film).text("link")
	get := getter.start(t, "get", link, "-o", "film.mkv", "--peer", serving.addr(t))
	get.await(t, "the first bytes", func(e event) bool { return e.text("phase") == "fetching" && e.number("done") > 0 })
	began := time.Now()
	limits := sharer.runPlain(t, "limits", "--max-up", "0")
	if limits.code != 0 || len(limits.events) != 1 || limits.events[0].number("max_up") != 0 {
		t.Fatalf("limits: exit %d: %v %s", limits.code, limits.events, limits.stderr)
	}
	get.await(t, "its end", func(e event) bool { return e.text("event") == "done" })
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("without a limit the rest took %s", took)
	}
	sameFile(t, film, filepath.Join(getter.dir, "film.mkv"))
}

// TestLimitsOfProcesses measures a limit of either side over whole processes: what
// the getter's progress says has come, between the first and the last event that lie 5
// s apart with -long, which must be the limit's to 5 %; without, 2 s apart, to 15 %.
func TestLimitsOfProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	length, tolerance := 2*time.Second, 0.15
	if *long {
		length, tolerance = 5*time.Second, 0.05
	}
	const rate = 8 << 20
	sharer := newPeer(t, loopback...)
	film := filepath.Join(sharer.dir, "film.mkv")
	writeRandom(t, film, int64(rate*(length.Seconds()+1.5)), "film")
	measure := func(t *testing.T, up, down []string) {
		serving := sharer.serve(t, append([]string{"daemon"}, up...)...)
		link := sharer.must(t, "add", film).text("link")
		getter := newPeer(t, loopback...)
		get := getter.start(t, append([]string{"get", link, "-o", "/dev/null", "--peer", serving.addr(t)}, down...)...)
		var first, last int64
		var begin time.Time
		get.await(t, "bytes for some seconds", func(e event) bool {
			if e.text("event") == "done" {
				t.Fatalf("the get was done %s after its first bytes", time.Since(begin))
			}
			if e.text("phase") != "fetching" || e.number("done") < rate/2 { // the bucket's first bytes are past
				return false
			}
			if begin.IsZero() {
				begin, first = time.Now(), e.number("done")
			}
			last = e.number("done")
			return time.Since(begin) >= length
		})
		part := float64(last-first) / time.Since(begin).Seconds() / rate
		t.Logf("%.3f of the limit", part)
		if part < 1-tolerance || part > 1+tolerance {
			t.Errorf("%.3f of the limit in %s, want 1 to %.0f %%", part, length, tolerance*100)
		}
		serving.end(t, syscall.SIGTERM)
	}
	t.Run("up", func(t *testing.T) { measure(t, []string{"--max-up", "8M"}, nil) })
	t.Run("down", func(t *testing.T) { measure(t, nil, []string{"--max-down", "8M"}) })
}
