package share

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"go.etcd.io/bbolt"
)

// listOf asks l for one page of what it shares, as from would.
func listOf(t testing.TB, l *Library, from asker, after string) ([]Name, metaAnswer, error) {
	t.Helper()
	q := metaRequest{Op: opList, After: after}
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var answer bytes.Buffer
	if err := l.answerMeta(t.Context(), &answer, line, from); err != nil {
		t.Fatal(err)
	}
	names := []Name{}
	end, err := readManifests(struct {
		io.Reader
		io.Writer
	}{&answer, io.Discard}, q, func(m Manifest, _ node.Envelope) error {
		names = append(names, m.Name)
		return nil
	})
	if answer.Len() > 0 {
		t.Errorf("the answer goes on after its end: %q", answer.String())
	}
	return names, end, err
}

// pagesOf asks for all pages, and returns how many names each has.
func pagesOf(t *testing.T, l *Library, from asker) (names []Name, sizes, totals []int) {
	t.Helper()
	for after := ""; ; {
		page, end, err := listOf(t, l, from, after)
		if err != nil {
			t.Fatal(err)
		}
		names, sizes, totals = append(names, page...), append(sizes, len(page)), append(totals, end.Total)
		if after = end.Next; after == "" {
			return names, sizes, totals
		}
	}
}

// openUnsynced opens a library whose catalog does not wait for the disk.
func openUnsynced(t *testing.T) *Library {
	t.Helper()
	l := openLibrary(t, Config{})
	l.catalog.db.NoSync = true
	return l
}

// direct and onLAN are strangers.
func direct(t testing.TB) asker { return asker{keyID(t, testKey(t, 101)), node.ViaDirect} }
func onLAN(t testing.TB) asker  { return asker{keyID(t, testKey(t, 101)), node.ViaLAN} }

// setRecord changes what is recorded of the share at path.
func setRecord(t *testing.T, l *Library, path string, change func(*shareRecord)) {
	t.Helper()
	r := sharedAt(t, l, path)
	change(&r)
	if err := l.catalog.update(r); err != nil {
		t.Fatal(err)
	}
}

func TestListHasWhatTheAskerMaySeeNewestFirst(t *testing.T) {
	l := openUnsynced(t)
	dir := t.TempDir()
	ann, bob := keyID(t, testKey(t, 1)), keyID(t, testKey(t, 2))
	add := func(name string, s Scope) string {
		path := writeFile(t, dir, name, name)
		addTo(t, l, path, AddOptions{Scope: s})
		return path
	}
	again := add("added again", Scope{})
	add("public", Scope{})
	add("lan", Scope{LANOnly: true})
	add("to ann", Scope{To: ann})
	add("to ann on the lan", Scope{To: ann, LANOnly: true})
	add("to bob", Scope{To: bob})
	add("unlisted", Scope{Unlisted: true})
	add("unlisted to ann", Scope{Unlisted: true, To: ann})
	setRecord(t, l, add("without manifest", Scope{}), func(r *shareRecord) { r.Envelope = nil })
	setRecord(t, l, add("expired", Scope{}), func(r *shareRecord) { r.Expires = time.Now().Add(-time.Minute) })
	setRecord(t, l, add("unlisted later", Scope{}), func(r *shareRecord) { r.Scope.Unlisted = true })
	if err := os.Remove(add("gone", Scope{})); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "edited", "longer than it was")
	add("edited", Scope{})
	writeFile(t, dir, "edited", "edited, and longer than it was")
	if _, err := l.Remove(t.Context(), add("removed", Scope{})); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "album/1.jpg", "1")
	addTo(t, l, filepath.Join(dir, "album"), AddOptions{})
	addTo(t, l, again, AddOptions{})

	// What is gone or edited is counted: counting does not look at the disk.
	for _, tt := range []struct {
		who   string
		from  asker
		want  []Name
		total int
	}{
		{"a stranger", direct(t), []Name{"added again", "album", "public"}, 5},
		{"a stranger over a relay", asker{direct(t).id, node.ViaRelay}, []Name{"added again", "album", "public"}, 5},
		{"a stranger on the LAN", onLAN(t), []Name{"added again", "album", "lan", "public"}, 6},
		{"ann", asker{ann, node.ViaDirect}, []Name{"added again", "album", "to ann", "public"}, 6},
		{"ann on the LAN", asker{ann, node.ViaLAN}, []Name{"added again", "album", "to ann on the lan", "to ann", "lan", "public"}, 8},
		{"bob", asker{bob, node.ViaDirect}, []Name{"added again", "album", "to bob", "public"}, 6},
	} {
		names, end, err := listOf(t, l, tt.from, "")
		if err != nil || !slices.Equal(names, tt.want) || end.Total != tt.total || end.Next != "" {
			t.Errorf("%s sees %q, total %d, next %q, %v, want %q, total %d", tt.who, names, end.Total, end.Next, err, tt.want, tt.total)
		}
	}
}

func TestListFollowsRenewals(t *testing.T) {
	l := openUnsynced(t)
	path := writeFile(t, t.TempDir(), "a", "a")
	addTo(t, l, path, AddOptions{})
	setRecord(t, l, path, func(r *shareRecord) { r.Expires = time.Now().Add(-time.Minute) })
	if names, end, err := listOf(t, l, direct(t), ""); err != nil || len(names) != 0 || end.Total != 0 {
		t.Errorf("expired: %q, total %d, %v, want none", names, end.Total, err)
	}
	if err := l.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names, end, err := listOf(t, l, direct(t), ""); err != nil || len(names) != 1 || end.Total != 1 {
		t.Errorf("renewed: %q, total %d, %v, want one", names, end.Total, err)
	}
}

func TestListPages(t *testing.T) {
	l := openUnsynced(t)
	dir := t.TempDir()
	var want []Name // newest first
	for _, tt := range []struct {
		shares int
		pages  []int
	}{
		{0, []int{0}},
		{1, []int{1}},
		{63, []int{63}},
		{64, []int{64}},
		{65, []int{64, 1}},
		{128, []int{64, 64}},
		{129, []int{64, 64, 1}},
		{210, []int{64, 64, 64, 18}},
	} {
		for len(want) < tt.shares {
			name := fmt.Sprintf("share %d", len(want))
			addTo(t, l, writeFile(t, dir, name, name), AddOptions{})
			addTo(t, l, writeFile(t, dir, "hidden"+name, name), AddOptions{Scope: Scope{Unlisted: len(want)%2 == 0, To: keyID(t, testKey(t, 1))}})
			want = append([]Name{Name(name)}, want...)
		}
		names, pages, totals := pagesOf(t, l, direct(t))
		if !slices.Equal(names, want) || !slices.Equal(pages, tt.pages) {
			t.Errorf("%d shares come in pages of %v, want %v; the names differ: %s", tt.shares, pages, tt.pages, cmp.Diff(want, names))
		}
		if want := slices.Repeat([]int{tt.shares}, len(pages)); !slices.Equal(totals, want) {
			t.Errorf("%d shares have the totals %v, want %v", tt.shares, totals, want)
		}
	}
}

func TestListGoesOnWhereItWasWhateverChangesMeanwhile(t *testing.T) {
	l := openUnsynced(t)
	dir := t.TempDir()
	add := func(i int) {
		name := fmt.Sprint(i)
		addTo(t, l, writeFile(t, dir, name, name), AddOptions{})
	}
	for i := range 140 {
		add(i)
	}
	first, end, err := listOf(t, l, direct(t), "")
	if err != nil || len(first) != 64 || first[63] != "76" {
		t.Fatalf("the first page is %q, %v", first, err)
	}
	// The share that the cursor stands at, one on either side, and all of a page.
	for _, gone := range []string{"76", "77", "75", "139"} {
		if _, err := l.Remove(t.Context(), filepath.Join(dir, gone)); err != nil {
			t.Fatal(err)
		}
	}
	add(140)
	second, end2, err := listOf(t, l, direct(t), end.Next)
	if err != nil || len(second) != 64 || second[0] != "74" || second[63] != "11" || end2.Total != 137 {
		t.Errorf("the second page is %q, total %d, %v, want 74 to 11, total 137", second, end2.Total, err)
	}
	for i := range 76 {
		if err := l.catalog.remove(sharedAt(t, l, filepath.Join(dir, fmt.Sprint(i))).key); err != nil && i != 75 {
			t.Fatal(err)
		}
		if i == 74 {
			break
		}
	}
	third, end3, err := listOf(t, l, direct(t), end2.Next)
	if err != nil || len(third) != 0 || end3.Next != "" || end3.Total != 62 {
		t.Errorf("with all older ones removed the third page is %q, %+v, %v, want the empty last page, total 62", third, end3, err)
	}
}

func TestListRefusesCursorsItHasNotGiven(t *testing.T) {
	l, other := openUnsynced(t), openUnsynced(t)
	addTo(t, l, writeFile(t, t.TempDir(), "a", "a"), AddOptions{})
	good := l.lister.cursors.format(5)
	for _, after := range []string{
		" ", "0", "x", strings.Repeat("0", 32), strings.Repeat("f", 32), strings.Repeat("g", 32), strings.Repeat("0", 33), strings.Repeat("0", 64),
		good[:31], good + "0", good[2:], " " + good[:31], strings.Repeat("é", 16), "\x00" + good[1:], strings.Repeat("9", 90_000),
		other.lister.cursors.format(5), "5", "-1", "18446744073709551615", fmt.Sprintf("%016x", 5), good[16:] + good[:16],
	} {
		names, end, err := listOf(t, l, direct(t), after)
		if err == nil || !strings.Contains(err.Error(), "unknown cursor") || len(names) != 0 {
			t.Errorf("after %.40q: %q, %+v, %v, want an unknown cursor", after, names, end, err)
		}
	}
	for i := range len(good) { // every place of a good one
		b := []byte(good)
		b[i] = map[bool]byte{true: '1', false: '0'}[b[i] == '0']
		if _, ok := l.lister.cursors.parse(string(b)); ok {
			t.Errorf("%s changed to %s is taken", good, b)
		}
	}
	for _, k := range []shareKey{0, 1, 5, 1 << 40, newestShare} {
		s := l.lister.cursors.format(k)
		if got, ok := l.lister.cursors.parse(s); !ok || got != k || len(s) > cursorMax {
			t.Errorf("%d comes back from %s as %d, %v", k, s, got, ok)
		}
	}
}

// shareNowhere makes n shares with a manifest at paths that do not exist.
func shareNowhere(t testing.TB, c *catalog, n int, s Scope) {
	t.Helper()
	m := newManifest(Share{Name: "nowhere", ID: numberID(1), Kind: KindDir}, keyID(t, testKey(t, 7)), 0, time.Now())
	e, err := m.sign(testKey(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		key, err := c.begin("")
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.makeLive(&shareRecord{
			Share:    Share{Name: m.Name, ID: m.ID, Kind: KindDir, Path: fmt.Sprintf("/nowhere/%d", key), State: StateShared, Scope: s},
			Envelope: &e, Seq: m.Seq, Expires: m.Expires, key: key,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestListPassesOverWhatIsGoneInBoundedSteps(t *testing.T) {
	l := openUnsynced(t)
	dir := t.TempDir()
	addTo(t, l, writeFile(t, dir, "old", "old"), AddOptions{})
	shareNowhere(t, l.catalog, 2*listLooksMax+5, Scope{})
	addTo(t, l, writeFile(t, dir, "new", "new"), AddOptions{})
	names, pages, totals := pagesOf(t, l, direct(t))
	if want := []Name{"new", "old"}; !slices.Equal(names, want) || !slices.Equal(pages, []int{1, 0, 1}) || totals[0] != 2*listLooksMax+7 {
		t.Errorf("%q in pages of %v, totals %v, want %q in pages of 1, 0, 1", names, pages, totals, want)
	}
}

func TestListCountsUpToTheMost(t *testing.T) {
	l := openUnsynced(t)
	a, err := testManifest(t).sign(testKey(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	err = l.catalog.db.Update(func(tx *bbolt.Tx) error {
		for i := range 6000 {
			for _, s := range []Scope{{}, {LANOnly: true}} {
				r := shareRecord{Share: Share{Scope: s}, Envelope: &a, Expires: later, key: shareKey(i)}
				if err := listShare(tx, r); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from asker
		at   time.Time
		want int
	}{{direct(t), time.Now(), 6000}, {onLAN(t), time.Now(), listTotalMax}, {onLAN(t), later.Add(time.Second), 0}} {
		if n, err := l.catalog.countListed(tt.from.audiences(), tt.at, listTotalMax); err != nil || n != tt.want {
			t.Errorf("%s at %s: counted %d, %v, want %d", tt.from.via, tt.at, n, err, tt.want)
		}
	}
}

func TestOpenIndexesACatalogThatHasNoList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.db")
	c := reopen(t, path)
	for _, s := range []Scope{{}, {LANOnly: true}, {Unlisted: true}, {To: keyID(t, testKey(t, 1))}} {
		shareNowhere(t, c, 3, s)
	}
	if _, err := c.begin("/being added"); err != nil {
		t.Fatal(err)
	}
	entries := func() (all []string) {
		err := c.db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketListed).ForEach(func(k, v []byte) error {
				all = append(all, fmt.Sprintf("%x %x", k, v))
				return nil
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	want := entries()
	if err := c.db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketListed) }); err != nil {
		t.Fatal(err)
	}
	c.close()
	c = reopen(t, path)
	if got := entries(); len(got) != 9 || !slices.Equal(got, want) {
		t.Errorf("the index made anew is %q, want %q", got, want)
	}
}

func TestTurnsRestFourTimesAsLongAsTheyTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		start := time.Now()
		var busy time.Duration
		var refused int
		var mu sync.Mutex // guards busy and refused
		var wg sync.WaitGroup
		for range 8 { // the streams of one peer
			wg.Go(func() {
				for time.Since(start) < time.Minute {
					ok := turns.take(t.Context(), func() {
						if !mu.TryLock() {
							t.Error("two at a time")
							return
						}
						defer mu.Unlock()
						time.Sleep(12 * time.Millisecond)
						busy += 12 * time.Millisecond
					})
					if !ok {
						refused++
					}
				}
			})
		}
		wg.Wait()
		if part := busy.Seconds() / time.Since(start).Seconds(); part > 0.21 || part < 0.19 || refused > 0 {
			t.Errorf("%.2f of the time was spent, and %d were refused, want a fifth and none", part, refused)
		}
	})
}

func TestTurnsAreNotWaitedForForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns()
		hung := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { turns.take(t.Context(), func() { <-hung }) })
		synctest.Wait()
		start := time.Now()
		if turns.take(t.Context(), func() {}) || time.Since(start) != listWait {
			t.Errorf("a turn while another hangs, or refused after %s, want %s", time.Since(start), listWait)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if turns.take(ctx, func() {}) {
			t.Error("a turn after the end")
		}
		close(hung)
		wg.Wait()
		// The rest after it is bounded, and survives who gives up in it.
		start = time.Now()
		if turns.take(ctx, func() {}) {
			t.Error("a turn after the end")
		}
		if !turns.take(t.Context(), func() {}) || time.Since(start) != listRestMax {
			t.Errorf("the next turn came after %s, want %s", time.Since(start), listRestMax)
		}
	})
}

// A stranger who asks in a loop, on all the streams it may open, is answered,
// and others are served meanwhile.
func TestServerLivesThroughAFloodOfLists(t *testing.T) {
	b := startBesieged(t)
	shareNowhere(t, b.lib.catalog, 3, Scope{})
	var wg sync.WaitGroup
	for range metaStreamsMax {
		s := b.open(t, metaProtocol)
		wg.Go(func() {
			for range 25 {
				end, err := readManifests(s, metaRequest{Op: opList}, func(Manifest, node.Envelope) error { return nil })
				if err != nil && !strings.Contains(err.Error(), "busy") || err == nil && end.Total != 4 {
					t.Errorf("answered %+v, %v", end, err)
					return
				}
			}
		})
	}
	b.mustServe(t)
	wg.Wait()
	b.mustEndClean(t)
}

// BenchmarkList answers for a page of a catalog of 100,000 shares.
func BenchmarkList(b *testing.B) {
	c, err := openCatalog(filepath.Join(b.TempDir(), "catalog.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer c.close()
	c.db.NoSync = true
	key := testKey(b, 7)
	dir := b.TempDir()
	at := map[int]shareKey{}
	for i := range 100_000 {
		s := Share{
			Name: Name(fmt.Sprintf("holiday in the mountains, film %d.mp4", i)), ID: content.Root(fmt.Append(nil, i)),
			Kind: KindFile, Size: 4, Files: 1, Path: filepath.Join(dir, fmt.Sprint(i)), State: StateShared,
		}
		f := hashedFile{path: s.Path, record: fileRecord{id: s.ID}}
		if i%10 == 0 && i >= 50_000 || i >= 99_900 { // those that are there
			if err := os.WriteFile(s.Path, []byte("data"), 0o644); err != nil {
				b.Fatal(err)
			}
			info, err := os.Stat(s.Path)
			if err != nil {
				b.Fatal(err)
			}
			f.record.identity = sysIdentity(info)
		}
		m := newManifest(s, keyID(b, key), 0, time.Now())
		e, err := m.sign(key)
		if err != nil {
			b.Fatal(err)
		}
		if at[i], err = c.begin(s.Path); err == nil {
			err = c.putFiles(at[i], []hashedFile{f})
		}
		if err == nil {
			_, err = c.makeLive(&shareRecord{Share: s, Envelope: &e, Own: true, Seq: m.Seq, Expires: m.Expires, key: at[i]})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	l := &Library{catalog: c, book: emptyBook(b)}
	for _, bm := range []struct {
		name   string
		before shareKey
		from   asker
	}{
		{"newest", newestShare, direct(b)},
		{"newest on LAN", newestShare, onLAN(b)},
		{"one in ten is there", at[90_000], onLAN(b)},
		{"none is there", at[50_000], onLAN(b)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			l.lister = newLister()
			b.ReportAllocs()
			for b.Loop() {
				var answer bytes.Buffer
				if err := l.writePage(&answer, bm.before, bm.from); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(bytes.Count(answer.Bytes(), []byte("\n"))-1), "manifests")
			}
		})
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if n, err := c.countListed(onLAN(b).audiences(), time.Now(), listTotalMax); n != listTotalMax || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}
