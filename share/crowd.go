package share

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

const (
	// sourcesMax is how many sources one get keeps: more share the load no
	// better, and each costs buffers.
	sourcesMax = 8
	// neighborsMax is how many sources of the local network are taken up beyond
	// that.
	neighborsMax = 4
	// listeningMax is for how many contents one get asks the local network: a
	// directory's files come from who has the directory, mostly.
	listeningMax = 16
	// lanHead is by how much the local network is dialled before others: its
	// answers take a millisecond or two.
	lanHead = 20 * time.Millisecond
	// triedMax is how many providers one get dials in all, and how many neighbors:
	// anybody can announce itself.
	triedMax = 64
	// dialParallel is how many of each are dialled at a time. Neighbors answer
	// first: with one number for both, they could take all.
	dialParallel = 8
	// dialMax bounds one dial, address look-up, hole punch and stream included.
	dialMax = 8 * time.Second
	// contentSearchMax bounds one search for a content's providers.
	contentSearchMax = 10 * time.Second
	// researchEvery is how often the DHTs are asked again in the end, when they name
	// nobody, and researchedMax for how many contents: a directory's files come from
	// who has the directory.
	researchEvery = 30 * time.Second
	researchedMax = 16
)

// crowd are the sources of one get: the peers it was told of, those that the
// DHTs name, and the local library. Members come and go while contents are
// fetched; a peer that is dropped is not taken again.
type crowd struct {
	library *Library
	meter   *meter
	pace    *limiter // of what comes from peers, beside the library's; may be nil
	trail   *trail   // of what is tried; may be nil

	mu         sync.Mutex // guards all below
	live       []source
	mirrors    []*mirror       // that were offered, dropped ones too
	dropped    []*remote       // to be waited for by close
	spare      []peer.AddrInfo // not dialled while there were enough
	stats      map[peer.ID]*SourceStat
	seen       map[peer.ID]bool
	tolds      tolds            // peers offered because a source told of them
	hints      map[peer.ID]bool // of those, the ones that were not reached yet
	askerCount int              // peers offered because they asked for haves
	dialErr    error            // the last dial's that failed
	unheard    int              // dials that failed
	corrupt    []*CorruptError  // what dropped peers did, one each
	shunned    []*CorruptError  // what peers did in earlier gets that were offered
	busy       int              // searches and dials under way
	searched   map[content.ID]bool
	listening  map[content.ID]bool // to the local network
	head       time.Time           // when others than neighbors may be dialled
	change     chan struct{}       // closed and replaced when any of this changes
	closed     bool
	group      errgroup.Group // searches and dials
	wide       dials          // of peers that were given or that a DHT names
	near       dials          // of neighbors
}

// dials are the dials of one origin's peers.
type dials struct {
	slots chan struct{} // capacity dialParallel; not guarded
	tried int           // guarded by crowd.mu
}

func (l *Library) newCrowd(m *meter) *crowd {
	return &crowd{
		library: l, meter: m,
		live:      []source{local{library: l}},
		stats:     map[peer.ID]*SourceStat{},
		seen:      map[peer.ID]bool{l.node.ID(): true},
		searched:  map[content.ID]bool{},
		listening: map[content.ID]bool{},
		change:    make(chan struct{}),
		hints:     map[peer.ID]bool{},
		wide:      dials{slots: make(chan struct{}, dialParallel)},
		near:      dials{slots: make(chan struct{}, dialParallel)},
	}
}

// changed wakes whoever waits for the crowd. The caller holds c.mu.
func (c *crowd) changed() {
	close(c.change)
	c.change = make(chan struct{})
}

// leaveOutScoped has the local library give only what everybody may have.
func (c *crowd) leaveOutScoped() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.live, source(local{library: c.library})); i >= 0 {
		c.live[i] = local{library: c.library, unscoped: true}
	}
}

// begin and end frame something that may still bring sources.
func (c *crowd) begin() { c.busy++ } // the caller holds c.mu

func (c *crowd) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	c.changed()
}

// offer dials a peer that may be a source, unless it was tried before. It does
// not wait. ctx is the get's.
func (c *crowd) offer(ctx context.Context, p peer.AddrInfo) {
	if p.ID == "" {
		c.offerUnknown(ctx, p)
		return
	}
	c.take(ctx, p, false)
}

func (c *crowd) take(ctx context.Context, p peer.AddrInfo, neighbor bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	head := time.Until(c.head)
	d := &c.wide
	if neighbor {
		d = &c.near
	}
	if c.closed || c.seen[p.ID] || d.tried == triedMax {
		return
	}
	c.seen[p.ID] = true
	where := foundNamed
	if neighbor {
		where = foundLAN
	}
	c.trail.found(p, where)
	if c.library != nil {
		if c.library.book.blocked(p.ID, zeroID) {
			c.trail.reached(c.library.node, p.ID, "", errBlocked)
			return
		}
		if bad := c.library.liars.did(p.ID); bad != nil {
			c.shunned = append(c.shunned, bad)
			return
		}
	}
	d.tried++
	c.begin()
	c.group.Go(func() error {
		defer c.end()
		if head > 0 && !neighbor && !node.IsLocal(p) {
			select {
			case <-time.After(head):
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case d.slots <- struct{}{}:
			defer func() { <-d.slots }()
		case <-ctx.Done():
			return nil
		}
		if c.keepSpare(p, neighbor) {
			return nil
		}
		c.dial(ctx, p)
		return nil
	})
}

// keepSpare puts p aside while there are sources enough, and reports whether.
func (c *crowd) keepSpare(p peer.AddrInfo, neighbor bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	room := sourcesMax + len(c.mirrors) // which take no peer's place
	if neighbor {
		room += neighborsMax
	}
	if len(c.live) < room {
		return false
	}
	c.spare = append(c.spare, p)
	return true
}

// callSpares dials those that were put aside, as many at a time as sources are
// kept, and reports whether there were any. It is for when those we have are of
// no use: anybody can take up the places.
func (c *crowd) callSpares(ctx context.Context) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.spare), sourcesMax)
	if c.closed || n == 0 {
		return false
	}
	for _, p := range c.spare[:n] {
		c.begin()
		c.group.Go(func() error {
			defer c.end()
			c.dial(ctx, p)
			return nil
		})
	}
	c.spare = c.spare[n:]
	return true
}

func (c *crowd) dial(ctx context.Context, p peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, dialMax)
	defer cancel()
	err := c.library.node.Connect(ctx, p)
	var r *remote
	if err == nil {
		r, err = c.library.openRemote(ctx, p.ID, c.pace)
	}
	if err == nil {
		r.lanes = c.lanesEach
		c.trail.reached(c.library.node, p.ID, r.how, nil)
	} else {
		c.trail.reached(c.library.node, p.ID, "", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.unheard++
		c.dialErr = worse(c.dialErr, fmt.Errorf("%s: %w", p.ID, err))
		if c.hints[p.ID] { // where it was said to be: others may know better
			delete(c.hints, p.ID)
			delete(c.seen, p.ID)
		}
		return
	}
	c.live = append(c.live, r) // close waits for us before it looks
	c.stats[p.ID] = &SourceStat{Peer: p.ID, Via: r.how}
	c.meter.sources(len(c.live) - 1)
	c.changed()
}

// lanesEach is how many bulk connections a source is worth: among several, one
// each keeps all processors at work.
func (c *crowd) lanesEach() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.live) > 3 { // this library, and three others
		return 1
	}
	return bulkLanes
}

// listen asks the local network for id as long as ctx lasts, and takes up the
// neighbors that have it, whenever they come. Until lanSearchMax is over more
// sources may come of it.
func (c *crowd) listen(ctx context.Context, id content.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.listening[id] || len(c.listening) >= listeningMax || !c.library.node.HasLAN() {
		return
	}
	c.listening[id] = true
	c.head = time.Now().Add(lanHead)
	c.begin()
	over := sync.OnceFunc(c.end)
	c.group.Go(func() error {
		defer over()
		timer := time.AfterFunc(lanSearchMax, over)
		defer timer.Stop()
		for p := range c.library.node.Want(ctx, id.Multihash()) {
			c.take(ctx, p, true)
		}
		return nil
	})
}

// search asks the DHTs for providers of id, and offers them. It is begun once a get.
// When none is named it asks again: the table may just be filling, and who has it may
// just be announcing it. The get waits for two answers, and while it has other hope it
// is told of what comes later, too.
func (c *crowd) search(ctx context.Context, id content.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.searched[id] {
		return
	}
	c.searched[id] = true
	again := len(c.searched) <= researchedMax && c.library.node.HasDHT()
	c.begin()
	over := sync.OnceFunc(c.end)
	c.group.Go(func() error {
		defer over()
		for wait, tries := searchAgain, 1; ; wait, tries = min(2*wait, researchEvery), tries+1 {
			asked, named := c.searchOnce(ctx, id)
			if named || !again {
				return nil
			}
			if !asked || tries == 2 {
				over()
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// searchOnce tells whether a DHT was asked, and whether it named anybody.
func (c *crowd) searchOnce(ctx context.Context, id content.ID) (asked, named bool) {
	search, cancel := context.WithTimeout(ctx, contentSearchMax)
	defer cancel()
	if !c.library.node.WaitDHT(search) {
		return false, false
	}
	for p := range c.library.node.FindProviders(search, id.Multihash()) {
		named = true
		c.trail.found(p, foundDHT)
		c.offer(ctx, p) // dials may outlast the search
	}
	return true, named
}

// members returns the live sources, whether more may come, and a channel that
// is closed when either changes.
func (c *crowd) members() (live []source, more bool, change <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.live), c.busy > 0, c.change
}

// demote has a source asked after all others.
func (c *crowd) demote(s source) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.live, s); i >= 0 {
		c.live = append(slices.Delete(c.live, i, i+1), s)
	}
}

// drop takes a source out for good. A *CorruptError is remembered and told,
// even when another request has dropped the source already for what came of it.
func (c *crowd) drop(s source, err error) {
	if bad := lie(err); bad != nil && c.library != nil && s.via() != ViaLocal {
		c.library.liars.add(bad)
		c.meter.noteOnce(fmt.Sprintf("%s is not asked any more: %s", bad.Peer, Escape(bad.Reason)))
	}
	if c.remove(s, err) {
		if r, ok := s.(*remote); ok {
			r.reset() // its reader may be our caller: close waits for it
		}
	}
	if m, ok := s.(*mirror); ok {
		c.missMirror(m, err)
	}
}

func (c *crowd) remove(s source, err error) (removed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var bad *CorruptError
	if errors.As(err, &bad) && !slices.ContainsFunc(c.corrupt, func(e *CorruptError) bool { return e.Peer == bad.Peer && e.Mirror == bad.Mirror }) {
		c.corrupt = append(c.corrupt, bad)
	}
	i := slices.Index(c.live, s)
	if i < 0 {
		return false
	}
	c.live = slices.Delete(c.live, i, i+1)
	if bad == nil && s.via() != ViaLocal && s.via() != ViaMirror {
		c.unheard++
		c.dialErr = fmt.Errorf("%s: %w", s.peer(), err)
		c.trail.failed(s.peer(), err)
	}
	if r, ok := s.(*remote); ok {
		c.dropped = append(c.dropped, r)
	}
	c.changed()
	return true
}

// gave counts bytes that a source has given and that were used.
func (c *crowd) gave(s source, bytes int64) {
	if m, ok := s.(*mirror); ok {
		m.given.Add(bytes)
		c.meter.gave(sourceKey{mirror: m.url}, ViaMirror, bytes)
		return
	}
	c.mu.Lock()
	st := c.stats[s.peer()]
	if st == nil {
		st = &SourceStat{Peer: s.peer(), Via: s.via()}
		c.stats[s.peer()] = st
	}
	st.Bytes += bytes
	c.mu.Unlock()
	c.meter.gave(sourceKey{peer: s.peer()}, s.via(), bytes) // may wait for who is told of the progress
}

// report lists what each source gave, most first, and the peers and mirrors
// that were dropped for wrong bytes, peers in this get or an earlier one.
func (c *crowd) report() (stats []SourceStat, corrupt []peer.ID, mirrors []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats, mirrors = c.mirrorReport()
	for _, s := range c.stats {
		if s.Bytes > 0 {
			stats = append(stats, *s)
		}
	}
	slices.SortFunc(stats, func(a, b SourceStat) int { return int(b.Bytes - a.Bytes) })
	for _, e := range slices.Concat(c.corrupt, c.shunned) {
		if e.Mirror == "" {
			corrupt = append(corrupt, e.Peer)
		}
	}
	return stats, corrupt, mirrors
}

// lies are what peers and mirrors sent that is wrong, in this get or an earlier one.
func (c *crowd) lies() []*CorruptError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Concat(c.corrupt, c.shunned)
}

// verdict says why id can't be had when nobody is left to ask.
func (c *crowd) verdict(id content.ID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(c.corrupt) > 0:
		return c.corrupt[0]
	case len(c.shunned) > 0 && c.unheard == 0:
		return fmt.Errorf("not asked again: %w", c.shunned[0])
	case c.onlyMirrors(id):
		return fmt.Errorf("%s: %w", id, errOnlyMirrors)
	case c.unheard > 0:
		return fmt.Errorf("%s: %w: %w", id, ErrUnreachable, c.dialErr)
	}
	n := len(c.seen) - 1 // but this peer itself
	peers := c.library.node.DHTPeers()
	where := c.library.searched(searchReport{lan: c.library.node.HasLAN(), dht: peers > 0, dhtPeers: peers, announced: n, asked: n})
	return fmt.Errorf("%s: %s: %w", id, where, ErrNotFound)
}

// close ends the sources. Its searches and dials must end with the context
// that they were given.
func (c *crowd) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.group.Wait()
	c.mu.Lock()
	live, dropped := c.live, c.dropped
	c.live, c.dropped = nil, nil
	c.mu.Unlock()
	for _, s := range live {
		s.close()
	}
	for _, r := range dropped {
		r.close()
	}
	for _, m := range c.mirrors {
		m.close()
	}
}

// more is for when nobody is left to ask for id: it begins what may still bring
// sources, and reports false when all that was done before.
func (c *crowd) more(ctx context.Context, id content.ID) bool {
	if c.callSpares(ctx) {
		return true
	}
	c.mu.Lock()
	done := c.searched[id]
	c.mu.Unlock()
	if done {
		return false
	}
	c.listen(ctx, id)
	c.search(ctx, id)
	return true
}
