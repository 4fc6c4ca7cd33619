package share

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// searchOf asks l what a query means, as from would.
func searchOf(t testing.TB, l *Library, from asker, q Query) (names []Name, end metaAnswer, err error) {
	t.Helper()
	request := metaRequest{Op: opSearch, Query: &q}
	line, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	var answer bytes.Buffer
	if err := l.answerMeta(t.Context(), &answer, line, from); err != nil {
		t.Fatal(err)
	}
	end, err = readManifests(struct {
		io.Reader
		io.Writer
	}{&answer, io.Discard}, request, func(m Manifest, _ node.Envelope) error {
		names = append(names, m.Name)
		return nil
	})
	return names, end, err
}

func mustQuery(t testing.TB, text string) Query {
	t.Helper()
	q, err := ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestSearchAnswersWithWhatTheAskerMaySee(t *testing.T) {
	l := openUnsynced(t)
	dir := t.TempDir()
	friend := asker{keyID(t, testKey(t, 7)), node.ViaDirect}
	addTo(t, l, writeFile(t, dir, "report public.txt", "1"), AddOptions{})
	addTo(t, l, writeFile(t, dir, "report lan.txt", "2"), AddOptions{Scope: Scope{LANOnly: true}})
	addTo(t, l, writeFile(t, dir, "report friend.txt", "3"), AddOptions{Scope: Scope{To: friend.id}})
	addTo(t, l, writeFile(t, dir, "report unlisted.txt", "4"), AddOptions{Scope: Scope{Unlisted: true}})
	addTo(t, l, makeFiles(t, filepath.Join(dir, "report album"), "report inside.txt"), AddOptions{})
	for _, tt := range []struct {
		who  asker
		want []Name
	}{
		{direct(t), []Name{"report album", "report public.txt"}},
		{onLAN(t), []Name{"report album", "report lan.txt", "report public.txt"}},
		{friend, []Name{"report album", "report friend.txt", "report public.txt"}},
		{asker{friend.id, node.ViaLAN}, []Name{"report album", "report friend.txt", "report lan.txt", "report public.txt"}},
	} {
		got, end, err := searchOf(t, l, tt.who, mustQuery(t, "report"))
		slices.Sort(got)
		if err != nil || !slices.Equal(got, tt.want) || end.Partial {
			t.Errorf("%v finds %q, %+v, %v, want %q", tt.who, got, end, err, tt.want)
		}
		// The multicast question tells no more.
		for word, want := range map[string]bool{"public": true, "lan": true, "friend": tt.who.id == friend.id, "unlisted": false, "inside": false} {
			d := wordDigest(word)
			if got := l.matches(tt.who.id, d[:8]); got != want {
				t.Errorf("somebody asks for %q, and this peer has it: %v, want %v", word, got, want)
			}
		}
	}
	// What goes is not found any more, and what comes in its place is.
	if _, err := l.Remove(t.Context(), "report public.txt"); err != nil {
		t.Fatal(err)
	}
	addTo(t, l, filepath.Join(dir, "report album"), AddOptions{Name: "another album"})
	got, _, err := searchOf(t, l, direct(t), mustQuery(t, "report"))
	if again, _, _ := searchOf(t, l, direct(t), mustQuery(t, "another")); err != nil || len(got) != 0 || !slices.Equal(again, []Name{"another album"}) {
		t.Errorf("after a removal %q, %v; and the renamed is found as %q", got, err, again)
	}
}

// TestSearchJoinsWords compares with a look at every share.
func TestSearchJoinsWords(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 0))
	words := []string{"ant", "bee", "cat", "dog", "elk", "東京"}
	l := openUnsynced(t)
	dir := t.TempDir()
	var all []Name
	for i := range 120 {
		var name []string
		for _, w := range words {
			if rng.IntN(2) == 0 {
				name = append(name, w)
			}
		}
		n := fmt.Sprintf("%s %d.%s", strings.Join(name, " "), i, []string{"txt", "pdf"}[rng.IntN(2)])
		all = append(all, Name(strings.TrimSpace(n)))
		addTo(t, l, writeFile(t, dir, string(all[i]), strings.Repeat("x", i+1)), AddOptions{})
	}
	sizeOf := func(i int) int64 { return int64(i + 1) }
	for _, text := range []string{"ant", "ant bee", "ant bee cat dog elk 東京", "京 ant", "ext:pdf", "ext:pdf ext:txt", "ant -bee ext:txt", "cat size:>=50 size:<=99", "nothing ant", "7"} {
		q := mustQuery(t, text)
		var want []Name
		for i, n := range all {
			if q.Match(n, sizeOf(i)) {
				want = append(want, n)
			}
		}
		got, end, err := searchOf(t, l, direct(t), q)
		if err != nil || end.Partial != (len(want) > metaManifestsMax) {
			t.Fatalf("%s: %+v, %v with %d that match", text, end, err, len(want))
		}
		for _, n := range got {
			if !slices.Contains(want, n) {
				t.Errorf("%s finds %q", text, n)
			}
		}
		if len(got) != min(len(want), metaManifestsMax) {
			t.Errorf("seed %d: %s finds %d of %d", seed, text, len(got), len(want))
		}
	}
}

// TestOthersSharesDoNotHideWhatTheAskerMaySee has more shares that a stranger may not
// know of than one answer reads.
func TestOthersSharesDoNotHideWhatTheAskerMaySee(t *testing.T) {
	l := openUnsynced(t)
	dir := t.TempDir()
	addTo(t, l, writeFile(t, dir, "report.txt", "for all"), AddOptions{})
	path := writeFile(t, dir, "report of a friend.txt", "private")
	addTo(t, l, path, AddOptions{Scope: Scope{To: keyID(t, testKey(t, 7))}})
	r := sharedAt(t, l, path)
	for i := range searchLooksMax + 100 {
		r.key, r.Path = 0, fmt.Sprint(path, i)
		if _, err := l.catalog.makeLive(&r); err != nil {
			t.Fatal(err)
		}
	}
	got, end, err := searchOf(t, l, direct(t), mustQuery(t, "report"))
	if err != nil || !slices.Equal(got, []Name{"report.txt"}) || end.Partial {
		t.Errorf("a stranger finds %q, %+v, %v", got, end, err)
	}
}

func TestRarestWordsAreAnnounced(t *testing.T) {
	l := openUnsynced(t)
	dir := t.TempDir()
	for i := range 5 {
		addTo(t, l, writeFile(t, dir, fmt.Sprintf("common word%d.txt", i), fmt.Sprint(i)), AddOptions{})
	}
	addTo(t, l, writeFile(t, dir, "only here", "x"), AddOptions{Scope: Scope{LANOnly: true}})
	keys, err := l.catalog.sweptWords(5)
	if err != nil || len(keys) != 5 {
		t.Fatalf("%d words, %v", len(keys), err)
	}
	for i := range 5 {
		if !slices.Contains(hexKeys(keys), WordKey(fmt.Sprint("word", i)).HexString()) {
			t.Errorf("word%d, of one share, is not announced, with %d words allowed", i, len(keys))
		}
	}
	if keys, err = l.catalog.sweptWords(100); err != nil || len(keys) != 7 {
		t.Errorf("%d words are announced, %v, want 7: those of the LAN's share are not", len(keys), err)
	}
}

func TestNameAnnouncesFewWordsAndIsFoundByAll(t *testing.T) {
	l := openUnsynced(t)
	var b strings.Builder
	for i := range 60 {
		b.WriteString(string(rune('一' + i)))
	}
	path := writeFile(t, t.TempDir(), b.String(), "x")
	addTo(t, l, path, AddOptions{})
	if k := keysAt(t, l, path); len(k.words) != wordsPerName {
		t.Errorf("%d words of one name are announced, want %d", len(k.words), wordsPerName)
	}
	for _, q := range []string{"一", "一丁", b.String()[3*58:]} {
		if got, _, err := searchOf(t, l, direct(t), mustQuery(t, q)); err != nil || len(got) != 1 {
			t.Errorf("%s finds %q, %v", q, got, err)
		}
	}
}

func TestCatalogWithoutWordsGetsThem(t *testing.T) {
	l := openUnsynced(t)
	addTo(t, l, writeFile(t, t.TempDir(), "report.txt", "x"), AddOptions{})
	err := l.catalog.db.Update(func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket(bucketWords); err != nil {
			return err
		}
		return makeWords(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := searchOf(t, l, direct(t), mustQuery(t, "report")); err != nil || len(got) != 1 {
		t.Errorf("found %q, %v", got, err)
	}
}

func TestSearchRequestsThatAreRefused(t *testing.T) {
	l := openUnsynced(t)
	many := make([]string, queryTermsMax+1)
	for i := range many {
		many[i] = "a"
	}
	for _, q := range []Query{{}, {Not: []string{"a"}}, {Words: many}, {Words: []string{""}}, {Words: []string{strings.Repeat("a", queryBytesMax+1)}},
		{Words: []string{"a"}, Min: -1}, {Words: []string{"a"}, Max: -1}} {
		if _, _, err := searchOf(t, l, direct(t), q); err == nil || !strings.Contains(err.Error(), "peer answers") {
			t.Errorf("a search for %+v is answered %v", q, err)
		}
	}
}

// TestSearchVectors keeps the lines of a search as they are on the wire.
func TestSearchVectors(t *testing.T) {
	for text, want := range map[string]string{
		"Report 2024": `{"op":"search","query":{"words":["2024","report"]}}`,
		`"Final Report" -draft -"old one" ext:PDF -ext:tmp size:>=1K size:<=2K`: `{"op":"search","query":{"words":["final","report"],"texts":["final report"],"not":["draft"],"not_texts":["old one"],"ext":["pdf"],"not_ext":["tmp"],"min":1024,"max":2048}}`,
		"ext:jpg": `{"op":"search","query":{"ext":["jpg"]}}`,
	} {
		q := mustQuery(t, text)
		line, err := json.Marshal(metaRequest{Op: opSearch, Query: &q})
		if err != nil || string(line) != want {
			t.Errorf("%s is asked as\n%s, want\n%s", text, line, want)
		}
	}
}

func BenchmarkAnswerSearch(b *testing.B) {
	n, err := node.New(b.Context(), node.Config{Dir: b.TempDir(), Offline: true, NoMulticast: true})
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	l, err := Open(n, Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	l.catalog.db.NoSync = true
	dir := b.TempDir()
	for i := range 10_000 {
		r := shareRecord{Share: Share{Name: Name(fmt.Sprintf("report %d of %d.pdf", i, i%100)), ID: content.Root([]byte(fmt.Sprint(i))), Kind: KindFile, Path: filepath.Join(dir, fmt.Sprint(i))}}
		if _, err := l.signAndRecord(&r, func() (shareKey, error) { return l.catalog.makeLive(&r) }); err != nil {
			b.Fatal(err)
		}
	}
	stranger := asker{keyID(b, testKey(b, 8)), node.ViaDirect}
	for _, text := range []string{"report", "report 77", "report 7777 of", "report of absent"} {
		q := mustQuery(b, text)
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := l.catalog.searchShares(q, stranger.audiences(), time.Now(), metaManifestsMax); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
