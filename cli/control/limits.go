package control

import (
	"net/http"

	"github.com/p2pshare/p2pshare/share"
)

// changeLimits answers POST /limits.
func (s *Server) changeLimits(w http.ResponseWriter, r *http.Request) {
	req, ok := decode[LimitsRequest](w, r)
	if !ok {
		return
	}
	for _, rate := range []*int64{req.MaxUp, req.MaxDown} {
		if rate != nil && *rate != 0 && *rate < share.LimitMin {
			writeError(w, Errorf(CodeUsage, "a limit of %d bytes a second: %d is the least, and 0 is none", *rate, share.LimitMin))
			return
		}
	}
	if n := req.CacheMax; n != nil && *n != 0 && *n < share.CacheMaxMin {
		writeError(w, Errorf(CodeUsage, "a cache of %d bytes: %d is the least, and 0 is the default", *n, share.CacheMaxMin))
		return
	}
	limits, err := s.setLimits(req)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	newStream(w, r, contentTypeLines).send(limits)
}

// setLimits sets what req sets, and returns what holds then.
func (s *Server) setLimits(req LimitsRequest) (*Limits, error) {
	s.limiting.Lock()
	defer s.limiting.Unlock()
	up, down := s.cfg.Library.Limits()
	if req.MaxUp != nil {
		up = *req.MaxUp
	}
	if req.MaxDown != nil {
		down = *req.MaxDown
	}
	s.cfg.Library.SetLimits(up, down)
	if req.CacheMax != nil {
		s.cfg.Library.SetCacheMax(*req.CacheMax)
	}
	kept, err := s.kept()
	return &Limits{MaxUp: up, MaxDown: down, CacheMax: kept.CacheMax, StoreMax: kept.StoreMax}, err
}
