// Package coord is a group of peers that agree, by Raft, which names mean which
// content and what is pinned. It runs this peer's memberships and asks groups on
// behalf of whoever embeds it. What a group agrees on is coord/internal/pinset;
// what a member must not forget is coord/internal/raftlog; contents are share's.
//
// The usual sequence:
//
//	c, err := coord.Open(n, coord.Config{})   // before n.Run
//	go n.Run(ctx)
//	go c.Run(ctx)                             // an error of it is fatal to the process
//	g, recovery, err := c.Create(ctx, "office", coord.MemberOptions{})
//	group := c.Client(g.ID())
//	token, err := group.Invite(ctx, coord.AsVoter, time.Hour)
//	_, err = group.Pin(ctx, coord.PinOptions{Name: "report.pdf", ID: id, …})
//	c.Close()
//
// Who is no member follows a group by its Link, with Follow: it asks any member, as
// far as its roles or open reading let it, and keeps the last answers (follow.go).
//
// # The opening of every stream
//
// Both protocols of a group begin with one JSON line of the opener, at most
// 4 KiB, and one of the other side:
//
//	{"group":"<64 hex>","epoch":1}
//	{"ok":true,"epoch":1,"nonce":"<32 hex>"}  or  {"error":"why","message":"for people", …}
//
// error is one of the words of Refusal. A removed member is told by whom ("by") and
// at which log index ("index"). Who has an invitation adds "join":true. From the
// second epoch on a member adds "record":"<64 hex>", the BLAKE3 of the envelope that
// began it. Who is or was a member and comes with another epoch, or another record,
// is refused and shown those envelopes ("records"), oldest first: see epoch.go for
// what it makes of them. The answer takes at most 1 MiB then.
//
// # /p2pshare/raft/1
//
// After the opening, hashicorp/raft's network transport, protocol version 3. Only
// members that vote, or were let in to, may open one, and from the second epoch on
// only with its record: Raft believes whoever speaks it. Answers between two requests
// take at most 256 KiB.
//
// # /p2pshare/group/1
//
// After the opening, JSON lines, requests of at most 64 KiB and answers of at most
// 1 MiB, up to 64 requests at a time, each with a tag of the opener's choice; answers
// come in any order:
//
//	{"tag":7,"op":"resolve","lookup":"report.pdf"}
//	{"tag":7,"index":12,"binding":{…}}   or   {"tag":7,"error":"not_found","message":"…"}
//
// The ops and their fields are those of request and answer (wire.go). A voter
// passes to the leader what only the leader can do, and names the asker in
// "origin"; any other member answers not_leader, with the leader and where it is.
// Who has no role, and was let in for its invitation, may only join: one request of
// at most 8 KiB at a time, within 30 s.
// Ops and words are append-only.
package coord

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
	"golang.org/x/sync/errgroup"
)

// Config of a Coord. The zero value works.
type Config struct {
	// Dir is where groups are kept, in a directory "groups". Empty: the node's home.
	Dir string
	// Timing is how patient members are with one another; all of a group must have
	// the same.
	Timing Timing
	// Log receives what an operator would want to know. Nil: silent.
	Log *slog.Logger
}

// Coord is this peer's part in groups. Its methods may be called concurrently.
type Coord struct {
	node   *node.Node
	me     pinset.Peer // node's ID
	config Config
	dir    string
	log    *slog.Logger
	links  links
	parts  parts
	// streams ends with Close: what serves streams is started by libp2p, and not by
	// a caller that has a context.
	streams      context.Context
	closeStreams context.CancelFunc

	added   chan struct{} // has room for one: there is a group that does not run yet
	failed  chan error    // has room for one: see Failed
	joiners chan struct{} // has room for joinersMax streams of those who have no role
	opening chan struct{} // has room for openingsMax openings of those who were never in a group

	making sync.Mutex // held while a group is made or joined

	mu     sync.Mutex
	groups map[GroupID]*Group // guarded by mu
	runs   map[GroupID]bool   // guarded by mu: those that Run has started

	followed map[GroupID]*follower // guarded by mu
}

// Open reads the memberships that are kept, and takes n's streams of groups. Call it
// before n.Run; it starts nothing.
func Open(n *node.Node, config Config) (*Coord, error) {
	if config.Dir == "" {
		config.Dir = n.Dir()
	}
	if config.Dir == "" {
		return nil, errors.New("coord: Config.Dir is empty, and so is the node's: groups need a directory")
	}
	if config.Timing < LAN || config.Timing > WAN {
		return nil, fmt.Errorf("coord: Config.Timing is %d, want LAN or WAN", config.Timing)
	}
	c := &Coord{node: n, me: pinset.Peer(n.ID().String()), config: config, dir: filepath.Join(config.Dir, groupsDir), log: config.Log,
		links: links{node: n, open: map[link]*conn{}, dialing: map[link]*dialing{}, silent: map[peer.ID]time.Time{}}, added: make(chan struct{}, 1), failed: make(chan error, 1),
		joiners: make(chan struct{}, joinersMax), opening: make(chan struct{}, openingsMax),
		parts:  parts{carrier: newStreamCarrier, snapshotThreshold: snapshotThreshold, trailingLogs: trailingLogs},
		groups: map[GroupID]*Group{}, runs: map[GroupID]bool{}, followed: map[GroupID]*follower{}}
	c.links.learn = func(id GroupID, e *RefusedError) {
		if g, err := c.group(id); err == nil {
			g.learn(e)
		}
	}
	c.streams, c.closeStreams = context.WithCancel(context.Background())
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := errors.Join(c.read(), c.readFollowed()); err != nil {
		return nil, err
	}
	n.Handle(raftProtocol, node.HandlerConfig{PerPeer: raftStreamsPerPeer, Total: raftStreams}, c.serveRaft)
	n.Handle(groupProtocol, node.HandlerConfig{PerPeer: groupPerPeer, Total: groupStreams}, c.serveGroup)
	return c, nil
}

// read opens the groups that are kept. A directory without group.json is what a
// crash while one was made leaves, and is no group. One that can't be read is a
// group that does not work, and keeps nothing else from working.
func (c *Coord) read() error {
	entries, err := os.ReadDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		id, err := ParseGroupID(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(c.dir, e.Name())
		f, mended, err := readGroupFile(dir, id)
		if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrUnreadable) {
			continue
		}
		if errors.Is(err, ErrUnreadable) {
			f = groupFile{ID: id, Name: id.Short(), Epoch: 1}
		} else if err != nil {
			return err
		}
		if mended != nil {
			c.log.Warn("what is known of a group is mended from its copy", "group", f.Name, "err", mended)
		}
		g := newGroup(c, dir, f)
		g.damage = err
		c.groups[id] = g
	}
	return err
}

// Run takes part in all groups until ctx ends. An error is fatal to the process:
// see Group.Run.
func (c *Coord) Run(ctx context.Context) error {
	tasks, ctx := errgroup.WithContext(ctx)
	look := make(chan struct{}, 1) // has room for one: a group may be followed that was not
	tasks.Go(func() error { return c.follow(ctx, look) })
	tasks.Go(func() error {
		for {
			for _, g := range c.idle() {
				tasks.Go(func() error { return g.Run(ctx) })
			}
			select {
			case <-c.added:
				select {
				case look <- struct{}{}:
				default: // it will look
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	return tasks.Wait()
}

// Failed returns a channel that gives, once, the error with which Run is about to end
// because a group's log can't be written. Run waits for what is at work, which may
// hang in that disk for good: a process need not wait for it, and may end.
func (c *Coord) Failed() <-chan error { return c.failed }

func (c *Coord) fail(err error) {
	select {
	case c.failed <- err:
	default: // the first is enough
	}
}

// idle returns the groups that do not run yet, and counts them as running.
func (c *Coord) idle() []*Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*Group
	for id, g := range c.groups {
		if !c.runs[id] {
			c.runs[id] = true
			list = append(list, g)
		}
	}
	return list
}

// Close ends the streams to other members. Run must have returned, or never have
// been called. It may be called twice.
func (c *Coord) Close() error {
	c.closeStreams()
	c.links.close()
	return nil
}

// Groups returns the groups that this peer is in, by local name.
func (c *Coord) Groups() []*Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*Group
	for _, g := range c.groups {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *Group) int { return strings.Compare(a.Name(), b.Name()) })
	return list
}

// ErrNoGroup says that this peer is in no such group.
var ErrNoGroup = errors.New("this peer is not in that group")

func (c *Coord) group(id GroupID) (*Group, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.groups[id]; g != nil {
		return g, nil
	}
	return nil, ErrNoGroup
}

// Find returns the group of a local name or an ID. ErrNoGroup.
func (c *Coord) Find(what string) (*Group, error) {
	for _, g := range c.Groups() {
		if g.Name() == what || g.ID().String() == what {
			return g, nil
		}
	}
	return nil, fmt.Errorf("%w: %.80q", ErrNoGroup, what)
}

func (c *Coord) self() pinset.Peer { return c.me }

// addrs are where this peer is, as a member says it.
func (c *Coord) addrs() []string {
	var list []string
	for _, a := range c.node.Addrs() {
		if s := a.String(); len(s) <= pinset.AddrBytesMax && len(list) < pinset.AddrsMax {
			list = append(list, s)
		}
	}
	return list
}

// MemberOptions are what this peer brings into a group.
type MemberOptions struct {
	Capacity int64  // bytes for copies; 0 is half of what is free on the disk
	Zone     string // members of one zone fail together
	NoStore  bool   // holds no copies
}

// settled returns o with its default filled in.
func (o MemberOptions) settled(dir string) MemberOptions {
	if o.Capacity == 0 && !o.NoStore {
		o.Capacity = min(freeBytes(dir)/2, pinset.IntMax)
	}
	return o
}

// Create makes a group with this peer as its admin and only voter, known here as
// name. It returns the private half of the group's recovery key, which may begin a
// new epoch when the quorum is lost: it is kept nowhere. Run must be running.
func (c *Coord) Create(ctx context.Context, name string, o MemberOptions) (*Group, ed25519.PrivateKey, error) {
	c.making.Lock()
	defer c.making.Unlock()
	if err := c.checkName(name, GroupID{}); err != nil {
		return nil, nil, err
	}
	o = o.settled(c.config.Dir)
	public, recovery, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	record, id, err := sealFounding(c.node.Key(), foundingRecord{V: foundingFormat, Epoch: 1, Name: name,
		Recovery: pinset.Key(public), At: time.Now().UnixMilli()})
	if err != nil {
		return nil, nil, err
	}
	g, err := c.add(groupFile{ID: id, Name: name, Record: record, Epoch: 1,
		Members:  []knownMember{{Peer: c.self(), Addrs: c.addrs()}},
		Founding: &founding{Capacity: o.Capacity, Zone: o.Zone, NoStore: o.NoStore}})
	if err != nil {
		return nil, nil, err
	}
	return g, recovery, g.await(ctx, func(s *pinset.State) bool { _, founded := s.Group(); return founded })
}

// checkName checks the local name of a group that is to be known here.
func (c *Coord) checkName(name string, id GroupID) error {
	if name == "" || len(name) > pinset.NameBytesMax || strings.ContainsAny(name, "/@\\") || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("group name %.80q: want 1 to %d bytes of text without /, \\ and @", name, pinset.NameBytesMax)
	}
	if _, err := ParseGroupID(name); err == nil {
		return fmt.Errorf("group name %s: that is a group's ID", name) // Find would take one for the other
	}
	if k, err := c.FindKnown(name); err == nil && k.ID != id && (k.Follows || !c.isOver(k.ID)) {
		return fmt.Errorf("there is a group called %q already: %w", name, ErrExists)
	}
	return nil
}

// add writes a group's directory and has Run run it. A crash before group.json is
// there leaves a directory that is no group.
func (c *Coord) add(f groupFile) (*Group, error) {
	dir := filepath.Join(c.dir, f.ID.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := errors.Join(f.write(dir), syncDir(c.dir)); err != nil {
		return nil, err
	}
	g := newGroup(c, dir, f)
	c.mu.Lock()
	c.groups[f.ID] = g
	c.mu.Unlock()
	select {
	case c.added <- struct{}{}:
	default: // Run will look
	}
	return g, nil
}

// await waits until the state of a group is as it should be.
func (g *Group) await(ctx context.Context, done func(*pinset.State) bool) error {
	tick := time.NewTicker(retryMax)
	defer tick.Stop()
	for {
		if m, err := g.running(); err == nil {
			is := false
			m.fsm.view(func(s *pinset.State) { is = done(s) })
			if is {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Join makes this peer a member of the group of a token, known here as name; ""
// takes the group's own name. It begins as learner. Join returns once this peer's own
// state has it as a member, so that what is asked next is answered here; if that takes
// longer than joinedWait, as in a large group, the rest comes after Join has returned.
// A token works once. Run must be running.
//
// ErrToken and ErrExists of the group's answer are final.
func (c *Coord) Join(ctx context.Context, t Token, name string, o MemberOptions) (*Group, error) {
	c.making.Lock()
	defer c.making.Unlock()
	if name == "" {
		name = t.Name
	}
	if err := c.checkName(name, t.Group); err != nil {
		return nil, err
	}
	if g, err := c.group(t.Group); err == nil && g.known().parked() == nil && !errors.Is(g.Err(), ErrUnreadable) {
		return nil, fmt.Errorf("this peer is in the group, as %q: %w", g.Name(), ErrExists)
	}
	a, err := c.askToJoin(ctx, t, o.settled(c.config.Dir))
	if err != nil {
		return nil, err
	}
	if t.Epoch != uint64(len(a.Epochs))+1 {
		return nil, fmt.Errorf("join group %s: the invitation is of epoch %d, and the member's answer has %d", t.Group.Short(), t.Epoch, len(a.Epochs)+1)
	}
	f := groupFile{ID: t.Group, Name: name, Record: *a.Record, Epoch: t.Epoch, Epochs: a.Epochs}
	for _, m := range a.Members {
		f.Members = append(f.Members, knownMember{m.Peer, m.Addrs})
		if m.MayVote || m.Vote == Voter {
			f.MayVote = append(f.MayVote, m.Peer)
		}
		if m.Roles.Has(RoleAdmin) {
			f.Admins = append(f.Admins, m.Peer)
		}
	}
	if _, err := c.group(f.ID); err == nil {
		if err := c.forget(ctx, f.ID); err != nil {
			return nil, err
		}
	}
	g, err := c.add(f)
	if err != nil {
		return nil, err
	}
	if err := c.stopFollowing(t.Group); err != nil { // a member need not follow
		return nil, err
	}
	if err := g.await(ctx, func(*pinset.State) bool { return true }); err != nil {
		return g, err
	}
	ctx, cancel := context.WithTimeout(ctx, joinedWait)
	defer cancel()
	// It has joined, however long this takes: not an error.
	g.await(ctx, func(s *pinset.State) bool { _, member := s.Member(c.self()); return member })
	return g, nil
}

// joinedWait is how long Join waits for the state: a million pins take some 15 s.
const joinedWait = 5 * time.Second

// Forget removes the membership of a group that this peer takes no part in any more,
// with all that is left of it. ErrExists if it does.
func (c *Coord) Forget(ctx context.Context, id GroupID) error {
	c.making.Lock()
	defer c.making.Unlock()
	return c.forget(ctx, id)
}

func (c *Coord) forget(ctx context.Context, id GroupID) error {
	g, err := c.group(id)
	if err != nil {
		return err
	}
	if g.known().parked() == nil && g.Err() == nil {
		return fmt.Errorf("this peer takes part in the group: %w", ErrExists)
	}
	c.mu.Lock()
	runs := c.runs[id]
	delete(c.groups, id)
	c.mu.Unlock()
	g.end()
	if runs {
		select {
		case <-g.ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.Lock()
	delete(c.runs, id)
	c.mu.Unlock()
	// group.json first: without it the directory is no group.
	return errors.Join(os.Remove(filepath.Join(g.dir, groupFileName)), os.RemoveAll(g.dir), syncDir(c.dir))
}

// askToJoin asks the members that the token names, one after the other.
func (c *Coord) askToJoin(ctx context.Context, t Token, o MemberOptions) (answer, error) {
	var id pinset.Client
	rand.Read(id[:])
	r := request{Op: opJoin, Client: id, Seq: 1, Capacity: o.Capacity, Zone: o.Zone, NoStore: o.NoStore, Addrs: c.addrs()}
	targets, hops := slices.Clone(t.Members), 0
	var errs []error
	for len(targets) > 0 {
		to := targets[0]
		targets = targets[1:]
		a, err := c.joinAt(ctx, t, to, r)
		if err == nil && a.Error == wordNotLeader && hops < hopsMax {
			if leader, bad := (knownMember{a.Leader, a.Addrs}).info(); bad == nil {
				hops++
				targets = append([]peer.AddrInfo{leader}, targets...)
				continue
			}
		}
		if err == nil {
			err = a.err()
		}
		if err == nil && (a.Record == nil || groupIDOf(*a.Record) != t.Group) {
			err = errors.New("the member's answer has not the group's founding record")
		}
		if err == nil {
			return a, nil
		}
		if errors.Is(err, ErrToken) || errors.Is(err, ErrExists) || errors.Is(err, ErrDenied) {
			return answer{}, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", to.ID, err))
	}
	return answer{}, fmt.Errorf("join group %s: %w", t.Group.Short(), errors.Join(errs...))
}

// joinAt signs for one member, and asks it.
func (c *Coord) joinAt(ctx context.Context, t Token, to peer.AddrInfo, r request) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	s, a, err := dialGroup(ctx, c.links.node, to, groupProtocol, opening{Group: t.Group, Epoch: t.Epoch, Join: true})
	if err != nil {
		return answer{}, err
	}
	defer s.Reset()
	key := t.public()
	rand.Read(r.Nonce[:])
	statement := joinStatement(t.Group, a.Epoch, c.self(), pinset.Peer(to.ID.String()), r.Nonce, a.Nonce)
	signature := pinset.Signature(ed25519.Sign(t.key(), statement))
	r.Token, r.Signature = &key, &signature
	k := newConn(s, a.Nonce)
	reading := make(chan struct{})
	go func() { defer close(reading); k.read() }()
	defer func() { s.Reset(); <-reading }()
	return k.ask(ctx, r)
}
