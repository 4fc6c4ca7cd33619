package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// claimMax is how many files of a directory are claimed in one transaction.
	claimMax = 8192
	// flushBytes and batchMax are how much may have come that is not recorded: so
	// much of it a crash between the move and the record loses.
	flushBytes = 64 << 20
)

// directory holds a directory: its listing first, then each content that it lists
// once, under its ID.
func (h *holding) directory(ctx context.Context) error {
	size, err := h.listing(ctx)
	if err != nil {
		return err
	}
	f, err := os.Open(h.store.path(h.id))
	if err != nil {
		return err
	}
	defer f.Close()
	t, _, err := h.getting.survey(&listingFile{file: f, size: size})
	if errors.Is(err, ErrNotFound) { // of an empty directory
		t, err = &tree{getting: h.getting, listing: &listingFile{file: f, size: size}}, nil
	}
	if err != nil {
		return err
	}
	if h.options.Size > 0 && t.size > h.options.Size {
		return fmt.Errorf("%s: its files have %d bytes, and %d were said: %w", h.id, t.size, h.options.Size, ErrOversize)
	}
	missing, err := h.claim(t.listing)
	if err != nil {
		return err
	}
	if err := h.reserve(missing); err != nil {
		return err
	}
	if err := h.fill(ctx, t, missing.bytes); err != nil {
		return err
	}
	return h.flush(h.take(), func(r *holdRecord) {
		r.stage, r.kind, r.size, r.files, r.verified = holdWhole, KindDir, t.size, t.files, time.Now().UnixNano()
	})
}

// listing brings the listing, and returns its size.
func (h *holding) listing(ctx context.Context) (int64, error) {
	stored, there, err := h.store.catalog.stored(h.id)
	if err != nil {
		return 0, err
	}
	if there {
		if err := h.mend(ctx, stored.size); err != nil {
			return 0, err
		}
		_, err := h.store.catalog.claim(h.id, []part{{h.id, partRecord{size: stored.size}}})
		return stored.size, err
	}
	f, err := h.one(ctx, h.id, &holdRoom{holding: h, max: listingMax})
	if err != nil {
		return 0, err
	}
	return f.record.identity.size, h.flush([]hashedFile{f}, func(*holdRecord) {})
}

// claim makes all that the listing names part of the hold, and returns what of it
// has to be fetched.
func (h *holding) claim(listing *listingFile) (missing charge, err error) {
	batch := make([]part, 0, claimMax)
	flush := func() error {
		_, err := h.store.catalog.claim(h.id, batch)
		batch = batch[:0]
		return err
	}
	for e, err := range listing.entries() {
		if err != nil {
			return missing, err
		}
		if e.Kind != KindFile {
			continue
		}
		if batch = append(batch, part{e.ID, partRecord{size: e.Size}}); len(batch) == claimMax {
			if err := flush(); err != nil {
				return missing, err
			}
		}
	}
	if err := flush(); err != nil {
		return missing, err
	}
	for p, err := range h.store.catalog.parts(h.id) { // each once
		if err != nil {
			return missing, err
		}
		if !p.there {
			missing = missing.plus(chargeOf(p.size))
		}
	}
	return missing, nil
}

// fill fetches what is missing, by the engine that fills a get's directory.
func (h *holding) fill(ctx context.Context, t *tree, missing int64) error {
	t.hold, t.target = h, h.dir
	inside, err := readDir(h.dir)
	if err != nil {
		return err
	}
	t.fresh = len(inside) == 0
	if err := checkSpaceIn(h.dir, missing); t.fresh && err != nil {
		return err
	}
	h.getting.meter.begin(PhaseFetching, missing)
	return newFilling(t, h.root, false).run(ctx)
}

// wanted is tree.wanted for a hold: each missing content once, under its ID.
func (h *holding) wanted(fn func(e Entry, local string) error) error {
	for p, err := range h.store.catalog.parts(h.id) {
		if err != nil {
			return err
		}
		if p.there {
			continue
		}
		name := p.id.Hex()
		if err := fn(Entry{Path: Path(name), Kind: KindFile, ID: p.id, Size: p.size}, name); err != nil {
			return err
		}
	}
	return nil
}

// saved is tree.saved for a hold.
func (h *holding) saved(local string, f hashedFile) error {
	f.path = filepath.Join(h.dir, local)
	h.mu.Lock()
	h.batch = append(h.batch, f)
	h.bytes += f.record.identity.size
	full := len(h.batch) >= batchMax || h.bytes >= flushBytes
	h.mu.Unlock()
	if !full {
		return nil
	}
	if batch := h.take(); len(batch) > 0 {
		return h.flush(batch, func(*holdRecord) {})
	}
	return nil
}

// take returns the files that are not recorded yet.
func (h *holding) take() []hashedFile {
	h.mu.Lock()
	defer h.mu.Unlock()
	batch := h.batch
	h.batch, h.bytes = nil, 0
	return batch
}

// checkSpaceIn is checkSpace by a directory's name.
func checkSpaceIn(dir string, need int64) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return checkSpace(d, need)
}

// mend makes sure of a listing that was in the store already.
func (h *holding) mend(ctx context.Context, size int64) error {
	m := &scrubbing{library: h.store.library, crowd: h.getting.crowd, meter: h.getting.meter}
	return m.content(ctx, part{h.id, partRecord{there: true, size: size}})
}
