package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// rot flips one byte of a content in a peer's store.
func (p *testPeer) rot(t *testing.T, id content.ID, at int64) {
	t.Helper()
	f, err := os.OpenFile(p.lib.store.path(id), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func TestDamageIsNeverServedAndScrubMendsIt(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	for _, size := range []int{100, content.GroupSize - 1, 3*content.GroupSize + 5, 12<<20 + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := randomBytes(size, fmt.Sprint("rot", size))
			s := sharer.add(t, sharer.write(t, fmt.Sprint("rot", size), data), AddOptions{})
			first := holder.hold(t, s.ID, sharer.from(s))
			holder.rot(t, s.ID, int64(size/2))

			if _, err := sharer.lib.Remove(t.Context(), s.Path); err != nil {
				t.Fatal(err)
			}

			// Nobody gets a wrong byte, and who asks learns no more than that it is missing.
			getter, _ := startPeer(t, node.Config{})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			w, err := ParseWhat(s.ID.String())
			if err != nil {
				t.Fatal(err)
			}
			got, err := getter.lib.Get(ctx, w, GetOptions{Dir: getter.dir, Peers: []peer.AddrInfo{holder.AddrInfo()}})
			if err == nil || errors.Is(err, ErrCorrupt) || len(got.Corrupt) > 0 {
				t.Errorf("get of a damaged content = %+v, %v, want an error that blames nobody", got, err)
			}
			mustHoldOnlyTrueBytes(t, getter.dir, data)
			if h, ok, err := holder.lib.Held(s.ID); err != nil || !ok || !h.Damaged {
				t.Errorf("Held after it was asked for = %+v, %v, %v, want it damaged", h, ok, err)
			}
			if all := holder.holding(t); !all[s.ID].Damaged {
				t.Errorf("Holding does not tell of the damage: %+v", all[s.ID])
			}
			sharer.add(t, s.Path, AddOptions{})
			// Beside another source the getter gets all, most of it from the holder.
			got, err = getter.get(t, s.ID.String(), GetOptions{Peers: []peer.AddrInfo{holder.AddrInfo(), sharer.AddrInfo()}, NoServe: true})
			if err != nil {
				t.Errorf("get beside another source: %v", err)
			}

			found, err := holder.lib.Scrub(t.Context(), s.ID, ScrubOptions{Sources: []peer.AddrInfo{sharer.AddrInfo()}})
			if err != nil || found.Damaged != 1 || found.Repaired != 1 || found.Fetched > content.GroupSize || found.Fetched == 0 || found.Read != s.Size {
				t.Errorf("Scrub = %+v, %v, want one group found and fetched", found, err)
			}
			h, ok, err := holder.lib.Held(s.ID)
			if err != nil || !ok || h.Damaged || !h.Verified.After(first.Verified) {
				t.Errorf("Held after Scrub = %+v, %v, %v", h, ok, err)
			}
			mustBe(t, holder.lib.store.path(s.ID), data)
			holder.mustBeInOrder(t)
		})
	}
}

func TestScrubMendsAllKindsOfDamage(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	data := randomBytes(8<<20+1, "kinds")
	s := sharer.add(t, sharer.write(t, "kinds", data), AddOptions{})
	holder.hold(t, s.ID, sharer.from(s))
	path := holder.lib.store.path(s.ID)
	sources := ScrubOptions{Sources: []peer.AddrInfo{sharer.AddrInfo()}}
	for _, test := range []struct {
		name   string
		damage func() error
		groups int64
	}{
		{"none", func() error { return nil }, 0},
		{"cut", func() error { return os.Truncate(path, 8<<20-1) }, 2},
		{"longer", func() error {
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.Write([]byte("more"))
			return errors.Join(err, f.Close())
		}, 0},
		{"empty", func() error { return os.Truncate(path, 0) }, 33},
		{"gone", func() error { return os.Remove(path) }, 33},
		{"a directory", func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, 33},
		{"outboard", func() error {
			o, err := holder.lib.catalog.outboard(s.ID, s.Size)
			if err != nil {
				return err
			}
			o.Set(3, content.CV{})
			return holder.lib.catalog.replaceOutboard(s.ID, o)
		}, 1},
	} {
		if err := test.damage(); err != nil {
			t.Fatal(err)
		}
		found, err := holder.lib.Scrub(t.Context(), s.ID, sources)
		if err != nil || found.Damaged != test.groups || found.Repaired != test.groups {
			t.Errorf("%s: Scrub = %+v, %v, want %d groups", test.name, found, err, test.groups)
		}
		mustBe(t, path, data)
		holder.mustBeInOrder(t)
	}

	// Nobody has what is wrong: it stays damaged, and the rest good.
	s = sharer.add(t, sharer.write(t, "short", data[:1<<20]), AddOptions{})
	holder.hold(t, s.ID, sharer.from(s))
	holder.rot(t, s.ID, 1)
	if _, err := sharer.lib.Remove(t.Context(), s.Path); err != nil {
		t.Fatal(err)
	}
	if found, err := holder.lib.Scrub(t.Context(), s.ID, sources); err == nil || found.Damaged != 1 || found.Repaired != 0 {
		t.Errorf("Scrub without a source = %+v, %v", found, err)
	}
	if h, _, _ := holder.lib.Held(s.ID); !h.Damaged {
		t.Error("what could not be repaired is not damaged any more")
	}
	if _, err := holder.lib.Scrub(t.Context(), contentID([]byte("other")), sources); !errors.Is(err, ErrNotHeld) {
		t.Errorf("Scrub of what is not held = %v, want ErrNotHeld", err)
	}
}

func TestScrubOfADirectory(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	var ids []content.ID
	for i := range 40 {
		data := randomBytes(1+i*i*500, fmt.Sprint("scrub", i))
		sharer.write(t, fmt.Sprintf("tree/%d", i), data)
		ids = append(ids, contentID(data))
	}
	s := sharer.add(t, filepath.Join(sharer.dir, "tree"), AddOptions{})
	h := holder.hold(t, s.ID, sharer.from(s))
	for _, id := range []content.ID{ids[0], ids[30], s.ID} {
		holder.rot(t, id, 0)
	}
	if err := os.Remove(holder.lib.store.path(ids[7])); err != nil {
		t.Fatal(err)
	}
	// It is found by asking for it, too, whichever part of it was.
	if _, err := holder.get(t, ids[0].String(), GetOptions{Peers: []peer.AddrInfo{sharer.AddrInfo()}, NoServe: true}); err != nil {
		t.Fatal(err)
	}
	if h := holder.holding(t)[s.ID]; !h.Damaged {
		t.Error("damage in a file is not the directory's")
	}
	if ids, err := holder.lib.Damaged(t.Context()); err != nil || len(ids) != 1 || ids[0] != s.ID {
		t.Errorf("Damaged = %v, %v, want the directory", ids, err)
	}
	found, err := holder.lib.Scrub(t.Context(), s.ID, ScrubOptions{Sources: []peer.AddrInfo{sharer.AddrInfo()}})
	if err != nil || found.Damaged != 4 || found.Repaired != 4 || found.Fetched > 4*content.GroupSize {
		t.Errorf("Scrub = %+v, %v, want four repaired", found, err)
	}
	if again, err := holder.lib.Scrub(t.Context(), s.ID, ScrubOptions{}); err != nil || again.Damaged != 0 || again.Read != h.Bytes || again.Fetched != 0 {
		t.Errorf("Scrub again = %+v, %v, want %d bytes read and none wrong", again, err, h.Bytes)
	}
	if ids, err := holder.lib.Damaged(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("Damaged after the repair = %v, %v", ids, err)
	}
	holder.mustBeInOrder(t)
}

func TestPacerHoldsTheRate(t *testing.T) {
	p := newPacer(10 << 20)
	start := time.Now()
	for range 9 {
		if err := p.wait(t.Context(), content.GroupSize); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 190*time.Millisecond {
		t.Errorf("2 MiB and a first piece at 10 MiB/s took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newPacer(1).wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait = %v after its context's end", err)
	}
}

func TestUndamaged(t *testing.T) {
	const size = 10 * content.GroupSize
	for _, test := range []struct {
		damaged []int64
		first   int64
		n       int
		want    string
	}{
		{nil, 0, 5, "[[0 10]] 0"},
		{[]int64{0}, 0, 5, "[[1 9]] 0"},
		{[]int64{9}, 0, 5, "[[0 9]] 0"},
		{[]int64{3, 4, 7}, 0, 5, "[[0 3] [5 2] [8 2]] 0"},
		{[]int64{3, 4, 7}, 0, 2, "[[0 3] [5 2]] 8"},
		{[]int64{3, 4, 7}, 8, 2, "[[8 2]] 0"},
		{[]int64{3, 4, 7}, 4, 1, "[[5 2]] 8"},
	} {
		runs, more := undamaged(size, test.damaged, test.first, test.n)
		if got := fmt.Sprint(runs, more); got != test.want {
			t.Errorf("undamaged(%v, %d, %d) = %s, want %s", test.damaged, test.first, test.n, got, test.want)
		}
	}
}

func TestDamagedOutboardIsNotSent(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	holder, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	s := sharer.add(t, sharer.write(t, "outboard", randomBytes(1<<20, "outboard")), AddOptions{})
	holder.hold(t, s.ID, sharer.from(s))
	o, err := holder.lib.catalog.outboard(s.ID, s.Size)
	if err != nil {
		t.Fatal(err)
	}
	o.Set(2, content.CV{})
	if err := holder.lib.catalog.replaceOutboard(s.ID, o); err != nil {
		t.Fatal(err)
	}
	got, err := getter.get(t, s.ID.String(), GetOptions{Peers: []peer.AddrInfo{holder.AddrInfo()}})
	if err == nil || errors.Is(err, ErrCorrupt) || len(got.Corrupt) > 0 {
		t.Errorf("get = %+v, %v, want an error that blames nobody", got, err)
	}
	if ids, err := holder.lib.Damaged(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("Damaged = %v, %v, want the content", ids, err)
	}
	if found, err := holder.lib.Scrub(t.Context(), s.ID, ScrubOptions{Sources: []peer.AddrInfo{sharer.AddrInfo()}}); err != nil || found.Repaired != 1 {
		t.Errorf("Scrub = %+v, %v", found, err)
	}
	if _, err := getter.get(t, s.ID.String(), GetOptions{Peers: []peer.AddrInfo{holder.AddrInfo()}}); err != nil {
		t.Errorf("get after the repair: %v", err)
	}
}
