package control

import (
	"context"
	"net/http"
	"path/filepath"

	"github.com/p2pshare/p2pshare/share"
	"golang.org/x/sync/errgroup"
)

// addTransfer answers POST /transfers. A detached transfer outlives the
// request: it runs under the server's ctx, in g.
func (s *Server) addTransfer(ctx context.Context, g *errgroup.Group, w http.ResponseWriter, r *http.Request) {
	req, ok := decode[GetRequest](w, r)
	if !ok {
		return
	}
	what, options, err := s.parseGet(req)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	if req.Detached {
		s.detach(ctx, g, w, req, what, options)
		return
	}
	contentType := contentTypeLines
	if req.Stream {
		contentType = contentTypeFrames
	}
	out := newStream(w, r, contentType)
	if req.Stream {
		options.Output = out
	}
	options.Progress, options.Note = out.progress, out.note
	got, err := s.cfg.Library.Get(r.Context(), what, options)
	if err != nil {
		out.fail(s.explain(err))
		return
	}
	out.send(newDone(got))
}

// parseGet turns a request into the arguments of Library.Get.
func (s *Server) parseGet(req GetRequest) (what share.What, o share.GetOptions, err error) {
	if what, err = ParseWhat(req.What, req.Literal); err != nil {
		return what, o, err
	}
	if req.Stream && (req.Detached || req.Target != "" || req.Dir != "") {
		return what, o, Errorf(CodeUsage, "a stream is neither saved nor detached")
	}
	if !req.Stream && !filepath.IsAbs(req.Target) && !filepath.IsAbs(req.Dir) {
		return what, o, Errorf(CodeUsage, "an absolute dir or target is needed")
	}
	o = share.GetOptions{Dir: req.Dir, Target: req.Target, Force: req.Force, From: req.From,
		Strict: req.Strict, Any: req.Any, NoServe: req.NoServe,
		Mirrors: req.Mirrors, AnyMirrors: req.AnyMirrors}
	if o.Peers, err = share.ParsePeers(req.Peers); err != nil {
		return what, o, err
	}
	o.Peers = append(o.Peers, s.cfg.Peers...)
	if req.Path != "" {
		o.Path, err = share.ParsePath(req.Path)
	}
	return what, o, err
}

func (s *Server) detach(ctx context.Context, g *errgroup.Group, w http.ResponseWriter, req GetRequest, what share.What, o share.GetOptions) {
	select {
	case s.background <- struct{}{}:
	default:
		writeError(w, Errorf(CodeRefused, "%d transfers run in the background already", backgroundMax).
			WithHint("wait for one of them to end"))
		return
	}
	g.Go(func() error {
		defer func() { <-s.background }()
		got, err := s.cfg.Library.Get(ctx, what, o)
		if err != nil {
			s.log.Warn("background get ended", "what", share.Escape(req.What), "err", OneLine(err.Error()))
			return nil
		}
		s.log.Info("background get done", "id", got.ID, "bytes", got.BytesFetched, "took", got.Took)
		return nil
	})
	line, err := EncodeEvent(&Accepted{What: req.What})
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	w.Header().Set("Content-Type", contentTypeLines)
	w.Write(append(line, '\n'))
}

// explain is ErrorOf with a hint that fits where this peer could search.
func (s *Server) explain(err error) *Error {
	e := ErrorOf(err)
	if e.Code == CodeNotFound && s.cfg.Node.DHTPeers() > 0 {
		return e.WithHint("the peer that shares it may be offline; if you know one that has it, name it with --peer")
	}
	return e
}
