package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/p2pshare/p2pshare/share/content"
)

const (
	// seedFilesMax is how many files of seed directories are known by name: about
	// 200 bytes each.
	seedFilesMax = 1 << 20
	// seedsLikeMax is how many files of other content are read for one content,
	// for the chunk groups that may be the same.
	seedsLikeMax = 4
)

// seeds are files on this machine that a get may find wanted bytes in: those of
// GetOptions.SeedFrom. They are read when they are asked for, and what they are
// said to hold is verified by whoever copies from them. A nil *seeds has none.
// Its methods may be called from several goroutines.
type seeds struct {
	dirs  []string
	roots []*os.Root // of dirs, once they are open

	walk   sync.Once
	err    error // of walk
	bySize map[int64]*seedSize
	byName map[string][]seedFile
}

// seedFile is a file of a seed directory, by the way to it inside. Links on the way
// are followed as long as they stay inside, whatever has become of it since it was
// found.
type seedFile struct {
	root *os.Root
	path string
}

func (f seedFile) open() (*os.File, fs.FileInfo, error) {
	return openShared(func(flag int) (*os.File, error) { return f.root.OpenFile(f.path, flag, 0) })
}

// seedSize are the files of one size.
type seedSize struct {
	files []seedFile
	hash  sync.Once
	ids   map[content.ID]seedFile
}

// newSeeds returns nil when there are no directories.
func newSeeds(dirs []string) *seeds {
	if len(dirs) == 0 {
		return nil
	}
	return &seeds{dirs: dirs}
}

// open opens each directory: to tell that one is not there is better than not to
// find anything in it. The caller calls close, after an error too.
func (s *seeds) open() error {
	if s == nil {
		return nil
	}
	for _, dir := range s.dirs {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return fmt.Errorf("seed from: %w", err)
		}
		s.roots = append(s.roots, root)
		d, err := root.Open(".")
		if err == nil {
			_, err = d.ReadDir(1)
			d.Close()
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("seed from: %w", err)
		}
	}
	return nil
}

func (s *seeds) close() {
	if s == nil {
		return
	}
	for _, root := range s.roots {
		root.Close()
	}
}

// find walks the directories, once. It follows no links, and passes over what
// can't be read: a seed that is missing costs no more than a fetch.
func (s *seeds) find(ctx context.Context) error {
	s.walk.Do(func() {
		s.bySize, s.byName = map[int64]*seedSize{}, map[string][]seedFile{}
		files := 0
		for _, root := range s.roots {
			s.err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil || !d.Type().IsRegular() {
					return nil
				}
				if files++; files > seedFilesMax {
					return fs.SkipAll
				}
				if info, err := d.Info(); err == nil && info.Size() > 0 {
					s.add(seedFile{root, filepath.FromSlash(p)}, info.Size())
				}
				return nil
			})
			if s.err != nil {
				return
			}
		}
	})
	return s.err
}

func (s *seeds) add(f seedFile, size int64) {
	z := s.bySize[size]
	if z == nil {
		z = new(seedSize)
		s.bySize[size] = z
	}
	z.files = append(z.files, f)
	base := filepath.Base(f.path)
	s.byName[base] = append(s.byName[base], f)
}

// whole returns a file that had the content id when it was hashed, if there is one.
// All files of that size are hashed for it, once.
func (s *seeds) whole(ctx context.Context, id content.ID, size int64) (f seedFile, ok bool, err error) {
	if s == nil {
		return f, false, nil
	}
	if err := s.find(ctx); err != nil {
		return f, false, err
	}
	z := s.bySize[size]
	if z == nil {
		return f, false, nil
	}
	z.hash.Do(func() {
		z.ids = map[content.ID]seedFile{}
		for _, f := range z.files {
			if id, err := hashSeed(ctx, f, size); err == nil {
				z.ids[id] = f
			}
		}
	})
	f, ok = z.ids[id]
	return f, ok, ctx.Err()
}

func hashSeed(ctx context.Context, seed seedFile, size int64) (content.ID, error) {
	f, _, err := seed.open()
	if err != nil {
		return content.ID{}, err
	}
	defer f.Close()
	id, _, err := hashContent(ctx, f, size, true, func(int) {})
	return id, err
}

// like returns files that may be other versions of a content: those
// that are at its own path in a seed directory, that have its name, or its size.
func (s *seeds) like(ctx context.Context, at Path, size int64) ([]seedFile, error) {
	if s == nil {
		return nil, nil
	}
	if err := s.find(ctx); err != nil {
		return nil, err
	}
	var found []seedFile
	add := func(files ...seedFile) {
		for _, f := range files {
			if len(found) < seedsLikeMax && !slices.Contains(found, f) {
				found = append(found, f)
			}
		}
	}
	for _, root := range s.roots {
		f := seedFile{root, filepath.FromSlash(string(at))}
		if at == "" {
			continue
		}
		if info, err := root.Lstat(f.path); err == nil && info.Mode().IsRegular() {
			add(f)
		}
	}
	add(s.byName[path.Base(string(at))]...)
	if z := s.bySize[size]; z != nil {
		add(z.files...)
	}
	return found, nil
}

// read fills buf with a file that had the content id, of one chunk group, when
// it was hashed, and reports whether there is one.
func (s *seeds) read(ctx context.Context, id content.ID, size int64, buf *[content.GroupSize]byte) bool {
	seed, ok, err := s.whole(ctx, id, size)
	if !ok || err != nil {
		return false
	}
	f, _, err := seed.open()
	if err != nil {
		return false // it was there: fetch it
	}
	defer f.Close()
	return readGroup(f, size, 0, buf) == nil
}
