package share

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseQuery(t *testing.T) {
	for _, tt := range []struct {
		parts []string
		want  Query
	}{
		{[]string{"Report"}, Query{Words: []string{"report"}}},
		{[]string{"report.pdf", "report"}, Query{Words: []string{"pdf", "report"}}},
		{[]string{`"Final Report" 2024`}, Query{Words: []string{"2024", "final", "report"}, Texts: []string{"final report"}}},
		{[]string{`"open quote`}, Query{Words: []string{"open", "quote"}, Texts: []string{"open quote"}}},
		{[]string{`"ext:pdf"`}, Query{Words: []string{"ext", "pdf"}, Texts: []string{"ext:pdf"}}},
		{[]string{"report", "-draft", "-v1.2", `-"old one"`}, Query{Words: []string{"report"}, Not: []string{"draft"}, NotTexts: []string{"old one", "v1.2"}}},
		{[]string{"ext:.PDF ext:tar.gz -ext:tmp"}, Query{Ext: []string{"pdf", "tar.gz"}, NotExt: []string{"tmp"}}},
		{[]string{"a size:>10M"}, Query{Words: []string{"a"}, Min: 10<<20 + 1}},
		{[]string{"a size:>=1.5KiB size:<2k"}, Query{Words: []string{"a"}, Min: 1536, Max: 2047}},
		{[]string{"a size:1M..10MB"}, Query{Words: []string{"a"}, Min: 1 << 20, Max: 10 << 20}},
		{[]string{"a size:512"}, Query{Words: []string{"a"}, Min: 512, Max: 512}},
		{[]string{"a foo:bar"}, Query{Words: []string{"a", "bar", "foo"}}},
		{[]string{"東京タワー"}, Query{Words: []string{"タワ", "ワー", "京タ", "東京"}}},
		{[]string{"東", "ราคา"}, Query{Words: []string{"คา", "รา", "าค", "東"}}},
		{[]string{"ＳＴＲＡẞE"}, Query{Words: []string{"strasse"}}},
	} {
		for _, l := range [][]string{tt.want.Words} {
			slices.Sort(l)
		}
		got, err := ParseQuery(tt.parts...)
		if err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("ParseQuery(%q) = %+v, %v, want %+v", tt.parts, got, err, tt.want)
		}
		again, err := ParseQuery(got.String())
		if err != nil || !cmp.Equal(again, got) {
			t.Errorf("ParseQuery(%q), its own string, = %+v, %v", got, again, err)
		}
	}
	for _, parts := range [][]string{
		nil, {""}, {"-"}, {"..."}, {"-draft"}, {"size:>1M"}, {"a", "\xff"}, {"a size:big"}, {"a size:"}, {"a size:<0"}, {"a size:>1..2"}, {"a -size:1"},
		{"a size:5..4"}, {"a size:9999999999T"}, {"a size:NaN"}, {"a size:-1"}, {"a ext:"}, {"a ext:a/b"}, {strings.Repeat("a", queryBytesMax+1)},
		{strings.Repeat("a b c d e f g h i j k l m n o p q r s t u v w x y z 1 2 3 4 5 6 7 8", 1)}, {`a "` + strings.Repeat("☃", 5) + `"`},
	} {
		if q, err := ParseQuery(parts...); !errors.Is(err, ErrBadQuery) {
			t.Errorf("ParseQuery(%q) = %+v, %v, want ErrBadQuery", parts, q, err)
		}
	}
}

func TestQueryIsShownAsOneWouldTypeIt(t *testing.T) {
	for typed, want := range map[string]string{
		"papers -draft ext:txt":             "papers -draft ext:txt",
		`Papers -"Draft"`:                   `papers -"draft"`,
		`-"old draft" "final report" 2024 `: `2024 "final report" -"old draft"`,
		"a size:>1K -ext:tmp":               "a -ext:tmp size:>=1025",
	} {
		q, err := ParseQuery(typed)
		if err != nil || q.String() != want {
			t.Errorf("ParseQuery(%q) is shown as %q, %v, want %q", typed, q.String(), err, want)
		}
	}
}

func TestQueryMatch(t *testing.T) {
	for _, tt := range []struct {
		query, name string
		size        int64
		want        bool
	}{
		{"report", "Final-Report_2024.PDF", 1, true},
		{"report", "reports.pdf", 1, false},
		{"report.pdf", "pdf of the report", 1, true},
		{`"report.pdf"`, "pdf of the report", 1, false},
		{`"report.pdf"`, "my report.pdf", 1, true},
		{`"port.pdf"`, "my report.pdf", 1, false}, // its words are words of the name
		{"report -draft", "report draft", 1, false},
		{`report -"the draft"`, "draft the report", 1, true},
		{"ext:pdf", "a.PDF", 1, true},
		{"ext:pdf", ".pdf", 1, false},
		{"ext:pdf", "pdf", 1, false},
		{"ext:pdf ext:txt", "a.txt", 1, true},
		{"a ext:gz -ext:tar.gz", "a.tar.gz", 1, false},
		{"a size:>1K", "a", 1024, false},
		{"a size:>1K", "a", 1025, true},
		{"a size:<=1K", "a", 0, true},
		{"京", "東京.jpg", 1, true},
		{"東京", "東 京", 1, false},
		{"ก", "ราคากาแฟ", 1, true},
		{"กาแฟ", "ราคากาแฟ", 1, true},
		{"naïve", "NAI\u0308VE plan", 1, true},
	} {
		q, err := ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		if got := q.Match(Name(tt.name), tt.size); got != tt.want {
			t.Errorf("%s matches %q of %d bytes: %v, want %v", tt.query, tt.name, tt.size, got, tt.want)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{"report -draft ext:pdf size:>10M", `"a b" -"c`, "size:1..2 東京 ราคา", "-ext:x size:1.5GiB", "ext:\"", "a\u0345\u0301"} {
		f.Add(s, "Report 東京.pdf")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		q, err := ParseQuery(text)
		if err != nil {
			if !errors.Is(err, ErrBadQuery) {
				t.Fatal(err)
			}
			return
		}
		if err := q.check(); err != nil {
			t.Fatalf("ParseQuery(%q) = %+v: %v", text, q, err)
		}
		line, err := json.Marshal(metaRequest{Op: opSearch, Query: &q})
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeMetaRequest(line)
		if err != nil || back.Query == nil || back.Query.String() != q.String() {
			t.Fatalf("%s decodes to %+v, %v", line, back.Query, err)
		}
		n, err := ParseName(name)
		if err != nil || !q.Match(n, max(q.Min, 1)) {
			return
		}
		// What is meant is found by its words.
		words := indexWords(n.Lookup())
		if !slices.ContainsFunc(q.keyWords(), func(all []string) bool {
			return !slices.ContainsFunc(all, func(w string) bool { return !slices.Contains(words, w) })
		}) {
			t.Fatalf("%q matches %q, and is not found by %q: it has %q", name, text, q.keyWords(), words)
		}
	})
}
