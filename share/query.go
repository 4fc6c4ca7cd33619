package share

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Query says which names a search is for. All of it must hold. Texts are in lookup
// form, as [ParseQuery] makes them and as they travel (wire.go).
type Query struct {
	Words    []string `json:"words,omitempty"`     // each is one of the name's; at least one
	Texts    []string `json:"texts,omitempty"`     // each occurs in the name as it stands
	Not      []string `json:"not,omitempty"`       // words that the name must not have
	NotTexts []string `json:"not_texts,omitempty"` // texts that must not occur in it
	Ext      []string `json:"ext,omitempty"`       // the name ends in a dot and one of these; empty: in anything
	NotExt   []string `json:"not_ext,omitempty"`   // or in none of these
	Min      int64    `json:"min,omitempty"`       // bytes, at least
	Max      int64    `json:"max,omitempty"`       // bytes, at most; 0: any number
}

// Limits of a query.
const (
	queryBytesMax = 1024 // of its text
	queryTermsMax = 32   // of each of a Query's lists
)

// ErrBadQuery is matched by every error of ParseQuery. Its text is safe for a
// terminal.
var ErrBadQuery = errors.New("can't be searched for")

// ParseQuery reads what a person searches for, terms with spaces between them:
//
//	report          names with this word
//	report.pdf      names with both words, wherever they stand in it
//	"final report"  names in which this occurs as it stands: nothing in quotes is
//	                an operator, and all its words are words of the name
//	-draft          names without this word; -"old report" and -ext:tmp, too
//	ext:pdf         names that end so; several mean any of them
//	size:>10M       larger than that; also <, >=, <= and 1M..10M. K, M, G and T are
//	                powers of 1024, and may be followed by B or iB
//
// Parts are read one by one, and quotes end with theirs. Case, form and width do not
// matter (see [LookupForm]). Without a word or an ext there is nothing to search by.
// The error matches ErrBadQuery.
func ParseQuery(parts ...string) (Query, error) {
	var q Query
	bytes := 0
	for _, part := range parts {
		if bytes += len(part); bytes > queryBytesMax {
			return Query{}, fmt.Errorf("a query of more than %d bytes %w", queryBytesMax, ErrBadQuery)
		}
		if !utf8.ValidString(part) {
			return Query{}, badQuery(part, "is not valid UTF-8")
		}
		for part != "" {
			var t term
			if t, part = cutTerm(part); t.text == "" {
				continue
			}
			if err := q.add(t); err != nil {
				return Query{}, err
			}
		}
	}
	for _, list := range []*[]string{&q.Words, &q.Texts, &q.Not, &q.NotTexts, &q.Ext, &q.NotExt} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return q, q.check()
}

func badQuery(what, why string) error {
	return fmt.Errorf("\"%s\" %w: it %s", escapeCut(what, 80), ErrBadQuery, why)
}

// term is one term of a query as it was typed.
type term struct {
	text   string // without its minus and quotes
	not    bool
	quoted bool
}

// cutTerm takes the first term off s. A quote that is not closed ends with s.
func cutTerm(s string) (t term, rest string) {
	s = strings.TrimLeftFunc(s, unicode.IsSpace)
	if minus, ok := strings.CutPrefix(s, "-"); ok {
		t.not, s = true, minus
	}
	if open, ok := strings.CutPrefix(s, `"`); ok {
		t.quoted = true
		t.text, rest, _ = strings.Cut(open, `"`)
		return t, rest
	}
	end := strings.IndexFunc(s, unicode.IsSpace)
	if end < 0 {
		end = len(s)
	}
	t.text = s[:end]
	return t, s[end:]
}

// add adds what a term asks for.
func (q *Query) add(t term) error {
	operator, value, ok := strings.Cut(t.text, ":")
	if ok && !t.quoted {
		switch strings.ToLower(operator) {
		case "ext":
			return q.addExt(t, value)
		case "size":
			return q.addSize(t, value)
		}
	}
	form, err := LookupForm(t.text)
	words := wordsOf(form)
	if err != nil || len(words) == 0 {
		return badQuery(t.text, "has no letter and no digit")
	}
	switch {
	case t.not && !t.quoted && len(words) == 1:
		q.Not = append(q.Not, words...)
	case t.not:
		q.NotTexts = append(q.NotTexts, form)
	default:
		q.Words = append(q.Words, words...)
		if t.quoted {
			q.Texts = append(q.Texts, form)
		}
	}
	return nil
}

func (q *Query) addExt(t term, value string) error {
	form, err := LookupForm(strings.TrimPrefix(value, "."))
	if err != nil || len(wordsOf(form)) == 0 || strings.Contains(form, "/") {
		return badQuery(t.text, "names no extension: write it like ext:pdf")
	}
	if t.not {
		q.NotExt = append(q.NotExt, form)
	} else {
		q.Ext = append(q.Ext, form)
	}
	return nil
}

// addSize narrows the sizes asked for.
func (q *Query) addSize(t term, value string) error {
	const form = "is no size: write it like size:>10M, size:<=1.5G or size:1M..10M"
	if t.not {
		return badQuery(t.text, "has a minus: turn < and > round")
	}
	low, high := int64(0), int64(math.MaxInt64)
	var err, err2 error
	switch from, to, isRange := strings.Cut(value, ".."); {
	case isRange:
		low, err = parseSize(from)
		high, err2 = parseSize(to)
	case strings.HasPrefix(value, ">="):
		low, err = parseSize(value[2:])
	case strings.HasPrefix(value, "<="):
		high, err = parseSize(value[2:])
	case strings.HasPrefix(value, ">"):
		low, err = parseSize(value[1:])
		low++
	case strings.HasPrefix(value, "<"):
		high, err = parseSize(value[1:])
		high--
	default:
		low, err = parseSize(value)
		high = low
	}
	if err = errors.Join(err, err2); err != nil {
		return badQuery(t.text, form)
	}
	if high <= 0 { // 0 stands for any number
		return badQuery(t.text, "leaves nothing but empty files, or not even them")
	}
	if high != math.MaxInt64 && (q.Max == 0 || high < q.Max) {
		q.Max = high
	}
	q.Min = max(q.Min, low)
	if q.Max != 0 && q.Min > q.Max {
		return badQuery(t.text, "leaves no size at all")
	}
	return nil
}

// sizeUnits are the units of sizes by their first letter.
var sizeUnits = map[byte]float64{'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40, 'P': 1 << 50}

// parseSize reads a number of bytes, as 10, 10M, 1.5GiB.
func parseSize(s string) (int64, error) {
	s = strings.ToUpper(s)
	s = strings.TrimSuffix(strings.TrimSuffix(s, "B"), "I")
	unit := 1.0
	if n := len(s); n > 0 && sizeUnits[s[n-1]] != 0 {
		unit = sizeUnits[s[n-1]]
		s = s[:n-1]
	}
	if strings.Trim(s, "0123456789.") != "" {
		return 0, ErrBadQuery
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v*unit >= math.MaxInt64 {
		return 0, ErrBadQuery
	}
	return int64(v * unit), nil
}

// check refuses a query that asks for too much, or by no word.
func (q Query) check() error {
	for _, list := range [][]string{q.Words, q.Texts, q.Not, q.NotTexts, q.Ext, q.NotExt} {
		if len(list) > queryTermsMax {
			return fmt.Errorf("a query of more than %d words %w", queryTermsMax, ErrBadQuery)
		}
		for _, s := range list {
			if s == "" || len(s) > queryBytesMax || !utf8.ValidString(s) {
				return fmt.Errorf("a word that is empty, too long or no text %w", ErrBadQuery)
			}
		}
	}
	if len(q.Words) == 0 && len(q.Ext) == 0 {
		return fmt.Errorf("a query without a word %w: name one that what you look for has", ErrBadQuery)
	}
	if q.Min < 0 || q.Max < 0 {
		return fmt.Errorf("a negative size %w", ErrBadQuery)
	}
	return nil
}

// String is q in the form that ParseQuery reads: with quotes only where they mean
// something, and without the words that a text has anyway.
func (q Query) String() string {
	var ofTexts []string
	for _, t := range q.Texts {
		ofTexts = append(ofTexts, wordsOf(t)...)
	}
	terms := slices.DeleteFunc(slices.Clone(q.Words), func(w string) bool { return slices.Contains(ofTexts, w) })
	quoted := func(before string, list []string) {
		for _, s := range list {
			terms = append(terms, before+`"`+s+`"`)
		}
	}
	quoted("", q.Texts)
	for _, w := range q.Not {
		terms = append(terms, "-"+w)
	}
	quoted("-", q.NotTexts)
	for _, e := range q.Ext {
		terms = append(terms, "ext:"+e)
	}
	for _, e := range q.NotExt {
		terms = append(terms, "-ext:"+e)
	}
	if q.Min > 0 {
		terms = append(terms, fmt.Sprintf("size:>=%d", q.Min))
	}
	if q.Max > 0 {
		terms = append(terms, fmt.Sprintf("size:<=%d", q.Max))
	}
	return strings.Join(terms, " ")
}

// Match reports whether what has this name and size, in bytes, is meant.
func (q Query) Match(n Name, size int64) bool {
	form := n.Lookup()
	words := indexWords(form)
	has := func(w string) bool { _, ok := slices.BinarySearch(words, w); return ok }
	occurs := func(text string) bool { return strings.Contains(form, text) }
	ends := func(ext string) bool { return strings.HasSuffix(form, "."+ext) && len(form) > len(ext)+1 }
	return !slices.ContainsFunc(q.Words, func(w string) bool { return !has(w) }) &&
		!slices.ContainsFunc(q.Texts, func(t string) bool { return !occurs(t) }) &&
		!slices.ContainsFunc(q.Not, has) && !slices.ContainsFunc(q.NotTexts, occurs) &&
		(len(q.Ext) == 0 || slices.ContainsFunc(q.Ext, ends)) && !slices.ContainsFunc(q.NotExt, ends) &&
		size >= q.Min && (q.Max == 0 || size <= q.Max)
}

// keyWords are alternatives of words by which what is meant is found: it has all the
// words of one of them. They are more than one only for several extensions and no
// word.
func (q Query) keyWords() [][]string {
	if len(q.Words) > 0 {
		words := slices.Clone(q.Words)
		if len(q.Ext) == 1 {
			words = append(words, wordsOf(q.Ext[0])...)
		}
		slices.Sort(words)
		return [][]string{slices.Compact(words)}
	}
	var all [][]string
	for _, e := range q.Ext {
		all = append(all, wordsOf(e))
	}
	return all
}

// rarest orders words by how rare they look, the rarest first: those of few shares of
// this library, as count tells, come before those of many, and long ones before short
// ones. What no share here has may be rare or not: count is 0 then.
func rarest(words []string, count func(word string) int) []string {
	type looked struct {
		word  string
		count int
	}
	all := make([]looked, len(words))
	for i, w := range words {
		all[i] = looked{w, count(w)}
	}
	slices.SortStableFunc(all, func(a, b looked) int {
		if a.count != b.count {
			return a.count - b.count
		}
		return utf8.RuneCountInString(b.word) - utf8.RuneCountInString(a.word)
	})
	for i, l := range all {
		words[i] = l.word
	}
	return words
}
