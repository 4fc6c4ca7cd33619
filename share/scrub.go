package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
)

// ErrNotHeld: the store does not hold it.
var ErrNotHeld = errors.New("not held here")

// ScrubOptions are the options of one Scrub.
type ScrubOptions struct {
	// Sources are asked first for what is damaged, as HoldOptions.Sources.
	Sources []peer.AddrInfo
	// Rate is how many bytes a second are read; 0: as fast as the disk gives them.
	Rate int64
	// Progress, if set, is called from one goroutine at a time.
	Progress func(Progress)
}

// Scrubbed tells what a Scrub has found and done.
type Scrubbed struct {
	Read     int64 // bytes
	Damaged  int64 // chunk groups that were wrong; a file of one group is one
	Repaired int64 // of those
	Fetched  int64 // bytes from other peers, for that
}

// Scrub reads all of a held content from the disk and verifies it, and fetches each
// chunk group that is wrong from others, as Hold does. It returns ErrNotHeld, and
// when something is wrong and can't be had, or written, why: then it is Damaged
// until a later Scrub. What was found right, or was repaired, is Verified.
//
// A share that was adopted is read, too. One that is not whole any more is let go
// of, with ErrModified: hold it again.
func (l *Library) Scrub(ctx context.Context, id content.ID, o ScrubOptions) (Scrubbed, error) {
	r, ok, err := l.catalog.hold(id)
	if err == nil && (!ok || r.stage != holdWhole) {
		err = fmt.Errorf("%s: %w", id, ErrNotHeld)
	}
	if err != nil {
		return Scrubbed{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &scrubbing{library: l, options: o, meter: newMeter(o.Progress, PhaseVerifying), pace: newPacer(o.Rate)}
	s.meter.begin(PhaseVerifying, max(r.bytes, r.size))
	if r.adopted {
		err = s.adopted(ctx, id, r)
	} else {
		err = s.hold(ctx, id)
	}
	cancel()
	if s.crowd != nil {
		s.crowd.close()
	}
	s.meter.flush()
	return s.found(), err
}

// scrubbing is one Scrub at work.
type scrubbing struct {
	library *Library
	options ScrubOptions
	meter   *meter
	crowd   *crowd // nil until something has to be fetched
	pace    *pacer
	once    sync.Once

	read, damaged, repaired atomic.Int64
	fetched                 atomic.Int64
}

func (s *scrubbing) found() Scrubbed {
	return Scrubbed{Read: s.read.Load(), Damaged: s.damaged.Load(), Repaired: s.repaired.Load(), Fetched: s.fetched.Load()}
}

func (s *scrubbing) hold(ctx context.Context, id content.ID) error {
	begun := time.Now()
	var failed error
	for p, err := range s.library.catalog.parts(id) {
		if err != nil {
			return err
		}
		if err := s.content(ctx, p); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return failed
	}
	return s.library.catalog.verifiedHold(id, begun)
}

// adopted reads a share that was adopted.
func (s *scrubbing) adopted(ctx context.Context, id content.ID, r holdRecord) error {
	begun := time.Now()
	records, err := s.library.catalog.byID(id, lookupMax)
	if err != nil {
		return err
	}
	for _, share := range records {
		if !adoptable(share, r.kind) {
			continue
		}
		if whole, err := s.share(ctx, share); err != nil {
			return err
		} else if whole {
			return s.library.catalog.verifiedHold(id, begun)
		}
	}
	if err := s.library.Release(ctx, id); err != nil {
		return err
	}
	return fmt.Errorf("%s: what was shared in place: %w", id, ErrModified)
}

// share reads all files of a share, and reports whether they are what was hashed.
func (s *scrubbing) share(ctx context.Context, r shareRecord) (bool, error) {
	for f, err := range s.library.catalog.filesOfShare(r.key) {
		if err != nil {
			return false, err
		}
		if err := s.sharedFile(ctx, f); err != nil {
			s.damaged.Add(1)
			return false, ctx.Err()
		}
	}
	return true, nil
}

// content scrubs one content of the store.
func (s *scrubbing) content(ctx context.Context, p part) error {
	o, err := s.outboard(ctx, p)
	if err != nil {
		return err
	}
	good, err := s.verify(ctx, p, o)
	if err != nil || good == nil {
		return err
	}
	wrong := good.Len() - good.Count()
	if wrong > 0 {
		s.damaged.Add(wrong)
		if err := s.library.catalog.putDamages(p.id, good); err != nil {
			return err
		}
		if err := s.repair(ctx, p, o, good); err != nil {
			return fmt.Errorf("repair %s: %w", p.id, noSpace(err))
		}
		s.repaired.Add(wrong)
	}
	return s.library.catalog.clearDamage(p.id)
}

// outboard returns the outboard of a content, verified; nil for one group. One that
// the disk has damaged is fetched again.
func (s *scrubbing) outboard(ctx context.Context, p part) (*content.Outboard, error) {
	if content.GroupCount(p.size) == 1 {
		return nil, nil
	}
	o, err := s.library.catalog.outboard(p.id, p.size)
	if err != nil {
		return nil, err
	}
	if o != nil && o.Verify(p.id) == nil {
		return o, nil
	}
	s.damaged.Add(1)
	f := &fetch{crowd: s.sources(ctx, p.id), meter: newMeter(nil, PhaseFetching), id: p.id, size: p.size}
	if _, _, err := f.open(ctx); err != nil {
		return nil, fmt.Errorf("outboard of %s: %w", p.id, err)
	}
	s.fetched.Add(int64(len(f.outboard.Bytes())))
	s.repaired.Add(1)
	return f.outboard, s.library.catalog.replaceOutboard(p.id, f.outboard)
}

// verify reads a content and returns which of its groups are right; nil when it was
// released meanwhile.
func (s *scrubbing) verify(ctx context.Context, p part, o *content.Outboard) (*swarm.Bitfield, error) {
	good := swarm.NewBitfield(content.GroupCount(p.size))
	f, err := os.Open(s.library.store.path(p.id))
	if errors.Is(err, fs.ErrNotExist) {
		if _, ok, err := s.library.catalog.stored(p.id); !ok || err != nil {
			return nil, err
		}
		return good, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > p.size && info.Mode().IsRegular() { // what is too much is no group's
		if err := s.library.store.cut(p); err != nil {
			return nil, err
		}
	}
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	defer groupBuffers.Put(buf)
	for i := range good.Len() {
		n := content.GroupLen(p.size, i)
		if err := s.pace.wait(ctx, n); err != nil {
			return nil, err
		}
		got, _ := f.ReadAt(buf[:n], i*content.GroupSize)
		s.read.Add(int64(got))
		s.meter.add(int64(n))
		if got == n && verifyGroup(p.id, o, i, buf[:n]) == nil && info.Mode().IsRegular() {
			good.Set(i)
		}
	}
	return good, nil
}

// verifyGroup checks a group against an outboard, or, for nil, the ID.
func verifyGroup(id content.ID, o *content.Outboard, index int64, data []byte) error {
	if o == nil {
		return content.VerifyData(id, data)
	}
	return o.VerifyGroup(index, data)
}

// sources are asked for what is damaged.
func (s *scrubbing) sources(ctx context.Context, id content.ID) *crowd {
	s.once.Do(func() {
		if s.crowd != nil {
			return
		}
		s.crowd = s.library.newCrowd(newMeter(nil, PhaseDialling))
		s.crowd.pace = &s.library.holdRate
		for _, p := range s.options.Sources {
			s.crowd.offer(ctx, p)
		}
	})
	return s.crowd
}

// repair fetches the groups that are not good, and writes them over what is there. A
// crash leaves some of them wrong, as they were; the others are not touched.
func (s *scrubbing) repair(ctx context.Context, p part, o *content.Outboard, good *swarm.Bitfield) error {
	f, err := s.library.store.reopen(p)
	if err != nil {
		return err
	}
	defer f.Close()
	crowd := s.sources(ctx, p.id)
	before := crowd.fetched()
	get := &fetch{crowd: crowd, meter: newMeter(nil, PhaseFetching), id: p.id, size: p.size, sink: mending{f},
		outboard: o, have: good.Clone()}
	_, err = get.run(ctx)
	s.fetched.Add(crowd.fetched() - before)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	defer groupBuffers.Put(buf)
	for i := good.NextClear(0); i < good.Len(); i = good.NextClear(i + 1) {
		n := content.GroupLen(p.size, i)
		if got, _ := f.ReadAt(buf[:n], i*content.GroupSize); got < n || verifyGroup(p.id, o, i, buf[:n]) != nil {
			return fmt.Errorf("chunk group %d: the disk does not keep what is written to it: %w", i, errDamaged)
		}
	}
	return nil
}

// mending is a sink that writes over a damaged file. Nobody follows it.
type mending struct{ file *os.File }

func (m mending) admit(int64) error                                         { return nil }
func (m mending) prepare(int64, *content.Outboard) (*swarm.Bitfield, error) { return nil, nil }

func (m mending) write(index int64, data []byte) error {
	_, err := m.file.WriteAt(data, index*content.GroupSize)
	return noSpace(err)
}

// reopen opens the file of a stored content for writing, makes it anew if it is
// gone, and gives it its size.
func (s *store) reopen(p part) (*os.File, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if _, ok, err := s.catalog.stored(p.id); err != nil || !ok {
		return nil, errors.Join(err, ErrNotHeld) // released meanwhile
	}
	path := s.path(p.id)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		if err := os.RemoveAll(path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(p.size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// cut gives the file of a stored content its size.
func (s *store) cut(p part) error {
	f, err := s.reopen(p)
	if errors.Is(err, ErrNotHeld) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// fetched is how many bytes other peers have given.
func (c *crowd) fetched() (bytes int64) {
	stats, _, _ := c.report()
	for _, s := range stats {
		if s.Via != ViaLocal {
			bytes += s.Bytes
		}
	}
	return bytes
}

// pacer holds reading to a rate.
type pacer struct {
	rate int64 // bytes a second; 0: none
	next time.Time
}

func newPacer(rate int64) *pacer { return &pacer{rate: rate} }

// wait returns when n bytes more may be read. It is for one goroutine.
func (p *pacer) wait(ctx context.Context, n int) error {
	if p == nil || p.rate <= 0 {
		return ctx.Err()
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	delay := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	if delay <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pacedReader reads a file at a scrub's rate.
type pacedReader struct {
	ctx   context.Context
	scrub *scrubbing
	file  *os.File
}

func (r pacedReader) ReadAt(b []byte, at int64) (int, error) {
	if err := r.scrub.pace.wait(r.ctx, len(b)); err != nil {
		return 0, err
	}
	n, err := r.file.ReadAt(b, at)
	r.scrub.read.Add(int64(n))
	r.scrub.meter.add(int64(n))
	return n, err
}
