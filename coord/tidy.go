package coord

import (
	"context"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// tidyEvery is how often copies are looked for that no group of this peer's wants.
const tidyEvery = time.Minute

// tidy drops the copies of groups that this peer has left, until ctx ends. Those of a
// group that put it out, is split, or can't be read stay: they may be all that is left
// of it, and a person may bring it back.
func (c *Coord) tidy(ctx context.Context) error {
	if c.holds == nil {
		return nil
	}
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := c.holds.load(ctx); err != nil || !c.mayTidy() {
			continue
		}
		ids := c.holds.left()
		for id := range c.holds.snapshot() {
			ids = append(ids, id)
		}
		for _, id := range ids {
			if ctx.Err() == nil && !c.wantedElsewhere(nil, id) {
				c.drop(ctx, id)
			}
		}
	}
}

// mayTidy says whether it is known of all groups what they want: this peer takes part
// in them, or has left them by itself, and there is one that it has left.
func (c *Coord) mayTidy() bool {
	left := len(c.Groups()) == 0
	for _, g := range c.Groups() {
		f := g.known()
		switch {
		case f.parked() == nil && g.Err() == nil:
		case f.Split == nil && f.Removed != nil && f.Removed.By == c.self():
			left = true
		default:
			return false
		}
	}
	return left
}

// drop lets go of a copy.
func (c *Coord) drop(ctx context.Context, id content.ID) {
	if err := c.holds.store.Release(ctx, id); err != nil {
		c.log.Warn("a copy can't be dropped", "id", id, "err", err)
		return
	}
	c.holds.look(id)
	c.holds.leave(id, false)
	c.log.Debug("a copy was dropped", "id", id)
}
