package node

import (
	"net/netip"
	"sync"
	"time"
)

// bucket is a token bucket: burst tokens at most, filled at rate a second.
type bucket struct {
	tokens float64
	filled time.Time
}

func (b *bucket) take(rate, burst float64, now time.Time) bool {
	b.tokens = min(burst, b.tokens+rate*now.Sub(b.filled).Seconds())
	b.filled = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// Rates at which datagrams are looked at. Checking a signature takes some 100 µs
// of one core, so that a flood costs a few per cent of it.
const (
	perSourceRate, perSourceBurst = 100, 512 // fifty peers may share one host
	strangersRate, strangersBurst = 300, 2048
	answerRate, answerBurst       = 8, 64 // per source
	sourcesTracked                = 1024
)

// lanLimits bounds what one source, and all that nobody knows, can make this
// peer do. A source that neighbors are heard from does not share the strangers'
// budget: a flood keeps new ones out for a while, and loses no old ones.
type lanLimits struct {
	mu        sync.Mutex // guards all
	sources   map[netip.Addr]*bucket
	answers   map[netip.Addr]*bucket
	strangers bucket
}

func (l *lanLimits) init(now time.Time) {
	l.sources, l.answers = map[netip.Addr]*bucket{}, map[netip.Addr]*bucket{}
	l.strangers = bucket{strangersBurst, now}
}

// admit reports whether a datagram from a source is looked at.
func (l *lanLimits) admit(from netip.Addr, known bool, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return track(l.sources, from, perSourceBurst, now).take(perSourceRate, perSourceBurst, now) &&
		(known || l.strangers.take(strangersRate, strangersBurst, now))
}

// admitAnswer reports whether a source that proved nothing is answered.
func (l *lanLimits) admitAnswer(to netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return track(l.answers, to, answerBurst, now).take(answerRate, answerBurst, now)
}

// track finds or makes a source's bucket. When too many are tracked, another is
// forgotten: it begins anew, within what strangers have in all.
func track(buckets map[netip.Addr]*bucket, a netip.Addr, burst float64, now time.Time) *bucket {
	b := buckets[a]
	if b != nil {
		return b
	}
	if len(buckets) >= sourcesTracked {
		for other := range buckets {
			delete(buckets, other)
			break
		}
	}
	b = &bucket{burst, now}
	buckets[a] = b
	return b
}
