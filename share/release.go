package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/p2pshare/p2pshare/share/content"
)

// Release lets go of a content: its files are removed, but for those that another
// hold needs, and what an unfinished Hold has left. It waits for a Hold that is at
// it: cancel that first. What is not held is no error.
func (l *Library) Release(ctx context.Context, id content.ID) error {
	leave, err := l.store.enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	_, known, err := l.catalog.hold(id)
	if err != nil || !known {
		return err
	}
	k, err := l.heldKeys(id)
	if err != nil {
		return err
	}
	if err := l.store.drop(ctx, id); err != nil {
		return fmt.Errorf("release %s: %w", id, err)
	}
	return l.withdraw(k)
}

// drop removes a hold, from wherever it stands.
func (s *store) drop(ctx context.Context, id content.ID) error {
	r, ok, err := s.catalog.hold(id)
	if err != nil || !ok {
		return err
	}
	r.stage = holdDropping
	if err := s.catalog.putHold(id, r); err != nil {
		return err
	}
	if err := os.RemoveAll(s.newDir(id)); err != nil {
		return err
	}
	s.begun(id) // nothing lies there any more
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err // a later Hold or Release, or the next Open, goes on
		}
		if more, err = s.dropSome(id); err != nil {
			return err
		}
	}
	return s.catalog.forgetHold(id)
}

// dropSome removes some of a hold's contents. Their records go first: a crash leaves
// files that no record names, and a hold that says so.
func (s *store) dropSome(id content.ID) (more bool, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	gone, freed, more, err := s.catalog.removeParts(id)
	if err != nil {
		return false, err
	}
	for _, id := range gone {
		if e := os.Remove(s.path(id)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	s.settle(charge{}, charge{}.minus(freed))
	return more, err
}

// openStore brings the store in order: holds on their way out go, and files that no
// record names.
func openStore(l *Library) (*store, error) {
	s := &store{
		library: l, catalog: l.catalog, dir: filepath.Join(l.dir, "store"),
		slots: make(chan struct{}, holdsParallel), unfinished: map[content.ID]charge{}, busy: map[content.ID]chan struct{}{},
	}
	var err error
	if s.used, err = l.catalog.used(); err != nil {
		return nil, err
	}
	if err := s.order(); err != nil {
		return nil, fmt.Errorf("store %s: %w", s.dir, err)
	}
	return s, nil
}

// order looks for files without a record only when a hold is on its way in or out:
// only then there can be any.
func (s *store) order() error {
	var dropping, fetching []content.ID
	var after *content.ID
	for more := true; more; {
		page, err := s.catalog.holdsAfter(after)
		if err != nil {
			return err
		}
		more = len(page) == pageMax
		for _, at := range page {
			after = &at.id
			switch at.stage {
			case holdDropping:
				dropping = append(dropping, at.id)
			case holdFetching:
				fetching = append(fetching, at.id)
			}
		}
	}
	for _, id := range dropping {
		if err := s.drop(context.Background(), id); err != nil {
			return err
		}
	}
	if err := s.clearNew(); err != nil {
		return err
	}
	for _, id := range fetching {
		if err := s.setUnfinished(id); err != nil {
			return err
		}
	}
	if len(dropping)+len(fetching) == 0 {
		return nil
	}
	_, err := s.sweep()
	return err
}

// clearNew removes what holds have left that are no more on their way in.
func (s *store) clearNew() error {
	dir := filepath.Join(s.dir, "new")
	entries, err := readDir(dir)
	for _, e := range entries {
		id, err := content.Parse(e.Name())
		if err == nil {
			r, ok, err := s.catalog.hold(id)
			if err != nil {
				return err
			}
			if ok && r.stage == holdFetching {
				continue
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return err
}

// sweep removes the files of the store that no record names, and returns how many
// bytes they had.
func (s *store) sweep() (freed int64, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	dirs, err := readDir(s.dir)
	if err != nil {
		return 0, err
	}
	for _, d := range dirs {
		if len(d.Name()) != 2 || !d.IsDir() {
			continue
		}
		dir := filepath.Join(s.dir, d.Name())
		files, err := readDir(dir)
		if err != nil {
			return freed, err
		}
		for _, f := range files {
			if id, err := content.Parse(f.Name()); err == nil {
				if _, ok, err := s.catalog.stored(id); ok || err != nil {
					if err != nil {
						return freed, err
					}
					continue
				}
			}
			if info, err := f.Info(); err == nil {
				freed += info.Size()
			}
			if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
				return freed, err
			}
		}
	}
	return freed, nil
}

// readDir is os.ReadDir for a directory that may not be there.
func readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
