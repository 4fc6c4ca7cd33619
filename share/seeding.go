package share

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
	"golang.org/x/sync/errgroup"
)

// seeding finds the chunk groups of one content that are on this machine
// already, so that they are not fetched: in files that the library shares, in
// the file that is to be replaced, in the directories of SeedFrom. Groups are
// looked for at their own offsets, and each is verified as if a stranger had sent
// it.
type seeding struct {
	saving *saving
	ctx    context.Context // of the get: the sink's methods take none

	mu    sync.Mutex // several sources may be asked to prove the size
	files []*os.File // guarded by mu: that may hold groups; nil until opened
}

// open opens the files that may hold groups of a content of the size that was
// told. The most likely come first.
func (s *seeding) open(size int64) ([]*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files != nil {
		return s.files, nil
	}
	s.files = []*os.File{}
	v := s.saving
	library := v.getting.library
	if h, err := library.openHeld(s.ctx, v.id, ownShares(v.getting.serves())); err == nil {
		s.files = append(s.files, h.file)
	}
	if f, _, err := openShared(func(flag int) (*os.File, error) { return v.root.OpenFile(v.name, flag, 0) }); err == nil {
		s.files = append(s.files, f)
	}
	if v.twin != "" {
		if f, _, err := openShared(func(flag int) (*os.File, error) { return v.root.OpenFile(v.twin, flag, 0) }); err == nil {
			s.files = append(s.files, f)
		}
	}
	like, err := v.getting.seeds.like(s.ctx, v.path, size)
	for _, seed := range like {
		if f, _, err := seed.open(); err == nil {
			s.files = append(s.files, f)
		}
	}
	return s.files, err
}

func (s *seeding) close() {
	for _, f := range s.files {
		f.Close()
	}
}

// last returns the last chunk group, which proves the size, if a seed has it.
func (s *seeding) last(size int64, o *content.Outboard) ([]byte, error) {
	files, err := s.open(size)
	if err != nil {
		return nil, err
	}
	index := o.Groups() - 1
	n := content.GroupLen(size, index)
	data := make([]byte, n)
	for _, f := range files {
		if got, _ := f.ReadAt(data, index*content.GroupSize); got == n && o.VerifyGroup(index, data) == nil {
			return data, nil
		}
	}
	return nil, nil
}

// fill copies into p what is missing in have and a seed has.
func (s *seeding) fill(p *partial, size int64, o *content.Outboard, have *swarm.Bitfield) error {
	files, err := s.open(size)
	if err != nil {
		return err
	}
	for _, f := range files {
		if have.Count() == have.Len() {
			return nil
		}
		copied, err := s.copy(p, f, size, o, have)
		if err != nil {
			return err
		}
		if copied > 0 {
			s.saving.getting.crowd.gave(local{library: s.saving.getting.library}, copied)
		}
	}
	return nil
}

// copy copies from one seed. Where the file system can let both files have the
// same blocks, an empty partial file begins as its clone.
func (s *seeding) copy(p *partial, from *os.File, size int64, o *content.Outboard, have *swarm.Bitfield) (copied int64, err error) {
	cloned := p.fresh && have.Count() == 0 && cloneFile(p.file, from)
	var mu sync.Mutex // guards have and copied
	var next atomic.Int64
	g, ctx := errgroup.WithContext(s.ctx)
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			buf := groupBuffers.Get().(*[content.GroupSize]byte)
			defer groupBuffers.Put(buf)
			for i := next.Add(1) - 1; i < o.Groups(); i = next.Add(1) - 1 {
				if err := ctx.Err(); err != nil {
					return err
				}
				mu.Lock()
				missing := !have.Has(i)
				mu.Unlock()
				n := content.GroupLen(size, i)
				source := from
				if cloned {
					source = p.file // what is there by now, whatever became of the seed
				}
				if !missing {
					continue
				}
				if got, _ := source.ReadAt(buf[:n], i*content.GroupSize); got < n || o.VerifyGroup(i, buf[:n]) != nil {
					continue
				}
				if !cloned {
					if err := p.write(i, buf[:n]); err != nil {
						return err
					}
				}
				p.meter.add(int64(n))
				mu.Lock()
				have.Set(i)
				copied += int64(n)
				mu.Unlock()
			}
			return nil
		})
	}
	return copied, g.Wait()
}
