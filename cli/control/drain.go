package control

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
)

// setGroup changes the group's settings, and what this peer brings into it.
func setGroup(ctx context.Context, cl *coord.Client, grace time.Duration, m *MemberRequest) error {
	if grace == 0 && (m == nil || *m == MemberRequest{}) {
		return Errorf(CodeUsage, "nothing is to be set").WithHint("p2pshare help group set")
	}
	if grace != 0 {
		if err := cl.SetGrace(ctx, grace); err != nil {
			return err
		}
	}
	if m == nil {
		return nil
	}
	return cl.ChangeMember(ctx, coord.MemberChange{Capacity: m.Capacity, Zone: m.Zone, NoStore: m.NoStore, Adopt: m.Adopt})
}

// drain has the group move this peer's copies elsewhere, and then leaves it.
func (s *Server) drain(w http.ResponseWriter, r *http.Request, c *coord.Coord, req GroupRequest) {
	g, err := pickGroup(c, req.Group)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	cl := c.Client(g.ID())
	if !req.Force {
		if err := s.checkSafe(r.Context(), cl, PlanRequest{Op: "leave"}); err != nil {
			writeError(w, ErrorOf(err))
			return
		}
	}
	out := newStream(w, r, contentTypeLines)
	left, err := cl.Drain(r.Context(), func(d coord.Draining) { out.send(drained(d)) })
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return // who asked is gone; the moving goes on
	}
	if err != nil {
		out.fail(ErrorOf(err))
		return
	}
	if left.Contents > 0 && !req.Force {
		out.fail(Errorf(CodeNoSpace, "no other member has room for %d contents that are here: this peer has not left", left.Contents).
			WithHint("invite another member, or raise a capacity: p2pshare group set --capacity SIZE; p2pshare group leave --drain --force leaves %q all the same, and p2pshare group set --no-store=false stays", share.Escape(g.Name())))
		return
	}
	if err := cl.Leave(r.Context()); err != nil {
		out.fail(ErrorOf(err))
		return
	}
	out.send(&GroupDone{Did: "left", Group: g.Name(), ID: g.ID().String(), Left: drained(left)})
}

func drained(d coord.Draining) *Drained {
	return &Drained{Contents: d.Contents, Bytes: d.Bytes, Short: d.Short}
}
