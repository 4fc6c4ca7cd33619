package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// errSlow has a pipeline not answer at all.
var errSlow = errors.New("no answer")

// madePipeline is a source that has small files and answers at once, in a
// goroutine of its own.
type madePipeline struct {
	madeSource
	answer func(id content.ID) ([]byte, error) // errSlow: never
	writes atomic.Int64
	asked  atomic.Int64
	group  sync.WaitGroup
}

func (s *madePipeline) askSmall(ids []content.ID, answers []smallAnswer) (callOff func()) {
	s.writes.Add(1)
	s.asked.Add(int64(len(ids)))
	s.group.Go(func() {
		for i, id := range ids {
			data, err := s.answer(id)
			if !errors.Is(err, errSlow) {
				answers[i](data, err)
			}
		}
	})
	return s.group.Wait
}

// getSmall fetches files from sources and returns what was saved and what was lost.
func getSmall(t *testing.T, contents map[content.ID][]byte, sources ...source) (saved map[content.ID][]byte, lost []content.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newSmallFetch(crowdOf(content.ID{}, sources...))
	var mu sync.Mutex
	saved = map[content.ID][]byte{}
	s.save = func(_ context.Context, _ int, f *smallFile, data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if _, again := saved[f.entry.ID]; again {
			t.Errorf("%s is saved twice", f.entry.ID)
		}
		saved[f.entry.ID] = slices.Clone(data)
		return nil
	}
	s.lost = func(f *smallFile) error { lost = append(lost, f.entry.ID); return nil }
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	for id, data := range contents {
		if err := s.put(ctx, []*smallFile{{entry: Entry{ID: id, Size: int64(len(data))}}}); err != nil {
			t.Fatal(err)
		}
	}
	s.seal()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return saved, lost
}

func smallContents(n int) map[content.ID][]byte {
	made := map[content.ID][]byte{}
	for i := range n {
		data := randomBytes(100+i%3000, fmt.Sprint("small ", i))
		made[content.Root(data)] = data
	}
	return made
}

func TestSmallFilesTakeFewRoundTrips(t *testing.T) {
	const files = 10_000
	contents := smallContents(files)
	s := &madePipeline{madeSource: madeSource{id: "a"}, answer: func(id content.ID) ([]byte, error) { return contents[id], nil }}
	saved, lost := getSmall(t, contents, s)
	if !maps.EqualFunc(contents, saved, bytes.Equal) || len(lost) > 0 {
		t.Errorf("what was saved is not what was wanted, and %d are lost", len(lost))
	}
	// A window is filled up when half of it has come, so what goes out at once is
	// half a window and more.
	if n := s.writes.Load(); n*20 > files {
		t.Errorf("%d files were asked for in %d writes, want 20 times fewer", files, n)
	}
}

func TestSmallFilesComeInSpiteOfTheirSources(t *testing.T) {
	contents := smallContents(500)
	ids := make([]content.ID, 0, len(contents))
	for id := range contents {
		ids = append(ids, id)
	}
	nobody := ids[0]
	honest := func(id content.ID) ([]byte, error) {
		if id == nobody {
			return nil, errNotHeld
		}
		return contents[id], nil
	}
	for name, answer := range map[string]func(id content.ID) ([]byte, error){
		"holds none": func(content.ID) ([]byte, error) { return nil, errNotHeld },
		"holds some": func(id content.ID) ([]byte, error) {
			if id[0]%2 == 0 {
				return nil, errNotHeld
			}
			return honest(id)
		},
		"fails":       func(content.ID) ([]byte, error) { return nil, errors.New("gone") },
		"never gives": func(content.ID) ([]byte, error) { return nil, errSlow },
		"lies":        func(content.ID) ([]byte, error) { return []byte("lies"), nil },
		"too large":   func(content.ID) ([]byte, error) { return make([]byte, content.GroupSize+1), nil },
	} {
		t.Run(name, func(t *testing.T) {
			contents := maps.Clone(contents)
			wantLost := []content.ID{nobody}
			if name == "never gives" { // so that it can't be told whether it would have it
				delete(contents, nobody)
				wantLost = nil
			}
			good := &madePipeline{madeSource: madeSource{id: "good"}, answer: honest}
			bad := &madePipeline{madeSource: madeSource{id: "bad", data: make([]byte, content.GroupSize)}, answer: answer}
			saved, lost := getSmall(t, contents, bad, good)
			if len(saved) != len(contents)-len(wantLost) || !slices.Equal(lost, wantLost) {
				t.Errorf("%d files came and %d are lost, want all but the one that nobody has", len(saved), len(lost))
			}
			for id, data := range saved {
				if content.Root(data) != id {
					t.Fatalf("wrong bytes are saved as %s", id)
				}
			}
			if name == "never gives" && bad.asked.Load() > 2*smallWindowMax {
				t.Errorf("a silent source was asked for %d files", bad.asked.Load())
			}
		})
	}
}

func TestSmallFileOfAnotherSizeIsTheListingsFault(t *testing.T) {
	data := []byte("five!")
	id := content.Root(data)
	s := newSmallFetch(crowdOf(id, &madePipeline{madeSource: madeSource{id: "a"}, answer: func(content.ID) ([]byte, error) { return data, nil }}))
	s.save = func(context.Context, int, *smallFile, []byte) error { t.Error("it is saved"); return nil }
	s.lost = func(*smallFile) error { t.Error("it is lost"); return nil }
	if err := s.put(t.Context(), []*smallFile{{entry: Entry{ID: id, Size: 4}}}); err != nil {
		t.Fatal(err)
	}
	s.seal()
	if err := s.run(t.Context()); !errors.Is(err, ErrBadListing) {
		t.Errorf("run = %v, want ErrBadListing", err)
	}
}

// TestGetDirectoryGoesOnInABrokenOffOne has a partial directory with what a
// killed get may leave: whole files, torn ones, and what does not belong there.
func TestGetDirectoryGoesOnInABrokenOffOne(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	var all, torn int64
	for i := range 300 {
		data := randomBytes(1000+i, fmt.Sprint("file ", i))
		all += int64(len(data))
		name := fmt.Sprintf("d%d/%d", i%7, i)
		sharer.write(t, "album/"+name, data)
		part := filepath.Join(getter.dir, ".album.p2p-part", name)
		switch i % 3 {
		case 0:
			writeBelow(t, part, data)
			continue
		case 1:
			writeBelow(t, part, data[:len(data)/2])
		}
		torn += int64(len(data))
	}
	writeBelow(t, filepath.Join(getter.dir, ".album.p2p-part/d1/stranger"), []byte("not in it"))
	sharer.add(t, filepath.Join(sharer.dir, "album"), AddOptions{})
	got, err := getter.get(t, "album", GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTree(t, filepath.Join(sharer.dir, "album")), readTree(t, got.Path)); diff != "" {
		t.Errorf("the tree differs (-shared +got):\n%s", diff)
	}
	if fetched := got.BytesFetched - listingSize(t, sharer, got.ID); fetched != torn {
		t.Errorf("fetched %d bytes of %d, want what was missing: %d", fetched, all, torn)
	}
}

func writeBelow(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGetDirectoryFromTwo has two sharers, of which each has lost other files.
func TestGetDirectoryFromTwo(t *testing.T) {
	net := startNetwork(t, 3)
	var shares [2]Share
	var ids [2]peer.AddrInfo
	for n, p := range net[1:3] {
		for i := range 200 {
			p.write(t, fmt.Sprintf("album/%d", i), randomBytes(1000+i, fmt.Sprint("file ", i)))
		}
		shares[n] = p.add(t, filepath.Join(p.dir, "album"), AddOptions{})
		ids[n] = peer.AddrInfo{ID: p.lib.node.ID(), Addrs: p.lib.node.Addrs()}
	}
	if shares[0].ID != shares[1].ID {
		t.Fatal("the two directories differ")
	}
	want := readTree(t, shares[0].Path)
	for i := range 200 {
		if i%4 < 2 {
			if err := os.Remove(filepath.Join(net[1+i%2].dir, fmt.Sprintf("album/%d", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	getter, _ := startPeer(t, node.Config{})
	got, err := getter.get(t, shares[0].ID.String(), GetOptions{Peers: ids[:]})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, readTree(t, got.Path)); diff != "" {
		t.Errorf("the tree differs:\n%s", diff)
	}
}
