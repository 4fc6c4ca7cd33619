package share

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// window is what a count was, within the last rateWindow, oldest first.
type window []sample

type sample struct {
	at   time.Time
	done int64
}

// rate takes the count as it is now, and returns how much it grew a second lately.
func (w *window) rate(at time.Time, done int64) int64 {
	s := append(*w, sample{at, done})
	for len(s) > 2 && at.Sub(s[0].at) > rateWindow {
		s = s[1:]
	}
	*w = s
	took := at.Sub(s[0].at)
	if took <= 0 {
		return 0
	}
	return int64(float64(done-s[0].done) / took.Seconds())
}

// shift has the count be larger by n for all the time.
func (w window) shift(n int64) {
	for i := range w {
		w[i].done += n
	}
}

// SourceProgress is what one source has given to an operation so far.
type SourceProgress struct {
	Peer   peer.ID  `json:"peer,omitempty"`
	Mirror string   `json:"mirror,omitempty"` // the URL, of a mirror: it has no peer ID
	Bytes  int64    `json:"bytes"`
	Rate   int64    `json:"rate"` // bytes a second, lately
	Via    node.Via `json:"via"`
}

// given counts by source. The zero value is empty.
type given map[sourceKey]*givenBy

// sourceKey is one source: a peer, or a mirror by its URL.
type sourceKey struct {
	peer   peer.ID
	mirror string
}

type givenBy struct {
	via    node.Via
	bytes  int64
	lately window
}

func (g *given) add(who sourceKey, via node.Via, bytes int64) {
	if *g == nil {
		*g = given{}
	}
	s := (*g)[who]
	if s == nil {
		s = &givenBy{via: via}
		(*g)[who] = s
	}
	s.bytes += bytes
}

// measure lists the sources as they are now, most bytes first.
func (g given) measure(at time.Time) []SourceProgress {
	list := make([]SourceProgress, 0, len(g))
	for who, s := range g {
		list = append(list, SourceProgress{Peer: who.peer, Mirror: who.mirror, Bytes: s.bytes, Rate: s.lately.rate(at, s.bytes), Via: s.via})
	}
	slices.SortFunc(list, func(a, b SourceProgress) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Mirror, b.Mirror))
	})
	return list
}
