package share

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/multiformats/go-multihash"
)

func TestPairKey(t *testing.T) {
	// printf 'p2pshare/words/1\0final\0report' | sha256sum
	const want = "5d1c4790370a845e01e4f14ff0f4ab8cdca2f4ba5213dc892948192c4895912c"
	d, err := multihash.Decode(pairOf("report", "final").key())
	if got := fmt.Sprintf("%x", d.Digest); err != nil || got != want {
		t.Errorf("key of final and report: %s, %v, want %s", got, err, want)
	}
	if pairOf("a", "bc") == pairOf("ab", "c") || pairOf("a", "b") != pairOf("b", "a") {
		t.Error("a pair is not its two words in any order")
	}
}

func TestNamePairs(t *testing.T) {
	for _, tt := range []struct {
		name Name
		want string
	}{
		{"report", ""},
		{"Report report", ""},
		{"Report.PDF", "pdf+report"},
		{"final report.pdf", "final+pdf final+report pdf+report"},
		{"東京大学", "京大+大学 京大+東京 大学+東京"},
		// Of many words the longest.
		{"aaaaaa b cc ddd eeee fffff", "aaaaaa+cc aaaaaa+ddd aaaaaa+eeee aaaaaa+fffff cc+ddd cc+eeee cc+fffff ddd+eeee ddd+fffff eeee+fffff"},
	} {
		var got []string
		for _, p := range namePairs(tt.name) {
			got = append(got, p[0]+"+"+p[1])
		}
		slices.Sort(got)
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%q is announced by %s, want %s", tt.name, s, tt.want)
		}
	}
}

func TestQueryPairs(t *testing.T) {
	for _, tt := range []struct{ words, want string }{
		{"report", ""},
		{"report final", "[final report]"},
		{"longest tiny no", "[longest tiny]"},
		{"no tiny longest", "[longest tiny] [no tiny]"},
	} {
		got := strings.Trim(fmt.Sprint(queryPairs(strings.Fields(tt.words))), "[]")
		if want := strings.Trim(tt.want, "[]"); got != want {
			t.Errorf("%q is looked for by %s, want %s", tt.words, got, want)
		}
	}
}

// TestEveryPairOfAQueryFindsShortNames: what a name of few words is looked for by is
// among what it is announced by.
func TestEveryPairOfAQueryFindsShortNames(t *testing.T) {
	name := Name("alpha be gamma.pdf")
	words := Words(name)
	for i := range words {
		for k := range words {
			for _, p := range queryPairs(slices.Compact([]string{words[i], words[k]})) {
				if !slices.Contains(namePairs(name), p) {
					t.Errorf("%q is not announced by %q", name, p)
				}
			}
		}
	}
}

func TestPairsOfSharesThatMayBeFound(t *testing.T) {
	l := openUnsynced(t)
	dir := t.TempDir()
	addTo(t, l, writeFile(t, dir, "final report", "1"), AddOptions{})
	addTo(t, l, writeFile(t, dir, "report final.pdf", "2"), AddOptions{})
	addTo(t, l, writeFile(t, dir, "lan only", "3"), AddOptions{Scope: Scope{LANOnly: true}})
	addTo(t, l, writeFile(t, dir, "not listed", "4"), AddOptions{Scope: Scope{Unlisted: true}})
	all := []wordPair{{"final", "report"}, {"final", "pdf"}, {"pdf", "report"}}
	got, err := l.catalog.sweptPairs(100)
	if err != nil || !slices.Contains(got, all[0]) || len(got) != len(all) {
		t.Errorf("announced are %q, %v, want %q", got, err, all)
	}
	if got, err := l.catalog.sweptPairs(1); err != nil || !cmp.Equal(got, all[:1]) {
		t.Errorf("if one pair may be announced it is %q, %v, want that of the oldest share", got, err)
	}
	// A pair ends with the last share that has it.
	withdrawn := func(path string) []string {
		k := keysAt(t, l, path)
		if _, err := l.Remove(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		stop, err := l.unneeded(k)
		if err != nil {
			t.Fatal(err)
		}
		return hexKeys(stop)
	}
	stop := withdrawn(dir + "/report final.pdf")
	for i, p := range all {
		if got := slices.Contains(stop, p.key().HexString()); got != (i > 0) {
			t.Errorf("while one of two shares is gone, the announcement of %q ends: %v", p, got)
		}
	}
	if stop = withdrawn(dir + "/final report"); !slices.Contains(stop, all[0].key().HexString()) {
		t.Errorf("%q stays announced", all[0])
	}
}
