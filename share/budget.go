package share

import "sync"

// What one search by words may ask, in messages: requests to peers of the DHTs, of
// which lookups of two words need seven in a small network, and questions to peers.
const (
	searchMessagesMax = 40
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
	denied   bool
}

// newBudget reserves what lookups may need.
func newBudget() *budget { return &budget{reserved: lookupMessagesMax} }

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

// refund gives back what was meant for a peer that could not be dialled.
func (b *budget) refund() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refunds < refundsMax {
		b.refunds++
		b.sent--
	}
}

// forPeer reports whether another peer may be asked, and counts that.
func (b *budget) forPeer() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent+b.reserved >= searchMessagesMax {
		b.denied = b.denied || b.reserved == 0
		return false
	}
	b.sent++
	return true
}

// count is how many were sent.
func (b *budget) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sent
}

// short reports whether a peer was not asked for want of messages.
func (b *budget) short() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.denied
}
