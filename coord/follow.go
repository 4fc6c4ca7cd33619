package coord

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"golang.org/x/sync/errgroup"
)

const (
	followEvery    = time.Minute      // a look at where a followed group's members are, and at its pins
	followWait     = 30 * time.Second // for one look, a long list of pins included
	followMax      = 64               // groups
	followMembers  = 16               // of a group, whom to ask
	followStaleMax = 1500 * time.Millisecond
)

// ErrUnreachable says that no member of the group answers: nothing is known of
// whether the group works. What a follower has kept can be read with
// ReadOptions.Stale.
var ErrUnreachable = errors.New("no member of the group can be reached")

// Known is a group that this peer is in, or follows.
type Known struct {
	ID      GroupID
	Name    string // the local one: @name
	Follows bool   // it is no member
}

// Known returns the groups that this peer is in or follows, by local name.
func (c *Coord) Known() []Known {
	var list []Known
	for _, g := range c.Groups() {
		list = append(list, Known{ID: g.ID(), Name: g.Name()})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, f := range c.followed {
		if i := slices.IndexFunc(list, func(k Known) bool { return k.ID == id }); i >= 0 {
			if !c.groups[id].over() {
				continue // a member again: it needs no following
			}
			list = slices.Delete(list, i, i+1)
		}
		list = append(list, Known{ID: id, Name: f.file.Name, Follows: true})
	}
	slices.SortFunc(list, func(a, b Known) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// FindKnown returns the group of a local name or an ID. ErrNoGroup.
func (c *Coord) FindKnown(what string) (Known, error) {
	for _, k := range c.Known() {
		if k.Name == what || k.ID.String() == what {
			return k, nil
		}
	}
	return Known{}, fmt.Errorf("%w: %.80q", ErrNoGroup, what)
}

// over says whether the member was removed for good.
func (g *Group) over() bool { return g.known().parked() != nil }

// follower is a group that this peer reads without being a member. It keeps the
// last answers, and has them when no member answers. Its methods may be called
// concurrently.
type follower struct {
	c   *Coord
	id  GroupID
	dir string

	writing sync.Mutex // held while the disk works

	mu    sync.Mutex
	file  followFile // guarded by mu, but for ID and Name, which do not change
	names keptNames  // guarded by mu; Names is copied when it changes
	pins  keptPins   // guarded by mu; Pins does not change
	saved time.Time  // guarded by mu: when names was written
}

// Follow reads a group by its link, known here as name; "" takes the group's own
// name. A member must answer, and let this peer read. ErrExists, a *RefusedError of
// a group that does not, ErrUnreachable.
func (c *Coord) Follow(ctx context.Context, l Link, name string) (Known, error) {
	c.making.Lock()
	defer c.making.Unlock()
	if name == "" {
		name = l.Name
	}
	if err := c.checkName(name, l.Group); err != nil {
		return Known{}, err
	}
	if k, err := c.FindKnown(l.Group.String()); err == nil && (k.Follows || !c.isOver(k.ID)) {
		return Known{}, fmt.Errorf("this peer is in the group or follows it, as %q: %w", k.Name, ErrExists)
	}
	if len(c.followers()) >= followMax {
		return Known{}, fmt.Errorf("this peer follows %d groups, which is the most: %w", followMax, ErrInvalid)
	}
	f := &follower{c: c, id: l.Group, dir: filepath.Join(c.config.Dir, followedDir, l.Group.String()),
		file: followFile{ID: l.Group, Name: name, Epoch: l.Epoch}}
	for _, m := range l.Members {
		f.file.Members = append(f.file.Members, knownMember{pinset.Peer(m.ID.String()), addrTexts(m)})
	}
	cl := c.Client(l.Group)
	cl.follows = f
	st, _, err := cl.Status(ctx)
	if err == nil && st.Group != l.Group {
		err = errors.New("the member's answer is of another group")
	}
	if err != nil {
		return Known{}, fmt.Errorf("follow group %s: %w", l.Group.Short(), err)
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return Known{}, err
	}
	if err := errors.Join(writeSealed(f.dir, followFileName, f.file), syncDir(filepath.Dir(f.dir))); err != nil {
		return Known{}, err
	}
	f.mu.Lock()
	f.saved = time.Time{} // nothing was written while it was not followed
	f.mu.Unlock()
	c.mu.Lock()
	c.followed[l.Group] = f
	c.mu.Unlock()
	select {
	case c.added <- struct{}{}: // have Run take a first look
	default:
	}
	return Known{ID: l.Group, Name: name, Follows: true}, nil
}

func (c *Coord) isOver(id GroupID) bool {
	g, err := c.group(id)
	return err == nil && g.over()
}

// Unfollow forgets a group that is followed, and what was kept of it. ErrNoGroup.
func (c *Coord) Unfollow(what string) (Known, error) {
	c.making.Lock()
	defer c.making.Unlock()
	k, err := c.FindKnown(what)
	if err != nil {
		return k, err
	}
	if !k.Follows {
		return k, fmt.Errorf("this peer is a member of %q: %w", k.Name, ErrInvalid)
	}
	return k, c.stopFollowing(k.ID)
}

func (c *Coord) stopFollowing(id GroupID) error {
	c.mu.Lock()
	f := c.followed[id]
	delete(c.followed, id)
	c.mu.Unlock()
	if f == nil {
		return nil
	}
	f.writing.Lock() // nothing is written after the directory is gone: see save
	defer f.writing.Unlock()
	// Without follow.json the rest is nothing, should the removal be cut short.
	return errors.Join(os.Remove(filepath.Join(f.dir, followFileName)), os.RemoveAll(f.dir))
}

// readFollowed opens what is followed.
func (c *Coord) readFollowed() error {
	base := filepath.Join(c.config.Dir, followedDir)
	entries, err := os.ReadDir(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		id, err := ParseGroupID(e.Name())
		if err != nil {
			continue
		}
		f := &follower{c: c, id: id, dir: filepath.Join(base, e.Name())}
		err = readSealed(f.dir, followFileName, &f.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f.file.check(f.dir)
		}
		if err != nil {
			return fmt.Errorf("%w: remove it, and follow the group again", err)
		}
		for name, v := range map[string]any{namesFileName: &f.names, pinsFileName: &f.pins} {
			if err := readKept(f.dir, name, v); err != nil {
				c.log.Warn("what was kept of a followed group is lost", "group", f.file.Name, "err", err)
			}
		}
		c.followed[id] = f
	}
	return nil
}

// follower returns how a group is followed, nil for one that this peer is in.
func (c *Coord) follower(id GroupID) *follower {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g := c.groups[id]; g != nil && !g.over() {
		return nil
	}
	return c.followed[id]
}

func (c *Coord) followers() (list []*follower) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.followed {
		list = append(list, f)
	}
	return list
}

// follow looks at the followed groups until ctx ends, so that what is kept of them
// is not old, and their members are found when they move.
func (c *Coord) follow(ctx context.Context, again <-chan struct{}) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		var tasks errgroup.Group
		tasks.SetLimit(4)
		for _, f := range c.followers() {
			tasks.Go(func() error {
				if err := f.look(ctx); err != nil && ctx.Err() == nil {
					c.log.Info("a followed group can't be asked", "group", f.file.Name, "err", err)
				}
				return nil
			})
		}
		tasks.Wait()
		select {
		case <-tick.C:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// look asks who is in the group, and for its pins if there was a change.
func (f *follower) look(ctx context.Context) error {
	if f.c.follower(f.id) != f {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, followWait)
	defer cancel()
	cl := f.c.Client(f.id)
	if _, _, err := cl.Status(ctx); err != nil {
		return err
	}
	_, fresh, err := cl.Members(ctx, ReadOptions{})
	if err != nil {
		return err
	}
	f.mu.Lock()
	current := f.pins.At > 0 && f.pins.Index == fresh.Index
	f.mu.Unlock()
	if current {
		return f.keepPins(nil, fresh.Index)
	}
	for _, err := range cl.Pins(ctx, ReadOptions{}) {
		if err != nil {
			return err
		}
	}
	return nil
}

// targets are whom to ask, and the epoch.
func (f *follower) targets() (list []peer.AddrInfo, o opening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.file.Members {
		if info, err := k.info(); err == nil && info.ID != f.c.node.ID() {
			list = append(list, info)
		}
	}
	return list, opening{Group: f.id, Epoch: f.file.Epoch}
}

// keepWhere takes over who is in the group and the epoch, as members said.
func (f *follower) keepWhere(members []Member, epoch uint64) error {
	members = slices.Clone(members)
	slices.SortStableFunc(members, func(a, b Member) int { return int(b.Vote) - int(a.Vote) })
	f.mu.Lock()
	was := f.file
	f.file.Epoch = max(f.file.Epoch, epoch)
	if len(members) > 0 {
		f.file.Members = nil
		for _, m := range members[:min(len(members), followMembers)] {
			f.file.Members = append(f.file.Members, knownMember{m.Peer, m.Addrs})
		}
	}
	file := f.file
	f.mu.Unlock()
	if file.Epoch == was.Epoch && slices.EqualFunc(file.Members, was.Members, knownMember.equal) {
		return nil
	}
	return f.save(followFileName, file)
}

func (k knownMember) equal(o knownMember) bool {
	return k.Peer == o.Peer && slices.Equal(k.Addrs, o.Addrs)
}

// save writes a file, unless the group is not followed any more. What can't be
// written is kept in memory all the same.
func (f *follower) save(name string, v any) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.c.follower(f.id) != f {
		return nil
	}
	return writeSealed(f.dir, name, v)
}

// addrTexts are the addresses of a peer as text.
func addrTexts(info peer.AddrInfo) (list []string) {
	for _, a := range info.Addrs {
		list = append(list, a.String())
	}
	return list
}

// holders are who may have what the group has pinned, of those that are known.
func (cl *Client) holders(by Peer) (list []peer.AddrInfo) {
	if g, err := cl.c.group(cl.group); err == nil && cl.follower() == nil {
		if id, err := peer.Decode(string(by)); err == nil {
			list = append(list, g.where(id))
		}
		return append(list, g.members()...)
	}
	all, _ := cl.targets()
	if id, err := peer.Decode(string(by)); err == nil && !slices.ContainsFunc(all, func(p peer.AddrInfo) bool { return p.ID == id }) {
		list = append(list, peer.AddrInfo{ID: id})
	}
	return append(list, all...)
}

// where is what is known of a member's addresses.
func (cl *Client) where(p peer.ID) peer.AddrInfo {
	if f := cl.follower(); f != nil {
		return f.where(p)
	}
	if g, err := cl.c.group(cl.group); err == nil {
		return g.where(p)
	}
	return peer.AddrInfo{ID: p}
}

func (f *follower) where(p peer.ID) peer.AddrInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.names.Members {
		if m.Peer == Peer(p.String()) {
			if info, err := (knownMember{m.Peer, m.Addrs}).info(); err == nil {
				return info
			}
		}
	}
	return peer.AddrInfo{ID: p}
}
