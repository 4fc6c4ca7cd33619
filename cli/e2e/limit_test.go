package e2e

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

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
