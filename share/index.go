package share

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// Indexed is what a name means in the index of a group.
type Indexed struct {
	Group    string // its local name
	Name     Name   // as it is spelled there
	ID       content.ID
	Kind     Kind
	Size     int64
	LogIndex uint64        // of the change that made it so
	Stale    bool          // it is the last that is known: the group can't be asked just now
	Age      time.Duration // of a stale answer; negative when not known
	Holders  []peer.AddrInfo
}

// IndexFunc looks a name up in the index of a group, by its local name, or in
// those of all groups for "". What no group knows gives nothing and no error, but
// ErrNotFound when one group was meant. Any other error is that of a group that
// should know, can't be asked, and has left no answer.
type IndexFunc func(ctx context.Context, group string, name Name) ([]Indexed, error)

// SetIndex has names looked up in groups before strangers are asked. any tells
// whether there are groups to ask. Call it before Run.
func (l *Library) SetIndex(fn IndexFunc, any func() bool) { l.index, l.indexed = fn, any }

// indexMax bounds asking the groups for one name: an election takes a second.
const indexMax = 4 * time.Second

// findIndexed asks the groups that this peer is in.
func (l *Library) findIndexed(ctx context.Context, w What, m *meter) ([]Candidate, error) {
	if l.index == nil || !l.indexed() {
		if w.Group != "" {
			return nil, fmt.Errorf("this node follows no group called %q: %w", Escape(w.Group), ErrNotFound)
		}
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, indexMax)
	defer cancel()
	m.phase(PhaseGroup)
	entries, err := l.index(ctx, w.Group, w.Name)
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("%q: %w", Escape(w.String()), err)
		}
		return nil, err
	}
	var found []Candidate
	for _, e := range entries {
		if w.Prefix != "" && e.ID.Hex()[:min(len(w.Prefix), 64)] != w.Prefix {
			continue
		}
		c := Candidate{ID: e.ID, Name: e.Name, Kind: e.Kind, Size: e.Size, Tier: tierGroups, Group: e.Group,
			Publishers: []peer.ID{}, Reachable: true, holders: e.Holders, indexed: &e}
		if len(found) == 0 || found[len(found)-1].ID != e.ID {
			found = append(found, c)
		}
	}
	return found, nil
}

// said tells which group stands for a name.
func (e *Indexed) said() string {
	s := fmt.Sprintf("named by group %s, at log index %d", Escape(e.Group), e.LogIndex)
	switch {
	case e.Stale && e.Age >= 0:
		s += fmt.Sprintf("; the group can't be asked just now, and this was so %s ago", e.Age.Round(time.Second))
	case e.Stale:
		s += "; the group can't be asked just now, and this is the last that is known"
	}
	return s
}
