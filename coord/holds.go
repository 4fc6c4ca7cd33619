package coord

import (
	"context"
	"iter"
	"maps"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// Store is where a peer keeps the copies that its groups plan for it. A
// *share.Library is one; see there for what each method does.
type Store interface {
	Hold(context.Context, content.ID, share.HoldOptions) (share.Held, error)
	Release(context.Context, content.ID) error
	Held(content.ID) (share.Held, bool, error)
	Holding(context.Context) iter.Seq2[share.Held, error]
	Unfinished(context.Context) iter.Seq2[share.Held, error]
	SetQuota(bytes int64)
	SetHoldRate(bytesPerSecond int64)
	Usage() share.Usage
	Scrub(context.Context, content.ID, share.ScrubOptions) (share.Scrubbed, error)
	Challenge(context.Context, content.ID, share.Kind, peer.AddrInfo) error
}

const (
	// fetchesMax is how many contents a peer fetches at once for all its groups: the
	// bound by member on what a repair or a join moves. Small contents wait for one
	// another's round trips; of large ones two fill a disk.
	fetchesMax = 8
	// fetchStall is how long a fetch may bring nothing before its place is given to
	// another one.
	fetchStall = 30 * time.Second
	// FetchMaxDefault is how many bytes a second a peer fetches for its groups:
	// nearly what one gigabit Ethernet carries.
	FetchMaxDefault = 100 << 20
)

// holds is a peer's store and what is known of it, for all its groups.
type holds struct {
	store Store
	slots chan struct{} // has room for fetchesMax

	mu      sync.Mutex
	loaded  bool                      // guarded by mu: have is what the store has
	have    map[content.ID]share.Held // guarded by mu
	moving  map[content.ID]*moving    // guarded by mu: what is being fetched
	partial map[content.ID]bool       // guarded by mu: of what a fetch that ended early left something
	adopts  map[content.ID]bool       // guarded by mu: see Coord.WillAdopt
	quota   int64                     // guarded by mu: as the store was told; -1: not yet
}

// moving is a fetch under way.
type moving struct {
	started time.Time
	told    share.Progress
}

func newHolds(store Store, bytesPerSecond int64) *holds {
	if store == nil {
		return nil
	}
	if bytesPerSecond == 0 {
		bytesPerSecond = FetchMaxDefault
	}
	store.SetHoldRate(bytesPerSecond)
	return &holds{store: store, slots: make(chan struct{}, fetchesMax),
		have: map[content.ID]share.Held{}, partial: map[content.ID]bool{}, adopts: map[content.ID]bool{}, moving: map[content.ID]*moving{}, quota: -1}
}

// load reads what the store has, once.
func (h *holds) load(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loaded {
		return nil
	}
	have := map[content.ID]share.Held{}
	for x, err := range h.store.Holding(ctx) {
		if err != nil {
			return err
		}
		have[x.ID] = x
	}
	partial := map[content.ID]bool{}
	for x, err := range h.store.Unfinished(ctx) {
		if err != nil {
			return err
		}
		partial[x.ID] = true
	}
	h.have, h.partial, h.loaded = have, partial, true
	return nil
}

// snapshot returns what the store has.
func (h *holds) snapshot() map[content.ID]share.Held {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.have)
}

// oldest returns what was verified longest ago, without what is not to be tried yet;
// the zero ID when there is nothing.
func (h *holds) oldest(again map[content.ID]time.Time, now time.Time) (id content.ID, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, x := range h.have {
		if (id.IsZero() || x.Verified.Before(at)) && now.After(again[i]) {
			id, at = i, x.Verified
		}
	}
	return id, at
}

// bytes is what all that is held takes.
func (h *holds) bytes() (n int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.have {
		n += x.Bytes
	}
	return n
}

func (h *holds) has(id content.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, here := h.have[id]
	return here
}

// look reads again how one content is.
func (h *holds) look(id content.ID) {
	x, there, err := h.store.Held(id)
	if err != nil {
		return // as it was known; the next scrub finds out
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if there {
		h.have[id] = x
	} else {
		delete(h.have, id)
	}
}

// setQuota tells the store how much it may take.
func (h *holds) setQuota(bytes int64) {
	h.mu.Lock()
	changed := h.quota != bytes
	h.quota = bytes
	h.mu.Unlock()
	if changed {
		h.store.SetQuota(bytes)
	}
}

// begin says whether a content may be fetched now: there is a place, and nobody
// fetches it yet. done gives the place back.
func (h *holds) begin(id content.ID) (m *moving, ok bool) {
	select {
	case h.slots <- struct{}{}:
	default:
		return nil, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.moving[id] != nil {
		<-h.slots
		return nil, false
	}
	m = &moving{started: time.Now()}
	h.moving[id] = m
	return m, true
}

func (h *holds) done(id content.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.moving, id)
	<-h.slots
}

// leave notes whether something is left of a fetch that ended early.
func (h *holds) leave(id content.ID, partial bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if partial {
		h.partial[id] = true
	} else {
		delete(h.partial, id)
	}
}

// left returns of what there are parts only, without what is being fetched.
func (h *holds) left() (ids []content.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range h.partial {
		if h.moving[id] == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// adopt notes that a share in place is to be the copy of a content, or that it is.
func (h *holds) adopt(id content.ID, will bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if will {
		h.adopts[id] = true
	} else {
		delete(h.adopts, id)
	}
}

func (h *holds) willAdopt(id content.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.adopts[id]
}

// told notes how far a fetch is.
func (h *holds) told(m *moving, p share.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.told = p
}

// busy says whether anything is being fetched.
func (h *holds) busy() bool { return len(h.slots) > 0 }

// full says whether there is no place for another fetch.
func (h *holds) full() bool { return len(h.slots) == cap(h.slots) }
