package cli

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"golang.org/x/term"
)

// How often progress is shown: a bar is redrawn at most every barInterval; a
// pipe gets a line at each change of phase and at most every lineInterval.
const (
	barInterval  = 100 * time.Millisecond
	lineInterval = 5 * time.Second
)

// progress shows what an operation is doing while it runs. It is used by one
// goroutine at a time.
type progress struct {
	app   *app
	width func() int // of the terminal; nil when stderr is none
	drawn bool       // a bar stands on the terminal's line

	phase share.Phase // that was shown last
	shown time.Time   // when it was
}

func (a *app) newProgress() *progress {
	p := &progress{app: a}
	if !a.json && !a.quiet {
		p.width = terminalWidth(a.io.Err, a.io.Env("TERM"))
	}
	return p
}

// terminalWidth returns how to ask for w's width, nil when w is no terminal on
// which a line can be drawn again.
func terminalWidth(w io.Writer, termType string) func() int {
	f, ok := w.(*os.File)
	if !ok || termType == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 {
			return 80
		}
		return width
	}
}

// on takes what the peer tells on the way.
func (p *progress) on(e control.Event) {
	if p.app.quiet {
		return
	}
	if p.app.json {
		p.app.emit(e)
		return
	}
	switch e := e.(type) {
	case *control.Progress:
		p.show(e, time.Now())
	case *control.Source:
		p.line(sourceLine(e))
	case *control.Note:
		p.line("note: " + e.Message)
	case *control.Warning:
		p.line("warning: " + e.Message)
	}
}

func (p *progress) show(e *control.Progress, now time.Time) {
	interval := lineInterval
	if p.width != nil {
		interval = barInterval
	}
	if e.Phase == p.phase && now.Sub(p.shown) < interval {
		return
	}
	p.phase, p.shown = e.Phase, now
	if p.width == nil {
		fmt.Fprintln(p.app.io.Err, plainLine(e))
		return
	}
	// Carriage return, the line, and erase to its end: no flicker.
	fmt.Fprintf(p.app.io.Err, "\r%s\x1b[K", barLine(e, p.width()))
	p.drawn = true
}

// line prints one line on stderr, above the bar if there is one.
func (p *progress) line(text string) {
	p.end()
	fmt.Fprintln(p.app.io.Err, text)
}

// end takes the bar away. Call it before anything else is printed.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.app.io.Err, "\r\x1b[K")
		p.drawn = false
	}
}

// phaseText says in words what a phase does.
var phaseText = map[share.Phase]string{
	share.PhaseLocal:    "looking here",
	share.PhaseGroup:    "asking the group",
	share.PhaseLAN:      "asking the local network",
	share.PhaseDHT:      "asking the DHT",
	share.PhaseDialling: "dialling",
}

// fields are the parts of a progress line, in order of worth.
func fields(e *control.Progress) []string {
	phase := string(e.Phase)
	if text, ok := phaseText[e.Phase]; ok {
		parts := []string{text}
		if e.Done > 0 {
			parts = append(parts, plural(int(e.Done), "peer")+" asked")
		}
		if e.Sources > 0 {
			parts = append(parts, plural(e.Sources, "provider")+" found")
		}
		return parts
	}
	parts := []string{phase}
	switch {
	case e.Total > 0:
		parts = append(parts, fmt.Sprintf("%3d %%", percent(e)), size(e.Done)+" of "+size(e.Total))
	case e.Done > 0:
		parts = append(parts, size(e.Done))
	}
	if e.Rate > 0 {
		parts = append(parts, size(e.Rate)+"/s")
	}
	if e.ETA > 0 {
		parts = append(parts, span(math.Ceil(e.ETA))+" left")
	}
	if e.Sources > 0 {
		parts = append(parts, plural(e.Sources, "peer"))
	}
	if e.Files > 0 {
		parts = append(parts, plural(int(e.Files), "file"))
	}
	return parts
}

// percent is how much is done, rounded down: 100 means all of it.
func percent(e *control.Progress) int64 {
	if e.Done >= e.Total {
		return 100
	}
	return int64(float64(e.Done) / float64(e.Total) * 100)
}

// plainLine is a progress line for a pipe.
func plainLine(e *control.Progress) string { return strings.Join(fields(e), "  ") }

// The bar takes what width the fields leave, within these bounds.
const barMin, barMax = 10, 30

// barLine is a progress line for a terminal of that width: it never wraps,
// because a wrapped line can't be drawn over.
func barLine(e *control.Progress, width int) string {
	parts := fields(e)
	width-- // a full last column wraps on some terminals
	line := parts[0]
	for _, part := range parts[1:] {
		if utf8.RuneCountInString(line)+2+len(part) > width {
			break
		}
		line += "  " + part
	}
	if utf8.RuneCountInString(line) > width {
		return string([]rune(line)[:max(width, 0)])
	}
	if room := min(width-utf8.RuneCountInString(line)-4, barMax); e.Total > 0 && room >= barMin {
		full := int(percent(e)) * room / 100
		line += "  [" + strings.Repeat("#", full) + strings.Repeat("-", room-full) + "]"
	}
	return line
}
