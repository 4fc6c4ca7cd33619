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
	knownRate, knownBurst         = 1500, 8192 // all neighbors together
	newcomersRate, newcomersBurst = 100, 256
	newcomerFirst                 = 4       // datagrams of a source that count as a newcomer's
	answerRate, answerBurst       = 32, 128 // per source
	sourcesTracked                = 1024
)

// lanLimits bounds what one source, and all that nobody knows, can make this
// peer do. A source that neighbors are heard from does not share the strangers'
// budget, so that a flood loses no old ones. The first datagrams of a source have
// a budget of their own: a flood from few sources keeps no new ones out. One from
// many does, while it lasts.
type lanLimits struct {
	mu        sync.Mutex // guards all
	sources   map[netip.Addr]*source
	answers   map[netip.Addr]*source
	known     bucket
	strangers bucket
	newcomers bucket
	refused   bool // a stranger was, since recovered told
}

type source struct {
	bucket
	heard int // its datagrams that were looked at, up to newcomerFirst
}

func (l *lanLimits) init(now time.Time) {
	l.sources, l.answers = map[netip.Addr]*source{}, map[netip.Addr]*source{}
	l.known, l.strangers, l.newcomers = bucket{knownBurst, now}, bucket{strangersBurst, now}, bucket{newcomersBurst, now}
}

// admit reports whether a datagram from a source is looked at.
func (l *lanLimits) admit(from netip.Addr, known bool, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := track(l.sources, from, perSourceBurst, now)
	if !s.take(perSourceRate, perSourceBurst, now) {
		return false
	}
	if known {
		return l.known.take(knownRate, knownBurst, now)
	}
	if s.heard < newcomerFirst && l.newcomers.take(newcomersRate, newcomersBurst, now) {
		s.heard++
		return true
	}
	if l.strangers.take(strangersRate, strangersBurst, now) {
		return true
	}
	l.refused = true
	return false
}

// recovered reports, once, that strangers are looked at again after some were
// not: there may be neighbors among those.
func (l *lanLimits) recovered(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.refused || !l.strangers.take(strangersRate, strangersBurst, now) || l.strangers.tokens < strangersRate/4 {
		return false
	}
	l.refused = false
	return true
}

// admitAnswer reports whether a source that proved nothing is answered.
func (l *lanLimits) admitAnswer(to netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return track(l.answers, to, answerBurst, now).take(answerRate, answerBurst, now)
}

// track finds or makes a source's bucket. When too many are tracked, another is
// forgotten: it begins anew, within what strangers have in all.
func track(buckets map[netip.Addr]*source, a netip.Addr, burst float64, now time.Time) *source {
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
	b = &source{bucket: bucket{burst, now}}
	buckets[a] = b
	return b
}
