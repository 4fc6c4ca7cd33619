package control

import (
	"context"
	"net/http"
	"path/filepath"
	"time"

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
	if err := s.makeFolder(req.Dir); err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	t := &transfer{req: req, what: what}
	if req.Detached {
		s.detach(ctx, g, w, t, options)
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
	if req.Explain {
		options.Tried = out.tried
	}
	if err := s.transfers.add(t); err != nil {
		out.fail(ErrorOf(err))
		return
	}
	defer s.transfers.drop(t)
	whole, cancel := withTimeout(r.Context(), req.Timeout)
	defer cancel()
	got, err := s.transfers.run(whole, t, func(ctx context.Context) (share.Got, error) {
		return s.cfg.Library.Get(ctx, what, s.transfers.watch(t, options))
	})
	if err != nil {
		out.fail(s.explain(err))
		return
	}
	out.send(newDone(got))
}

func withTimeout(ctx context.Context, seconds float64) (context.Context, context.CancelFunc) {
	if seconds <= 0 || seconds > timeoutMax.Seconds() {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Duration(seconds*float64(time.Second)))
}

// timeoutMax is the longest timeout that is one: ten years.
const timeoutMax = 10 * 365 * 24 * time.Hour

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
	if err := share.CheckIncludes(req.Include); err != nil {
		return what, o, Errorf(CodeUsage, "%s", OneLine(err.Error()))
	}
	for _, dir := range req.SeedFrom {
		if !filepath.IsAbs(dir) {
			return what, o, Errorf(CodeUsage, "seed_from %q is not absolute", dir)
		}
	}
	o = share.GetOptions{Dir: req.Dir, Target: req.Target, Force: req.Force, SeedFrom: req.SeedFrom,
		Include: req.Include, Strict: req.Strict, Any: req.Any, NoServe: req.NoServe,
		AcceptChange: req.AcceptChange, Pick: req.Pick,
		Mirrors: req.Mirrors, AnyMirrors: req.AnyMirrors}
	if req.From != "" {
		if o.From, err = s.cfg.Library.ParsePublisher(req.From); err != nil {
			return what, o, err
		}
	}
	if o.Peers, err = share.ParsePeers(req.Peers); err != nil {
		return what, o, err
	}
	o.Peers = append(o.Peers, s.cfg.Peers...)
	if req.Path != "" {
		o.Path, err = share.ParsePath(req.Path)
	}
	return what, o, err
}

// detach begins a transfer in the background, and tells under which ID.
func (s *Server) detach(ctx context.Context, g *errgroup.Group, w http.ResponseWriter, t *transfer, o share.GetOptions) {
	if err := s.transfers.add(t); err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	s.record()
	g.Go(func() error { return s.background(ctx, t, o) })
	line, err := EncodeEvent(&Accepted{ID: t.id, What: t.req.What})
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	w.Header().Set("Content-Type", contentTypeLines)
	w.Write(append(line, '\n'))
}

// background runs a detached transfer. When ctx ends first it stays recorded, and
// the next peer of this home goes on with it.
func (s *Server) background(ctx context.Context, t *transfer, o share.GetOptions) error {
	got, err := s.transfers.run(ctx, t, func(ctx context.Context) (share.Got, error) {
		return s.cfg.Library.Get(ctx, t.what, s.transfers.watch(t, o))
	})
	if ctx.Err() != nil && err != nil {
		return nil
	}
	if err != nil {
		s.log.Warn("background get ended", "what", share.Escape(t.req.What), "err", OneLine(err.Error()))
	} else {
		s.log.Info("background get done", "id", got.ID, "bytes", got.BytesFetched, "took", got.Took)
	}
	if err != nil {
		err = s.explain(err)
	}
	s.transfers.end(t, got, err)
	s.record()
	return nil
}

// listTransfers answers GET /transfers: what comes, in the order in which it was
// begun, and then what goes to other peers.
func (s *Server) listTransfers(w http.ResponseWriter, r *http.Request) {
	out := newStream(w, r, contentTypeLines)
	for _, line := range s.transfers.lines() {
		if err := out.sendLine(line); err != nil {
			return
		}
	}
	uploads, err := s.uploadLines()
	if err != nil {
		out.fail(ErrorOf(err))
		return
	}
	for _, line := range uploads {
		if err := out.sendLine(line); err != nil {
			return
		}
	}
}

// uploadLines tells what goes to other peers.
func (s *Server) uploadLines() (lines []*Transfer, err error) {
	uploads, err := s.cfg.Library.Uploads()
	for _, u := range uploads {
		lines = append(lines, &Transfer{Direction: DirectionUp, Name: string(u.Name), Content: u.ID,
			State: TransferRunning, Peer: u.Peer, Via: u.Via, Done: u.Bytes, Rate: u.Rate})
	}
	return lines, err
}

// changeTransfer answers POST /transfers/pause, resume and cancel.
func (s *Server) changeTransfer(w http.ResponseWriter, r *http.Request) {
	req, ok := decode[TransferRequest](w, r)
	if !ok {
		return
	}
	changed, err := s.transfers.change(r.PathValue("op"), req.ID)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	s.record()
	newStream(w, r, contentTypeLines).send(changed)
}

// explain is ErrorOf with a hint that fits where this peer could search.
func (s *Server) explain(err error) *Error {
	e := ErrorOf(err)
	if e.Code == CodeNotFound && s.cfg.Node.DHTPeers() > 0 {
		return e.WithHint("the peer that shares it may be offline; if you know one that has it, name it with --peer")
	}
	return e
}
