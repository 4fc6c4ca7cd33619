package coord

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// freshMax bounds a linearizable read before the last known state is taken
// instead: an election takes a second.
const freshMax = 2 * time.Second

// Resolve is a share.IndexFunc: it looks a name up in the group with a local
// name, or in all of them for "". A group that has no quorum is answered for by
// its last known state.
func (c *Coord) Resolve(ctx context.Context, group string, name share.Name) ([]share.Indexed, error) {
	groups := c.Known()
	if group != "" {
		k, err := c.FindKnown(group)
		if err != nil {
			return nil, fmt.Errorf("this node follows no group called %q: %w", share.Escape(group), share.ErrNotFound)
		}
		groups = []Known{k}
	}
	var found []share.Indexed
	for _, k := range groups {
		if !k.Follows && c.isOver(k.ID) && group == "" {
			continue
		}
		e, err := c.resolveIn(ctx, k, name)
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case err != nil:
			return nil, fmt.Errorf("group %s: %w", share.Escape(k.Name), err)
		}
		found = append(found, e)
	}
	if len(found) == 0 && group != "" {
		return nil, fmt.Errorf("the group has no such name: %w", share.ErrNotFound)
	}
	return found, nil
}

func (c *Coord) resolveIn(ctx context.Context, k Known, name share.Name) (share.Indexed, error) {
	cl := c.Client(k.ID)
	fresh, cancel := context.WithTimeout(ctx, freshMax)
	defer cancel()
	b, f, err := cl.Resolve(fresh, string(name), ReadOptions{})
	if Unavailable(err) && ctx.Err() == nil {
		if b2, f2, err2 := cl.Resolve(ctx, string(name), ReadOptions{Stale: true}); err2 == nil || errors.Is(err2, ErrNotFound) {
			b, f, err = b2, f2, err2
		}
	}
	if err != nil {
		return share.Indexed{}, err
	}
	n, err := share.ParseName(b.Name)
	if err != nil {
		return share.Indexed{}, err
	}
	return share.Indexed{Group: k.Name, Name: n, ID: b.ID, Kind: share.Kind(b.Kind.String()), Size: b.Size,
		LogIndex: b.Index, Stale: f.Stale, Age: f.Age, Holders: cl.holders(b.By)}, nil
}

// Unavailable reports whether an error means that the group could not decide
// just now, or not be asked, and not that it said no: what is known here may do
// instead.
func Unavailable(err error) bool {
	return errors.Is(err, ErrNoQuorum) || errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnreachable) ||
		errors.Is(err, context.DeadlineExceeded)
}

// StatusOf asks one member how it sees the group.
func (cl *Client) StatusOf(ctx context.Context, p peer.ID) (Status, error) {
	to := cl.where(p)
	_, o := cl.targets()
	a, err := cl.one(ctx, to, o, request{Op: opStatus})
	if err == nil {
		err = a.err()
	}
	if err == nil && a.Status == nil {
		err = errors.New("the member's answer has no status")
	}
	if err != nil {
		return Status{}, err
	}
	return *a.Status, nil
}

// Planned returns on which members a content's copies are to be, as the state
// that this peer has would have it.
func (c *Coord) Planned(group GroupID, id content.ID) (holders []Peer, err error) {
	g, err := c.group(group)
	if err != nil {
		return nil, err
	}
	m, err := g.running()
	if err != nil {
		return nil, err
	}
	placement, _ := m.planner.plan(m.fsm).Place(id)
	return placement.Holders, nil
}
