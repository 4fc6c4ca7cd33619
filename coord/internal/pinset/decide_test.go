package pinset

import (
	"fmt"
	"slices"
	"testing"

	"github.com/p2pshare/p2pshare/share/content"
)

func TestFetchesAreByDanger(t *testing.T) {
	g := newStores(t)
	pin := func(n int, size, replicas int64) {
		g.want(OK, "ann", &SetPin{ID: idOf(n), Kind: KindFile, Size: size, Replicas: replicas, Expect: ExpectAny,
			Source: &Source{Peer: "cat", Addrs: []string{"/ip4/10.0.0.1/tcp/1"}}})
	}
	pin(1, 500, ReplicasAll) // held by two
	pin(2, 400, ReplicasAll) // held by nobody
	pin(3, 300, ReplicasAll) // held by one
	pin(4, 200, ReplicasAll) // held by one, and by one that is away
	pin(5, 100, ReplicasAll) // held by one who could not prove anything
	pin(6, 600, ReplicasAll) // here already
	held := func(peer Peer, n ...int) {
		c := &Copies{Peer: peer}
		for _, n := range n {
			c.Held = append(c.Held, idOf(n))
		}
		g.want(OK, peer, c)
	}
	held("dan1", 1, 3, 4)
	held("dan2", 1)
	held("dan3", 4)
	held("dan4", 5)
	held("dan0", 1) // which it has lost since
	g.want(OK, "ann", &Away{Away: []Peer{"dan3"}, Unproven: []Peer{"dan4"}})
	plan := NewPlan(g.Clone())
	g.want(OK, "ann", pinAs("later", 7)) // the plan does not know it
	var got []string
	for _, f := range plan.Fetches(g.State, "dan0", func(id content.ID) bool { return id == idOf(6) }) {
		got = append(got, fmt.Sprint(f.ID[0], " of ", f.Sound, " from ", f.From, " or ", f.Source.Peer))
	}
	want := []string{
		"5 of 0 from [dan4] or cat", "2 of 0 from [] or cat",
		"4 of 1 from [dan1 dan3] or cat", "3 of 1 from [dan1] or cat", "1 of 2 from [dan1 dan2] or cat"}
	if !slices.Equal(got, want) {
		t.Errorf("fetches are\n%q, want\n%q", got, want)
	}
	if list := plan.Fetches(g.State, "dan3", func(content.ID) bool { return false }); len(list) > 0 {
		t.Errorf("who is away is to fetch %v", list)
	}
}

func TestMayDropWhenOthersHaveIt(t *testing.T) {
	g := newStores(t)
	g.want(OK, "ann", &SetMember{Peer: "vic", NoStore: new(true)})
	g.want(OK, "ann", &SetMember{Peer: "ann", NoStore: new(true)})
	c := pinAs("a", 1)
	c.Replicas = 3
	g.want(OK, "ann", c)
	plan := NewPlan(g.Clone())
	w, _ := plan.Place(idOf(1))
	self, holders := w.Reserve[0], w.Holders
	one := []content.ID{idOf(1)}
	check := func(what string, peer Peer, want bool) {
		t.Helper()
		if got := plan.MayDrop(g.State, peer, idOf(1)); got != want {
			t.Errorf("%s: %s may drop its copy: %t", what, peer, got)
		}
	}
	g.want(OK, self, &Copies{Peer: self, Held: one})
	check("nobody else has it", self, false)
	for _, p := range holders[:2] {
		g.want(OK, p, &Copies{Peer: p, Held: one})
	}
	g.want(OK, w.Reserve[1], &Copies{Peer: w.Reserve[1], Held: one})
	check("three others, but not those of the plan", self, false)
	g.want(OK, holders[2], &Copies{Peer: holders[2], Held: one})
	check("the holders have it", self, true)
	check("a holder", holders[0], false)
	g.want(OK, "ann", &Away{Away: []Peer{self}})
	check("who is away", self, false)
	g.want(OK, "ann", &Away{Back: []Peer{self}, Away: []Peer{holders[1]}})
	check("a holder went since the plan", self, false)
	g.want(OK, "ann", &Away{Back: []Peer{holders[1]}})
	g.want(OK, "ann", &Copies{Peer: holders[1], Unproven: one})
	check("a holder could not prove it", self, false)
	g.want(OK, "vic", &Copies{Peer: holders[1], Held: one})
	more := *c
	more.Replicas = 6
	g.want(OK, "ann", &more)
	check("it was pinned anew", self, false)
	plan = plan.Update(g.Clone())
	check("and wants more copies", w.Reserve[5], false)
	g.want(OK, "ann", &Unpin{Lookup: "a", Expect: ExpectAny})
	check("unpinned", self, true)
	check("unpinned", holders[0], true)
}

// TestWhoLeavesInOrderIsFetchedFrom is a drain: a member stores no more, and keeps
// what it has until others have it.
func TestWhoLeavesInOrderIsFetchedFrom(t *testing.T) {
	g := newStores(t)
	c := pinAs("a", 1)
	c.Replicas = 1
	g.want(OK, "ann", c)
	plan := NewPlan(g.Clone())
	w, _ := plan.Place(idOf(1))
	leaver, next := w.Holders[0], w.Reserve[0]
	g.want(OK, leaver, &Copies{Peer: leaver, Held: []content.ID{idOf(1)}})
	g.want(OK, leaver, &SetMember{Peer: leaver, NoStore: new(true)})
	plan = plan.Update(g.Clone())
	list := plan.Fetches(g.State, next, func(content.ID) bool { return false })
	if len(list) != 1 || !slices.Equal(list[0].From, []Peer{leaver}) || list[0].Sound != 1 {
		t.Fatalf("the next in reserve is to fetch %+v", list)
	}
	if plan.MayDrop(g.State, leaver, idOf(1)) {
		t.Error("the only copy may be dropped")
	}
	g.want(OK, next, &Copies{Peer: next, Held: []content.ID{idOf(1)}})
	if !plan.MayDrop(g.State, leaver, idOf(1)) || g.Sound(idOf(1)) != 2 {
		t.Error("the copy may not be dropped though another has it")
	}
}
