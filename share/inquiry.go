package share

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
)

// inquiry is what became of asking a known publisher.
type inquiry struct {
	answered bool  // it said itself what it has by the name
	recorded bool  // the DHTs have its record of the name
	err      error // why it did not answer
}

// askKnown asks the known publishers themselves, and the DHTs for their records
// of the name, until all have answered or ctx ends.
func (s *search) askKnown(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(askParallel)
	for _, p := range s.known {
		g.Go(func() error {
			q := s.inquire(ctx, p)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.inquiries[p] = q
			return nil
		})
	}
	g.Wait()
}

// inquire asks one publisher. What it says itself is enough; its record gives it
// searchAfterFirst more, as it may have said something newer since.
func (s *search) inquire(ctx context.Context, p peer.ID) *inquiry {
	q := &inquiry{}
	if p == s.library.node.ID() {
		q.answered = true
		return q
	}
	s.trail.found(peer.AddrInfo{ID: p}, foundPublisher)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	record, recordEnd := context.WithCancel(ctx)
	defer recordEnd()
	var g errgroup.Group
	g.Go(func() error {
		if !s.library.node.WaitDHT(record) {
			return nil
		}
		late := sync.OnceFunc(func() { time.AfterFunc(searchAfterFirst, cancel) })
		key := "record of " + p.String()
		s.trail.note(key, func(e *Tried) { e.Found = foundDHT })
		q.recorded = s.library.findRecord(record, p, s.name, func(w word) {
			s.trail.note(key, func(t *Tried) { t.Count, t.Issued = t.Count+1, w.manifest.Issued })
			if w.withdrawn {
				s.withdraw(p, w.manifest.Seq)
			} else {
				s.claim(claim{manifest: w.manifest, envelope: w.envelope})
			}
			late()
		})
		return nil
	})
	at := peer.AddrInfo{ID: p}
	for _, given := range s.peers {
		if given.ID == p {
			at.Addrs = append(at.Addrs, given.Addrs...)
		}
	}
	q.err = s.ask(ctx, at, false, nil)
	q.answered = q.err == nil
	if q.answered && s.confirmed(p) {
		recordEnd()
	}
	g.Wait()
	return q
}

// confirmed reports whether p, which was asked, told all that is known of it. What only
// its record says may be withdrawn since.
func (s *search) confirmed(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, own := s.newest[p], s.itself[p]
	return len(known) == 0 || len(own) > 0 && own[0].manifest.Seq >= known[0].manifest.Seq
}

// inquiry returns what became of asking p, so far. It may be found by others after
// it could not be asked itself.
func (s *search) inquiry(p peer.ID) inquiry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var i inquiry
	if q := s.inquiries[p]; q != nil {
		i = *q
	}
	if q := s.asked[p]; q != nil && !i.answered {
		select {
		case <-q.done:
			i.answered = q.err == nil
			i.err = q.err
		default:
		}
	}
	return i
}

// refused reports whether p's word was offered in an older version than was got
// before, and not in the newest.
func (s *search) refused(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outdated[p] > 0 && len(s.newest[p]) == 0
}

// withdraw takes what p has said of the name before that seq for withdrawn.
func (s *search) withdraw(p peer.ID, seq int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withdrawn[p] = max(s.withdrawn[p], seq)
	known := s.newest[p]
	if len(known) == 0 || known[0].manifest.Seq >= seq {
		return
	}
	if own := s.itself[p]; len(own) > 0 {
		s.newest[p] = own
	} else {
		delete(s.newest, p)
	}
}

// withdrawal is the seq before which p has withdrawn the name; 0: it has not.
func (s *search) withdrawal(p peer.ID) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.withdrawn[p]
}
