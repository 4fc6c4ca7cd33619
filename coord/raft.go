package coord

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

// Timing is how patient a group's members are with one another.
type Timing int

const (
	// LAN is for members within some 50 ms of one another: a leader that died is
	// replaced within about a second.
	LAN Timing = iota
	// WAN is three times as patient.
	WAN
)

// Timeouts of the LAN preset. With 500 ms a killed leader was replaced after
// 0.96 s (median of 20), with 200 ms after 0.43 s; but fsync was seen to take up
// to 50 ms here, and elections that nobody needs cost more than half a second.
const (
	electionTimeout = 500 * time.Millisecond // and without a heartbeat; Raft draws 1 to 2 times that
	leaseTimeout    = 250 * time.Millisecond // of a leader that does not reach a quorum
	commitTimeout   = 50 * time.Millisecond  // until followers hear of a commit when nothing else is sent
	rpcTimeout      = 2 * time.Second        // of one exchange, so of noticing a cut that drops packets
	enqueueTimeout  = time.Second            // Raft's main loop takes nothing: its disk hangs
	changeTimeout   = 5 * time.Second        // of a change of the configuration
	handOverTimeout = time.Second            // of handing leadership over before a stop
	shutdownTimeout = 3 * time.Second        // of Raft's goroutines, one of which may hang in a write
	muteTime        = 15 * time.Second       // longer than raftlog waits for a write that hangs
)

// When Raft takes a snapshot, and what it leaves of the log: a member that was
// away for fewer entries gets those, others the whole state. A million pins are
// 135 MB, entries 300 bytes. What came after the last snapshot is applied again at
// a restart, some 30 µs an entry: so the threshold is looked at often.
const (
	snapshotInterval  = 5 * time.Second
	snapshotThreshold = 64 << 10
	trailingLogs      = 64 << 10
	appendEntriesMax  = 128 // of 256 KiB at most, mostly of 300 bytes
	recentLogs        = 512 // kept in memory: each follower is sent them, and the fsm gets them
)

func (t Timing) scale(d time.Duration) time.Duration {
	if t == WAN {
		return 3 * d
	}
	return d
}

// ErrNoLeader says that the group has no leader just now, or that the leader was
// lost while it worked on the request: ask again, with the same Client and Seq
// if it was a write.
var ErrNoLeader = errors.New("the group has no leader just now")

// ErrDiskFull says that the leader's disk is full. Nothing was written.
var ErrDiskFull = raftlog.ErrDiskFull

// errNotLeader says that another member leads.
var errNotLeader = errors.New("this member does not lead")

// server is a member in Raft's configuration.
type server struct {
	id    pinset.Peer
	voter bool
}

// member is one run of Raft on a group's directory. It is opened and closed once;
// another run is another member.
type member struct {
	raft    *raft.Raft
	log     *raftlog.Log
	fsm     *fsm
	planner planner
	carrier *ackCarrier
	timing  Timing
	logRuns sync.WaitGroup // calls of log.Run that have not returned
	hurried atomic.Int64   // Unix nanoseconds of the last hurry, 0 after calm
	caught  atomic.Bool    // see caughtUp

	replaced chan struct{} // has room for one: see errReplaced

	fencing   chan struct{} // has room for one, who has a barrier under way: others wait to put in
	fenceTerm atomic.Uint64 // the term in which a barrier has been applied here

	closeOnce sync.Once
	closeErr  error
}

// memberConfig is what a member is opened with.
type memberConfig struct {
	group     GroupID
	dir       string
	timing    Timing
	log       *slog.Logger
	bootstrap bool                   // be the one voter of a new group, if the directory is empty
	kick      func()                 // see fsm
	votes     func(pinset.Peer) bool // says whose answers Raft is to hear in full
	carrier   carrier
	parts     parts
}

// parts are what a member is built with besides. A simulation has smaller logs,
// a disk that it breaks, and another carrier.
type parts struct {
	carrier           func(*Group) carrier
	raftlog           raftlog.Config // Log and OnSlow are the member's
	snapshotThreshold uint64
	trailingLogs      uint64
}

// openMember opens the stores and starts Raft. The error may be, or wrap, a
// *raftlog.DamagedError.
func openMember(c memberConfig) (*member, error) {
	m := &member{carrier: &ackCarrier{carrier: c.carrier, acks: map[raft.ServerID]ack{}}, timing: c.timing, fencing: make(chan struct{}, 1), replaced: make(chan struct{}, 1)}
	files := c.parts.raftlog
	files.Log, files.OnSlow = c.log, func() { m.carrier.mute(muteTime) }
	log, snapshots, err := raftlog.Open(c.dir, files)
	if err != nil {
		return nil, errors.Join(err, m.carrier.Close())
	}
	m.log = log
	m.carrier.synced = log.Synced
	m.fsm = newFSM(c.group, log.SetCommitted, c.kick)
	m.fsm.durable = log.AwaitSynced
	config := raftConfig(c)
	own := &leaderLog{replacedLog: replacedLog{log, snapshots, m.replaced}}
	recent, err := raft.NewLogCache(recentLogs, own)
	if err == nil {
		err = m.bootstrap(c, config, snapshots)
	}
	if err == nil {
		m.raft, err = raft.NewRaft(config, m.fsm, recent, stableStore{log}, snapshots, voterCarrier{m.carrier, c.votes})
	}
	if err == nil {
		own.raft.Store(m.raft)
		err = m.fsm.catchUp(log, log.Committed())
	}
	if err != nil {
		if m.raft != nil {
			err = errors.Join(err, m.raft.Shutdown().Error())
		}
		return nil, errors.Join(err, m.carrier.Close(), log.Close())
	}
	m.carrier.onLost(m.hurry)
	return m, nil
}

func raftConfig(c memberConfig) *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(c.carrier.LocalAddr())
	config.HeartbeatTimeout = c.timing.scale(electionTimeout)
	config.ElectionTimeout = c.timing.scale(electionTimeout)
	config.LeaderLeaseTimeout = c.timing.scale(leaseTimeout)
	config.CommitTimeout = c.timing.scale(commitTimeout)
	config.SnapshotInterval = snapshotInterval
	config.SnapshotThreshold = c.parts.snapshotThreshold
	config.TrailingLogs = c.parts.trailingLogs
	config.MaxAppendEntries = appendEntriesMax
	config.BatchApplyCh = true
	config.ShutdownOnRemove = false // Group decides
	config.NoLegacyTelemetry = true
	config.Logger = raftLogger{log: c.log}
	return config
}

func (m *member) bootstrap(c memberConfig, config *raft.Config, snapshots raft.SnapshotStore) error {
	if !c.bootstrap {
		return nil
	}
	if has, err := raft.HasExistingState(m.log, m.log, snapshots); has || err != nil {
		return err
	}
	self := raft.Server{ID: config.LocalID, Address: m.carrier.LocalAddr()}
	return raft.BootstrapCluster(config, m.log, m.log, snapshots, m.carrier,
		raft.Configuration{Servers: []raft.Server{self}})
}

// run returns the error that stopped the member, or nil when ctx ended. The
// caller closes it.
func (m *member) run(ctx context.Context) error {
	ended := make(chan error, 1)
	logCtx, cancel := context.WithCancel(ctx)
	go func() { ended <- m.keepLog(logCtx) }()
	var err error
	select {
	case err = <-ended:
		cancel()
		return err
	case <-m.log.Failed():
		cancel()
		return m.log.Err() // log.Run itself may hang in a write
	case <-m.fsm.failed:
		err = m.fsm.err()
	case <-m.replaced:
		err = errReplaced
	case <-ctx.Done():
	}
	cancel()
	return errors.Join(err, <-ended)
}

// keepLog runs the log until ctx ends, and returns the error that stopped it. It
// does not wait for Run, which may itself hang in a write.
func (m *member) keepLog(ctx context.Context) error {
	ended := make(chan error, 1)
	m.logRuns.Go(func() { ended <- m.log.Run(ctx) })
	select {
	case err := <-ended:
		return err
	case <-m.log.Failed():
		return m.log.Err()
	}
}

// close stops Raft and closes the stores. With handOver a leader first sees to it
// that another voter takes over, so that nobody waits for an election.
func (m *member) close(handOver bool) error {
	m.closeOnce.Do(func() { m.closeErr = m.stop(handOver) })
	return m.closeErr
}

func (m *member) stop(handOver bool) error {
	if handOver && m.leads() && m.otherVoters() {
		within(handOverTimeout, m.raft.LeadershipTransfer())
	}
	m.log.SetCommitted(m.raft.AppliedIndex())
	// The streams first: what waits for a peer ends with them.
	m.carrier.Close()
	shutdown := m.raft.Shutdown()
	down := within(shutdownTimeout, shutdown)
	m.carrier.Close() // what came in between
	if m.log.Err() != nil && (down != nil || !m.logRan(shutdownTimeout)) {
		// A write hangs. Closing the log waits for it, and nobody for that: the process
		// is about to end.
		go func() {
			shutdown.Error()
			m.logRuns.Wait()
			m.log.Close()
		}()
		return nil
	}
	return m.log.Close()
}

// logRan waits for the calls of log.Run to return, and says whether they have.
func (m *member) logRan(atMost time.Duration) bool {
	ended := make(chan struct{})
	go func() { m.logRuns.Wait(); close(ended) }() // ends with the write that hangs, or the process
	select {
	case <-ended:
		return true
	case <-time.After(atMost):
		return false
	}
}

// future is what Raft's calls return.
type future interface{ Error() error }

func within(d time.Duration, f future) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return await(ctx, f)
}

// await waits for a future, which has no context of its own: the goroutine ends
// with the future, and that at the latest when Raft is shut down.
func await(ctx context.Context, f future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leadership turns Raft's errors into ours. One whose disk has failed is about to
// end: what it was asked may be in its log, as with one that was deposed.
func leadership(err error) error {
	for _, e := range []error{raft.ErrNotLeader, raft.ErrLeadershipLost, raft.ErrLeadershipTransferInProgress,
		raft.ErrEnqueueTimeout, raft.ErrRaftShutdown, raft.ErrAbortedByRestore, raftlog.ErrStopped} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w (%w)", ErrNoLeader, err)
		}
	}
	return err
}

// apply proposes a command, and returns its result once it is committed and
// applied here. ErrNoLeader does not say whether it will be.
func (m *member) apply(ctx context.Context, frame []byte) (pinset.Result, error) {
	if !m.leads() {
		return pinset.Result{}, errNotLeader
	}
	if err := m.log.Room(); err != nil {
		return pinset.Result{}, leadership(err)
	}
	f := m.raft.Apply(frame, enqueueTimeout)
	if err := await(ctx, f); err != nil {
		if stopped := m.log.Err(); stopped != nil {
			err = stopped // Raft tells it as text
		}
		return pinset.Result{}, leadership(err)
	}
	switch r := f.Response().(type) {
	case pinset.Result:
		return r, nil
	case error:
		return pinset.Result{}, r
	}
	panic(fmt.Sprintf("fsm answers %T", f.Response()))
}

// readIndex returns when the state has taken in all that was committed before the
// call: a read of it is then linearizable. errNotLeader if another leads.
//
// Raft's dissertation, §6.4, in four steps. Without the first a new leader may not
// know yet what the last one has committed; without the third another one may
// have committed more; either alone was found illegal by a checker. Raft's own
// VerifyLeader is not quite the third: see verify.
func (m *member) readIndex(ctx context.Context) error {
	if !m.leads() {
		return errNotLeader
	}
	if err := m.fence(ctx); err != nil {
		return err
	}
	term, commit := m.raft.CurrentTerm(), m.raft.CommitIndex()
	if err := m.verify(ctx, term); err != nil {
		return err
	}
	if m.raft.CurrentTerm() != term || !m.fenced(term) {
		return ErrNoLeader // it led again, in a later term: without a barrier the wait may not end
	}
	return m.fsm.wait(ctx, commit)
}

func (m *member) fenced(term uint64) bool { return m.fenceTerm.Load() == term }

// fence has a barrier applied, once a term. Entries after it in that term are
// commands and configurations, which all reach the fsm, so that it can be waited
// for; Raft's own applied index rises before the fsm has done the work.
func (m *member) fence(ctx context.Context) error {
	if m.fenced(m.raft.CurrentTerm()) {
		return nil
	}
	select {
	case m.fencing <- struct{}{}:
		defer func() { <-m.fencing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	term := m.raft.CurrentTerm()
	if m.fenced(term) {
		return nil
	}
	f := m.raft.Barrier(enqueueTimeout)
	if err := await(ctx, f); err != nil {
		return leadership(err)
	}
	if m.raft.CurrentTerm() != term {
		return ErrNoLeader
	}
	if i, ok := f.(raft.IndexFuture); ok {
		m.fsm.reached(i.Index())
	}
	m.fenceTerm.Store(term)
	return nil
}

func (m *member) leads() bool         { return m.raft.State() == raft.Leader }
func (m *member) term() uint64        { return m.raft.CurrentTerm() }
func (m *member) commitIndex() uint64 { return m.raft.CommitIndex() }

// appliedIndex is how far this member has got, no-ops included.
func (m *member) appliedIndex() uint64 { return m.raft.AppliedIndex() }

// caughtUp says whether this run of the member has once applied all that it was told
// is committed. Before that, what others were granted may be missing here.
func (m *member) caughtUp() bool {
	if m.caught.Load() {
		return true
	}
	last := m.commitIndex()
	if last == 0 { // until a leader tells
		return false
	}
	// Raft's own applied index rises before the fsm has done the work, and the fsm
	// is not told of all entries: look for the last command.
	for l := (raft.Log{}); last > 0; last-- {
		if m.log.GetLog(last, &l) != nil {
			last = 0 // in a snapshot, which was restored at the start
			break
		}
		if l.Type == raft.LogCommand {
			break
		}
	}
	if m.fsm.view(func(*pinset.State) {}) < last {
		return false
	}
	m.caught.Store(true)
	return true
}

// lastEntry returns the term and index of the log's last entry.
func (m *member) lastEntry() (term, index uint64) {
	stats := m.raft.Stats() // Raft has no other way to tell the term
	number := func(key string) uint64 { n, _ := strconv.ParseUint(stats[key], 10, 64); return n }
	if index = number("last_snapshot_index"); index > number("last_log_index") {
		return number("last_snapshot_term"), index
	}
	return number("last_log_term"), number("last_log_index")
}

// leader returns who leads as far as this member knows, "" for nobody.
func (m *member) leader() peer.ID {
	_, id := m.raft.LeaderWithID()
	p, _ := peer.Decode(string(id)) // "" is no peer ID
	return p
}

// age is how old the state may be: 0 for a leader, negative when this member has
// not heard from one.
func (m *member) age() time.Duration {
	heard := m.raft.LastContact()
	switch {
	case m.leads():
		return 0
	case heard.IsZero():
		return -time.Millisecond
	}
	return time.Since(heard)
}

// servers returns Raft's latest configuration, which may not be committed yet.
func (m *member) servers() []server {
	f := m.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var list []server
	for _, s := range f.Configuration().Servers {
		list = append(list, server{pinset.Peer(s.ID), s.Suffrage == raft.Voter})
	}
	return list
}

func (m *member) otherVoters() bool {
	self := pinset.Peer(m.carrier.LocalAddr())
	for _, s := range m.servers() {
		if s.voter && s.id != self {
			return true
		}
	}
	return false
}
