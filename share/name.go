package share

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Limits of the display form, in bytes of NFC. 255 is what ext4, APFS and NTFS
// hold in one component; 4096 is Linux's PATH_MAX.
const (
	nameBytesMax = 255
	pathBytesMax = 4096
)

// Prefixes of the hashed bytes. They keep a name, a word and whatever else is
// hashed by SHA-256 in the DHT from ever being the same key.
const (
	nameKeyPrefix = "p2pshare/name/1\x00"
	wordKeyPrefix = "p2pshare/word/1\x00"
)

// Name is a published name in display form: one component, as it is stored,
// signed, and written to disk. It is valid UTF-8 in NFC, 1 to 255 bytes long,
// is not "." or "..", and has none of: '/', backslash, control characters,
// bidi controls, U+2028, U+2029, private use. Its lookup form is not empty.
//
// Other invisible characters stay (emoji and Persian need joiners), so show a
// Name with [Escape]. A Name made by conversion instead of by [ParseName]
// promises none of this.
type Name string

// Path is a path inside a listing: one or more components in display form,
// separated by '/', at most 4096 bytes together. It is relative and has no
// empty, "." or ".." component, but a local system may not be able to hold it:
// see localizer.
type Path string

// ErrBadName is matched by every error of [ParseName], [ParsePath] and
// [LookupForm]. The remedy is another name; trying again does not help.
var ErrBadName = errors.New("bad name")

// NameError says why a string is not a name. It matches [ErrBadName].
type NameError struct {
	Name   string // as given: may be long, and hostile to a terminal
	Reason string // completes "the name …": "is empty", "contains a backslash"
}

// Error returns one line that is safe on a terminal, with the name cut to about
// 80 characters.
func (e *NameError) Error() string {
	return fmt.Sprintf("bad name \"%s\": it %s", escapeCut(e.Name, 80), e.Reason)
}

// Is reports whether target is [ErrBadName].
func (e *NameError) Is(target error) bool { return target == ErrBadName }

// ParseName returns s in display form, which is its NFC; what a Name can't hold
// is refused, not repaired. The error is a [*NameError].
func ParseName(s string) (Name, error) {
	n, reason := displayForm(s)
	if reason != "" {
		return "", &NameError{Name: s, Reason: reason}
	}
	return Name(n), nil
}

// ParsePath returns s with each component in display form. A leading or
// trailing '/' is refused, and so is "//". The error is a [*NameError] about
// the whole of s.
func ParsePath(s string) (Path, error) {
	if len(s) > shrinkMax*pathBytesMax {
		return "", &NameError{Name: s, Reason: tooLong(pathBytesMax)}
	}
	if strings.HasPrefix(s, "/") {
		return "", &NameError{Name: s, Reason: "begins with '/'"}
	}
	parts := strings.Split(s, "/")
	for i, part := range parts {
		n, reason := displayForm(part)
		if reason != "" {
			return "", &NameError{Name: s, Reason: fmt.Sprintf("has a component, number %d, that %s", i+1, reason)}
		}
		parts[i] = n
	}
	s = strings.Join(parts, "/")
	if len(s) > pathBytesMax {
		return "", &NameError{Name: s, Reason: tooLong(pathBytesMax)}
	}
	return Path(s), nil
}

// shrinkMax bounds how many times shorter NFC can make a string: 3.5 times, for
// U+1FBE U+0308 U+0301, which become U+0390. What is longer than that times a
// limit is refused before any work is done on it.
const shrinkMax = 4

func tooLong(limit int) string { return fmt.Sprintf("is longer than %d bytes", limit) }

// displayForm returns the display form of one component, or why it has none.
func displayForm(s string) (form, reason string) {
	if len(s) > shrinkMax*nameBytesMax {
		return "", tooLong(nameBytesMax)
	}
	if !utf8.ValidString(s) {
		return "", "is not valid UTF-8"
	}
	s = normalForm(norm.NFC, s)
	switch {
	case s == "":
		return "", "is empty"
	case s == "." || s == "..":
		return "", "is a reference to a directory"
	case len(s) > nameBytesMax:
		return "", tooLong(nameBytesMax)
	}
	visible := false
	for _, r := range s {
		if what := refused(r); what != "" {
			return "", fmt.Sprintf("contains %s (U+%04X)", what, r)
		}
		visible = visible || !ignorable(r)
	}
	// A lookup form comes out empty exactly when all of its name is ignorable.
	if !visible {
		return "", "has only invisible characters"
	}
	return s, ""
}

// refused returns what kind of character r is, when no Name may have it.
func refused(r rune) string {
	switch {
	case ' ' <= r && r <= '~' && r != '/' && r != '\\':
		return "" // nearly all there is, in most listings
	case r == '/':
		return "a slash"
	case r == '\\':
		return "a backslash"
	case unicode.Is(unicode.Cc, r):
		return "a control character"
	case unicode.Is(unicode.Bidi_Control, r):
		return "a character that changes the direction of text"
	case r == '\u2028' || r == '\u2029':
		return "a line separator"
	case unicode.Is(unicode.Co, r):
		return "a private use character"
	}
	return ""
}

// Lookup returns the lookup form of n: see [LookupForm]. Names that people take
// for the same have the same one. It is for keys and comparison, never shown.
func (n Name) Lookup() string { return lookupForm(string(n)) }

// Key returns the name key of n: where its providers are found in the DHT.
func (n Name) Key() multihash.Multihash {
	return sha256Multihash(NameKeyDigest(n.Lookup()))
}

// NameKeyDigest returns the 32 bytes inside a name key:
// SHA-256("p2pshare/name/1\x00" + lookup). lookup is a lookup form.
func NameKeyDigest(lookup string) [sha256.Size]byte {
	return sha256.Sum256([]byte(nameKeyPrefix + lookup))
}

// WordKey returns the DHT key for search by word, made as a name key with the
// prefix "p2pshare/word/1\x00". word is one of those [Words] returns.
func WordKey(word string) multihash.Multihash {
	return sha256Multihash(sha256.Sum256([]byte(wordKeyPrefix + word)))
}

// KeyCID returns key as a CIDv1 with the raw codec, in base32: what a tool of
// the IPFS family takes for the same key.
func KeyCID(key multihash.Multihash) string { return cid.NewCidV1(cid.Raw, key).String() }

func sha256Multihash(digest [sha256.Size]byte) multihash.Multihash {
	mh, err := multihash.Encode(digest[:], multihash.SHA2_256)
	if err != nil {
		panic("share: sha2-256 multihash: " + err.Error()) // a known code and the right length
	}
	return mh
}

// LookupForm returns the lookup form of any string: NFKC, then full case
// folding, then default-ignorables dropped, and all three again until nothing
// changes. LookupForm of a lookup form is itself. The last step is not a
// normalization, so a letter that folds to letter and mark, as U+01F0, stays
// apart in it.
//
// One mark, iota subscript (U+0345), folds to a letter. That is done on NFKD,
// before NFKC: composed, it would come to stand before other marks of its letter
// in lower case and after them in upper case, which composes less. It shows only
// where such a vowel has a further mark that does not compose.
//
// The error is a [*NameError], when s is not valid UTF-8 or nothing is left.
//
// The tables are those of golang.org/x/text: Unicode 15.0 up to Go 1.26, 17.0
// from then on. Unicode promises that assigned characters keep their forms, so
// only names in letters that one version has and the other lacks can get two
// keys.
//
// Source: Unicode 15.0, section 3.13, definitions D145 to D147, which decompose
// first for the same reason; except that NFKC_Casefold ends in NFC.
func LookupForm(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", &NameError{Name: s, Reason: "is not valid UTF-8"}
	}
	form := lookupForm(s)
	if form == "" {
		return "", &NameError{Name: s, Reason: "has nothing to look up"}
	}
	return form, nil
}

// lookupPassesMax bounds the passes to a fixed point. Two nearly always do: by
// then nothing is left to drop, to fold or to decompose, so that a pass yields
// a canonical equivalent, and of two of those the next passes are equal.
const lookupPassesMax = 8

func lookupForm(s string) string {
	if isASCII(s) {
		return strings.ToLower(s) // all three steps, for ASCII
	}
	for range lookupPassesMax {
		next := strings.ReplaceAll(normalForm(norm.NFKD, s), "\u0345", "ι")
		next = dropIgnorable(foldCase(normalForm(norm.NFKC, next)))
		if next == s {
			break
		}
		s = next
	}
	return s
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// foldCase is Unicode's full case folding. cases.Fold swaps the Cherokee
// letters, upper to lower and lower to upper; CaseFolding.txt folds all of them
// to upper case, which came 16 years before lower.
func foldCase(s string) string {
	return strings.Map(cherokeeUpper, cases.Fold().String(s))
}

func cherokeeUpper(r rune) rune {
	switch {
	case 0x13F8 <= r && r <= 0x13FD:
		return r - 0x13F8 + 0x13F0
	case 0xAB70 <= r && r <= 0xABBF:
		return r - 0xAB70 + 0x13A0
	}
	return r
}

func dropIgnorable(s string) string {
	return strings.Map(func(r rune) rune {
		if ignorable(r) {
			return -1
		}
		return r
	}, s)
}

// ignorable reports Default_Ignorable_Code_Point, for which package unicode has
// no table of its own.
//
// Source: the header of that property in Unicode 15.0's DerivedCoreProperties.txt.
func ignorable(r rune) bool {
	if r < 0xAD { // SOFT HYPHEN is the first
		return false
	}
	if !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Cf) {
		return false
	}
	switch {
	case 0xFFF9 <= r && r <= 0xFFFB: // interlinear annotation
		return false
	case 0x13430 <= r && r <= 0x13440: // Egyptian hieroglyph format controls
		return false
	}
	return !unicode.In(r, unicode.White_Space, unicode.Prepended_Concatenation_Mark)
}

// normalForm is f.String(s) for valid UTF-8, without its one deviation: package
// norm also makes text stream-safe, by a U+034F after 30 marks in a row (it
// counts Korean vowels too). That would rename such a file, and give it a name
// key no other implementation computes.
func normalForm(f norm.Form, s string) string {
	if isASCII(s) {
		return s
	}
	const graphemeJoiner = "\u034f"
	normal := f.String(s)
	if strings.Count(normal, graphemeJoiner) == strings.Count(s, graphemeJoiner) {
		return normal
	}
	runes := decompose(f, s)
	if f == norm.NFC || f == norm.NFKC {
		runes = compose(runes)
	}
	return string(runes)
}

// decompose returns s decomposed as f does it, and in canonical order.
//
// Source: Unicode 15.0, section 3.11, definitions D68 and D109.
func decompose(f norm.Form, s string) []rune {
	d := norm.NFD
	if f == norm.NFKC || f == norm.NFKD {
		d = norm.NFKD
	}
	var runes []rune
	for _, r := range s {
		runes = append(runes, []rune(d.String(string(r)))...)
	}
	for start := 0; start < len(runes); {
		end := start
		for end < len(runes) && combiningClass(runes[end]) != 0 {
			end++
		}
		slices.SortStableFunc(runes[start:end], func(a, b rune) int {
			return int(combiningClass(a)) - int(combiningClass(b))
		})
		start = end + 1
	}
	return runes
}

// compose is the canonical composition of runes, which it overwrites.
//
// Source: Unicode 15.0, section 3.11, definition D117.
func compose(runes []rune) []rune {
	out := runes[:0]
	starter := -1 // index in out of the last one
	last := -1    // combining class of what follows it in out, -1 for nothing
	for _, r := range runes {
		class := int(combiningClass(r))
		if starter >= 0 && last < class {
			if c := []rune(norm.NFC.String(string([]rune{out[starter], r}))); len(c) == 1 {
				out[starter] = c[0]
				continue
			}
		}
		out = append(out, r)
		last = class
		if class == 0 {
			starter, last = len(out)-1, -1
		}
	}
	return out
}

func combiningClass(r rune) uint8 { return norm.NFD.PropertiesString(string(r)).CCC() }

// Words returns the distinct words by which n can be searched, in lookup form,
// sorted. A word is a run of letters, marks and digits. Scripts written without
// spaces (Han, kana, Thai, Lao, Khmer, Burmese) give every two neighbouring
// characters instead, or the one when it stands alone.
func Words(n Name) []string { return wordsOf(n.Lookup()) }

// wordsOf is Words of a lookup form.
func wordsOf(form string) []string {
	var words []string
	var run []rune // of one kind: spaced or unspaced
	flush := func() {
		if len(run) > 2 && unspaced(run[0]) {
			for i := range len(run) - 1 {
				words = append(words, string(run[i:i+2]))
			}
		} else if len(run) > 0 {
			words = append(words, string(run))
		}
		run = run[:0]
	}
	for _, r := range form {
		switch {
		case unicode.IsMark(r) && len(run) > 0:
			run = append(run, r) // never begins a word
			continue
		case !unicode.IsLetter(r) && !unicode.IsNumber(r):
			flush()
			continue
		case len(run) > 0 && unspaced(run[0]) != unspaced(r):
			flush()
		}
		run = append(run, r)
	}
	flush()
	slices.Sort(words)
	return slices.Compact(words)
}

// unspaced reports scripts that do not put spaces between words. U+30FC, the
// long vowel mark, belongs to both kana and so to neither table.
func unspaced(r rune) bool {
	return r == '\u30fc' || unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana,
		unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// Escape returns s as it can be shown on a terminal: characters that are not
// seen, or that drive the terminal, become what a Go string literal has for
// them. A \xNN above 7f is a byte of invalid UTF-8; \u and \U are characters.
// A backslash is doubled, so that no two strings are shown alike. Quotes stay.
func Escape(s string) string { return escapeCut(s, math.MaxInt) }

// escapeCut is Escape, with "…" in place of what comes after charsMax
// characters of its result or a few more: an escape is never cut.
func escapeCut(s string, charsMax int) string {
	var b strings.Builder
	shown := 0
	before := rune(0)
	for i := 0; i < len(s); {
		if shown >= charsMax {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		start := b.Len()
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		case !hidden(r) || emojiStyle(r) && unicode.Is(unicode.So, before):
			b.WriteString(s[i : i+size])
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xFFFF:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		shown += utf8.RuneCountInString(b.String()[start:])
		i += size
		before = r
	}
	return b.String()
}

// emojiStyle reports the selectors that have a symbol before them drawn as an emoji or
// as text: those are seen.
func emojiStyle(r rune) bool { return r == '\ufe0e' || r == '\ufe0f' }

// hidden reports what Escape escapes besides the backslash: controls, formats
// (bidi controls among them), line separators, private use, noncharacters, and what
// else is drawn as nothing, as U+3164 HANGUL FILLER, which is a letter.
func hidden(r rune) bool {
	return ignorable(r) || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co,
		unicode.Bidi_Control, unicode.Noncharacter_Code_Point)
}
