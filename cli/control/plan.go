package control

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
)

// PlanRequest is the body of POST /groups/plan: a change that is not made.
type PlanRequest struct {
	Group string  `json:"group,omitempty"`
	Op    string  `json:"op"`             // remove, leave, invite or revoke
	Peer  peer.ID `json:"peer,omitempty"` // remove, revoke
	Role  string  `json:"role,omitempty"` // invite, revoke
	Force bool    `json:"force,omitempty"`
}

// PlanDone ends a PlanRequest.
type PlanDone struct {
	Group     string     `json:"group"`
	Op        string     `json:"op"`
	Before    PlanQuorum `json:"before"`
	After     PlanQuorum `json:"after"`
	NewLeader bool       `json:"new_leader"` // the leader goes, and another is elected
	Pins      int        `json:"pins"`
	Moves     int        `json:"moves"`              // pins whose planned holders differ afterwards
	Counted   bool       `json:"counted"`            // false: there are more pins than could be looked at
	Warnings  []string   `json:"warnings,omitempty"` // escaped already
	Unsafe    string     `json:"unsafe,omitempty"`   // why it needs --force
}

// PlanQuorum is how a group stands.
type PlanQuorum struct {
	Voters   int `json:"voters"`
	VotersUp int `json:"voters_up"`
	CanLose  int `json:"can_lose"`
}

func quorum(q coord.Quorum) PlanQuorum { return PlanQuorum{q.Voters, q.Up, q.CanLose()} }

// movesWait bounds the look at all pins.
const movesWait = 10 * time.Second

func (s *Server) planGroup(w http.ResponseWriter, r *http.Request) {
	c := s.groups(w)
	if c == nil {
		return
	}
	req, ok := decode[PlanRequest](w, r)
	if !ok {
		return
	}
	done, err := s.plan(r.Context(), c, req)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	newStream(w, r, contentTypeLines).send(done)
}

func (s *Server) plan(ctx context.Context, c *coord.Coord, req PlanRequest) (*PlanDone, error) {
	g, err := pickKnown(c, req.Group)
	if err != nil {
		return nil, err
	}
	proposal, err := s.proposal(req)
	if err != nil {
		return nil, err
	}
	cl := c.Client(g.ID)
	plan, before, after, err := cl.Plan(ctx, proposal)
	if err != nil {
		return nil, err
	}
	done := &PlanDone{Group: g.Name, Op: req.Op, Before: quorum(plan.Before), After: quorum(plan.After), NewLeader: plan.NewLeader,
		Unsafe: OneLine(plan.Unsafe)}
	for _, w := range plan.Warnings {
		done.Warnings = append(done.Warnings, OneLine(w))
	}
	bounded, cancel := context.WithTimeout(ctx, movesWait)
	defer cancel()
	done.Pins, done.Moves, err = cl.Moves(bounded, before, after)
	done.Counted = err == nil
	return done, ctx.Err()
}

// proposal is what req asks about.
func (s *Server) proposal(req PlanRequest) (p coord.Proposal, err error) {
	switch req.Op {
	case "leave":
		p.Peer = coord.Peer(s.cfg.Node.ID().String())
	case "remove":
		p.Peer = coord.Peer(req.Peer.String())
	case "revoke":
		p.Peer = coord.Peer(req.Peer.String())
		p.Role, err = roleOf(req.Role)
	case "invite":
		p.Admit, err = admissionOf(req.Role, req.Force)
	default:
		err = Errorf(CodeUsage, "there is no plan for %q", share.Escape(req.Op)).WithHint("plan remove PEER, leave, invite ROLE or revoke PEER ROLE")
	}
	return p, err
}

func roleOf(text string) (role coord.Roles, err error) {
	if role.UnmarshalText([]byte(text)) != nil || role&(role-1) != 0 {
		return 0, Errorf(CodeUsage, "unknown role %q", share.Escape(text)).WithHint("admin, writer, reader or storage")
	}
	return role, nil
}

func admissionOf(text string, force bool) (as coord.Admission, err error) {
	switch {
	case as.UnmarshalText([]byte(text)) != nil || as == coord.AsVoterAtOnce:
		return 0, Errorf(CodeUsage, "unknown role %q", share.Escape(text)).WithHint("voter, storage, writer or reader")
	case force && as != coord.AsVoter:
		return 0, Errorf(CodeUsage, "--force gives a vote at once, and a %s has none", as)
	case force:
		return coord.AsVoterAtOnce, nil
	}
	return as, nil
}

// checkSafe refuses a change that costs the group's safety. Whoever may not make it
// is told so by the group.
func (s *Server) checkSafe(ctx context.Context, cl *coord.Client, req PlanRequest) error {
	proposal, err := s.proposal(req)
	if err != nil {
		return err
	}
	plan, members, _, err := cl.Plan(ctx, proposal)
	if errors.Is(err, coord.ErrRemoved) || errors.Is(err, coord.ErrSplit) {
		return nil // it is out of the group already, which costs nothing
	}
	if err != nil {
		return err
	}
	self := coord.Peer(s.cfg.Node.ID().String())
	for _, m := range members {
		if m.Peer == self && (m.Roles.Has(coord.RoleAdmin) || proposal.Peer == self) && plan.Unsafe != "" {
			hint := "p2pshare group plan " + req.Op
			if req.Op != "leave" {
				hint += " " + req.Peer.String()
			}
			if req.Op == "revoke" {
				hint += " " + req.Role
			}
			return Errorf(CodeRefused, "%s", OneLine(plan.Unsafe)).WithHint("%s shows it; --force does it", hint)
		}
	}
	return nil
}
