package control

import (
	"context"
	"net/http"
	"time"

	"github.com/p2pshare/p2pshare/coord"
)

// GroupStatus is one line of GET /groups.
type GroupStatus struct {
	Group    string        `json:"group"`
	ID       string        `json:"id"`
	Follows  bool          `json:"follows,omitempty"` // this peer is no member
	Epoch    uint64        `json:"epoch"`
	Term     uint64        `json:"term"`
	Leader   coord.Peer    `json:"leader"`
	Voters   int           `json:"voters"`
	VotersUp int           `json:"voters_up"`
	CanLose  int           `json:"can_lose"` // voters, before the group can't decide
	Index    uint64        `json:"index"`    // commit index
	Names    int           `json:"names"`
	Pins     int           `json:"pins"`
	Stale    bool          `json:"stale"`
	Age      float64       `json:"age_s"`
	Members  []GroupMember `json:"members"`
	Open     bool          `json:"open,omitempty"` // anyone may read it
	Warnings []string      `json:"warnings,omitempty"`
	Problem  string        `json:"problem,omitempty"`
	Hint     string        `json:"hint,omitempty"` // what to do about it
	// Unreachable says that no member answers: the rest is the last that was known.
	Unreachable bool `json:"unreachable,omitempty"`
}

// GroupMember is one member of a GroupStatus.
type GroupMember struct {
	Peer coord.Peer `json:"peer"`
	Vote coord.Vote `json:"vote"`
	// Waiting is why a learner that is to vote has no vote yet.
	Waiting string      `json:"waiting,omitempty"`
	Roles   coord.Roles `json:"roles"`
	Up      bool        `json:"up"`
	Lag     uint64      `json:"lag"` // log entries
	Self    bool        `json:"self,omitempty"`
}

// groupWait bounds asking one member how it is.
const groupWait = 2 * time.Second

func (s *Server) listGroups(w http.ResponseWriter, r *http.Request) {
	c := s.groups(w)
	if c == nil {
		return
	}
	all := c.Known()
	if name := r.URL.Query().Get("group"); name != "" {
		g, err := pickKnown(c, name)
		if err != nil {
			writeError(w, ErrorOf(err))
			return
		}
		all = []coord.Known{g}
	}
	out := newStream(w, r, contentTypeLines)
	for _, g := range all {
		if out.sendLine(s.groupStatus(r.Context(), c, g)) != nil {
			return
		}
	}
}

// groupStatus is a group as this peer and the members that answer see it.
func (s *Server) groupStatus(ctx context.Context, c *coord.Coord, g coord.Known) *GroupStatus {
	line := &GroupStatus{Group: g.Name, ID: g.ID.String(), Follows: g.Follows, Members: []GroupMember{}}
	if member, err := c.Find(line.ID); err == nil && !g.Follows && member.Err() != nil {
		e := ErrorOf(member.Err())
		line.Problem, line.Hint = e.Message, e.Hint
		return line
	}
	cl := c.Client(g.ID)
	bounded, cancel := context.WithTimeout(ctx, 2*groupWait)
	defer cancel()
	st, f, err := cl.Status(bounded)
	if err != nil {
		line.Problem = ErrorOf(err).Message
		return line
	}
	line.Epoch, line.Term, line.Leader, line.Index, line.Names, line.Pins = st.Epoch, st.Term, st.Leader, st.Commit, st.Names, st.Pins
	line.Stale, line.Age, line.Open = f.Stale, f.Age.Seconds(), st.Open
	members, _, err := cl.Members(bounded, coord.ReadOptions{Stale: true})
	if err != nil {
		line.Problem = ErrorOf(err).Message
		return line
	}
	polled, cancel := context.WithTimeout(ctx, groupWait)
	defer cancel()
	line.fill(members, cl.Poll(polled, members), coord.Peer(s.cfg.Node.ID().String()))
	if g.Follows && line.up() == 0 {
		line.Leader, line.Unreachable = "", true
	}
	if st.Admins == 1 && len(members) > 1 {
		line.Warnings = append(line.Warnings, "there is one admin, one disk away from needing the recovery key; a second: p2pshare group grant PEER admin")
	}
	return line
}

// fill tells of each member, and of those that answered how they are.
func (line *GroupStatus) fill(members []coord.Member, answered map[coord.Peer]coord.Status, self coord.Peer) {
	for _, m := range members {
		own, up := answered[m.Peer]
		x := GroupMember{Peer: m.Peer, Vote: m.Vote, Waiting: coord.Waiting(members, m), Roles: m.Roles, Up: up, Self: m.Peer == self}
		if up && own.Applied < line.Index {
			x.Lag = line.Index - own.Applied
		}
		line.Members = append(line.Members, x)
		if m.Vote == coord.Voter {
			line.Voters++
			if up {
				line.VotersUp++
			}
		}
	}
	line.CanLose = coord.Quorum{Voters: line.Voters, Up: line.VotersUp}.CanLose()
}

func (line *GroupStatus) up() (count int) {
	for _, m := range line.Members {
		if m.Up {
			count++
		}
	}
	return count
}
