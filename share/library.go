package share

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// List yields what is shared from here, in the order it was added, each with
// its state as the disk shows it now: a file whose times have changed is read
// again, and a directory is looked at by its root only.
func (l *Library) List(ctx context.Context) iter.Seq2[Share, error] {
	return func(yield func(Share, error) bool) {
		for r, err := range l.catalog.shares() {
			if err == nil {
				r.State, err = l.surely(ctx, r)
			}
			if !yield(r.Share, err) || err != nil {
				return
			}
		}
	}
}

// stateTouched is a file of the right size whose times have changed: only its
// bytes can tell whether it is shared or modified.
const stateTouched State = "touched"

// surely is state, with touched files read.
func (l *Library) surely(ctx context.Context, r shareRecord) (State, error) {
	state, err := l.state(r)
	if err != nil || state != stateTouched {
		return state, err
	}
	f, ok, err := l.catalog.file(r.key, r.Path)
	if err != nil || !ok {
		return StateModified, err
	}
	h, err := l.openUnchanged(ctx, heldFile{fileRecord: f, path: r.Path, share: r.key})
	if err != nil {
		return StateModified, nil
	}
	h.close()
	return StateShared, nil
}

// state is what a look at a share's root tells, without reading it.
func (l *Library) state(r shareRecord) (State, error) {
	info, err := os.Stat(r.Path)
	if err != nil {
		return StateMissing, nil
	}
	if r.Kind == KindDir {
		if !info.IsDir() {
			return StateModified, nil
		}
		return StateShared, nil
	}
	f, ok, err := l.catalog.file(r.key, r.Path)
	if err != nil {
		return "", err
	}
	now := sysIdentity(info)
	switch {
	case !ok || !info.Mode().IsRegular() || f.identity.size != now.size || f.modified && f.identity == now:
		return StateModified, nil
	case f.identity.mtime != now.mtime || f.modified:
		return stateTouched, nil
	}
	return StateShared, nil
}

// Lookup returns the shares that what means: an absolute path, an ID, a link
// or a name. It returns ErrNotShared when there is none.
func (l *Library) Lookup(what string) ([]Share, error) {
	records, err := l.lookup(what)
	shares := make([]Share, 0, len(records))
	for _, r := range records {
		shares = append(shares, r.Share)
	}
	return shares, err
}

// lookupMax bounds how many shares of one name or ID are taken together.
const lookupMax = 1000

func (l *Library) lookup(what string) ([]shareRecord, error) {
	if filepath.IsAbs(what) {
		r, ok, err := l.catalog.byPath(filepath.Clean(what))
		if err == nil && !ok {
			err = fmt.Errorf("%s: %w", Escape(what), ErrNotShared)
		}
		if err != nil {
			return nil, err
		}
		return []shareRecord{r}, nil
	}
	w, err := ParseWhat(what)
	if err != nil {
		return nil, err
	}
	var found []shareRecord
	switch {
	case !w.ID.IsZero():
		found, err = l.catalog.byID(w.ID, lookupMax)
	case w.Group == "": // a group's index is not the library's to read
		found, err = l.catalog.byName(nameDigest(w.Name), lookupMax)
		found = slices.DeleteFunc(found, func(r shareRecord) bool {
			return !strings.HasPrefix(r.ID.Hex(), w.Prefix) ||
				w.Publisher != "" && (r.Envelope == nil || r.Envelope.Sender != w.Publisher)
		})
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s: %w", Escape(what), ErrNotShared)
	}
	return found, err
}

// Remove stops sharing what: the files stay, nothing is served from now on, its name is
// withdrawn in the DHTs while Run runs, and provider records expire within 48 hours. It
// returns what was removed, and ErrNotShared when there was nothing.
func (l *Library) Remove(ctx context.Context, what string) ([]Share, error) {
	records, err := l.lookup(what)
	if err != nil {
		return nil, err
	}
	var removed []Share
	for _, r := range records {
		keys, err := l.keysOf(r)
		if err != nil {
			return removed, err
		}
		if err := l.catalog.remove(r.key); err != nil {
			return removed, err
		}
		l.touch()
		if r.Watch != nil {
			l.watcher.look()
		}
		removed = append(removed, r.Share)
		if err := l.withdraw(keys); err != nil {
			return removed, err
		}
		if err := l.dropListing(r.Share); err != nil {
			return removed, err
		}
	}
	return removed, ctx.Err()
}
