package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// VerifyOptions are the options of one Verify.
type VerifyOptions struct {
	// Peers are asked first for what is damaged in the store.
	Peers []peer.AddrInfo
	// Progress, if set, is called from one goroutine at a time.
	Progress func(Progress)
}

// Verified tells what Verify has found of one share, or of one held content.
type Verified struct {
	ID   content.ID
	Kind Kind
	Name Name   // of a share
	Path string // of a share; empty: it is held in the store
	Scrubbed
	// Err is why what is damaged was not repaired; nil: nothing is damaged any more.
	Err error
}

// Verify reads again what is shared from here and what is held, all of it or, when
// what is not empty, what that means: a name, an ID, a link, or an absolute path. It
// calls found with each. What is damaged in the store is repaired as Scrub does; a
// shared file is its owner's and is left alone, but not served any more when it is
// not what was shared. ErrNotShared: what means nothing that is here.
func (l *Library) Verify(ctx context.Context, what string, o VerifyOptions, found func(Verified) error) error {
	any := false
	each := func(v Verified, err error) error {
		any = true
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.Err = err
		return found(v)
	}
	for r, err := range l.sharesOf(what) {
		if err != nil {
			return err
		}
		if err := each(l.verifyShare(ctx, r, o)); err != nil {
			return err
		}
	}
	for h, err := range l.heldOfWhat(ctx, what) {
		if err != nil {
			return err
		}
		if h.Adopted {
			continue // as a share
		}
		s, err := l.Scrub(ctx, h.ID, ScrubOptions{Sources: o.Peers, Progress: o.Progress})
		if errors.Is(err, ErrNotHeld) {
			continue // released meanwhile
		}
		if err := each(Verified{ID: h.ID, Kind: h.Kind, Scrubbed: s}, err); err != nil {
			return err
		}
	}
	if !any && what != "" {
		return fmt.Errorf("%s: %w", Escape(what), ErrNotShared)
	}
	return nil
}

// sharesOf yields the shares that what means, or all.
func (l *Library) sharesOf(what string) func(func(shareRecord, error) bool) {
	if what == "" {
		return l.catalog.shares()
	}
	return func(yield func(shareRecord, error) bool) {
		records, err := l.lookup(what)
		if err != nil && !errors.Is(err, ErrNotShared) {
			yield(shareRecord{}, err)
			return
		}
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// heldOfWhat yields the held content whose ID what names, or all.
func (l *Library) heldOfWhat(ctx context.Context, what string) func(func(Held, error) bool) {
	if what == "" {
		return l.Holding(ctx)
	}
	return func(yield func(Held, error) bool) {
		w, err := ParseWhat(what)
		if err != nil || w.ID.IsZero() {
			return
		}
		h, ok, err := l.Held(w.ID)
		if ok || err != nil {
			yield(h, err)
		}
	}
}

// verifyShare reads all files of a share.
func (l *Library) verifyShare(ctx context.Context, r shareRecord, o VerifyOptions) (Verified, error) {
	v := Verified{ID: r.ID, Kind: r.Kind, Name: r.Name, Path: r.Path}
	s := &scrubbing{library: l, meter: newMeter(o.Progress, PhaseVerifying)}
	s.meter.begin(PhaseVerifying, r.Size)
	var wrong error
	for f, err := range l.catalog.filesOfShare(r.key) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return v, err
		}
		if err := s.sharedFile(ctx, f); err != nil {
			s.damaged.Add(1)
			if wrong == nil {
				wrong = err
			}
		}
	}
	s.meter.flush()
	v.Scrubbed = s.found()
	return v, wrong
}

// sharedFile reads a shared file, and has it not served any more when it is not what
// was hashed.
func (s *scrubbing) sharedFile(ctx context.Context, f heldFile) error {
	h, err := s.library.openUnchanged(ctx, f)
	if errors.Is(err, ErrModified) {
		return fmt.Errorf("%s: %w", Escape(f.path), err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is gone: %w", Escape(f.path), ErrModified)
	}
	if err != nil {
		return err // names the path
	}
	defer h.close()
	id, _, err := hashContent(ctx, pacedReader{ctx, s, h.file}, h.identity.size, s.pace == nil, func(int) {})
	if err == nil && id == f.id {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil || errors.Is(err, ErrModified) {
		// Its times are as they were: the disk has changed it, or somebody who hid it.
		changed := h.record
		changed.modified = true
		err = errors.Join(ErrModified, s.library.catalog.updateFile(changed))
	}
	return fmt.Errorf("%s: %w", Escape(f.path), err)
}

// Collected tells what Collect has removed.
type Collected struct {
	Bytes int64 // on the disk
	Holds int64 // that were begun and not finished
	Cache int64 // bytes of Bytes that were in the cache of readers
}

// Collect removes from the store what is of no use: files without a record, and what
// holds have left that are neither whole nor under way. Those that are wanted begin
// anew.
func (l *Library) Collect(ctx context.Context) (c Collected, err error) {
	for h, err := range l.Unfinished(ctx) {
		if err != nil {
			return c, err
		}
		before := l.Usage()
		collected, err := l.store.collect(ctx, h.ID)
		if err != nil {
			return c, err
		}
		if collected {
			after := l.Usage()
			c.Holds++
			c.Bytes += max(0, before.Used+before.Overhead-after.Used-after.Overhead)
		}
	}
	freed, err := l.store.sweep()
	c.Bytes += freed
	if err != nil {
		return c, err
	}
	c.Cache, err = l.cache.clear()
	c.Bytes += c.Cache
	return c, err
}

// collect drops an unfinished hold, unless somebody is at it.
func (s *store) collect(ctx context.Context, id content.ID) (bool, error) {
	s.mu.Lock()
	busy := s.busy[id] != nil
	s.mu.Unlock()
	if busy {
		return false, nil
	}
	leave, err := s.enter(ctx, id)
	if err != nil {
		return false, err
	}
	defer leave()
	r, ok, err := s.catalog.hold(id)
	if err != nil || !ok || r.stage != holdFetching {
		return false, err
	}
	return true, s.drop(ctx, id)
}
