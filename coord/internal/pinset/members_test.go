package pinset

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// newGroupOfRoles has peers with each role alone; lea is a learner with none.
func newGroupOfRoles(t *testing.T) *group {
	g := newGroup(t)
	g.want(OK, "ann", &Grant{Peer: "adm", Role: RoleAdmin})
	g.want(OK, "ann", &Grant{Peer: "wri", Role: RoleWriter})
	g.want(OK, "ann", &Grant{Peer: "rea", Role: RoleReader})
	g.want(OK, "ann", &SetMember{Peer: "sto", Roles: new(RoleStorage), Capacity: new(int64(1))})
	g.want(OK, "ann", &SetMember{Peer: "lea"})
	g.want(OK, "ann", &SetMember{Peer: "vot", Vote: Voter})
	return g
}

func TestOnlyWhoMayDoesIt(t *testing.T) {
	id := idOf(1)
	for _, test := range []struct {
		name    string
		command func() Command
		may     string
	}{
		{"pin", func() Command { return pinAs("a", 2) }, "ann wri vot"},
		{"unpin", func() Command { return &Unpin{Lookup: "x", Expect: ExpectAny} }, "ann wri vot"},
		{"unpin ID", func() Command { return &Unpin{ID: &id, Expect: ExpectAny} }, "ann wri vot"},
		{"add", func() Command { return &SetMember{Peer: "new"} }, "ann adm"},
		{"zone of another", func() Command { return &SetMember{Peer: "lea", Zone: new("z")} }, "ann adm lea"},
		{"roles", func() Command { return &SetMember{Peer: "lea", Roles: new(RoleAdmin)} }, "ann adm"},
		{"may vote", func() Command { return &SetMember{Peer: "lea", MayVote: new(true)} }, "ann adm"},
		{"promote", func() Command { return &SetMember{Peer: "lea", Vote: Voter} }, "ann adm"},
		{"demote", func() Command { return &SetMember{Peer: "vot", Vote: Learner} }, "ann adm vot"},
		{"remove", func() Command { return &Remove{Peer: "sto"} }, "ann adm sto"},
		{"grant", func() Command { return &Grant{Peer: "eve", Role: RoleReader} }, "ann adm"},
		{"revoke", func() Command { return &Revoke{Peer: "wri", Role: RoleWriter} }, "ann adm"},
		{"invite", func() Command { return &Invite{Token: Key{5}, Role: AsVoter, Expires: IntMax} }, "ann adm"},
		{"uninvite", func() Command { return &Uninvite{Token: Key{1}} }, "ann adm"},
		{"expire", func() Command { return &Expire{} }, "ann vot"},
		{"mark", func() Command { return &Mark{} }, "ann vot"},
		{"epoch", func() Command {
			return &Epoch{Epoch: 2, Members: []EpochMember{{"ann", Voter}}}
		}, "ann adm"},
	} {
		for _, by := range []Peer{"ann", "adm", "wri", "rea", "sto", "lea", "vot", "eve"} {
			g := newGroupOfRoles(t)
			g.want(OK, "ann", pinAs("x", 1))
			g.want(OK, "ann", &Invite{Token: Key{1}, Role: AsVoter, Expires: IntMax})
			want := Denied
			if slices.Contains(strings.Fields(test.may), string(by)) {
				want = OK
			}
			if r := g.want(want, by, test.command()); r.Code != want {
				t.Errorf("%s by %s", test.name, by)
			}
		}
	}
}

func TestInvitedVoterIsPromotedByAVoter(t *testing.T) {
	g := newGroupOfRoles(t)
	g.want(OK, "adm", &Invite{Token: Key{2}, Role: AsVoter, Expires: noon + 1000})
	g.want(OK, "bob", &Join{Token: Key{2}, Capacity: 5, Zone: "attic"})
	if m, _ := g.Member("bob"); m.Vote != Learner || !m.MayVote || m.By != "adm" || m.Zone != "attic" {
		t.Errorf("bob is %+v", m)
	}
	if got, want := g.Roles("bob"), RoleWriter|RoleReader|RoleStorage; got != want {
		t.Errorf("bob's roles are %s, want %s", got, want)
	}
	g.want(Denied, "bob", &SetMember{Peer: "bob", Vote: Voter})
	g.want(Denied, "vot", &SetMember{Peer: "bob", Vote: Voter, Zone: new("z")})
	g.want(OK, "vot", &SetMember{Peer: "bob", Vote: Voter})
	g.want(OK, "bob", &SetMember{Peer: "bob", NoStore: new(true), Addrs: new([]string{"/ip4/10.0.0.1/tcp/1"})})
	if got, want := g.Roles("bob"), RoleWriter|RoleReader; got != want {
		t.Errorf("with no_store bob's roles are %s, want %s", got, want)
	}
	g.want(OK, "vot", &SetMember{Peer: "bob", Vote: Learner})
	holders := []Peer{}
	for _, m := range g.Holders() {
		holders = append(holders, m.Peer)
	}
	if want := []Peer{"ann", "sto", "vot"}; !slices.Equal(holders, want) {
		t.Errorf("holders are %v, want %v", holders, want)
	}
}

func TestTokenWorksOnce(t *testing.T) {
	g := newGroupOfRoles(t)
	for role, want := range map[Admission]Roles{
		AsVoter: RoleWriter | RoleReader | RoleStorage, AsStorage: RoleReader | RoleStorage,
		AsWriter: RoleReader | RoleWriter, AsReader: RoleReader,
	} {
		key, joiner := Key{10, byte(role)}, Peer("new-"+role.String())
		g.want(OK, "adm", &Invite{Token: key, Role: role, Expires: noon + 10_000})
		g.want(Exists, "adm", &Invite{Token: key, Role: role, Expires: noon + 10_000})
		g.want(Exists, "lea", &Join{Token: key})
		g.want(OK, joiner, &Join{Token: key})
		if got := g.Roles(joiner); got != want {
			t.Errorf("who joined as %s has %s, want %s", role, got, want)
		}
		g.want(TokenUsed, joiner, &Join{Token: key})
		g.want(TokenUsed, "eve", &Join{Token: key})
		if token, _ := g.Token(key); token.UsedBy != joiner || token.UsedIndex == 0 {
			t.Errorf("token is %+v, want it used by %s", token, joiner)
		}
		g.want(OK, "adm", &Uninvite{Token: key})
		g.want(TokenUnknown, "eve", &Join{Token: key})
	}
	g.want(TokenUnknown, "adm", &Uninvite{Token: Key{77}})
	g.want(TokenExpired, "adm", &Invite{Token: Key{3}, Role: AsReader, Expires: noon})
	g.want(OK, "adm", &Invite{Token: Key{3}, Role: AsReader, Expires: noon + int64(g.next) + 2})
	g.want(TokenExpired, "eve", &Join{Token: Key{3}})
	g.want(OK, "adm", &Invite{Token: Key{4}, Role: AsReader, Expires: noon + 10_000})
	g.want(OK, "ann", &Revoke{Peer: "adm", Role: RoleAdmin})
	g.want(Denied, "eve", &Join{Token: Key{4}})
}

func TestThereIsAlwaysAnAdmin(t *testing.T) {
	g := newGroup(t)
	g.want(Denied, "ann", &Revoke{Peer: "ann", Role: RoleAdmin})
	g.want(Denied, "ann", &Remove{Peer: "ann"})
	g.want(Denied, "ann", &SetMember{Peer: "ann", Roles: new(RoleWriter)})
	g.want(Denied, "ann", &Epoch{Epoch: 2, Members: []EpochMember{{"bob", Voter}}})
	g.want(OK, "ann", &Grant{Peer: "bob", Role: RoleAdmin})
	g.want(OK, "ann", &Revoke{Peer: "ann", Role: RoleAdmin})
	g.want(Denied, "ann", &Grant{Peer: "ann", Role: RoleAdmin})
	g.want(Denied, "bob", &Revoke{Peer: "bob", Role: RoleAdmin})
	g.want(Exists, "bob", &Grant{Peer: "ann", Role: RoleWriter})
	g.want(NotFound, "bob", &Revoke{Peer: "ann", Role: RoleAdmin})
	g.want(NotFound, "bob", &Remove{Peer: "bob"})
}

func TestRemovedMemberLeavesATombstone(t *testing.T) {
	g := newGroupOfRoles(t)
	g.want(OK, "adm", &Remove{Peer: "sto"})
	stone, removed := g.Tombstone("sto")
	if want := (Tombstone{Peer: "sto", By: "adm", At: noon + int64(g.next), Index: uint64(g.next)}); !removed || stone != want {
		t.Errorf("tombstone is %+v, want %+v", stone, want)
	}
	if r := g.Roles("sto"); r != 0 {
		t.Errorf("the removed member has %s", r)
	}
	g.want(OK, "ann", &Invite{Token: Key{1}, Role: AsStorage, Expires: IntMax})
	g.want(OK, "sto", &Join{Token: Key{1}})
	if _, removed := g.Tombstone("sto"); removed {
		t.Error("a member that came back has a tombstone")
	}
	for i := range TombstonesMax + 5 {
		g.do("ann", &SetMember{Peer: Peer(fmt.Sprintf("p%d", i))})
		g.do("ann", &Remove{Peer: Peer(fmt.Sprintf("p%d", i))})
	}
	if _, oldest := g.Tombstone("p4"); oldest || g.tombstones.length != TombstonesMax {
		t.Errorf("%d tombstones are kept, want the last %d", g.tombstones.length, TombstonesMax)
	}
	for i := range MembersMax - g.Counts().Members {
		g.do("ann", &SetMember{Peer: Peer(fmt.Sprintf("m%d", i))})
	}
	g.want(Invalid, "ann", &SetMember{Peer: "one-too-many"})
}

func TestEpochGoesOnWithItsMembers(t *testing.T) {
	g := newGroupOfRoles(t)
	g.want(OK, "ann", pinAs("a", 1))
	g.want(Conflict, "ann", &Epoch{Epoch: 3, Members: []EpochMember{{"ann", Voter}}})
	hash := g.Hash()
	g.want(OK, "ann", &Epoch{Epoch: 2, State: hash, Members: []EpochMember{{"ann", Voter}, {"sto", Learner}}})
	if group, _ := g.Group(); group.Epoch != 2 || group.EpochBy != "ann" || group.EpochState != hash {
		t.Errorf("group is %+v", group)
	}
	if _, removed := g.Tombstone("vot"); !removed || g.Counts().Members != 2 {
		t.Errorf("members are %+v", g.Members())
	}
	if g.Roles("adm") != RoleAdmin|RoleReader {
		t.Errorf("an admin that was no member has %s", g.Roles("adm"))
	}

	recovery := &Epoch{Epoch: 3, Members: []EpochMember{{"sam", Voter}}, Admin: "sam"}
	group, _ := g.Group()
	recovery.Signature = new(Signature(ed25519.Sign(recoverySeed, recovery.Statement(group.ID))))
	forged := *recovery
	forged.Admin, forged.Members = "eve", []EpochMember{{"eve", Voter}}
	g.want(Denied, "eve", &forged)
	g.want(OK, "sam", recovery)
	if g.Roles("sam") != RoleAdmin|RoleWriter|RoleReader|RoleStorage || g.Roles("ann") != 0 {
		t.Errorf("sam has %s, ann %s", g.Roles("sam"), g.Roles("ann"))
	}
	g.want(OK, "sam", pinAs("b", 2))
}

func TestStatement(t *testing.T) {
	e := &Epoch{Epoch: 2, State: Digest{1}, Members: []EpochMember{{"ann", Voter}, {"bob", Learner}}, Admin: "ann"}
	want := "p2pshare/envelope/1\x00epoch\x00" + `{"v":1,"group":"09` + strings.Repeat("00", 31) + `","epoch":2,"state":"01` + strings.Repeat("00", 31) +
		`","members":[{"peer":"ann","vote":"voter"},{"peer":"bob","vote":"learner"}],"admin":"ann"}`
	if got := string(e.Statement(Digest{9})); got != want {
		t.Errorf("statement is\n%q, want\n%q", got, want)
	}
}

func TestEveryoneIsAReaderAndNothingElse(t *testing.T) {
	g := newGroup(t)
	if g.MayRead("stranger") {
		t.Error("reading is open in a new group")
	}
	for _, c := range []Command{&Grant{Peer: Everyone, Role: RoleAdmin}, &Grant{Peer: Everyone, Role: RoleWriter},
		&Grant{Peer: Everyone, Role: RoleStorage}, &SetMember{Peer: Everyone, Vote: Voter}} {
		*c.header() = header(1, "ann")
		if reason := checkCommand(c); reason == "" {
			t.Errorf("%+v is a command", c)
		}
	}
	g.want(OK, "ann", &SetMember{Peer: "ben"})
	g.want(OK, "ann", &Remove{Peer: "ben"})
	g.want(OK, "ann", &Grant{Peer: Everyone, Role: RoleReader})
	if !g.MayRead("stranger") || g.Roles("stranger") != 0 || g.MayRead("ben") {
		t.Errorf("open reading: stranger reads %v with roles %q, removed ben %v; want true, none, false",
			g.MayRead("stranger"), g.Roles("stranger"), g.MayRead("ben"))
	}
	g.want(Denied, "stranger", &Revoke{Peer: Everyone, Role: RoleReader})
	g.want(OK, "ann", &Revoke{Peer: Everyone, Role: RoleReader})
	if g.MayRead("stranger") {
		t.Error("reading is open after it was limited")
	}
}

func TestVoteAtOnceIsOfTheInvitationThatWasUsed(t *testing.T) {
	g := newGroup(t)
	votes := func() bool { m, _ := g.Member("ben"); return g.VotesAtOnce(m) }
	g.want(OK, "ann", &Invite{Token: Key{1}, Role: AsVoterAtOnce, Expires: IntMax})
	g.want(OK, "ann", &Invite{Token: Key{2}, Role: AsVoter, Expires: IntMax})
	g.want(OK, "ben", &Join{Token: Key{1}})
	if m, _ := g.Member("ben"); !m.MayVote || m.Vote != Learner || !votes() {
		t.Errorf("joined as %+v, at once %v; want a learner that votes at once", m, votes())
	}
	g.want(OK, "ann", &Remove{Peer: "ben"})
	g.want(OK, "ben", &Join{Token: Key{2}})
	if votes() {
		t.Error("the invitation of before gives the vote at once")
	}
}
