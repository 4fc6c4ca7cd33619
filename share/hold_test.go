package share

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// from is HoldOptions for a share of p's.
func (p *testPeer) from(s Share) HoldOptions {
	return HoldOptions{Kind: s.Kind, Size: s.Size, Sources: []peer.AddrInfo{p.AddrInfo()}}
}

func (p *testPeer) hold(t *testing.T, id content.ID, o HoldOptions) Held {
	t.Helper()
	h, err := p.lib.Hold(t.Context(), id, o)
	if err != nil {
		t.Fatalf("Hold(%s): %v", id, err)
	}
	return h
}

// holding lists what a peer holds.
func (p *testPeer) holding(t *testing.T) map[content.ID]Held {
	t.Helper()
	all := map[content.ID]Held{}
	for h, err := range p.lib.Holding(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all[h.ID] = h
	}
	return all
}

// mustBeInOrder checks that the store's files are those that its records name, and
// add up to what it says to use.
func (p *testPeer) mustBeInOrder(t *testing.T) {
	t.Helper()
	checkStore(t, p.lib)
}

func checkStore(t *testing.T, l *Library) {
	t.Helper()
	var files int
	var sum charge
	err := filepath.WalkDir(l.store.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		id, err := content.Parse(d.Name())
		if err != nil {
			return nil // of an unfinished hold
		}
		if filepath.Base(filepath.Dir(filepath.Dir(path))) == "new" {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s, ok, err := l.catalog.stored(id)
		if err != nil {
			return err
		}
		if !ok || s.size != info.Size() || s.refs < 1 || path != l.store.path(id) {
			t.Errorf("%s: %d bytes, recorded %v, as %+v", path, info.Size(), ok, s)
		}
		files++
		sum = sum.plus(chargeOf(info.Size()))
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	used, err := l.catalog.used()
	if err != nil {
		t.Fatal(err)
	}
	if used != sum || l.store.used != sum {
		t.Errorf("the store says to use %+v, and knows of %+v: its %d files have %+v", used, l.store.used, files, sum)
	}
	refs := map[content.ID]int64{}
	for at, err := range l.allHolds(t) {
		if err != nil {
			t.Fatal(err)
		}
		var bytes int64
		for part, err := range l.catalog.parts(at.id) {
			if err != nil {
				t.Fatal(err)
			}
			if part.there {
				refs[part.id]++
				bytes += part.size
			} else if at.stage == holdWhole {
				t.Errorf("%s is held whole without %s", at.id, part.id)
			}
		}
		if bytes != at.bytes {
			t.Errorf("%s says to keep %d bytes, and its parts have %d", at.id, at.bytes, bytes)
		}
	}
	if len(refs) != files {
		t.Errorf("%d contents are held, and %d files are there", len(refs), files)
	}
	for id, n := range refs {
		if s, ok, err := l.catalog.stored(id); err != nil || !ok || s.refs != n {
			t.Errorf("stored(%s) = %+v, %v, %v, want %d refs", id, s, ok, err, n)
		}
	}
}

func (l *Library) allHolds(t *testing.T) func(func(holdAt, error) bool) {
	return func(yield func(holdAt, error) bool) {
		var after *content.ID
		for {
			page, err := l.catalog.holdsAfter(after)
			if err != nil {
				yield(holdAt{}, err)
				return
			}
			for _, at := range page {
				after = &at.id
				if !yield(at, nil) {
					return
				}
			}
			if len(page) < pageMax {
				return
			}
		}
	}
}

func TestHoldAndRelease(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	for _, size := range []int{0, 1, content.GroupSize, content.GroupSize + 1, 5<<20 + 7} {
		data := randomBytes(size, fmt.Sprint(size))
		s := sharer.add(t, sharer.write(t, fmt.Sprint(size), data), AddOptions{})
		for range 2 {
			h := holder.hold(t, s.ID, sharer.from(s))
			if h.Size != s.Size || h.Bytes != s.Size || h.Files != 1 || h.Kind != KindFile || h.Verified.IsZero() {
				t.Errorf("Hold of %d bytes = %+v", size, h)
			}
			if again, ok, err := holder.lib.Held(s.ID); err != nil || !ok || again != h {
				t.Errorf("Held = %+v, %v, %v, want %+v", again, ok, err, h)
			}
		}
		if u := holder.lib.Usage(); u.Used != s.Size || u.Reserved != 0 {
			t.Errorf("Usage with %d bytes held = %+v", size, u)
		}
		holder.mustBeInOrder(t)
		if all := holder.holding(t); len(all) != 1 {
			t.Errorf("Holding = %v, want one", all)
		}
		// A third peer gets it from the holder, who alone has it now.
		if _, err := sharer.lib.Remove(t.Context(), s.Path); err != nil {
			t.Fatal(err)
		}
		getter, stop := startPeer(t, node.Config{})
		got, err := getter.get(t, s.ID.String(), GetOptions{Peers: []peer.AddrInfo{holder.AddrInfo()}, Target: filepath.Join(getter.dir, "it")})
		if err != nil || got.BytesFetched != s.Size {
			t.Errorf("get from the holder = %+v, %v", got, err)
		}
		mustBe(t, filepath.Join(getter.dir, "it"), data)
		stop()
		for range 2 {
			if err := holder.lib.Release(t.Context(), s.ID); err != nil {
				t.Fatal(err)
			}
		}
		if u := holder.lib.Usage(); u.Used != 0 || u.Overhead != 0 || u.Reserved != 0 {
			t.Errorf("Usage after Release = %+v", u)
		}
		holder.mustBeInOrder(t)
	}
}

func TestHeldContentsAreNoShares(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	data := randomBytes(3<<20, "unlisted")
	s := sharer.add(t, sharer.write(t, "unlisted.bin", data), AddOptions{})
	holder.hold(t, s.ID, sharer.from(s))
	for s, err := range holder.lib.List(t.Context()) {
		t.Errorf("List yields %v, %v", s, err)
	}
	if _, err := holder.lib.Remove(t.Context(), s.ID.String()); !errors.Is(err, ErrNotShared) {
		t.Errorf("Remove = %v, want ErrNotShared", err)
	}
	// The holder's own get copies, and its share is one of its own.
	got, err := holder.get(t, s.ID.String(), GetOptions{Target: filepath.Join(holder.dir, "mine")})
	if err != nil || got.BytesFetched != 0 {
		t.Fatalf("get of what is held = %+v, %v, want nothing fetched", got, err)
	}
	mustBe(t, got.Path, data)
	if err := os.WriteFile(got.Path, []byte("edited"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.lib.Remove(t.Context(), got.Path); err != nil {
		t.Fatal(err)
	}
	holder.mustBeInOrder(t)
	again, err := holder.get(t, s.ID.String(), GetOptions{Target: filepath.Join(holder.dir, "again")})
	if err != nil || again.BytesFetched != 0 {
		t.Fatalf("get after the share was removed = %+v, %v", again, err)
	}
	mustBe(t, again.Path, data)
	// And the other way round: what is shared keeps its outboard when the hold goes.
	if err := holder.lib.Release(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	third, _ := startPeer(t, node.Config{})
	if _, err := third.get(t, s.ID.String(), GetOptions{Peers: []peer.AddrInfo{holder.AddrInfo()}}); err != nil {
		t.Fatal(err)
	}
}

func TestHoldOfADirectory(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	twin := randomBytes(2<<20, "twin")
	tree := map[string][]byte{"empty": nil, "empty2": nil, "big": randomBytes(3<<20+1, "big"), "t/win1": twin, "t/win2": twin}
	var sum int64
	for i := range 300 {
		tree[fmt.Sprintf("small/%d/%d", i%7, i)] = randomBytes(i*37%5000, fmt.Sprint(i%200))
	}
	for name, data := range tree {
		sharer.write(t, "tree/"+name, data)
		sum += int64(len(data))
	}
	s := sharer.add(t, filepath.Join(sharer.dir, "tree"), AddOptions{})
	if s.Size != sum {
		t.Fatalf("the tree has %d bytes, want %d", s.Size, sum)
	}
	// One of its files is held before.
	big := content.ID(contentID(tree["big"]))
	holder.hold(t, big, HoldOptions{Sources: []peer.AddrInfo{sharer.AddrInfo()}})
	h := holder.hold(t, s.ID, sharer.from(s))
	if h.Files != int64(len(tree)) || h.Size != sum || h.Kind != KindDir {
		t.Errorf("Hold = %+v, want %d files, %d bytes", h, len(tree), sum)
	}
	holder.mustBeInOrder(t)
	if u := holder.lib.Usage(); u.Used != h.Bytes || u.Reserved != 0 || h.Bytes >= sum {
		t.Errorf("Usage = %+v, want %d used, which is less than %d", u, h.Bytes, sum)
	}
	// The sharer is gone; another gets all of it from the holder.
	if _, err := sharer.lib.Remove(t.Context(), s.Path); err != nil {
		t.Fatal(err)
	}
	getter, _ := startPeer(t, node.Config{})
	got, err := getter.get(t, s.ID.String(), GetOptions{Peers: []peer.AddrInfo{holder.AddrInfo()}, NoServe: true})
	if err != nil || got.Kind != KindDir || got.Files != h.Files {
		t.Errorf("get by the ID = %+v, %v, want the directory", got, err)
	}
	for _, p := range []*testPeer{getter, holder} {
		l := Link{ID: s.ID, Name: "tree", Kind: KindDir, Peers: []peer.AddrInfo{holder.AddrInfo()}}
		got, err := p.get(t, l.String(), GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if p == holder && got.BytesFetched != 0 {
			t.Errorf("get of the holder = %+v, want nothing fetched", got)
		}
		for name, data := range tree {
			mustBe(t, filepath.Join(got.Path, filepath.FromSlash(name)), data)
		}
	}
	// What another hold has stays.
	if err := holder.lib.Release(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	holder.mustBeInOrder(t)
	if u := holder.lib.Usage(); u.Used != int64(len(tree["big"])) {
		t.Errorf("Usage after Release = %+v, want the one file", u)
	}
	if all := holder.holding(t); len(all) != 1 || all[big].ID != big {
		t.Errorf("Holding = %v, want the one file", all)
	}
}

func contentID(data []byte) content.ID {
	o := content.NewOutboard(int64(len(data)))
	for i := range o.Groups() {
		n := content.GroupLen(int64(len(data)), i)
		o.SetGroup(i, data[i*content.GroupSize:][:n])
	}
	return o.ID()
}

func TestVisitorCopiesWhatIsHeldAndServesNothing(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	home := t.TempDir()
	holder, stop := startPeer(t, node.Config{Dir: home})
	data := randomBytes(1<<20, "visitor")
	s := sharer.add(t, sharer.write(t, "visitor", data), AddOptions{})
	holder.hold(t, s.ID, sharer.from(s))
	stop()
	visitor, _ := startPeer(t, node.Config{Dir: home, Role: node.RoleVisitor})
	got, err := visitor.get(t, s.ID.String(), GetOptions{})
	if err != nil || got.BytesFetched != 0 {
		t.Fatalf("get of what is held = %+v, %v, want nothing fetched", got, err)
	}
	mustBe(t, got.Path, data)
	if _, err := visitor.lib.Hold(t.Context(), contentID(nil), HoldOptions{}); !errors.Is(err, ErrRefused) {
		t.Errorf("Hold of a visitor = %v, want ErrRefused", err)
	}
	if err := sharer.lib.Challenge(t.Context(), s.ID, KindFile, visitor.AddrInfo()); err == nil {
		t.Error("a visitor gives what is held")
	}
}
