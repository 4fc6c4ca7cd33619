package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// scan brings one share up to date.
func (w *watcher) scan(ctx context.Context, r *watchedRoot) {
	w.mu.Lock()
	r.now, r.first, r.last = false, time.Time{}, time.Time{}
	w.mu.Unlock()
	start := time.Now()
	e := &entered{watcher: w, root: r, dirs: map[string]bool{}}
	e.enter(filepath.Dir(r.path)) // where it may be replaced, or come back
	change, published, err := w.library.rescan(ctx, r.path, e.enter)
	if ctx.Err() != nil {
		return
	}
	w.leave(r, e.dirs)
	if errors.Is(err, errReplaced) {
		w.look()
		return
	}
	problem := ""
	if e.problem != nil {
		problem = "changes are found by scanning: " + Escape(e.problem.Error())
	}
	if err != nil {
		problem = Escape(err.Error())
	}
	w.mu.Lock()
	news := problem != r.problem
	r.scanned, r.took, r.problem = time.Now(), time.Since(start), problem
	r.events, r.dirs = e.problem == nil && err == nil, len(e.dirs)
	r.files = change.Share.Files
	w.mu.Unlock()
	if news && problem != "" {
		w.library.log.Warn("watched share", "path", r.path, "problem", problem)
	}
	change.Err = err
	if published || err != nil && news {
		w.tell(change)
	}
}

// rescan brings the share at path up to date, and tells whether a new version of it
// was published. enter is told of each directory before it is read. It returns
// errReplaced when what is shared from path is not watched any more.
func (l *Library) rescan(ctx context.Context, path string, enter func(dir string)) (_ Change, published bool, err error) {
	r, ok, err := l.catalog.byPath(path)
	if err == nil && (!ok || r.Watch == nil) {
		err = errReplaced
	}
	change := Change{Share: r.Share, Was: r.ID}
	if err != nil {
		return change, false, err
	}
	a, s, err := (&adding{library: l, path: path, only: r.key, enter: enter, options: AddOptions{
		Name: string(r.Name), Hidden: r.Watch.Hidden, Exclude: r.Watch.Exclude, Scope: r.Scope, Mirrors: r.Mirrors, Note: r.Note, Watch: true,
	}}).tries(ctx)
	if err != nil {
		return change, false, err
	}
	change.Share, change.Hashed, change.Moved = s, a.hashed.Load(), a.found.Load()
	if a.compare {
		return change, false, nil
	}
	l.log.Info("watched share has changed", "path", path, "id", s.ID, "bytes", change.Hashed)
	return change, true, l.announceAnew(path)
}

// announceAnew has what is shared from path announced.
func (l *Library) announceAnew(path string) error {
	r, ok, err := l.catalog.byPath(path)
	if err != nil || !ok {
		return err
	}
	k, err := l.keysOf(r)
	if err != nil {
		return err
	}
	l.keepProviding(k)
	l.announceLater(r.key)
	return nil
}

// entered has the system tell of changes in the directories of one walk.
type entered struct {
	watcher *watcher
	root    *watchedRoot
	dirs    map[string]bool // whose changes are told
	problem error           // why not of all
}

// enter is called before a directory is read: what changes after that is told.
func (e *entered) enter(dir string) {
	if e.problem == nil && e.root.files > watchFilesMax {
		e.problem = fmt.Errorf("it has more than %d files", int64(watchFilesMax))
	}
	if e.problem != nil {
		return
	}
	err := e.watcher.dirs.add(dir, !e.dirs[dir] && !e.root.in[dir])
	switch {
	case err == nil:
		e.dirs[dir] = true
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		// It can't be read either, which is told elsewhere.
	default:
		e.problem = err
	}
}

// leave keeps the directories of r that are in keep, and lets go of the others.
func (w *watcher) leave(r *watchedRoot, keep map[string]bool) {
	for dir := range r.in {
		if !keep[dir] {
			w.dirs.release(dir)
		}
	}
	r.in = keep
}
