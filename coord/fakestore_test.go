package coord

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// fakeNet is where fake stores find one another's contents: it stands for the
// network, the swarm and the disks of package share.
type fakeNet struct {
	mu      sync.Mutex
	stores  map[peer.ID]*fakeStore      // guarded by mu
	origins map[content.ID]bool         // guarded by mu: what is to be had from who pinned it
	cut     func(from, to peer.ID) bool // guarded by mu; nil: no link is
}

func newFakeNet() *fakeNet {
	return &fakeNet{stores: map[peer.ID]*fakeStore{}, origins: map[content.ID]bool{}}
}

// store returns the store of a peer, which outlives its Coord.
func (n *fakeNet) store(p peer.ID) *fakeStore {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.stores[p]
	if s == nil {
		s = &fakeStore{net: n, self: p, have: map[content.ID]share.Held{}, partial: map[content.ID]bool{}, rate: 100 << 20}
		n.stores[p] = s
	}
	return s
}

// offer has a content at its origin.
func (n *fakeNet) offer(id content.ID, there bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.origins[id] = there
}

// fakeStore is a Store in memory. What it takes in takes time, and lasts.
type fakeStore struct {
	net  *fakeNet
	self peer.ID

	mu      sync.Mutex
	have    map[content.ID]share.Held // guarded by mu
	partial map[content.ID]bool       // guarded by mu
	quota   int64                     // guarded by mu
	rate    int64                     // guarded by mu
	full    bool                      // guarded by mu: the disk is
	off     bool                      // guarded by mu: the process is
	lies    bool                      // guarded by mu: it says that it holds what it does not fetch
	most    int64                     // guarded by mu: bytes that were ever held
	tried   int                       // guarded by mu: fetches that were begun
}

func (s *fakeStore) used() (n int64) {
	for _, x := range s.have {
		n += x.Size
	}
	return n
}

func (s *fakeStore) has(id content.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, here := s.have[id]
	return here && !x.Damaged && !s.off && !s.lies
}

// found says whether somebody in reach has a content.
func (s *fakeStore) found(id content.ID, sources []peer.AddrInfo) bool {
	s.net.mu.Lock()
	origin, cut := s.net.origins[id], s.net.cut
	stores := maps.Clone(s.net.stores)
	s.net.mu.Unlock()
	if origin {
		return true
	}
	for _, p := range sources {
		if x := stores[p.ID]; x != nil && x != s && (cut == nil || !cut(s.self, p.ID) && !cut(p.ID, s.self)) && x.has(id) {
			return true
		}
	}
	return false
}

func (s *fakeStore) Hold(ctx context.Context, id content.ID, o share.HoldOptions) (share.Held, error) {
	s.mu.Lock()
	if x, here := s.have[id]; here {
		s.mu.Unlock()
		return x, nil
	}
	if s.quota > 0 && s.used()+o.Size > s.quota {
		s.mu.Unlock()
		return share.Held{}, share.ErrOverQuota
	}
	s.tried++
	lies, rate := s.lies, s.rate
	s.mu.Unlock()
	wait := time.Millisecond + time.Duration(float64(o.Size)/float64(rate)*float64(time.Second))
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.partial[id] = true
		return share.Held{}, ctx.Err()
	}
	if !lies && !s.found(id, o.Sources) {
		return share.Held{}, fmt.Errorf("%s: %w", id, share.ErrUnreachable)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.off:
		return share.Held{}, context.Canceled
	case s.full:
		s.partial[id] = true
		return share.Held{}, share.ErrNoSpace
	case s.quota > 0 && s.used()+o.Size > s.quota:
		return share.Held{}, share.ErrOverQuota
	}
	x := share.Held{ID: id, Kind: o.Kind, Size: o.Size, Files: 1, Bytes: o.Size, Verified: time.Now()}
	s.have[id] = x
	delete(s.partial, id)
	s.most = max(s.most, s.used())
	return x, nil
}

func (s *fakeStore) Release(_ context.Context, id content.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.have, id)
	delete(s.partial, id)
	return nil
}

func (s *fakeStore) Held(id content.ID) (share.Held, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, here := s.have[id]
	return x, here, nil
}

func (s *fakeStore) Holding(context.Context) iter.Seq2[share.Held, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Collect(maps.Values(s.have))
	return func(yield func(share.Held, error) bool) {
		for _, x := range list {
			if !yield(x, nil) {
				return
			}
		}
	}
}

func (s *fakeStore) Unfinished(context.Context) iter.Seq2[share.Held, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Collect(maps.Keys(s.partial))
	return func(yield func(share.Held, error) bool) {
		for _, id := range list {
			if !yield(share.Held{ID: id}, nil) {
				return
			}
		}
	}
}

func (s *fakeStore) SetQuota(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota = bytes
}

func (s *fakeStore) SetHoldRate(int64) {}

func (s *fakeStore) Usage() share.Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return share.Usage{Used: s.used(), Quota: s.quota, Free: 1 << 40}
}

func (s *fakeStore) Scrub(_ context.Context, id content.ID, o share.ScrubOptions) (share.Scrubbed, error) {
	s.mu.Lock()
	x, here := s.have[id]
	s.mu.Unlock()
	if !here {
		return share.Scrubbed{}, share.ErrNotFound
	}
	var done share.Scrubbed
	if x.Damaged {
		done.Damaged = 1
		if !s.found(id, o.Sources) {
			return done, share.ErrUnreachable
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, here := s.have[id]; here {
		x.Damaged, x.Verified = false, time.Now()
		s.have[id] = x
	}
	return done, nil
}

func (s *fakeStore) Challenge(_ context.Context, id content.ID, _ share.Kind, p peer.AddrInfo) error {
	s.net.mu.Lock()
	x, cut := s.net.stores[p.ID], s.net.cut
	s.net.mu.Unlock()
	if x == nil || cut != nil && (cut(s.self, p.ID) || cut(p.ID, s.self)) {
		return share.ErrUnreachable
	}
	x.mu.Lock()
	off := x.off
	x.mu.Unlock()
	switch {
	case off:
		return share.ErrUnreachable
	case !x.has(id):
		return share.ErrUnproven
	}
	return nil
}
