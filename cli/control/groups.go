package control

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
)

// GroupRequest is the body of POST /groups/OP. Which fields an op needs stands
// beside them.
type GroupRequest struct {
	Group    string  `json:"group,omitempty"`    // local name; empty: the only one. create, join: what to call it here
	Token    string  `json:"token,omitempty"`    // join
	Role     string  `json:"role,omitempty"`     // invite, grant, revoke
	TTL      float64 `json:"ttl_s,omitempty"`    // invite
	Peer     peer.ID `json:"peer,omitempty"`     // remove, grant, revoke
	Capacity int64   `json:"capacity,omitempty"` // create, join: bytes for copies; 0: half of what is free
	Zone     string  `json:"zone,omitempty"`     // create, join
	NoStore  bool    `json:"no_store,omitempty"` // create, join
	Adopt    bool    `json:"adopt,omitempty"`    // create, join: what is shared in place counts as a copy
	Grace    float64 `json:"grace_s,omitempty"`  // create, set: how long a member may be away; 0: the default, or no change
	Drain    bool    `json:"drain,omitempty"`    // leave: the copies go elsewhere first
	// Member is what set changes of what this peer brings into the group.
	Member *MemberRequest `json:"member,omitempty"`
	File   string         `json:"file,omitempty"` // backup, restore: an absolute path
	Key    string         `json:"key,omitempty"`  // recover, restore: the recovery key
	// Force, of backup: replace the file; recover: although another log goes further;
	// invite: the vote at once; leave, remove, revoke: though it costs safety.
	Force    bool   `json:"force,omitempty"`
	Link     string `json:"link,omitempty"`     // follow
	Everyone bool   `json:"everyone,omitempty"` // grant, revoke: instead of Peer

	Seen *coord.Standing `json:"seen,omitempty"` // recover: what was shown of this peer's log, and agreed to
}

// MemberRequest is what is to be changed: what is not nil.
type MemberRequest struct {
	Capacity *int64  `json:"capacity,omitempty"`
	Zone     *string `json:"zone,omitempty"`
	NoStore  *bool   `json:"no_store,omitempty"`
	Adopt    *bool   `json:"adopt,omitempty"`
}

// GroupDone is the event that ends a GroupRequest.
type GroupDone struct {
	Did         string    `json:"did"`                    // the op, as created, joined, invited
	Group       string    `json:"group"`                  // local name
	ID          string    `json:"id"`                     // 64 hex digits
	Peer        peer.ID   `json:"peer,omitempty"`         // who was removed, granted, revoked
	Role        string    `json:"role,omitempty"`         //
	Token       string    `json:"token,omitempty"`        // of an invitation: a secret
	Expires     time.Time `json:"expires,omitzero"`       // of an invitation
	Everyone    bool      `json:"everyone,omitempty"`     // granted or revoked, instead of Peer
	Link        string    `json:"link,omitempty"`         // of a group
	RecoveryKey string    `json:"recovery_key,omitempty"` // of a new group: a secret, told once
	Epoch       uint64    `json:"epoch,omitempty"`        // that a recovery or a restore began

	Backup *GroupBackup `json:"backup,omitempty"`
	Left   *Drained     `json:"drained,omitempty"` // of a leave with Drain: what remained
}

// Drained tells what has yet to be copied elsewhere before this peer can leave.
type Drained struct {
	Contents int   `json:"contents"` // that others have not enough copies of
	Bytes    int64 `json:"bytes"`    // of them
	Short    int   `json:"short"`    // of them, those that no other member has room for
}

// groups returns the coordination of groups, which only a peer that stays has.
func (s *Server) groups(w http.ResponseWriter) *coord.Coord {
	if s.cfg.Coord == nil || s.cfg.Service < ServiceServing {
		writeError(w, Errorf(CodeRefused, "this needs a peer that stays").WithHint("start one with p2pshare daemon"))
		return nil
	}
	return s.cfg.Coord
}

// pickGroup finds a group by its local name, or the only one.
func pickGroup(c *coord.Coord, name string) (*coord.Group, error) {
	if name != "" {
		g, err := c.Find(name)
		if err != nil {
			return nil, Errorf(CodeNotFound, "this peer is in no group called %q", share.Escape(name)).WithHint("p2pshare group status lists them")
		}
		return g, nil
	}
	switch all := c.Groups(); len(all) {
	case 1:
		return all[0], nil
	case 0:
		return nil, Errorf(CodeNotFound, "this peer is in no group").WithHint("make one with p2pshare group create NAME, or join one with p2pshare group join TOKEN")
	default:
		return nil, Errorf(CodeUsage, "this peer is in %d groups", len(all)).WithHint("say which with --group NAME")
	}
}

// pickKnown is pickGroup, and finds those that are followed too.
func pickKnown(c *coord.Coord, name string) (coord.Known, error) {
	if name != "" {
		k, err := c.FindKnown(name)
		if err != nil {
			return k, Errorf(CodeNotFound, "this peer is in no group called %q, and follows none", share.Escape(name)).WithHint("p2pshare group status lists them")
		}
		return k, nil
	}
	switch all := c.Known(); len(all) {
	case 1:
		return all[0], nil
	case 0:
		_, err := pickGroup(c, "")
		return coord.Known{}, err
	default:
		return coord.Known{}, Errorf(CodeUsage, "this peer is in or follows %d groups", len(all)).WithHint("say which with --group NAME")
	}
}

// knownGroup finds the group that a list is asked for; it has answered when not ok.
func (s *Server) knownGroup(w http.ResponseWriter, r *http.Request) (c *coord.Coord, g coord.Known, ok bool) {
	if c = s.groups(w); c == nil {
		return nil, g, false
	}
	g, err := pickKnown(c, r.URL.Query().Get("group"))
	if err != nil {
		writeError(w, ErrorOf(err))
		return nil, g, false
	}
	return c, g, true
}

// changeGroup does one op on a group.
func (s *Server) changeGroup(w http.ResponseWriter, r *http.Request) {
	c := s.groups(w)
	if c == nil {
		return
	}
	req, ok := decode[GroupRequest](w, r)
	if !ok {
		return
	}
	if r.PathValue("op") == "leave" && req.Drain {
		s.drain(w, r, c, req)
		return
	}
	done, err := s.groupOp(r.Context(), c, r.PathValue("op"), req)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	newStream(w, r, contentTypeLines).send(done)
}

func (s *Server) groupOp(ctx context.Context, c *coord.Coord, op string, req GroupRequest) (*GroupDone, error) {
	grace := time.Duration(req.Grace * float64(time.Second))
	if grace != 0 && (grace < coord.GraceMin || grace > coord.GraceMax) {
		return nil, Errorf(CodeUsage, "a grace time is %s to %d days", coord.GraceMin, int(coord.GraceMax.Hours()/24))
	}
	member := coord.MemberOptions{Capacity: req.Capacity, Zone: req.Zone, NoStore: req.NoStore, Adopt: req.Adopt, Grace: grace}
	switch op {
	case "recover", "backup", "restore":
		return recoverOp(ctx, c, op, req)
	case "create":
		g, recovery, err := c.Create(ctx, req.Group, member)
		if err != nil {
			return nil, err
		}
		return &GroupDone{Did: "created", Group: g.Name(), ID: g.ID().String(), RecoveryKey: hex.EncodeToString(ed25519.PrivateKey(recovery).Seed())}, nil
	case "join":
		t, err := coord.ParseToken(req.Token)
		if err != nil {
			return nil, Errorf(CodeUsage, "that is no invitation: %s", OneLine(err.Error())).WithHint("p2pshare group invite prints one")
		}
		g, err := c.Join(ctx, t, req.Group, member)
		if err != nil {
			return nil, err
		}
		return &GroupDone{Did: "joined", Group: g.Name(), ID: g.ID().String()}, nil
	}
	if op == "follow" {
		return s.follow(ctx, c, req)
	}
	g, err := pickKnown(c, req.Group)
	if err != nil {
		return nil, err
	}
	cl := c.Client(g.ID)
	switch {
	case op == "unfollow" && !g.Follows:
		return nil, Errorf(CodeUsage, "this peer is a member of %q", share.Escape(g.Name)).WithHint("p2pshare group leave")
	case op == "leave" && g.Follows:
		return nil, Errorf(CodeUsage, "this peer follows %q, and is no member", share.Escape(g.Name)).WithHint("p2pshare group unfollow")
	case !req.Force && (op == "remove" || op == "leave" || op == "revoke" && !req.Everyone):
		if err := s.checkSafe(ctx, cl, PlanRequest{Op: op, Peer: req.Peer, Role: req.Role}); err != nil {
			return nil, err
		}
	}
	done := &GroupDone{Did: op, Group: g.Name, ID: g.ID.String(), Peer: req.Peer, Role: req.Role, Everyone: req.Everyone}
	switch op {
	case "unfollow":
		done.Did = "unfollowed"
		_, err := c.Unfollow(g.ID.String())
		return done, err
	case "set":
		done.Did = "set"
		return done, setGroup(ctx, cl, grace, req.Member)
	case "link":
		l, err := cl.Link(ctx)
		done.Link = l.String()
		return done, err
	case "invite":
		as, err := admissionOf(req.Role, req.Force)
		if err != nil {
			return nil, err
		}
		ttl := time.Duration(req.TTL * float64(time.Second))
		t, err := cl.Invite(ctx, as, ttl)
		if err != nil {
			return nil, err
		}
		done.Did, done.Token, done.Expires = "invited", t.String(), time.Now().Add(ttl).UTC().Truncate(time.Second)
		return done, nil
	case "leave":
		done.Did = "left"
		err := cl.Leave(ctx)
		if errors.Is(err, coord.ErrRemoved) || errors.Is(err, coord.ErrSplit) {
			err = c.Forget(ctx, g.ID) // the others do not ask
		}
		return done, err
	case "remove":
		done.Did = "removed"
		return done, cl.Remove(ctx, req.Peer)
	case "grant", "revoke":
		role, err := roleOf(req.Role)
		if err != nil {
			return nil, err
		}
		done.Did = map[string]string{"grant": "granted", "revoke": "revoked"}[op]
		if req.Everyone && role != coord.RoleReader {
			return nil, Errorf(CodeUsage, "everyone may be a reader, and nothing else")
		}
		if req.Everyone {
			return done, cl.SetOpen(ctx, op == "grant")
		}
		if op == "grant" {
			return done, cl.Grant(ctx, req.Peer, role)
		}
		return done, cl.Revoke(ctx, req.Peer, role)
	}
	return nil, Errorf(CodeUsage, "unknown op %q", share.Escape(op))
}

// follow begins to follow a group.
func (s *Server) follow(ctx context.Context, c *coord.Coord, req GroupRequest) (*GroupDone, error) {
	l, err := coord.ParseLink(req.Link)
	if err != nil {
		return nil, Errorf(CodeUsage, "%s", OneLine(err.Error())).WithHint("p2pshare group link prints one, at a member")
	}
	k, err := c.Follow(ctx, l, req.Group)
	var refused *coord.RefusedError
	if errors.As(err, &refused) && refused.Why == coord.RefusedStranger {
		return nil, Errorf(CodeRefused, "group %q does not let this peer read", share.Escape(l.Name)).
			WithHint("an admin of it can: p2pshare group grant %s reader, or group grant everyone reader", s.cfg.Node.ID())
	}
	if err != nil {
		return nil, err
	}
	return &GroupDone{Did: "following", Group: k.Name, ID: k.ID.String()}, nil
}
