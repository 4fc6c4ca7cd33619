package control

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share"
)

// FindRequest is the query of GET /find: q (repeated), peer (repeated), explain.
type FindRequest struct {
	Query   []string // parts of a query, as share.ParseQuery reads them
	Peers   []string // to ask first, as share.ParsePeer reads them
	Explain bool     // tell each source that was tried
}

// Found tells of a content that a search has found, or of which it has learnt more.
type Found struct {
	share.Hit
}

// Searched ends what a search tells on its way. Then the lines of what it has found
// follow, the best first.
type Searched struct {
	Found    int      `json:"found"`    // contents
	Asked    int      `json:"asked"`    // peers that answered
	Messages int      `json:"messages"` // that were sent to peers
	Seconds  float64  `json:"seconds"`
	Partial  bool     `json:"partial"`         // there may be more:
	Why      []string `json:"why,omitempty"`   // in these respects; escaped
	First    float64  `json:"first,omitempty"` // seconds until the first was found
}

// find searches for shares by words: found events as they come, a searched event, and a
// share.Hit a line, best first; or an error event.
func (s *Server) find(w http.ResponseWriter, r *http.Request) {
	values := r.URL.Query()
	q, err := share.ParseQuery(values["q"]...)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	o := share.SearchOptions{Peers: s.cfg.Peers}
	for _, text := range values["peer"] {
		p, err := share.ParsePeer(text)
		if err != nil {
			writeError(w, ErrorOf(err))
			return
		}
		o.Peers = append([]peer.AddrInfo{p}, o.Peers...)
	}
	out := newStream(w, r, contentTypeLines)
	start := time.Now()
	first := time.Duration(0)
	trust, err := s.cfg.Library.Trust()
	if err != nil {
		out.fail(s.explain(err))
		return
	}
	told := trust.Lookalikes()
	o.Found = func(h share.Hit) {
		told.Add(string(h.Name))
		h.Like = share.Name(told.Like(string(h.Name)))
		if first == 0 {
			first = time.Since(start)
		}
		out.send(&Found{h})
	}
	o.Progress = out.progress
	if values.Get("explain") == "true" {
		o.Tried = out.tried
	}
	found, err := s.cfg.Library.Search(r.Context(), q, o)
	if err != nil {
		for _, why := range found.Partial {
			out.note("partial: " + why)
		}
		out.fail(s.explain(err))
		return
	}
	out.send(&Searched{Found: len(found.Hits), Asked: found.Asked, Messages: found.Messages, Seconds: seconds(time.Since(start)),
		Partial: len(found.Partial) > 0, Why: found.Partial, First: seconds(first)})
	for _, h := range found.Hits {
		h.Like = share.Name(told.Like(string(h.Name)))
		if out.sendLine(h) != nil {
			return
		}
	}
}

// Find searches for shares by words. on is called with what is told on the way, *Found,
// *Progress, *Note, *Source and at the end *Searched; the contents that were found are
// yielded then, best first.
func (c *Client) Find(ctx context.Context, req FindRequest, on func(Event)) iter.Seq2[share.Hit, error] {
	query := url.Values{"q": req.Query, "peer": req.Peers}
	if req.Explain {
		query.Set("explain", "true")
	}
	return func(yield func(share.Hit, error) bool) {
		body, err := c.do(ctx, http.MethodGet, pathFind+"?"+query.Encode(), nil)
		if err != nil {
			yield(share.Hit{}, err)
			return
		}
		defer body.Close()
		lines, searched := newLineReader(body), false
		for {
			line, err := lines.next(ctx)
			if err == io.EOF && searched {
				return
			}
			if err == io.EOF {
				err = goneUnlessDone(ctx, io.ErrUnexpectedEOF)
			}
			if err == nil && !searched {
				searched, err = tellEvent(line, on)
				if err == nil {
					continue
				}
			}
			var h share.Hit
			if err == nil {
				h, err = decodeListed[share.Hit](line)
			}
			if !yield(h, err) || err != nil {
				return
			}
		}
	}
}

// tellEvent hands over an event of a search, and reports whether it was the last one.
func tellEvent(line []byte, on func(Event)) (searched bool, err error) {
	e, err := decodeEvent(line)
	if e == nil || err != nil {
		return false, err
	}
	if failed, ok := e.(*Error); ok {
		return false, failed
	}
	on(e)
	_, searched = e.(*Searched)
	return searched, nil
}
