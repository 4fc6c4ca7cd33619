package share

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestTwoGetsOfOneThingMakeOneFile(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	one, _ := startPeer(t, node.Config{NoDHT: true})
	two, _ := startPeer(t, node.Config{NoDHT: true})
	dir := t.TempDir()
	data := randomBytes(16<<20, "film")
	file := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	tree := sharer.add(t, sharer.makeTree(t, "album", 50), AddOptions{})
	for _, s := range []Share{file, tree} {
		link := sharer.lib.Link(s).String()
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i, p := range []*testPeer{one, one, two, two} {
			wg.Go(func() { _, errs[i] = p.get(t, link, GetOptions{Dir: dir}) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Errorf("four Gets of %s at once: %v", s.Name, err)
		}
	}
	mustBe(t, filepath.Join(dir, "film.mkv"), data)
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("the directory holds %v, want the file and the directory", entries)
	}
}

func TestServerSurvivesHostileGetters(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	honest, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(5*content.GroupSize, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	one := sharer.add(t, sharer.write(t, "one.txt", []byte("one group")), AddOptions{})
	hostile, _ := startPeer(t, node.Config{NoDHT: true})
	if err := hostile.Connect(t.Context(), sharer.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	open := func() network.Stream {
		st, err := hostile.Open(t.Context(), sharer.ID(), dataProtocol, node.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	send := func(b []byte) {
		st := open()
		defer st.Reset()
		st.SetDeadline(time.Now().Add(5 * time.Second))
		st.Write(b)
		st.CloseWrite()
		io.Copy(io.Discard, st) // until the server has had enough
	}
	span := func(id content.ID, first, count int64) []byte {
		return dataRequest{kind: frameSpan, id: id, first: first, count: count}.append(nil, 7)
	}
	send(randomBytes(10_000, "noise"))
	send([]byte("GET / HTTP/1.1\r\n\r\n"))
	send(appendHeader(nil, frameSpan, 1, 1<<30))
	send(span(s.ID, 1<<40, 1))
	send(span(s.ID, 4, 2))
	send(append(span(s.ID, 0, 1), span(s.ID, 0, 1)...)) // one tag twice
	for _, id := range []content.ID{s.ID, one.ID, {}} {
		send(dataRequest{kind: frameOutboard, id: id, level: 1, first: 0, count: 1}.append(nil, 1))
		send(dataRequest{kind: frameOutboard, id: id, level: 0, first: 0, count: 1 << 16}.append(nil, 1))
	}
	// Many requests, and nobody reads the answers.
	flood := open()
	defer flood.Reset()
	flood.SetWriteDeadline(time.Now().Add(time.Second))
	for tag := range uint32(100_000) {
		if _, err := flood.Write(dataRequest{kind: frameSpan, id: s.ID, first: 0, count: 5}.append(nil, tag)); err != nil {
			break // the server has stopped reading
		}
	}
	// More streams than are allowed.
	for range 100 {
		st := open()
		defer st.Reset()
		st.Write([]byte{1})
	}
	if _, err := honest.get(t, sharer.lib.Link(s).String(), GetOptions{}); err != nil {
		t.Fatalf("an honest Get beside hostile ones: %v", err)
	}
	mustBe(t, filepath.Join(honest.dir, "film.mkv"), data)
}

func TestHomesAreNeitherSharedNorSavedInto(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	// The home of somebody else, in the middle of what is shared.
	other, err := node.New(t.Context(), node.Config{Dir: filepath.Join(sharer.dir, "album", "other"), Offline: true})
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	sharer.write(t, "album/a.txt", []byte("a"))
	s := sharer.add(t, filepath.Join(sharer.dir, "album"), AddOptions{})
	got, err := getter.get(t, sharer.lib.Link(s).String(), GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if tree := readTree(t, got.Path); len(tree) != 1 || tree["a.txt"] != "a" {
		t.Errorf("shared with somebody's home inside: %v", tree)
	}
	key := filepath.Join(sharer.dir, "album", "other", "identity.key")
	if _, err := sharer.lib.Add(t.Context(), key, AddOptions{}); !errors.Is(err, ErrNotShareable) {
		t.Errorf("Add of somebody's key = %v, want ErrNotShareable", err)
	}
	catalog := filepath.Join(getter.Dir(), "catalog.db")
	_, err = getter.get(t, sharer.lib.Link(s).String(), GetOptions{Path: "a.txt", Target: catalog, Force: true})
	if !errors.Is(err, ErrRefused) {
		t.Errorf("Get over the own catalog = %v, want ErrRefused", err)
	}
}

func TestGetToADeviceLeavesItADevice(t *testing.T) {
	if _, err := os.Stat("/dev/null"); err != nil {
		t.Skip("there is no /dev/null here")
	}
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	s := sharer.add(t, sharer.write(t, "a.txt", randomBytes(300_000, "a")), AddOptions{})
	got, err := getter.get(t, sharer.lib.Link(s).String(), GetOptions{Target: "/dev/null", Force: true})
	if err != nil || got.BytesFetched != 300_000 {
		t.Errorf("Get to /dev/null = %+v, %v", got, err)
	}
	if info, err := os.Lstat("/dev/null"); err != nil || info.Mode()&os.ModeDevice == 0 {
		t.Fatalf("/dev/null is now %v, %v", info, err)
	}
}
