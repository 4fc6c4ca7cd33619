package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/p2pshare/p2pshare/node"
	"golang.org/x/sync/errgroup"
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
	// Progress, if set, is called from one goroutine at a time.
	Progress func(Progress)
	// Warn, if set, gets a line about each thing left out, safe for a terminal.
	Warn func(string)
}

// Add shares the file or directory at path, in place: it is hashed, and its
// bytes stay where they are. What was shared from path before is replaced;
// files that have not changed since are not read again.
//
// It returns ErrNotShareable for special files and for the home, ErrModified
// for a file that does not stand still, ErrBadName for a name that can't be
// published, and the system's errors for a path that can't be read. After an
// error what was shared from path before is shared still.
func (l *Library) Add(ctx context.Context, path string, o AddOptions) (Share, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Share{}, err
	}
	a := &adding{library: l, path: path, options: o, progress: newMeter(o.Progress, PhaseHashing)}
	s, err := a.run(ctx)
	if errors.Is(err, errOutboardGone) {
		// What was known of its files is not known any more: hash them.
		a = &adding{library: l, path: path, options: o, progress: newMeter(o.Progress, PhaseHashing)}
		s, err = a.run(ctx)
	}
	if err != nil {
		var inner *fs.PathError
		if errors.As(err, &inner) && inner.Path == path {
			return Share{}, err // names the path already
		}
		return Share{}, fmt.Errorf("%s: %w", Escape(path), err)
	}
	return s, nil
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
}

func (a *adding) run(ctx context.Context) (Share, error) {
	name := a.options.Name
	if name == "" {
		name = filepath.Base(a.path)
	}
	published, err := ParseName(name)
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
	if a.key, err = a.library.catalog.begin(a.path); err != nil {
		return Share{}, err
	}
	s := Share{
		Name: published, Path: a.path, Kind: KindFile, Files: 1,
		State: StateShared, Scope: a.options.Scope, Added: time.Now().UTC().Truncate(time.Second),
		Mirrors: a.options.Mirrors,
	}
	if info.IsDir() {
		s.Kind, s.Files = KindDir, 0
		err = a.dir(ctx, &s)
	} else {
		a.progress.expect(info.Size())
		err = a.file(ctx, &s)
	}
	if err == nil {
		err = a.flush()
	}
	if err == nil {
		err = ctx.Err() // small files are hashed without asking
	}
	if err == nil {
		err = a.publish(s)
	}
	if err != nil {
		return Share{}, errors.Join(err, a.library.catalog.remove(a.key), a.library.dropListing(s))
	}
	if old := a.previous; old.key != 0 && old.Name != "" && old.Name != s.Name {
		a.warnf("it was shared as %s until now, and no longer is", Escape(string(old.Name)))
	}
	a.progress.flush()
	return s, nil
}

// publish makes s live, and ends what it replaces.
func (a *adding) publish(s Share) error {
	return a.library.replace(a.previous, func() error { return a.library.publish(s, a.key) })
}

// refuseHome collects what the home is made of, and refuses a path that lies
// in it, by whatever way it is named.
func (a *adding) refuseHome() error {
	l := a.library
	a.own = []fileIdentity{l.home}
	for _, dir := range slices.Compact([]string{l.dir, l.node.Dir()}) {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		names := []string{"."}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		for _, name := range names {
			if id, err := identifyPath(filepath.Join(dir, name)); err == nil {
				a.own = append(a.own, id)
			}
		}
	}
	inside, err := insideHome(a.path, a.isOwn)
	if err == nil && inside {
		err = fmt.Errorf("it belongs to a home of p2pshare: %w", ErrNotShareable)
	}
	return err
}

// insideHome reports whether an existing path is a home of p2pshare, or lies in
// one, by whatever way it is named: one that isOwn knows, or any other.
func insideHome(path string, isOwn func(fileIdentity) bool) (bool, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false, err
	}
	for {
		if id, err := identifyPath(real); err == nil && isOwn(id) || node.IsHome(real) {
			return true, nil
		}
		parent := filepath.Dir(real)
		if parent == real {
			return false, nil
		}
		real = parent
	}
}

func (a *adding) isOwn(id fileIdentity) bool {
	for _, own := range a.own {
		if own.sameFile(id) {
			return true
		}
	}
	return false
}

// file hashes the single file that a.path is.
func (a *adding) file(ctx context.Context, s *Share) error {
	h, err := a.hash(ctx, a.path, true, func(flag int) (*os.File, error) { return os.OpenFile(a.path, flag, 0) })
	if err != nil {
		return err
	}
	s.ID, s.Size = h.record.id, h.record.identity.size
	return a.put(h)
}

// hashTries is how often a file that changes under our hands is tried.
const hashTries = 3

// hash names one file, unless the catalog knows it unchanged.
func (a *adding) hash(ctx context.Context, path string, parallel bool, open func(flag int) (*os.File, error)) (hashedFile, error) {
	for try := 1; ; try++ {
		h, err := a.hashOnce(ctx, path, parallel, open)
		if err == nil || try == hashTries || !errors.Is(err, ErrModified) {
			return h, err
		}
	}
}

func (a *adding) hashOnce(ctx context.Context, path string, parallel bool, open func(flag int) (*os.File, error)) (hashedFile, error) {
	f, info, err := openShared(open)
	if err != nil {
		return hashedFile{}, err
	}
	defer f.Close()
	before := sysIdentity(info)
	if a.isOwn(before) {
		return hashedFile{}, fmt.Errorf("it belongs to the home of p2pshare: %w", ErrNotShareable)
	}
	if known, ok, err := a.library.catalog.file(a.previous.key, path); err != nil {
		return hashedFile{}, err
	} else if ok && known.identity == before && !known.modified {
		a.progress.add(before.size)
		return hashedFile{path: path, record: known}, nil
	}
	start := time.Now()
	id, outboard, err := hashContent(ctx, f, before.size, parallel, func(n int) { a.progress.add(int64(n)) })
	if err != nil {
		return hashedFile{}, err
	}
	after, err := f.Stat()
	if err != nil {
		return hashedFile{}, err
	}
	if sysIdentity(after) != before {
		return hashedFile{}, fmt.Errorf("it changed while it was read: %w", ErrModified)
	}
	return hashedFile{path: path, record: fileRecord{id: id, identity: before.settled(start)}, outboard: outboard}, nil
}

func (a *adding) put(h hashedFile) error {
	if a.batch = append(a.batch, h); len(a.batch) < batchMax {
		return nil
	}
	return a.flush()
}

func (a *adding) flush() error {
	if len(a.batch) == 0 {
		return nil
	}
	err := a.library.catalog.putFiles(a.key, a.batch)
	a.batch = a.batch[:0]
	return err
}

// treeJob is an entry on its way from the walk through a hasher to the
// listing, which takes them in the walk's order.
type treeJob struct {
	entry  walked
	result chan treeResult // capacity 1
}

type treeResult struct {
	file hashedFile
	err  error
}

// queueMax is how many entries may wait between walk and listing.
const queueMax = 512

// parallelFrom is the size from which one file is hashed by all processors,
// instead of many files by one each.
const parallelFrom = 16 << 20

// dir walks, hashes and lists the directory that a.path is, all at once.
func (a *adding) dir(ctx context.Context, s *Share) error {
	root, err := os.OpenRoot(a.path)
	if err != nil {
		return err
	}
	defer root.Close()
	listing, err := a.library.newListing()
	if err != nil {
		return err
	}
	defer listing.discard()

	g, working := errgroup.WithContext(ctx) // ends with Wait
	jobs := make(chan treeJob, queueMax)
	ordered := make(chan treeJob, queueMax)
	g.Go(func() error {
		defer close(jobs)
		defer close(ordered)
		return a.walkTree(working, root, jobs, ordered)
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for j := range jobs {
				name := filepath.FromSlash(j.entry.local)
				f, err := a.hash(working, filepath.Join(a.path, name), j.entry.info.Size() >= parallelFrom,
					func(flag int) (*os.File, error) { return root.OpenFile(name, flag, 0) })
				j.result <- treeResult{f, err}
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range ordered {
			if err := a.list(working, s, listing, j); err != nil {
				return err
			}
		}
		return working.Err()
	})
	if err := g.Wait(); err != nil {
		return err
	}
	h, err := listing.keep(ctx)
	if err != nil {
		return err
	}
	s.ID = h.record.id
	// It must be recorded before discard lets go of it.
	return errors.Join(a.put(h), a.flush())
}

func (a *adding) walkTree(ctx context.Context, root *os.Root, jobs, ordered chan<- treeJob) error {
	w := &walker{
		root: root, hidden: a.options.Hidden,
		skip: func(local string, id fileIdentity, dir bool) bool {
			return a.isOwn(id) || dir && node.IsHome(filepath.Join(a.path, filepath.FromSlash(local)))
		}, warn: a.warnf,
		visit: func(e walked) error {
			j := treeJob{e, make(chan treeResult, 1)}
			if e.dir {
				j.result <- treeResult{}
			} else {
				a.progress.expect(e.info.Size())
				select {
				case jobs <- j:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			select {
			case ordered <- j:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
	for _, text := range a.options.Exclude {
		p, err := newPattern(text, "")
		if err != nil {
			return fmt.Errorf("exclude: %w", err)
		}
		w.exclude = append(w.exclude, p)
	}
	return w.walk()
}

// list waits for one entry's hash and writes it down. A file that can't be
// read, or does not stand still, is left out with a warning: the rest of the
// tree is worth having.
func (a *adding) list(ctx context.Context, s *Share, listing *listingFile, j treeJob) error {
	var r treeResult
	select {
	case r = <-j.result:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.warnf("left out %s: %s", Escape(j.entry.local), Escape(r.err.Error()))
		return nil
	}
	e := Entry{Path: j.entry.path, Kind: KindDir}
	if !j.entry.dir {
		e.Kind, e.ID, e.Size = KindFile, r.file.record.id, r.file.record.identity.size
		e.Executable = j.entry.info.Mode()&0o100 != 0
		s.Size += e.Size
		s.Files++
		a.progress.file(string(e.Path))
		if err := a.put(r.file); err != nil {
			return err
		}
	}
	return listing.write(e)
}

// warnf may be called from several goroutines.
func (a *adding) warnf(format string, args ...any) {
	if a.options.Warn == nil {
		return
	}
	a.progress.exclusive(func() { a.options.Warn(fmt.Sprintf(format, args...)) })
}
