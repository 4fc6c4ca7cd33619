package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// saving puts one content into one file: it looks whether the file is there,
// fetches what is missing, and moves it into place.
type saving struct {
	getting *getting
	root    *os.Root
	name    string // in root; may hold '/'
	id      content.ID
	size    int64 // what is known of it, or -1; the true size after run
	meter   *meter
	exec    bool
	sync    bool  // fsync before the rename
	replace bool  // another file may be replaced
	path    Path  // its path in the listing, or its name; for seeds
	hint    int64 // the size as somebody tells it, or -1
	attrs   fileAttrs
	room    *holdRoom
	twin    string // another file in root that has the same content; empty: none is known

	already  bool // the file was there
	identity fileIdentity
	outboard *content.Outboard // nil when it was there, or has one group

	named chan error // of the partial file
}

func (s *saving) run(ctx context.Context) error {
	for {
		if same, err := s.compare(ctx); same || err != nil {
			return err
		}
		p, err := openPartial(ctx, s.root, s.name, s.meter)
		if err == nil {
			err = s.fetch(ctx, p)
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		// Another get has put something there: look at it.
	}
}

// compare looks at what is at the target: the same bytes (true), nothing or
// something to replace (false), or something that must stay (ErrExists).
func (s *saving) compare(ctx context.Context) (same bool, err error) {
	info, err := s.root.Lstat(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		return false, fmt.Errorf("%s is a directory: %w", Escape(s.name), ErrExists)
	}
	if !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0 {
		return false, fmt.Errorf("%s is %s: %w", Escape(s.name), describeMode(info.Mode()), ErrExists)
	}
	if info.Mode().IsRegular() && (s.size < 0 || s.size == info.Size()) {
		if same, err = s.holds(ctx, info); same || err != nil {
			return same, err
		}
	}
	if !s.replace {
		return false, fmt.Errorf("%s: %w", Escape(s.name), ErrExists)
	}
	return false, nil
}

// holds hashes the target.
func (s *saving) holds(ctx context.Context, info fs.FileInfo) (bool, error) {
	f, _, err := openShared(func(flag int) (*os.File, error) { return s.root.OpenFile(s.name, flag, 0) })
	if err != nil {
		return false, err
	}
	defer f.Close()
	s.meter.begin(PhaseVerifying, info.Size())
	start := time.Now()
	id, o, err := hashContent(ctx, f, info.Size(), true, func(n int) { s.meter.add(int64(n)) })
	if errors.Is(err, ErrModified) {
		return false, nil
	}
	if err != nil || id != s.id {
		return false, err
	}
	s.already, s.size, s.identity, s.outboard = true, info.Size(), sysIdentity(info).settled(start), o
	return true, nil
}

// fetch fills p and makes it the target. Whatever happens but success, p stays
// for the next get; an empty one is not worth keeping.
func (s *saving) fetch(ctx context.Context, p *partial) error {
	p.sync, p.room = s.sync, s.room
	p.mode, p.attrs = s.attrs.mode(s.exec), s.attrs
	p.seeding = &seeding{saving: s, ctx: ctx}
	defer p.seeding.close()
	seeded, err := s.fromSeed(ctx, p)
	if err == nil && !seeded {
		f := &fetch{crowd: s.getting.crowd, meter: s.meter, id: s.id, size: s.size, sink: p,
			share: s.getting.shares(), kept: s.getting.keepServing}
		s.size, err = f.run(ctx)
		s.outboard = f.outboard
	}
	if err == nil {
		s.meter.phase(PhaseWriting)
		err = s.finish(ctx, p)
	}
	if err == nil && s.already {
		p.discard()
		return nil
	}
	if err == nil {
		var info fs.FileInfo
		if info, err = p.file.Stat(); err == nil {
			s.identity = sysIdentity(info)
		}
		s.named = p.named
	}
	if err != nil && p.fresh && p.wrote.Load() == 0 {
		p.discard()
		return err
	}
	p.close()
	return err
}

// fromSeed fills p with a file of one chunk group from a seed directory.
func (s *saving) fromSeed(ctx context.Context, p *partial) (bool, error) {
	size := max(s.size, s.hint)
	if s.getting.seeds == nil || size < 1 || size > content.GroupSize {
		return false, nil
	}
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	defer groupBuffers.Put(buf)
	if !s.getting.seeds.read(ctx, s.id, size, buf) || content.VerifyData(s.id, buf[:size]) != nil {
		return false, ctx.Err()
	}
	if err := p.file.Truncate(size); err != nil {
		return false, err
	}
	if err := p.write(0, buf[:size]); err != nil {
		return false, err
	}
	s.size = size
	s.getting.crowd.gave(local{library: s.getting.library}, size)
	return true, nil
}

// finish makes p the target. What has come there while the content was on its
// way stays, and is as good when it is the same.
func (s *saving) finish(ctx context.Context, p *partial) error {
	for {
		err := p.finish(s.replace)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if same, err := s.compare(ctx); same || err != nil {
			return err
		}
	}
}

// hashed is the saved file as the catalog takes it.
func (s *saving) hashed(path string) hashedFile {
	return hashedFile{path: path, record: fileRecord{id: s.id, identity: s.identity}, outboard: s.outboard}
}

// settle waits until the file's new name is on the disk. It must be called when
// run has put the file there; others may write to the same disk until then.
func (s *saving) settle() error {
	if s.named == nil {
		return nil
	}
	return noSpace(<-s.named)
}
