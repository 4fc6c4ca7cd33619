package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/p2pshare/p2pshare/cli/control"
)

func TestNotesAreEscapedAndCut(t *testing.T) {
	for note, want := range map[string]string{
		"": "", " \t": "", "plain": `: "plain"`,
		"\x1b[31mred\u202e":       `: "\x1b[31mred\u202e"`,
		"two\nlines":              `: "two\x0alines"`,
		strings.Repeat("x", 1024): `: "` + strings.Repeat("x", noteColumnsMax-1) + `…"`,
		strings.Repeat("漢", 60):   `: "` + strings.Repeat("漢", 29) + `…"`,
	} {
		if got := noteText(note); got != want {
			t.Errorf("noteText(%q) = %s, want %s", note, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 10 << 10: "10 KiB",
		1<<20 - 1: "1.0 MiB", 1 << 20: "1.0 MiB", 1288490189: "1.2 GiB", 580 << 20: "580 MiB", math.MaxInt64: "8.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "0 ms", 0.051: "51 ms", 1: "1 s", 2.14: "2.1 s", 9.96: "10 s", 59.7: "1 min 00 s", 61: "1 min 01 s", 3600: "1 h 00 min", 5000: "1 h 23 min",
	} {
		if got := span(seconds); got != want {
			t.Errorf("span(%v) = %q, want %q", seconds, got, want)
		}
	}
}

func TestJSONDrivesNoTerminal(t *testing.T) {
	text := "a\x1b\u009b[31m\u202e\u2028\U000E0001\ue000é日本"
	line, err := jsonLine(&control.Note{Message: text})
	if err != nil {
		t.Fatal(err)
	}
	shown := visible(line)
	if i := bytes.IndexFunc(shown, func(r rune) bool { return r < ' ' || hidden(r) }); i >= 0 {
		t.Errorf("line %q has a character that does not print at %d", shown, i)
	}
	if !bytes.Contains(shown, []byte("é日本")) {
		t.Errorf("line %q escapes what prints", shown)
	}
	var back struct{ Message string }
	if err := json.Unmarshal(shown, &back); err != nil || back.Message != text {
		t.Errorf("read back %q, %v, want %q", back.Message, err, text)
	}
}

// TestResumingWriter: over several attempts each byte comes out once.
func TestResumingWriter(t *testing.T) {
	var out bytes.Buffer
	w := &resumingWriter{w: &out}
	for _, attempt := range [][]string{{"abc", "de"}, {"a"}, {"ab", "cdef", "g"}, {"abcdefgh"}} {
		w.restart()
		for _, part := range attempt {
			if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
				t.Errorf("Write(%q) = %d, %v", part, n, err)
			}
		}
	}
	if out.String() != "abcdefgh" {
		t.Errorf("out = %q, want abcdefgh", out.String())
	}
	full := errors.New("full")
	w = &resumingWriter{w: failing{full}, written: 2}
	w.restart()
	if n, err := w.Write([]byte("abc")); n != 2 || err != full {
		t.Errorf("Write to a full disk = %d, %v, want 2, %v", n, err, full)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestCalledHere(t *testing.T) {
	const id = "12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7"
	for alias, want := range map[string]string{
		"ann": "ann", "": "?", "  ": "?", "ann's  laptop\n": "ann's laptop", "\x1b[31m": `\x1b[31m`,
		"ann  " + id: "ann 12D3KooWRawPbxPtP1eZaJpumGn…",
	} {
		if got := calledHere(alias); got != want {
			t.Errorf("calledHere(%q) = %q, want %q", alias, got, want)
		}
	}
}

func TestTextIsClippedToColumns(t *testing.T) {
	for _, test := range []struct {
		text    string
		columns int // that it takes
		max     int
		want    string
	}{
		{"", 0, 3, ""}, {"abc", 3, 3, "abc"}, {"abcd", 4, 3, "ab…"}, {"abcd", 4, 1, "…"},
		{"ｒｅ", 4, 4, "ｒｅ"}, {"ｒｅｐ", 6, 5, "ｒｅ…"}, {"ｒｅｐ", 6, 4, "ｒ…"},
		{"日本", 4, 3, "日…"}, {"e\u0301a", 2, 2, "e\u0301a"}, {"e\u0301abc", 4, 2, "e\u0301…"},
		{strings.Repeat(`\u200d`, 80), 480, 40, strings.Repeat(`\u200d`, 6) + `\u2…`},
	} {
		if n := columnsOf(test.text); n != test.columns {
			t.Errorf("%q takes %d columns, want %d", test.text, n, test.columns)
		}
		if got := clip(test.text, test.max); got != test.want || columnsOf(got) > test.max {
			t.Errorf("clip(%q, %d) = %q, want %q", test.text, test.max, got, test.want)
		}
	}
}
