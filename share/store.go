package share

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// ErrOverQuota: the store's quota has no room for it. Release something, or raise
// the quota. It is told before anything is fetched.
var ErrOverQuota = fmt.Errorf("over the quota: %w", ErrNoSpace)

// ErrOversize: the content is larger than HoldOptions.Size says. To try again is of
// no use.
var ErrOversize = errors.New("larger than was said")

// HoldOptions are the options of one Hold.
type HoldOptions struct {
	// Kind of the content; empty: a file.
	Kind Kind
	// Size is the most that the content may have, in bytes; of a directory: all its
	// files together, each as often as it is listed. 0: it is not known.
	Size int64
	// Sources are asked first. Where one of them has the content, neither the DHTs nor
	// the local network are asked.
	Sources []peer.AddrInfo
	// Adopt lets a share in place count as the copy, if it is whole, unchanged and
	// for everybody. It takes no room of the quota, and is gone when the user edits it.
	Adopt bool
	// Progress, if set, is called from one goroutine at a time.
	Progress func(Progress)
}

// Held is one content that the store holds, whole.
type Held struct {
	ID    content.ID
	Kind  Kind
	Size  int64 // bytes; of a directory: of all its files, each as often as it is listed
	Files int64 // 1 for a file
	// Bytes is what it keeps in the store: of a directory its listing and each of its
	// files once. What two held contents share is in the Bytes of both, and in
	// Usage once. 0 when Adopted.
	Bytes    int64
	Verified time.Time // when all of it was found right last
	Adopted  bool      // a share in place is the copy
	Damaged  bool      // some of it was found wrong since: scrub it
}

// Usage is what the store takes of its disk, in bytes.
type Usage struct {
	// Used is the size of all that is held, and of what lies there of unfinished
	// holds, each content once.
	Used int64
	// Overhead is what it takes beside that: whole blocks, and outboards.
	Overhead int64
	// Reserved is what the holds under way have yet to bring.
	Reserved int64
	// Quota bounds Used + Reserved; 0: there is none. Overhead may exceed it by a
	// 128th.
	Quota int64
	// Free is what the disk has left; -1: it can't be told.
	Free int64
}

// store keeps contents that this peer holds for others: copies of its own, under
// their content IDs, which are no shares and no user's files.
//
//	<home>/store/ab/ab12…   one content: a file, or a directory's listing
//	<home>/store/new/ID/    what the unfinished hold of ID has so far
//
// The catalog says what is held (storerecords.go): a file without a record is
// removed by open. A file is written under new, synced, moved to its place, and
// recorded in one transaction with its outboard and its hold.
//
//	Hold     record the hold → fetch → sync → move → record the content as held
//	Release  record that it goes → record its contents as gone and remove them → forget it
//
// So a crash leaves a hold that says how far it has come; one that was on its
// way in stays there, to be resumed or released, and one on its way out goes.
type store struct {
	library *Library
	catalog *catalog
	dir     string
	slots   chan struct{} // a token for each hold that is fetched; capacity holdsParallel

	// changing is held while files come to or leave their places together with
	// their records: what is recorded is there.
	changing sync.Mutex

	mu         sync.Mutex                   // guards all below
	quota      int64                        // 0: none
	used       charge                       // of what the catalog has
	reserved   charge                       // of holds under way
	unfinished map[content.ID]charge        // on disk, of holds that are not under way
	busy       map[content.ID]chan struct{} // closed when the Hold or Release that is at it ends
}

// holdsParallel is how many holds are fetched at a time; others wait. Each has a data
// stream of its own to its sources, which allow dataStreamsMax.
const holdsParallel = 8

// charge is what contents take: their bytes, and these with all that they cost
// beside.
type charge struct{ bytes, cost int64 }

const (
	// storeBlock is what the length of a file is rounded up to: file systems'
	// common block.
	storeBlock = 4096
	// storeRecord is about what the catalog and the file system take for one file.
	storeRecord = 512
)

// chargeOf is the charge for one content.
func chargeOf(size int64) charge {
	cost := storeRecord + (size+storeBlock-1)/storeBlock*storeBlock
	if groups := content.GroupCount(size); groups > 1 {
		cost += 32 * groups
	}
	return charge{size, cost}
}

func (c charge) plus(d charge) charge  { return charge{c.bytes + d.bytes, c.cost + d.cost} }
func (c charge) minus(d charge) charge { return charge{c.bytes - d.bytes, c.cost - d.cost} }

// atMost is c, or what of it d covers.
func (c charge) atMost(d charge) charge {
	return charge{min(c.bytes, d.bytes), min(c.cost, d.cost)}
}

// fits reports whether c is within a quota; 0 is none. What contents cost beside
// their bytes may exceed it a little, so that a quota takes contents of that size.
func (c charge) fits(quota int64) bool {
	return quota == 0 || c.bytes <= quota && c.cost <= quota+quota/128
}

// SetQuota bounds what the store takes, in bytes; 0: by the disk only. One below
// what it takes already removes nothing, and lets nothing more in.
func (l *Library) SetQuota(bytes int64) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.store.quota = max(0, bytes)
}

// Usage tells what the store takes.
func (l *Library) Usage() Usage {
	s := l.store
	free := freeSpace(l.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.used
	for _, c := range s.unfinished {
		all = all.plus(c)
	}
	return Usage{
		Used: all.bytes, Overhead: all.cost - all.bytes,
		Reserved: s.reserved.bytes, Quota: s.quota, Free: free,
	}
}

// reserve takes room for c, or returns ErrOverQuota.
func (s *store) reserve(c charge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.used.plus(s.reserved).plus(c)
	for _, u := range s.unfinished {
		all = all.plus(u)
	}
	if !all.fits(s.quota) {
		return fmt.Errorf("%d bytes are needed, and %d of %d are taken: %w", c.bytes, all.bytes-c.bytes, s.quota, ErrOverQuota)
	}
	s.reserved = s.reserved.plus(c)
	return nil
}

// giveBack ends a reservation.
func (s *store) giveBack(c charge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved = s.reserved.minus(c)
}

// settle turns what was reserved into what is used, as far as that is more.
func (s *store) settle(reserved, used charge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved = s.reserved.minus(reserved)
	s.used = s.used.plus(used)
}

// enter waits until nobody else holds or releases id, and keeps others waiting
// until leave is called.
func (s *store) enter(ctx context.Context, id content.ID) (leave func(), err error) {
	for {
		s.mu.Lock()
		at := s.busy[id]
		if at == nil {
			done := make(chan struct{})
			s.busy[id] = done
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.busy, id)
				close(done)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-at:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// path is where a content lies that is held.
func (s *store) path(id content.ID) string {
	name := id.Hex()
	return filepath.Join(s.dir, name[:2], name)
}

// newDir is where the files of an unfinished hold are.
func (s *store) newDir(id content.ID) string { return filepath.Join(s.dir, "new", id.Hex()) }

// lying is what the files of an unfinished hold take on the disk.
func (s *store) lying(id content.ID) (charge, error) {
	var c charge
	entries, err := os.ReadDir(s.newDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return c, err
		}
		bytes := min(info.Size(), allocated(info))
		c = c.plus(charge{bytes, bytes + storeRecord})
	}
	return c, err
}

// setUnfinished notes what lies there of a hold that is not under way.
func (s *store) setUnfinished(id content.ID) error {
	c, err := s.lying(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.unfinished, id)
	if c != (charge{}) {
		s.unfinished[id] = c
	}
	return err
}

// begun forgets what lies there of a hold that goes on: it is part of what is
// reserved for it.
func (s *store) begun(id content.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.unfinished, id)
}
