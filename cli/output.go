package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"golang.org/x/text/width"
)

// Rules of the output. stdout has results and nothing else: lines for people,
// or with --json one object a line. stderr has progress, notes and errors.
// With -q there is no progress, and no result that only says what was done;
// what was asked for (a listing, an ID) is still printed. Text from outside is
// shown through share.Escape.

// say prints a line that says what was done.
func (a *app) say(format string, args ...any) {
	if a.quiet || a.json {
		return
	}
	fmt.Fprintf(a.out, format+"\n", args...)
	a.out.Flush()
}

// emit prints a JSON line and flushes it: whoever reads is waiting for it.
func (a *app) emit(v any) {
	a.emitLine(v)
	a.out.Flush()
}

// emitLine prints a JSON line of a listing.
func (a *app) emitLine(v any) {
	line, err := jsonLine(v)
	if err != nil { // a type of ours that does not encode
		panic(err)
	}
	a.out.Write(append(visible(line), '\n'))
}

func jsonLine(v any) ([]byte, error) {
	if e, ok := v.(control.Event); ok {
		return control.EncodeEvent(e)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// visible writes what does not print (C1 controls, bidi controls, private use)
// as \u escapes, so that JSON on a terminal can't drive it either. It stays
// the same JSON: such characters occur in strings only.
func visible(line []byte) []byte {
	if bytes.IndexFunc(line, hidden) < 0 {
		return line
	}
	out := make([]byte, 0, len(line)+32)
	for _, r := range string(line) {
		switch {
		case !hidden(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}

func hidden(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }

func size(n int64) string { return control.SizeText(n) }

// speed is n bytes in a time for people, empty when it was too short to tell.
func speed(n int64, seconds float64) string {
	if seconds < 0.001 || n == 0 {
		return ""
	}
	return size(int64(float64(n)/seconds)) + "/s"
}

// span is a time for people.
func span(seconds float64) string {
	if seconds < 0.9995 {
		return fmt.Sprintf("%.0f ms", seconds*1000)
	}
	if seconds < 9.95 && seconds != math.Trunc(seconds) {
		return fmt.Sprintf("%.1f s", seconds)
	}
	d := time.Duration(math.Round(seconds)) * time.Second
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// nameMarks makes the warnings that stand after the names of one listing.
type nameMarks struct{ told share.Lookalikes }

// after warns of a name that mixes scripts, and of one that looks like another which
// was listed before.
func (m *nameMarks) after(name string) string {
	m.told.Add(name)
	warning := markMixed(name)
	if like := m.told.Like(name); like != "" {
		warning += "  (warning: " + looksLike(like) + ")"
	}
	return warning
}

// looksLike names what another name looks like. The two may be the same to the eye,
// and so their letters are named, too.
func looksLike(other string) string {
	s := "looks like " + clip(share.Escape(other), candidateNameMax)
	if scripts := share.Scripts(other); len(scripts) > 0 {
		s += " in " + strings.Join(scripts, ", ") + " letters"
	}
	return s
}

// markMixed is a warning to stand after a name that mixes scripts, so that it may
// have been made to look like another; empty for other names.
func markMixed(name string) string {
	scripts := share.MixedScripts(name)
	if scripts == nil {
		return ""
	}
	return "  (warning: mixes " + strings.Join(scripts, ", ") + " letters)"
}

// plural is "1 peer", "2 peers".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// columnsOf is how many columns of a terminal escaped text takes: two for a wide
// letter, none for a mark.
//
// Source: UAX 11, revision 40.
func columnsOf(s string) int {
	n := 0
	for _, r := range s {
		n += columnsOfRune(r)
	}
	return n
}

func columnsOfRune(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// clip is text that takes columnsMax columns at most, with "…" in place of what is
// cut away.
func clip(s string, columnsMax int) string {
	if columnsOf(s) <= columnsMax {
		return s
	}
	n := 1 // the ellipsis
	for i, r := range s {
		if n += columnsOfRune(r); n > columnsMax {
			return s[:i] + "…"
		}
	}
	return s
}

// noteColumnsMax is how much of a note is shown on a line.
const noteColumnsMax = 60

// noteText is a publisher's note as it stands at the end of a line; empty: there is none.
func noteText(note string) string {
	if note = strings.TrimSpace(note); note == "" {
		return ""
	}
	return `: "` + clip(share.Escape(note), noteColumnsMax) + `"`
}
