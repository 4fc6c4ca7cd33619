package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

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

// hashEntry names one file of the tree. It is not even opened if the walk saw what
// the catalog knows.
func (a *adding) hashEntry(ctx context.Context, files *treeOpener, e walked) (hashedFile, error) {
	path := filepath.Join(a.path, filepath.FromSlash(e.local))
	if h, ok, err := a.known(path, sysIdentity(e.info)); ok || err != nil {
		a.progress.add(e.info.Size())
		return h, err
	}
	if h, ok, err := a.moved(path, e.info); ok || err != nil {
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
		}, warn: a.warnf, enter: a.entering,
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
