package control

import (
	"net/http"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/share"
)

// listNames answers GET /names.
func (s *Server) listNames(w http.ResponseWriter, r *http.Request) {
	trust, err := s.cfg.Library.Trust()
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	out := newStream(w, r, contentTypeLines)
	for _, line := range trustEntries(trust) {
		if out.sendLine(line) != nil {
			return
		}
	}
}

func trustEntries(t share.Trust) []TrustEntry {
	var lines []TrustEntry
	var petnames, names share.Lookalikes
	for _, f := range t.Friends {
		e := friendEntry(f)
		petnames.Add(string(f.Name))
		e.Like = petnames.Like(string(f.Name))
		lines = append(lines, e)
	}
	for _, c := range t.Choices {
		e := choiceEntry(c)
		names.Add(string(c.Name))
		e.Like = names.Like(string(c.Name))
		lines = append(lines, e)
	}
	for _, b := range t.Blocks {
		lines = append(lines, TrustEntry{Kind: "block", Peer: b.Peer, ID: b.ID, Since: b.Since})
	}
	for _, path := range t.Damaged {
		lines = append(lines, TrustEntry{Kind: "damaged", Path: path})
	}
	return lines
}

func friendEntry(f share.Friend) TrustEntry {
	return TrustEntry{Kind: "petname", Petname: f.Name, Peer: f.Peer, Mixed: mixed(string(f.Name)), Since: f.Since}
}

func choiceEntry(c share.Choice) TrustEntry {
	return TrustEntry{Kind: "choice", Name: c.Name, Peer: c.Publisher, ID: c.ID, Tier: &c.Tier, Among: c.Among,
		Mixed: mixed(string(c.Name)), Since: c.Since}
}

func mixed(name string) string { return strings.Join(share.MixedScripts(name), ", ") }

// likeInBook is what a petname or a name looks like of those that the book has; "" for
// nothing.
func likeInBook(t share.Trust, e TrustEntry) string {
	if e.Kind == "choice" {
		return t.Lookalikes().Like(string(e.Name))
	}
	var petnames share.Lookalikes
	for _, f := range t.Friends {
		petnames.Add(string(f.Name))
	}
	return petnames.Like(string(e.Petname))
}

// changeNames answers POST /names/OP.
func (s *Server) changeNames(w http.ResponseWriter, r *http.Request) {
	req, ok := decode[NamesRequest](w, r)
	if !ok {
		return
	}
	op := r.PathValue("op")
	entry, err := s.changeBook(op, req)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	if trust, err := s.cfg.Library.Trust(); err == nil && op == "trust" {
		entry.Like = likeInBook(trust, entry)
	}
	newStream(w, r, contentTypeLines).send(&NamesChanged{Op: op, TrustEntry: entry})
}

func (s *Server) changeBook(op string, req NamesRequest) (entry TrustEntry, err error) {
	switch op {
	case "trust", "untrust":
		return s.changeTrust(op, req)
	case "forget":
		name, err := share.ParseName(req.Name)
		if err == nil {
			err = s.cfg.Library.Forget(name)
		}
		return TrustEntry{Kind: "choice", Name: name}, err
	case "block", "unblock":
		p, id, err := s.cfg.Library.ParseBlocked(req.What)
		if err != nil {
			return entry, err
		}
		change := s.cfg.Library.Block
		if op == "unblock" {
			change = s.cfg.Library.Unblock
		}
		return TrustEntry{Kind: "block", Peer: p, ID: id}, change(p, id)
	}
	return entry, Errorf(CodeUsage, "unknown op %q", share.Escape(op))
}

func (s *Server) changeTrust(op string, req NamesRequest) (entry TrustEntry, err error) {
	p, err := s.cfg.Library.ParsePublisher(req.Who)
	if err != nil {
		return entry, err
	}
	switch {
	case op == "untrust":
		return TrustEntry{Kind: "petname", Peer: p}, s.cfg.Library.Untrust(p)
	case req.Petname != "":
		petname, err := share.ParsePetname(req.Petname)
		if err != nil {
			return entry, err
		}
		f, err := s.cfg.Library.TrustPeer(p, petname)
		return friendEntry(f), err
	}
	name, err := share.ParseName(req.Name)
	if err != nil {
		return entry, err
	}
	c, err := s.cfg.Library.TrustName(name, p)
	return choiceEntry(c), err
}

func newSource(t share.Tried) *Source {
	line := &Source{Source: t.Source, Peer: t.Peer, Found: t.Found, Addr: t.Addr, Via: t.Via, Bytes: t.Bytes, Count: t.Count, Error: t.Error}
	if !t.Issued.IsZero() {
		line.Age = max(seconds(time.Since(t.Issued)), 0)
	}
	return line
}
