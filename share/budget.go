package share

import (
	"context"
	"sync"
)

// What one search by words may ask, in messages: requests to peers of the DHTs, of
// which lookups of two words need seven in a small network, questions to peers, and
// probes of what they tell.
const (
	searchMessagesMax = 40
	// probesMax is how many of the best results are probed, and probeHoldersMax how many
	// of those who have one are asked for it.
	probesMax         = 3
	probeHoldersMax   = 2
	lookupMessagesMax = 20 // of all lookups
	// refundsMax is how many peers that can't be dialled do not count: nothing was sent
	// to them.
	refundsMax = 24
)

// budget counts the messages of one search. Its methods are safe for concurrent use.
type budget struct {
	mu       sync.Mutex // guards all below
	sent     int
	reserved int // for lookups
	refunds  int
	dialling int        // of the peers that are counted
	dialled  *sync.Cond // signalled when that gets less
}

// newBudget reserves what lookups may need.
func newBudget() *budget {
	b := &budget{reserved: lookupMessagesMax}
	b.dialled = sync.NewCond(&b.mu)
	return b
}

// forLookup reports whether a lookup may send a message, and counts it.
func (b *budget) forLookup() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reserved == 0 {
		return false
	}
	b.sent++
	b.reserved--
	return true
}

// endLookup gives back what lookups did not need.
func (b *budget) endLookup() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserved = 0
}

// forPeer reports whether another peer may be asked, and counts that. Who is told so
// calls endDial once.
func (b *budget) forPeer() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent() {
		return false
	}
	b.sent++
	b.dialling++
	return true
}

// forPeerSoon is forPeer that waits for dials under way, which may give something back.
func (b *budget) forPeerSoon(ctx context.Context) bool {
	defer context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.dialled.Broadcast()
	})()
	b.mu.Lock()
	for b.spent() && b.dialling > 0 && ctx.Err() == nil {
		b.dialled.Wait()
	}
	b.mu.Unlock()
	return b.forPeer()
}

// spent reports whether no further peer may be asked. The caller holds b.mu.
func (b *budget) spent() bool {
	return b.sent+b.reserved >= searchMessagesMax-probesMax*probeHoldersMax
}

// endDial notes that a peer was dialled, or could not be: then nothing was sent to it.
func (b *budget) endDial(reached bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dialling--; !reached && b.refunds < refundsMax {
		b.refunds++
		b.sent--
	}
	b.dialled.Broadcast()
}

// forProbe counts the questions of one probe, which are allowed for.
func (b *budget) forProbe(holders int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sent += holders
}

// count is how many were sent.
func (b *budget) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sent
}
