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
	dirs []string

	walk   sync.Once
	err    error // of walk
	bySize map[int64]*seedSize
	byName map[string][]string
}

// seedSize are the files of one size.
type seedSize struct {
	paths []string
	hash  sync.Once
	ids   map[content.ID]string
}

// newSeeds returns nil when there are no directories.
func newSeeds(dirs []string) *seeds {
	if len(dirs) == 0 {
		return nil
	}
	return &seeds{dirs: dirs}
}

// check opens each directory: to tell that one is not there is better than not to
// find anything in it.
func (s *seeds) check() error {
	if s == nil {
		return nil
	}
	for _, dir := range s.dirs {
		d, err := os.Open(dir)
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

// find walks the directories, once. It follows no links, and passes over what
// can't be read: a seed that is missing costs no more than a fetch.
func (s *seeds) find(ctx context.Context) error {
	s.walk.Do(func() {
		s.bySize, s.byName = map[int64]*seedSize{}, map[string][]string{}
		files := 0
		for _, dir := range s.dirs {
			s.err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
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
					s.add(p, info.Size())
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

func (s *seeds) add(p string, size int64) {
	z := s.bySize[size]
	if z == nil {
		z = new(seedSize)
		s.bySize[size] = z
	}
	z.paths = append(z.paths, p)
	base := filepath.Base(p)
	s.byName[base] = append(s.byName[base], p)
}

// whole returns the path of a file that had the content id when it was hashed,
// or "". All files of that size are hashed for it, once.
func (s *seeds) whole(ctx context.Context, id content.ID, size int64) (string, error) {
	if s == nil {
		return "", nil
	}
	if err := s.find(ctx); err != nil {
		return "", err
	}
	z := s.bySize[size]
	if z == nil {
		return "", nil
	}
	z.hash.Do(func() {
		z.ids = map[content.ID]string{}
		for _, p := range z.paths {
			if id, err := hashSeed(ctx, p, size); err == nil {
				z.ids[id] = p
			}
		}
	})
	return z.ids[id], ctx.Err()
}

func hashSeed(ctx context.Context, p string, size int64) (content.ID, error) {
	f, _, err := openSeed(p)
	if err != nil {
		return content.ID{}, err
	}
	defer f.Close()
	id, _, err := hashContent(ctx, f, size, true, func(int) {})
	return id, err
}

func openSeed(p string) (*os.File, fs.FileInfo, error) {
	return openShared(func(flag int) (*os.File, error) { return os.OpenFile(p, flag, 0) })
}

// like returns the paths of files that may be other versions of a content: those
// that are at its own path in a seed directory, that have its name, or its size.
func (s *seeds) like(ctx context.Context, at Path, size int64) ([]string, error) {
	if s == nil {
		return nil, nil
	}
	if err := s.find(ctx); err != nil {
		return nil, err
	}
	var found []string
	seen := map[string]bool{}
	add := func(paths ...string) {
		for _, p := range paths {
			if !seen[p] && len(found) < seedsLikeMax {
				seen[p] = true
				found = append(found, p)
			}
		}
	}
	for _, dir := range s.dirs {
		p := filepath.Join(dir, filepath.FromSlash(string(at)))
		if info, err := os.Lstat(p); at != "" && err == nil && info.Mode().IsRegular() {
			add(p)
		}
	}
	add(s.byName[path.Base(string(at))]...)
	if z := s.bySize[size]; z != nil {
		add(z.paths...)
	}
	return found, nil
}

// read fills buf with a file that had the content id, of one chunk group, when
// it was hashed, and reports whether there is one.
func (s *seeds) read(ctx context.Context, id content.ID, size int64, buf *[content.GroupSize]byte) bool {
	p, err := s.whole(ctx, id, size)
	if p == "" || err != nil {
		return false
	}
	f, _, err := openSeed(p)
	if err != nil {
		return false // it was there: fetch it
	}
	defer f.Close()
	return readGroup(f, size, 0, buf) == nil
}
