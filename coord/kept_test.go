package coord

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestKeptAnswersAreTheNewerOfTwo(t *testing.T) {
	a, b := content.Root([]byte("a")), content.Root([]byte("b"))
	asked := func(at int64, id *content.ID) keptNames {
		n := keptName{Index: 5, At: at}
		if id != nil {
			n.Binding = &Binding{Name: "Report", ID: *id, By: "ann", Index: 5}
		}
		return keptNames{Names: map[string]keptName{"report": n}}
	}
	listed := func(at int64, more bool, id content.ID, names ...string) keptPins {
		return keptPins{At: at, Index: 9, More: more, Pins: []Pin{{ID: id, Names: names, By: "ben", Index: 8}}}
	}
	for _, c := range []struct {
		name  string
		names keptNames
		pins  keptPins
		want  content.ID
		index uint64 // of the binding
		err   error
	}{
		{"nothing", keptNames{}, keptPins{}, content.ID{}, 0, errNothingKept},
		{"asked", asked(1, &a), keptPins{}, a, 5, nil},
		{"asked in vain", asked(1, nil), keptPins{}, content.ID{}, 0, ErrNotFound},
		{"listed", keptNames{}, listed(1, false, b, "Report"), b, 8, nil},
		{"not listed", keptNames{}, listed(1, false, b, "other"), content.ID{}, 0, ErrNotFound},
		{"not in what is kept of a list", keptNames{}, listed(1, true, b, "other"), content.ID{}, 0, errNothingKept},
		{"asked after the list", asked(2, &a), listed(1, false, b, "Report"), a, 5, nil},
		{"asked before the list", asked(1, &a), listed(2, false, b, "Report"), b, 8, nil},
		{"asked before the list, and still so", asked(1, &b), listed(2, false, b, "Report"), b, 5, nil},
		{"asked before the list, and gone", asked(1, &a), listed(2, false, b, "other"), content.ID{}, 0, ErrNotFound},
		{"asked before a list that is cut", asked(1, &a), listed(2, true, b, "other"), a, 5, nil},
	} {
		got, _, _, err := resolveKept(c.names, c.pins, "report")
		if got.ID != c.want || got.Index != c.index || !errors.Is(err, c.err) {
			t.Errorf("%s: %v at index %d, %v; want %v at %d, %v", c.name, got.ID.Short(), got.Index, err, c.want.Short(), c.index, c.err)
		}
	}
}

func TestWhatAFollowerKeepsIsBounded(t *testing.T) {
	var k keptNames
	for i := range keptNamesMax + 10 {
		k.keep(fmt.Sprint(i), keptName{At: int64(i + 1)})
	}
	if len(k.Names) != keptNamesMax {
		t.Errorf("%d names are kept, want %d", len(k.Names), keptNamesMax)
	}
	if _, kept := k.Names["0"]; kept {
		t.Error("the oldest name is kept, and newer ones are not")
	}
	if _, kept := k.Names[fmt.Sprint(keptNamesMax+9)]; !kept {
		t.Error("the newest name is not kept")
	}

	long := strings.Repeat("n", pinset.NameBytesMax)
	for what, c := range map[string]struct {
		pin  func(i int) Pin
		want int
	}{
		"many":    {func(i int) Pin { return Pin{Names: []string{"n"}} }, keptPinsMax},
		"large":   {func(i int) Pin { return Pin{Names: []string{long, long, long, long, long}} }, keptPinBytes / (5 * len(long))},
		"hostile": {func(i int) Pin { return Pin{Names: []string{long + "n"}} }, 0},
	} {
		collect := pinCollector{room: keptPinBytes}
		for i := range keptPinsMax + 1 {
			collect.add(c.pin(i))
		}
		if len(collect.list.Pins) != c.want || !collect.list.More {
			t.Errorf("%s: %d pins are kept, cut %v; want %d, true", what, len(collect.list.Pins), collect.list.More, c.want)
		}
	}
	for what, ok := range map[string]bool{
		"a binding with a long name": plausible(Binding{Name: long + "n", ID: content.ID{1}}),
		"a member that is no peer":   plausibleMember(Member{Peer: "\x1b[31m"}),
		"a status with a long name":  plausibleStatus(Status{Name: long + "n"}),
	} {
		if ok {
			t.Errorf("%s is kept", what)
		}
	}
}
