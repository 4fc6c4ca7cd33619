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
	rejoinEvery = time.Second // a member without a log asks again
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

// ErrRemoved says that this peer was taken out of the group. Another invitation
// lets it in again.
var ErrRemoved = errors.New("this peer was taken out of the group")

var (
	errStarting = fmt.Errorf("%w: it is starting", ErrStopped)
	errEnded    = fmt.Errorf("%w: it has stopped", ErrStopped)
)

// Group is this peer's membership of one group:
//
//	┌─────────┐ log is damaged: wiped                  ┌───────────┐
//	│ working │ ─────────────────────────────────────→ │ rejoining │
//	└─────────┘                                        └───────────┘
//	 │   ↑   │ state differs ┌─────────────┐            ↑         │
//	 │   │   └─────────────→ │ quarantined │ ───────────┘         │
//	 │   │                   └─────────────┘ vote is gone: wiped  │
//	 │   └────────────────────────────────────────────────────────┘
//	 ↓ removed                                         vote is gone
//	┌─────────┐
//	│ removed │  for good: join again with a new token
//	└─────────┘
//
// A new epoch (recover.go) is begun between two lives: a member whose vote it
// takes along works on, one that comes along begins in rejoining, one that is left
// out is removed. A group that is split stops for good, as one that is removed.
//
// Beside these is damaged, for good too: see Err.
//
// Raft runs in working and in quarantined, where nothing is answered. Its methods may
// be called concurrently.
type Group struct {
	c      *Coord
	id     GroupID
	dir    string
	log    *slog.Logger
	client pinset.Client // of the commands that this member makes by itself
	seq    atomic.Uint64
	kicked chan struct{} // has room for one: who is a member may have changed
	turned chan struct{} // has room for one: group.json says something else than it did
	orders chan *order   // taken by Run, in all states
	ahead  chan peer.ID  // who is in another epoch, to be asked about it
	unsure chan peer.ID  // who speaks Raft, and may not as far as is known here; has room for one
	abrupt atomic.Bool   // a test's crash: nothing is handed over
	stop   chan struct{} // closed to end Run for good
	ended  chan struct{} // closed when Run has ended

	reports    reports        // what members tell this one while it leads
	suspicions chan suspicion // has room for suspicionsMax: more are dropped, and come again

	endOnce sync.Once

	writing sync.Mutex // held by change alone, while the disk works

	mu     sync.Mutex
	file   groupFile // guarded by mu; as on disk
	member *member   // guarded by mu; nil when Raft does not run
	why    error     // guarded by mu: why it does not
	heard  time.Time // guarded by mu: when a leader was last known
	told   *removal  // guarded by mu: another member says that this one was removed
	// vouched is who votes by the word of a voter, and not yet by this member's state.
	vouched pinset.Peer // guarded by mu
	damage  error       // guarded by mu: why it has stopped for good
	// replicator is at work on this member's copies; nil while none is.
	replicator *replicator // guarded by mu
}

func newGroup(c *Coord, dir string, f groupFile) *Group {
	g := &Group{c: c, id: f.ID, dir: dir, log: c.log.With("group", f.Name), kicked: make(chan struct{}, 1),
		turned: make(chan struct{}, 1), orders: make(chan *order), ahead: make(chan peer.ID, aheadMax), unsure: make(chan peer.ID, 1), suspicions: make(chan suspicion, suspicionsMax),
		stop: make(chan struct{}), ended: make(chan struct{}), file: f, why: errStarting}
	rand.Read(g.client[:])
	return g
}

// ID returns the group's ID.
func (g *Group) ID() GroupID { return g.id }

// Name returns the group's local name.
func (g *Group) Name() string { return g.known().Name }

// Epoch returns the epoch that the member is in: one more with each recovery.
func (g *Group) Epoch() uint64 { return g.known().Epoch }

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

// running returns the member while it works, and ErrStopped otherwise.
func (g *Group) running() (*member, error) {
	m, err := g.voting()
	if err == nil && m.fsm.err() != nil {
		return nil, fmt.Errorf("%w: %w", ErrStopped, m.fsm.err())
	}
	return m, err
}

// voting returns the member while Raft runs, and ErrStopped otherwise.
func (g *Group) voting() (*member, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.member == nil {
		return nil, g.why
	}
	return g.member, nil
}

func (g *Group) setReplicator(r *replicator) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.replicator = r
}

func (g *Group) copies() *replicator {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.replicator
}

func (g *Group) setMember(m *member, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.member, g.why, g.vouched = m, why, ""
	g.heard = time.Now() // nobody knows yet that there is no leader
}

// opening is how this member presents itself.
func (g *Group) opening() opening {
	f := g.known()
	return opening{Group: g.id, Epoch: f.Epoch, Record: f.record()}
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
	f := g.known()
	for _, k := range slices.Concat(f.Members, f.Former) {
		if k.Peer == name {
			add(k.Addrs)
		}
	}
	return info
}

// Run takes part in the group until ctx ends, and then returns nil after handing
// leadership over if it has it. An error is fatal to the process: the log can't
// be written, a command can't be applied, or the group is split (ErrSplit). A
// member whose log is damaged, or whose state is not the leader's, gives its vote
// back and begins anew as learner; where that can't be, Run does nothing more, and
// Err tells why.
func (g *Group) Run(ctx context.Context) error {
	defer close(g.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error {
		defer cancel()
		return g.lives(ctx)
	})
	tasks.Go(func() error { return g.meet(ctx) })
	tasks.Go(func() error { return g.inquire(ctx) })
	tasks.Go(func() error {
		select {
		case <-g.stop:
			cancel()
		case <-ctx.Done():
		}
		return nil
	})
	return tasks.Wait()
}

// order is work on a member that must not run meanwhile.
type order struct {
	do   func(context.Context) error
	done chan error // has room for one
}

func (*order) Error() string { return "the member is to stop for a while" }

// command has Run stop the member, do something, and start it again.
func (g *Group) command(ctx context.Context, do func(context.Context) error) error {
	o := &order{do: do, done: make(chan error, 1)}
	select {
	case g.orders <- o:
	case <-g.ended:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select { // whoever asked may go; what has begun is finished
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end has Run return, for good.
func (g *Group) end() { g.endOnce.Do(func() { close(g.stop) }) }

// errTurned ends a life because group.json says something else now.
var errTurned = errors.New("the member's part in the group has changed")

// lives are the member's lives, one after the other.
func (g *Group) lives(ctx context.Context) error {
	for {
		var err error
		if why := g.Err(); why != nil {
			g.log.Error("this member has stopped", "err", why)
			if err = g.park(ctx, why); errors.Is(why, ErrDamaged) {
				g.setDamage(nil) // it may have been restored: the next life finds out
			}
		} else {
			err = g.live(ctx)
		}
		var reset *resetError
		if errors.As(err, &reset) && ctx.Err() == nil {
			g.log.Warn("this member begins anew, without a vote", "reason", reset.reason)
			err = g.reset(reset)
		}
		var o *order
		switch {
		case ctx.Err() != nil && errors.As(err, &o):
			o.done <- ErrStopped
			return nil
		case ctx.Err() != nil && errors.Is(err, errTurned):
			return nil // it ends anyway
		case ctx.Err() != nil:
			return err
		case errors.As(err, &o):
			o.done <- o.do(ctx)
		case errors.Is(err, errTurned):
			if s := g.known().Split; s != nil {
				return fmt.Errorf("group %q: %w", g.Name(), s.err())
			}
		case errors.Is(err, ErrDamaged):
			g.setDamage(err)
		case err != nil:
			return fmt.Errorf("group %q: %w", g.Name(), err)
		}
	}
}

// Err returns why this member has stopped for good while the rest of the peer goes
// on: ErrDamaged or ErrUnreadable, nil otherwise.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.damage
}

func (g *Group) setDamage(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.damage = err
}

// live is one life of the member in one of the states above.
func (g *Group) live(ctx context.Context) error {
	f := g.known()
	if why := f.parked(); why != nil {
		return g.park(ctx, why)
	}
	if f.Begin {
		if err := g.begin(ctx); err != nil {
			return g.damaged(err)
		}
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
	g.setMember(m, nil)
	err = g.work(ctx, m)
	if errors.Is(err, errDiffers) {
		err = g.quarantine(ctx, m, err.Error())
	}
	g.setMember(nil, errEnded)
	if closed := m.close(ctx.Err() != nil && err == nil && !g.abrupt.Load()); err == nil {
		err = closed
	}
	return err
}

// park is the life of a member that takes no part any more.
func (g *Group) park(ctx context.Context, why error) error {
	g.setMember(nil, why)
	return g.idle(ctx)
}

// idle waits for what ends a life.
func (g *Group) idle(ctx context.Context) error {
	select {
	case o := <-g.orders:
		return o
	case <-g.turned:
		return errTurned
	case <-ctx.Done():
		return nil
	}
}

func (g *Group) open() (*member, error) {
	return openMember(memberConfig{
		group: g.id, dir: g.dir, timing: g.c.config.Timing, log: g.log, kick: g.kick,
		bootstrap: g.known().Founding != nil, carrier: g.c.parts.carrier(g), parts: g.c.parts, votes: g.mayVote,
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
		err := m.run(ctx)
		if errors.Is(err, raftlog.ErrStopped) {
			g.c.fail(fmt.Errorf("group %q: %w", g.Name(), err))
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		return errors.New("the Raft log ended by itself")
	})
	tasks.Go(func() error { return g.watch(ctx, m) })
	tasks.Go(func() error { return g.lead(ctx, m) })
	tasks.Go(func() error { return g.tell(ctx, m) })
	tasks.Go(func() error { return g.replicate(ctx, m) })
	tasks.Go(func() error { return g.idle(ctx) })
	tasks.Go(func() error { return g.knock(ctx) })
	return tasks.Wait()
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
	return g.proposeBy(ctx, m, g.c.self(), c, h)
}

// proposeBy is propose, for a peer that asked for it over its own connection.
func (g *Group) proposeBy(ctx context.Context, m *member, by pinset.Peer, c pinset.Command, h *pinset.Header) (pinset.Result, error) {
	*h = pinset.Header{Client: g.client, Seq: g.seq.Add(1), By: by, At: time.Now().UnixMilli()}
	frame, err := pinset.EncodeCommand(c)
	if err != nil {
		return pinset.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	return m.apply(ctx, frame)
}
