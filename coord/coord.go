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
	// Store is where the copies are kept that groups plan for this peer. A
	// *share.Library is one. Nil: this peer holds no copies.
	Store Store
	// Scrub is how often each copy at rest is read again and compared with its ID, at
	// least ScrubMin. 0: ScrubDefault. Half of it reads twice as much.
	Scrub time.Duration
	// FetchMax bounds how many bytes a second are fetched for all groups together: what
	// a repair, a join or a leave moves. 0: FetchMaxDefault.
	FetchMax int64
	// Capacity is what this peer brings into a group when MemberOptions.Capacity is 0, in
	// bytes. 0: half of what is free on the disk then.
	Capacity int64
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
	holds  *holds // nil: this peer holds no copies
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
	c.holds = newHolds(config.Store, config.FetchMax)
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
	tasks.Go(func() error { return c.tidy(ctx) })
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
