package control

import (
	"net/http"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// VerifyRequest is the body of POST /verify.
type VerifyRequest struct {
	What  string   `json:"what,omitempty"`  // a name, an ID, a link or an absolute path; empty: all
	Peers []string `json:"peers,omitempty"` // asked first for what is damaged
}

// Verified tells what became of one share, or of one content that is held for a
// group.
type Verified struct {
	ID           content.ID  `json:"id"`
	Kind         share.Kind  `json:"kind"`
	Name         share.Name  `json:"name,omitempty"`
	Path         string      `json:"path,omitempty"` // absolute; empty when it is held
	Held         bool        `json:"held"`
	State        VerifyState `json:"state"`
	Read         int64       `json:"read"`          // bytes
	Damaged      int64       `json:"damaged"`       // files of a share; chunk groups of what is held
	Repaired     int64       `json:"repaired"`      // of those
	BytesFetched int64       `json:"bytes_fetched"` // for that
	Message      string      `json:"message,omitempty"`
}

// VerifyState is how a content was found. The words are append-only.
type VerifyState string

const (
	VerifyOK       VerifyState = "ok"
	VerifyRepaired VerifyState = "repaired"
	VerifyDamaged  VerifyState = "damaged"
)

// VerifyDone sums up.
type VerifyDone struct {
	Contents int64 `json:"contents"`
	Read     int64 `json:"read"` // bytes
	Damaged  int64 `json:"damaged"`
	Repaired int64 `json:"repaired"`
}

// CollectRequest is the body of POST /gc.
type CollectRequest struct{}

// Collected tells what was of no use in the store, and was removed.
type Collected struct {
	Bytes int64 `json:"bytes"`
	Holds int64 `json:"unfinished"` // contents that were begun to be held, and not finished
	Cache int64 `json:"cache"`      // of bytes: what readers had fetched
	Left  Kept  `json:"left"`       // what is there still
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	req, ok := decode[VerifyRequest](w, r)
	if !ok {
		return
	}
	peers, err := share.ParsePeers(req.Peers)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	out := newStream(w, r, contentTypeLines)
	var done VerifyDone
	bad := 0
	o := share.VerifyOptions{Peers: append(peers, s.cfg.Peers...), Progress: out.progress}
	err = s.cfg.Library.Verify(r.Context(), req.What, o, func(v share.Verified) error {
		line := newVerified(v)
		done.Contents++
		done.Read += v.Read
		done.Damaged += v.Damaged
		done.Repaired += v.Repaired
		if line.State == VerifyDamaged {
			bad++
		}
		out.send(line)
		return r.Context().Err()
	})
	switch {
	case err != nil:
		out.fail(ErrorOf(err))
	case bad > 0:
		out.fail(Errorf(CodeIntegrity, "%d of %d contents are damaged, and could not be repaired", bad, done.Contents).
			WithHint("a file that is shared is put right from another peer by p2pshare get ID -o PATH --force; what is held for a group is repaired when another member that has it can be reached"))
	default:
		out.send(&done)
	}
}

func newVerified(v share.Verified) *Verified {
	line := &Verified{ID: v.ID, Kind: v.Kind, Name: v.Name, Path: v.Path, Held: v.Path == "", State: VerifyOK,
		Read: v.Read, Damaged: v.Damaged, Repaired: v.Repaired, BytesFetched: v.Fetched}
	switch {
	case v.Err != nil:
		line.State, line.Message = VerifyDamaged, ErrorOf(v.Err).Message
	case v.Damaged > 0:
		line.State = VerifyRepaired
	}
	return line
}

func (s *Server) collect(w http.ResponseWriter, r *http.Request) {
	if _, ok := decode[CollectRequest](w, r); !ok {
		return
	}
	c, err := s.cfg.Library.Collect(r.Context())
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	left, err := s.kept()
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	newStream(w, r, contentTypeLines).send(&Collected{Bytes: c.Bytes, Holds: c.Holds, Cache: c.Cache, Left: left})
}
