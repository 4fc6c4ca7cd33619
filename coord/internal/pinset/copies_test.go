package pinset

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// newStores is a group of ann, a voter, vic, another, and dan0 to dan8, who store.
func newStores(t testing.TB) *group {
	g := newGroup(t)
	g.want(OK, "ann", &SetMember{Peer: "vic", Vote: Voter, Capacity: new(int64(1 << 40))})
	for i := range 9 {
		peer := Peer(fmt.Sprint("dan", i))
		g.want(OK, "ann", &SetMember{Peer: peer, Capacity: new(int64(1 << 40)), Roles: new(RoleStorage)})
	}
	return g
}

func (g *group) copies(n int) (held, unproven string) {
	p, _ := g.Pin(idOf(n))
	return fmt.Sprint(p.Copies), fmt.Sprint(p.Unproven)
}

func TestCopiesAreToldByWhoMay(t *testing.T) {
	one := []content.ID{idOf(1)}
	type told struct {
		by Peer
		c  Copies
		Code
	}
	for what, test := range map[string]struct {
		told           []told
		held, unproven string
	}{
		"own":                  {[]told{{"dan1", Copies{Peer: "dan1", Held: one}, OK}}, "[dan1]", "[]"},
		"another's":            {[]told{{"dan2", Copies{Peer: "dan1", Held: one}, Denied}}, "[]", "[]"},
		"a voter's word":       {[]told{{"ann", Copies{Peer: "dan1", Held: one}, OK}}, "[dan1]", "[]"},
		"twice":                {[]told{{"dan1", Copies{Peer: "dan1", Held: one}, OK}, {"dan1", Copies{Peer: "dan1", Held: one}, OK}}, "[dan1]", "[]"},
		"not pinned":           {[]told{{"dan1", Copies{Peer: "dan1", Held: []content.ID{idOf(2)}}, OK}}, "[]", "[]"},
		"no member":            {[]told{{"eve", Copies{Peer: "eve", Held: one}, NotFound}}, "[]", "[]"},
		"gone":                 {[]told{{"dan1", Copies{Peer: "dan1", Held: one}, OK}, {"dan1", Copies{Peer: "dan1", Gone: one}, OK}}, "[]", "[]"},
		"gone and held":        {[]told{{"dan1", Copies{Peer: "dan1", Held: one, Gone: one}, OK}}, "[dan1]", "[]"},
		"accused by a member":  {[]told{{"dan1", Copies{Peer: "dan1", Held: one}, OK}, {"dan2", Copies{Peer: "dan1", Unproven: one}, Denied}}, "[dan1]", "[]"},
		"accuses itself":       {[]told{{"dan1", Copies{Peer: "dan1", Unproven: one}, Denied}}, "[]", "[]"},
		"unproven":             {[]told{{"dan1", Copies{Peer: "dan1", Held: one}, OK}, {"ann", Copies{Peer: "dan1", Unproven: one}, OK}}, "[]", "[dan1]"},
		"unproven and insists": {[]told{{"ann", Copies{Peer: "dan1", Unproven: one}, OK}, {"dan1", Copies{Peer: "dan1", Gone: one, Held: one}, OK}}, "[]", "[dan1]"},
		"a voter can't acquit itself": {[]told{{"ann", Copies{Peer: "vic", Unproven: one}, OK}, {"vic", Copies{Peer: "vic", Held: one}, OK}},
			"[]", "[vic]"},
		"proved": {[]told{{"ann", Copies{Peer: "dan1", Unproven: one}, OK}, {"vic", Copies{Peer: "dan1", Held: one}, OK}}, "[dan1]", "[]"},
	} {
		g := newStores(t)
		g.want(OK, "ann", pinAs("a", 1))
		for _, x := range test.told {
			g.want(x.Code, x.by, &x.c)
		}
		if held, unproven := g.copies(1); held != test.held || unproven != test.unproven {
			t.Errorf("%s: held by %s, unproven %s, want %s and %s", what, held, unproven, test.held, test.unproven)
		}
	}
}

func TestCopiesStayWithTheirPin(t *testing.T) {
	g := newStores(t)
	g.want(OK, "ann", pinAs("a", 1))
	for i := range 7 {
		peer := Peer(fmt.Sprint("dan", 6-i))
		g.want(OK, peer, &Copies{Peer: peer, Held: []content.ID{idOf(1), idOf(2)}})
	}
	g.want(OK, "ann", &Copies{Peer: "dan3", Unproven: []content.ID{idOf(1)}})
	again := pinAs("b", 1)
	again.Replicas, again.Expires, again.Source = 5, noon+1000, &Source{Peer: "cat"}
	check := func(what, wantHeld, wantUnproven string) {
		t.Helper()
		if held, unproven := g.copies(1); held != wantHeld || unproven != wantUnproven {
			t.Errorf("%s: held by %s, unproven %s, want %s and %s", what, held, unproven, wantHeld, wantUnproven)
		}
		checkInvariants(t, g.State)
		decoded, err := Decode(bytes.NewReader(encoded(t, g.State)))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got, want := summary(decoded), summary(g.State); got != want {
			t.Errorf("%s: decoded as\n%swant\n%s", what, got, want)
		}
	}
	check("reported", "[dan0 dan1 dan2 dan4 dan5 dan6]", "[dan3]")
	g.want(OK, "ann", again)
	check("pinned again", "[dan0 dan1 dan2 dan4 dan5 dan6]", "[dan3]")
	g.want(OK, "ann", &Unpin{Lookup: "a", Expect: ExpectAny})
	check("one name less", "[dan0 dan1 dan2 dan4 dan5 dan6]", "[dan3]")
	g.want(OK, "dan5", &Remove{Peer: "dan5"})
	g.want(OK, "ann", &Remove{Peer: "dan3"})
	check("two members removed", "[dan0 dan1 dan2 dan4 dan6]", "[]")
	g.want(OK, "ann", &SetMember{Peer: "new", Capacity: new(int64(5))})
	check("another has their slot", "[dan0 dan1 dan2 dan4 dan6]", "[]")
	g.want(OK, "new", &Copies{Peer: "new", Held: []content.ID{idOf(1)}})
	check("and reports", "[dan0 dan1 dan2 dan4 dan6 new]", "[]")
	for _, peer := range []Peer{"dan0", "dan2", "dan6"} {
		g.want(OK, peer, &Copies{Peer: peer, Gone: []content.ID{idOf(1)}})
	}
	check("few again", "[dan1 dan4 new]", "[]")
	g.want(OK, "ann", &Unpin{Lookup: "b", Expect: ExpectAny})
	g.want(OK, "ann", pinAs("a", 1))
	check("unpinned, and pinned", "[]", "[]")
}

func TestAwayIsToldByAVoter(t *testing.T) {
	g := newStores(t)
	g.want(Denied, "dan1", &Away{Away: []Peer{"dan2"}})
	g.want(OK, "vic", &Away{Away: []Peer{"dan2", "eve", "dan3"}, Unproven: []Peer{"dan4"}})
	g.want(OK, "vic", &Away{Away: []Peer{"dan2"}, Back: []Peer{"dan3"}})
	var standing []string
	for _, m := range g.Members() {
		if m.Away || m.Unproven {
			standing = append(standing, fmt.Sprintf("%s away=%t unproven=%t", m.Peer, m.Away, m.Unproven))
		}
	}
	if want := []string{"dan2 away=true unproven=false", "dan4 away=false unproven=true"}; !slices.Equal(standing, want) {
		t.Errorf("members are %q, want %q", standing, want)
	}
	var log []string
	for c := range g.Log(0) {
		if c.Op == OpAway {
			log = append(log, c.Subject)
		}
	}
	if want := []string{"away dan2 and 2 more", "back dan3"}; !slices.Equal(log, want) {
		t.Errorf("the log has %q, want %q", log, want)
	}
	g.want(OK, "ann", &Remove{Peer: "dan2"})
	g.want(OK, "ann", &SetMember{Peer: "dan2"})
	if m, _ := g.Member("dan2"); m.Away {
		t.Error("a member that comes again is away at once")
	}
}

func TestGrace(t *testing.T) {
	g := newGroup(t)
	if g.Grace() != 15*time.Minute {
		t.Errorf("the default grace is %s", g.Grace())
	}
	g.want(Denied, "bob", &Settings{Grace: new(int64(5000))})
	g.want(OK, "ann", &Settings{Grace: new(int64(5000))})
	if g.Grace() != 5*time.Second {
		t.Errorf("grace is %s, want 5s", g.Grace())
	}
	g = &group{State: New(), t: t}
	g.want(OK, "ann", &Found{Group: Digest{9}, Name: "office", Recovery: recoveryKey, Grace: 60_000})
	if g.Grace() != time.Minute {
		t.Errorf("grace as founded is %s, want 1m", g.Grace())
	}
}

// TestVersion1IsRead has a state as the build before copies wrote it.
func TestVersion1IsRead(t *testing.T) {
	text, err := os.ReadFile("testdata/version1.txt")
	if err != nil {
		t.Fatal(err)
	}
	old, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Decode(bytes.NewReader(old))
	if err != nil {
		t.Fatal(err)
	}
	now := encoded(t, s)
	differ := 0
	for i := range now {
		if now[i] != old[i] {
			differ++
		}
	}
	// The version differs, and the checksum; the Hash, before that, is the same.
	if len(now) != len(old) || now[len(stateMagic)] != 2 || differ > 1+32 || !bytes.Equal(now[len(now)-64:len(now)-32], old[len(old)-64:len(old)-32]) {
		t.Errorf("version 1 is read as another state: %d bytes of %d differ", differ, len(now))
	}
}
