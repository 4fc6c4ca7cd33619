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
	"github.com/p2pshare/p2pshare/share/content"
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
// files that have not changed since are not read again, and where nothing has,
// only a new manifest is written.
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
	a.compare = true
	s, err := a.run(ctx)
	if errors.Is(err, errChanged) {
		a = &adding{library: l, path: path, options: o, progress: newMeter(o.Progress, PhaseHashing), warned: a.warned}
		s, err = a.run(ctx)
	}
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

	// compare: write nothing down, and end with errChanged at the first difference
	// from previous.
	compare bool
	// warned are warnings that an Add that compared has given, and that the one
	// which follows it does not repeat.
	warned map[string]bool
}

// warnedMax is how many warnings are remembered. More are given twice.
const warnedMax = 1000

// errChanged: path holds something else than what was shared from it before. Add
// it anew, from the start: until the difference nothing was read or written.
var errChanged = errors.New("changed since it was added")

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
	s := Share{
		Name: published, Path: a.path, Kind: KindFile, Files: 1,
		State: StateShared, Scope: a.options.Scope, Added: time.Now().UTC().Truncate(time.Second),
		Mirrors: a.options.Mirrors,
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

// again publishes what was shared from a.path before, as s, when all of it is
// there unchanged. Its records stay, and nothing is read but the directories.
func (a *adding) again(ctx context.Context, s Share, info fs.FileInfo) (Share, error) {
	l, old := a.library, a.previous
	if old.key == 0 || old.Kind != s.Kind || old.Name != s.Name {
		return Share{}, errChanged
	}
	// A share that is added becomes the newest of its name.
	same, err := l.catalog.byName(nameDigest(s.Name), 1)
	if err != nil {
		return Share{}, err
	}
	if len(same) == 0 || same[0].key != old.key {
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
	r := shareRecord{Share: s, Stage: stageLive, key: old.key}
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

// publish makes s live, and ends what it replaces.
func (a *adding) publish(s Share) error {
	return a.library.replace(a.previous, func() error { return a.library.publish(s, a.key, a.batch...) })
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

// known returns what the catalog has of the file at path, which identity is of,
// if that still holds.
func (a *adding) known(path string, identity fileIdentity) (h hashedFile, ok bool, err error) {
	if a.previous.key == 0 {
		return hashedFile{}, false, nil
	}
	known, ok, err := a.library.catalog.file(a.previous.key, path)
	if err != nil || !ok || known.identity != identity || known.modified {
		return hashedFile{}, false, err
	}
	return hashedFile{path: path, record: known}, true, nil
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
	if h, ok, err := a.known(path, before); ok || err != nil {
		a.progress.add(before.size)
		return h, err
	}
	if a.compare {
		return hashedFile{}, errChanged
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
	if a.compare {
		return nil // it is recorded
	}
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
	attrs, err := a.library.newListing()
	if err != nil {
		return err
	}
	defer attrs.discard()

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
			files := treeOpener{root: root}
			defer files.close()
			for j := range jobs {
				f, err := a.hashEntry(working, &files, j.entry)
				j.result <- treeResult{f, err}
			}
			return nil
		})
	}
	g.Go(func() error {
		for j := range ordered {
			if err := a.list(working, s, listing, attrs, j); err != nil {
				return err
			}
		}
		return working.Err()
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if a.compare {
		if s.ID, err = a.sameListing(ctx, listing); err == nil && attrs.size > 0 {
			s.Attrs, err = a.sameListing(ctx, attrs)
		}
		return err
	}
	if s.ID, err = a.keep(ctx, listing); err == nil && attrs.size > 0 {
		s.Attrs, err = a.keep(ctx, attrs)
	}
	// They must be recorded before discard lets go of them.
	return errors.Join(err, a.flush())
}

// keep keeps a listing, or attributes, and has it recorded with the next batch.
func (a *adding) keep(ctx context.Context, f *listingFile) (content.ID, error) {
	h, err := f.keep(ctx)
	if err != nil {
		return content.ID{}, err
	}
	return h.record.id, a.put(h)
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

// hashEntry names one file of the tree. It is not even opened if the walk saw what
// the catalog knows.
func (a *adding) hashEntry(ctx context.Context, files *treeOpener, e walked) (hashedFile, error) {
	path := filepath.Join(a.path, filepath.FromSlash(e.local))
	if h, ok, err := a.known(path, sysIdentity(e.info)); ok || err != nil {
		a.progress.add(e.info.Size())
		return h, err
	}
	return a.hash(ctx, path, e.info.Size() >= parallelFrom, func(flag int) (*os.File, error) { return files.open(e, flag) })
}

// treeOpener opens the files of a tree, and keeps the directory of the last one
// open: the next one is in it most of the time.
type treeOpener struct {
	root *os.Root
	in   *os.Root // or nil
	dir  string   // what in is
}

func (t *treeOpener) open(e walked, flag int) (*os.File, error) {
	dir, name := filepath.Split(filepath.FromSlash(e.local))
	if e.link || dir == "" {
		return t.root.OpenFile(dir+name, flag, 0) // a link may lead anywhere below root
	}
	if t.in == nil || t.dir != dir {
		t.close()
		in, err := t.root.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		t.in, t.dir = in, dir
	}
	return t.in.OpenFile(name, flag, 0)
}

func (t *treeOpener) close() {
	if t.in != nil {
		t.in.Close()
		t.in = nil
	}
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
func (a *adding) list(ctx context.Context, s *Share, listing, attrs *listingFile, j treeJob) error {
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
		if errors.Is(r.err, errChanged) {
			return r.err
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
		if err := attrs.writeAttrs(fileAttrs{e.Path, r.file.record.identity.mtime, j.entry.info.Mode().Perm()}); err != nil {
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
