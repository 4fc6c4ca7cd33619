package control

import (
	"context"
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// PinState tells how a pin's copies are.
type PinState struct {
	State    string  `json:"state"`           // in words, as "ok 3/3", "copying 62 %"
	Health   string  `json:"health"`          // the word alone: ok, copying, degraded, lost, no room
	Verified int     `json:"verified"`        // copies
	Wanted   int     `json:"wanted"`          // copies
	Done     int64   `json:"done"`            // bytes of all wanted copies that are there
	Total    int64   `json:"total"`           // bytes of all wanted copies
	Left     float64 `json:"eta_s,omitempty"` // seconds; 0 when not known
}

func pinState(h coord.PinHealth) PinState {
	return PinState{h.String(), string(h.Health), h.Verified, h.Wanted, h.Done, h.Total, h.Left}
}

// PinCopy is a verified copy.
type PinCopy struct {
	Peer coord.Peer `json:"peer"`
	// Verified is when the member read all of it and found it right last; nil when it
	// was not asked, or has not answered.
	Verified *time.Time `json:"verified"`
}

// PinHolder is a member that is to hold a copy.
type PinHolder struct {
	Peer  coord.Peer `json:"peer"`
	State string     `json:"state"`          // verified, fetching, waiting, no_room, no_source, failed, silent
	Done  int64      `json:"done,omitempty"` // bytes
}

// PinLine is one line of GET /pins.
type PinLine struct {
	Name     string     `json:"name"` // empty: it was pinned without one
	ID       content.ID `json:"id"`
	Kind     share.Kind `json:"kind"`
	Size     int64      `json:"size"`
	Replicas int        `json:"replicas"`
	PinState
	Copies  []PinCopy    `json:"copies"`             // verified ones
	All     bool         `json:"all,omitempty"`      // every member is to hold it
	Doubted []coord.Peer `json:"unproven,omitempty"` // who could not prove that it holds a copy
	Absent  []coord.Peer `json:"absent,omitempty"`   // who has a copy and is not there
	Remedy  string       `json:"remedy,omitempty"`   // what a person can do, one line

	Holders []PinHolder  `json:"holders,omitempty"` // with explain: who is to hold it, in the plan's order
	Reserve []coord.Peer `json:"reserve,omitempty"` // with explain: who comes next
	Why     string       `json:"why,omitempty"`     // with explain

	Expires time.Time  `json:"expires,omitzero"`
	By      coord.Peer `json:"by"`
	Index   uint64     `json:"index"`
	Stale   bool       `json:"stale,omitempty"` // it is not what the group confirmed just now
	Age     float64    `json:"age_s,omitempty"` // of a stale one; negative when not known
	Cut     bool       `json:"cut,omitempty"`   // the list was longer: a follower keeps no more of it
}

// pinListing is how pins are listed.
type pinListing struct {
	coord.ReadOptions
	explain bool
}

// pinLines are the lines of a pin: one for each of its names. has is what members said
// of it.
func pinLines(p coord.Pin, has map[coord.Peer]coord.Holding, page coord.PinPage, how pinListing) (lines []PinLine) {
	h := coord.HealthOf(p, has)
	line := PinLine{ID: p.ID, Kind: share.Kind(p.Kind.String()), Size: p.Size, Replicas: p.Replicas, PinState: pinState(h),
		Copies: []PinCopy{}, Doubted: p.Unproven, Absent: p.Absent, Remedy: remedy(p, h), By: p.By, Index: p.Index, Stale: how.Stale, Cut: page.Cut}
	if p.Replicas == coord.ReplicasAll {
		line.Replicas, line.All = p.Wanted, true
	}
	for _, c := range p.Copies {
		x := PinCopy{Peer: c}
		if at := has[c].VerifiedAt(); !at.IsZero() {
			at = at.UTC()
			x.Verified = &at
		}
		line.Copies = append(line.Copies, x)
	}
	if how.explain {
		line.explain(p, has)
	}
	if how.Stale {
		line.Age = page.Age.Seconds()
	}
	if p.Expires != 0 {
		line.Expires = time.UnixMilli(p.Expires).UTC()
	}
	if len(p.Names) == 0 {
		p.Names = []string{""}
	}
	for _, line.Name = range p.Names {
		lines = append(lines, line)
	}
	return lines
}

// explain tells who is to hold a pin, and why those.
func (line *PinLine) explain(p coord.Pin, has map[coord.Peer]coord.Holding) {
	for _, peer := range p.Holders {
		x, answered := has[peer]
		h := PinHolder{Peer: peer, State: "waiting", Done: x.Done}
		switch {
		case slices.Contains(p.Copies, peer):
			h.State = "verified"
		case !answered || slices.Contains(p.Absent, peer):
			h.State = "silent"
		case x.Fetching:
			h.State = "fetching"
		case x.Problem != "":
			h.State = string(x.Problem)
		}
		line.Holders = append(line.Holders, h)
	}
	line.Reserve = p.Reserve
	switch {
	case p.Replicas == coord.ReplicasAll:
		line.Why = "every member that holds copies"
	case p.Lack == "members":
		line.Why = "all members that hold copies, are there and can prove it: there are no more"
	case p.Lack == "room":
		line.Why = "the members with room for it: none of the reserve has"
	default:
		line.Why = "the first in the order that consistent hashing gives its ID that are within their share, of as many zones as can be"
	}
}

// remedy is what a person can do for a pin that does not get its copies by itself.
func remedy(p coord.Pin, h coord.PinHealth) string {
	switch h.Health {
	case coord.HealthLost:
		return "bring back a member that has it, or pin it again where the file is"
	case coord.HealthNoRoom:
		if p.Lack == "members" {
			return "invite another member: p2pshare group invite --role storage"
		}
		return "raise a capacity: p2pshare group set --capacity SIZE; or unpin something, or invite another member"
	}
	return ""
}

const (
	copiesPoll = 250 * time.Millisecond // between two looks at the copies that are waited for
	copiesWait = 10 * time.Second       // for one look
)

// awaitCopies waits until a pin has so many verified copies, 0 for as many as are
// wanted, and tells how far they are.
func (s *Server) awaitCopies(ctx context.Context, cl *coord.Client, copies int, done *Pinned, out *stream) error {
	tick := time.NewTicker(copiesPoll)
	defer tick.Stop()
	var last PinState
	for {
		p, h, err := lookAtPin(ctx, cl, done.ID)
		switch {
		case err != nil && (!coord.Unavailable(err) || ctx.Err() != nil):
			return err
		case err == nil:
			if now := pinState(h); now != last {
				out.send(&Copied{ID: done.ID, PinState: now})
				last = now
			}
			if want := copies; h.Verified >= max(1, want) && (want > 0 || h.Health == coord.HealthOK) {
				done.fill(p, h)
				return nil
			}
			if stuck(p, h, copies) {
				return Errorf(CodeNoSpace, "pinned, with %d of %d copies: no other member has room", h.Verified, h.Wanted).WithHint("%s", remedy(p, h))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func lookAtPin(ctx context.Context, cl *coord.Client, id content.ID) (p coord.Pin, h coord.PinHealth, err error) {
	ctx, cancel := context.WithTimeout(ctx, copiesWait)
	defer cancel()
	pins, _, err := cl.PinsOf(ctx, []content.ID{id}, coord.ReadOptions{}, false)
	if err != nil {
		return p, h, err
	}
	if len(pins) == 0 {
		return p, h, Errorf(CodeNotFound, "%s is not pinned any more", id.Short())
	}
	return pins[0], coord.HealthOf(pins[0], cl.Holdings(ctx, pins)[id]), nil
}

// stuck says whether all members that are to hold a pin do, and more are wanted.
func stuck(p coord.Pin, h coord.PinHealth, copies int) bool {
	if h.Health != coord.HealthNoRoom || p.Lack == "" || copies > 0 && copies <= len(p.Holders) {
		return false
	}
	return !slices.ContainsFunc(p.Holders, func(x coord.Peer) bool { return !slices.Contains(p.Copies, x) })
}

// explained are the same pins with their reserve order.
func explained(ctx context.Context, cl *coord.Client, pins []coord.Pin, o coord.ReadOptions) []coord.Pin {
	var ids []content.ID
	for _, p := range pins {
		ids = append(ids, p.ID)
	}
	if more, _, err := cl.PinsOf(ctx, ids, o, true); err == nil && len(more) == len(pins) {
		return more
	}
	return pins
}
