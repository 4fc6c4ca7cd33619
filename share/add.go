package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// AddOptions are the options of one Add. The zero value shares publicly under
// the path's own name.
type AddOptions struct {
	// Name to publish under; empty: the path's base name.
	Name string
	// Hidden takes entries of a directory whose name begins with a dot, too.
	Hidden bool
	// Exclude are patterns of entries to leave out, as in a .p2pignore file.
	Exclude []string
	Scope   Scope
	// Mirrors are the URLs of the raw file that its manifest names, at most
	// MirrorsMax; see ParseMirror. A directory has none.
	Mirrors []string
	// Note is a line about it for people, in its manifest; see ParseNote.
	Note string
	// Watch keeps the share as path is, while Run runs, now and after a restart:
	// see Library.Watch.
	Watch bool
	// Progress, if set, is called from one goroutine at a time.
	Progress func(Progress)
	// Warn, if set, gets a line about each thing left out, safe for a terminal.
	Warn func(string)
}

// Add shares the file or directory at path, in place: it is hashed, and its
// bytes stay where they are. What was shared from path before is replaced;
// files that have not changed since are not read again, and where nothing has,
// only a new manifest is written.
//
// It returns ErrNotShareable for special files and for the home, ErrModified
// for a file that does not stand still, ErrBadName for a name that can't be
// published, ErrBadNote for a note, and the system's errors for a path that can't be read. After an
// error what was shared from path before is shared still.
func (l *Library) Add(ctx context.Context, path string, o AddOptions) (Share, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Share{}, err
	}
	a, s, err := (&adding{library: l, path: path, options: o}).tries(ctx)
	if err == nil && (o.Watch || a.previous.Watch != nil) {
		l.watcher.look()
	}
	return s, err
}

// tries runs a, and anew as long as it takes. It returns the run that came last.
func (a *adding) tries(ctx context.Context) (*adding, Share, error) {
	begin := func(compare bool) (Share, error) {
		a = &adding{library: a.library, path: a.path, options: a.options, only: a.only, enter: a.enter,
			compare: compare, warned: a.warned, progress: newMeter(a.options.Progress, PhaseHashing)}
		return a.run(ctx)
	}
	s, err := begin(true)
	if errors.Is(err, errChanged) {
		s, err = begin(false)
	}
	if errors.Is(err, errOutboardGone) {
		// What was known of its files is not known any more: hash them.
		s, err = begin(false)
	}
	if err != nil {
		var inner *fs.PathError
		if errors.As(err, &inner) && inner.Path == a.path {
			return a, Share{}, err // names the path already
		}
		return a, Share{}, fmt.Errorf("%s: %w", Escape(a.path), err)
	}
	return a, s, nil
}

// adding is one Add at work.
type adding struct {
	library  *Library
	path     string
	options  AddOptions
	progress *meter

	own      []fileIdentity // files and directories of the home
	key      shareKey
	previous shareRecord // with key 0 when path was not shared
	batch    []hashedFile

	// compare: write nothing down, and end with errChanged at the first difference
	// from previous.
	compare bool
	// warned are warnings that an Add that compared has given, and that the one
	// which follows it does not repeat.
	warned map[string]bool

	// watch is what is recorded of it when it is watched, else nil.
	watch *watchRecord
	// only, when it is not 0, is the share that is brought up to date, and no other:
	// then nothing is published where nothing has changed.
	only  shareKey
	enter func(dir string) // if set, called before each directory is read: absolute

	hashed atomic.Int64 // bytes that were read to name files
	found  atomic.Int64 // files that were found where they were moved to
}

// entering is told of each directory before it is read.
func (a *adding) entering(local string) {
	if a.enter != nil {
		a.enter(filepath.Join(a.path, filepath.FromSlash(local)))
	}
}

// warnedMax is how many warnings are remembered. More are given twice.
const warnedMax = 1000

// errChanged: path holds something else than what was shared from it before. Add
// it anew, from the start: until the difference nothing was read or written.
var errChanged = errors.New("changed since it was added")

func (a *adding) run(ctx context.Context) (Share, error) {
	if a.options.Watch {
		a.watch = &watchRecord{Hidden: a.options.Hidden, Exclude: a.options.Exclude, Scanned: time.Now().UnixNano()}
	}
	name := a.options.Name
	if name == "" {
		name = filepath.Base(a.path)
	}
	published, err := ParseName(name)
	if err != nil {
		return Share{}, err
	}
	note, err := ParseNote(a.options.Note)
	if err != nil {
		return Share{}, err
	}
	info, err := os.Stat(a.path)
	if err != nil {
		return Share{}, err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return Share{}, fmt.Errorf("it is %s: %w", describeMode(info.Mode()), ErrNotShareable)
	}
	kind := KindFile
	if info.IsDir() {
		kind = KindDir
	}
	if err := checkMirrors(kind, a.options.Mirrors); err != nil {
		return Share{}, err
	}
	if err := a.refuseHome(); err != nil {
		return Share{}, err
	}
	if a.previous, _, err = a.library.catalog.byPath(a.path); err != nil {
		return Share{}, err
	}
	if a.only != 0 && a.previous.key != a.only {
		return Share{}, errReplaced
	}
	s := Share{
		Name: published, Path: a.path, Kind: KindFile, Files: 1,
		State: StateShared, Scope: a.options.Scope, Added: time.Now().UTC().Truncate(time.Second),
		Mirrors: a.options.Mirrors, Note: note, Watched: a.options.Watch,
	}
	if info.IsDir() {
		s.Kind, s.Files = KindDir, 0
	}
	if a.compare {
		return a.again(ctx, s, info)
	}
	if info.IsDir() { // a single file is recorded with its share
		if a.key, err = a.library.catalog.begin(a.path); err != nil {
			return Share{}, err
		}
	}
	err = a.content(ctx, &s, info)
	if err == nil {
		err = ctx.Err() // small files are hashed without asking
	}
	if err == nil {
		err = a.publish(s)
	}
	if err != nil {
		if a.key != 0 {
			err = errors.Join(err, a.library.catalog.remove(a.key))
		}
		return Share{}, errors.Join(err, a.library.dropListing(s))
	}
	if old := a.previous; old.key != 0 && old.Name != "" && old.Name != s.Name {
		a.warnf("it was shared as %s until now, and no longer is", Escape(string(old.Name)))
	}
	a.progress.flush()
	return s, nil
}

// content sets what s says of the file or directory at a.path.
func (a *adding) content(ctx context.Context, s *Share, info fs.FileInfo) error {
	if s.Kind == KindDir {
		return a.dir(ctx, s)
	}
	a.progress.expect(info.Size())
	return a.file(ctx, s)
}

// publish makes s live, and ends what it replaces.
func (a *adding) publish(s Share) error {
	r := shareRecord{Share: s, Watch: a.watch, key: a.key, instead: a.only}
	return a.library.replace(a.previous, func() error { return a.library.publish(r, a.batch...) })
}

// warnf may be called from several goroutines.
func (a *adding) warnf(format string, args ...any) {
	if a.options.Warn == nil {
		return
	}
	line := fmt.Sprintf(format, args...)
	a.progress.exclusive(func() {
		if a.warned[line] {
			return
		}
		if a.compare && len(a.warned) < warnedMax {
			if a.warned == nil {
				a.warned = map[string]bool{}
			}
			a.warned[line] = true
		}
		a.options.Warn(line)
	})
}
