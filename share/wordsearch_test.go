package share

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// search searches until want contents are found: words are announced a moment after a
// share.
func (p *testPeer) search(t *testing.T, want int, query string) SearchResult {
	t.Helper()
	q, err := ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	var r SearchResult
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		r, err = p.lib.Search(t.Context(), q, SearchOptions{})
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatalf("Search(%s): %v", query, err)
		}
		if len(r.Hits) >= want {
			break
		}
	}
	if r.Messages > searchMessagesMax {
		t.Errorf("Search(%s) took %d messages, want at most %d", query, r.Messages, searchMessagesMax)
	}
	return r
}

// found are the names that were found, best first.
func (r SearchResult) found() (names []Name) {
	for _, h := range r.Hits {
		names = append(names, h.Name)
	}
	return names
}

func TestSearchFindsSharesByWord(t *testing.T) {
	net := startNetwork(t, 4)
	ann, bob, eve, asker := net[1], net[2], net[3], net[4]
	final := ann.add(t, ann.write(t, "Final Report 2024.pdf", randomBytes(3000, "final")), AddOptions{})
	ann.add(t, ann.write(t, "report draft.txt", []byte("a draft")), AddOptions{})
	ann.add(t, ann.write(t, "secret report.pdf", []byte("not for lists")), AddOptions{Scope: Scope{Unlisted: true}})
	bob.add(t, bob.write(t, "report for bob.pdf", []byte("of bob")), AddOptions{Scope: Scope{To: asker.ID()}})
	bob.add(t, bob.write(t, "東京タワー.jpg", []byte("a tower")), AddOptions{})
	if _, err := bob.get(t, final.ID.String(), GetOptions{}); err != nil {
		t.Fatal(err)
	}

	r := asker.search(t, 3, "report")
	i := slices.IndexFunc(r.Hits, func(h Hit) bool { return h.ID == final.ID })
	if len(r.Hits) != 3 || i < 0 {
		t.Fatalf("found %q", r.found())
	}
	best := r.Hits[i]
	if best.ID != final.ID || best.Size != 3000 || !best.Verified || !best.Reachable || !slices.Equal(best.Publishers, []peer.ID{ann.ID()}) ||
		!slices.Equal(best.Where, []string{whereDHT}) || !slices.Equal(best.Words, []string{"report"}) {
		t.Errorf("the hit is %+v", best)
	}
	for query, want := range map[string][]Name{
		"REPORT -draft":           {"Final Report 2024.pdf", "report for bob.pdf"},
		`"final report"`:          {"Final Report 2024.pdf"},
		"report ext:txt":          {"report draft.txt"},
		"report size:>2K":         {"Final Report 2024.pdf"},
		"東京":                      {"東京タワー.jpg"},
		"塔 report":                nil,
		"タ":                       {"東京タワー.jpg"},
		"ext:jpg":                 {"東京タワー.jpg"},
		"report 2024 size:1K..4K": {"Final Report 2024.pdf"},
	} {
		got := asker.search(t, len(want), query).found()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("Search(%s) found %q, want %q", query, got, want)
		}
	}
	if got := eve.search(t, 2, "report").found(); slices.Contains(got, "report for bob.pdf") || slices.Contains(got, "secret report.pdf") || len(got) != 2 {
		t.Errorf("a stranger found %q", got)
	}
}

// TestSearchSurvivesEveryLie asks a liar, who was named, beside an honest peer.
func TestSearchSurvivesEveryLie(t *testing.T) {
	honest, _ := startPeer(t, node.Config{NoDHT: true})
	good := honest.add(t, honest.write(t, "an honest report.pdf", randomBytes(1000, "honest")), AddOptions{})
	asker, _ := startPeer(t, node.Config{NoDHT: true})
	fake := content.Root([]byte("fake"))
	manifest := func(p publisher, name string, change func(*Manifest)) []byte {
		m := p.manifest(Name(name), fake, 10)
		if change != nil {
			change(&m)
		}
		return manifestLine(p.sign(t, m))
	}
	end := []byte(`{"end":true}` + "\n")
	for name, tt := range map[string]struct {
		answer []byte
		want   int // contents
	}{
		"it does not match":       {slices.Concat(manifest(newPublisher(t), "other.pdf", nil), end), 1},
		"it has expired":          {slices.Concat(manifest(newPublisher(t), "report.pdf", func(m *Manifest) { m.Issued, m.Expires = time.Now().Add(-50*time.Hour), time.Now().Add(-25*time.Hour) }), end), 1},
		"it is of the far future": {slices.Concat(manifest(newPublisher(t), "report.pdf", func(m *Manifest) { m.Issued = time.Now().Add(100 * time.Hour); m.Expires = m.Issued.Add(time.Hour) }), end), 1},
		"it is forged":            {slices.Concat(manifest(newPublisher(t), "report.pdf", func(m *Manifest) { m.Publisher = honest.ID() }), end), 1},
		"a lie at the end":        {slices.Concat(manifest(newPublisher(t), "report.pdf", nil), []byte("{}\n")), 1},
		"it does not end":         {bytes.Repeat(manifest(newPublisher(t), "report.pdf", nil), metaManifestsMax+1), 1},
		"it is no JSON":           {[]byte("hello\n"), 1},
		"a line without an end":   {bytes.Repeat([]byte("a"), metaLineMax+10), 1},
		"an error":                {[]byte(`{"end":true,"error":"\u001b[31munknown op"}` + "\n"), 1},
		"nothing":                 {nil, 1},
		"a claim it can't keep":   {slices.Concat(manifest(newPublisher(t), "report.pdf", nil), end), 2},
	} {
		t.Run(name, func(t *testing.T) {
			liar := startRaw(t, nil, handlers{metaProtocol: answerMeta(tt.answer)})
			r, err := asker.lib.Search(t.Context(), mustQuery(t, "report"), SearchOptions{Peers: []peer.AddrInfo{liar.AddrInfo(), honest.AddrInfo()}})
			if err != nil || len(r.Hits) != tt.want || r.Hits[0].ID != good.ID || !r.Hits[0].Verified {
				t.Fatalf("found %q, %v, want the honest one first of %d", r.found(), err, tt.want)
			}
			if tt.want == 2 && (r.Hits[1].Reachable || r.Hits[1].Verified) {
				t.Errorf("what can't be had counts as %+v", r.Hits[1])
			}
		})
	}
}

func TestSearchHeedsTheTrustBook(t *testing.T) {
	ann, _ := startPeer(t, node.Config{NoDHT: true})
	eve, _ := startPeer(t, node.Config{NoDHT: true})
	asker, _ := startPeer(t, node.Config{NoDHT: true})
	of := ann.add(t, ann.write(t, "the long name of a report by ann.pdf", []byte("ann's")), AddOptions{})
	other := eve.add(t, eve.write(t, "report.pdf", []byte("eve's")), AddOptions{})
	o := SearchOptions{Peers: []peer.AddrInfo{ann.AddrInfo(), eve.AddrInfo()}}
	search := func() (ids []content.ID, tiers []int) {
		r, err := asker.lib.Search(t.Context(), mustQuery(t, "report"), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range r.Hits {
			ids, tiers = append(ids, h.ID), append(tiers, h.Tier)
		}
		return ids, tiers
	}
	if ids, _ := search(); !slices.Equal(ids, []content.ID{other.ID, of.ID}) {
		t.Fatalf("strangers: %v", ids)
	}
	if _, err := asker.lib.TrustPeer(ann.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	if ids, tiers := search(); !slices.Equal(ids, []content.ID{of.ID, other.ID}) || !slices.Equal(tiers, []int{tierFriends, tierStrangers}) {
		t.Errorf("with ann in the book: %v, tiers %v", ids, tiers)
	}
	if err := asker.lib.Block(eve.ID(), content.ID{}); err != nil {
		t.Fatal(err)
	}
	if ids, _ := search(); !slices.Equal(ids, []content.ID{of.ID}) {
		t.Errorf("with eve blocked: %v", ids)
	}
	if err := asker.lib.Block("", of.ID); err != nil {
		t.Fatal(err)
	}
	if r, err := asker.lib.Search(t.Context(), mustQuery(t, "report"), o); !errors.Is(err, ErrNotFound) {
		t.Errorf("with its content blocked: %q, %v", r.found(), err)
	}
}

func TestSearchTakesUpGroupsNamesAndItsOwn(t *testing.T) {
	asker, _ := startPeer(t, node.Config{NoDHT: true})
	own := asker.add(t, asker.write(t, "own report.pdf", []byte("own")), AddOptions{})
	pinned := Indexed{Group: "office", Name: "pinned report.pdf", ID: content.Root([]byte("pinned")), Kind: KindFile, Size: 6}
	asker.lib.SetSearchIndex(func(_ context.Context, match func(Name, int64) bool, found func(Indexed)) error {
		for _, e := range []Indexed{pinned, {Group: "office", Name: "other.pdf", ID: content.Root([]byte("other"))}} {
			if match(e.Name, e.Size) {
				found(e)
			}
		}
		return errors.New("another group can't be asked")
	})
	var tried []Tried
	r, err := asker.lib.Search(t.Context(), mustQuery(t, "report"), SearchOptions{Tried: func(s Tried) { tried = append(tried, s) }})
	if err != nil || len(r.Hits) != 2 {
		t.Fatalf("found %q, %v", r.found(), err)
	}
	if h := r.Hits[0]; h.ID != own.ID || !slices.Equal(h.Where, []string{"local"}) || h.Tier != tierBook || !h.Verified {
		t.Errorf("its own: %+v", h)
	}
	if h := r.Hits[1]; h.ID != pinned.ID || !slices.Equal(h.Where, []string{"group office"}) || h.Tier != tierGroups || h.Reachable {
		t.Errorf("the group's: %+v", h)
	}
	if !slices.ContainsFunc(tried, func(s Tried) bool { return s.Source == "groups" && s.Error != "" }) {
		t.Errorf("tried: %+v", tried)
	}
}

// TestSearchFindsNeighborsWithoutADHT has the LAN only.
func TestSearchFindsNeighborsWithoutADHT(t *testing.T) {
	port := lanPort(t)
	asker, _ := startPeer(t, node.Config{NoDHT: true, LANPort: port})
	_, s := neighbor(t, port, "report for the LAN.pdf", []byte("x"), AddOptions{Scope: Scope{LANOnly: true}})
	r := asker.search(t, 1, "report")
	if len(r.Hits) != 1 || r.Hits[0].ID != s.ID || !slices.Equal(r.Hits[0].Where, []string{whereLAN}) || !r.Hits[0].Verified {
		t.Errorf("found %+v", r.Hits)
	}
}
