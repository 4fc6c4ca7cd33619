package share

import (
	"context"
	"io/fs"

	"github.com/p2pshare/p2pshare/share/content"
)

// again publishes what was shared from a.path before, as s, when all of it is
// there unchanged. Its records stay, and nothing is read but the directories.
func (a *adding) again(ctx context.Context, s Share, info fs.FileInfo) (Share, error) {
	l, old := a.library, a.previous
	if old.key == 0 || old.Kind != s.Kind || old.Name != s.Name {
		return Share{}, errChanged
	}
	// A share that is added becomes the newest of its name.
	if a.only == 0 {
		same, err := l.catalog.byName(nameDigest(s.Name), 1)
		if err != nil {
			return Share{}, err
		}
		if len(same) == 0 || same[0].key != old.key {
			return Share{}, errChanged
		}
	}
	// Of a share that was not watched the inodes are not known.
	if a.watch != nil && old.Watch == nil {
		return Share{}, errChanged
	}
	if err := a.content(ctx, &s, info); err != nil {
		return Share{}, err
	}
	// Each file is one of the old ones, by its path: as many are all.
	if s.ID != old.ID || s.Attrs != old.Attrs || s.Files != old.Files {
		return Share{}, errChanged
	}
	if err := ctx.Err(); err != nil {
		return Share{}, err
	}
	if a.only != 0 {
		a.progress.flush()
		return old.Share, nil
	}
	r := shareRecord{Share: s, Stage: stageLive, Watch: a.watch, key: old.key}
	var err error
	publish := func() error {
		_, err := l.signAndRecord(&r, func() (shareKey, error) { return 0, l.catalog.renew(r) })
		return err
	}
	if s.Scope == old.Scope {
		// What it is announced by stays.
		err = publish()
		l.touch()
	} else {
		err = l.replace(old, publish)
	}
	if err != nil {
		return Share{}, err
	}
	a.progress.flush()
	return s, nil
}

// sameListing returns the ID of the listing, or errChanged when it is not as it was
// recorded.
func (a *adding) sameListing(ctx context.Context, listing *listingFile) (content.ID, error) {
	id, _, err := listing.name(ctx)
	if err != nil {
		return id, err
	}
	path := a.library.listingPath(id)
	now, err := identifyPath(path)
	if err != nil {
		return id, errChanged
	}
	_, ok, err := a.known(path, now)
	if err == nil && !ok {
		err = errChanged
	}
	return id, err
}
