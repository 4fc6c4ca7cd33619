package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

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
	return hashedFile{path: path, record: known, watched: a.watch != nil}, true, nil
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
	id, outboard, err := hashContent(ctx, f, before.size, parallel, func(n int) {
		a.hashed.Add(int64(n))
		a.library.counts.hashed.Add(int64(n))
		a.progress.add(int64(n))
	})
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
	return hashedFile{path: path, record: fileRecord{id: id, identity: before.settled(start)}, outboard: outboard, watched: a.watch != nil}, nil
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
