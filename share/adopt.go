package share

import (
	"context"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// adopt has a share in place count as a held copy, if there is one that is whole,
// and for everybody: each file is as it was when it was hashed. What was begun of a
// copy in the store is dropped for it.
func (s *store) adopt(ctx context.Context, id content.ID, o HoldOptions) (r holdRecord, ok bool, err error) {
	records, err := s.catalog.byID(id, lookupMax)
	if err != nil {
		return r, false, err
	}
	for _, share := range records {
		if !adoptable(share, o.Kind) {
			continue
		}
		whole, err := s.library.whole(ctx, share)
		if err != nil {
			return r, false, err
		}
		if !whole {
			continue
		}
		if err := s.drop(ctx, id); err != nil {
			return r, false, err
		}
		r = holdRecord{stage: holdWhole, kind: o.Kind, adopted: true, size: share.Size, files: share.Files, verified: time.Now().UnixNano()}
		return r, true, noSpace(s.catalog.putHold(id, r))
	}
	return r, false, nil
}

func adoptable(r shareRecord, kind Kind) bool {
	return r.Kind == kind && r.Scope.To == "" && !r.Scope.LANOnly
}

// whole reports whether each file of a share is as it was hashed.
func (l *Library) whole(ctx context.Context, r shareRecord) (bool, error) {
	if state, err := l.state(r); err != nil || state == StateMissing {
		return false, err
	}
	for f, err := range l.catalog.filesOfShare(r.key) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, err
		}
		h, err := l.openUnchanged(ctx, f)
		if err != nil {
			return false, ctx.Err()
		}
		h.close()
	}
	return true, nil
}

// stands reports whether the share that was adopted is still there, as far as a look
// at it tells. A directory's files are looked at by Scrub.
func (s *store) stands(id content.ID, r holdRecord) bool {
	records, err := s.catalog.byID(id, lookupMax)
	if err != nil {
		return false
	}
	for _, share := range records {
		if adoptable(share, r.kind) && s.library.servable(share) {
			return true
		}
	}
	return false
}
