package share

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"
)

// The part of a search by words that asks the DHTs, and whom they name.

// providersMax is how many providers of one key are looked at, to choose from them whom
// to ask: a word can be flooded.
const providersMax = 512

// keys are words to look by, the one that looks the rarest first: what is meant has
// the first, or where there are several alternatives, one of them.
func (s *seeking) keys() []string {
	alternatives := s.lookups()
	if len(alternatives) == 1 {
		return alternatives[0][:1]
	}
	var firsts []string
	for _, words := range alternatives {
		firsts = append(firsts, words[0])
	}
	return firsts
}

func wordKeys(words []string) (keys []multihash.Multihash) {
	for _, w := range words {
		keys = append(keys, WordKey(w))
	}
	return keys
}

// lookups are the alternatives of words by which what is meant is found, in each the
// word that looks the rarest first.
func (s *seeking) lookups() [][]string {
	alternatives := s.query.keyWords()
	for i, words := range alternatives {
		counts, err := s.library.catalog.countWords(words)
		if err != nil { // the order matters little
			s.library.log.Warn("count words", "err", err)
		}
		alternatives[i] = rarest(words, func(w string) int { return counts[w] })
	}
	return alternatives
}

// Of one search the DHTs are asked for the rarest words, and for pairs of them when
// there are two or more.
const (
	lookupWordsMax  = 3
	lookupPairWords = 2 // beside pairs, which say more
	// How many peers of a DHT, the closest to a key, are asked for its providers: each
	// of them should know all. One may lie, or have been away.
	closestFirst  = 3
	closestOthers = 2 // for the other words, which only narrow the choice
)

// searchKey is one key that the DHTs are asked for.
type searchKey struct {
	key     multihash.Multihash
	pair    bool // of words, not a word
	closest int  // peers of each DHT that should answer
}

// searchKeys are those for what has the words of one of the alternatives, the rarest
// first in each.
func searchKeys(alternatives [][]string) (keys []searchKey) {
	if len(alternatives) > 1 {
		for _, words := range alternatives[:min(len(alternatives), lookupWordsMax)] {
			keys = append(keys, searchKey{key: WordKey(words[0]), closest: closestFirst})
		}
		return keys
	}
	words, count := alternatives[0], lookupWordsMax
	for _, p := range queryPairs(words) {
		keys, count = append(keys, searchKey{key: p.key(), pair: true, closest: closestFirst}), lookupPairWords
	}
	for i, w := range words[:min(len(words), count)] {
		k := searchKey{key: WordKey(w), closest: closestFirst}
		if i > 0 || len(words) > 1 {
			k.closest = closestOthers
		}
		keys = append(keys, k)
	}
	return keys
}

// askDHT asks the DHTs who has the words, and then of those who are named for all keys
// the first of each network at once, and the others in turns when all are known.
func (s *seeking) askDHT(ctx context.Context, g *errgroup.Group) {
	defer s.budget.endLookup()
	if !s.library.node.WaitDHT(ctx) {
		return
	}
	s.meter.begin(PhaseDHT, 0)
	s.mu.Lock()
	s.report.dht, s.report.dhtPeers = true, s.library.node.DHTPeers()
	s.mu.Unlock()
	alternatives := s.lookups()
	keys := searchKeys(alternatives)
	p := newProviders(keys, len(alternatives) > 1)
	var lookups errgroup.Group
	for _, k := range keys {
		lookups.Go(func() error {
			s.lookUp(ctx, k, p, g)
			return nil
		})
	}
	lookups.Wait()
	s.budget.endLookup()
	s.trail.note("DHT", func(*Tried) {})
	s.mu.Lock()
	s.waiting = p.rest()
	s.mu.Unlock()
	for range askParallel {
		g.Go(func() error {
			s.askWaiting(ctx)
			return nil
		})
	}
}

// provider is one peer that the DHTs name for some of the keys.
type provider struct {
	peer.AddrInfo
	pairs, words int  // how many of the keys
	taken        bool // asked at once
}

// providers are those that the DHTs name. They are guarded by seeking.mu.
type providers struct {
	pairs, words int // that one should be named for
	at           map[peer.ID]*provider
	order        []peer.ID
}

func newProviders(keys []searchKey, alternatives bool) *providers {
	p := providers{at: map[peer.ID]*provider{}}
	for _, k := range keys {
		if k.pair {
			p.pairs++
		} else {
			p.words++
		}
	}
	if alternatives {
		p.words = 1
	}
	return &p
}

// named takes up that a is named for one of the keys.
func (p *providers) named(a peer.AddrInfo, pair bool) (k *provider, isNew bool) {
	k = p.at[a.ID]
	if isNew = k == nil; isNew {
		k = &provider{AddrInfo: a}
		p.at[a.ID] = k
		p.order = append(p.order, a.ID)
	}
	if pair {
		k.pairs++
	} else {
		k.words++
	}
	return k, isNew
}

// likely reports whether k probably has what is meant: pairs say more than words.
func (p *providers) likely(k *provider) bool {
	if p.pairs > 0 {
		return k.pairs == p.pairs
	}
	return k.words >= p.words
}

// othersMax is how many providers of some of the words only are asked: a node with very
// many names does not announce its commonest words, and a record may have been lost.
const othersMax = 8

// rest are those to be asked still, the likeliest first: those named for pairs, then those
// named for all words, and some of the others.
func (p *providers) rest() (rest []peer.AddrInfo) {
	var all []*provider
	for _, id := range p.order {
		all = append(all, p.at[id])
	}
	slices.SortStableFunc(all, func(a, b *provider) int {
		return cmp.Or(b.pairs-a.pairs, b.words-a.words)
	})
	others := 0
	for _, k := range all {
		if k.pairs == 0 && k.words < p.words {
			others++
		}
		if !k.taken && others <= othersMax {
			rest = append(rest, k.AddrInfo)
		}
	}
	return rest
}

// lookUp asks the DHTs for one key.
func (s *seeking) lookUp(ctx context.Context, key searchKey, all *providers, g *errgroup.Group) {
	named := 0
	for p := range s.library.node.FindProvidersWithin(ctx, key.key, key.closest, s.budget.forLookup) {
		s.trail.note("DHT", func(e *Tried) { e.Count++ })
		s.trail.found(p, foundDHT)
		s.mu.Lock()
		if named++; named > providersMax {
			s.left++
			s.mu.Unlock()
			return
		}
		k, isNew := all.named(p, key.pair)
		if isNew {
			s.report.announced++
		}
		now := all.likely(k) && !s.asked[p.ID] && s.networks[networkSaid(p)] == 0 && s.budget.forPeer()
		if now {
			k.taken, s.asked[p.ID] = true, true
			s.networks[networkSaid(p)]++
		}
		announced := s.report.announced
		s.mu.Unlock()
		s.meter.sources(announced)
		if now {
			g.Go(func() error {
				s.askCounted(ctx, p, whereDHT)
				return nil
			})
		}
	}
}

// askWaiting asks those that wait, one after another.
func (s *seeking) askWaiting(ctx context.Context) {
	for {
		p, ok := s.nextWaiting()
		if !ok || !s.begin(p.ID) {
			if !ok {
				return
			}
			continue
		}
		if !s.budget.forPeerSoon(ctx) {
			s.leave(1)
			continue
		}
		s.askCounted(ctx, p, whereDHT)
	}
}

// networkSaid is the network of the addresses that a provider gives itself.
func networkSaid(p peer.AddrInfo) netip.Prefix {
	for _, a := range p.Addrs {
		if n := networkOf(a); n.IsValid() {
			return n
		}
	}
	return netip.Prefix{}
}

// nextWaiting takes one that waits, of a network of which the fewest are asked.
func (s *seeking) nextWaiting() (peer.AddrInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return peer.AddrInfo{}, false
	}
	next := 0
	for i, p := range s.waiting {
		if s.networks[networkSaid(p)] < s.networks[networkSaid(s.waiting[next])] {
			next = i
		}
	}
	p := s.waiting[next]
	s.waiting = slices.Delete(s.waiting, next, next+1)
	s.networks[networkSaid(p)]++
	return p, true
}
