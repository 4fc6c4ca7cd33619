package coord

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// stateOf applies commands of the founder "founder" to a new state.
func stateOf(t *testing.T, commands ...pinset.Command) *pinset.State {
	t.Helper()
	s := pinset.New()
	all := append([]pinset.Command{&pinset.Found{Group: pinset.Digest{1}, Name: "office", Recovery: pinset.Key{1}, Capacity: 1}}, commands...)
	for i, c := range all {
		h := pinset.Header{Client: pinset.Client{1}, Seq: uint64(i + 1), By: "founder", At: 1}
		switch c := c.(type) {
		case *pinset.Found:
			c.Header = h
		case *pinset.SetMember:
			c.Header = h
		case *pinset.SetPin:
			c.Header = h
		default:
			t.Fatalf("no header for %T", c)
		}
		frame, err := pinset.EncodeCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.Apply(uint64(i+1), frame); err != nil || r.Code != pinset.OK {
			t.Fatalf("%T: %v, %v", c, r, err)
		}
	}
	return s
}

// worst is a text that JSON writes as long as it can.
func worst(n int) string { return strings.Repeat("&", n) }

func TestPagesFitIntoALine(t *testing.T) {
	var commands []pinset.Command
	zone := worst(pinset.ZoneBytesMax)
	var addrs []string
	for range pinset.AddrsMax {
		addrs = append(addrs, worst(pinset.AddrBytesMax))
	}
	for i := range pinset.MembersMax - 1 {
		commands = append(commands, &pinset.SetMember{Peer: pinset.Peer(fmt.Sprintf("m%04d", i)), Zone: &zone, Addrs: &addrs})
	}
	for i := range 1000 {
		o := pinOf(fmt.Sprint(i))
		name := fmt.Sprintf("%04d%s", i, worst(pinset.NameBytesMax-4))
		commands = append(commands, &pinset.SetPin{ID: o.ID, Kind: o.Kind, Size: o.Size, Replicas: 1, Name: name, Lookup: name})
	}
	s := stateOf(t, commands...)

	fits := func(what string, a answer) {
		t.Helper()
		line, err := json.Marshal(a)
		if err != nil || len(line) >= lineMax {
			t.Errorf("%s: a line of %d bytes, %v, want less than %d", what, len(line), err, lineMax)
		}
	}
	plan := pinset.NewPlan(s.Clone())
	var members, changes int
	var after pinset.Peer
	for more := true; more; {
		var a answer
		a.members(s, plan, nil, after, pageMax)
		fits("members", a)
		members, more = members+len(a.Members), a.More
		after = a.Members[len(a.Members)-1].Peer
	}
	if members != pinset.MembersMax {
		t.Errorf("the pages have %d members, want %d", members, pinset.MembersMax)
	}
	var index uint64
	for more := true; more; {
		var a answer
		a.changes(s, index, pageMax)
		fits("changes", a)
		changes, more = changes+len(a.Changes), a.More
		index = a.Changes[len(a.Changes)-1].Index
	}
	if want := len(commands) + 1; changes != want {
		t.Errorf("the pages have %d changes, want %d", changes, want)
	}
	var a answer
	a.founders(s)
	fits("the answer to a join", a)
	if len(a.Members) == 0 || a.Members[0].Vote != pinset.Voter {
		t.Errorf("the answer to a join has %d members, and does not begin with a voter", len(a.Members))
	}
}
