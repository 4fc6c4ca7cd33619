package coord

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// link returns the group's link, which has gone through its text.
func (w *world) linkOf(g *Group) Link {
	w.t.Helper()
	l, err := w.peers[0].Client(g.ID()).Link(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	again, err := ParseLink(l.String())
	if err != nil {
		w.t.Fatal(err)
	}
	return again
}

// looked reports whether a follower has the state of g's member.
func (w *world) looked(c *Coord, g *Group) bool {
	f := c.follower(g.ID())
	m, err := g.running()
	if err != nil || f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pins.At > 0 && f.pins.Index == m.fsm.view(nil) && len(f.names.Members) > 0
}

func TestFollowerServesTheLastAnswersWithTheirAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		groups := w.found(3)
		id, ctx := groups[0].ID(), t.Context()
		admin := w.peers[0].Client(id)
		link := w.linkOf(groups[0])
		link.Members = link.Members[:1]

		follower := w.peers[3]
		var refused *RefusedError
		if _, err := follower.Follow(ctx, link, ""); !errors.As(err, &refused) || refused.Why != RefusedStranger {
			t.Fatalf("Follow without a role: %v, want that a stranger is refused", err)
		}
		if err := admin.Grant(ctx, follower.n.ID(), RoleReader); err != nil {
			t.Fatal(err)
		}
		w.eventually("the link's member knows of that", func() bool { return w.hashesAgree(groups) })
		k, err := follower.Follow(ctx, link, "work")
		if err != nil || k.Name != "work" || !k.Follows {
			t.Fatalf("Follow = %+v, %v", k, err)
		}
		if _, err := follower.Follow(ctx, link, "again"); !errors.Is(err, ErrExists) {
			t.Errorf("Follow a second time: %v, want ErrExists", err)
		}
		if _, err := follower.Client(id).Pin(ctx, pinOf("x")); !errors.Is(err, ErrDenied) {
			t.Errorf("pin by a reader: %v, want ErrDenied", err)
		}
		if err := admin.Grant(ctx, follower.n.ID(), RoleWriter); err != nil {
			t.Fatal(err)
		}
		if _, err := follower.Client(id).Pin(ctx, pinOf("asked")); err != nil {
			t.Errorf("pin by a writer that follows: %v", err)
		}
		if _, err := admin.Pin(ctx, pinOf("listed")); err != nil {
			t.Fatal(err)
		}
		found, err := follower.Resolve(ctx, "", "nasked")
		if err != nil || len(found) != 1 || found[0].Stale || found[0].Group != "work" {
			t.Fatalf("Resolve in all groups = %+v, %v", found, err)
		}
		asked := found[0].LogIndex
		w.eventually("the follower has looked", func() bool { return w.looked(follower.Coord, groups[0]) })

		w.eventually("the follower has heard of both pins", func() bool {
			st, _, err := follower.Client(id).Status(ctx)
			return err == nil && st.Pins == 2
		})

		// The one member of the link is gone: others are known by now.
		w.peers[0].crash(t)
		w.eventually("another leads", func() bool { return w.leader(groups[1:]) >= 0 })
		if found, err := follower.Resolve(ctx, "work", "nlisted"); err != nil || found[0].Stale {
			t.Errorf("Resolve without the link's member = %+v, %v", found, err)
		}

		// All are gone, and the follower has been started anew.
		w.peers[1].crash(t)
		w.peers[2].crash(t)
		follower.crash(t)
		follower.start(t)
		time.Sleep(time.Hour)
		if _, _, err := follower.Client(id).Resolve(ctx, "nasked", ReadOptions{}); !errors.Is(err, ErrUnreachable) {
			t.Errorf("linearizable read with all members gone: %v, want ErrUnreachable", err)
		}
		for name, index := range map[string]uint64{"nasked": asked, "nlisted": asked + 1} {
			found, err := follower.Resolve(ctx, "", share.Name(name))
			if err != nil || len(found) != 1 {
				t.Errorf("Resolve %s with all members gone = %+v, %v", name, found, err)
				continue
			}
			e := found[0]
			if !e.Stale || e.Age < time.Hour || e.Age > time.Hour+5*time.Minute || e.ID != content.Root([]byte(name[1:])) || e.LogIndex != index {
				t.Errorf("Resolve %s with all members gone = %+v, want it as of log index %d, about an hour old", name, e, index)
			}
		}
		if _, err := follower.Resolve(ctx, "work", "nothing"); !errors.Is(err, share.ErrNotFound) {
			t.Errorf("Resolve what is not in a whole list: %v, want ErrNotFound", err)
		}
		pins := 0
		for page, err := range follower.Client(id).PinPages(ctx, ReadOptions{Stale: true}) {
			if err != nil || !page.Stale || page.Age < time.Hour {
				t.Errorf("kept pins = %+v, %v", page, err)
			}
			pins += len(page.Pins)
		}
		if pins != 2 {
			t.Errorf("%d pins are kept, want 2", pins)
		}
		st, f, err := follower.Client(id).Status(ctx)
		if err != nil || !f.Stale || f.Age < time.Hour || st.Pins != 2 {
			t.Errorf("kept status = %+v, %+v, %v", st, f, err)
		}
		if members, f, err := follower.Client(id).Members(ctx, ReadOptions{Stale: true}); err != nil || len(members) != 3 || !f.Stale {
			t.Errorf("kept members = %v, %+v, %v", members, f, err)
		}
		if _, err := follower.Client(id).Pin(ctx, pinOf("y")); !errors.Is(err, ErrUnreachable) {
			t.Errorf("pin with all members gone: %v, want ErrUnreachable", err)
		}

		// They come back, and answers are fresh again.
		for _, p := range w.peers[:3] {
			p.start(t)
		}
		w.eventually("answers are fresh", func() bool {
			found, err := follower.Resolve(ctx, "", "nlisted")
			return err == nil && len(found) == 1 && !found[0].Stale
		})
		if _, err := follower.Unfollow("work"); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(follower.dir, followedDir, id.String())); !os.IsNotExist(err) {
			t.Errorf("after Unfollow its directory is still there: %v", err)
		}
	})
}

func TestMemberNeedNotFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		g := w.found(1)[0]
		if err := w.peers[0].Client(g.ID()).SetOpen(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if _, err := w.peers[1].Follow(t.Context(), w.linkOf(g), "office"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.peers[1].Join(t.Context(), w.invite(AsReader), "office", MemberOptions{}); err != nil {
			t.Fatalf("join under the name of the group that is followed: %v", err)
		}
		if k := w.peers[1].Known(); len(k) != 1 || k[0].Follows {
			t.Errorf("groups after the join: %+v, want the one, as member", k)
		}
		if _, err := w.peers[1].Follow(t.Context(), w.linkOf(g), "other"); !errors.Is(err, ErrExists) {
			t.Errorf("a member that follows: %v, want ErrExists", err)
		}
	})
}

func TestOpenReadingLetsStrangersReadAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		g := w.found(1)[0]
		id, ctx := g.ID(), t.Context()
		admin := w.peers[0].Client(id)
		w.join(2, AsReader)
		if err := errors.Join(admin.SetOpen(ctx, true), admin.Remove(ctx, w.peers[2].n.ID())); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Pin(ctx, pinOf("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.peers[1].Follow(ctx, w.linkOf(g), ""); err != nil {
			t.Fatal(err)
		}
		stranger := w.peers[1].Client(id)
		if b, f, err := stranger.Resolve(ctx, "na", ReadOptions{}); err != nil || f.Stale || b.ID != content.Root([]byte("a")) {
			t.Errorf("a stranger's read = %v, %v, %v", b, f, err)
		}
		before := hashOf(t, g)
		for what, err := range map[string]error{
			"pin":    func() error { _, err := stranger.Pin(ctx, pinOf("b")); return err }(),
			"grant":  stranger.Grant(ctx, w.peers[1].n.ID(), RoleAdmin),
			"remove": stranger.Remove(ctx, w.peers[0].n.ID()),
			"leave":  stranger.Leave(ctx),
			"close":  stranger.SetOpen(ctx, false),
		} {
			if !errors.Is(err, ErrDenied) {
				t.Errorf("%s by a stranger: %v, want ErrDenied", what, err)
			}
		}
		if after := hashOf(t, g); after != before {
			t.Error("a stranger's writes changed the state")
		}
		var refused *RefusedError
		if _, _, err := w.peers[2].Client(id).Resolve(ctx, "na", ReadOptions{}); !errors.As(err, &refused) && !errors.Is(err, ErrStopped) {
			t.Errorf("a removed member's read: %v, want that it was removed", err)
		}
		if err := admin.SetOpen(ctx, false); err != nil {
			t.Fatal(err)
		}
		if _, _, err := stranger.Resolve(ctx, "na", ReadOptions{}); !errors.As(err, &refused) && !errors.Is(err, ErrDenied) {
			t.Errorf("a stranger's read once reading is limited: %v, want that it is refused", err)
		}
	})
}

func TestDamagedAnswersAreNotServed(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{namesFileName, pinsFileName} {
		kept := keptNames{Names: map[string]keptName{"report": {Binding: &Binding{Name: "report", Size: 7}, Index: 3, At: 1}}}
		if err := writeSealed(dir, name, kept); err != nil {
			t.Fatal(err)
		}
		var again keptNames
		if err := readKept(dir, name, &again); err != nil || *again.Names["report"].Binding != *kept.Names["report"].Binding {
			t.Fatalf("read again: %+v, %v", again, err)
		}
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			for bit := range 8 {
				flipped := append([]byte(nil), data...)
				flipped[i] ^= 1 << bit
				if err := os.WriteFile(path, flipped, 0o600); err != nil {
					t.Fatal(err)
				}
				var k keptNames
				err := readKept(dir, name, &k)
				if err == nil && !strings.EqualFold(string(data), string(flipped)) {
					t.Fatalf("bit %d of byte %d flipped: it is read", bit, i)
				}
			}
		}
	}
}
