package share

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// inert reports characters that nothing happens to in any context, which are
// most: tests of contexts leave them out, and take seconds instead of minutes.
// The Hangul syllables of one first consonant stand for those of all.
func inert(r rune) bool { return inertTable()[r] }

var inertTable = sync.OnceValue(func() []bool {
	table := make([]bool, unicode.MaxRune+1)
	for r := range rune(len(table)) {
		p := norm.NFKC.PropertiesString(string(r))
		table[r] = p.BoundaryBefore() && p.BoundaryAfter() && p.Decomposition() == nil && p.CCC() == 0 &&
			foldCase(string(r)) == string(r) && !ignorable(r) && unicode.SimpleFold(r) == r ||
			0xAC00+21*28 <= r && r <= 0xD7A3
	}
	return table
})

// contextsOf returns the contexts to test r in.
func contextsOf(r rune) []struct{ before, after string } {
	if inert(r) {
		return lookupContexts[:1]
	}
	return lookupContexts
}

// lookupContexts are what code points are tested in: alone, and where marks can
// compose with them, move around them, or meet once they are dropped.
var lookupContexts = []struct{ before, after string }{
	{"", ""},
	{"a", "b"},
	{"", "\u0301"},
	{"", "\u0345\u0301"},
	{"\u0301", ""},
	{"e", "\u0323\u0301"},
	{"\u03b9\u0308", "\u0301"},
	{"\u1100", "\u11a8"},
	{"j", "\u030c"},
	{"\u0345", "\u0345"},
	{"\u13a0", "\uab70"},
	{"I\u0307", "\u00df"},
}

// overUnicode is for tests of pure functions that go through all code points.
func overUnicode(t *testing.T) {
	if testing.Short() {
		t.Skip("goes through all of Unicode, and has no goroutine")
	}
	t.Parallel()
}

func TestLookupIsIdempotentOverUnicode(t *testing.T) {
	overUnicode(t)
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) {
			continue
		}
		for _, c := range contextsOf(r) {
			s := c.before + string(r) + c.after
			once := lookupForm(s)
			if twice := lookupForm(once); twice != once {
				t.Errorf("lookup form of %+q is %+q, and of that %+q", s, once, twice)
			}
			if inert(r) {
				continue
			}
			if nfd := lookupForm(norm.NFD.String(s)); nfd != once {
				t.Errorf("lookup form of %+q is %+q, and of its NFD %+q", s, once, nfd)
			}
			if strings.ContainsFunc(once, ignorable) {
				t.Errorf("lookup form of %+q is %+q, which has ignorables", s, once)
			}
		}
	}
}

func TestLookupIgnoresCaseOverUnicode(t *testing.T) {
	overUnicode(t)
	upper, lower := cases.Upper(language.Und), cases.Lower(language.Und)
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) || !unicode.IsLetter(r) {
			continue
		}
		for _, c := range contextsOf(r) {
			want := lookupForm(c.before + string(r) + c.after)
			for o := unicode.SimpleFold(r); o != r; o = unicode.SimpleFold(o) {
				if !unicode.IsLetter(o) {
					continue // U+0345, a mark: it moves among other marks, iota does not
				}
				if got := lookupForm(c.before + string(o) + c.after); got != want {
					t.Errorf("lookup form with U+%04X for U+%04X after %+q before %+q = %+q, want %+q", o, r, c.before, c.after, got, want)
				}
			}
		}
		if inert(r) {
			continue
		}
		want := lookupForm(string(r))
		if r != 'ı' { // its upper case is I, whose lower case is i in every language but Turkish and Azeri
			if got := lookupForm(upper.String(string(r))); got != want {
				t.Errorf("lookup form of upper case of U+%04X = %+q, want %+q", r, got, want)
			}
		}
		if got := lookupForm(lower.String(string(r))); got != want {
			t.Errorf("lookup form of lower case of U+%04X = %+q, want %+q", r, got, want)
		}
	}
}

// displayForm tells empty lookup forms by their names alone.
func TestLookupIsEmptyOnlyForIgnorables(t *testing.T) {
	overUnicode(t)
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if got := lookupForm(string(r)); utf8.ValidRune(r) && (got == "") != ignorable(r) {
			t.Errorf("lookup form of U+%04X = %+q, and ignorable is %v", r, got, ignorable(r))
		}
	}
}

func TestLookupFormRefuses(t *testing.T) {
	for _, s := range []string{"", "\u200b", "\ufe0f\u3164", "a\xff"} {
		if got, err := LookupForm(s); !errors.Is(err, ErrBadName) {
			t.Errorf("LookupForm(%+q) = %+q, %v, want ErrBadName", s, got, err)
		}
	}
}

func TestIgnorableIsTheUnicodeProperty(t *testing.T) {
	if unicode.Version != "15.0.0" {
		t.Skipf("counted for Unicode 15.0.0, not %s", unicode.Version)
	}
	count := 0
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if ignorable(r) {
			count++
		}
	}
	if count != 4174 { // "Total code points" in DerivedCoreProperties.txt
		t.Errorf("%d code points are ignorable, want 4174", count)
	}
	for _, r := range []rune{0xAD, 0x34F, 0x61C, 0x115F, 0x17B4, 0x180F, 0x200B, 0x2065, 0x3164, 0xFE0F, 0xFEFF, 0xFFA0, 0xFFF0, 0x1BCA0, 0xE0000, 0xE0FFF} {
		if !ignorable(r) {
			t.Errorf("U+%04X is not ignorable", r)
		}
	}
	for _, r := range []rune{'a', 0xA0, 0x600, 0x6DD, 0x70F, 0x8E2, 0x110BD, 0x13430, 0xFFF9, 0xFFFB, 0x2028, 0xE1000} {
		if ignorable(r) {
			t.Errorf("U+%04X is ignorable", r)
		}
	}
}

// Where package norm leaves text alone, our own slow path must say the same.
func TestSlowNormalizationAgreesOverUnicode(t *testing.T) {
	overUnicode(t)
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if !utf8.ValidRune(r) || inert(r) {
			continue
		}
		for _, c := range contextsOf(r) {
			s := c.before + string(r) + c.after
			for _, f := range []norm.Form{norm.NFC, norm.NFKC} {
				if got, want := string(compose(decompose(f, s))), f.String(s); got != want {
					t.Errorf("composed form %d of %+q = %+q, want %+q", f, s, got, want)
				}
			}
		}
	}
}

func TestManyMarksAreStillNormalized(t *testing.T) {
	dots := strings.Repeat("\u0307", 50)
	below := strings.Repeat("\u0323", 50)
	for _, tt := range []struct{ in, want string }{
		{"s" + dots + below, "\u1e69" + below[2:] + dots[2:]}, // s with both dots, then by class
		{"\u1e61" + below + dots, "\u1e69" + below[2:] + dots},
		{strings.Repeat("ㅠ", 40), strings.Repeat("ㅠ", 40)},
	} {
		if got := normalForm(norm.NFC, tt.in); got != tt.want {
			t.Errorf("normalForm(NFC, %+q) = %+q, want %+q", tt.in, got, tt.want)
		}
	}
	if got, want := lookupForm(strings.Repeat("ㅠ", 40)), strings.Repeat("\u1172", 40); got != want {
		t.Errorf("lookup form of 40 vowels = %+q, want %+q", got, want)
	}
}

func FuzzLookup(f *testing.F) {
	for _, s := range vectorNames {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		once := lookupForm(s)
		if twice := lookupForm(once); twice != once {
			t.Errorf("lookup form of %+q is %+q, and of that %+q", s, once, twice)
		}
		for _, form := range []norm.Form{norm.NFC, norm.NFD, norm.NFKC, norm.NFKD} {
			if got := lookupForm(normalForm(form, s)); got != once {
				t.Errorf("lookup form of %+q is %+q, of its form %d %+q", s, once, form, got)
			}
		}
		if got := lookupForm(foldCase(normalForm(norm.NFD, s))); got != once {
			t.Errorf("lookup form of %+q is %+q, once folded %+q", s, once, got)
		}
	})
}
