package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// fill fetches every wanted file into root.
func (t *tree) fill(ctx context.Context, root *os.Root) error {
	if t.getting.serves() {
		key, err := t.getting.library.catalog.begin(t.target)
		if err != nil {
			return err
		}
		t.key = key
	}
	t.getting.meter.begin(PhaseVerifying, t.size)
	t.records = make(chan []hashedFile) // a batch is written while the next is filled; then saving waits
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for batch := range t.records {
			if err := t.getting.library.catalog.putFiles(t.key, batch); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		defer close(t.records)
		if err := newFilling(t, root, false).run(ctx); err != nil || !t.twins.any() {
			return err
		}
		return newFilling(t, root, true).run(ctx)
	})
	err := g.Wait()
	if err != nil && t.key != 0 {
		err = errors.Join(err, t.getting.library.catalog.remove(t.key))
	}
	return err
}

// saved notes a file that is in place, for the catalog.
func (t *tree) saved(ctx context.Context, local string, f hashedFile, already bool) error {
	if t.hold != nil {
		return t.hold.saved(local, f)
	}
	t.mu.Lock()
	if !already {
		t.written++
	}
	if t.key == 0 {
		t.mu.Unlock()
		return nil
	}
	f.path = joinLocal(t.target, local)
	t.batch = append(t.batch, f)
	var full []hashedFile
	if len(t.batch) >= batchMax {
		full, t.batch = t.batch, nil
	}
	t.mu.Unlock()
	if full == nil {
		return nil
	}
	select {
	case t.records <- full:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// filling fetches the files of a tree into a directory. Those of one chunk group
// take the short way: many at a time (smallFetch), and in a directory that is
// being built, which is nobody else's, straight to their names. All others, and
// small ones that no source gives so, take the long way of saving.
//
// A tree is filled in two goes: the files that are equal to an earlier one come
// when that is there.
type filling struct {
	tree  *tree
	twins bool // the second go
	root  *os.Root
	made  madeDirs
	small *smallFetch
	dirs  []openDir // one for each worker of small

	group     *errgroup.Group
	startLong func(file *smallFile) error // fetches a file by itself, beside others, in group
	long      chan struct{}               // a token for each file on the long way; capacity filesParallel
	checking  chan struct{}               // a token for each batch of small files that is looked for here
}

// smallBatch is how many small files are looked for here at a time.
const smallBatch = 64

func newFilling(t *tree, root *os.Root, twins bool) *filling {
	f := &filling{
		tree: t, twins: twins, root: root, made: madeDirs{root: root},
		small: newSmallFetch(t.getting.crowd), dirs: make([]openDir, smallWorkers()),
		long:     make(chan struct{}, filesParallel),
		checking: make(chan struct{}, smallWorkers()),
	}
	f.small.save = f.saveSmall
	f.small.lost = func(file *smallFile) error { return f.startLong(file) }
	return f
}

func (f *filling) run(ctx context.Context) error {
	defer func() {
		for i := range f.dirs {
			f.dirs[i].close()
		}
	}()
	f.group, ctx = errgroup.WithContext(ctx)
	f.startLong = func(file *smallFile) error { return f.goLong(ctx, file) }
	f.group.Go(func() error { return f.small.run(ctx) })
	f.group.Go(func() error {
		checks, ctx := errgroup.WithContext(ctx)
		err := f.each(ctx, checks)
		if err := checks.Wait(); err != nil {
			return err // why ctx ended, too
		}
		f.small.seal()
		return err
	})
	return f.group.Wait()
}

// each sorts the wanted entries by how they are fetched.
func (f *filling) each(ctx context.Context, checks *errgroup.Group) error {
	var batch []*smallFile
	flush := func() error {
		files := batch
		batch = nil
		select {
		case f.checking <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		checks.Go(func() error {
			defer func() { <-f.checking }()
			return f.begin(ctx, files)
		})
		return nil
	}
	attrs := walkAttrs(f.tree.attrs)
	defer attrs.stop()
	err := f.tree.wanted(func(e Entry, local string) error {
		if e.Kind == KindDir {
			return f.made.make(local)
		}
		twin := f.tree.twins.of(e, local)
		if f.twins != (twin != "") {
			return ctx.Err()
		}
		if err := f.made.make(path.Dir(local)); err != nil {
			return err
		}
		file := &smallFile{entry: e, local: local, twin: twin, attrs: attrs.of(e.Path)}
		if e.Size > content.GroupSize {
			return f.startLong(file)
		}
		if batch = append(batch, file); len(batch) < smallBatch {
			return nil
		}
		return flush()
	})
	if err != nil || len(batch) == 0 {
		return err
	}
	return flush()
}

// goLong is startLong, with the group's ctx.
func (f *filling) goLong(ctx context.Context, file *smallFile) error {
	select {
	case f.long <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.group.Go(func() error {
		defer func() { <-f.long }()
		t := f.tree
		t.getting.meter.phase(PhaseFetching)
		s := t.saving(f.root, file.entry, file.local)
		s.twin, s.attrs = file.twin, file.attrs
		if err := s.run(ctx); errors.Is(err, ErrCorrupt) {
			return fmt.Errorf("%s: %w", Escape(string(file.entry.Path)), err)
		} else if err != nil {
			return t.inTree(err)
		}
		if s.already {
			t.getting.meter.held(s.size)
		}
		return f.done(ctx, file, s.hashed(""), s.already)
	})
	return nil
}

// done notes that a file is in place.
func (f *filling) done(ctx context.Context, file *smallFile, h hashedFile, already bool) error {
	f.tree.getting.meter.file(string(file.entry.Path))
	return f.tree.saved(ctx, file.local, h, already)
}

// begin looks for small files here, and has the others fetched.
func (f *filling) begin(ctx context.Context, files []*smallFile) error {
	var dir openDir
	defer dir.close()
	var missing []*smallFile
	for _, file := range files {
		there, err := f.there(ctx, file)
		if err == nil && !there && file.entry.Size == 0 {
			there, err = true, f.saveEmpty(ctx, &dir, file)
		}
		if err != nil {
			return err
		}
		if !there {
			missing = append(missing, file)
		}
	}
	for _, from := range []func(context.Context, []*smallFile) (copier, error){f.fromTwins, f.fromLibrary, f.fromSeeds} {
		read, err := from(ctx, missing)
		if err != nil {
			return err
		}
		if missing, err = f.copy(ctx, &dir, missing, read); err != nil {
			return err
		}
	}
	return f.small.put(ctx, missing)
}

// there reports whether a file is in place already.
func (f *filling) there(ctx context.Context, file *smallFile) (bool, error) {
	if f.tree.fresh {
		return false, nil
	}
	s := f.tree.saving(f.root, file.entry, file.local)
	same, err := s.compare(ctx)
	if err != nil {
		return false, f.tree.inTree(err)
	}
	if !same {
		return false, nil
	}
	f.tree.getting.meter.held(s.size)
	return true, f.done(ctx, file, s.hashed(""), true)
}

func (f *filling) saveEmpty(ctx context.Context, dir *openDir, file *smallFile) error {
	if content.VerifyData(file.entry.ID, nil) != nil {
		return errSizeInListing
	}
	return f.saveIn(ctx, dir, file, nil)
}

// copier fills buf with a file's bytes, not verified, from somewhere on this
// machine, and reports whether it could.
type copier func(file *smallFile, buf *[content.GroupSize]byte) bool

// copy saves the files that read has, and returns the others. A nil read has
// none.
func (f *filling) copy(ctx context.Context, dir *openDir, files []*smallFile, read copier) (missing []*smallFile, err error) {
	if read == nil {
		return files, nil
	}
	get := f.tree.getting
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	defer groupBuffers.Put(buf)
	for _, file := range files {
		data := buf[:file.entry.Size]
		found := read(file, buf) && content.VerifyData(file.entry.ID, data) == nil
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !found {
			missing = append(missing, file)
			continue
		}
		get.crowd.gave(local{library: get.library}, file.entry.Size)
		if err := f.saveIn(ctx, dir, file, data); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// fromTwins reads equal files of this tree, which are there already.
func (f *filling) fromTwins(context.Context, []*smallFile) (copier, error) {
	if !f.twins {
		return nil, nil
	}
	return func(file *smallFile, buf *[content.GroupSize]byte) bool {
		twin, _, err := openShared(func(flag int) (*os.File, error) {
			return f.root.OpenFile(filepath.FromSlash(file.twin), flag, 0)
		})
		if err != nil {
			return false
		}
		defer twin.Close()
		return readGroup(twin, file.entry.Size, 0, buf) == nil
	}, nil
}

// fromLibrary reads files that this library shares from elsewhere.
func (f *filling) fromLibrary(ctx context.Context, files []*smallFile) (copier, error) {
	library := f.tree.getting.library
	ids := make([]content.ID, len(files))
	for i, file := range files {
		ids[i] = file.entry.ID
	}
	found, err := library.catalog.filesOf(ids)
	if err != nil {
		return nil, err
	}
	return func(file *smallFile, buf *[content.GroupSize]byte) bool {
		h, err := library.openLocated(ctx, file.entry.ID, found[file.entry.ID], ownShares(f.tree.getting.serves()))
		if err != nil {
			return false
		}
		defer h.close()
		return readHeld(h, file.entry.Size, 0, buf) == nil
	}, nil
}

// fromSeeds reads files of the seed directories.
func (f *filling) fromSeeds(ctx context.Context, _ []*smallFile) (copier, error) {
	s := f.tree.getting.seeds
	if s == nil {
		return nil, nil
	}
	return func(file *smallFile, buf *[content.GroupSize]byte) bool {
		return s.read(ctx, file.entry.ID, file.entry.Size, buf)
	}, nil
}

// saveSmall is smallFetch's save.
func (f *filling) saveSmall(ctx context.Context, worker int, file *smallFile, data []byte) error {
	return f.saveIn(ctx, &f.dirs[worker], file, data)
}

// saveIn writes a file whose bytes are all here and verified.
func (f *filling) saveIn(ctx context.Context, dir *openDir, file *smallFile, data []byte) error {
	parent, base := path.Split(file.local)
	in, err := dir.open(f.root, path.Clean(parent))
	if err != nil {
		return err
	}
	write := createWhole
	if f.tree.inPlace {
		write = placeWhole
	}
	identity, err := write(in, base, file, data, f.tree.getting.options.Force)
	if errors.Is(err, fs.ErrExist) {
		return f.startLong(file) // something has come there meanwhile, which has to be looked at
	}
	if err != nil {
		return err
	}
	f.tree.getting.meter.add(int64(len(data)))
	return f.done(ctx, file, hashedFile{record: fileRecord{id: file.entry.ID, identity: identity}}, false)
}
