package coord

import (
	"context"
	"time"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

const (
	// ScrubDefault is how often a copy at rest is read and compared with its ID. Disks
	// lose bits within months; a week costs a terabyte some 2 MB a second.
	ScrubDefault = 7 * 24 * time.Hour
	// ScrubMin is the shortest scrub period.
	ScrubMin = 5 * time.Second
	// scrubRateMin is how many bytes a second a scrub reads at least.
	scrubRateMin = 16 << 20
	scrubWait    = time.Hour // for one content
	scrubRetry   = 5 * time.Second
)

func (c *Coord) scrubPeriod() time.Duration {
	if c.config.Scrub == 0 {
		return ScrubDefault
	}
	return max(c.config.Scrub, ScrubMin)
}

// scrub reads this member's copies again, the one that was verified longest ago
// first, each when half the period has gone, so that it is done in the whole of it.
// It waits while copies are fetched, unless it is late. What is damaged, or could not
// be proved, comes at once.
func (r *replicator) scrub(ctx context.Context) error {
	period := r.g.c.scrubPeriod()
	tick := time.NewTicker(min(time.Minute, max(period/100, 200*time.Millisecond)))
	defer tick.Stop()
	again := map[content.ID]time.Time{} // what could not be mended
	for {
		id, urgent, wait := r.nextScrub(period, again, time.Now())
		if wait {
			select {
			case <-tick.C:
			case <-r.urgent:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if err := r.scrubOne(ctx, id, urgent, period); err != nil && ctx.Err() == nil {
			r.g.log.Warn("a copy can't be verified", "id", id, "err", err)
			again[id] = time.Now().Add(scrubRetry)
		} else {
			delete(again, id)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// nextScrub picks what to scrub, or tells that there is nothing to do for now.
func (r *replicator) nextScrub(period time.Duration, again map[content.ID]time.Time, now time.Time) (id content.ID, urgent, wait bool) {
	if id, ok := r.takeMend(again, now); ok {
		return id, true, false
	}
	id, oldest := r.h.oldest(again, now)
	age := now.Sub(oldest)
	if id.IsZero() || age < period/2 || age < 3*period/4 && r.h.busy() {
		return id, false, true
	}
	return id, false, false
}

// scrubOne reads one copy, and mends it from others.
func (r *replicator) scrubOne(ctx context.Context, id content.ID, urgent bool, period time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, scrubWait)
	defer cancel()
	o := share.ScrubOptions{}
	if !urgent {
		o.Rate = max(scrubRateMin, int64(4*float64(r.h.bytes())/period.Seconds()))
	}
	state := r.m.fsm.clone()
	if pin, pinned := state.Pin(id); pinned {
		o.Sources = r.sources(state, nil, pin)
	}
	s, err := r.h.store.Scrub(ctx, id, o)
	r.h.look(id)
	if s.Damaged > 0 {
		r.g.log.Warn("a copy was damaged", "id", id, "groups", s.Damaged, "fetched", s.Fetched, "err", err)
	}
	r.nudge()
	return err
}

// setMend says which copies are to be scrubbed before all others.
func (r *replicator) setMend(ids []content.ID) {
	r.mu.Lock()
	r.mend = ids
	r.mu.Unlock()
	if len(ids) > 0 {
		r.hurry()
	}
}

// addMend has one more scrubbed before all others.
func (r *replicator) addMend(id content.ID) {
	r.mu.Lock()
	r.doubted = append(r.doubted[:min(len(r.doubted), suspicionsMax)], id)
	r.mu.Unlock()
	r.hurry()
}

func (r *replicator) hurry() {
	select {
	case r.urgent <- struct{}{}:
	default: // the scrubber will look
	}
}

// takeMend takes the next copy that is to be mended and may be tried now.
func (r *replicator) takeMend(again map[content.ID]time.Time, now time.Time) (content.ID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, list := range []*[]content.ID{&r.doubted, &r.mend} {
		for len(*list) > 0 {
			id := (*list)[0]
			*list = (*list)[1:]
			if now.After(again[id]) && r.h.has(id) {
				return id, true
			}
		}
	}
	return content.ID{}, false
}
