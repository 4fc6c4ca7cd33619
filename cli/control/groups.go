package control

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// GroupRequest is the body of POST /groups/OP. Which fields an op needs stands
// beside them.
type GroupRequest struct {
	Group    string  `json:"group,omitempty"`    // local name; empty: the only one. create, join: what to call it here
	Token    string  `json:"token,omitempty"`    // join
	Role     string  `json:"role,omitempty"`     // invite, grant, revoke
	TTL      float64 `json:"ttl_s,omitempty"`    // invite
	Peer     peer.ID `json:"peer,omitempty"`     // remove, grant, revoke
	Capacity int64   `json:"capacity,omitempty"` // create, join: bytes for copies
	Zone     string  `json:"zone,omitempty"`     // create, join
	NoStore  bool    `json:"no_store,omitempty"` // create, join
	File     string  `json:"file,omitempty"`     // backup, restore: an absolute path
	Key      string  `json:"key,omitempty"`      // recover, restore: the recovery key
	Force    bool    `json:"force,omitempty"`    // backup: replace the file. recover: although another log goes further

	Seen *coord.Standing `json:"seen,omitempty"` // recover: what was shown of this peer's log, and agreed to
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
	RecoveryKey string    `json:"recovery_key,omitempty"` // of a new group: a secret, told once
	Epoch       uint64    `json:"epoch,omitempty"`        // that a recovery or a restore began

	Backup *GroupBackup `json:"backup,omitempty"`
}

// GroupStatus is one line of GET /groups.
type GroupStatus struct {
	Group    string        `json:"group"`
	ID       string        `json:"id"`
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
	Problem  string        `json:"problem,omitempty"`
	Hint     string        `json:"hint,omitempty"` // what to do about it
}

// GroupMember is one member of a GroupStatus.
type GroupMember struct {
	Peer  coord.Peer  `json:"peer"`
	Vote  coord.Vote  `json:"vote"`
	Roles coord.Roles `json:"roles"`
	Up    bool        `json:"up"`
	Lag   uint64      `json:"lag"` // log entries
	Self  bool        `json:"self,omitempty"`
}

// PinRequest is the body of POST /pins.
type PinRequest struct {
	Group    string    `json:"group,omitempty"`
	What     string    `json:"what"`
	Literal  bool      `json:"literal,omitempty"`
	Replicas int       `json:"replicas,omitempty"` // 0: 3
	Expires  time.Time `json:"expires,omitzero"`   // zero: never
	Replace  bool      `json:"replace,omitempty"`  // what the name means now
}

// Pinned ends a PinRequest.
type Pinned struct {
	Group   string       `json:"group"`
	Name    string       `json:"name"`
	ID      content.ID   `json:"id"`
	Index   uint64       `json:"index"`
	Holders []coord.Peer `json:"holders"` // as planned
}

// Unpinned ends a DELETE of /pins.
type Unpinned struct {
	Group string `json:"group"`
	What  string `json:"what"`
	Index uint64 `json:"index"`
}

// PinLine is one line of GET /pins.
type PinLine struct {
	Name     string     `json:"name"` // empty: it was pinned without one
	ID       content.ID `json:"id"`
	Kind     share.Kind `json:"kind"`
	Size     int64      `json:"size"`
	Replicas int        `json:"replicas"`
	State    string     `json:"state"`
	Copies   []struct{} `json:"copies"` // verified ones; none are kept yet
	Expires  time.Time  `json:"expires,omitzero"`
	By       coord.Peer `json:"by"`
	Index    uint64     `json:"index"`
	Stale    bool       `json:"stale,omitempty"` // the group can't be asked: it is what is known here
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
	done, err := groupOp(r.Context(), c, r.PathValue("op"), req)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	newStream(w, r, contentTypeLines).send(done)
}

func groupOp(ctx context.Context, c *coord.Coord, op string, req GroupRequest) (*GroupDone, error) {
	member := coord.MemberOptions{Capacity: req.Capacity, Zone: req.Zone, NoStore: req.NoStore}
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
	g, err := pickGroup(c, req.Group)
	if err != nil {
		return nil, err
	}
	cl := c.Client(g.ID())
	done := &GroupDone{Did: op, Group: g.Name(), ID: g.ID().String(), Peer: req.Peer, Role: req.Role}
	switch op {
	case "invite":
		var as coord.Admission
		if err := as.UnmarshalText([]byte(req.Role)); err != nil {
			return nil, Errorf(CodeUsage, "unknown role %q", share.Escape(req.Role)).WithHint("voter, storage, writer or reader")
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
			err = c.Forget(ctx, g.ID()) // the others do not ask
		}
		return done, err
	case "remove":
		done.Did = "removed"
		return done, cl.Remove(ctx, req.Peer)
	case "grant", "revoke":
		var role coord.Roles
		if err := role.UnmarshalText([]byte(req.Role)); err != nil {
			return nil, Errorf(CodeUsage, "unknown role %q", share.Escape(req.Role)).WithHint("admin, writer, reader or storage")
		}
		if op == "grant" {
			done.Did = "granted"
			return done, cl.Grant(ctx, req.Peer, role)
		}
		done.Did = "revoked"
		return done, cl.Revoke(ctx, req.Peer, role)
	}
	return nil, Errorf(CodeUsage, "unknown op %q", share.Escape(op))
}

// groupWait bounds asking one member how it is.
const groupWait = 2 * time.Second

func (s *Server) listGroups(w http.ResponseWriter, r *http.Request) {
	c := s.groups(w)
	if c == nil {
		return
	}
	all := c.Groups()
	if name := r.URL.Query().Get("group"); name != "" {
		g, err := pickGroup(c, name)
		if err != nil {
			writeError(w, ErrorOf(err))
			return
		}
		all = []*coord.Group{g}
	}
	out := newStream(w, r, contentTypeLines)
	for _, g := range all {
		if out.sendLine(s.groupStatus(r.Context(), c, g)) != nil {
			return
		}
	}
}

// groupStatus is a group as this peer and the members that answer see it.
func (s *Server) groupStatus(ctx context.Context, c *coord.Coord, g *coord.Group) *GroupStatus {
	line := &GroupStatus{Group: g.Name(), ID: g.ID().String(), Members: []GroupMember{}}
	if err := g.Err(); err != nil {
		e := ErrorOf(err)
		line.Problem, line.Hint = e.Message, e.Hint
		return line
	}
	cl := c.Client(g.ID())
	bounded, cancel := context.WithTimeout(ctx, groupWait)
	defer cancel()
	st, f, err := cl.Status(bounded)
	if err != nil {
		line.Problem = OneLine(err.Error())
		return line
	}
	line.Term, line.Leader, line.Index, line.Names, line.Pins = st.Term, st.Leader, st.Commit, st.Names, st.Pins
	line.Stale, line.Age = f.Stale, f.Age.Seconds()
	members, _, err := cl.Members(bounded, coord.ReadOptions{Stale: true})
	if err != nil {
		line.Problem = OneLine(err.Error())
		return line
	}
	line.Members = make([]GroupMember, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		line.Members[i] = GroupMember{Peer: m.Peer, Vote: m.Vote, Roles: m.Roles, Self: string(m.Peer) == s.cfg.Node.ID().String()}
		wg.Go(func() {
			id, err := peer.Decode(string(m.Peer))
			if err != nil {
				return
			}
			own, err := cl.StatusOf(bounded, id)
			line.Members[i].Up = err == nil
			if err == nil && own.Applied < line.Index {
				line.Members[i].Lag = line.Index - own.Applied
			}
		})
	}
	wg.Wait()
	for _, m := range line.Members {
		if m.Vote == coord.Voter {
			line.Voters++
			if m.Up {
				line.VotersUp++
			}
		}
	}
	line.CanLose = max(0, line.VotersUp-(line.Voters/2+1))
	return line
}

func (s *Server) addPin(w http.ResponseWriter, r *http.Request) {
	c := s.groups(w)
	if c == nil {
		return
	}
	req, ok := decode[PinRequest](w, r)
	if !ok {
		return
	}
	done, err := s.pin(r.Context(), c, req)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	newStream(w, r, contentTypeLines).send(done)
}

// pin pins what is meant: what is shared from here, or else what is found.
func (s *Server) pin(ctx context.Context, c *coord.Coord, req PinRequest) (*Pinned, error) {
	g, err := pickGroup(c, req.Group)
	if err != nil {
		return nil, err
	}
	o, err := s.meant(ctx, req)
	if err != nil {
		return nil, err
	}
	o.Replicas, o.Expires = req.Replicas, req.Expires
	info := s.cfg.Node.AddrInfo()
	o.Source = &coord.Source{Peer: coord.Peer(info.ID.String())}
	for _, a := range info.Addrs[:min(len(info.Addrs), 8)] {
		o.Source.Addrs = append(o.Source.Addrs, a.String())
	}
	cl := c.Client(g.ID())
	index, err := cl.Pin(ctx, o)
	var conflict *coord.AnswerError
	taken := errors.Is(err, coord.ErrConflict) && errors.As(err, &conflict)
	switch {
	case taken && conflict.Binding != nil && conflict.Binding.ID == o.ID:
		index, err = conflict.Binding.Index, nil // it means that already
	case taken && req.Replace:
		o.Expect = coord.Expect(conflict.Current) // of the moment: what comes between is a conflict again
		index, err = cl.Pin(ctx, o)
	}
	if err != nil {
		return nil, pinError(err, o)
	}
	done := &Pinned{Group: g.Name(), Name: string(o.Name), ID: o.ID, Index: index, Holders: []coord.Peer{}}
	if holders, err := c.Planned(g.ID(), o.ID); err == nil {
		done.Holders = append(done.Holders, holders...)
	}
	return done, nil
}

// pinError tells what is there when a name means something else.
func pinError(err error, o coord.PinOptions) error {
	var conflict *coord.AnswerError
	if errors.Is(err, coord.ErrConflict) && errors.As(err, &conflict) && conflict.Binding != nil {
		b := conflict.Binding
		return Errorf(CodeRefused, "%q means %s there since log index %d", share.Escape(string(o.Name)), b.ID.Short(), b.Index).
			WithHint("replace it with --replace")
	}
	return err
}

// meant settles what is to be pinned.
func (s *Server) meant(ctx context.Context, req PinRequest) (o coord.PinOptions, err error) {
	kinds := map[share.Kind]coord.Kind{share.KindFile: coord.KindFile, share.KindDir: coord.KindDir}
	if here, err := s.cfg.Library.Lookup(req.What); err == nil && len(here) == 1 {
		return coord.PinOptions{Name: here[0].Name, ID: here[0].ID, Kind: kinds[here[0].Kind], Size: here[0].Size}, nil
	} else if len(here) > 1 {
		return o, Errorf(CodeAmbiguous, "%q is %d shares of this peer", share.Escape(req.What), len(here)).WithHint("name one by its ID or path")
	}
	notHere := Errorf(CodeNotFound, "%s is not shared from here", share.Escape(req.What)).WithHint("add or get it first, or pin it by name")
	if filepath.IsAbs(req.What) {
		return o, notHere
	}
	what, err := ParseWhat(req.What, req.Literal)
	if err != nil {
		return o, err
	}
	if what.Name == "" {
		return o, notHere
	}
	found, err := s.cfg.Library.Find(ctx, what, share.FindOptions{Any: true, Peers: s.cfg.Peers})
	if err != nil {
		return o, err
	}
	if len(found) > 1 {
		return o, ErrorOf(&share.AmbiguousError{Name: what.Name, Candidates: found})
	}
	return coord.PinOptions{Name: found[0].Name, ID: found[0].ID, Kind: kinds[found[0].Kind], Size: found[0].Size}, nil
}

func (s *Server) removePin(w http.ResponseWriter, r *http.Request) {
	c := s.groups(w)
	if c == nil {
		return
	}
	req, ok := decode[PinRequest](w, r)
	if !ok {
		return
	}
	g, err := pickGroup(c, req.Group)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	what, err := ParseWhat(req.What, req.Literal)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	done := &Unpinned{Group: g.Name(), What: req.What}
	cl := c.Client(g.ID())
	if what.ID.IsZero() {
		done.Index, err = cl.Unpin(r.Context(), string(what.Name), coord.ExpectAny)
	} else {
		done.Index, err = cl.UnpinContent(r.Context(), what.ID, coord.ExpectAny)
	}
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	newStream(w, r, contentTypeLines).send(done)
}

func (s *Server) listPins(w http.ResponseWriter, r *http.Request) {
	c := s.groups(w)
	if c == nil {
		return
	}
	g, err := pickGroup(c, r.URL.Query().Get("group"))
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	stale, _ := strconv.ParseBool(r.URL.Query().Get("stale"))
	fresh, _ := strconv.ParseBool(r.URL.Query().Get("fresh"))
	out := newStream(w, r, contentTypeLines)
	sent, err := sendPins(r.Context(), c.Client(g.ID()), coord.ReadOptions{Stale: stale}, out)
	if !sent && !stale && !fresh && coord.Unavailable(err) {
		_, err = sendPins(r.Context(), c.Client(g.ID()), coord.ReadOptions{Stale: true}, out)
	}
	if err != nil {
		out.fail(ErrorOf(err))
	}
}

// pinsWait bounds the first page of a fresh list: an election takes a second. The
// list itself may be long.
const pinsWait = 4 * time.Second

// sendPins lists the pins, and reports whether any line was sent.
func sendPins(ctx context.Context, cl *coord.Client, o coord.ReadOptions, out *stream) (sent bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	first := time.AfterFunc(pinsWait, func() { cancel(context.DeadlineExceeded) })
	defer first.Stop()
	for p, err := range cl.Pins(ctx, o) {
		first.Stop()
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
				err = cause
			}
			return sent, fmt.Errorf("list pins: %w", err)
		}
		line := PinLine{ID: p.ID, Kind: share.Kind(p.Kind.String()), Size: p.Size, Replicas: p.Replicas, State: "pinned",
			Copies: []struct{}{}, By: p.By, Index: p.Index, Stale: o.Stale}
		if p.Expires != 0 {
			line.Expires = time.UnixMilli(p.Expires).UTC()
		}
		if len(p.Names) == 0 {
			p.Names = []string{""}
		}
		for _, line.Name = range p.Names {
			if err := out.sendLine(line); err != nil {
				return sent, err
			}
			sent = true
		}
	}
	return sent, nil
}
