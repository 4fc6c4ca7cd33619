package share

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// scripts are those that a word is looked at for: the ones whose letters are taken
// for another's. A letter of any other script is "other".
var scripts = []struct {
	name  string
	table *unicode.RangeTable
}{
	{"Latin", unicode.Latin}, {"Cyrillic", unicode.Cyrillic}, {"Greek", unicode.Greek}, {"Armenian", unicode.Armenian},
	{"Hebrew", unicode.Hebrew}, {"Arabic", unicode.Arabic}, {"Cherokee", unicode.Cherokee}, {"Georgian", unicode.Georgian},
	{"Coptic", unicode.Coptic}, {"Han", unicode.Han}, {"Hiragana", unicode.Hiragana}, {"Katakana", unicode.Katakana},
	{"Bopomofo", unicode.Bopomofo}, {"Hangul", unicode.Hangul}, {"Devanagari", unicode.Devanagari}, {"Thai", unicode.Thai},
	{"Lisu", unicode.Lisu}, {"Deseret", unicode.Deseret}, {"Gothic", unicode.Gothic}, {"Old Italic", unicode.Old_Italic},
}

// togethers are the scripts that one language writes together.
var togethers = [][]string{
	{"Latin", "Han", "Hiragana", "Katakana"}, // Japanese
	{"Latin", "Han", "Bopomofo"},             // Chinese
	{"Latin", "Han", "Hangul"},               // Korean
}

// MixedScripts returns the scripts that a word of name mixes and that no language
// writes together, as Latin and Cyrillic in "pаypal.pdf" with a Cyrillic а; nil
// when no word does. Show a name that does so with a warning: it may have been made
// to look like another. A word is a run of letters and marks, so that the
// extension may be in another script than the rest.
//
// A word that is of one script as a whole, and looks like a word of another, is
// not found: for that every Russian "сор" would have to be warned of. Lookalikes
// finds it where both are.
//
// Source: UTS 39, revision 28, section 5.2, "Highly Restrictive", by word; digits
// and what is common to scripts belong to any.
func MixedScripts(name string) []string {
	var word []string
	mixed := func() bool {
		return len(word) > 1 && !slices.ContainsFunc(togethers, func(set []string) bool {
			return !slices.ContainsFunc(word, func(s string) bool { return !slices.Contains(set, s) })
		})
	}
	for _, r := range name {
		switch {
		case unicode.IsMark(r) || unicode.IsDigit(r) || ignorable(r):
		case !unicode.IsLetter(r):
			if mixed() {
				return word
			}
			word = nil
		default:
			if s := scriptOf(r); s != "" && !slices.Contains(word, s) {
				word = append(word, s)
			}
		}
	}
	if mixed() {
		return word
	}
	return nil
}

// scriptOf returns the script of a letter, "" for one that is common to several.
func scriptOf(r rune) string {
	if unicode.In(r, unicode.Common, unicode.Inherited) {
		return ""
	}
	for _, s := range scripts {
		if unicode.Is(s.table, r) {
			return s.name
		}
	}
	return "other"
}

// Scripts returns the scripts that name's letters are of, in the order in which they
// come.
func Scripts(name string) []string {
	var found []string
	for _, r := range name {
		if !unicode.IsLetter(r) || ignorable(r) {
			continue
		}
		if s := scriptOf(r); s != "" && !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	return found
}

// Lookalikes finds names that look alike and are not the same, as "apple" and a
// Cyrillic "аррӏе", among those that it was told of. The zero value knows none. It is
// not safe for concurrent use.
type Lookalikes struct {
	bySkeleton map[string][]string // two names, with different lookup forms, at most
}

// lookalikesMax bounds the names that one Lookalikes keeps; more are not compared.
const lookalikesMax = 20_000

// Add tells of a name.
func (l *Lookalikes) Add(name string) {
	for _, key := range skeletons(name) {
		same := l.bySkeleton[key]
		if len(same) == 2 || len(same) == 1 && lookupForm(same[0]) == lookupForm(name) || len(l.bySkeleton) >= lookalikesMax {
			continue
		}
		if l.bySkeleton == nil {
			l.bySkeleton = map[string][]string{}
		}
		l.bySkeleton[key] = append(same, name)
	}
}

// Like returns a name that it was told of and that name looks like, or "".
func (l *Lookalikes) Like(name string) string {
	if len(l.bySkeleton) == 0 {
		return ""
	}
	for _, key := range skeletons(name) {
		for _, other := range l.bySkeleton[key] {
			if lookupForm(other) != lookupForm(name) {
				return other
			}
		}
	}
	return ""
}

// skeletons are what a name looks like: those of two names that look alike have one
// in common. A capital I looks like l, and is an i.
func skeletons(name string) []string {
	first := skeleton(name)
	if !strings.ContainsRune(name, 'I') {
		return []string{first}
	}
	second := skeleton(strings.ReplaceAll(name, "I", "l"))
	if second == first {
		return []string{first}
	}
	return []string{first, second}
}

// skeleton is a name with each letter that looks like another in its place, in lower
// case. It is idempotent.
//
// Source: UTS 39, revision 28, section 4, with that part of its table which is
// between the Latin, Cyrillic and Greek scripts and between ASCII's digits and
// letters, and small letters that look like small capitals besides; without regard
// to case, as names are.
func skeleton(name string) string {
	for range lookupPassesMax {
		// Capitals look like others than their small letters do.
		next := lookupForm(strings.Map(prototype, normalForm(norm.NFD, name)))
		next = strings.Map(prototype, normalForm(norm.NFD, next))
		next = strings.ReplaceAll(next, "rn", "m")
		if next == name {
			break
		}
		name = next
	}
	return name
}

func prototype(r rune) rune {
	if p, ok := prototypes[r]; ok {
		return p
	}
	return r
}

// prototypes has for each letter the one of ASCII that it looks like.
var prototypes = func() map[rune]rune {
	table := map[rune]rune{'0': 'o', '1': 'l', '|': 'l', 'ı': 'i', 'ɑ': 'a', 'ɡ': 'g', 'ɩ': 'i', 'ʏ': 'y', 'ſ': 'f', 'ƨ': 's', 'ɯ': 'w'}
	for _, pairs := range []string{
		// Cyrillic, small and capital
		"аa ԁd еe һh іi јj ӏl оo рp ԛq ѕs сc ѵv ԝw хx уy үy гr пn ьb ѡw ԍg кk мm тt",
		"АA ВB ЅS СC ԌG ЕE НH ІI ЈJ КK ӀI МM ОO РP ԚQ ТT ѴV ԜW ХX УY ҮY ЬB",
		// Greek
		"αa γy ιi κk νv οo ρp σo υu ϳj χx τt ηn ωw βb",
		"ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX",
	} {
		for _, pair := range strings.Fields(pairs) {
			p := []rune(pair)
			table[p[0]] = unicode.ToLower(p[1])
		}
	}
	table['Ӏ'] = 'l' // a palochka, which has no form of its own as a capital
	return table
}()
