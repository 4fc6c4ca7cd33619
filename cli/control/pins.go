package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// PinRequest is the body of POST /pins.
type PinRequest struct {
	Group    string    `json:"group,omitempty"`
	What     string    `json:"what"`
	Path     string    `json:"path,omitempty"` // a file here that is called What, absolute: it is meant if What is not shared
	Literal  bool      `json:"literal,omitempty"`
	Replicas int       `json:"replicas,omitempty"` // 0: 3; coord.ReplicasAll: every member
	Expires  time.Time `json:"expires,omitzero"`   // zero: never
	Replace  bool      `json:"replace,omitempty"`  // what the name means now
	Adopt    bool      `json:"adopt,omitempty"`    // what is shared in place counts as this peer's copy
	Wait     bool      `json:"wait,omitempty"`     // until there are copies
	Copies   int       `json:"copies,omitempty"`   // with Wait: so many; 0: as many as are wanted
}

// Pinned ends a PinRequest.
type Pinned struct {
	Group    string       `json:"group"`
	Name     string       `json:"name"`
	ID       content.ID   `json:"id"`
	Index    uint64       `json:"index"`
	Holders  []coord.Peer `json:"holders"` // as planned
	State    string       `json:"state"`
	Verified int          `json:"verified"`         // copies
	Wanted   int          `json:"wanted"`           // copies
	Remedy   string       `json:"remedy,omitempty"` // what a person can do, when no more copies come by themselves
	Shared   string       `json:"shared,omitempty"` // the path, when it was shared for this
	// Unverified says which strangers, and nobody else, named the content so; empty for
	// one that is shared from here or that somebody trusted names. Escaped.
	Unverified string `json:"unverified,omitempty"`
}

// Copied tells how far a pin's copies are, while a PinRequest with Wait waits.
type Copied struct {
	ID content.ID `json:"id"`
	PinState
}

// Unpinned ends a DELETE of /pins.
type Unpinned struct {
	Group string `json:"group"`
	What  string `json:"what"`
	Index uint64 `json:"index"`
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
	if req.Copies < 0 || req.Replicas < 0 || req.Replicas > coord.ReplicasMax && req.Replicas != coord.ReplicasAll {
		writeError(w, Errorf(CodeUsage, "1 to %d copies, or all", coord.ReplicasMax))
		return
	}
	done, pinned, err := s.pin(r.Context(), c, req)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	out := newStream(w, r, contentTypeLines)
	if req.Wait {
		if err := s.awaitCopies(r.Context(), pinned, req.Copies, done, out); err != nil {
			out.fail(ErrorOf(err))
			return
		}
	}
	out.send(done)
}

// pin pins what is meant: what is shared from here, or else what is found. It returns
// the group, to be asked for more.
func (s *Server) pin(ctx context.Context, c *coord.Coord, req PinRequest) (*Pinned, *coord.Client, error) {
	g, err := pickKnown(c, req.Group)
	if err != nil {
		return nil, nil, err
	}
	if req.Adopt && g.Follows {
		return nil, nil, Errorf(CodeUsage, "this peer is no member of %q: its copy can't count", share.Escape(g.Name))
	}
	shared, err := s.shareForPin(ctx, &req)
	if err != nil {
		return nil, nil, err
	}
	o, unverified, err := s.meant(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	o.Replicas, o.Expires = req.Replicas, req.Expires
	info := s.cfg.Node.AddrInfo()
	o.Source = &coord.Source{Peer: coord.Peer(info.ID.String())}
	for _, a := range info.Addrs[:min(len(info.Addrs), 8)] {
		o.Source.Addrs = append(o.Source.Addrs, a.String())
	}
	cl := c.Client(g.ID)
	if req.Adopt {
		c.WillAdopt(o.ID)
	}
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
		return nil, nil, pinError(err, o)
	}
	done := &Pinned{Group: g.Name, Name: string(o.Name), ID: o.ID, Index: index, Holders: []coord.Peer{}, Shared: shared, Unverified: unverified}
	if req.Adopt {
		if err := c.Adopt(ctx, g.ID, o.ID, o.Kind); err != nil {
			return nil, nil, err
		}
	}
	if pins, _, err := cl.PinsOf(ctx, []content.ID{o.ID}, coord.ReadOptions{}, false); err == nil && len(pins) == 1 {
		done.fill(pins[0], coord.HealthOf(pins[0], nil))
	}
	return done, cl, nil
}

func (d *Pinned) fill(p coord.Pin, h coord.PinHealth) {
	d.Holders = append([]coord.Peer{}, p.Holders...)
	d.State, d.Verified, d.Wanted, d.Remedy = h.String(), h.Verified, h.Wanted, remedy(p, h)
}

// shareForPin shares a path that is to be pinned, and is not shared yet, with whoever
// asks for it by its ID. It returns the path if it did.
func (s *Server) shareForPin(ctx context.Context, req *PinRequest) (string, error) {
	if req.Literal {
		return "", nil
	}
	if here, err := s.cfg.Library.Lookup(req.What); err == nil && len(here) > 0 {
		return "", nil
	}
	path := req.Path
	if filepath.IsAbs(req.What) {
		path = req.What
	}
	if !filepath.IsAbs(path) {
		return "", nil
	}
	if _, err := os.Stat(path); err != nil {
		return "", nil // it may be a name
	}
	req.What = path
	if here, err := s.cfg.Library.Lookup(path); err == nil && len(here) > 0 {
		return "", nil
	}
	_, err := s.cfg.Library.Add(ctx, path, share.AddOptions{Scope: share.Scope{Unlisted: true}})
	return path, err
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

// meant settles what is to be pinned, and says which strangers name it when it is
// nobody else.
func (s *Server) meant(ctx context.Context, req PinRequest) (o coord.PinOptions, unverified string, err error) {
	kinds := map[share.Kind]coord.Kind{share.KindFile: coord.KindFile, share.KindDir: coord.KindDir}
	if here, err := s.cfg.Library.Lookup(req.What); err == nil && len(here) == 1 {
		return coord.PinOptions{Name: here[0].Name, ID: here[0].ID, Kind: kinds[here[0].Kind], Size: here[0].Size}, "", nil
	} else if len(here) > 1 {
		return o, "", Errorf(CodeAmbiguous, "%q is %d shares of this peer", share.Escape(req.What), len(here)).WithHint("name one by its ID or path")
	}
	notHere := Errorf(CodeNotFound, "%s is not shared from here", share.Escape(req.What)).WithHint("add or get it first, or pin it by name")
	if filepath.IsAbs(req.What) {
		return o, "", notHere
	}
	what, err := ParseWhat(req.What, req.Literal)
	if err != nil {
		return o, "", err
	}
	if what.Name == "" {
		return o, "", notHere
	}
	found, err := s.cfg.Library.Find(ctx, what, share.FindOptions{NoGroups: true, Peers: s.cfg.Peers})
	if err != nil {
		return o, "", err
	}
	if len(found) > 1 {
		return o, "", ErrorOf(&share.AmbiguousError{Name: what.Name, Candidates: found})
	}
	if found[0].Size < 0 || found[0].Kind == "" { // it is remembered, and nobody was asked
		return o, "", notHere
	}
	if what.Publisher == "" && what.Petname == "" {
		unverified = found[0].Unverified()
	}
	return coord.PinOptions{Name: found[0].Name, ID: found[0].ID, Kind: kinds[found[0].Kind], Size: found[0].Size}, unverified, nil
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
	explain, _ := strconv.ParseBool(r.URL.Query().Get("explain"))
	out := newStream(w, r, contentTypeLines)
	sent, err := sendPins(r.Context(), c.Client(g.ID), pinListing{coord.ReadOptions{Stale: how.stale}, explain}, out)
	if !sent && how.mayFallBack(err) {
		_, err = sendPins(r.Context(), c.Client(g.ID), pinListing{coord.ReadOptions{Stale: true}, explain}, out)
	}
	if err != nil {
		out.fail(how.errorOf(err))
	}
}

// pinsWait bounds the first page of a fresh list: an election takes a second. The
// list itself may be long.
const pinsWait = 4 * time.Second

// sendPins lists the pins, and reports whether any line was sent.
func sendPins(ctx context.Context, cl *coord.Client, o pinListing, out *stream) (sent bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	first := time.AfterFunc(pinsWait, func() { cancel(context.DeadlineExceeded) })
	defer first.Stop()
	for page, err := range cl.PinPages(ctx, o.ReadOptions) {
		first.Stop()
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
				err = cause
			}
			return sent, fmt.Errorf("list pins: %w", err)
		}
		pins := page.Pins
		var has map[content.ID]map[coord.Peer]coord.Holding
		if !o.Stale {
			has = cl.Holdings(ctx, pins)
		}
		if o.explain && len(pins) > 0 {
			pins = explained(ctx, cl, pins, o.ReadOptions)
		}
		for _, p := range pins {
			for _, line := range pinLines(p, has[p.ID], page, o) {
				if err := out.sendLine(line); err != nil {
					return sent, err
				}
				sent = true
			}
		}
	}
	return sent, nil
}
