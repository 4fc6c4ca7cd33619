package share

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// Times of a watched share. Where a scan takes long, all of them are longer.
const (
	// watchQuiet is how long nothing must have changed before a share is scanned:
	// who saves ten files makes one version, and a file that is being written is
	// rarely read before it is whole.
	watchQuiet = 500 * time.Millisecond
	// watchLate is how long what never stands still is put off.
	watchLate = 5 * time.Second
	// watchAgain is how often a share is scanned whose changes are told by the
	// system: it may forget some.
	watchAgain = 10 * time.Minute
	// watchPoll is how often one is scanned whose changes are not told.
	watchPoll = 30 * time.Second
	// watchRest is how many times as long as its last scan took a share is left alone
	// between two scans without a reason.
	watchRest = 20
)

// changesMax is how many changes wait for who looks at Changes.
const changesMax = 64

// errReplaced: the share is shared no more, or was added anew meanwhile.
var errReplaced = errors.New("replaced meanwhile")

// watchRecord is what the catalog keeps of a share that is watched.
type watchRecord struct {
	Hidden  bool     `json:"hidden,omitempty"` // as it was added
	Exclude []string `json:"exclude,omitempty"`
	Scanned int64    `json:"scanned"` // when the walk began that it was recorded by, Unix nanoseconds
}

// Watch tells how a watched share is kept up to date.
type Watch struct {
	// Events: the system tells of changes, and they show within seconds. Otherwise
	// they show at the next scan; Problem says why.
	Events  bool          `json:"events"`
	Dirs    int           `json:"dirs"`    // directories whose changes are told
	Scanned time.Time     `json:"scanned"` // when the last scan ended; zero: none has
	Every   time.Duration `json:"-"`       // between two scans at most
	Problem string        `json:"problem"` // one line, safe for a terminal; empty: none
}

// Change is a watched share that was brought up to date, or could not be.
type Change struct {
	Share  Share      // as it is now
	Was    content.ID // what it was
	Hashed int64      // bytes that were read to name what is new
	Moved  int64      // files that were found where they were moved to, and not read
	Err    error      // why it stays as it was; Share is that
}

// watcher keeps the shares that are watched as their files are. One loop owns the
// roots; the system's events come in through note.
type watcher struct {
	library *Library
	wake    chan struct{} // capacity 1: something is to be done
	dirs    dirEvents

	mu      sync.Mutex
	changed bool                    // guarded by mu: look at what is watched
	roots   map[string]*watchedRoot // guarded by mu: by path
	seen    map[chan Change]bool    // guarded by mu: who looks at changes
}

// watchedRoot is one share that is watched.
type watchedRoot struct {
	path  string
	files int64
	in    map[string]bool // directories whose changes are told for it; the loop's

	// Guarded by the watcher's mu.
	hidden      bool
	now         bool      // scan it at once
	first, last time.Time // of the changes since the last scan began; zero: none
	scanned     time.Time // when the last scan ended
	took        time.Duration
	events      bool
	dirs        int
	problem     string
}

func newWatcher(l *Library) watcher {
	return watcher{library: l, wake: make(chan struct{}, 1), changed: true,
		roots: map[string]*watchedRoot{}, seen: map[chan Change]bool{}}
}

// Watching tells how the share at path is kept up to date, while Run runs. It is not
// ok when that is not watched.
func (l *Library) Watching(path string) (Watch, bool) {
	w := &l.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.roots[path]
	if !ok {
		return Watch{}, false
	}
	return Watch{Events: r.events, Dirs: r.dirs, Scanned: r.scanned, Every: r.every(), Problem: r.problem}, true
}

// Changes yields what becomes of watched shares, from now on until ctx ends. Of more
// than 64 that wait the oldest are left out.
func (l *Library) Changes(ctx context.Context) iter.Seq[Change] {
	w := &l.watcher
	c := make(chan Change, changesMax)
	w.mu.Lock()
	w.seen[c] = true
	w.mu.Unlock()
	return func(yield func(Change) bool) {
		defer func() {
			w.mu.Lock()
			delete(w.seen, c)
			w.mu.Unlock()
		}()
		for {
			select {
			case change := <-c:
				if !yield(change) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// tell gives a change to all who look.
func (w *watcher) tell(change Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.seen {
		for sent := false; !sent; {
			select {
			case c <- change:
				sent = true
			default:
				select {
				case <-c:
				default:
				}
			}
		}
	}
}

// look has the loop look at which shares are watched.
func (w *watcher) look() {
	w.mu.Lock()
	w.changed = true
	w.mu.Unlock()
	w.poke()
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run watches until ctx ends, and returns nil then.
func (w *watcher) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer w.close()
		for ctx.Err() == nil {
			w.sync(ctx, g)
			r, wait := w.next(time.Now())
			if r != nil && wait <= 0 {
				w.scan(ctx, r)
				continue
			}
			due := time.NewTimer(wait)
			select {
			case <-w.wake:
			case <-due.C:
			case <-ctx.Done():
			}
			due.Stop()
		}
		return nil
	})
	return g.Wait()
}

// close ends the system's events.
func (w *watcher) close() {
	w.mu.Lock()
	w.roots, w.changed = map[string]*watchedRoot{}, true
	w.mu.Unlock()
	if w.dirs.notify != nil {
		w.dirs.notify.Close()
	}
	w.dirs = dirEvents{}
}

// sync makes the roots those that the catalog says, if that has changed.
func (w *watcher) sync(ctx context.Context, g *errgroup.Group) {
	w.mu.Lock()
	changed := w.changed
	w.changed = false
	w.mu.Unlock()
	if !changed {
		return
	}
	now := map[string]shareRecord{}
	for r, err := range w.library.catalog.shares() {
		if err != nil {
			w.library.log.Warn("look for watched shares", "err", err)
			return
		}
		if r.Watch != nil {
			now[r.Path] = r
		}
	}
	if len(now) > 0 {
		w.open(ctx, g)
	}
	var gone []*watchedRoot
	w.mu.Lock()
	for path, r := range w.roots {
		if _, ok := now[path]; !ok {
			delete(w.roots, path)
			gone = append(gone, r)
		}
	}
	for path, record := range now {
		r := w.roots[path]
		if r == nil {
			r = &watchedRoot{path: path, files: record.Files, in: map[string]bool{}}
			w.roots[path] = r
		}
		r.hidden, r.now = record.Watch.Hidden, true
	}
	w.mu.Unlock()
	for _, r := range gone {
		w.leave(r, nil)
	}
}

// open has the system tell of changes, once anything is watched.
func (w *watcher) open(ctx context.Context, g *errgroup.Group) {
	if w.dirs.uses != nil {
		return
	}
	w.dirs.uses = map[string]int{}
	w.dirs.notify, w.dirs.failed = fsnotify.NewWatcher()
	if w.dirs.failed != nil {
		w.dirs.notify = nil
		w.library.log.Warn("the system tells of no changes: watched shares are scanned", "err", w.dirs.failed)
		return
	}
	notify := w.dirs.notify // ends with close
	g.Go(func() error {
		w.collect(ctx, notify)
		return nil
	})
}

// collect takes the system's events until notify is closed.
func (w *watcher) collect(ctx context.Context, notify *fsnotify.Watcher) {
	for {
		select {
		case e, ok := <-notify.Events:
			if !ok {
				return
			}
			w.note(e.Name)
		case err, ok := <-notify.Errors:
			if !ok {
				return
			}
			if ctx.Err() == nil {
				w.library.log.Info("changes were lost: watched shares are scanned", "err", err)
			}
			w.noteAll()
		}
	}
}

// note marks the roots that path is in. It waits for nothing but the lock: whoever
// adds a directory waits until the system's events are taken.
func (w *watcher) note(path string) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for dir := path; ; dir = filepath.Dir(dir) {
		if r := w.roots[dir]; r != nil && r.concerns(path[len(dir):]) {
			if r.first.IsZero() {
				w.poke()
			}
			r.mark(now)
		}
		if dir == filepath.Dir(dir) {
			return
		}
	}
}

func (w *watcher) noteAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.roots {
		r.mark(time.Now())
	}
	w.poke()
}

// concerns tells whether a scan looks at what is below the root at rest.
func (r *watchedRoot) concerns(rest string) bool {
	name := filepath.Base(rest)
	return rest == "" || !holdsPartialName(name) && (r.hidden || name == ignoreFile || !strings.Contains(rest, string(filepath.Separator)+"."))
}

// mark notes a change.
func (r *watchedRoot) mark(at time.Time) {
	if r.first.IsZero() {
		r.first = at
	}
	r.last = at
}

// every is how long there is between two scans at most.
func (r *watchedRoot) every() time.Duration {
	if r.events {
		return max(watchAgain, watchRest*r.took)
	}
	return max(watchPoll, watchRest*r.took)
}

// due is when r is to be scanned.
func (r *watchedRoot) due() time.Time {
	if r.now {
		return time.Time{}
	}
	at := r.scanned.Add(r.every())
	if r.first.IsZero() {
		return at
	}
	soon, late := r.last.Add(max(watchQuiet, r.took)), r.first.Add(max(watchLate, 5*r.took))
	if late.Before(soon) {
		soon = late
	}
	if soon.Before(at) {
		return soon
	}
	return at
}

// next returns the root that is to be scanned first, and in what time; nil for none.
func (w *watcher) next(now time.Time) (first *watchedRoot, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait = watchAgain
	for _, r := range w.roots {
		if d := r.due().Sub(now); first == nil || d < wait {
			first, wait = r, d
		}
	}
	return first, wait
}
