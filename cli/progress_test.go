package cli

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
)

var fetching = &control.Progress{Phase: share.PhaseFetching, Done: 512 << 20, Total: 1288490189,
	Rate: 580 << 20, ETA: 1.3, Sources: 3}

func TestProgressLines(t *testing.T) {
	tests := []struct {
		progress *control.Progress
		want     string
	}{
		{fetching, "fetching   41 %  512 MiB of 1.2 GiB  580 MiB/s  2 s left  3 peers"},
		{&control.Progress{Phase: share.PhaseHashing, Done: 5, Total: 5}, "hashing  100 %  5 B of 5 B"},
		{&control.Progress{Phase: share.PhaseHashing}, "hashing"},
		{&control.Progress{Phase: share.PhaseLocal}, "looking here"},
		{&control.Progress{Phase: share.PhaseDHT, Done: 2, Sources: 1}, "asking the DHT  2 peers asked  1 provider found"},
		{&control.Progress{Phase: share.PhaseFetching, Done: 1, Total: 2, Files: 7}, "fetching   50 %  1 B of 2 B  7 files"},
	}
	for _, tt := range tests {
		if got := plainLine(tt.progress); got != tt.want {
			t.Errorf("plainLine(%+v) = %q, want %q", tt.progress, got, tt.want)
		}
	}
}

func TestBarFitsEveryWidth(t *testing.T) {
	searching := &control.Progress{Phase: share.PhaseDialling, Done: 2, Sources: 1}
	for width := range 200 {
		for _, p := range []*control.Progress{fetching, searching} {
			if got := utf8.RuneCountInString(barLine(p, width)); got > max(width-1, 0) {
				t.Errorf("barLine at width %d has %d columns: %q", width, got, barLine(p, width))
			}
		}
	}
	if got, want := barLine(fetching, 120), plainLine(fetching)+"  [############------------------]"; got != want {
		t.Errorf("barLine = %q, want %q", got, want)
	}
}

func TestBarIsRedrawnSeldomAndTakenAway(t *testing.T) {
	var err strings.Builder
	p := &progress{app: &app{io: IO{Err: &err}}, width: func() int { return 80 }}
	now := time.Unix(1, 0)
	for range 1000 { // one second of events
		p.show(fetching, now)
		now = now.Add(time.Millisecond)
	}
	if got := strings.Count(err.String(), "\r"); got > 10 {
		t.Errorf("drawn %d times in a second, want at most 10", got)
	}
	p.show(&control.Progress{Phase: share.PhaseWriting}, now)
	if !strings.Contains(err.String(), "writing") {
		t.Error("a change of phase is not shown at once")
	}
	p.end()
	if !strings.HasSuffix(err.String(), "\r\x1b[K") {
		t.Errorf("output ends in %q, want the line erased", err.String()[len(err.String())-10:])
	}
	drawn := err.Len()
	p.end()
	if err.Len() != drawn {
		t.Error("end erases twice")
	}
}

func TestPipeGetsALineForEachPhase(t *testing.T) {
	var err strings.Builder
	p := &progress{app: &app{io: IO{Err: &err}}}
	now := time.Unix(1, 0)
	for range 12 { // twelve seconds
		p.show(fetching, now)
		now = now.Add(time.Second)
	}
	p.show(&control.Progress{Phase: share.PhaseWriting}, now)
	if got := strings.Count(err.String(), "\n"); got != 4 { // at 0, 5 and 10 s, and the change
		t.Errorf("%d lines, want 4:\n%s", got, err.String())
	}
	if strings.ContainsAny(err.String(), "\r\x1b") {
		t.Errorf("control characters in a pipe: %q", err.String())
	}
}

func TestQuietAndJSONProgress(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		a, out, err := testApp()
		a.json, a.quiet = true, quiet
		show := a.newProgress()
		show.on(fetching)
		show.on(&control.Note{Message: "n"})
		show.end()
		want := 2
		if quiet {
			want = 0
		}
		if got := strings.Count(out.String(), "\n"); got != want || err.Len() > 0 {
			t.Errorf("quiet %v: %d lines on stdout, %d bytes on stderr, want %d and 0", quiet, got, err.Len(), want)
		}
	}
}
