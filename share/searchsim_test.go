package share

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multihash"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/node/nodetest"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

var recall = flag.Bool("recall", false, "run TestSearchRecall with 50 nodes and 20,000 names: some minutes")

// simulated opens nodes of a mock network, whose links have no latency, and libraries on
// all but the first bare of them.
func simulated(t *testing.T, addrs []string, bare int) (nodes []*node.Node, libs []*Library) {
	t.Helper()
	nodes = nodetest.NewAt(t, addrs...)
	for _, n := range nodes[bare:] {
		lib, err := Open(n, Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		lib.catalog.db.NoSync = true
		t.Cleanup(func() {
			if err := lib.Close(); err != nil {
				t.Error(err)
			}
		})
		libs = append(libs, lib)
	}
	return nodes, libs
}

func runAll(libs []*Library) (runs []func(context.Context) error) {
	for _, l := range libs {
		runs = append(runs, l.Run)
	}
	return runs
}

func addFile(t *testing.T, l *Library, name string, data []byte) Share {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := l.Add(t.Context(), path, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestFloodFromOneNetworkDoesNotHideWhatOthersShare has 40 nodes of one /24 that
// announce two words and their pair, and answer every search for it with 64 of 500 fakes each, signed as
// they should be; and 10 nodes of other networks, each with a share of its own.
func TestFloodFromOneNetworkDoesNotHideWhatOthersShare(t *testing.T) {
	if testing.Short() {
		t.Skip("52 nodes")
	}
	const hostile, honest, fakes = 40, 10, 500
	addrs := []string{"10.0.0.1"}
	for i := range hostile {
		addrs = append(addrs, fmt.Sprintf("10.66.6.%d", i+1))
	}
	for i := range honest + 1 {
		addrs = append(addrs, fmt.Sprintf("10.%d.1.1", 100+i))
	}
	nodes, libs := simulated(t, addrs, 1+hostile)
	for i := 1; i <= hostile; i++ {
		floodSearches(t, nodes[i], fakes)
	}
	good := map[content.ID]bool{}
	for i := range honest {
		l := libs[i]
		good[addFile(t, l, fmt.Sprintf("report of honest node %d.pdf", i), []byte(fmt.Sprint("honest", i))).ID] = true
	}
	stop := nodetest.Run(t, nodes, runAll(libs)...)
	defer stop()
	var g errgroup.Group
	g.SetLimit(8)
	for i, n := range nodes[1 : len(nodes)-1] {
		keys := wordKeys([]string{"report", "pdf"})
		if i < hostile { // the honest have more names than are announced in pairs
			keys = append(keys, pairOf("report", "pdf").key())
		}
		for _, k := range keys {
			g.Go(func() error {
				_, err := n.Provide(t.Context(), k, node.ReachAll)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	asker := libs[len(libs)-1]
	for _, query := range []string{"report", "report pdf"} {
		r, err := asker.Search(t.Context(), mustQuery(t, query), SearchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		first := slices.IndexFunc(r.Hits, func(h Hit) bool { return good[h.ID] })
		asked := 0
		for _, h := range r.Hits {
			if good[h.ID] {
				asked++
			}
		}
		t.Logf("%s: %d contents of %d peers, %d of 10 honest ones, the first as number %d; %d messages; %q",
			query, len(r.Hits), r.Asked, asked, first+1, r.Messages, r.Partial)
		if first < 0 || first > 2 {
			t.Errorf("%s: the first honest result is number %d of %d, want among the first three", query, first+1, len(r.Hits))
		}
		if want := min(honest, othersMax); asked < want || query == "report" && asked < honest {
			t.Errorf("%s: %d of %d honest nodes were asked, want at least %d", query, asked, honest, want)
		}
		if r.Messages > searchMessagesMax || len(r.Partial) == 0 {
			t.Errorf("%s: %d messages, partial %q; want at most %d, and to be told that not all were asked", query, r.Messages, r.Partial, searchMessagesMax)
		}
	}
}

// floodSearches has n answer each search with 64 of its fakes.
func floodSearches(t *testing.T, n *node.Node, fakes int) {
	t.Helper()
	fake := func(i int) (metaAnswer, error) {
		id := content.Root([]byte(fmt.Sprint(n.ID(), i)))
		m := newManifest(Share{Name: Name(fmt.Sprintf("report %d.pdf", i)), ID: id, Kind: KindFile, Size: 1000}, n.ID(), 0, time.Now())
		e, err := m.sign(n.Key())
		return metaAnswer{Manifest: e.Encode()}, err
	}
	n.Handle(metaProtocol, node.HandlerConfig{PerPeer: 8}, func(_ context.Context, s network.Stream) error {
		if _, err := readLine(newLineReader(s)); err != nil {
			return err
		}
		for _, i := range rand.Perm(fakes)[:metaManifestsMax] {
			line, err := fake(i)
			if err = errors.Join(err, writeLine(s, line)); err != nil {
				return err
			}
		}
		return writeLine(s, metaAnswer{End: true})
	})
}

// vocabulary is words of 3 to 12 letters; the first are the commonest, as in Zipf's law.
func vocabulary(rng *rand.Rand, n int) (words []string) {
	seen := map[string]bool{}
	for len(words) < n {
		b := make([]byte, 3+rng.IntN(10))
		for i := range b {
			b[i] = "aaeeiioutnsrlhdcmpgbfvwk"[rng.IntN(24)]
		}
		if w := string(b); !seen[w] {
			seen[w] = true
			words = append(words, w)
		}
	}
	return words
}

// TestSearchRecall shares 400 names on each of 50 nodes, of which five go away, and
// searches for two words of names that are still there. It is small by default.
//
//	go test ./share -run TestSearchRecall -recall -v -timeout 1h
func TestSearchRecall(t *testing.T) {
	nodeCount, nameCount, queries := 12, 20, 30
	if *recall {
		nodeCount, nameCount, queries = 50, 400, 400
	}
	const seed = 7
	dead := nodeCount / 10
	rng := rand.New(rand.NewPCG(seed, 0))
	zipf := rand.NewZipf(rng, 1.1, 8, 2999)
	words := vocabulary(rng, 3000)
	addrs := []string{"10.0.0.1", "10.0.1.1"} // the helper, and who searches
	for i := range nodeCount {
		addrs = append(addrs, fmt.Sprintf("10.1.%d.1", i))
	}
	nodes, libs := simulated(t, addrs, 0)
	type file struct {
		name  Name
		size  int64
		node  int
		words []string
	}
	var files []file
	for i := 2; i < len(libs); i++ {
		dir := t.TempDir()
		for k := range nameCount {
			f := file{node: i}
			for range 2 + rng.IntN(3) {
				f.words = append(f.words, words[zipf.Uint64()])
			}
			f.name = Name(fmt.Sprintf("%s %d.%s", joinWords(f.words), k, []string{"pdf", "mp4", "txt", "jpg"}[rng.IntN(4)]))
			data := []byte(fmt.Sprintf("%d of node %d", k, i))
			f.size = int64(len(data))
			path := filepath.Join(dir, string(f.name))
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := libs[i].Add(t.Context(), path, AddOptions{}); err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	// The words and their pairs are announced by the sweep, and nothing else is.
	first := len(nodes) - dead
	stop := nodetest.Run(t, nodes[:first])
	defer stop()
	stopDead := nodetest.Run(t, nodes[first:])
	start := time.Now()
	for i, l := range libs {
		keys, err := l.catalog.sweptWords(wordsMax)
		pairs, err2 := l.catalog.sweptPairs(pairsMax)
		if err = errors.Join(err, err2); err == nil {
			err = nodes[i].KeepProviding(slices.Concat(keys, pairKeys(pairs))...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range nodes {
		for waiting := int64(1); waiting > 0; {
			if time.Since(start) > 25*time.Minute {
				t.Fatalf("%d announcements of node %d still wait", waiting, i)
			}
			var err error
			if waiting, err = n.ProvidesWaiting(t.Context()); err != nil {
				t.Fatal(err)
			}
			pause(t)
		}
	}
	for i := 0; i < len(files); i += max(1, len(files)/200) { // what was queued last may come later
		f := files[i]
		for !provided(t, nodes[1], namePairs(f.name)[0].key(), nodes[f.node]) || !provided(t, nodes[1], WordKey(f.words[0]), nodes[f.node]) {
			if time.Since(start) > 25*time.Minute {
				t.Fatalf("words of %q of node %d are not announced", f.name, f.node)
			}
			pause(t)
		}
	}
	t.Logf("announced after %v", time.Since(start).Round(time.Millisecond))
	stopDead()
	for _, n := range nodes[first:] {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}

	having := map[string][]int{} // files by word
	for i, f := range files {
		for _, w := range indexWords(f.name.Lookup()) {
			having[w] = append(having[w], i)
		}
	}
	var expected, got, most, messages, targets int
	var perQuery float64 // sum of the recall of each
	var took, whole []time.Duration
	for i := range queries {
		target := files[rng.IntN(nameCount*(nodeCount-dead))]
		terms := target.words // every second time; and else two of them
		if i%2 == 0 {
			terms = []string{terms[0], terms[len(terms)-1]}
		}
		q, err := ParseQuery(terms...)
		if err != nil {
			t.Fatal(err)
		}
		begin, firstAt := time.Now(), time.Duration(0)
		r, err := libs[1].Search(t.Context(), q, SearchOptions{Found: func(Hit) {
			if firstAt == 0 {
				firstAt = time.Since(begin)
			}
		}})
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		whole = append(whole, time.Since(begin))
		if firstAt > 0 {
			took = append(took, firstAt)
		}
		queryExpected, queryGot := 0, 0
		names := map[Name]bool{}
		for _, h := range r.Hits {
			names[h.Name] = true
		}
		if names[target.name] {
			targets++
		}
		for _, i := range having[q.Words[0]] {
			if f := files[i]; f.node < first && q.Match(f.name, f.size) {
				queryExpected++
				if names[f.name] {
					queryGot++
				}
			}
		}
		expected, got = expected+queryExpected, got+queryGot
		perQuery += float64(queryGot) / float64(queryExpected)
		if !names[target.name] {
			t.Logf("%q: not %q, and %d of the %d that match; %d of %d peers answered, %q", q, target.name, queryGot, queryExpected, r.Asked, nodeCount-dead, r.Partial)
		}
		most, messages = max(most, r.Messages), messages+r.Messages
	}
	slices.Sort(took)
	slices.Sort(whole)
	median := took[len(took)/2]
	recalled := min(perQuery, float64(targets)) / float64(queries)
	t.Logf("seed %d, %d nodes (%d gone), %d names, %d queries: %d found what they were made for; a query finds %.1f %% of the files that match it, on average, and all together find %.1f %% of %d; first result after %v (median), %v (95 %%); all after %v (median); messages %.1f on average, %d at most",
		seed, nodeCount, dead, len(files), queries, targets, 100*perQuery/float64(queries), 100*float64(got)/float64(expected), expected, median.Round(time.Microsecond*100), took[len(took)*95/100].Round(time.Microsecond*100),
		whole[len(whole)/2].Round(time.Microsecond*100), float64(messages)/float64(queries), most)
	if recalled < 0.95 || median > 300*time.Millisecond || most > searchMessagesMax {
		t.Errorf("want a recall of 95 %% at least, the first result within 300 ms (median), and at most %d messages", searchMessagesMax)
	}
}

// pause is between two looks at what tells nobody when it changes.
func pause(t *testing.T) {
	select {
	case <-time.After(100 * time.Millisecond):
	case <-t.Context().Done():
	}
}

func joinWords(words []string) string {
	s := words[0]
	for _, w := range words[1:] {
		s += "_" + w
	}
	return s
}

func provided(t *testing.T, n *node.Node, key multihash.Multihash, by *node.Node) bool {
	for p := range n.FindProviders(t.Context(), key) {
		if p.ID == by.ID() {
			return true
		}
	}
	return false
}
