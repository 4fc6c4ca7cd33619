package share

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

const (
	// seekAfterFirst is how long a search by words goes on after the first answer from
	// another peer: providers that are gone since take all of askMax.
	seekAfterFirst = 2 * time.Second
	// lanSeekAfterFirst is how long other neighbors have after the first: a want is
	// asked three times in 400 ms, as datagrams get lost.
	lanSeekAfterFirst = 500 * time.Millisecond
	// lanSeekMax is how many neighbors one search asks, askedParallel at a time.
	lanSeekMax = 16
	// probeWait bounds all probes.
	probeWait = 2 * time.Second
)

// SearchOptions are the options of one Search.
type SearchOptions struct {
	Peers    []peer.AddrInfo // asked first
	Found    func(Hit)       // called for a content when it is found, and when more is told of it; one at a time; may be nil
	Progress func(Progress)  // may be nil
	Tried    func(Tried)     // called at the end for each source that was tried; may be nil
}

// SearchResult is what a Search came to.
type SearchResult struct {
	Hits     []Hit // best first; see rankHits
	Asked    int   // peers that answered
	Messages int   // that were sent to peers: requests of the DHT, questions and probes; 40 at most
	// Partial says in what respect there may be more, one reason each, safe for a
	// terminal; empty: all that were found were asked, and told all.
	Partial []string
}

// SearchIndexFunc calls found with each name of a group that match accepts, for all
// groups that this peer knows.
type SearchIndexFunc func(ctx context.Context, match func(Name, int64) bool, found func(Indexed)) error

// SetSearchIndex has groups' names searched, too. Call it before Run.
func (l *Library) SetSearchIndex(fn SearchIndexFunc) { l.searchIndex = fn }

// Search looks for shares by the words of their names: in this library, in the groups
// that this peer knows, on the local network, and at the peers that the DHTs name for
// the word that looks the rarest. Each of them is asked once, with the whole query, and
// answers with signed manifests. Names inside shared directories are not searched.
//
// It asks a bounded number of peers in a bounded time (Config.SearchMax), and prefers
// peers of different networks. The best few of what strangers tell are tried: one chunk
// group of each is fetched and verified. It returns ErrNotFound when there is nothing.
func (l *Library) Search(ctx context.Context, q Query, o SearchOptions) (SearchResult, error) {
	if err := q.check(); err != nil {
		return SearchResult{}, err
	}
	trust, err := l.book.view()
	if err != nil {
		return SearchResult{}, err
	}
	s := &seeking{library: l, query: q, options: o, trust: trust, trail: newTrail(), meter: newMeter(o.Progress, PhaseLocal),
		budget: newBudget(), slots: make(chan struct{}, askParallel),
		hits: map[content.ID]*Hit{}, newest: map[publishedName]int64{}, asked: map[peer.ID]bool{l.node.ID(): true}, networks: map[netip.Prefix]int{}}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, l.cfg.SearchMax)
	defer cancel()
	s.first = sync.OnceFunc(func() { time.AfterFunc(seekAfterFirst, cancel) })
	if err := s.askLocal(); err != nil {
		return SearchResult{}, err
	}
	s.askAll(ctx)
	if whole.Err() != nil {
		return SearchResult{}, whole.Err()
	}
	hits := s.ranked()
	s.probe(whole, hits)
	result := SearchResult{Hits: s.ranked(), Asked: s.report.asked, Messages: s.budget.count(), Partial: s.partial()}
	if o.Tried != nil {
		for _, t := range s.trail.all() {
			o.Tried(t)
		}
	}
	if whole.Err() != nil {
		return SearchResult{}, whole.Err()
	}
	if len(result.Hits) == 0 {
		return result, fmt.Errorf("\"%s\": %s: %w", escapeCut(q.String(), 80), l.searched(s.report), ErrNotFound)
	}
	return result, nil
}

// publishedName is a publisher and the lookup form of a name it uses.
type publishedName struct {
	publisher peer.ID
	lookup    string
}

// published is one version of it.
type published struct {
	publishedName
	seq int64
}

// seeking is one Search at work.
type seeking struct {
	library *Library
	query   Query
	options SearchOptions
	trust   Trust
	trail   *trail
	meter   *meter
	budget  *budget
	slots   chan struct{} // capacity askParallel: questions at a time
	first   func()        // called at the first answer of another peer that tells something

	mu       sync.Mutex // guards all below; held while options.Found is called
	hits     map[content.ID]*Hit
	newest   map[publishedName]int64 // the highest seq that was told
	asked    map[peer.ID]bool        // or being asked
	networks map[netip.Prefix]int    // how many peers the DHTs named are asked in each
	waiting  []peer.AddrInfo         // named by the DHTs, and not asked yet
	left     int                     // named by anybody and never asked
	late     int                     // did not answer in time
	cut      int                     // told that they have more
	full     bool                    // more contents than are kept
	report   searchReport
}

// askLocal takes up what is shared from here.
func (s *seeking) askLocal() error {
	self := peer.AddrInfo{ID: s.library.node.ID()}
	found, more, err := s.library.catalog.searchShares(s.query, nil, time.Now(), hitsMax)
	if err != nil {
		return err
	}
	if more {
		s.cut++
	}
	for _, r := range found {
		m, err := OpenManifest(*r.Envelope, time.Now())
		if err != nil || !s.library.servable(r) {
			continue
		}
		tier := tierOf(s.trust, m.Publisher)
		if m.Publisher == self.ID {
			tier = tierBook
		}
		s.trail.note("this machine", func(e *Tried) { e.Count, e.Issued, e.Via = e.Count+1, m.Issued, ViaLocal })
		s.take([]told{{manifest: m, by: self, where: whereLocal, tier: tier}})
	}
	return nil
}

// askAll asks everybody else, until all have answered or ctx ends.
func (s *seeking) askAll(ctx context.Context) {
	var g errgroup.Group
	for _, p := range s.options.Peers {
		g.Go(func() error {
			s.askNamed(ctx, p)
			return nil
		})
	}
	g.Go(func() error { s.askGroups(ctx); return nil })
	g.Go(func() error { s.askLAN(ctx, &g); return nil })
	g.Go(func() error { s.askDHT(ctx, &g); return nil })
	g.Wait()
}

// askNamed asks a peer that a person named, whose ID may have to be learnt first.
func (s *seeking) askNamed(ctx context.Context, p peer.AddrInfo) {
	p, err := s.library.node.Learn(ctx, p)
	if err != nil {
		s.failed(p.ID, err)
		return
	}
	s.trail.found(p, foundNamed)
	if s.begin(p.ID) {
		s.ask(ctx, p, wherePeer)
	}
}

func (s *seeking) askGroups(ctx context.Context) {
	if s.library.searchIndex == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, indexMax)
	defer cancel()
	err := s.library.searchIndex(ctx, s.query.Match, s.takeIndexed)
	if err != nil {
		s.trail.note("groups", func(e *Tried) { e.Error = errorText(err) })
	}
}

// takeIndexed takes up a name of a group.
func (s *seeking) takeIndexed(e Indexed) {
	s.trail.note("group "+Escape(e.Group), func(t *Tried) { t.Count++ })
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hit(e.ID)
	if h == nil || s.library.book.blocked("", e.ID) {
		return
	}
	h.Kind, h.Size, h.Tier = e.Kind, e.Size, min(h.Tier, tierGroups)
	if where := whereGroup + e.Group; !slices.Contains(h.Where, where) {
		h.Where = append(h.Where, where)
	}
	if h.Name == "" {
		h.spell(e.Name, netip.Prefix{})
	}
	h.holders = append(h.holders, e.Holders[:min(len(e.Holders), hitHoldersMax-min(len(h.holders), hitHoldersMax))]...)
	h.Reachable = h.Reachable || len(h.holders) > 0 && !h.failed
	s.tell(h)
}

// askLAN asks the neighbors that have a share with the word.
func (s *seeking) askLAN(ctx context.Context, g *errgroup.Group) {
	if !s.library.node.HasLAN() {
		return
	}
	s.mu.Lock()
	s.report.lan = true
	s.mu.Unlock()
	s.meter.begin(PhaseLAN, 0)
	s.trail.note("local network", func(*Tried) {})
	listening, cancel := context.WithTimeout(ctx, lanSearchMax)
	defer cancel()
	answered := sync.OnceFunc(func() { time.AfterFunc(lanSeekAfterFirst, cancel) })
	count := 0
	for p := range s.library.node.Want(listening, wordKeys(s.keys())...) {
		answered()
		s.trail.note("local network", func(e *Tried) { e.Count++ })
		if !s.begin(p.ID) {
			continue
		}
		s.meter.sources(s.note(1))
		if count == lanSeekMax || !s.budget.forPeer() {
			s.leave(1)
			continue
		}
		count++
		s.trail.found(p, foundLAN)
		g.Go(func() error {
			s.askCounted(ctx, p, whereLAN)
			return nil
		})
	}
}

// begin reports whether p is asked now for the first time.
func (s *seeking) begin(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked[p] {
		return false
	}
	s.asked[p] = true
	return true
}

// note counts peers that were named, and leave those that are not asked.
func (s *seeking) note(n int) (announced int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.announced += n
	return s.report.announced
}

func (s *seeking) leave(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left += n
}

// ask is askCounted of a peer that is not counted yet.
func (s *seeking) ask(ctx context.Context, p peer.AddrInfo, where string) {
	if !s.budget.forPeer() {
		s.leave(1)
		return
	}
	s.askCounted(ctx, p, where)
}

// askCounted asks one peer for what the query means, when it is its turn.
func (s *seeking) askCounted(ctx context.Context, p peer.AddrInfo, where string) {
	if s.library.book.blocked(p.ID, zeroID) {
		s.budget.endDial(false)
		s.trail.peer(p.ID, func(e *Tried) { e.Error = "it is blocked" })
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		s.budget.endDial(false)
		s.failed(p.ID, ctx.Err())
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	err := s.library.node.Dial(ctx, p)
	s.budget.endDial(err == nil)
	if err != nil {
		s.failed(p.ID, err)
		return
	}
	var claims []told
	var reached node.Via
	of := map[content.ID]int{} // publishers that p tells of a content
	end, err := s.library.askConnected(ctx, p, metaRequest{Op: opSearch, Query: &s.query}, func(m Manifest, _ node.Envelope, via node.Via) error {
		reached = via
		if of[m.ID]++; of[m.ID] > hitPublishersOfOne || !s.query.Match(m.Name, m.Size) {
			return nil
		}
		s.trail.told(p.ID, m)
		claims = append(claims, told{manifest: m, by: p, where: where, tier: tierOf(s.trust, m.Publisher)})
		return nil
	})
	s.trail.reached(s.library.node, p.ID, reached, err)
	if err != nil { // who lies once is believed nothing
		s.failed(p.ID, err)
		return
	}
	network := networkOf(s.library.node.AddrOf(p.ID))
	for i := range claims {
		claims[i].network = network
	}
	s.mu.Lock()
	s.report.asked++
	if end.Partial {
		s.cut++
	}
	s.mu.Unlock()
	s.meter.add(1)
	if len(claims) > 0 {
		s.take(claims)
		s.first()
	}
}

// failed notes that a peer did not answer, or not as it should.
func (s *seeking) failed(p peer.ID, err error) {
	s.trail.reached(s.library.node, p, "", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	var bad *CorruptError
	switch {
	case errors.As(err, &bad):
		s.report.corrupt = append(s.report.corrupt, bad)
	default:
		s.late++
		s.report.dialErr = err
	}
}

// take takes up what one peer tells.
func (s *seeking) take(claims []told) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var changed []*Hit
	for _, t := range claims {
		m := t.manifest
		if s.library.book.blocked(m.Publisher, m.ID) {
			continue
		}
		h := s.hit(m.ID)
		if h == nil {
			continue
		}
		h.take(t)
		k := publishedName{m.Publisher, m.Name.Lookup()}
		s.newest[k] = max(s.newest[k], m.Seq)
		h.current = h.current || t.by.ID == m.Publisher || t.where == whereLocal
		if len(h.versions) < hitPublishersMax {
			h.versions = append(h.versions, published{k, m.Seq})
		}
		h.Verified = h.Verified || t.where == whereLocal
		if !slices.Contains(changed, h) {
			changed = append(changed, h)
		}
	}
	for _, h := range changed {
		s.tell(h)
	}
}

// outdated reports whether a publisher has replaced what is only told by others, as far
// as is known. The caller holds s.mu.
func (s *seeking) outdated(h *Hit) bool {
	return !h.current && h.Tier != tierGroups && len(h.versions) > 0 &&
		!slices.ContainsFunc(h.versions, func(v published) bool { return v.seq == s.newest[v.publishedName] })
}

// hit returns the entry of a content, nil when there are too many. The caller holds
// s.mu.
func (s *seeking) hit(id content.ID) *Hit {
	h := s.hits[id]
	if h == nil && len(s.hits) == hitsMax {
		s.full = true
		return nil
	}
	if h == nil {
		h = &Hit{ID: id, Tier: tierStrangers, Words: slices.Clone(s.query.Words), Publishers: []peer.ID{}, Where: []string{}}
		if h.Words == nil {
			h.Words = []string{}
		}
		s.hits[id] = h
	}
	return h
}

// tell hands over what is known of a content so far. The caller holds s.mu.
func (s *seeking) tell(h *Hit) {
	if s.options.Found != nil {
		s.options.Found(h.clone())
	}
}

// ranked are all that were found, best first.
func (s *seeking) ranked() []Hit {
	s.mu.Lock()
	defer s.mu.Unlock()
	hits := make([]Hit, 0, len(s.hits))
	for _, h := range s.hits {
		if !s.outdated(h) {
			hits = append(hits, h.clone())
		}
	}
	rankHits(hits)
	return hits
}

// probe tries one chunk group of the best that are not here. What can't be had sinks.
func (s *seeking) probe(ctx context.Context, hits []Hit) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	var g errgroup.Group
	probed := 0
	for _, h := range hits {
		if h.Verified || len(h.holders) == 0 {
			continue
		}
		if probed == probesMax {
			break
		}
		if probed++; probed == 1 {
			s.meter.begin(PhaseVerifying, 0)
		}
		holders := h.holders[:min(len(h.holders), probeHoldersMax)]
		s.budget.forProbe(len(holders))
		g.Go(func() error {
			err := s.library.probeContent(ctx, h.ID, holders, s.trail)
			s.mu.Lock()
			defer s.mu.Unlock()
			kept := s.hits[h.ID]
			kept.Verified, kept.failed = err == nil, err != nil
			kept.Reachable = err == nil
			return nil
		})
	}
	g.Wait()
}

// partial says in what respect there may be more.
func (s *seeking) partial() (why []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.left; n > 0 {
		why = append(why, count(n, "peer")+" or more that may have something were not asked")
	}
	if n := s.late; n > 0 {
		why = append(why, count(n, "peer")+" did not answer")
	}
	if n := s.cut; n > 0 {
		why = append(why, count(n, "peer")+" had more than is told at once: add a word")
	}
	if s.full {
		why = append(why, fmt.Sprintf("more than %d contents were found", hitsMax))
	}
	return why
}
