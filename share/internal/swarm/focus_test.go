package swarm

import (
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

func TestOnDemandAsksForWhatIsWantedAndNoMore(t *testing.T) {
	d := New(NewBitfield(1000), Config{OnDemand: true})
	d.Join(1, 1)
	if span, ok := d.Next(1, 0); ok {
		t.Fatalf("Next before Focus = %v, want none", span)
	}
	if !d.Useful(1) {
		t.Error("a source is of no use while nothing is wanted")
	}
	d.Focus([]content.Span{{First: 900, Count: 1}, {First: 900, Count: 8}})
	var asked []int64
	for {
		span, ok := d.Next(1, 0)
		if !ok {
			break
		}
		for i := span.First; i < span.End(); i++ {
			asked = append(asked, i)
		}
	}
	for i, g := range asked {
		if g != int64(900+i) {
			t.Fatalf("asked for %v, want 900 and on", asked)
		}
	}
	if len(asked) == 0 || len(asked) > 8 {
		t.Fatalf("asked for %v, want the 8 that are wanted", asked)
	}
	for _, g := range asked {
		d.Arrived(1, g, time.Millisecond)
	}
	d.Focus([]content.Span{{First: 3, Count: 2}})
	if got := d.Pointless(time.Second); len(got) == 0 {
		t.Error("requests for what is not wanted any more are not pointless")
	} else {
		for _, r := range got {
			d.Settled(r.Source, r.Span)
		}
	}
	span, ok := d.Next(1, time.Second)
	if !ok || span.First != 3 {
		t.Errorf("Next after a new Focus = %v %v, want group 3", span, ok)
	}
}

func TestOnDemandSourcesAreOfUseForWhatIsWanted(t *testing.T) {
	d := New(NewBitfield(100), Config{OnDemand: true})
	d.JoinPartial(1, 1)
	d.Holds(1, content.Span{First: 0, Count: 50})
	for _, c := range []struct {
		focus  []content.Span
		useful bool
	}{
		{nil, true},
		{[]content.Span{{First: 10, Count: 1}}, true},
		{[]content.Span{{First: 60, Count: 4}}, false},
		{[]content.Span{{First: 60, Count: 4}, {First: 49, Count: 4}}, true},
		{[]content.Span{{First: 99, Count: 10}}, false},
	} {
		if d.Focus(c.focus); d.Useful(1) != c.useful {
			t.Errorf("Useful with focus %v = %v, want %v", c.focus, !c.useful, c.useful)
		}
	}
}

func TestLostGroupsAreMissingAgain(t *testing.T) {
	have := NewBitfield(10)
	have.SetAll()
	d := New(have, Config{OnDemand: true})
	d.Join(1, 1)
	d.Focus([]content.Span{{First: 4, Count: 2}})
	if !d.Done() {
		t.Fatal("all is held, and it is not done")
	}
	d.Lost(4)
	if span, ok := d.Next(1, 0); d.Done() || !ok || span != (content.Span{First: 4, Count: 1}) {
		t.Errorf("after Lost(4): Next = %v %v, want group 4", span, ok)
	}
}
