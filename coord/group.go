package coord

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
	"golang.org/x/sync/errgroup"
)

const (
	watchEvery  = 500 * time.Millisecond // a look at who is a member
	tellEvery   = time.Minute            // a look at this member's own addresses
	rejoinEvery = time.Second            // a member without a log asks again
	// quorumWait is how long a group may be without a leader before its members
	// say that there is no quorum: elections take about one second, ×3 in a WAN.
	quorumWait = 3 * time.Second
)

// ErrNoQuorum says that the group has had no leader for seconds: too few voters
// reach one another. Nothing was written. Stale reads work.
var ErrNoQuorum = errors.New("the group has no quorum")

// ErrStopped says that this member does not take part in its group just now: it
// is starting, stopping, was removed, or waits to be let in again.
var ErrStopped = errors.New("this member does not take part in the group just now")

// Group is this peer's membership of one group:
//
//	             wiped                  leader has taken the vote away
//	┌─────────┐ ───────→ ┌───────────┐ ────────────────────────────────┐
//	│ working │          │ rejoining │                                 │
//	└─────────┘ ←─────────────────────────────────────────────────────-┘
//	     │ removed
//	     ↓
//	┌─────────┐
//	│ removed │  for good: join again with a new token
//	└─────────┘
//
// Raft runs only in working. Its methods may be called concurrently.
type Group struct {
	c      *Coord
	id     GroupID
	dir    string
	log    *slog.Logger
	client pinset.Client // of the commands that this member makes by itself
	seq    atomic.Uint64
	kicked chan struct{} // has room for one: who is a member may have changed
	abrupt atomic.Bool   // a test's crash: nothing is handed over
	parked chan struct{} // closed when this member has stopped for good, being removed

	writing sync.Mutex // held by change alone, while the disk works

	mu     sync.Mutex
	file   groupFile // guarded by mu; as on disk
	member *member   // guarded by mu; nil when Raft does not run
	why    string    // guarded by mu: why it does not
	heard  time.Time // guarded by mu: when a leader was last known
	told   *removal  // guarded by mu: another member says that this one was removed
}

func newGroup(c *Coord, dir string, f groupFile) *Group {
	g := &Group{c: c, id: f.ID, dir: dir, log: c.log.With("group", f.Name), kicked: make(chan struct{}, 1),
		parked: make(chan struct{}), file: f, why: "it is starting"}
	rand.Read(g.client[:])
	return g
}

// ID returns the group's ID.
func (g *Group) ID() GroupID { return g.id }

// Name returns the group's local name.
func (g *Group) Name() string { return g.known().Name }

// known returns what the member knows besides the state. It is not to be changed.
func (g *Group) known() groupFile {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.file
}

// change changes group.json.
func (g *Group) change(fn func(*groupFile)) error {
	g.writing.Lock()
	defer g.writing.Unlock()
	was := g.known()
	f := was
	fn(&f)
	if reflect.DeepEqual(f, was) {
		return nil
	}
	if err := f.write(g.dir); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.file = f
	return nil
}

// running returns the member while Raft runs, and ErrStopped otherwise.
func (g *Group) running() (*member, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.member == nil {
		return nil, fmt.Errorf("%w: %s", ErrStopped, g.why)
	}
	return g.member, nil
}

func (g *Group) setMember(m *member, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.member, g.why = m, why
	g.heard = time.Now() // nobody knows yet that there is no leader
}

// epoch is the latest that this member has seen.
func (g *Group) epoch() uint64 {
	epoch := g.known().Epoch
	if m, err := g.running(); err == nil {
		m.fsm.view(func(s *pinset.State) {
			if info, founded := s.Group(); founded {
				epoch = max(epoch, info.Epoch)
			}
		})
	}
	return epoch
}

// where returns what is known of a peer's addresses.
func (g *Group) where(p peer.ID) peer.AddrInfo {
	info := peer.AddrInfo{ID: p}
	name := pinset.Peer(p.String())
	add := func(addrs []string) {
		for _, a := range addrs {
			if m, err := ma.NewMultiaddr(a); err == nil && !slices.ContainsFunc(info.Addrs, m.Equal) {
				info.Addrs = append(info.Addrs, m)
			}
		}
	}
	if m, err := g.running(); err == nil {
		m.fsm.view(func(s *pinset.State) {
			if member, ok := s.Member(name); ok {
				add(member.Addrs)
			}
		})
	}
	for _, k := range g.known().Members {
		if k.Peer == name {
			add(k.Addrs)
		}
	}
	return info
}

// Run takes part in the group until ctx ends, and then returns nil after handing
// leadership over if it has it. An error is fatal to the process: the log can't
// be written, or a command can't be applied. A member whose log is damaged, or
// whose state is not the leader's, gives its vote back and begins anew as learner.
func (g *Group) Run(ctx context.Context) error {
	for {
		err := g.live(ctx)
		var reset *resetError
		if !errors.As(err, &reset) || ctx.Err() != nil {
			return err
		}
		g.log.Warn("this member begins anew, without a vote", "reason", reset.reason)
		if err := g.reset(ctx, reset); err != nil {
			return fmt.Errorf("group %q: %w", g.Name(), err)
		}
	}
}

// live is one life of the member in one of the states above.
func (g *Group) live(ctx context.Context) error {
	if r := g.known().Removed; r != nil {
		g.setMember(nil, fmt.Sprintf("%s removed it at log index %d", r.By, r.Index))
		close(g.parked)
		<-ctx.Done()
		return nil
	}
	rejoin, err := raftlog.ReadRejoin(g.dir)
	if err != nil {
		return &resetError{reason: err.Error()}
	}
	if rejoin != nil {
		return g.rejoin(ctx, *rejoin)
	}
	m, err := g.open()
	if err != nil {
		return g.damaged(err)
	}
	g.setMember(m, "")
	err = g.work(ctx, m)
	g.setMember(nil, "it has stopped")
	if closed := m.close(ctx.Err() != nil && err == nil && !g.abrupt.Load()); err == nil {
		err = closed
	}
	switch {
	case errors.Is(err, errDiffers):
		return &resetError{reason: err.Error(), committed: m.appliedIndex(), ask: true}
	case errors.Is(err, errRemoved):
		return g.live(ctx)
	case err != nil:
		return fmt.Errorf("group %q: %w", g.Name(), err)
	}
	return nil
}

func (g *Group) open() (*member, error) {
	layer := newStreamLayer(g.c.node)
	layer.opening = func() opening { return opening{Group: g.id, Epoch: g.epoch()} }
	layer.where = g.where
	layer.learn = g.learn
	return openMember(memberConfig{
		group: g.id, dir: g.dir, node: g.c.node, timing: g.c.config.Timing, log: g.log,
		bootstrap: g.known().Founding != nil, layer: layer, kick: g.kick,
	})
}

// kick tells lead and watch to look.
func (g *Group) kick() {
	select {
	case g.kicked <- struct{}{}:
	default: // it will
	}
}

// work runs an open member until it ends, ctx does, or it is removed.
func (g *Group) work(ctx context.Context, m *member) error {
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error {
		if err := m.run(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		return errors.New("the Raft log ended by itself")
	})
	tasks.Go(func() error { return g.watch(ctx, m) })
	tasks.Go(func() error { return g.lead(ctx, m) })
	tasks.Go(func() error { return g.tell(ctx, m) })
	return tasks.Wait()
}

// errRemoved ends work when this member has been taken out of the group.
var errRemoved = errors.New("this member was removed")

// watch keeps group.json up to date, ends the streams of those who are no members
// any more, and finds out when this member isn't.
func (g *Group) watch(ctx context.Context, m *member) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if m.leader() != "" {
			g.mu.Lock()
			g.heard = time.Now()
			g.mu.Unlock()
		}
		if err := g.remember(m); err != nil {
			return err
		}
		m.layer.reset(func(p peer.ID) bool { return !g.admitRaft(p, opening{g.id, g.epoch(), false}).OK })
		if r := g.removal(m); r != nil {
			if m.leads() && m.otherVoters() {
				// It still has to hand over; the next leader takes it out of the
				// configuration.
				m.transfer(ctx)
			} else {
				g.log.Warn("this member was removed from the group", "by", r.By, "index", r.Index)
				if err := g.change(func(f *groupFile) { f.Removed = r }); err != nil {
					return err
				}
				return errRemoved
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// remember writes to group.json who is in the group.
func (g *Group) remember(m *member) error {
	var members []knownMember
	var epoch uint64
	m.fsm.view(func(s *pinset.State) {
		info, _ := s.Group()
		epoch = info.Epoch
		for _, x := range s.Members() {
			members = append(members, knownMember{x.Peer, x.Addrs})
		}
	})
	if epoch == 0 {
		return nil // not founded, as far as this member knows
	}
	var voters []pinset.Peer
	for _, s := range m.servers() {
		if s.voter {
			voters = append(voters, s.id)
		}
	}
	return g.change(func(f *groupFile) {
		f.Members, f.Epoch, f.Voters, f.Founding = members, max(f.Epoch, epoch), voters, nil
	})
}

// tell keeps the group informed of where this member is.
func (g *Group) tell(ctx context.Context, m *member) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	client := g.c.Client(g.id)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		var known []string
		member := false
		m.fsm.view(func(s *pinset.State) {
			var x pinset.Member
			x, member = s.Member(g.c.self())
			known = slices.Clone(x.Addrs)
		})
		now := g.c.addrs()
		slices.Sort(known)
		if !member || len(now) == 0 || slices.Equal(known, slices.Sorted(slices.Values(now))) {
			continue
		}
		if _, err := client.write(ctx, request{Op: opUpdate, Addrs: now}); err != nil && ctx.Err() == nil {
			g.log.Info("the group does not know this member's new addresses", "err", err)
		}
	}
}

// removal returns how this member was removed, nil while it is one.
func (g *Group) removal(m *member) *removal {
	var r *removal
	self := g.c.self()
	applied := m.fsm.view(func(s *pinset.State) {
		t, removed := s.Tombstone(self)
		if _, member := s.Member(self); removed && !member {
			r = &removal{t.By, t.Index}
		}
	})
	g.mu.Lock()
	defer g.mu.Unlock()
	if r == nil && g.told != nil && g.told.Index > applied {
		return g.told
	}
	return r
}

// learn is told why another member does not let this one in.
func (g *Group) learn(e *RefusedError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.Why == RefusedRemoved && e.Index > 0 {
		g.told = &removal{e.By, e.Index}
	}
	g.log.Info("a member refuses this one", "peer", e.Peer, "why", string(e.Why), "message", e.Message)
}

// leaderless says whether an election may be under way, or is hopeless.
func (g *Group) leaderless() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.heard) > g.c.config.Timing.scale(quorumWait) {
		return ErrNoQuorum
	}
	return ErrNoLeader
}

// propose has a command of this member's own done, if it leads.
func (g *Group) propose(ctx context.Context, m *member, c pinset.Command, h *pinset.Header) (pinset.Result, error) {
	*h = pinset.Header{Client: g.client, Seq: g.seq.Add(1), By: g.c.self(), At: time.Now().UnixMilli()}
	frame, err := pinset.EncodeCommand(c)
	if err != nil {
		return pinset.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	return m.apply(ctx, frame)
}

// admitRaft decides on a Raft stream: from a member of the state, or of Raft's
// configuration, which one that is being removed leaves last.
func (g *Group) admitRaft(p peer.ID, o opening) admission {
	epoch := g.epoch()
	if o.Epoch < epoch {
		return overEpoch(o.Epoch, epoch)
	}
	m, err := g.running()
	if err != nil {
		return admission{Epoch: epoch, Error: RefusedStopped, Message: err.Error()}
	}
	from := pinset.Peer(p.String())
	if slices.ContainsFunc(m.servers(), func(s server) bool { return s.id == from }) {
		return admission{OK: true, Epoch: epoch}
	}
	a, _ := g.admitMember(m, from, epoch)
	return a
}

// admitGroup decides on a stream of /p2pshare/group/1: from a member, from who has
// a role, and from who says that it has a token. What each may do is decided
// request by request.
func (g *Group) admitGroup(p peer.ID, o opening) admission {
	epoch := g.epoch()
	if o.Epoch < epoch && !o.Join {
		return overEpoch(o.Epoch, epoch)
	}
	m, err := g.running()
	if err != nil {
		return admission{Epoch: epoch, Error: RefusedStopped, Message: err.Error()}
	}
	from := pinset.Peer(p.String())
	a, roles := g.admitMember(m, from, epoch)
	if o.Join || roles != 0 {
		a = admission{OK: true, Epoch: epoch}
		rand.Read(a.Nonce[:])
	}
	return a
}

func overEpoch(was, is uint64) admission {
	return admission{Epoch: is, Error: RefusedEpoch,
		Message: fmt.Sprintf("the group is in epoch %d, after a recovery; epoch %d is over", is, was)}
}

// admitMember lets in members of the state, and of group.json before there is one.
func (g *Group) admitMember(m *member, from pinset.Peer, epoch uint64) (a admission, roles pinset.Roles) {
	a = admission{Epoch: epoch, Error: RefusedStranger, Message: "no member of the group, and has no role in it"}
	m.fsm.view(func(s *pinset.State) {
		_, member := s.Member(from)
		if _, founded := s.Group(); !founded {
			member = slices.ContainsFunc(g.known().Members, func(k knownMember) bool { return k.Peer == from })
		}
		roles = s.Roles(from)
		if member {
			a = admission{OK: true, Epoch: epoch}
		} else if t, ok := s.Tombstone(from); ok {
			a = admission{Epoch: epoch, Error: RefusedRemoved, By: t.By, Index: t.Index,
				Message: fmt.Sprintf("%s removed it from the group at log index %d", t.By, t.Index)}
		}
	})
	return a, roles
}
