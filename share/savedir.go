package share

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
	"golang.org/x/sync/errgroup"
)

// filesParallel is how many files of a directory are fetched at a time: their
// requests go out one behind the other on the same streams.
const filesParallel = 32

// dir gets a directory, or what options.Path names in it. A new directory is
// built as .NAME.p2p-part and renamed when it is complete; one that exists is
// completed in place, after a look at every file that is there.
func (g *getting) dir(ctx context.Context, c Candidate) (Got, error) {
	got := Got{Name: c.Name, ID: c.ID, Kind: KindDir}
	listing, err := g.listing(ctx, c.ID)
	if err != nil {
		return got, err
	}
	defer listing.discard()
	t, single, err := g.survey(listing)
	if err != nil {
		return got, err
	}
	if single != nil {
		c := Candidate{ID: single.ID, Name: Name(path.Base(string(single.Path))), Kind: KindFile, Size: single.Size}
		return g.file(ctx, c)
	}
	if g.options.Output != nil {
		return got, fmt.Errorf("a directory can't be written to one stream; use --path for a file in it: %w", ErrRefused)
	}
	name := c.Name
	if g.options.Path != "" {
		name = Name(path.Base(string(g.options.Path)))
	}
	parent, base, target, err := g.place(name, c.ID)
	if err != nil {
		return got, err
	}
	defer parent.Close()
	got.Path, got.Size, got.Files = target, t.size, t.files
	t.base, t.target, t.parent = base, target, parent
	if t.attrs, err = g.attrs(ctx, c); err != nil {
		return got, err
	}
	if t.attrs != nil {
		defer t.attrs.discard()
	}
	if err := t.run(ctx); err != nil {
		return got, err
	}
	got.Already = t.written == 0 && t.inPlace
	if g.serves() {
		return got, t.share(ctx, c)
	}
	return got, nil
}

// listing fetches and verifies a directory's listing into the home.
func (g *getting) listing(ctx context.Context, id content.ID) (*listingFile, error) {
	f, err := g.library.newListing()
	if err != nil {
		return nil, err
	}
	fetch := &fetch{crowd: g.crowd, meter: g.meter, id: id, size: -1, sink: listingSink{f}}
	if f.size, err = fetch.run(ctx); err != nil {
		f.discard()
		return nil, err
	}
	return f, nil
}

// listingMax bounds a listing: a million files with long paths, and room.
const listingMax = 1 << 30

// listingSink writes a listing into its file.
type listingSink struct{ *listingFile }

func (s listingSink) admit(size int64) error {
	if size > listingMax {
		return fmt.Errorf("%w: it is larger than %d bytes", ErrBadListing, listingMax)
	}
	return nil
}

func (s listingSink) prepare(int64, *content.Outboard) (*swarm.Bitfield, error) { return nil, nil }

func (s listingSink) write(index int64, data []byte) error {
	_, err := s.file.WriteAt(data, index*content.GroupSize)
	return noSpace(err)
}

// entries reads the listing from its start.
func (f *listingFile) entries() iter.Seq2[Entry, error] {
	return readListing(io.NewSectionReader(f.file, 0, f.size))
}

// tree is a directory being saved.
type tree struct {
	getting *getting
	listing *listingFile
	attrs   *listingFile // nil: none
	sub     Path         // the part that is wanted; empty: all
	include includes

	base, target string
	parent       *os.Root
	inPlace      bool // the target exists
	fresh        bool // nothing is in it yet

	size, files int64
	twins       twins
	hold        *holding // fills the store instead of a directory; or nil

	mu      sync.Mutex
	written int64 // guarded by mu: files that were not there
	key     shareKey
	batch   []hashedFile // guarded by mu
	records chan []hashedFile
}

// survey reads the whole listing before anything is written: it adds up, and
// finds what options.Path means, which may be a single file.
func (g *getting) survey(listing *listingFile) (t *tree, single *Entry, err error) {
	include, err := parseIncludes(g.options.Include)
	if err != nil {
		return nil, nil, err
	}
	t = &tree{getting: g, listing: listing, sub: g.options.Path, include: include}
	found := t.sub == "" && len(include) == 0
	for e, err := range listing.entries() {
		if err != nil {
			return nil, nil, err
		}
		if e.Path == t.sub && e.Kind == KindFile {
			return nil, &e, nil
		}
		if _, ok := t.within(e); !ok {
			continue
		}
		found = true
		if holdsPartialName(string(e.Path)) {
			return nil, nil, fmt.Errorf("%w: %q is the name of an unfinished file", ErrBadListing, Escape(string(e.Path)))
		}
		if e.Kind == KindFile {
			t.files++
			t.size += e.Size
			t.twins.add(e)
		}
		if t.size > content.SizeMax {
			return nil, nil, fmt.Errorf("%w: its files add up to an impossible size", ErrBadListing)
		}
	}
	if !found && len(include) > 0 {
		return nil, nil, fmt.Errorf("no pattern matches anything in it: %w", ErrNotFound)
	}
	if !found {
		return nil, nil, fmt.Errorf("%q is not in it: %w", Escape(string(t.sub)), ErrNotFound)
	}
	t.twins.settle()
	return t, nil, nil
}

// within strips the wanted part's path, and reports whether e lies in it and is
// wanted.
func (t *tree) within(e Entry) (Path, bool) {
	rest, ok := e.Path, true
	if e.Path == t.sub {
		rest = "." // an empty directory asked for by itself
	} else if t.sub != "" {
		var below string
		below, ok = strings.CutPrefix(string(e.Path), string(t.sub)+"/")
		rest = Path(below)
	}
	return rest, ok && t.include.match(rest, e.Kind == KindDir)
}

func (t *tree) run(ctx context.Context) error {
	info, err := t.parent.Lstat(t.base)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(t.include) == 0:
		return t.build(ctx)
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no directory: %w", Escape(t.target), ErrExists)
	}
	t.inPlace = true
	root, err := t.openInPlace()
	if err != nil {
		return err
	}
	defer root.Close()
	if !t.getting.options.Force {
		if err := t.each(ctx, t.size, func(ctx context.Context, e Entry, local string) error {
			return t.check(ctx, root, e, local)
		}); err != nil {
			return err
		}
	}
	return t.fill(ctx, root)
}

// build makes a new directory beside the target and renames it.
func (t *tree) build(ctx context.Context) error {
	temp := partialName(t.base)
	if err := refuseOther(t.parent, temp, fs.FileMode.IsDir); err != nil {
		return err
	}
	err := t.parent.Mkdir(temp, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return noSpace(err)
	}
	t.fresh = err == nil
	root, err := t.parent.OpenRoot(temp)
	if err != nil {
		return err
	}
	defer root.Close()
	lock, err := root.Open(".")
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := lockFile(ctx, lock); err != nil {
		return err
	}
	mine, err1 := lock.Stat()
	there, err2 := t.parent.Lstat(temp)
	if errors.Join(err1, err2) != nil || !os.SameFile(mine, there) {
		return t.run(ctx) // another get has finished it while we waited
	}
	if !t.fresh {
		if err := t.prune(root); err != nil {
			return err
		}
	} else if t.getting.seeds == nil && !t.twins.any() { // which may take no room
		if err := checkSpace(lock, t.size); err != nil {
			return err
		}
	}
	if err := t.fill(ctx, root); err != nil {
		return err
	}
	t.getting.meter.phase(PhaseWriting)
	if err := syncTree(lock); err != nil {
		return noSpace(err)
	}
	if err := root.Chmod(".", 0o777&^umask()); err != nil {
		return err
	}
	if _, err := t.parent.Lstat(t.base); err == nil {
		return fmt.Errorf("%s: %w", Escape(t.target), ErrExists)
	}
	if err := t.parent.Rename(temp, t.base); err != nil {
		return err
	}
	return syncRoot(t.parent, ".")
}

// each calls fn for every wanted file, several at a time, and makes the
// directories on the way.
func (t *tree) each(ctx context.Context, total int64, fn func(ctx context.Context, e Entry, local string) error) error {
	t.getting.meter.begin(PhaseVerifying, total)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(filesParallel)
	failed := t.wanted(func(e Entry, local string) error {
		g.Go(func() error { return fn(ctx, e, local) })
		return ctx.Err()
	})
	if err := g.Wait(); err != nil {
		return err // why ctx ended, too
	}
	return failed
}

// wanted calls fn for every wanted entry with its path here, in order, until
// it fails.
func (t *tree) wanted(fn func(e Entry, local string) error) error {
	if t.hold != nil {
		return t.hold.wanted(fn)
	}
	names := newLocalizer(t.getting.library.system)
	for e, err := range t.listing.entries() {
		if err != nil {
			return err
		}
		whole, renamed, err := names.path(e.Path)
		if err != nil {
			return err
		}
		rel, ok := t.within(e)
		if !ok {
			continue
		}
		local := string(rel)
		if renamed {
			parts := strings.Split(whole, "/")
			local = strings.Join(parts[len(parts)-1-strings.Count(local, "/"):], "/")
		}
		if holdsPartialName(local) {
			return fmt.Errorf("%w: %q is the name of an unfinished file", ErrBadListing, Escape(local))
		}
		if err := fn(e, local); err != nil {
			return err
		}
	}
	return nil
}

// prune removes from a partial directory what does not belong into it: an
// earlier get may have been of another tree with the same name, and somebody may
// have put links there.
func (t *tree) prune(root *os.Root) error {
	inside, err := fs.ReadDir(root.FS(), ".")
	if err != nil || len(inside) == 0 {
		return err
	}
	isDir := map[[sha256.Size]byte]bool{} // by the hash of the path, for millions of them
	add := func(local string, dir bool) { isDir[sha256.Sum256([]byte(local))] = dir }
	err = t.wanted(func(e Entry, local string) error {
		add(local, e.Kind == KindDir)
		if e.Kind == KindFile {
			add(partialName(local), false)
		}
		for d := path.Dir(local); d != "." && !isDir[sha256.Sum256([]byte(d))]; d = path.Dir(d) {
			add(d, true)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		dir, wanted := isDir[sha256.Sum256([]byte(name))]
		if wanted && dir == d.IsDir() && (dir || d.Type().IsRegular()) {
			return nil
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
}

// check refuses a file that is there and differs.
func (t *tree) check(ctx context.Context, root *os.Root, e Entry, local string) error {
	if e.Kind != KindFile {
		return nil
	}
	s := t.saving(root, e, local)
	_, err := s.compare(ctx)
	return t.inTree(err)
}

// inTree names the directory in an error about something inside it.
func (t *tree) inTree(err error) error {
	if errors.Is(err, ErrExists) {
		return fmt.Errorf("in %s: %w", Escape(t.target), err)
	}
	return err
}

func (t *tree) saving(root *os.Root, e Entry, local string) *saving {
	return &saving{
		getting: t.getting, root: root, name: local, id: e.ID, size: e.Size,
		exec: e.Executable, meter: t.getting.meter.part(), replace: t.getting.options.Force || !t.inPlace,
		path: e.Path, hint: -1,
	}
}

// share enters the complete directory into the library.
func (t *tree) share(ctx context.Context, c Candidate) error {
	kept, err := t.listing.keep(ctx)
	if err != nil {
		return err
	}
	s := Share{Name: c.Name, ID: c.ID, Kind: KindDir, Size: t.size, Files: t.files, Path: t.target}
	rest := append(t.batch, kept)
	if t.attrs != nil {
		kept, err := t.attrs.keep(ctx)
		if err != nil {
			return err
		}
		s.Attrs = kept.record.id
		rest = append(rest, kept)
	}
	return t.getting.keep(c, s, t.key, rest)
}

// Entries yields what is inside the directory that w means, here or at others,
// in the listing's order.
func (l *Library) Entries(ctx context.Context, w What, o FindOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		m := newMeter(o.Progress, PhaseLocal)
		g := &getting{library: l, what: w, meter: m, crowd: l.newCrowd(m), options: GetOptions{Peers: o.Peers, From: o.From}}
		defer func() {
			cancel()
			g.finding.end()
			g.crowd.close()
		}()
		c, err := g.resolve(ctx)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		if c.Kind != KindDir {
			yield(Entry{Path: Path(c.Name), Kind: KindFile, ID: c.ID, Size: max(c.Size, 0)}, nil)
			return
		}
		listing, err := g.listing(ctx, c.ID)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer listing.discard()
		for e, err := range listing.entries() {
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}
