package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestQuotaIsKept(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	const quota = 8 << 20
	holder.lib.SetQuota(quota)
	shares := make([]Share, 20)
	for i := range shares {
		data := randomBytes(1<<20+i, fmt.Sprint("quota", i))
		shares[i] = sharer.add(t, sharer.write(t, fmt.Sprint(i), data), AddOptions{})
	}
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan int64)
	go func() { // what is really there, all the time
		var most int64
		look := time.NewTicker(time.Millisecond)
		defer look.Stop()
		for {
			most = max(most, treeSize(t, holder.lib.store.dir))
			select {
			case <-look.C:
			case <-ctx.Done():
				watched <- most
				return
			}
		}
	}()
	var all sync.WaitGroup
	errs := make([]error, len(shares))
	for i, s := range shares {
		all.Go(func() {
			_, errs[i] = holder.lib.Hold(t.Context(), s.ID, sharer.from(s))
		})
	}
	all.Wait()
	cancel()
	if most := <-watched; most > quota+quota/100 || most < 7<<20 {
		t.Errorf("at most %d bytes were there, the quota is %d", most, quota)
	}
	held := 0
	for _, err := range errs {
		if err == nil {
			held++
		} else if !errors.Is(err, ErrOverQuota) || !errors.Is(err, ErrNoSpace) {
			t.Errorf("Hold = %v, want ErrOverQuota", err)
		}
	}
	if held != 7 { // each is a little larger than an eighth
		t.Errorf("%d are held, want 7", held)
	}
	holder.mustBeInOrder(t)
	u := holder.lib.Usage()
	if u.Used > quota || u.Reserved != 0 || u.Quota != quota || u.Free <= 0 {
		t.Errorf("Usage = %+v", u)
	}
	// What was refused left a hold that is not whole, and nothing of it.
	unfinished := 0
	for h, err := range holder.lib.Unfinished(t.Context()) {
		if err != nil || h.Bytes != 0 {
			t.Errorf("Unfinished yields %+v, %v", h, err)
		}
		unfinished++
	}
	if unfinished != len(shares)-held {
		t.Errorf("%d holds are unfinished, want %d", unfinished, len(shares)-held)
	}
	for _, s := range shares {
		if err := holder.lib.Release(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
	holder.mustBeInOrder(t)
	if n := len(holder.holding(t)); n != 0 || treeSize(t, holder.lib.store.dir) != 0 {
		t.Errorf("%d holds and %d bytes are left after all was released", n, treeSize(t, holder.lib.store.dir))
	}

	// A directory is refused as a whole, before any file of it comes, and counts what
	// is there already once.
	for i := range 9 {
		sharer.write(t, fmt.Sprintf("tree/%d", i), randomBytes(1<<20, fmt.Sprint("part", i)))
	}
	tree := sharer.add(t, filepath.Join(sharer.dir, "tree"), AddOptions{})
	if _, err := holder.lib.Hold(t.Context(), tree.ID, sharer.from(tree)); !errors.Is(err, ErrOverQuota) {
		t.Errorf("Hold of a directory of 9 MiB = %v, want ErrOverQuota", err)
	}
	if u := holder.lib.Usage(); u.Used > 1<<16 || u.Reserved != 0 {
		t.Errorf("Usage after it was refused = %+v, want the listing at most", u)
	}
	holder.lib.SetQuota(10 << 20)
	holder.hold(t, tree.ID, sharer.from(tree))
	if err := os.Remove(filepath.Join(sharer.dir, "tree", "8")); err != nil {
		t.Fatal(err)
	}
	less := sharer.add(t, filepath.Join(sharer.dir, "tree"), AddOptions{})
	holder.hold(t, less.ID, sharer.from(less))
	holder.mustBeInOrder(t)
}

// treeSize is what files below dir take.
func treeSize(t *testing.T, dir string) (bytes int64) {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go
		}
		if info, err := d.Info(); err == nil {
			bytes += min(info.Size(), allocated(info))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return bytes
}

func TestHoldRefusesWhatIsLargerThanWasSaid(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	file := sharer.add(t, sharer.write(t, "file", randomBytes(1<<20, "said")), AddOptions{})
	sharer.write(t, "tree/a", randomBytes(1000, "a"))
	sharer.write(t, "tree/b", randomBytes(1000, "a"))
	tree := sharer.add(t, filepath.Join(sharer.dir, "tree"), AddOptions{})
	for _, s := range []Share{file, tree} {
		o := sharer.from(s)
		o.Size--
		if _, err := holder.lib.Hold(t.Context(), s.ID, o); !errors.Is(err, ErrOversize) {
			t.Errorf("Hold of one byte more than was said = %v, want ErrOversize", err)
		}
		o.Size += 1 << 20
		if h := holder.hold(t, s.ID, o); h.Size != s.Size {
			t.Errorf("Hold of less than was said = %+v, want %d bytes", h, s.Size)
		}
	}
	// A file that is said to be a directory is none.
	other := sharer.add(t, sharer.write(t, "other", randomBytes(1000, "other")), AddOptions{})
	o := sharer.from(other)
	o.Kind = KindDir
	if _, err := holder.lib.Hold(t.Context(), other.ID, o); !errors.Is(err, ErrBadListing) {
		t.Errorf("Hold of a file as a directory = %v, want ErrBadListing", err)
	}
	if u := holder.lib.Usage(); u.Reserved != 0 {
		t.Errorf("Usage = %+v, want nothing reserved", u)
	}
	// As a file it can be held, and a directory's listing, too.
	holder.hold(t, other.ID, sharer.from(other))
	holder.mustBeInOrder(t)
}

func TestHoldResumes(t *testing.T) {
	data := randomBytes(6<<20, "resume")
	g := startGate(t, data, 4)
	holder, _ := startPeer(t, node.Config{})
	o := HoldOptions{Size: int64(len(data)), Sources: []peer.AddrInfo{g.AddrInfo()}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := holder.lib.Hold(ctx, g.id, o)
		ended <- err
	}()
	<-g.reached
	if u := holder.lib.Usage(); u.Reserved != int64(len(data)) {
		t.Errorf("Usage while it comes = %+v, want all reserved", u)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	u := holder.lib.Usage()
	if u.Used == 0 || u.Reserved != 0 || len(holder.holding(t)) != 0 {
		t.Errorf("Usage of what was broken off = %+v, holding %v", u, holder.holding(t))
	}
	g.pass()
	var fetched int64
	o.Progress = func(p Progress) {
		var sum int64
		for _, s := range p.Peers {
			sum += s.Bytes
		}
		fetched = max(fetched, sum)
	}
	holder.hold(t, g.id, o)
	if fetched+u.Used > int64(len(data))+content.GroupSize {
		t.Errorf("%d bytes were there, and %d of %d fetched", u.Used, fetched, len(data))
	}
	holder.mustBeInOrder(t)
}

func TestHoldsOfOverlappingContentsAtOnce(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	var shares []Share
	for d := range 3 {
		for i := range 60 {
			sharer.write(t, fmt.Sprintf("d%d/%d", d, i), randomBytes((i%20)*30_000, fmt.Sprint("o", (i+d*10)%40)))
		}
		shares = append(shares, sharer.add(t, filepath.Join(sharer.dir, fmt.Sprintf("d%d", d)), AddOptions{}))
	}
	shares = append(shares, sharer.add(t, filepath.Join(sharer.dir, "d0", "19"), AddOptions{}))
	var all sync.WaitGroup
	for range 2 {
		for _, s := range shares {
			all.Go(func() {
				if _, err := holder.lib.Hold(t.Context(), s.ID, sharer.from(s)); err != nil {
					t.Errorf("Hold(%s): %v", s.Name, err)
				}
			})
		}
	}
	all.Wait()
	holder.mustBeInOrder(t)
	for i, s := range shares {
		all.Go(func() {
			if i%2 == 0 {
				if err := holder.lib.Release(t.Context(), s.ID); err != nil {
					t.Error(err)
				}
				return
			}
			if _, err := holder.lib.Scrub(t.Context(), s.ID, ScrubOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	holder.mustBeInOrder(t)
	if n := len(holder.holding(t)); n != 2 {
		t.Errorf("%d are held, want 2", n)
	}
	for _, i := range []int{1, 3} {
		if found, err := holder.lib.Scrub(t.Context(), shares[i].ID, ScrubOptions{}); err != nil || found.Damaged != 0 {
			t.Errorf("Scrub of what stayed = %+v, %v", found, err)
		}
	}
}

func TestHoldersHelpEachOtherWhileItComes(t *testing.T) {
	data := randomBytes(12<<20, "help")
	g := startGate(t, data, 4)
	first, _ := startPeer(t, node.Config{})
	second, _ := startPeer(t, node.Config{})
	ended := make(chan error, 2)
	go func() {
		_, err := first.lib.Hold(t.Context(), g.id, HoldOptions{Size: int64(len(data)), Sources: []peer.AddrInfo{g.AddrInfo()}})
		ended <- err
	}()
	<-g.reached
	// The second knows the first only, which has a part of it.
	came := make(chan struct{})
	var once sync.Once
	go func() {
		_, err := second.lib.Hold(t.Context(), g.id, HoldOptions{
			Size: int64(len(data)), Sources: []peer.AddrInfo{first.AddrInfo()},
			Progress: func(p Progress) {
				for _, s := range p.Peers {
					if s.Peer == first.ID() && s.Bytes > 0 {
						once.Do(func() { close(came) })
					}
				}
			}})
		ended <- err
	}()
	<-came
	g.pass()
	if err := errors.Join(<-ended, <-ended); err != nil {
		t.Fatal(err)
	}
	second.mustBeInOrder(t)
}

func TestAdopt(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	data := randomBytes(1<<20, "adopt")
	path := holder.write(t, "mine", data)
	mine := holder.add(t, path, AddOptions{})
	for i := range 5 {
		holder.write(t, fmt.Sprintf("tree/%d", i), randomBytes(i*1000, "adopt"))
	}
	tree := holder.add(t, filepath.Join(holder.dir, "tree"), AddOptions{})
	scoped := holder.add(t, holder.write(t, "scoped", randomBytes(5000, "scoped")), AddOptions{Scope: Scope{To: sharer.ID()}})

	for _, s := range []Share{mine, tree, scoped} {
		h := holder.hold(t, s.ID, HoldOptions{Kind: s.Kind, Size: s.Size, Adopt: true})
		if want := s.Name != "scoped"; h.Adopted != want || (h.Bytes == 0) != want || h.Files != s.Files || h.Size != s.Size {
			t.Errorf("Hold of %s = %+v, want adopted: %v", s.Name, h, want)
		}
		if _, err := holder.lib.Scrub(t.Context(), s.ID, ScrubOptions{}); err != nil {
			t.Errorf("Scrub of %s: %v", s.Name, err)
		}
	}
	if u := holder.lib.Usage(); u.Used != scoped.Size {
		t.Errorf("Usage = %+v, want the copy of what is not for everybody only", u)
	}
	if n := len(holder.holding(t)); n != 3 {
		t.Errorf("%d are held, want 3", n)
	}
	// Asked for a copy of its own, it copies.
	if h := holder.hold(t, tree.ID, HoldOptions{Kind: KindDir, Size: tree.Size}); h.Adopted || h.Bytes == 0 {
		t.Errorf("Hold without Adopt = %+v", h)
	}
	holder.mustBeInOrder(t)
	// An edit ends what was adopted.
	if err := os.WriteFile(path, flipped(data, 5), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.lib.Scrub(t.Context(), mine.ID, ScrubOptions{}); !errors.Is(err, ErrModified) {
		t.Errorf("Scrub of an edited file = %v, want ErrModified", err)
	}
	if _, ok, err := holder.lib.Held(mine.ID); ok || err != nil {
		t.Errorf("Held of an edited file = %v, %v", ok, err)
	}
	sharer.add(t, sharer.write(t, "mine", data), AddOptions{})
	if h := holder.hold(t, mine.ID, HoldOptions{Size: mine.Size, Adopt: true, Sources: []peer.AddrInfo{sharer.AddrInfo()}}); h.Adopted || h.Bytes != mine.Size {
		t.Errorf("Hold after the edit = %+v, want a copy", h)
	}
	holder.mustBeInOrder(t)
}

func TestHoldRate(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{})
	holder, _ := startPeer(t, node.Config{})
	s := sharer.add(t, sharer.write(t, "slow", randomBytes(2<<20, "slow")), AddOptions{})
	holder.lib.SetHoldRate(4 << 20)
	start := time.Now()
	holder.hold(t, s.ID, sharer.from(s))
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("2 MiB at 4 MiB/s took %s", took)
	}
	// A get is not held back by it.
	got, err := holder.get(t, sharer.lib.Link(sharer.add(t, sharer.write(t, "fast", randomBytes(32<<20, "fast")), AddOptions{})).String(), GetOptions{})
	if err != nil || got.Took > 7*time.Second {
		t.Errorf("get of 32 MiB = %+v, %v", got, err)
	}
}
