package share

import "sync"

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
	if b.sent+b.reserved >= searchMessagesMax-probesMax*probeHoldersMax {
		return false
	}
	b.sent++
	return true
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
