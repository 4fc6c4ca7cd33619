package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/p2pshare/p2pshare/share/content"
)

// emptyBook is a trust book in a home of its own.
func emptyBook(t testing.TB) *book {
	t.Helper()
	b, err := openBook(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheBookIsReadStrictly(t *testing.T) {
	ann, eve := keyID(t, testKey(t, 7)).String(), keyID(t, testKey(t, 8)).String()
	id := content.Root([]byte("x")).String()
	const since = " since 2026-11-29T15:04:05Z"
	good := func(lines ...string) string {
		return "# a comment\n" + bookVersion + "\n\n" + strings.Join(lines, "\n") + "\n"
	}
	for _, test := range []struct {
		name, text string
		want       string // what its error says, "" for none
	}{
		{"nothing", "", ""},
		{"no entry", good(), ""},
		{"every kind", good("peer "+ann+` as "ann"`+since, `name "report.pdf" of `+ann+" is "+id+" tier 3 among 2"+since,
			`name "a \"b\"\u202e"`+" of "+ann+" is - tier 0 among 1"+since, "block "+eve+since, "block "+id+since), "line 6: \"a"},
		{"quotes", good(`name "a \"b\"" of ` + ann + " is - tier 0 among 1" + since), ""},
		{"spaces", good("  peer\t" + ann + `  as  "ann"  since  2026-11-29T15:04:05Z  `), ""},
		{"no version", "peer " + ann + ` as "ann"` + since, "is not \"version 1\""},
		{"only a comment", "# nothing\n", "no version"},
		{"a newer version", "version 2\n", "newer"},
		{"another word", good("friend " + ann), "no kind of entry"},
		{"a cut line", good("peer " + ann + ` as "ann`), "does not end"},
		{"a cut time", good("peer " + ann + ` as "ann" since 2026`), "is no time"},
		{"a cut peer", good("peer " + ann[:20] + ` as "ann"` + since), "is no peer ID"},
		{"too much", good("block " + id + since + " for ever"), "is too much"},
		{"a word after a quote", good("peer " + ann + ` as "ann"x` + since), "follows a quote"},
		{"a petname that is a path", good("peer " + ann + ` as "a/b"` + since), "is no petname"},
		{"a name with an escape", good(`name "a\x1b[31m" of ` + ann + " is - tier 0 among 1" + since), "is no name"},
		{"a name that is not in normal form", good(`name "e\u0301" of ` + ann + " is - tier 0 among 1" + since), "is no name"},
		{"a tier that there is not", good(`name "a" of ` + ann + " is - tier 4 among 1" + since), "is no number"},
		{"a petname twice", good("peer "+ann+` as "ann"`+since, "peer "+eve+` as "ANN"`+since), "about the same"},
		{"a peer twice", good("peer "+ann+` as "ann"`+since, "peer "+ann+` as "bob"`+since), "about the same"},
		{"a name twice", good(`name "a" of `+ann+" is - tier 0 among 1"+since, `name "A" of `+eve+" is - tier 0 among 1"+since), "about the same"},
		{"noise", "\x00\xff\x1b[31m", "is not"},
		{"a line without end", bookVersion + "\n" + strings.Repeat("#", 1<<20), "too long"},
	} {
		_, err := parseBook([]byte(test.text))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: parseBook = %v, want an error with %q", test.name, err, test.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00") {
			t.Errorf("%s: the error is not safe on a terminal: %q", test.name, err)
		}
	}
}

func TestADamagedBookIsKeptAsideAndNotOverwritten(t *testing.T) {
	b := emptyBook(t)
	ann := Friend{Peer: keyID(t, testKey(t, 7)), Name: "ann", Since: now()}
	for i := 1; i <= 3; i++ {
		damaged := fmt.Appendf(nil, "damage number %d\n", i)
		if err := os.WriteFile(b.path(), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		trust, err := b.view()
		if err != nil || len(trust.Friends) != 0 || len(trust.Damaged) != i {
			t.Fatalf("view of damaged book %d = %+v, %v, want no entry and %d books aside", i, trust, err, i)
		}
		if _, err := b.change(func(any) bool { return false }, ann); err != nil {
			t.Fatal(err)
		}
		for j := 1; j <= i; j++ {
			mustBe(t, fmt.Sprintf("%s.damaged-%d", b.path(), j), fmt.Appendf(nil, "damage number %d\n", j))
		}
	}
	if trust, err := b.view(); err != nil || len(trust.Friends) != 1 || trust.Friends[0] != ann {
		t.Errorf("the new book says %+v, %v", trust.Friends, err)
	}
}

func TestTheBookCanBeEdited(t *testing.T) {
	b := emptyBook(t)
	ann, eve := keyID(t, testKey(t, 7)), keyID(t, testKey(t, 8))
	if _, err := b.change(func(any) bool { return false }, Friend{ann, "ann", now()}, Blocked{Peer: eve, Since: now()}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(b.path())
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), `"ann"`, `"anna"`, 1) + "# I met her at work\n"
	if err := os.WriteFile(b.path(), []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	if trust, err := b.view(); err != nil || trust.petname(ann) != "anna" {
		t.Errorf("after an edit ann is called %q, %v, want anna", trust.petname(ann), err)
	}
	if _, err := b.change(func(e any) bool { _, ok := e.(Blocked); return ok }); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(b.path()); err != nil || !strings.Contains(string(text), "# I met her at work\n") || !strings.Contains(string(text), `as "anna"`) || strings.Contains(string(text), "\nblock") {
		t.Errorf("what was edited is not there any more, or what was taken out is: %v\n%s", err, text)
	}
	if b.blocked(eve, zeroID) {
		t.Error("a block that was taken out holds")
	}
}

func TestABookIsBounded(t *testing.T) {
	b := emptyBook(t)
	var all []any
	for i := range bookEntriesMax {
		all = append(all, Blocked{ID: content.Root(fmt.Append(nil, i)), Since: now()})
	}
	if _, err := b.change(func(any) bool { return false }, all...); err != nil {
		t.Fatal(err)
	}
	if _, err := b.change(func(any) bool { return false }, Blocked{ID: content.Root(nil), Since: now()}); !errors.Is(err, ErrBookFull) {
		t.Errorf("one more entry: %v, want ErrBookFull", err)
	}
	again, err := openBook(b.dir, b.log)
	if err != nil || !again.blocked("", content.Root([]byte("0"))) {
		t.Errorf("a full book is not read: %v", err)
	}
}

func FuzzTrustBook(f *testing.F) {
	id := keyID(f, testKey(f, 7))
	lines := []bookLine{}
	for _, e := range []any{Friend{id, `a "n" n\`, now()}, Choice{Name: "r \u200d.pdf", Publisher: id, Tier: 3, Among: 1, Since: now()}, Blocked{Peer: id, Since: now()}, Blocked{ID: content.Root(nil), Since: now()}} {
		lines = append(lines, bookLine{formatEntry(e), e})
	}
	text := bookHead
	for _, l := range lines {
		text += l.text + "\n"
	}
	f.Add([]byte(text))
	f.Add([]byte(bookHead))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, err := parseBook(data)
		if err != nil {
			return
		}
		for _, l := range lines {
			if l.entry == nil {
				continue
			}
			again, err := parseBookEntry(formatEntry(l.entry))
			if err != nil || again != l.entry {
				t.Fatalf("%q reads as %+v, and that is written as one that reads as %+v, %v", l.text, l.entry, again, err)
			}
			if strings.ContainsFunc(formatEntry(l.entry), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("%q is written with control characters", l.text)
			}
		}
	})
}
