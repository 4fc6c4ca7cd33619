package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"golang.org/x/sync/errgroup"
)

// Times and limits of the stream of events.
const (
	transfersEvery = 250 * time.Millisecond
	sharesEvery    = time.Second
	linksEvery     = time.Second
	groupsEvery    = 5 * time.Second // all members are asked
	pinsEvery      = time.Second     // a look whether anything has changed
	heartbeatEvery = 15 * time.Second
	eventStall     = 30 * time.Second // for a client to take one event
	watchersMax    = 32               // clients at once
	movingMax      = 256              // transfers in one event
)

// Moving is the event transfers: all of them, those that come before those that go.
type Moving struct {
	Transfers []*Transfer `json:"transfers"`
	More      int         `json:"more,omitempty"` // that were left out
}

// SharesChanged is the event shares: what is shared, or how it is, may be another than
// before. GET /shares tells.
type SharesChanged struct {
	Rev int64 `json:"rev"` // of this run
}

// GroupsNow is the event groups: all that this peer is in, or follows.
type GroupsNow struct {
	Groups []*GroupStatus `json:"groups"`
}

// events answers GET /events with server-sent events, as the HTML standard has them:
//
//	event: hello      data: Hello, the first
//	event: transfers  data: Moving
//	event: shares     data: SharesChanged
//	event: neighbor   data: Neighbor, with its State
//	event: groups     data: GroupsNow
//	event: pins       data: PinsNow, one for each group
//	event: links      data: LinksNow
//
// Whoever connects is told all there is, neighbors as joined, and then what changes; so
// who was cut off connects again and has missed nothing that still holds. There
// is no queue: what has changed is looked at when the client can take it, so that a slow
// one gets fewer and newer events, and one that takes none for 30 seconds is cut off. A
// line that is a comment comes every 15 seconds.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	defer s.watchers.Add(-1)
	if s.watchers.Add(1) > watchersMax {
		writeError(w, Errorf(CodeRefused, "%d clients follow the events already", watchersMax).WithHint("close a page of this peer"))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	g, ctx := errgroup.WithContext(r.Context())
	out := &eventStream{w: w}
	if out.send("hello", s.hello()) != nil {
		return
	}
	every := func(d time.Duration, tell func() error) {
		g.Go(func() error { return repeat(ctx, d, tell) })
	}
	every(transfersEvery, changed(out, "transfers", s.moving))
	every(sharesEvery, changed(out, "shares", func() any { return &SharesChanged{s.cfg.Library.Revision()} }))
	if s.cfg.Coord != nil {
		every(pinsEvery, s.groupsChanged(ctx, out))
		pins := &pinsFollowed{server: s, out: out, told: map[coord.GroupID]*pinsTold{}}
		every(pinsEvery, func() error { return pins.look(ctx) })
	}
	every(linksEvery, changed(out, "links", func() any { return &LinksNow{s.links.lines()} }))
	every(heartbeatEvery, out.heartbeat)
	if s.cfg.Node.LANStatus().Err == nil {
		g.Go(func() error { return s.tellNeighbors(ctx, out) })
	}
	g.Wait() // its error is that of the connection
}

// repeat calls tell at once and then every d, until it fails or ctx ends.
func repeat(ctx context.Context, d time.Duration, tell func() error) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := tell(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changed returns a function that sends what now returns when it is not what
// was sent last.
func changed(out *eventStream, event string, now func() any) func() error {
	var last []byte
	return func() error {
		data, err := encode(now())
		if err != nil || bytes.Equal(data, last) {
			return err
		}
		last = data
		return out.write(event, data)
	}
}

func (s *Server) moving() any {
	m := &Moving{Transfers: []*Transfer{}}
	m.Transfers = append(m.Transfers, s.transfers.lines()...)
	if uploads, err := s.uploadLines(); err == nil { // next time, then
		m.Transfers = append(m.Transfers, uploads...)
	}
	if n := len(m.Transfers); n > movingMax {
		m.Transfers, m.More = m.Transfers[:movingMax], n-movingMax
	}
	return m
}

// groupsChanged returns a function that looks at the groups every groupsEvery, and each
// time that it is called while one of them does not decide, as after it was made or joined.
func (s *Server) groupsChanged(ctx context.Context, out *eventStream) func() error {
	var looked time.Time
	unsettled := false
	tell := changed(out, "groups", func() any {
		now := s.groupsNow(ctx)
		unsettled = slices.ContainsFunc(now.Groups, func(g *GroupStatus) bool { return g.Leader == "" })
		return now
	})
	known := 0
	return func() error {
		before := known
		known = len(s.cfg.Coord.Known())
		if known == before && !unsettled && time.Since(looked) < groupsEvery {
			return nil
		}
		looked = time.Now()
		return tell()
	}
}

// groupsNow is how the groups stand, without what grows older by itself.
func (s *Server) groupsNow(ctx context.Context) *GroupsNow {
	now := &GroupsNow{Groups: []*GroupStatus{}}
	for _, known := range s.cfg.Coord.Known() {
		line := s.groupStatus(ctx, s.cfg.Coord, known)
		line.Age = 0
		now.Groups = append(now.Groups, line)
	}
	return now
}

func (s *Server) tellNeighbors(ctx context.Context, out *eventStream) error {
	g, ctx := errgroup.WithContext(ctx)
	b := &browsing{server: s, known: map[peer.ID]*Neighbor{}, turn: map[peer.ID]int{}}
	failed := make(chan error, 1) // the first is enough
	b.tell = func(n *Neighbor) {
		if err := out.send("neighbor", n); err != nil {
			select {
			case failed <- err:
			default:
			}
		}
	}
	following, over := context.WithCancel(ctx)
	g.Go(func() error {
		defer over()
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	g.Go(func() error {
		b.follow(ctx, following)
		return nil
	})
	return g.Wait()
}

// eventStream writes server-sent events. Its methods are safe for concurrent use.
type eventStream struct {
	mu sync.Mutex // one event at a time
	w  http.ResponseWriter
}

func (e *eventStream) send(event string, v any) error {
	data, err := encode(v)
	if err != nil {
		return err
	}
	return e.write(event, data)
}

// write sends data, which is JSON and so has no line break.
func (e *eventStream) write(event string, data []byte) error {
	return e.raw(fmt.Appendf(nil, "event: %s\ndata: %s\n\n", event, data))
}

func (e *eventStream) heartbeat() error { return e.raw([]byte(":\n\n")) }

func (e *eventStream) raw(text []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	control := http.NewResponseController(e.w)
	err := control.SetWriteDeadline(time.Now().Add(eventStall))
	if errors.Is(err, http.ErrNotSupported) {
		err = nil
	}
	if err == nil {
		_, err = e.w.Write(text)
	}
	if err != nil {
		return err
	}
	return control.Flush()
}
