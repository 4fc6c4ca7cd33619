package coord

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// membersOf makes members of letters: V a voter, v one that is down, W a learner
// that waits for its vote, L another learner. They are called a, b, c…
func membersOf(letters string) (list []Member, up map[Peer]bool) {
	up = map[Peer]bool{}
	for i, l := range letters {
		m := Member{Peer: Peer(string(rune('a' + i))), Vote: Learner, Roles: RoleReader}
		switch l {
		case 'V', 'v':
			m.Vote, m.MayVote = Voter, true
		case 'W':
			m.MayVote = true
		}
		up[m.Peer] = l != 'v'
		list = append(list, m)
	}
	return list, up
}

func TestPlanTellsWhatAChangeCosts(t *testing.T) {
	for _, c := range []struct {
		name     string
		members  string // a leads and is admin
		admins   string
		change   Proposal
		after    Quorum
		canLose  int
		leader   bool
		unsafe   string // what it has
		warnings string // some of them
	}{
		{"a live voter of three", "VVV", "ab", Proposal{Peer: "c"}, Quorum{2, 2}, 0, false, "none of the 2 voters left could fail", "even count"},
		{"a dead voter of three", "VVv", "ab", Proposal{Peer: "c"}, Quorum{2, 2}, 0, false, "", "fewer than 3"},
		{"the last live one beside a dead one", "VVv", "ac", Proposal{Peer: "b"}, Quorum{2, 1}, 0, false, "1 of 2 voters would be up, and it takes 2", "voter c is down now"},
		{"a live voter of five", "VVVVV", "ab", Proposal{Peer: "e"}, Quorum{4, 4}, 1, false, "", "4 voters are an even count"},
		{"one of two", "VV", "ac", Proposal{Peer: "b"}, Quorum{1, 1}, 0, false, "", "fewer than 3"},
		{"the only one", "V", "bc", Proposal{Peer: "a"}, Quorum{0, 0}, 0, true, "no voter would be left", ""},
		{"the leader", "VVVVV", "bcd", Proposal{Peer: "a"}, Quorum{4, 4}, 1, true, "", ""},
		{"a learner", "VVVL", "ab", Proposal{Peer: "d"}, Quorum{3, 3}, 1, false, "", ""},
		{"no member", "VVV", "ab", Proposal{Peer: "x"}, Quorum{3, 3}, 1, false, "", "no member"},
		{"one of two admins", "VVVL", "ad", Proposal{Peer: "d"}, Quorum{3, 3}, 1, false, "one admin would be left", ""},
		{"the role of one of two admins", "VVV", "ab", Proposal{Peer: "b", Role: RoleAdmin}, Quorum{3, 3}, 1, false, "one admin would be left", ""},
		{"the role of the last admin", "VVV", "a", Proposal{Peer: "a", Role: RoleAdmin}, Quorum{3, 3}, 1, false, "without an admin", ""},
		{"another role", "VVV", "ab", Proposal{Peer: "b", Role: RoleWriter}, Quorum{3, 3}, 1, false, "", ""},
		{"a second voter", "V", "a", Proposal{Admit: AsVoter}, Quorum{1, 1}, 0, false, "", "waits as learner until another one"},
		{"a second voter at once", "V", "a", Proposal{Admit: AsVoterAtOnce}, Quorum{2, 2}, 0, false, "", "even count"},
		{"a third voter", "VW", "a", Proposal{Admit: AsVoter}, Quorum{3, 3}, 1, false, "", ""},
		{"a sixth voter", "VVVVV", "ab", Proposal{Admit: AsVoter}, Quorum{5, 5}, 2, false, "", "takes no more"},
		{"a reader", "VVV", "ab", Proposal{Admit: AsReader}, Quorum{3, 3}, 1, false, "", ""},
	} {
		v := view{leader: "a", admins: len(c.admins)}
		v.members, v.up = membersOf(c.members)
		for i, m := range v.members {
			if strings.Contains(c.admins, string(m.Peer)) {
				v.members[i].Roles |= RoleAdmin
			}
		}
		p := judge(v, c.change)
		if p.After != c.after || p.After.CanLose() != c.canLose || p.NewLeader != c.leader {
			t.Errorf("%s: after %+v, %d may fail, new leader %v; want %+v, %d, %v", c.name, p.After, p.After.CanLose(), p.NewLeader, c.after, c.canLose, c.leader)
		}
		if (p.Unsafe == "") != (c.unsafe == "") || !strings.Contains(p.Unsafe, c.unsafe) {
			t.Errorf("%s: unsafe %q, want %q", c.name, p.Unsafe, c.unsafe)
		}
		if all := strings.Join(p.Warnings, "\n"); !strings.Contains(all, c.warnings) {
			t.Errorf("%s: warnings %q, want %q", c.name, all, c.warnings)
		}
	}
}

func TestVotesAreGivenWhileTheyStayOddOrAtOnce(t *testing.T) {
	for _, c := range []struct {
		members string
		atOnce  []pinset.Peer
		want    string
	}{
		{"VW", nil, ""}, {"VWW", nil, "bc"}, {"VWWW", nil, "bc"}, {"VVW", nil, "c"}, {"VVVW", nil, ""},
		{"VVVWW", nil, "de"}, {"VVVVVW", nil, ""}, {"VL", nil, ""},
		{"VW", []pinset.Peer{"b"}, "b"}, {"VWW", []pinset.Peer{"c"}, "cb"}, {"VVVW", []pinset.Peer{"d"}, "d"},
		{"VVVWW", []pinset.Peer{"e"}, "ed"}, {"VVVVVW", []pinset.Peer{"f"}, ""}, {"VVWW", []pinset.Peer{"c"}, "c"},
		{"VVWW", []pinset.Peer{"c", "d"}, "cd"},
	} {
		list, _ := membersOf(c.members)
		var members []pinset.Member
		steady, atOnce := map[pinset.Peer]time.Time{}, map[pinset.Peer]bool{}
		now := time.Now()
		for _, m := range list {
			members = append(members, pinset.Member{Peer: m.Peer, Vote: m.Vote, MayVote: m.MayVote})
			steady[m.Peer] = now.Add(-steadyFor)
			atOnce[m.Peer] = slices.Contains(c.atOnce, m.Peer)
		}
		got := ""
		for _, p := range promotions(members, atOnce, steady, now) {
			got += string(p)
		}
		if got != c.want {
			t.Errorf("promotions(%s, at once %v) = %q, want %q", c.members, c.atOnce, got, c.want)
		}
	}
}

func TestLearnerIsToldWhyItWaits(t *testing.T) {
	for _, c := range []struct{ members, want string }{
		{"VV", ""}, {"VL", ""}, {"VW", "2 voters would be an even count"}, {"VVW", "until it has caught up"},
		{"VWW", "until it has caught up"}, {"VVVVVW", "takes no more"},
	} {
		members, _ := membersOf(c.members)
		got := Waiting(members, members[len(members)-1])
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("Waiting(%s) = %q, want %q", c.members, got, c.want)
		}
	}
}
