package share

import (
	"slices"
	"unicode"
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
// not found: for that every Russian "сор" would have to be warned of.
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
