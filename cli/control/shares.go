package control

import (
	"context"
	"net/http"
	"path"
	"path/filepath"
	"strconv"

	"github.com/p2pshare/p2pshare/share"
)

func (s *Server) addShare(w http.ResponseWriter, r *http.Request) {
	req, ok := decode[AddRequest](w, r)
	if !ok {
		return
	}
	if !filepath.IsAbs(req.Path) {
		writeError(w, Errorf(CodeUsage, "path %q is not absolute", req.Path))
		return
	}
	out := newStream(w, r, contentTypeLines)
	added, err := s.cfg.Library.Add(r.Context(), req.Path, share.AddOptions{
		Name: req.Name, Hidden: req.Hidden, Exclude: req.Exclude, Scope: req.Scope, Mirrors: req.Mirrors, Note: req.Note, Watch: req.Watch,
		Progress: out.progress, Warn: out.warn,
	})
	if err != nil {
		out.fail(ErrorOf(err))
		return
	}
	out.send(&Added{Name: added.Name, ID: added.ID, Kind: added.Kind, Size: added.Size, Files: added.Files,
		Announced: s.announce(r.Context(), added), Link: s.cfg.Library.Link(added).String(), Path: added.Path, Watched: added.Watched})
}

// announce tells the networks of a new share, where this peer is there to
// serve it.
func (s *Server) announce(ctx context.Context, added share.Share) share.Announced {
	if s.cfg.Service < ServiceServing {
		return share.AnnouncedNone
	}
	return s.cfg.Library.Announce(ctx, added)
}

func (s *Server) listShares(w http.ResponseWriter, r *http.Request) {
	out := newStream(w, r, contentTypeLines)
	for sh, err := range s.cfg.Library.List(r.Context()) {
		if err != nil {
			out.fail(ErrorOf(err))
			return
		}
		err = out.sendLine(&Listed{Name: string(sh.Name), ID: sh.ID, Kind: sh.Kind, Size: sh.Size,
			Path: sh.Path, State: string(sh.State), Files: sh.Files, Added: sh.Added, Mirrors: sh.Mirrors, Note: sh.Note,
			Watch: s.watchOf(sh)})
		if out.abortIfCutOff(); err != nil {
			return
		}
	}
}

// watchOf tells how sh is kept up to date; nil: it is not.
func (s *Server) watchOf(sh share.Share) *Watch {
	if !sh.Watched {
		return nil
	}
	w, running := s.cfg.Library.Watching(sh.Path)
	return &Watch{Running: running, Events: w.Events, Dirs: w.Dirs, Scanned: w.Scanned.UTC(), Every: seconds(w.Every), Problem: w.Problem}
}

func (s *Server) removeShare(w http.ResponseWriter, r *http.Request) {
	req, ok := decode[RemoveRequest](w, r)
	if !ok {
		return
	}
	out := newStream(w, r, contentTypeLines)
	removed, err := s.cfg.Library.Remove(r.Context(), req.What)
	for _, sh := range removed {
		out.send(&Removed{Name: sh.Name, ID: sh.ID, Path: sh.Path})
	}
	if err != nil {
		out.fail(ErrorOf(err))
	}
}

// stateRemote is the state of what is listed at another peer.
const stateRemote = "remote"

func (s *Server) listEntries(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	text := query.Get("what")
	literal, _ := strconv.ParseBool(query.Get("literal"))
	what, err := ParseWhat(text, literal)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	peers, err := share.ParsePeers(query["peer"])
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	state := stateRemote
	if here, err := s.cfg.Library.Lookup(text); err == nil && len(here) > 0 {
		state = string(here[0].State)
	}
	out := newStream(w, r, contentTypeLines)
	for e, err := range s.cfg.Library.Entries(r.Context(), what, share.FindOptions{Peers: append(peers, s.cfg.Peers...)}) {
		if err != nil {
			out.fail(s.explain(err))
			return
		}
		err = out.sendLine(&Listed{Name: path.Base(string(e.Path)), ID: e.ID, Kind: e.Kind, Size: e.Size,
			Path: string(e.Path), State: state, Executable: e.Executable})
		if out.abortIfCutOff(); err != nil {
			return
		}
	}
}
