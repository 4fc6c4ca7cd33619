package share

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/p2pshare/p2pshare/share/content"
)

// listingFile is a directory's listing being written, or its attributes. It is kept
// in the home under its own ID, where the shares of equal trees find the same file.
type listingFile struct {
	library *Library
	file    *os.File
	out     *bufio.Writer
	size    int64
	line    []byte
	kept    string // where it is, once it was kept
}

// keptListings keeps a listing that has its name, and is in no catalog yet, from
// being dropped with the last share of an equal tree.
type keptListings struct {
	mu   sync.Mutex     // guards kept, and is held while a listing gets its name or goes
	kept map[string]int // by path: how many listingFiles were kept there and not discarded
}

func listingDir(dir string) string { return filepath.Join(dir, "listings") }

func (l *Library) newListing() (*listingFile, error) {
	dir := listingDir(l.dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return nil, err
	}
	return &listingFile{library: l, file: f, out: bufio.NewWriterSize(f, 64<<10)}, nil
}

func (f *listingFile) write(e Entry) error {
	f.line = appendEntry(f.line[:0], e)
	return f.writeLine()
}

func (f *listingFile) writeLine() error {
	f.size += int64(len(f.line))
	_, err := f.out.Write(f.line)
	return err
}

// name returns the ID of what was written.
func (f *listingFile) name(ctx context.Context) (content.ID, *content.Outboard, error) {
	if err := f.out.Flush(); err != nil {
		return content.ID{}, nil, err
	}
	return hashContent(ctx, f.file, f.size, true, func(int) {})
}

// keep names the listing, syncs it and moves it to its place. Until discard it
// stays there, recorded or not.
func (f *listingFile) keep(ctx context.Context) (hashedFile, error) {
	id, outboard, err := f.name(ctx)
	if err != nil {
		return hashedFile{}, err
	}
	path := f.library.listingPath(id)
	if err := f.file.Sync(); err != nil {
		return hashedFile{}, err
	}
	if err := f.rename(path); err != nil {
		return hashedFile{}, err
	}
	info, err := f.file.Stat()
	if err != nil {
		return hashedFile{}, err
	}
	return hashedFile{path: path, record: fileRecord{id: id, identity: sysIdentity(info)}, outboard: outboard}, nil
}

// rename moves the listing to path. The directory is not synced: the catalog's
// own fsync comes after, and a listing that a crash has lost is missing, not wrong.
func (f *listingFile) rename(path string) error {
	l := &f.library.listingsKept
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.Rename(f.file.Name(), path); err != nil {
		return err
	}
	if l.kept == nil {
		l.kept = map[string]int{}
	}
	l.kept[path]++
	f.kept = path
	return nil
}

func (f *listingFile) discard() {
	f.file.Close()
	if f.kept == "" {
		os.Remove(f.file.Name())
		return
	}
	l := &f.library.listingsKept
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept[f.kept]--; l.kept[f.kept] == 0 {
		delete(l.kept, f.kept)
	}
}

func (l *Library) listingPath(id content.ID) string {
	return filepath.Join(listingDir(l.dir), id.Hex())
}

// dropListing removes the listing and the attributes of a directory that is shared
// no more, unless another share needs them.
func (l *Library) dropListing(s Share) error {
	if s.Kind != KindDir {
		return nil
	}
	return errors.Join(l.dropKept(s.ID), l.dropKept(s.Attrs))
}

func (l *Library) dropKept(id content.ID) error {
	if id.IsZero() {
		return nil
	}
	path := l.listingPath(id)
	l.listingsKept.mu.Lock()
	defer l.listingsKept.mu.Unlock()
	needed, err := l.catalog.holds(id)
	if err != nil || needed || l.listingsKept.kept[path] > 0 {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
