package pinset

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func pinAs(display string, id int) *SetPin {
	return &SetPin{Name: display, Lookup: strings.ToLower(display), ID: idOf(id), Kind: KindFile, Size: 100, Replicas: 2, Expect: ExpectAny}
}

func pinBare(id int) *SetPin {
	return &SetPin{ID: idOf(id), Kind: KindFile, Size: 100, Replicas: 2, Expect: ExpectAny}
}

// history shows bindings newest first, as ID@index, and - for none.
func history(s *State, lookup string) string {
	var list []string
	for _, b := range s.History(lookup) {
		id := b.ID.Short()
		if b.ID.IsZero() {
			id = "-"
		}
		list = append(list, fmt.Sprintf("%s@%d", id, b.Index))
	}
	return strings.Join(list, " ")
}

func TestPinExpects(t *testing.T) {
	g := newGroup(t)
	first := pinAs("Report.pdf", 1)
	first.Expect = ExpectNone
	g.want(OK, "ann", first)
	bound := g.index()

	for _, expect := range []Expect{ExpectNone, bound - 1, bound + 1} {
		c := pinAs("Report.pdf", 2)
		c.Expect = expect
		r := g.want(Conflict, "ann", c)
		if r.Binding == nil || r.Binding.ID != idOf(1) || r.Current != uint64(bound) {
			t.Errorf("expecting %d conflicts with %v at %d, want %s at %d", expect, r.Binding, r.Current, idOf(1), bound)
		}
	}
	second := pinAs("REPORT.pdf", 2)
	second.Expect = bound
	g.want(OK, "ann", second)
	if b, ok := g.Resolve("report.pdf"); !ok || b.Name != "REPORT.pdf" || b.ID != idOf(2) || b.Index != uint64(g.next) {
		t.Errorf("report.pdf is %v, want %s", b, idOf(2))
	}
	if _, pinned := g.Pin(idOf(1)); pinned {
		t.Error("a content is pinned after its only name went to another")
	}
	late := pinAs("other", 3)
	late.Expect = bound
	if r := g.want(Conflict, "ann", late); r.Current != 0 || r.Binding != nil {
		t.Errorf("nothing is bound, and the conflict is with %v", r.Binding)
	}
	g.want(Conflict, "ann", &Unpin{Lookup: "report.pdf", Expect: bound})
	g.want(OK, "ann", &Unpin{Lookup: "report.pdf", Expect: Expect(second.Seq)})
	g.want(NotFound, "ann", &Unpin{Lookup: "report.pdf", Expect: ExpectAny})

	bare := pinBare(4)
	bare.Expect = ExpectNone
	g.want(OK, "ann", bare)
	again := pinBare(4)
	again.Expect = ExpectNone
	if r := g.want(Conflict, "ann", again); r.Current != bare.Seq {
		t.Errorf("the conflict is with %d, want %d", r.Current, bare.Seq)
	}
	id := idOf(4)
	g.want(Conflict, "ann", &Unpin{ID: &id, Expect: bound})
	g.want(OK, "ann", &Unpin{ID: &id, Expect: Expect(bare.Seq)})
	g.want(NotFound, "ann", &Unpin{ID: &id, Expect: ExpectAny})
}

func TestPinStaysWhileSomethingNeedsIt(t *testing.T) {
	g := newGroup(t)
	g.want(OK, "ann", pinAs("a", 1))
	g.want(OK, "ann", pinAs("b", 1))
	g.want(OK, "ann", pinBare(1))
	g.want(OK, "ann", &Unpin{Lookup: "a", Expect: ExpectAny})
	g.want(OK, "ann", &Unpin{Lookup: "b", Expect: ExpectAny})
	if p, pinned := g.Pin(idOf(1)); !pinned || p.Names != 0 || !p.Bare {
		t.Errorf("pin is %+v, want one without names", p)
	}
	g.want(OK, "ann", pinAs("c", 1))
	g.want(OK, "ann", pinAs("d", 1))
	id := idOf(1)
	g.want(OK, "ann", &Unpin{ID: &id, Expect: ExpectAny})
	if g.Counts().Pins+g.Counts().Names > 0 {
		t.Errorf("after unpinning by ID there are %+v", g.Counts())
	}
	if got, want := history(g.State, "c"), fmt.Sprintf("-@%d %s@%d", g.next, id.Short(), g.next-2); got != want {
		t.Errorf("history of c is %s, want %s", got, want)
	}
}

func TestPinOfManyNamesKeepsWhatOthersNeed(t *testing.T) {
	g := newGroup(t)
	forever := pinAs("a", 1)
	forever.Replicas = 3
	g.want(OK, "ann", forever)
	brief := pinAs("b", 1)
	brief.Replicas, brief.Expires = 1, noon+1000
	g.want(OK, "ann", brief)
	if p, _ := g.Pin(idOf(1)); p.Replicas != 3 || p.Expires != 0 {
		t.Errorf("a second name makes it %d replicas until %d, want 3 for ever", p.Replicas, p.Expires)
	}
	g.want(OK, "ann", &Unpin{Lookup: "a", Expect: ExpectAny})
	again := pinAs("b", 1)
	again.Replicas, again.Expires = 1, noon+1000
	g.want(OK, "ann", again)
	if p, _ := g.Pin(idOf(1)); p.Replicas != 1 || p.Expires != noon+1000 {
		t.Errorf("its only name makes it %d replicas until %d, want 1 until %d", p.Replicas, p.Expires, noon+1000)
	}
	other := pinAs("c", 1)
	other.Size++
	g.want(Invalid, "ann", other)
	other = pinAs("c", 1)
	other.Kind = KindDir
	g.want(Invalid, "ann", other)
	for i := range NamesPerPinMax - 1 {
		g.do("ann", pinAs(fmt.Sprintf("n%d", i), 1))
	}
	g.want(Invalid, "ann", pinAs("one too many", 1))
	g.want(OK, "ann", pinAs("n7", 1))
}

func TestHistoryIsTheLastBindings(t *testing.T) {
	g := newGroup(t)
	for i := range 30 {
		g.want(OK, "ann", pinAs("a", i+1))
	}
	h := g.History("a")
	if len(h) != HistoryMax || h[0].ID != idOf(30) || h[15].ID != idOf(15) || h[15].By != "ann" || h[15].Size != 100 {
		t.Errorf("history has %d bindings, %+v to %+v", len(h), h[0], h[len(h)-1])
	}
	g.want(OK, "ann", &Unpin{Lookup: "a", Expect: ExpectAny})
	h = g.History("a")
	if len(h) != HistoryMax || !h[0].ID.IsZero() || h[1].ID != idOf(30) {
		t.Errorf("after unpin history has %d bindings, from %+v", len(h), h[0])
	}
	g.want(OK, "ann", pinAs("a", 40))
	h = g.History("a")
	if len(h) != HistoryMax || h[0].ID != idOf(40) || !h[1].ID.IsZero() || h[2].ID != idOf(30) {
		t.Errorf("after pin history has %d bindings, from %+v", len(h), h[0])
	}
}

func TestHistoriesOfUnboundNamesAreBounded(t *testing.T) {
	g := newGroup(t)
	for i := range UnboundMax + 10 {
		g.do("ann", pinAs(fmt.Sprintf("n%d", i), 1))
		g.do("ann", &Unpin{Lookup: fmt.Sprintf("n%d", i), Expect: ExpectAny})
	}
	if g.pasts.length != UnboundMax || len(g.History("n9")) > 0 || len(g.History("n10")) != 2 {
		t.Errorf("%d histories are kept, want the last %d", g.pasts.length, UnboundMax)
	}
	if g.changes.length != ChangesMax {
		t.Errorf("%d changes are kept, want %d", g.changes.length, ChangesMax)
	}
	if _, err := Decode(bytes.NewReader(encoded(t, g.State))); err != nil {
		t.Error(err)
	}
}

func TestExpireDropsWhatIsDue(t *testing.T) {
	g := newGroup(t)
	for i := range 2000 {
		c := pinAs(fmt.Sprintf("n%d", i), i+1)
		c.Expires = noon + 1_000_000 + int64(i)
		g.do("ann", c)
	}
	g.want(OK, "ann", &Invite{Token: Key{1}, Role: AsReader, Expires: noon + 1_000_000})
	expire := func(at int64) Result {
		g.next++
		c := &Expire{header(g.next, "ann")}
		c.At = at
		return mustApply(t, g.State, uint64(g.next), c)
	}
	if r := expire(noon + 999_999); r.Code != OK || r.Dropped != 0 || r.More {
		t.Errorf("early expire drops %+v", r)
	}
	dropped := 0
	for {
		r := expire(noon + 1_000_999)
		if r.Dropped > DropsMax {
			t.Errorf("one expire drops %d", r.Dropped)
		}
		if dropped += r.Dropped; !r.More {
			break
		}
	}
	if dropped != 1000 || g.Counts() != (Counts{Pins: 1000, Names: 1000, Members: 1, Tokens: 1, Admins: 1}) {
		t.Errorf("dropped %d, left %+v", dropped, g.Counts())
	}
	if r := expire(noon + 999_999 + TokenRetainedMs + 1); r.Dropped == 0 || g.Counts().Tokens != 0 {
		t.Errorf("tokens are kept: %+v", r)
	}
	g.want(Denied, "bob", &Expire{})
	g.want(Denied, "bob", &Mark{})
}
