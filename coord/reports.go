package coord

import (
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

// How members and their leader keep one another informed of copies. A member tells
// how its store differs from the state, and again until the state is so: the same
// report twice changes nothing. When nothing differs it says that it is there. The
// leader commits what it was told at most once a second, and what is no news never:
// a group in which nothing happens writes nothing.
const (
	commitEvery = time.Second
	// copiesPendingMax is how many contents of one member wait to be committed. What
	// does not fit is reported again.
	copiesPendingMax = 16 << 10
	proposalsMax     = 8 // commands of reports on their way at once
	accusationMax    = 64
	// suspectMax is how long a member may say nothing before it is suspected. The grace
	// time may make it less.
	suspectMax = 90 * time.Second
)

// heartbeatOf is how often a member reports at least. Three may be lost before it is
// suspected.
func heartbeatOf(grace time.Duration) time.Duration {
	return min(max(grace/9, 200*time.Millisecond), 10*time.Second)
}

// suspectAfter is how long a member may say nothing before it is suspected.
func suspectAfter(grace time.Duration) time.Duration {
	return min(suspectMax, max(grace/3, 800*time.Millisecond))
}

// reports is what a leader knows of members by what they report, and has not
// committed. It is soft: another leader begins without it.
type reports struct {
	mu        sync.Mutex
	term      uint64                         // guarded by mu: of which this is
	heard     map[pinset.Peer]time.Time      // guarded by mu
	awaited   map[pinset.Peer]time.Time      // guarded by mu: since when, before it is heard
	streams   map[pinset.Peer]int            // guarded by mu: open ones, of any term
	lost      map[pinset.Peer]bool           // guarded by mu: the last stream has ended since the last report
	pending   map[pinset.Peer]*pendingCopies // guarded by mu
	committed time.Time                      // guarded by mu: when the last ones were
}

// end forgets what was told to this member while it led.
func (r *reports) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard, r.awaited, r.lost, r.pending = nil, nil, nil, nil
}

// pendingCopies is what is to be committed of one member's copies.
type pendingCopies struct {
	held, gone       map[content.ID]struct{} // by the member's word
	proven, unproven map[content.ID]struct{} // by a challenge
}

func (p *pendingCopies) size() int {
	return len(p.held) + len(p.gone) + len(p.proven) + len(p.unproven)
}

// begin forgets what was before a term.
func (r *reports) begin(term uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term == term && r.heard != nil {
		return
	}
	r.term, r.awaited = term, map[pinset.Peer]time.Time{}
	r.heard, r.lost, r.pending = map[pinset.Peer]time.Time{}, map[pinset.Peer]bool{}, map[pinset.Peer]*pendingCopies{}
}

// connected counts a member's streams of requests. The end of the last one is the
// first sign that it is gone.
func (r *reports) connected(p pinset.Peer, by int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams == nil {
		r.streams = map[pinset.Peer]int{}
	}
	if r.streams[p] += by; r.streams[p] > 0 {
		return
	}
	delete(r.streams, p)
	if _, reported := r.heard[p]; reported {
		r.lost[p] = true
	}
}

// silence is for how long a member has said nothing, and whether it is suspected. One
// that has not said anything yet is listened to from when it was first asked about.
func (r *reports) silence(p pinset.Peer, grace time.Duration) (silent time.Duration, suspect bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, reported := r.heard[p]
	if !reported {
		if at, reported = r.awaited[p]; !reported {
			at = time.Now()
			if r.awaited != nil {
				r.awaited[p] = at
			}
		}
	}
	silent = time.Since(at)
	return silent, r.lost[p] || silent >= suspectAfter(grace)
}

// take notes a report of a member, as far as there is room.
func (r *reports) take(p pinset.Peer, held, gone []content.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard == nil {
		return // this member does not lead
	}
	r.heard[p] = time.Now()
	delete(r.lost, p)
	for _, id := range held {
		r.note(p, id, (*pendingCopies).setHeld)
	}
	for _, id := range gone {
		r.note(p, id, (*pendingCopies).setGone)
	}
}

// judged notes what a challenge has shown.
func (r *reports) judged(p pinset.Peer, id content.ID, proven bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if proven {
		r.note(p, id, (*pendingCopies).setProven)
	} else {
		r.note(p, id, (*pendingCopies).setUnproven)
	}
}

// begun says whether this member knows anything by reports.
func (r *reports) begun() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard != nil
}

// heardFrom says whether a member has reported in this term.
func (r *reports) heardFrom(p pinset.Peer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.heard[p].IsZero()
}

// note is for who holds r.mu.
func (r *reports) note(p pinset.Peer, id content.ID, set func(*pendingCopies, content.ID)) {
	c := r.pending[p]
	if c == nil && r.pending != nil {
		c = &pendingCopies{map[content.ID]struct{}{}, map[content.ID]struct{}{}, map[content.ID]struct{}{}, map[content.ID]struct{}{}}
		r.pending[p] = c
	}
	if c != nil && c.size() < copiesPendingMax {
		set(c, id)
	}
}

func (p *pendingCopies) setHeld(id content.ID) {
	delete(p.gone, id)
	if _, doubtful := p.unproven[id]; !doubtful {
		p.held[id] = struct{}{}
	}
}

func (p *pendingCopies) setGone(id content.ID) {
	delete(p.held, id)
	delete(p.proven, id)
	p.gone[id] = struct{}{}
}

func (p *pendingCopies) setProven(id content.ID) {
	delete(p.gone, id)
	delete(p.unproven, id)
	p.proven[id] = struct{}{}
}

func (p *pendingCopies) setUnproven(id content.ID) {
	delete(p.held, id)
	delete(p.proven, id)
	p.unproven[id] = struct{}{}
}

// due takes what is to be committed, if something was not just before.
func (r *reports) due(now time.Time) map[pinset.Peer]*pendingCopies {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.pending) == 0 || now.Sub(r.committed) < commitEvery {
		return nil
	}
	list := r.pending
	r.pending, r.committed = map[pinset.Peer]*pendingCopies{}, now
	return list
}

// mayCommit says whether a report is to be committed at once.
func (r *reports) mayCommit(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.pending) > 0 && now.Sub(r.committed) >= commitEvery
}
