package share

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"
)

var update = flag.Bool("update", false, "rewrite the files of testdata from what the code says")

func TestParseNameRefuses(t *testing.T) {
	for _, tt := range []struct{ what, in, reason string }{
		{"empty", "", "is empty"},
		{"here", ".", "is a reference to a directory"},
		{"parent", "..", "is a reference to a directory"},
		{"slash", "a/b", "contains a slash (U+002F)"},
		{"leading slash", "/etc", "contains a slash (U+002F)"},
		{"backslash", `a\b`, "contains a backslash (U+005C)"},
		{"NUL", "a\x00b", "contains a control character (U+0000)"},
		{"ESC", "\x1b[2J", "contains a control character (U+001B)"},
		{"newline", "a\nb", "contains a control character (U+000A)"},
		{"DEL", "a\x7f", "contains a control character (U+007F)"},
		{"C1", "a\u009b", "contains a control character (U+009B)"},
		{"bidi override", "a\u202efdp.exe", "contains a character that changes the direction of text (U+202E)"},
		{"bidi isolate", "a\u2066", "contains a character that changes the direction of text (U+2066)"},
		{"bidi mark", "a\u200f", "contains a character that changes the direction of text (U+200F)"},
		{"arabic letter mark", "a\u061c", "contains a character that changes the direction of text (U+061C)"},
		{"line separator", "a\u2028", "contains a line separator (U+2028)"},
		{"paragraph separator", "a\u2029", "contains a line separator (U+2029)"},
		{"private use", "a\ue000", "contains a private use character (U+E000)"},
		{"private use, plane 16", "a\U0010fffd", "contains a private use character (U+10FFFD)"},
		{"invalid UTF-8", "a\xff", "is not valid UTF-8"},
		{"surrogate", "a\xed\xa0\x80", "is not valid UTF-8"},
		{"overlong slash", "a\xc0\xaf", "is not valid UTF-8"},
		{"256 bytes", strings.Repeat("a", 256), "is longer than 255 bytes"},
		{"256 bytes in NFC", strings.Repeat("é", 128), "is longer than 255 bytes"},
		{"far too long", strings.Repeat("\xff", 1<<20), "is longer than 255 bytes"},
		{"nothing to look up", "\u200d\ufe0f", "has only invisible characters"},
		{"Hangul filler", "\u3164", "has only invisible characters"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			n, err := ParseName(tt.in)
			var nameErr *NameError
			if !errors.Is(err, ErrBadName) || !errors.As(err, &nameErr) {
				t.Fatalf("ParseName(%q) = %q, %v, want a *NameError that is ErrBadName", tt.in, n, err)
			}
			if nameErr.Reason != tt.reason || nameErr.Name != tt.in {
				t.Errorf("ParseName(%.40q): reason %q about %.40q, want %q about what was given", tt.in, nameErr.Reason, nameErr.Name, tt.reason)
			}
		})
	}
}

func TestParseNameAccepts(t *testing.T) {
	for _, tt := range []struct{ what, in, want string }{
		{"ASCII", "report.pdf", "report.pdf"},
		{"spaces and dots", " a..b . ", " a..b . "},
		{"three dots", "...", "..."},
		{"hidden file", ".profile", ".profile"},
		{"what Windows can't hold", "CON<>:\"|?*.", "CON<>:\"|?*."},
		{"NFD becomes NFC", "re\u0301sume\u0301.pdf", "r\u00e9sum\u00e9.pdf"},
		{"Hangul jamo become syllables", "\u1112\u1161\u11ab", "\ud55c"},
		{"compatibility characters stay", "\ufb01le", "\ufb01le"},
		{"emoji joined by ZWJ", "👩\u200d💻.txt", "👩\u200d💻.txt"},
		{"emoji of tag characters", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"},
		{"Persian with ZWNJ", "نامه\u200cها", "نامه\u200cها"},
		{"255 bytes", strings.Repeat("a", 255), strings.Repeat("a", 255)},
		{"255 bytes once in NFC", strings.Repeat("\u1fbe\u0308\u0301", 127), strings.Repeat("\u0390", 127)},
		{"many vowels", strings.Repeat("\u1160\u1172", 40), strings.Repeat("\u1160\u1172", 40)},
		{"40 marks in a row", "e" + strings.Repeat("\u0301", 40), "\u00e9" + strings.Repeat("\u0301", 39)},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if got, err := ParseName(tt.in); err != nil || string(got) != tt.want {
				t.Errorf("ParseName(%+q) = %+q, %v, want %+q", tt.in, got, err, tt.want)
			}
		})
	}
}

func TestParsePathRefuses(t *testing.T) {
	for _, tt := range []struct{ what, in, reason string }{
		{"empty", "", "has a component, number 1, that is empty"},
		{"absolute", "/a", "begins with '/'"},
		{"trailing slash", "a/", "has a component, number 2, that is empty"},
		{"double slash", "a//b", "has a component, number 2, that is empty"},
		{"parent", "a/../../b", "has a component, number 2, that is a reference to a directory"},
		{"here", "./a", "has a component, number 1, that is a reference to a directory"},
		{"backslash", `a/..\b`, "has a component, number 2, that contains a backslash (U+005C)"},
		{"component of 256 bytes", "a/" + strings.Repeat("b", 256), "has a component, number 2, that is longer than 255 bytes"},
		{"4097 bytes", strings.Repeat("a/", 2048) + "b", "is longer than 4096 bytes"},
		{"far too long", strings.Repeat("/", 1<<20), "is longer than 4096 bytes"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			p, err := ParsePath(tt.in)
			var nameErr *NameError
			if !errors.Is(err, ErrBadName) || !errors.As(err, &nameErr) || nameErr.Reason != tt.reason {
				t.Errorf("ParsePath(%.40q) = %.40q, %v, want a *NameError whose reason is %q", tt.in, p, err, tt.reason)
			}
		})
	}
}

func TestParsePathConvertsEachComponent(t *testing.T) {
	for in, want := range map[string]string{
		"a":                               "a",
		"a/b/c.txt":                       "a/b/c.txt",
		"e\u0301/x/o\u0308":               "\u00e9/x/\u00f6",
		"a/\u0338b":                       "a/\u0338b", // a mark does not join the slash
		strings.Repeat("a/", 2047) + "bc": strings.Repeat("a/", 2047) + "bc",
	} {
		if got, err := ParsePath(in); err != nil || string(got) != want {
			t.Errorf("ParsePath(%+.40q) = %+.40q, %v, want %+.40q", in, got, err, want)
		}
	}
}

func TestNameErrorIsOneShortSafeLine(t *testing.T) {
	_, err := ParseName("\x1b]0;owned\a\n" + strings.Repeat("\u202e\xff", 100_000))
	got := err.Error()
	if n := utf8.RuneCountInString(got); n > 150 || strings.ContainsFunc(got, hidden) {
		t.Errorf("Error() = %q, of %d characters, want at most 150 and none hidden", got, n)
	}
	_, err = ParseName(`a\b`)
	if got, want := err.Error(), `bad name "a\\b": it contains a backslash (U+005C)`; got != want {
		t.Errorf("Error() = %s, want %s", got, want)
	}
}

// The vectors of the design. Each list of names has one key.
func TestNameKeyVectors(t *testing.T) {
	for digest, names := range map[string][]string{
		"1220a14dbb3bbe30abc8ab5727ad13b8280687fa4f807f0604be239381da0ea830d8": {"report.pdf", "Report.PDF", "ｒｅｐｏｒｔ.pdf", "re\u00adport.pdf"},
		"12208a2644cb4c3c": {"straße.txt", "STRASSE.TXT", "STRAẞE.txt"},
		"1220380902e18b96": {"ﬁle.txt", "file.txt"},
		"1220eb0124bc3302": {"p\u0430ypal.pdf"},
		"12209d16ebe26e2b": {"paypal.pdf"},
	} {
		for _, s := range names {
			n, err := ParseName(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := n.Key().HexString(); !strings.HasPrefix(got, digest) {
				t.Errorf("Name(%q).Key() = %s, want %s…", s, got, digest)
			}
		}
	}
}

func TestKeyCIDIsTheSameKey(t *testing.T) {
	// Base32 of 01 55 and the multihash of the first vector.
	const want = "bafkreifbjw5txprqvpekwvzhvuj3qkagq75e7ad7aycl4i4tqhna5kbq3a"
	if got := KeyCID(Name("report.pdf").Key()); got != want {
		t.Errorf("KeyCID = %s, want %s", got, want)
	}
}

func TestWordKeyDiffersFromNameKey(t *testing.T) {
	if WordKey("report").String() == Name("report").Key().String() {
		t.Error("a word and a name have the same key")
	}
}

// vectorNames are the names of testdata/names.txt.
var vectorNames = []string{
	"report.pdf", "Report.PDF", "straße.txt", "STRASSE.TXT", "STRAẞE.TXT", "ﬁle.txt", "file.txt",
	"p\u0430ypal.pdf", "paypal.pdf", "a b", " leading and trailing ", "...", ".profile", "a\"b", "<&>",
	"re\u0301sume\u0301", "r\u00e9sum\u00e9", "RÉSUMÉ", "Ｆｕｌｌ　Ｗｉｄｔｈ", "ｶﾞｷﾞ", "ガギ", "\u1112\u1161\u11ab\u1100\u1173\u11af", "한글",
	"İstanbul", "istanbul", "ıstanbul", "ΣΊΣΥΦΟΣ", "σίσυφος", "ᾼ", "\u03b1\u0345", "\u01f0", "J\u030c", "\u0390", "\u0149", "ﬃ", "ſ", "K", "Å", "Ω",
	"ᎠᎡᏰ", "ꭰꭱᏸ", "Ⴀ", "ⴀ", "Ა", "ა", "𐐀", "𐐨", "Ⅷ", "①½", "x²", "…", "℡", "㎏", "ﷺ",
	"a\u034fb", "soft\u00adhyphen", "👩\u200d💻", "☺\ufe0f", "نامه\u200cها", "\ufeffbom", "a\u180eb", "a\u115fb", "\u0600a", "\ufff9a",
	"q\u0307\u0323", "q\u0323\u0307", "\u0344", "\u0345\u0301", "e" + strings.Repeat("\u0301\u0323", 20), "\u1fbc\u0323\u0301", "\u1fb3\u0323\u0301", "१२३", "กำ", "\u0e4d\u0e32", "\U0001d400\U0001d7ce",
}

const vectorHeader = `# Names, their lookup forms and name keys, for other implementations.
# Each line: the name, TAB, its lookup form, TAB, its name key in hex.
# Names and lookup forms are JSON strings; the name is in display form, or
# becomes it by NFC. Key = 12 20 and SHA-256("p2pshare/name/1", 00, lookup form).
`

func TestNamesFileAgrees(t *testing.T) {
	const file = "testdata/names.txt"
	var b strings.Builder
	b.WriteString(vectorHeader)
	for _, s := range vectorNames {
		n, err := ParseName(s)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\t%s\t%x\n", quoteJSON(s), quoteJSON(n.Lookup()), []byte(n.Key()))
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(data), b.String()); diff != "" {
		t.Errorf("%s (-) and the code (+) differ; keys on the network would change:\n%s", file, diff)
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		var name, lookup string
		if err := errors.Join(json.Unmarshal([]byte(fields[0]), &name), json.Unmarshal([]byte(fields[1]), &lookup)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got, err := LookupForm(name); got != lookup || err != nil {
			t.Errorf("LookupForm(%+q) = %+q, %v, want %+q", name, got, err, lookup)
		}
	}
}

// quoteJSON is s as a JSON string, with escapes for what an editor would hide or
// normalize.
func quoteJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch plain, _ := json.Marshal(string(r)); {
		case strings.ContainsRune("<>&", r):
			b.WriteRune(r)
		case r > unicode.MaxASCII && (!unicode.IsPrint(r) || unicode.IsMark(r) || !norm.NFC.IsNormalString(string(r))):
			for _, unit := range utf16Of(r) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		default:
			b.Write(plain[1 : len(plain)-1])
		}
	}
	return `"` + b.String() + `"`
}

func utf16Of(r rune) []rune {
	if r < 0x10000 {
		return []rune{r}
	}
	r -= 0x10000
	return []rune{0xD800 + r>>10, 0xDC00 + r&0x3FF}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		name string
		want []string
	}{
		{"Annual_Report-2024 (final).PDF", []string{"2024", "annual", "final", "pdf", "report"}},
		{"a.A.a", []string{"a"}},
		{"Straße", []string{"strasse"}},
		{"q\u0323uite", []string{"q\u0323uite"}},
		{"\u0323a", []string{"a"}}, // a mark begins no word
		{"हिन्दी.txt", []string{"txt", "हिन्दी"}},
		{"東京タワーmap.jpg", []string{"jpg", "map", "タワ", "ワー", "京タ", "東京"}},
		{"山", []string{"山"}},
		{"ｶﾞｷﾞ", []string{"ガギ"}},
		{"ไทย", []string{"ทย", "ไท"}},
		{"한국어 문서", []string{"문서", "한국어"}},
		{"!!!", nil},
	} {
		var want []string
		for _, w := range tt.want {
			want = append(want, lookupForm(w))
		}
		if got := Words(Name(tt.name)); !slices.Equal(got, want) {
			t.Errorf("Words(%q) = %q, want %q", tt.name, got, want)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, tt := range []struct{ what, in, want string }{
		{"ordinary text", `Ünï "quoted" 日本語 👍 e` + "\u0301\u00a0\u3000", `Ünï "quoted" 日本語 👍 e` + "\u0301\u00a0\u3000"},
		{"backslash", `\x1b`, `\\x1b`},
		{"C0", "\x00\x1b[2J\n", `\x00\x1b[2J\x0a`},
		{"DEL", "\x7f", `\x7f`},
		{"C1 is a character", "\u009b", `\u009b`},
		{"bytes that are not UTF-8", "\x9b\xff", `\x9b\xff`},
		{"cut character", "\xe2\x80", `\xe2\x80`},
		{"a real replacement character", "\ufffd", "\ufffd"},
		{"bidi", "\u202e\u2066\u200f\u061c", `\u202e\u2066\u200f\u061c`},
		{"formats", "\u200d\ufeff\u00ad\U000e0041", `\u200d\ufeff\u00ad\U000e0041`},
		{"letters and marks that are not seen", "\u3164\u115f\u034f\u17b4a\ufe0f", `\u3164\u115f\u034f\u17b4a\ufe0f`},
		{"emoji", "❤\ufe0f☎\ufe0e", "❤\ufe0f☎\ufe0e"},
		{"line separators", "\u2028\u2029", `\u2028\u2029`},
		{"private use", "\ue000\U00100000", `\ue000\U00100000`},
		{"noncharacters", "\ufffe\U0001ffff", `\ufffe\U0001ffff`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			if got := Escape(tt.in); got != tt.want {
				t.Errorf("Escape(%q) = %s, want %s", tt.in, got, tt.want)
			}
		})
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range vectorNames {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			if !errors.Is(err, ErrBadName) || strings.ContainsFunc(err.Error(), hidden) {
				t.Fatalf("ParseName(%q): %q, want ErrBadName in safe text", s, err)
			}
			return
		}
		checkDisplayForm(t, string(n))
		if again, err := ParseName(string(n)); again != n || err != nil {
			t.Errorf("ParseName(%+q) = %+q, and of that %+q, %v", s, n, again, err)
		}
		if n.Lookup() != lookupForm(s) {
			t.Errorf("lookup form of %+q is %+q, as a name %+q", s, lookupForm(s), n.Lookup())
		}
		for _, w := range Words(n) {
			if form, err := LookupForm(w); form != w || err != nil {
				t.Errorf("Words(%+q) has %+q, whose lookup form is %+q, %v", n, w, form, err)
			}
		}
	})
}

// checkDisplayForm checks what every accepted component promises.
func checkDisplayForm(t *testing.T, n string) {
	t.Helper()
	if !utf8.ValidString(n) || normalForm(norm.NFC, n) != n {
		t.Errorf("accepted %+q, which is not UTF-8 in NFC", n)
	}
	if n == "" || n == "." || n == ".." || len(n) > 255 || strings.ContainsAny(n, "/\\\x00") {
		t.Errorf("accepted %+q as a component", n)
	}
	if lookup, err := LookupForm(n); err != nil || lookupForm(lookup) != lookup {
		t.Errorf("accepted %+q, with lookup form %+q, %v, and of that %+q", n, lookup, err, lookupForm(lookup))
	}
	for _, r := range Escape(n) {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Bidi_Control) {
			t.Errorf("Escape(%+q) has U+%04X", n, r)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"a", "a/b", "/a", "a/", "a//b", "../a", "a/./b", "e\u0301/\u0301", `a\b/c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePath(s)
		if err != nil {
			if !errors.Is(err, ErrBadName) || strings.ContainsFunc(err.Error(), hidden) {
				t.Fatalf("ParsePath(%q): %q, want ErrBadName in safe text", s, err)
			}
			return
		}
		if len(p) > 4096 {
			t.Errorf("ParsePath accepted %d bytes", len(p))
		}
		for part := range strings.SplitSeq(string(p), "/") {
			checkDisplayForm(t, part)
		}
		if again, err := ParsePath(string(p)); again != p || err != nil {
			t.Errorf("ParsePath(%+q) = %+q, and of that %+q, %v", s, p, again, err)
		}
	})
}

func FuzzEscape(f *testing.F) {
	for _, s := range append(vectorNames, "\x1b[2J", `\x1b`, "\x9b", "\u202e", "\xff\xfe") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := Escape(s)
		if !utf8.ValidString(e) || strings.ContainsFunc(e, func(r rune) bool { return hidden(r) && !emojiStyle(r) }) {
			t.Fatalf("Escape(%q) = %q, which is not safe", s, e)
		}
		back, err := strconv.Unquote(`"` + strings.ReplaceAll(e, `"`, `\"`) + `"`)
		if err != nil || back != s {
			t.Errorf("Escape(%q) = %s, which reads back as %q, %v", s, e, back, err)
		}
	})
}

func BenchmarkParsePath(b *testing.B) {
	for _, p := range []string{"src/cmd/go/internal/modload/build.go", "Bücher/日本語/re\u0301sume\u0301.pdf"} {
		b.Run(Escape(p[:3]), func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParsePath(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
