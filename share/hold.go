package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// Hold has the store hold a content: it is fetched as a get fetches it, from
// o.Sources first, and verified, on the disk and recorded when Hold returns. While
// it comes others are served what is there. What is held already is returned at
// once, and contents that another hold has are not fetched.
//
// At most 8 are fetched at a time; more wait.
//
// When Hold ends early, by an error or by ctx, what was fetched stays, and counts:
// the next Hold of it goes on from there, and Release cleans it up.
//
// Errors: ErrOverQuota before anything is fetched; ErrNoSpace when the disk is full;
// ErrOversize, and ErrBadListing for a directory that is none: both will be so the
// next time, too; ErrNotFound, ErrUnreachable and ErrCorrupt as Get's; ErrRefused on a
// visitor, which holds nothing.
func (l *Library) Hold(ctx context.Context, id content.ID, o HoldOptions) (Held, error) {
	if l.visitor {
		return Held{}, fmt.Errorf("a visitor holds nothing: %w", ErrRefused)
	}
	if o.Kind == "" {
		o.Kind = KindFile
	}
	leave, err := l.store.enter(ctx, id)
	if err != nil {
		return Held{}, err
	}
	defer leave()
	r, known, err := l.catalog.hold(id)
	if err != nil {
		return Held{}, err
	}
	if known && r.stage == holdDropping {
		if err := l.store.drop(ctx, id); err != nil {
			return Held{}, err
		}
		known = false
	}
	if known && r.stage == holdWhole && (r.kind == o.Kind || o.Kind == KindFile) &&
		(!r.adopted || o.Adopt && l.store.stands(id, r)) {
		return l.store.describe(id, r)
	}
	if o.Adopt {
		if r, ok, err := l.store.adopt(ctx, id, o); ok || err != nil {
			return r.held(id), err
		}
	}
	if !known || r.adopted || r.kind != o.Kind {
		r = holdRecord{stage: holdFetching, kind: o.Kind, bytes: r.bytes}
		if err := l.catalog.putHold(id, r); err != nil {
			return Held{}, noSpace(err)
		}
	}
	return l.store.fetch(ctx, id, o)
}

// holding is one Hold at work, on what has to be fetched.
type holding struct {
	store   *store
	id      content.ID
	options HoldOptions
	getting *getting
	dir     string   // of the files that have come
	root    *os.Root // dir

	flushing sync.Mutex // held while a batch goes to its places

	mu       sync.Mutex   // guards all below
	reserved charge       // what is left of it
	batch    []hashedFile // files that have come, in dir
	bytes    int64        // of batch
}

// fetch brings a content into the store.
func (s *store) fetch(ctx context.Context, id content.ID, o HoldOptions) (_ Held, err error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return Held{}, ctx.Err()
	}
	whole := ctx
	ctx, cancel := context.WithCancel(ctx)
	m := newMeter(o.Progress, PhaseLocal)
	g := &getting{library: s.library, holding: true, meter: m, crowd: s.library.newCrowd(m)}
	g.crowd.pace = &s.library.holdRate
	h := &holding{store: s, id: id, options: o, getting: g, dir: s.newDir(id)}
	var ticking sync.WaitGroup
	ticking.Go(func() { tickUntil(ctx, m) })
	s.begun(id)
	err = h.run(ctx)
	g.stopServing()
	cancel()
	g.crowd.close()
	ticking.Wait()
	m.flush()
	s.giveBack(h.reserved)
	if err != nil {
		if whole.Err() != nil {
			err = whole.Err() // whatever failed, failed because of it
		}
		return Held{}, errors.Join(err, s.setUnfinished(id))
	}
	if err := os.RemoveAll(h.dir); err != nil {
		return Held{}, err
	}
	r, _, err := s.catalog.hold(id)
	if err != nil {
		return Held{}, err
	}
	s.library.announceHeld(id)
	return r.held(id), nil
}

func (h *holding) run(ctx context.Context) (err error) {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return noSpace(err)
	}
	if h.root, err = os.OpenRoot(h.dir); err != nil {
		return err
	}
	defer h.root.Close()
	h.findSources(ctx)
	if h.options.Kind == KindDir {
		return h.directory(ctx)
	}
	return h.file(ctx)
}

// findSources offers those that were given, or asks the networks when there are
// none; they are asked, too, when those don't have it.
func (h *holding) findSources(ctx context.Context) {
	for _, p := range h.options.Sources {
		h.getting.crowd.offer(ctx, p)
	}
	if len(h.options.Sources) == 0 {
		h.getting.crowd.listen(ctx, h.id)
		h.getting.crowd.search(ctx, h.id)
	}
}

// file holds a file.
func (h *holding) file(ctx context.Context) error {
	whole := func(r *holdRecord) {
		r.stage, r.kind, r.files, r.size, r.verified = holdWhole, KindFile, 1, r.bytes, time.Now().UnixNano()
	}
	stored, there, err := h.store.catalog.stored(h.id)
	if err != nil {
		return err
	}
	if there {
		if _, err := h.store.catalog.claim(h.id, []part{{h.id, partRecord{size: stored.size}}}); err != nil {
			return err
		}
		return h.record(nil, whole)
	}
	room := &holdRoom{holding: h, max: h.options.Size}
	if room.max == 0 {
		room.max = content.SizeMax
	} else if err := room.take(room.max); err != nil {
		return err
	}
	f, err := h.one(ctx, h.id, room)
	if err != nil {
		return err
	}
	return h.flush([]hashedFile{f}, whole)
}

// one fetches one content that lies by itself: a file, or a listing.
func (h *holding) one(ctx context.Context, id content.ID, room *holdRoom) (hashedFile, error) {
	s := &saving{
		getting: h.getting, root: h.root, name: id.Hex(), id: id, size: -1, hint: -1,
		meter: h.getting.meter, replace: true, room: room,
	}
	if err := s.run(ctx); err != nil {
		return hashedFile{}, err
	}
	if err := room.prepare(s.size); err != nil { // it may have been there
		return hashedFile{}, err
	}
	return s.hashed(filepath.Join(h.dir, id.Hex())), nil
}

// holdRoom is the room that one content of a hold has.
type holdRoom struct {
	holding *holding
	max     int64 // bytes that the content may have

	mu    sync.Mutex
	taken charge // guarded by mu: reserved for it
}

// admit refuses a content that is said to be too large.
func (r *holdRoom) admit(size int64) error {
	if size > r.max {
		return fmt.Errorf("%s: it has %d bytes, and %d were said: %w", r.holding.id, size, r.max, ErrOversize)
	}
	return nil
}

// prepare reserves what is proved to be needed.
func (r *holdRoom) prepare(size int64) error {
	if err := r.admit(size); err != nil {
		return err
	}
	return r.take(size)
}

func (r *holdRoom) take(size int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	need := chargeOf(size)
	if err := r.holding.reserve(need.minus(r.taken)); err != nil {
		return err
	}
	r.taken = need
	return nil
}

// reserve takes room for c more, or gives some back.
func (h *holding) reserve(c charge) error {
	if err := h.store.reserve(c); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reserved = h.reserved.plus(c)
	return nil
}

// flush moves files that have come to their places, and records them.
func (h *holding) flush(files []hashedFile, change func(*holdRecord)) error {
	h.flushing.Lock()
	defer h.flushing.Unlock()
	h.getting.meter.phase(PhaseWriting)
	if err := syncFiles(h.dir, files); err != nil {
		return noSpace(err)
	}
	h.store.changing.Lock()
	defer h.store.changing.Unlock()
	if err := h.store.place(files); err != nil {
		return noSpace(err)
	}
	return h.record(files, change)
}

// record records files that are in their places.
func (h *holding) record(files []hashedFile, change func(*holdRecord)) error {
	used, err := h.store.catalog.putStored(h.id, files, change)
	if err != nil {
		return noSpace(err)
	}
	var came charge
	for _, f := range files {
		came = came.plus(chargeOf(f.record.identity.size))
	}
	h.mu.Lock()
	came = came.atMost(h.reserved)
	h.reserved = h.reserved.minus(came)
	h.mu.Unlock()
	h.store.settle(came, used)
	return nil
}

// SetHoldRate bounds what Hold and Scrub fetch, all together, in bytes a second,
// beside what SetLimits bounds; 0: no limit.
func (l *Library) SetHoldRate(bytesPerSecond int64) { l.holdRate.setRate(bytesPerSecond) }
