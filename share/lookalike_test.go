package share

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestMixedScripts(t *testing.T) {
	for name, want := range map[string]string{
		"paypal.pdf": "", "pаypal.pdf": "Latin, Cyrillic", "отчёт.pdf": "", "отчёт 2024 final.pdf": "", "report": "", "": "",
		"αβγ.txt": "", "αbc.txt": "Greek, Latin", "日本語のファイル.txt": "", "日本語file.txt": "", "東京タワーtower": "", "한국어文書abc": "",
		"日本語한글": "", "ひ한": "Hiragana, Hangul", "café": "", "e\u0301": "", "1а2b": "Cyrillic, Latin", "ᏢayᏢal": "Cherokee, Latin",
		"x\u200dа": "Latin, Cyrillic", "a_б": "", "a-б": "", "µm": "", "ℓatex": "", "абв1abc": "Cyrillic, Latin",
	} {
		got := strings.Join(MixedScripts(name), ", ")
		if got != want {
			t.Errorf("MixedScripts(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestLookalikes(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"apple.pdf", "аррӏе.pdf", true}, {"apple", "АРРӀЕ", true}, {"Apple.pdf", "аррӏе.PDF", true},
		{"paypal.pdf", "раураӏ.pdf", true}, {"paypal.pdf", "paypa1.pdf", true}, {"paypal.pdf", "paypaI.pdf", true},
		{"scope", "ѕсоре", true}, {"cop.txt", "сор.txt", true}, {"HOPE", "НОРЕ", true}, {"hope", "НОРЕ", true},
		{"BETA.txt", "ΒΕΤΑ.txt", true}, {"oval", "οναl", true}, {"modern", "modem", true}, {"o0.bin", "00.bin", true},
		{"ｐａｙｐａｌ", "раураl", true}, {"pay\u200dpal", "pаypal", true}, {"cafе\u0301", "café", true}, {"ё.txt", "ë.txt", true},
		// The same name, however it is spelled, is no lookalike of itself.
		{"report.pdf", "REPORT.PDF", false}, {"report.pdf", "ｒｅｐｏｒｔ.pdf", false}, {"ﬁle", "file", false}, {"straße", "STRASSE", false},
		{"аррӏе", "АРРӀЕ", false},
		// What looks otherwise.
		{"café", "cafe", false}, {"отчёт.pdf", "report.pdf", false}, {"отчёт.pdf", "отчет.pdf", false}, {"mail", "mall", false},
		{"report.pdf", "report.txt", false}, {"a b", "ab", false}, {"日本", "日木", false},
	} {
		for _, pair := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			var l Lookalikes
			l.Add(pair[0])
			l.Add(pair[0])
			l.Add("something else")
			want := ""
			if test.want {
				want = pair[0]
			}
			if got := l.Like(pair[1]); got != want {
				t.Errorf("%q looks like %q, want %q (skeletons %q and %q)", pair[1], got, want, skeletons(pair[0]), skeletons(pair[1]))
			}
			l.Add(pair[1])
			if got := l.Like(pair[0]); (got == pair[1]) != test.want {
				t.Errorf("with both known %q looks like %q", pair[0], got)
			}
		}
	}
	var l Lookalikes
	for i := range lookalikesMax + 10 {
		l.Add(fmt.Sprintf("%x", i))
	}
	if len(l.bySkeleton) > lookalikesMax {
		t.Errorf("%d names are kept, want %d at most", len(l.bySkeleton), lookalikesMax)
	}
}

func TestSkeletonIsIdempotentOverUnicode(t *testing.T) {
	overUnicode(t)
	for r := range rune(unicode.MaxRune + 1) {
		if !utf8.ValidRune(r) {
			continue
		}
		once := skeleton(string(r))
		if twice := skeleton(once); twice != once {
			t.Errorf("the skeleton of %U is %q, and of that %q", r, once, twice)
		}
	}
}

func FuzzSkeleton(f *testing.F) {
	for _, s := range []string{"аррӏе.pdf", "rnrn", "r\u0301n", "0ӀI1|", "ΐ\u0345", "ｒｎ", "r\u00adn"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		once := skeleton(s)
		if twice := skeleton(once); twice != once {
			t.Fatalf("the skeleton of %q is %q, and of that %q", s, once, twice)
		}
	})
}
