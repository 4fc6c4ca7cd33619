package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

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
	Stale    bool       `json:"stale,omitempty"` // it is not what the group confirmed just now
	Age      float64    `json:"age_s,omitempty"` // of a stale one; negative when not known
	Cut      bool       `json:"cut,omitempty"`   // the list was longer: a follower keeps no more of it
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
	g, err := pickKnown(c, req.Group)
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
	cl := c.Client(g.ID)
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
	done := &Pinned{Group: g.Name, Name: string(o.Name), ID: o.ID, Index: index, Holders: []coord.Peer{}}
	if holders, err := c.Planned(g.ID, o.ID); err == nil {
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
	g, err := pickKnown(c, req.Group)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	what, err := ParseWhat(req.What, req.Literal)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	done := &Unpinned{Group: g.Name, What: req.What}
	cl := c.Client(g.ID)
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
	c, g, ok := s.knownGroup(w, r)
	if !ok {
		return
	}
	how := freshnessOf(r)
	out := newStream(w, r, contentTypeLines)
	sent, err := sendPins(r.Context(), c.Client(g.ID), coord.ReadOptions{Stale: how.stale}, out)
	if !sent && how.mayFallBack(err) {
		_, err = sendPins(r.Context(), c.Client(g.ID), coord.ReadOptions{Stale: true}, out)
	}
	if err != nil {
		out.fail(how.errorOf(err))
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
	for page, err := range cl.PinPages(ctx, o) {
		first.Stop()
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
				err = cause
			}
			return sent, fmt.Errorf("list pins: %w", err)
		}
		for _, p := range page.Pins {
			if err := sendPin(p, page, o.Stale, out); err != nil {
				return sent, err
			}
			sent = true
		}
	}
	return sent, nil
}

// sendPin sends a line for each name of a pin.
func sendPin(p coord.Pin, page coord.PinPage, stale bool, out *stream) error {
	line := PinLine{ID: p.ID, Kind: share.Kind(p.Kind.String()), Size: p.Size, Replicas: p.Replicas, State: "pinned",
		Copies: []struct{}{}, By: p.By, Index: p.Index, Stale: stale, Cut: page.Cut}
	if stale {
		line.Age = page.Age.Seconds()
	}
	if p.Expires != 0 {
		line.Expires = time.UnixMilli(p.Expires).UTC()
	}
	if len(p.Names) == 0 {
		p.Names = []string{""}
	}
	for _, line.Name = range p.Names {
		if err := out.sendLine(line); err != nil {
			return err
		}
	}
	return nil
}
