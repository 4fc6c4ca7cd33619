package control

import (
	"bytes"
	"context"
	"time"

	"github.com/p2pshare/p2pshare/coord"
)

const (
	pinsShown     = 200              // pins of a group in one event
	pinsAgain     = 15 * time.Second // a look at copies though the index is the same
	pinsFollowing = 5 * time.Second  // between two questions to a group that is only followed
)

// PinsNow is the event pins: what a group has pinned, by content ID, and how the
// copies are.
type PinsNow struct {
	Group string    `json:"group"`
	ID    string    `json:"id"`
	Pins  []PinLine `json:"pins"`
	More  int       `json:"more,omitempty"` // pins that were left out
}

// pinsFollowed tells one client of the events how pins and their copies are. A
// group is looked at again when its index is another, which each pin and each copy
// that was verified or lost makes it, and each second while copies are on their way.
type pinsFollowed struct {
	server *Server
	out    *eventStream
	told   map[coord.GroupID]*pinsTold
}

// pinsTold is what was told of one group.
type pinsTold struct {
	index   uint64 // the applied one that was looked at
	looked  time.Time
	asked   time.Time // for the index
	copying bool
	last    []byte
}

func (f *pinsFollowed) look(ctx context.Context) error {
	known := map[coord.GroupID]bool{}
	for _, g := range f.server.cfg.Coord.Known() {
		known[g.ID] = true
		if f.told[g.ID] == nil {
			f.told[g.ID] = &pinsTold{}
		}
		if err := f.lookAt(ctx, g, f.told[g.ID]); err != nil {
			return err
		}
	}
	for id := range f.told {
		if !known[id] {
			delete(f.told, id) // GroupsNow tells that it is gone
		}
	}
	return nil
}

// lookAt fails as the connection does. What a group does not answer now is asked for the
// next time: GroupsNow tells what is wrong with it.
func (f *pinsFollowed) lookAt(ctx context.Context, g coord.Known, told *pinsTold) error {
	if g.Follows && time.Since(told.asked) < pinsFollowing {
		return nil
	}
	told.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, groupWait)
	defer cancel()
	cl := f.server.cfg.Coord.Client(g.ID)
	st, _, err := cl.Status(ctx)
	if err != nil || st.Applied == told.index && !told.copying && time.Since(told.looked) < pinsAgain {
		return nil
	}
	for page, err := range cl.PinPages(ctx, coord.ReadOptions{Stale: true}) {
		if err != nil {
			return nil
		}
		return f.tell(ctx, g, told, st, page)
	}
	return nil
}

// tell sends the first pins of a group, if they are others than before or stand otherwise.
func (f *pinsFollowed) tell(ctx context.Context, g coord.Known, told *pinsTold, st coord.Status, page coord.PinPage) error {
	pins := page.Pins[:min(len(page.Pins), pinsShown)]
	has := f.server.cfg.Coord.Client(g.ID).Holdings(ctx, pins)
	now := &PinsNow{Group: g.Name, ID: g.ID.String(), Pins: []PinLine{}, More: max(0, st.Pins-len(pins))}
	told.index, told.looked, told.copying = st.Applied, time.Now(), false
	for _, p := range pins {
		for _, line := range pinLines(p, has[p.ID], page, pinListing{}) {
			now.Pins = append(now.Pins, line)
			told.copying = told.copying || line.Health == string(coord.HealthCopying)
		}
	}
	data, err := encode(now)
	if err != nil || bytes.Equal(data, told.last) {
		return err
	}
	told.last = data
	return f.out.write("pins", data)
}
