package coord

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

// pinMany pins count contents of a size, which are to be had where they are pinned.
func (w *world) pinMany(i int, g GroupID, count int, size int64) (ids []content.ID) {
	w.t.Helper()
	cl := w.peers[i].Client(g)
	for n := range count {
		o := pinOf(fmt.Sprintf("many-%d-%d", i, n))
		o.Size = size
		w.held.offer(o.ID, true)
		if _, err := cl.Pin(w.t.Context(), o); err != nil {
			w.t.Fatal(err)
		}
		ids = append(ids, o.ID)
	}
	return ids
}

// okay counts the pins that have as many verified copies as are wanted, by a fresh
// read, and checks that the state does not say what is not so.
func (w *world) okay(i int, g GroupID) (ok, all int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	for p, err := range w.peers[i].Client(g).Pins(ctx, ReadOptions{}) {
		if err != nil {
			return 0, -1
		}
		if all++; HealthOf(p, nil).Health == HealthOK {
			ok++
		}
	}
	return ok, all
}

func (w *world) awaitOkay(i int, g GroupID, what string) {
	w.t.Helper()
	w.eventually(what, func() bool { ok, all := w.okay(i, g); return ok == all })
}

// truth checks that members hold what the state says, and what the plan wants and no
// more: no copies are left over.
func (w *world) truth(g *Group) {
	w.t.Helper()
	m, err := g.running()
	if err != nil {
		w.t.Fatal(err)
	}
	state, plan := g.plan(m)
	for p := range state.Pins(content.ID{}) {
		place, _ := plan.Place(p.ID)
		for _, peer := range w.peers {
			held := w.held.store(peer.n.ID()).has(p.ID)
			if inState := slices.Contains(p.Copies, peer.self()); inState != held {
				w.t.Errorf("%s at %s: in the state %v, in the store %v", p.ID.Short(), peer.self(), inState, held)
			}
			if planned := slices.Contains(place.Holders, peer.self()); planned != held {
				w.t.Errorf("%s at %s: planned %v, in the store %v", p.ID.Short(), peer.self(), planned, held)
			}
		}
	}
}

func TestCopiesAreMadeReportedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		g := w.found(3)[0]
		for i := 3; i < 6; i++ {
			w.join(i, AsStorage)
		}
		ids := w.pinMany(0, g.ID(), 60, 1<<20)
		w.awaitOkay(0, g.ID(), "all have three copies")
		time.Sleep(10 * time.Second)
		w.truth(g)
		for _, id := range ids {
			w.held.offer(id, false) // who pinned them may go
		}

		// An idle group writes nothing.
		m, err := g.running()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * markEvery)
		_, before := m.lastEntry()
		time.Sleep(10 * time.Minute)
		if _, after := m.lastEntry(); after != before {
			t.Errorf("an idle group has written %d entries in 10 minutes", after-before)
		}

		// A member that goes for longer than the grace time is planned around; when it is
		// back what is too much goes.
		if err := w.peers[0].Client(g.ID()).SetGrace(t.Context(), 30*time.Second); err != nil {
			t.Fatal(err)
		}
		w.peers[5].crash(t)
		w.held.store(w.peers[5].n.ID()).setOff(true)
		gone := time.Now()
		time.Sleep(10 * time.Second)
		if ok, all := w.okay(0, g.ID()); ok == all {
			t.Error("all is ok while a member is down")
		}
		w.eventually("it is away", func() bool { return w.away(0, g.ID(), 5) })
		if took := time.Since(gone); took < 18*time.Second || took > 45*time.Second {
			t.Errorf("it is away after %s, want about the grace time of 30 s", took)
		}
		w.awaitOkay(0, g.ID(), "its copies are made elsewhere")
		w.held.store(w.peers[5].n.ID()).setOff(false)
		w.peers[5].start(t)
		w.eventually("it is back", func() bool { return !w.away(0, g.ID(), 5) })
		w.awaitOkay(0, g.ID(), "all have three copies again")
		time.Sleep(20 * time.Second)
		w.truth(g)
	})
}

func (s *fakeStore) setOff(off bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = off
}

func (s *fakeStore) setFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

func (w *world) away(by int, g GroupID, i int) bool {
	list, _, err := w.peers[by].Client(g).Members(w.t.Context(), ReadOptions{})
	if err != nil {
		return false
	}
	for _, m := range list {
		if m.Peer == w.peers[i].self() {
			return m.Away
		}
	}
	return false
}

func TestUnpinnedAndExpiredCopiesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		g := w.found(3)[0]
		ids := w.pinMany(0, g.ID(), 3, 1000)
		w.awaitOkay(0, g.ID(), "all have three copies")
		if _, err := w.peers[1].Client(g.ID()).UnpinContent(t.Context(), ids[0], ExpectAny); err != nil {
			t.Fatal(err)
		}
		w.eventually("its copies are gone", func() bool {
			return !slices.ContainsFunc(w.peers, func(p *testPeer) bool { return w.held.store(p.n.ID()).has(ids[0]) })
		})
		w.truth(g)
	})
}

func TestLiarIsFoundOutAndReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, 5, func(_ int, p *testPeer) { p.scrub = 10 * time.Minute })
		g := w.found(3)[0]
		w.join(3, AsStorage)
		w.join(4, AsStorage)
		liar := w.held.store(w.peers[4].n.ID())
		liar.mu.Lock()
		liar.lies = true
		liar.mu.Unlock()
		w.pinMany(0, g.ID(), 30, 1000)
		w.eventually("it is found out", func() bool {
			list, _, err := w.peers[0].Client(g.ID()).Members(t.Context(), ReadOptions{})
			return err == nil && slices.ContainsFunc(list, func(m Member) bool { return m.Unproven && m.Peer == w.peers[4].self() })
		})
		w.awaitOkay(0, g.ID(), "others have what it lied about")
		m, err := g.running()
		if err != nil {
			t.Fatal(err)
		}
		state, _ := g.plan(m)
		for p := range state.Pins(content.ID{}) {
			n := 0
			for _, x := range w.peers {
				if w.held.store(x.n.ID()).has(p.ID) {
					n++
				}
			}
			if n < 3 {
				t.Errorf("%s is ok with %d copies", p.ID.Short(), n)
			}
		}
		// It mends its ways, and counts again.
		liar.mu.Lock()
		liar.lies = false
		clear(liar.have)
		liar.mu.Unlock()
		w.peers[4].crash(t)
		w.peers[4].start(t)
		time.Sleep(secondChance)
		w.eventually("it counts again", func() bool {
			list, _, err := w.peers[0].Client(g.ID()).Members(t.Context(), ReadOptions{})
			return err == nil && !slices.ContainsFunc(list, func(m Member) bool { return m.Unproven })
		})
	})
}

func TestWhoLies(t *testing.T) {
	for _, x := range []struct {
		name                  string
		asked, failed, before int
		want                  bool
	}{
		{"the first, and it can't be asked for more", 0, 0, 0, false},
		{"the first of a member that proves the rest", 3, 0, 0, false},
		{"one of three more", 3, 1, 0, false},
		{"two of three more", 3, 2, 0, true},
		{"the one other that it has", 1, 1, 0, false},
		{"the one other that it has, after one", 1, 1, 1, true},
		{"the third that it ever had", 0, 0, 2, true},
		{"rotten ones before, while it proves the rest", 3, 0, 3, false},
		{"rotten ones before, while it proves most", 3, 1, 3, false},
	} {
		if got := lies(x.asked, x.failed, x.before); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

func TestHonestMembersAreNotAccused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, 4, func(_ int, p *testPeer) { p.scrub = time.Minute })
		g := w.found(3)[0]
		w.join(3, AsStorage)
		w.pinMany(0, g.ID(), 20, 1000)
		w.awaitOkay(0, g.ID(), "all have three copies")
		// Links that are cut are no lies.
		w.held.setCut(func(a, b int) bool { return a != b }, w)
		time.Sleep(2 * time.Minute)
		w.held.setCut(nil, w)
		m, err := g.running()
		if err != nil {
			t.Fatal(err)
		}
		state, _ := g.plan(m)
		for p := range state.Pins(content.ID{}) {
			if len(p.Unproven) > 0 {
				t.Errorf("%s: unproven at %v", p.ID.Short(), p.Unproven)
			}
		}
		for _, x := range state.Members() {
			if x.Unproven {
				t.Errorf("%s is unproven", x.Peer)
			}
		}
	})
}

// setCut cuts what stores fetch from one another, by the numbers of their peers.
func (n *fakeNet) setCut(cut func(a, b int) bool, w *world) {
	index := map[string]int{}
	for i, p := range w.peers {
		index[string(p.self())] = i
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = nil
	if cut != nil {
		n.cut = func(from, to peer.ID) bool { return cut(index[from.String()], index[to.String()]) }
	}
}

func TestDamagedCopyIsMendedAndNotCountedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, 3, func(_ int, p *testPeer) { p.scrub = time.Minute })
		g := w.found(3)[0]
		ids := w.pinMany(0, g.ID(), 5, 1000)
		w.awaitOkay(0, g.ID(), "all have three copies")
		store := w.held.store(w.peers[1].n.ID())
		store.mu.Lock()
		x := store.have[ids[2]]
		x.Damaged = true
		store.have[ids[2]] = x
		store.mu.Unlock()
		w.eventually("it is mended", func() bool { return store.has(ids[2]) })
		w.awaitOkay(0, g.ID(), "all have three copies again")
	})
}

func TestDrainMovesCopiesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		g := w.found(3)[0]
		w.join(3, AsStorage)
		w.join(4, AsStorage)
		ids := w.pinMany(0, g.ID(), 40, 1<<20)
		w.awaitOkay(0, g.ID(), "all have three copies")
		for _, id := range ids {
			w.held.offer(id, false)
		}
		var steps []Draining
		cl := w.peers[4].Client(g.ID())
		done, err := cl.Drain(t.Context(), func(d Draining) { steps = append(steps, d) })
		if err != nil || done.Contents != 0 || len(steps) < 2 || steps[0].Contents == 0 {
			t.Fatalf("Drain = %+v, %v, in steps %+v", done, err, steps)
		}
		for _, id := range ids {
			n := 0
			for _, p := range w.peers[:4] {
				if w.held.store(p.n.ID()).has(id) {
					n++
				}
			}
			if n < 3 {
				t.Errorf("%s has %d copies elsewhere when the drain is over", id.Short(), n)
			}
		}
		if err := cl.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.awaitOkay(0, g.ID(), "all have three copies still")
		time.Sleep(2 * tidyEvery)
		for x := range w.held.store(w.peers[4].n.ID()).Holding(t.Context()) {
			t.Errorf("a member that has left still holds %s", x.ID.Short())
		}

		// Of four members that leave one after the other, the third can't: two can't hold
		// three copies.
		if done, err := w.peers[3].Client(g.ID()).Drain(t.Context(), func(Draining) {}); err != nil || done.Contents != 0 {
			t.Fatalf("the second Drain = %+v, %v", done, err)
		}
		done, err = w.peers[2].Client(g.ID()).Drain(t.Context(), func(Draining) {})
		if err != nil || done.Short != len(ids) || done.Contents != len(ids) {
			t.Errorf("the third Drain = %+v, %v, want %d short", done, err, len(ids))
		}
	})
}

func TestQuotaIsKeptAndRoomIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		g := w.found(3)[0] // of 1 GiB each
		ids := w.pinMany(0, g.ID(), 50, 100<<20)
		w.eventually("what has room is there", func() bool { ok, _ := w.okay(0, g.ID()); return ok == 10 })
		lack := 0
		for p, err := range w.peers[0].Client(g.ID()).Pins(t.Context(), ReadOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if h := HealthOf(p, nil); h.Health == HealthNoRoom {
				lack++
			}
		}
		if lack != 40 {
			t.Errorf("%d pins have no room, want 40", lack)
		}
		for _, id := range ids[:5] {
			if _, err := w.peers[1].Client(g.ID()).UnpinContent(t.Context(), id, ExpectAny); err != nil {
				t.Fatal(err)
			}
		}
		w.eventually("the room is used", func() bool { ok, _ := w.okay(0, g.ID()); return ok == 10 })
		for i, p := range w.peers {
			if s := w.held.store(p.n.ID()); s.most > 1<<30 {
				t.Errorf("peer %d held %d bytes, over its quota", i, s.most)
			}
		}
	})
}

func TestHealth(t *testing.T) {
	const a, b, c, d = Peer("a"), Peer("b"), Peer("c"), Peer("d")
	pin := func(copies, absent, holders []Peer, lack string) Pin {
		return Pin{Size: 100, Wanted: 3, Copies: copies, Absent: absent, Holders: holders, Lack: lack}
	}
	abc := []Peer{a, b, c}
	for _, x := range []struct {
		name string
		pin  Pin
		has  map[Peer]Holding
		want string
	}{
		{"all are there", pin(abc, nil, abc, ""), nil, "ok 3/3"},
		{"more than wanted", pin([]Peer{a, b, c, d}, nil, abc, ""), nil, "ok 4/3"},
		{"nobody has begun", pin(nil, nil, abc, ""), nil, "copying 0 %"},
		{"one is done, two are on the way", pin([]Peer{a}, nil, abc, ""), map[Peer]Holding{b: {Done: 50, Fetching: true}, c: {Done: 36, Fetching: true}}, "copying 62 %"},
		{"all bytes are there and not verified", pin(nil, nil, abc, ""), map[Peer]Holding{a: {Done: 100, Fetching: true}, b: {Done: 100, Fetching: true}, c: {Done: 100, Fetching: true}}, "copying 99 %"},
		{"one is silent", pin([]Peer{a, b}, []Peer{c}, abc, ""), nil, "degraded 2/3"},
		{"one does not answer", pin([]Peer{a, b}, nil, abc, ""), nil, "degraded 2/3"},
		{"another makes what one that is away had", pin([]Peer{a, b}, []Peer{d}, abc, ""), map[Peer]Holding{c: {}}, "copying 66 %"},
		{"all are away", pin(nil, abc, nil, "members"), nil, "lost"},
		{"all are away, and others look for it", pin(nil, abc, []Peer{d}, ""), map[Peer]Holding{d: {Problem: problemSource}}, "lost"},
		{"nobody finds a source", pin(nil, nil, abc, ""), map[Peer]Holding{a: {Problem: problemSource}, b: {Problem: problemSource}}, "lost"},
		{"no other member has room", pin([]Peer{a}, nil, []Peer{a}, "room"), nil, "no room 1/3"},
		{"there are no more members", pin([]Peer{a, b}, nil, []Peer{a, b}, "members"), nil, "no room 2/3"},
		{"a disk is full", pin([]Peer{a, b}, nil, abc, ""), map[Peer]Holding{c: {Problem: problemRoom}}, "no room 2/3"},
		{"an empty file on its way", Pin{Wanted: 3, Copies: []Peer{a}, Holders: abc}, map[Peer]Holding{b: {Fetching: true}}, "copying 33 %"},
		{"every member, and there is none", Pin{Size: 1, Replicas: pinset.ReplicasAll, Lack: "members"}, nil, "no room 0/0"},
	} {
		if got := HealthOf(x.pin, x.has).String(); got != x.want {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
	}
}
