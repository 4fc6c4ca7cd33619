package share

import (
	"context"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

const (
	// sharedMax is how many shares one SharesOf collects: 16 pages.
	sharedMax = 1000
	// browseMax bounds all pages of one SharesOf together; askMax bounds each.
	browseMax = 4 * askMax
	// barrenMax is how many pages may tell nothing new. A peer that has lost a disk
	// with many shares sends some; 64 of ours pass over 32,768 shares.
	barrenMax = 64
)

// Shared is what a peer tells that it shares, as far as it was asked.
type Shared struct {
	First []Listed `json:"first"` // newest first, each name with an ID once
	Total int      `json:"total"` // as the peer counts, and at least len(First); 10,000 stands for at least so many
	More  bool     `json:"more"`  // it tells of more than First
}

// Listed is a share of another peer, as a signed manifest describes it.
type Listed struct {
	Name      Name       `json:"name"` // hostile: escape it before showing
	ID        content.ID `json:"id"`
	Kind      Kind       `json:"kind"`
	Size      int64      `json:"size"`           // bytes; of a directory: of all its files
	Publisher peer.ID    `json:"publisher"`      // who signed that: often, but not always, the peer itself
	Note      string     `json:"note,omitempty"` // what that says of it: hostile, at most 1 KiB
}

// SharesOf asks p which of its shares this peer may see, and returns the newest
// limit of them, 1 … 1,000. There are up to 64 in the answer to one question,
// which takes at most 4 s; all questions together take at most 16 s.
//
// It returns ErrUnreachable when p can't be dialled, and a *CorruptError, and
// nothing of the answer, when p tells what must not be believed. With any other
// error come the shares that were told before.
func (l *Library) SharesOf(ctx context.Context, p peer.AddrInfo, limit int) (Shared, error) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, browseMax)
	defer cancel()
	b := newBrowsing(limit)
	for !b.done {
		err := l.askPage(ctx, p, b)
		var bad *CorruptError
		switch {
		case err == nil:
		case errors.As(err, &bad):
			return Shared{}, bad
		case whole.Err() != nil:
			return b.shared, whole.Err()
		default:
			return b.shared, fmt.Errorf("ask %s what it shares: %w", p.ID, err)
		}
	}
	return b.shared, nil
}

// askPage asks p for the page that b wants next.
func (l *Library) askPage(ctx context.Context, p peer.AddrInfo, b *browsing) error {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	if err := l.node.Connect(ctx, p); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	var page []Listed
	end, err := l.askMeta(ctx, p, metaRequest{Op: opList, After: b.cursor}, func(m Manifest, _ node.Envelope, _ node.Via) error {
		page = append(page, Listed{m.Name, m.ID, m.Kind, m.Size, m.Publisher, m.Note})
		return nil
	})
	if err != nil {
		return err
	}
	if fault := b.take(page, end); fault != "" {
		return &CorruptError{Peer: p.ID, Reason: fault}
	}
	return nil
}

// browsing is what one SharesOf has been told. It decides what to ask next.
type browsing struct {
	limit   int
	shared  Shared
	cursor  string // of the page to ask for; empty: the first
	done    bool
	barren  int // pages that told nothing new
	seen    map[named]bool
	cursors map[string]bool // asked for already
}

// named is what makes two shares one to a person.
type named struct {
	name Name
	id   content.ID
}

func newBrowsing(limit int) *browsing {
	return &browsing{limit: min(max(limit, 1), sharedMax), seen: map[named]bool{}, cursors: map[string]bool{}}
}

// take takes in one page and its last line. It names what is wrong with them, or
// returns "".
func (b *browsing) take(page []Listed, end metaAnswer) string {
	if fault := end.listFault(len(page)); fault != "" {
		return fault
	}
	known := len(b.seen)
	for _, s := range page {
		k := named{s.Name, s.ID}
		if b.seen[k] {
			continue
		}
		b.seen[k] = true
		if len(b.shared.First) < b.limit {
			b.shared.First = append(b.shared.First, s)
		}
	}
	if len(b.seen) == known {
		b.barren++
	}
	b.shared.Total = max(end.Total, len(b.shared.First))
	b.shared.More = end.Next != "" || len(b.seen) > b.limit
	b.done = end.Next == "" || len(b.seen) >= b.limit
	b.cursor = end.Next
	switch {
	case b.done:
	case b.cursors[b.cursor]:
		return "its list goes round in circles"
	case b.barren == barrenMax:
		return "its list does not end"
	}
	b.cursors[b.cursor] = true
	return ""
}

// listFault names what is wrong with a as the last line of a list of n
// manifests, or returns "".
func (a metaAnswer) listFault(n int) string {
	switch {
	case a.Total < n || a.Total > listTotalMax:
		return fmt.Sprintf("its list of %d shares has the impossible total %d", n, a.Total)
	case len(a.Next) > cursorMax:
		return fmt.Sprintf("its list has a cursor of %d bytes", len(a.Next))
	}
	return ""
}

// touch tells the neighbors that what is offered here has changed.
func (l *Library) touch() {
	l.revision.Add(1)
	l.node.LANChanged()
}

// Revision rises with every change of what is shared from here. It begins again with
// each Library.
func (l *Library) Revision() int64 { return l.revision.Load() }
