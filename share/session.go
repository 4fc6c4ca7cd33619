package share

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

const (
	// sessionIdle is how long sources are kept when nobody reads: a player asks for
	// the next part soon, and to find and dial them again takes longer than the answer.
	sessionIdle = 30 * time.Second
	// aheadMin is how many groups from the read position on are fetched at first, and
	// aheadMax at most, at which it arrives by half of what was read in order: a look
	// at one place costs little, and who reads on does not wait.
	aheadMin = 4
	aheadMax = orderedWindow
	// readersMax is of how many readers of one content the positions count at a time.
	readersMax = 256
	// sessionsMax is how many contents are fetched for readers at a time: a peer serves
	// dataStreamsMax streams to this one, and gets and holds need some. When another is
	// read that gives way of which nobody waits for anything.
	sessionsMax = 6
	// preemptEvery is how often one that waits looks for such a one.
	preemptEvery = 100 * time.Millisecond
)

// errIdle ends a session that nobody needs any more.
var errIdle = errors.New("nobody reads any more")

// hints are what who opened a content knows of its sources.
type hints struct {
	peers   []peer.AddrInfo
	within  content.ID // a directory that it lies in, or zero
	mirrors []string   // that may be asked
}

// merge adds what is new in o, up to sourcesMax peers.
func (h hints) merge(o hints) hints {
	for _, p := range o.peers {
		if len(h.peers) < sourcesMax && !slices.ContainsFunc(h.peers, func(q peer.AddrInfo) bool { return q.ID == p.ID }) {
			h.peers = append(slices.Clip(h.peers), p)
		}
	}
	for _, m := range o.mirrors {
		if len(h.mirrors) < MirrorsMax && !slices.Contains(h.mirrors, m) {
			h.mirrors = append(slices.Clip(h.mirrors), m)
		}
	}
	if !o.within.IsZero() {
		h.within = o.within
	}
	return h
}

// session keeps the sources of a content as long as somebody reads it, and fetches
// what the readers are about to read. All readers of a content share one.
type session struct {
	fetch *fetch // guarded by cached.mu; nil before the size is proved
	stop  context.CancelCauseFunc
	done  chan struct{} // closed at the end
	err   error         // why it ended; nil: nobody needed it. Written before done is closed
}

// fetching returns the session of e, begun when there is none. The caller holds e.mu
// and is a user of e.
func (e *cached) fetching() (*session, error) {
	if e.session != nil {
		return e.session, nil
	}
	c := e.cache
	if c.ctx.Err() != nil {
		return nil, context.Canceled
	}
	ctx, stop := context.WithCancelCause(c.ctx)
	s := &session{stop: stop, done: make(chan struct{})}
	e.session = s
	e.users.Add(1)
	c.running.Go(func() { e.runSession(ctx, s) })
	return s, nil
}

// runSession fetches until nobody reads any more.
func (e *cached) runSession(ctx context.Context, s *session) {
	c := e.cache
	var err error
	if c.takeSlot(ctx) {
		err = e.serveReaders(ctx, s)
		<-c.slots
	}
	if errors.Is(context.Cause(ctx), errIdle) || c.ctx.Err() != nil || errors.Is(err, context.Canceled) {
		err = nil
	}
	s.stop(nil)
	e.mu.Lock()
	s.err, s.fetch = err, nil
	e.session = nil
	close(s.done)
	e.mu.Unlock()
	c.leave(e)
}

func (e *cached) serveReaders(ctx context.Context, s *session) error {
	c := e.cache
	ctx, cancel := context.WithCancel(ctx)
	g := &getting{library: c.library, holding: true, meter: newMeter(nil, PhaseLocal),
		options: GetOptions{NoServe: true}}
	g.crowd = c.library.newCrowd(g.meter)
	var watching errgroup.Group
	watching.Go(func() error { e.watchIdle(ctx, s); return nil })
	err := e.lead(ctx, g, s)
	cancel()
	watching.Wait()
	g.crowd.close()
	return err
}

// takeSlot waits until one more session may run; false: ctx ended.
func (c *cache) takeSlot(ctx context.Context) bool {
	tick := time.NewTicker(preemptEvery)
	defer tick.Stop()
	for {
		select {
		case c.slots <- struct{}{}:
			return true
		default:
			c.preempt()
		}
		select {
		case c.slots <- struct{}{}:
			return true
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// preempt ends the session of which nobody waits for anything, and that was used
// last the longest ago.
func (c *cache) preempt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var oldest *cached
	for _, e := range c.entries {
		e.mu.Lock()
		idle := e.session != nil && e.waiting == 0
		e.mu.Unlock()
		if idle && (oldest == nil || e.used.Before(oldest.used)) {
			oldest = e
		}
	}
	if oldest == nil {
		return
	}
	oldest.mu.Lock()
	defer oldest.mu.Unlock()
	if oldest.session != nil {
		oldest.session.stop(errIdle)
	}
}

// watchIdle cancels a session that nobody has used for sessionIdle.
func (e *cached) watchIdle(ctx context.Context, s *session) {
	tick := time.NewTicker(sessionIdle / 8)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		e.cache.mu.Lock()
		idle := e.users.Load() == 1 && // the session itself
			time.Since(e.used) > sessionIdle
		e.cache.mu.Unlock()
		if idle {
			s.stop(errIdle)
			return
		}
	}
}

// lead finds sources, and has them bring what is read.
func (e *cached) lead(ctx context.Context, g *getting, s *session) error {
	e.mu.Lock()
	h, about, live := e.hints, e.about, e.live
	e.mu.Unlock()
	g.what = What{ID: e.id, Kind: about.Kind, Name: about.Name, Peers: h.peers}
	if len(h.mirrors) > 0 {
		g.mirrors = map[content.ID][]string{e.id: h.mirrors}
	}
	if err := e.findSources(ctx, g, h, about); err != nil {
		return err
	}
	f := &fetch{crowd: g.crowd, meter: g.meter, id: e.id, size: -1, sink: e, onDemand: true, start: time.Now(), get: ctx}
	if live != nil {
		e.cache.library.transfers.offer(live)
		f.size, f.outboard = live.size, live.outboard
		live.mu.Lock()
		f.have = live.have.Clone()
		live.mu.Unlock()
	}
	f.opened = func() { e.attach(s, f) }
	return f.lead(ctx)
}

// findSources offers who may have the content, and finds out what it is when that is
// not known.
func (e *cached) findSources(ctx context.Context, g *getting, h hints, about aboutCached) error {
	if !h.within.IsZero() {
		g.crowd.listen(ctx, h.within)
		g.crowd.search(ctx, h.within)
	}
	if about.Kind == "" {
		found, err := g.resolveID(ctx)
		if err != nil {
			return err
		}
		e.know(cmp.Or(found.Kind, KindFile), found.Name)
	} else {
		for _, p := range h.peers {
			g.crowd.offer(ctx, p)
		}
		g.crowd.listen(ctx, e.id)
		if len(h.peers) == 0 {
			g.crowd.search(ctx, e.id) // else when those don't have it
		}
	}
	return g.offerMirrors(ctx, e.id)
}

// know notes what e is.
func (e *cached) know(kind Kind, name Name) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.about.Kind == "" {
		e.about.Kind = kind
	}
	if e.about.Name == "" {
		e.about.Name = name
	}
	e.changed()
}

// attach lets readers have f fetch.
func (e *cached) attach(s *session, f *fetch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := f.have.NextSet(0); i < f.have.Len(); i = f.have.NextSet(i + 1) {
		if !e.live.holds(i) { // gone since f looked
			f.download.Lost(i)
		}
	}
	s.fetch = f
	f.download.Focus(e.wanted())
	e.changed()
}

// refocus has fetched what the readers want now. The caller holds e.mu.
func (e *cached) refocus() {
	if e.session != nil && e.session.fetch != nil {
		e.session.fetch.focus(e.wanted())
	}
}

// wanted is what the readers are about to read, what each waits for first. The
// caller holds e.mu.
func (e *cached) wanted() (spans []content.Span) {
	var ahead []content.Span
	most := e.aheadMost()
	for r, index := range e.readers {
		if index < 0 {
			continue
		}
		if len(spans) == readersMax {
			break
		}
		spans = append(spans, content.Span{First: index, Count: 1})
		ahead = append(ahead, content.Span{First: index, Count: min(max(aheadMin, r.inOrder/2), most)})
	}
	return append(spans, ahead...)
}

// aheadMost keeps what all readers of e want below a part of the quota, so that it
// does not push itself out.
func (e *cached) aheadMost() int64 {
	return max(aheadMin, min(aheadMax, e.cache.quota.Load()/8/content.GroupSize/int64(max(1, len(e.readers)))))
}
