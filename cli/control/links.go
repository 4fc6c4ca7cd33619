package control

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

// links are those that are served now. Its methods are safe for concurrent use.
type links struct {
	mu   sync.Mutex
	list []*link // guarded by mu, oldest first; at most linksMax
}

// LinksNow is the event links: all that are served, oldest first.
type LinksNow struct {
	Links []*ServingLink `json:"links"`
}

// StopLinkRequest is the body of DELETE /serve-link.
type StopLinkRequest struct {
	URL string `json:"url"` // as ServingLink has it
}

// serveLink answers POST /serve-link. A detached link runs under the server's ctx, in g.
func (s *Server) serveLink(ctx context.Context, g *errgroup.Group, w http.ResponseWriter, r *http.Request) {
	req, ok := decode[ServeLinkRequest](w, r)
	if !ok {
		return
	}
	l, err := s.openLink(r.Context(), req)
	if err != nil {
		writeError(w, s.explain(err))
		return
	}
	if !req.Detached {
		ctx = r.Context()
	}
	ctx, l.stop = context.WithDeadline(ctx, l.expires)
	if err := s.links.add(l); err != nil {
		l.stop()
		l.listener.Close()
		writeError(w, ErrorOf(err))
		return
	}
	out := newStream(w, r, contentTypeLines)
	if req.Detached {
		l.told = func(Event) {} // the list counts what is received
		g.Go(func() error { return s.runLink(ctx, l) })
		out.send(l.line())
		return
	}
	l.told = out.send
	out.send(l.line())
	if err := s.runLink(ctx, l); err != nil {
		out.fail(ErrorOf(err))
		return
	}
	out.send(&LinkExpired{URL: l.url})
}

// runLink serves l until it is over, or ctx ends.
func (s *Server) runLink(ctx context.Context, l *link) error {
	defer s.links.drop(l)
	defer l.stop()
	g, ctx := errgroup.WithContext(ctx)
	serve(ctx, g, netutil.LimitListener(limitAddresses(l.listener, linkConnsEach), linkConns), l)
	return g.Wait()
}

// listLinks answers GET /serve-link.
func (s *Server) listLinks(w http.ResponseWriter, r *http.Request) {
	out := newStream(w, r, contentTypeLines)
	for _, line := range s.links.lines() {
		if out.sendLine(line) != nil {
			return
		}
	}
}

// stopLink answers DELETE /serve-link. Whoever serves it by an open request is
// told that it is over.
func (s *Server) stopLink(w http.ResponseWriter, r *http.Request) {
	req, ok := decode[StopLinkRequest](w, r)
	if !ok {
		return
	}
	if !s.links.stop(req.URL) {
		writeError(w, Errorf(CodeNotFound, "no such link is served"))
		return
	}
	newStream(w, r, contentTypeLines).send(&LinkExpired{URL: req.URL})
}

func (l *link) line() *ServingLink {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &ServingLink{URL: l.url, Name: l.meant.Name, ID: l.meant.ID, Size: l.meant.Size,
		Expires: l.expires.UTC().Truncate(time.Second), Receive: l.req.Receive, Received: l.received}
}

func (ls *links) add(l *link) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if len(ls.list) >= linksMax {
		return Errorf(CodeRefused, "%d links are served already", linksMax).WithHint("stop one of them")
	}
	ls.list = append(ls.list, l)
	return nil
}

func (ls *links) drop(l *link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.list = slices.DeleteFunc(ls.list, func(x *link) bool { return x == l })
}

// stop ends the link of that address, which is not listed any more then.
func (ls *links) stop(url string) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for i, l := range ls.list {
		if same(l.url, url) {
			l.stop()
			ls.list = slices.Delete(ls.list, i, i+1)
			return true
		}
	}
	return false
}

func (ls *links) lines() []*ServingLink {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	lines := []*ServingLink{}
	for _, l := range ls.list {
		lines = append(lines, l.line())
	}
	return lines
}
