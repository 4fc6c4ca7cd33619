package coord

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// MemberOptions are what this peer brings into a group.
type MemberOptions struct {
	Capacity int64  // bytes for copies; 0 is Config.Capacity
	Zone     string // members of one zone fail together
	NoStore  bool   // holds no copies
	// Adopt has what this peer shares in place count as its copy, where the plan gives
	// it one. It takes no room then, and is gone when the file is edited.
	Adopt bool
	// Grace, of Create, is how long a member may be away before its copies are made
	// elsewhere, 1 s … 30 days; 0 is 15 minutes.
	Grace time.Duration
}

// settled returns o with its defaults filled in.
func (c *Coord) settled(o MemberOptions) MemberOptions {
	o.NoStore = o.NoStore || c.holds == nil
	if o.Capacity == 0 && !o.NoStore {
		o.Capacity = c.config.Capacity
	}
	if o.Capacity == 0 && !o.NoStore {
		o.Capacity = min(freeBytes(c.config.Dir)/2, pinset.IntMax)
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
	o = c.settled(o)
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
		Adopt:    o.Adopt,
		Founding: &founding{Capacity: o.Capacity, Zone: o.Zone, NoStore: o.NoStore, Grace: o.Grace.Milliseconds()}})
	if err != nil {
		return nil, nil, err
	}
	return g, recovery, g.await(ctx, func(s *pinset.State) bool { _, founded := s.Group(); return founded })
}

// checkName checks the local name of a group that is to be known here.
func (c *Coord) checkName(name string, id GroupID) error {
	if name == "" || name == "." || name == ".." || len(name) > pinset.NameBytesMax || strings.ContainsAny(name, "/@\\") || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%w: group name %.80q: want 1 to %d bytes of text, no . or .., without /, \\ and @", ErrInvalid, name, pinset.NameBytesMax)
	}
	if _, err := ParseGroupID(name); err == nil {
		return fmt.Errorf("%w: group name %s: that is a group's ID", ErrInvalid, name) // Find would take one for the other
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
	a, err := c.askToJoin(ctx, t, c.settled(o))
	if err != nil {
		return nil, err
	}
	if t.Epoch != uint64(len(a.Epochs))+1 {
		return nil, fmt.Errorf("join group %s: the invitation is of epoch %d, and the member's answer has %d", t.Group.Short(), t.Epoch, len(a.Epochs)+1)
	}
	f := groupFile{ID: t.Group, Name: name, Record: *a.Record, Epoch: t.Epoch, Epochs: a.Epochs, Adopt: o.Adopt}
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
