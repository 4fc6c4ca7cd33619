package share

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

func (p *testPeer) open(t *testing.T, what string, o OpenOptions) *Reader {
	t.Helper()
	w, err := ParseWhat(what)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.lib.Open(t.Context(), w, o)
	if err != nil {
		t.Fatalf("Open(%s): %v", what, err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// readAt reads n bytes at a place.
func readAt(t *testing.T, r *Reader, at, n int64) []byte {
	t.Helper()
	if _, err := r.Seek(at, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("read %d bytes at %d: %v", n, at, err)
	}
	return b
}

// cacheUsed is what the cache of p takes.
func (p *testPeer) cacheUsed(t *testing.T) int64 {
	t.Helper()
	u, err := p.lib.CacheUsage()
	if err != nil {
		t.Fatal(err)
	}
	return u.Used
}

func TestOpenFetchesThePartThatIsRead(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	reader, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(200*content.GroupSize+77, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	r := reader.open(t, sharer.lib.Link(s).String(), OpenOptions{})
	if r.Name() != "film.mkv" || r.ID() != s.ID || r.Size() != int64(len(data)) {
		t.Errorf("Open = %q %s %d, want film.mkv %s %d", r.Name(), r.ID(), r.Size(), s.ID, len(data))
	}
	for _, at := range []int64{150*content.GroupSize + 5, 3, int64(len(data)) - 10, 70*content.GroupSize - 4} {
		if got := readAt(t, r, at, 10); !bytes.Equal(got, data[at:at+10]) {
			t.Errorf("at %d came %x, want %x", at, got, data[at:at+10])
		}
	}
	if n, err := r.Read(make([]byte, 0)); n != 0 || err != nil {
		t.Errorf("Read of nothing = %d, %v", n, err)
	}
	if n, err := r.Seek(0, io.SeekEnd); n != r.Size() || err != nil {
		t.Errorf("Seek to the end = %d, %v", n, err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read at the end = %v, want EOF", err)
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("Seek before the start succeeds")
	}
	if used := reader.cacheUsed(t); used > 64*content.GroupSize {
		t.Errorf("five looks at %d bytes have fetched %d", len(data), used)
	}
	r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("a closed reader reads")
	}
}

func TestOpenReadsWhatIsHereInPlace(t *testing.T) {
	p, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(3*content.GroupSize+1, "film")
	s := p.add(t, p.write(t, "film.mkv", data), AddOptions{})
	for _, what := range []string{s.ID.String(), "film.mkv"} {
		if got, err := io.ReadAll(p.open(t, what, OpenOptions{})); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read of %s: %d bytes, %v", what, len(got), err)
		}
	}
	if used := p.cacheUsed(t); used != 0 {
		t.Errorf("what is shared from here takes %d bytes of the cache", used)
	}
}

func TestManyReadersShareOneTransfer(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	reader, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(40*content.GroupSize, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	link := sharer.lib.Link(s).String()
	var wg sync.WaitGroup
	for i := range 50 {
		r := reader.open(t, link, OpenOptions{})
		wg.Go(func() {
			from := int64(i) * 200_000
			r.Seek(from, io.SeekStart)
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[from:]) {
				t.Errorf("reader %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
	up, err := sharer.lib.Uploads()
	if err != nil {
		t.Fatal(err)
	}
	var sent int64
	for _, u := range up {
		sent += u.Bytes
	}
	if sent > int64(len(data))*5/4 {
		t.Errorf("50 readers of %d bytes had %d sent", len(data), sent)
	}
}

func TestCacheSurvivesARestartAndDamage(t *testing.T) {
	sharer, stopSharer := startPeer(t, node.Config{NoDHT: true})
	home := t.TempDir()
	reader, stop := startPeer(t, node.Config{NoDHT: true, Dir: home})
	data := randomBytes(6*content.GroupSize, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	link := sharer.lib.Link(s).String()
	r := reader.open(t, link, OpenOptions{})
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("first read: %d bytes, %v", len(got), err)
	}
	r.Close()
	stop()

	reader, stop = startPeer(t, node.Config{NoDHT: true, Dir: home})
	group := filepath.Join(home, "cache", s.ID.Hex(), "2")
	if err := os.WriteFile(group, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = reader.open(t, link, OpenOptions{})
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read over a damaged group: %d bytes, %v", len(got), err)
	}
	r.Close()
	stop()

	stopSharer() // nobody else has it now
	reader, _ = startPeer(t, node.Config{NoDHT: true, Dir: home})
	if got, err := io.ReadAll(reader.open(t, s.ID.String(), OpenOptions{})); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read from the cache alone: %d bytes, %v", len(got), err)
	}
	c, err := reader.lib.Collect(t.Context())
	if err != nil || c.Cache != 0 {
		t.Errorf("Collect while it is read = %+v, %v, want nothing of the cache", c, err)
	}
}

func TestCacheKeepsItsQuotaAndIsServedOn(t *testing.T) {
	sharer, stopSharer := startPeer(t, node.Config{NoDHT: true})
	reader, _ := startPeer(t, node.Config{NoDHT: true})
	third, _ := startPeer(t, node.Config{NoDHT: true})
	reader.lib.SetCacheMax(1) // CacheMaxMin
	data := randomBytes(CacheMaxMin+20<<20, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	r := reader.open(t, sharer.lib.Link(s).String(), OpenOptions{})
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read: %d bytes, %v", len(got), err)
	}
	if used := reader.cacheUsed(t); used > CacheMaxMin || used < CacheMaxMin/2 {
		t.Errorf("the cache takes %d bytes of %d", used, int64(CacheMaxMin))
	}
	at := int64(len(data)) - 30<<20
	readAt(t, r, at, 1000)
	stopSharer()
	link := Link{ID: s.ID, Name: "film.mkv", Kind: KindFile, Peers: []peer.AddrInfo{reader.AddrInfo()}}
	got := readAt(t, third.open(t, link.String(), OpenOptions{}), at, 1000)
	if !bytes.Equal(got, data[at:at+1000]) {
		t.Error("what came from another's cache is wrong")
	}
}

func TestGetTakesWhatReadersHave(t *testing.T) {
	sharer, stopSharer := startPeer(t, node.Config{NoDHT: true})
	reader, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(20*content.GroupSize, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	r := reader.open(t, sharer.lib.Link(s).String(), OpenOptions{})
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	stopSharer()
	got, err := reader.get(t, sharer.lib.Link(s).String(), GetOptions{})
	if err != nil || got.BytesFetched != 0 {
		t.Fatalf("Get of what a reader has: %d bytes fetched, %v", got.BytesFetched, err)
	}
	mustBe(t, got.Path, data)
}

func TestOpenFollowsPathsAndTellsWhatIsNotThere(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	reader, _ := startPeer(t, node.Config{NoDHT: true})
	sharer.write(t, "album/a/one.txt", []byte("one"))
	sharer.write(t, "album/a/two.txt", randomBytes(2*content.GroupSize, "two"))
	sharer.write(t, "album/b.txt", []byte("b"))
	s := sharer.add(t, filepath.Join(sharer.dir, "album"), AddOptions{})
	w, err := ParseWhat(sharer.lib.Link(s).String())
	if err != nil {
		t.Fatal(err)
	}
	w.Kind = ""
	r, err := reader.lib.Open(t.Context(), w, OpenOptions{Path: "a/one.txt"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); string(got) != "one" || err != nil || r.Name() != "one.txt" {
		t.Errorf("a/one.txt = %q, %v", got, err)
	}
	if _, err := reader.lib.Open(t.Context(), w, OpenOptions{}); !errors.Is(err, ErrIsDir) {
		t.Errorf("Open of a directory: %v", err)
	}
	if _, err := reader.lib.Open(t.Context(), w, OpenOptions{Path: "a/three.txt"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open of what is not in it: %v", err)
	}
	var inside []Path
	for e, err := range reader.lib.ReadDir(t.Context(), w, OpenOptions{Path: "a"}) {
		if err != nil {
			t.Fatal(err)
		}
		inside = append(inside, e.Path)
	}
	if len(inside) != 2 || inside[0] != "a/one.txt" {
		t.Errorf("ReadDir(a) = %v", inside)
	}
	nowhere := What{ID: content.Root([]byte("nobody has this"))}
	if _, err := reader.lib.Open(t.Context(), nowhere, OpenOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Open of what nobody has: %v", err)
	}
}

func TestReadersEndWithTheirContextAndTheLibrary(t *testing.T) {
	sharer, stopSharer := startPeer(t, node.Config{NoDHT: true})
	reader, stop := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(40*content.GroupSize, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	w, err := ParseWhat(sharer.lib.Link(s).String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := reader.lib.Open(ctx, w, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	r.Seek(20*content.GroupSize, io.SeekStart)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("Read after its context: %v", err)
	}
	r2 := reader.open(t, s.ID.String(), OpenOptions{StallMax: time.Minute})
	stopSharer()
	r2.Seek(30*content.GroupSize, io.SeekStart)
	if _, err := r2.Read(make([]byte, 1)); err == nil {
		t.Error("what nobody has any more is read")
	}
	stop()
	if _, err := r2.Read(make([]byte, 1)); err == nil {
		t.Error("a library that is closed reads")
	}
}

func TestMoreContentsAreReadThanSessionsRun(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	reader, _ := startPeer(t, node.Config{NoDHT: true})
	for i := range 2*sessionsMax + 1 {
		data := randomBytes(30*content.GroupSize, string(rune('a'+i)))
		s := sharer.add(t, sharer.write(t, string(rune('a'+i)), data), AddOptions{})
		r := reader.open(t, sharer.lib.Link(s).String(), OpenOptions{}) // and stays open
		if got := readAt(t, r, 1000, 10); !bytes.Equal(got, data[1000:1010]) {
			t.Errorf("content %d is read wrong", i)
		}
	}
}
