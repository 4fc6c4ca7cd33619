package coord

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

const (
	replicateEvery = time.Second            // a look, when nothing calls for one
	replicateLeast = 100 * time.Millisecond // between two looks
	// replicateShare bounds what looks take of a core in a large group: one in so many.
	replicateShare = 10
	reportAgain    = 3 * commitEvery // what the leader was told and has not committed
	reportWait     = 3 * time.Second // for the leader to take a report
	// freshEnough is how lately a member must have heard from a leader to let a copy go.
	freshEnough = 5 * time.Second
	sourcesMax  = 16 // peers that a fetch is told to ask first
)

// replicator keeps this member's copies as the group's plan has them. One look
// after the other it compares what the state wants with what the store has, has
// contents fetched and dropped, and reports the difference to the leader.
//
// A copy comes and goes in this order, and a crash between any two steps is mended
// by the next look:
//
//	planned here → fetched, verified, on the disk → reported → in the state
//	planned elsewhere → those have N verified copies → out of the state → dropped
type replicator struct {
	g *Group
	m *member
	h *holds

	wake    chan struct{} // has room for one: something calls for a look
	urgent  chan struct{} // has room for one: there is something to mend
	fetches sync.WaitGroup
	ended   chan fetched // has room for all that is under way, which keep their places until settled

	// Of the one goroutine that looks:
	retries retries
	told    map[content.ID]time.Time // when the leader was told of a difference
	leader  peer.ID                  // at the last look
	working map[content.ID]context.CancelFunc
	state   *pinset.State // of the last look
	plan    *pinset.Plan
	queue   []content.ID // to be fetched now

	mu       sync.Mutex
	reported time.Time              // guarded by mu: when a leader was last told anything
	problems map[content.ID]problem // guarded by mu: why a fetch failed last
	accused  []accusation           // guarded by mu: to be reported
	mend     []content.ID           // guarded by mu: to be scrubbed before all others
	doubted  []content.ID           // guarded by mu: and before those
}

// problem is why a content is not here.
type problem string

// The words of problem, append-only.
const (
	problemRoom   problem = "no_room"   // over the quota, or the disk is full
	problemSource problem = "no_source" // nobody who has it can be reached
	problemFailed problem = "failed"
)

// replicate runs the member's part in keeping copies, until ctx ends.
func (g *Group) replicate(ctx context.Context, m *member) error {
	h := g.c.holds
	if h == nil {
		<-ctx.Done()
		return nil
	}
	if err := h.load(ctx); err != nil {
		if ctx.Err() == nil {
			g.log.Error("the store of copies can't be read: this member holds none", "err", err)
		}
		<-ctx.Done()
		return nil
	}
	r := &replicator{g: g, m: m, h: h, wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), ended: make(chan fetched, fetchesMax), retries: retries{of: map[content.ID]try{}}, told: map[content.ID]time.Time{},
		working: map[content.ID]context.CancelFunc{}, problems: map[content.ID]problem{}}
	g.setReplicator(r)
	defer g.setReplicator(nil)
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return r.run(ctx) })
	tasks.Go(func() error { return r.beat(ctx) })
	tasks.Go(func() error { return r.scrub(ctx) })
	tasks.Go(func() error { return r.challenge(ctx) })
	tasks.Go(func() error { return g.judge(ctx, m) })
	return tasks.Wait()
}

// nudge has the replicator look soon.
func (r *replicator) nudge() {
	select {
	case r.wake <- struct{}{}:
	default: // it will
	}
}

func (r *replicator) run(ctx context.Context) error {
	defer r.settleAll()
	defer r.fetches.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var changed <-chan struct{}
	var rest time.Time // no look before it
	soon := func() { timer.Reset(max(0, time.Until(rest))) }
	for {
		select {
		case <-changed:
			changed = nil
			soon()
		case <-r.wake:
			soon()
		case f := <-r.ended:
			r.settle(f)
			r.fill(ctx)
			soon()
		case <-timer.C:
			start := time.Now()
			changed = r.m.fsm.changed()
			r.look(ctx)
			timer.Reset(replicateEvery)
			rest = time.Now().Add(max(replicateLeast, replicateShare*time.Since(start)))
		case <-ctx.Done():
			return nil
		}
	}
}

// look does what is due.
func (r *replicator) look(ctx context.Context) {
	now := time.Now()
	r.settleAll()
	r.g.c.settleQuota()
	state, plan := r.g.plan(r.m)
	self := r.g.c.self()
	if _, member := state.Member(self); !member {
		return
	}
	have := r.h.snapshot()
	d := compare(state, plan, self, have)
	r.state, r.plan, r.queue = state, plan, r.retries.due(d.missing, now)
	r.cancelUnplanned(d)
	r.fill(ctx)
	for _, id := range r.h.left() {
		if !d.planned[id] {
			d.drop = append(d.drop, id)
		}
	}
	r.release(ctx, d.drop)
	r.report(ctx, d, now)
	r.setMend(d.mend)
	r.leader = r.m.leader()
}

// cancelUnplanned ends the fetches of what is not to come here any more.
func (r *replicator) cancelUnplanned(d difference) {
	for id, cancel := range r.working {
		if !d.planned[id] {
			cancel()
		}
	}
	for id := range r.retries.of {
		if !d.planned[id] {
			delete(r.retries.of, id)
			r.setProblem(id, "")
		}
	}
}

// fill begins as many fetches as there are places for.
func (r *replicator) fill(ctx context.Context) {
	for len(r.queue) > 0 && ctx.Err() == nil {
		id := r.queue[0]
		pin, pinned := r.state.Pin(id)
		if !pinned || r.working[id] != nil || r.h.has(id) {
			r.queue = r.queue[1:]
			continue
		}
		m, ok := r.h.begin(id)
		if !ok && r.h.full() {
			return
		}
		r.queue = r.queue[1:]
		if !ok {
			continue // another group fetches it
		}
		o := share.HoldOptions{Kind: share.Kind(pin.Kind.String()), Size: pin.Size, Sources: r.sources(r.state, r.plan, pin), Adopt: r.g.known().Adopt || r.h.willAdopt(id)}
		fetching, cancel := context.WithCancel(ctx)
		r.working[id] = cancel
		r.fetches.Go(func() { r.fetch(fetching, id, o, m) })
	}
}

// fetch brings one content into the store.
func (r *replicator) fetch(ctx context.Context, id content.ID, o share.HoldOptions, m *moving) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stall := time.AfterFunc(fetchStall, cancel)
	defer stall.Stop()
	var done int64
	o.Progress = func(p share.Progress) {
		if p.Done != done { // called from one goroutine at a time
			done = p.Done
			stall.Reset(fetchStall)
		}
		r.h.told(m, p)
	}
	start := time.Now()
	_, err := r.h.store.Hold(ctx, id, o)
	r.g.log.Debug("a copy was fetched", "id", id, "bytes", o.Size, "took", time.Since(start), "err", err)
	r.h.look(id)
	r.h.leave(id, err != nil)
	r.ended <- fetched{id, err}
}

// fetched is how a fetch ended.
type fetched struct {
	id  content.ID
	err error
}

// settleAll takes in how those ended that have.
func (r *replicator) settleAll() {
	for {
		select {
		case f := <-r.ended:
			r.settle(f)
		default:
			return
		}
	}
}

// settle takes in how a fetch ended.
func (r *replicator) settle(f fetched) {
	r.h.done(f.id)
	r.working[f.id]()
	delete(r.working, f.id)
	if f.err == nil {
		r.retries.succeeded(f.id, time.Now())
		r.setProblem(f.id, "")
		return
	}
	r.retries.failed(f.id, time.Now())
	r.setProblem(f.id, problemOf(f.err))
}

func problemOf(err error) problem {
	switch {
	case errors.Is(err, share.ErrNoSpace), errors.Is(err, share.ErrOverQuota):
		return problemRoom
	case errors.Is(err, share.ErrNotFound), errors.Is(err, share.ErrUnreachable), errors.Is(err, context.Canceled):
		return problemSource
	}
	return problemFailed
}

func (r *replicator) setProblem(id content.ID, p problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p == "" {
		delete(r.problems, id)
	} else {
		r.problems[id] = p
	}
}

// sources are whom a fetch asks first: members that hold a verified copy, who pinned
// it, and those that fetch it as this one does.
func (r *replicator) sources(state *pinset.State, plan *pinset.Plan, pin pinset.Pin) []peer.AddrInfo {
	var list []peer.AddrInfo
	seen := map[pinset.Peer]bool{r.g.c.self(): true}
	add := func(p pinset.Peer, addrs []string) {
		if seen[p] || len(list) == sourcesMax {
			return
		}
		seen[p] = true
		if m, member := state.Member(p); member {
			addrs = slices.Concat(m.Addrs, addrs)
		}
		if info, err := (knownMember{p, addrs}).info(); err == nil {
			list = append(list, info)
		}
	}
	sound := soundMembers(state)
	for _, there := range []bool{true, false} { // those that are not may be back
		for _, p := range pin.Copies {
			if sound[p] == there {
				add(p, nil)
			}
		}
		if there && pin.Source != nil {
			add(pin.Source.Peer, pin.Source.Addrs)
		}
	}
	if plan != nil {
		place, _ := plan.Place(pin.ID)
		for _, p := range place.Holders {
			add(p, nil)
		}
	}
	return list
}

// release drops what is of no use any more. What is not pinned, as far as this
// member knows, may be so by a command that it has not heard of: it has to be up to
// date. A group of this peer's that does not run just now may want it, too.
func (r *replicator) release(ctx context.Context, ids []content.ID) {
	if len(ids) == 0 {
		return
	}
	age := r.m.age()
	if !r.m.caughtUp() || age < 0 || age > freshEnough {
		return
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return
		}
		if r.working[id] != nil || r.g.c.wantedElsewhere(r.g, id) {
			continue
		}
		r.g.c.drop(ctx, id)
	}
}

// report tells the leader what differs, or that this member is there.
func (r *replicator) report(ctx context.Context, d difference, now time.Time) {
	leader := r.m.leader()
	if leader == "" {
		return
	}
	if leader != r.leader {
		clear(r.told) // another one knows nothing of it
	}
	p := report{}
	room := reportMax
	take := func(ids []content.ID) (list []content.ID) {
		for _, id := range ids {
			if len(list) == room {
				break
			}
			if now.Sub(r.told[id]) >= reportAgain {
				list = append(list, id)
			}
		}
		room -= len(list)
		return list
	}
	p.Gone, p.Held, p.Spare = take(d.gone), take(d.held), take(d.spare)
	p.Accused = r.takeAccused()
	if room == reportMax && len(p.Accused) == 0 || !r.tell(ctx, leader, p) {
		return
	}
	for _, list := range [][]content.ID{p.Gone, p.Held, p.Spare} {
		for _, id := range list {
			r.told[id] = now
		}
	}
	if room == 0 {
		r.nudge() // there is more
	}
	for id, at := range r.told {
		if now.Sub(at) > 2*reportAgain {
			delete(r.told, id)
		}
	}
}

// beat tells the leader that this member is there, when nothing else does.
func (r *replicator) beat(ctx context.Context) error {
	var told peer.ID
	for {
		var grace time.Duration
		member := false
		r.m.fsm.view(func(s *pinset.State) {
			grace = s.Grace()
			_, member = s.Member(r.g.c.self())
		})
		every := heartbeatOf(grace)
		leader := r.m.leader()
		if member && leader != "" && (leader != told || r.sinceReport() >= every) && r.tell(ctx, leader, report{}) {
			told = leader
		}
		select {
		case <-time.After(every / 2):
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *replicator) sinceReport() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.reported)
}

// tell sends a report to the leader, which may be this member, and says whether it
// was taken.
func (r *replicator) tell(ctx context.Context, leader peer.ID, p report) bool {
	ctx, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	q := request{Op: opReport, Report: &p}
	var a answer
	var err error
	if leader == r.g.c.node.ID() {
		a = r.g.serve(ctx, r.g.c.self(), nonce{}, q)
	} else {
		a, err = r.g.ask(ctx, pinset.Peer(leader.String()), q)
	}
	if err == nil {
		err = a.err()
	}
	if err != nil {
		r.g.log.Debug("the leader does not take a report", "leader", leader, "err", err)
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reported = time.Now()
	return true
}

func (r *replicator) takeAccused() []accusation {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.accused
	r.accused = nil
	return list
}

// accuse has the leader told that a copy did not stand the proof.
func (r *replicator) accuse(a accusation) {
	r.mu.Lock()
	if len(r.accused) < accusationMax && !slices.Contains(r.accused, a) {
		r.accused = append(r.accused, a)
	}
	r.mu.Unlock()
	r.nudge()
}
