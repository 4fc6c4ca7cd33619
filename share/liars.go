package share

import (
	"errors"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// liarsMax is how many liars are remembered: identities cost nothing, and the
// first ones are as good as the last.
const liarsMax = 10_000

// liars are the peers that have sent what does not match, in any get of this
// library: they are not asked again while it runs.
type liars struct {
	mu     sync.Mutex
	byPeer map[peer.ID]*CorruptError // guarded by mu: what each did first
	lies   int64                     // guarded by mu
}

// add remembers what a peer did.
func (l *liars) add(bad *CorruptError) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lies++
	if l.byPeer[bad.Peer] == nil && len(l.byPeer) < liarsMax && bad.Peer != "" {
		l.byPeer[bad.Peer] = bad
	}
}

// did returns what p did, or nil.
func (l *liars) did(p peer.ID) *CorruptError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byPeer[p]
}

// lie returns what err says of a peer that lies; nil for one that is honest
// about a file that has changed.
func lie(err error) *CorruptError {
	var bad *CorruptError
	if errors.As(err, &bad) && bad.Peer != "" && !bad.modified {
		return bad
	}
	return nil
}
