package control

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/p2pshare/p2pshare/coord"
)

// MemberLine is one line of GET /groups/members.
type MemberLine struct {
	Peer     coord.Peer  `json:"peer"`
	Vote     coord.Vote  `json:"vote"`
	MayVote  bool        `json:"may_vote"`
	Waiting  string      `json:"waiting,omitempty"` // why one that may vote has no vote yet
	Roles    coord.Roles `json:"roles"`
	Zone     string      `json:"zone"`
	Capacity int64       `json:"capacity"` // bytes for copies
	NoStore  bool        `json:"no_store,omitempty"`
	Planned  int64       `json:"planned"`            // bytes of copies that are to be on it
	Away     bool        `json:"away,omitempty"`     // not heard for the grace time: copies are made elsewhere
	Suspect  bool        `json:"suspect,omitempty"`  // not heard for a while
	Unproven bool        `json:"unproven,omitempty"` // could not prove what it holds: nothing of it counts
	Addrs    []string    `json:"addrs"`
	By       coord.Peer  `json:"by"`    // who admitted it
	Index    uint64      `json:"index"` // the log index at which
	Stale    bool        `json:"stale,omitempty"`
	Age      float64     `json:"age_s,omitempty"`
}

// ChangeLine is one line of GET /groups/log.
type ChangeLine struct {
	Index   uint64     `json:"index"`
	Time    time.Time  `json:"time"` // on the leader's clock
	By      coord.Peer `json:"by"`
	What    string     `json:"what"`
	Subject string     `json:"subject"` // a name, an ID, a peer: hostile text
	Stale   bool       `json:"stale,omitempty"`
	Earlier bool       `json:"earlier,omitempty"` // in the first line: there are earlier ones
}

// freshness is how fresh an answer has to be: neither takes the best there is.
type freshness struct {
	stale bool // what is known here, without asking the others
	fresh bool // what the group confirms, or nothing
}

func freshnessOf(r *http.Request) (f freshness) {
	f.stale, _ = strconv.ParseBool(r.URL.Query().Get("stale"))
	f.fresh, _ = strconv.ParseBool(r.URL.Query().Get("fresh"))
	return f
}

// mayFallBack says whether the last known state will do after this error.
func (f freshness) mayFallBack(err error) bool { return !f.stale && !f.fresh && coord.Unavailable(err) }

// errorOf is ErrorOf, but what was not fresh in time is that the group has no quorum.
func (f freshness) errorOf(err error) *Error {
	if f.fresh && errors.Is(err, context.DeadlineExceeded) {
		err = coord.ErrNoQuorum
	}
	return ErrorOf(err)
}

// readWait bounds a fresh answer: an election takes a second.
const readWait = 4 * time.Second

// best asks for what the group confirms, and if that may be for what is known here.
func best[T any](ctx context.Context, f freshness, ask func(context.Context, coord.ReadOptions) (T, error)) (v T, stale bool, err error) {
	if !f.stale {
		bounded, cancel := context.WithTimeout(ctx, readWait)
		defer cancel()
		if v, err = ask(bounded, coord.ReadOptions{}); !f.mayFallBack(err) || ctx.Err() != nil {
			return v, false, err
		}
	}
	v, err = ask(ctx, coord.ReadOptions{Stale: true})
	return v, true, err
}

func (s *Server) listMembers(w http.ResponseWriter, r *http.Request) {
	c, g, ok := s.knownGroup(w, r)
	if !ok {
		return
	}
	how := freshnessOf(r)
	cl := c.Client(g.ID)
	var age time.Duration
	members, stale, err := best(r.Context(), how, func(ctx context.Context, o coord.ReadOptions) ([]coord.Member, error) {
		list, f, err := cl.Members(ctx, o)
		age = f.Age
		return list, err
	})
	if err != nil {
		writeError(w, how.errorOf(err))
		return
	}
	out := newStream(w, r, contentTypeLines)
	for _, m := range members {
		line := MemberLine{Peer: m.Peer, Vote: m.Vote, MayVote: m.MayVote, Waiting: coord.Waiting(members, m), Roles: m.Roles,
			Zone: m.Zone, Capacity: m.Capacity, NoStore: m.NoStore, Planned: m.Planned,
			Away: m.Away, Suspect: m.Suspect, Unproven: m.Unproven, Addrs: append([]string{}, m.Addrs...), By: m.By, Index: m.Index, Stale: stale}
		if stale {
			line.Age = age.Seconds()
		}
		if out.sendLine(line) != nil {
			return
		}
	}
}

func (s *Server) listChanges(w http.ResponseWriter, r *http.Request) {
	c, g, ok := s.knownGroup(w, r)
	if !ok {
		return
	}
	query := r.URL.Query()
	since, err := strconv.ParseUint(cmp.Or(query.Get("since"), "0"), 10, 64)
	limit, err2 := strconv.Atoi(cmp.Or(query.Get("limit"), "0"))
	if err != nil || err2 != nil || limit < 0 {
		writeError(w, Errorf(CodeUsage, "since and limit are numbers, 0 or more"))
		return
	}
	how := freshnessOf(r)
	cl := c.Client(g.ID)
	changes, stale, err := best(r.Context(), how, func(ctx context.Context, o coord.ReadOptions) ([]coord.Change, error) {
		return lastChanges(ctx, cl, since, limit, o)
	})
	if err != nil {
		writeError(w, how.errorOf(err))
		return
	}
	earlier := limit > 0 && len(changes) > limit
	if earlier {
		changes = changes[len(changes)-limit:]
	}
	out := newStream(w, r, contentTypeLines)
	for i, c := range changes {
		line := ChangeLine{Index: c.Index, Time: time.UnixMilli(c.At).UTC(), By: c.By, What: c.Op.String(), Subject: c.Subject,
			Stale: stale, Earlier: earlier && i == 0}
		if out.sendLine(line) != nil {
			return
		}
	}
}

// changesMax bounds what a member may send: the group keeps 10,000.
const changesMax = 20_000

// lastChanges returns the last changes above a log index, and if there are more
// than limit one more than that; 0 is no limit.
func lastChanges(ctx context.Context, cl *coord.Client, since uint64, limit int, o coord.ReadOptions) (list []coord.Change, err error) {
	count := 0
	for c, err := range cl.Log(ctx, since, o) {
		if err != nil {
			return nil, err
		}
		if count++; count > changesMax {
			return nil, errors.New("the member's answer has no end")
		}
		if list = append(list, c); limit > 0 && len(list) > 2*limit {
			list = slices.Delete(list, 0, len(list)-limit-1)
		}
	}
	return list, nil
}
