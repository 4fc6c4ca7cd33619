package pinset

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

const noon int64 = 1_800_000_000_000 // Unix milliseconds

// header is of a client's n-th command.
func header(n int, by Peer) Header {
	return Header{Client: Client{7}, Seq: uint64(n), By: by, At: noon + int64(n)}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func mustApply(t testing.TB, s *State, index uint64, c Command) Result {
	t.Helper()
	r, err := s.Apply(index, must(EncodeCommand(c)))
	if err != nil {
		t.Fatalf("Apply(%d, %s): %v", index, c.Op(), err)
	}
	return r
}

func encoded(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// idOf is a content ID for tests.
func idOf(n int) content.ID { return content.ID{byte(n), byte(n >> 8), 1} }

// group is a state with a short way to apply commands, numbered one by one.
type group struct {
	*State
	t    testing.TB
	next int
}

// newGroup is founded by ann, an admin and the only voter.
func newGroup(t testing.TB) *group {
	g := &group{State: New(), t: t}
	g.want(OK, "ann", &Found{Group: Digest{9}, Name: "office", Recovery: recoveryKey, Capacity: 1 << 40})
	return g
}

var (
	recoverySeed = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	recoveryKey  = Key(recoverySeed.Public().(ed25519.PublicKey))
)

// do applies c as the next command, from by.
func (g *group) do(by Peer, c Command) Result {
	g.t.Helper()
	g.next++
	*c.header() = header(g.next, by)
	return mustApply(g.t, g.State, uint64(g.next), c)
}

// want fails unless the code is that, or a refused command has changed anything
// that can be seen.
func (g *group) want(code Code, by Peer, c Command) Result {
	g.t.Helper()
	before := summary(g.State)
	r := g.do(by, c)
	if r.Code != code {
		g.t.Errorf("%d: %s by %s is %s (%s), want %s", g.next, c.Op(), by, r.Code, r.Text, code)
	}
	if (r.Text == "") != (r.Code == OK) {
		g.t.Errorf("%d: %s by %s is %s, with the text %q", g.next, c.Op(), by, r.Code, r.Text)
	}
	if after := summary(g.State); r.Code != OK && before != after {
		g.t.Errorf("%d: %s by %s is %s and changes\n%s", g.next, c.Op(), by, r.Code, cmp.Diff(before, after))
	}
	return r
}

// index is the log index of the last command, as an expectation.
func (g *group) index() Expect { return Expect(g.next) }

// summary writes out a state, but for the results that are kept.
func summary(s *State) string {
	var b strings.Builder
	g, _ := s.Group()
	fmt.Fprintf(&b, "group %q founder %s epoch %d by %s at index %d\n", g.Name, g.Founder, g.Epoch, g.EpochBy, g.EpochIndex)
	if g.Grace != 0 {
		fmt.Fprintf(&b, "grace %s\n", s.Grace())
	}
	for _, m := range s.Members() {
		fmt.Fprintf(&b, "member %s %s may_vote=%t no_store=%t capacity %d zone %q addrs %q by %s index %d\n",
			m.Peer, m.Vote, m.MayVote, m.NoStore, m.Capacity, m.Zone, m.Addrs, m.By, m.Index)
		if m.Away || m.Unproven {
			fmt.Fprintf(&b, "  away=%t unproven=%t\n", m.Away, m.Unproven)
		}
		if t, removed := s.Tombstone(m.Peer); removed {
			fmt.Fprintf(&b, "removed at %d all the same\n", t.Index)
		}
	}
	for p := range s.Granted() {
		fmt.Fprintf(&b, "roles %s %s\n", p, s.Roles(p))
	}
	for t := range s.tombstones.all() {
		fmt.Fprintf(&b, "removed %s by %s index %d\n", t.Peer, t.By, t.Index)
	}
	for _, t := range s.Tokens() {
		fmt.Fprintf(&b, "token %.8s %s by %s index %d used by %q index %d\n", t.Token, t.Role, t.Issuer, t.Index, t.UsedBy, t.UsedIndex)
	}
	for p := range s.Pins(content.ID{}) {
		fmt.Fprintf(&b, "pin %s %s %d x%d expires %d names %d bare=%t by %s index %d", p.ID.Short(), p.Kind, p.Size, p.Replicas, p.Expires, p.Names, p.Bare, p.By, p.Index)
		if p.Source != nil {
			fmt.Fprintf(&b, " from %s %q", p.Source.Peer, p.Source.Addrs)
		}
		if len(p.Copies)+len(p.Unproven) > 0 {
			fmt.Fprintf(&b, " held by %s unproven %s", p.Copies, p.Unproven)
		}
		b.WriteString("\n")
		for lookup := range s.NamesOf(p.ID) {
			fmt.Fprintf(&b, "  named %q\n", lookup)
		}
	}
	for lookup := range s.Names("") {
		fmt.Fprintf(&b, "name %q\n", lookup)
	}
	for p := range s.pasts.all() {
		fmt.Fprintf(&b, "history %q %s\n", p.lookup, history(s, p.lookup))
	}
	for c := range s.Log(0) {
		fmt.Fprintf(&b, "log %d %s %s %q\n", c.Index, c.By, c.Op, c.Subject)
	}
	return b.String()
}

func TestNothingIsDoneBeforeTheGroupIsFounded(t *testing.T) {
	g := &group{State: New(), t: t}
	for _, c := range []Command{pinAs("a", 1), &Grant{Peer: "ann", Role: RoleAdmin}, &Expire{}, &Mark{}, &Join{Token: Key{1}}} {
		g.want(Invalid, "ann", c)
	}
	if _, err := Decode(bytes.NewReader(encoded(t, g.State))); err != nil {
		t.Error(err)
	}
	g.want(OK, "ann", &Found{Group: Digest{9}, Name: "office", Recovery: recoveryKey})
	g.want(Exists, "eve", &Found{Group: Digest{8}, Name: "eve's", Recovery: recoveryKey})
	if got, want := g.Roles("ann"), RoleAdmin|RoleWriter|RoleReader|RoleStorage; got != want {
		t.Errorf("the founder's roles are %s, want %s", got, want)
	}
}

func TestRepeatedCommandIsAnsweredAsBefore(t *testing.T) {
	g := newGroup(t)
	g.want(OK, "ann", pinAs("a", 1))
	conflict := pinAs("a", 2)
	conflict.Expect = ExpectNone
	first := g.do("ann", conflict)
	g.want(OK, "ann", &Unpin{Lookup: "a", Expect: ExpectAny})
	hash := g.Hash()
	g.next++
	if again := mustApply(t, g.State, uint64(g.next), conflict); !cmp.Equal(again, first) {
		t.Errorf("repeated is %+v, want %+v", again, first)
	}
	if g.Hash() != hash {
		t.Error("a repeated command changes the state")
	}
	for i := range SessionsMax {
		g.do("ann", &Unpin{Lookup: fmt.Sprint(i), Expect: ExpectAny})
	}
	if g.sessions.length != SessionsMax || g.byClient.length != SessionsMax {
		t.Errorf("%d results are kept, want %d", g.sessions.length, SessionsMax)
	}
	g.next++
	if again := mustApply(t, g.State, uint64(g.next), conflict); again.Code != OK {
		t.Errorf("after its result is gone, it is %s", again.Code)
	}
}

func TestMarkFindsAStateThatDiffers(t *testing.T) {
	g, other := newGroup(t), newGroup(t)
	both := func(c, d Command) (Result, Result) { return g.do("ann", c), other.do("ann", d) }
	mark := func() (Result, Result) {
		index, hash := g.Mark()
		return both(&Mark{Index: index, Hash: hash}, &Mark{Index: index, Hash: hash})
	}
	mark()
	both(pinAs("a", 1), pinAs("a", 1))
	mark()
	if a, b := mark(); a.Differs || b.Differs {
		t.Error("equal states differ")
	}
	both(pinAs("b", 1), pinAs("b", 2))
	if a, b := mark(); a.Differs || b.Differs {
		t.Error("compared before there is something to compare")
	}
	if a, b := mark(); a.Differs || !b.Differs || b.Code != OK {
		t.Errorf("the leader differs from itself %t, the other does %t", a.Differs, b.Differs)
	}
	if r := other.do("ann", &Mark{Index: 1, Hash: Digest{3}}); r.Differs || r.Code != OK {
		t.Error("compared with a mark that was overtaken")
	}
}

func TestCursors(t *testing.T) {
	g := newGroup(t)
	for i := range 300 {
		g.do("ann", pinAs(fmt.Sprintf("n%03d", i), i+1))
	}
	var names []string
	for lookup := range g.Names("n149") {
		if names = append(names, lookup); len(names) == 2 {
			break
		}
	}
	if !slices.Equal(names, []string{"n150", "n151"}) {
		t.Errorf("names after n149 are %v", names)
	}
	var after content.ID
	seen := 0
	for {
		page := 0
		for p := range g.Pins(after) {
			if after = p.ID; page == 7 {
				break
			}
			page++
		}
		if page == 0 {
			break
		}
		seen += page
		if page == 7 {
			seen++
		}
	}
	if seen != 300 {
		t.Errorf("pages have %d pins, want 300", seen)
	}
	for c := range g.Log(100) {
		if c.Index != 101 {
			t.Errorf("log after 100 begins at %d", c.Index)
		}
		break
	}
}

func TestApplyRefusesAnIndexThatGoesBack(t *testing.T) {
	s := New()
	mustApply(t, s, 5, &Expire{header(1, "ann")})
	for _, index := range []uint64{0, 4, 5, IntMax + 1} {
		if _, err := s.Apply(index, must(EncodeCommand(&Expire{header(2, "ann")}))); !errors.Is(err, ErrIndex) {
			t.Errorf("Apply(%d) after 5 is %v, want %v", index, err, ErrIndex)
		}
	}
}

// TestTranscript keeps what commands do, to the byte: members of different builds
// must agree.
func TestTranscript(t *testing.T) {
	var b strings.Builder
	g := &group{State: New(), t: t}
	do := func(by Peer, c Command) {
		r := g.do(by, c)
		frame := must(EncodeCommand(c))
		fmt.Fprintf(&b, "%x %s\n  %s", frame[:frameHeaderBytes], frame[frameHeaderBytes:], r.Code)
		if r.Text != "" {
			fmt.Fprintf(&b, ": %s", r.Text)
		}
		if r.Current > 0 {
			fmt.Fprintf(&b, "; current %d", r.Current)
		}
		if r.Dropped > 0 {
			fmt.Fprintf(&b, "; dropped %d", r.Dropped)
		}
		fmt.Fprintf(&b, "\n  hash %.16s\n", g.Hash())
	}
	id := idOf(3)
	source := &Source{Peer: "ann", Addrs: []string{"/ip4/10.0.0.1/tcp/4001"}}
	do("ann", pinAs("too early", 1))
	do("ann", &Found{Group: Digest{9}, Name: "Büro <1>", Recovery: recoveryKey, Capacity: 1 << 40, Zone: "attic"})
	do("ann", &SetPin{Name: "Straße.txt", Lookup: "strasse.txt", ID: idOf(1), Kind: KindFile, Size: 5, Replicas: 2, Source: source})
	do("ann", &SetPin{Name: "Straße.txt", Lookup: "strasse.txt", ID: idOf(2), Kind: KindDir, Size: 6, Replicas: 2})
	do("ann", &SetPin{Name: "straße.TXT", Lookup: "strasse.txt", ID: idOf(2), Kind: KindDir, Size: 6, Replicas: 2, Expect: 3})
	do("ann", &SetPin{ID: id, Kind: KindFile, Size: 7, Replicas: 1, Expires: noon + 12})
	do("ann", &Invite{Token: Key{1}, Role: AsVoter, Expires: noon + 100})
	do("bob", &Join{Token: Key{1}, Capacity: 1 << 30, Addrs: []string{"/ip4/10.0.0.2/tcp/1"}})
	do("eve", &Join{Token: Key{1}})
	do("ann", &SetMember{Peer: "bob", Vote: Voter})
	do("ann", &Grant{Peer: "cat", Role: RoleWriter})
	do("cat", pinAs("cats.zip", 4))
	do("bob", &Expire{})
	do("bob", &Mark{})
	do("cat", &Unpin{Lookup: "cats.zip", Expect: 12})
	do("cat", &Unpin{ID: &id, Expect: ExpectAny})
	do("ann", &Revoke{Peer: "cat", Role: RoleWriter})
	do("cat", pinAs("cats.zip", 4))
	do("ann", &Remove{Peer: "ann"})
	do("ann", &Epoch{Epoch: 2, Members: []EpochMember{{"ann", Voter}}})
	do("ann", &Invite{Token: Key{2}, Role: AsReader, Expires: noon + 100})
	do("ann", &Uninvite{Token: Key{2}})
	do("ann", &SetPin{Name: "all", Lookup: "all", ID: idOf(5), Kind: KindFile, Size: 9, Replicas: ReplicasAll})
	for i := range 6 {
		token, peer := Key{3, byte(i)}, Peer(fmt.Sprint("dan", 5-i))
		do("ann", &Invite{Token: token, Role: AsStorage, Expires: noon + 100})
		do(peer, &Join{Token: token, Capacity: 1 << 30})
		do(peer, &Copies{Peer: peer, Held: []content.ID{idOf(5), idOf(6), idOf(2)}})
	}
	do("ann", &Copies{Peer: "dan3", Unproven: []content.ID{idOf(2)}})
	do("dan3", &Copies{Peer: "dan3", Held: []content.ID{idOf(2)}})
	do("dan3", &Copies{Peer: "dan4", Held: []content.ID{idOf(2)}})
	do("dan2", &Copies{Peer: "dan2", Gone: []content.ID{idOf(2)}})
	do("ann", &Copies{Peer: "eve", Held: []content.ID{idOf(2)}})
	do("ann", &Away{Away: []Peer{"dan3", "eve"}, Unproven: []Peer{"dan4"}})
	do("ann", &Away{Back: []Peer{"dan5"}})
	do("dan4", &Away{Proven: []Peer{"dan4"}})
	do("ann", &Settings{Grace: new(int64(60_000))})
	do("dan4", &Settings{Grace: new(int64(5_000))})
	do("ann", &Remove{Peer: "dan1"})
	fmt.Fprintf(&b, "\n%s\n", summary(g.State))
	for line := range slices.Chunk(encoded(t, g.State), 64) {
		fmt.Fprintf(&b, "%x\n", line)
	}
	golden(t, "testdata/transcript.txt", b.String())
}

// golden compares with a file, which -update rewrites.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s has changed (-want +got); -update rewrites it, for a new version of the formats only:\n%s", file, diff)
	}
}
