package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// ErrUnproven: a peer was asked for a piece of a content, and answered that it does
// not have it, or with something else. It does not hold the content.
var ErrUnproven = errors.New("does not hold what it says")

// challengeMax bounds one Challenge: room for a slow link, and none for fetching a
// large content first.
const challengeMax = 30 * time.Second

// Challenge asks p, and nobody else, for one random chunk group of a content that it
// says to hold, and verifies it: only who has the bytes can answer. Of a directory
// it asks for one of a file in it, or of the listing. It returns nil when the group
// came and is right, ErrUnproven when p answered with anything else, and
// ErrUnreachable when p can't be asked, or does not answer in time: which says nothing
// about what it holds.
//
// What is not held here itself is asked of p, too, and verified: the outboard, and a
// piece of a directory's listing. kind is the content's; "" is a file.
func (l *Library) Challenge(ctx context.Context, id content.ID, kind Kind, p peer.AddrInfo) error {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, challengeMax)
	defer cancel()
	err := l.challenge(ctx, id, kind, p)
	if err != nil && whole.Err() != nil {
		return whole.Err()
	}
	if err != nil && !errors.Is(err, ErrUnproven) && !errors.Is(err, ErrUnreachable) {
		err = fmt.Errorf("%s: %w: %w", p.ID, ErrUnreachable, err)
	}
	return err
}

func (l *Library) challenge(ctx context.Context, id content.ID, kind Kind, p peer.AddrInfo) error {
	if err := l.node.Connect(ctx, p); err != nil {
		return err
	}
	r, err := l.openRemote(ctx, p.ID, nil)
	if err != nil {
		return err
	}
	defer r.close()
	c := &challenging{library: l, of: r}
	if kind != KindDir {
		_, err := c.group(ctx, id, -1)
		return err
	}
	return c.directory(ctx, id)
}

// challenging is one Challenge at work.
type challenging struct {
	library *Library
	of      *remote
}

// directory asks for a group of what a directory consists of: each of its contents
// counts with its groups, so that no byte is less likely to be asked for.
func (c *challenging) directory(ctx context.Context, id content.ID) error {
	parts, err := c.known(id)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		// A piece of the listing names some of the files.
		data, err := c.group(ctx, id, -1)
		if err != nil {
			return err
		}
		if parts = listedIn(data); len(parts) == 0 {
			return nil
		}
	}
	p := pickPart(parts)
	_, err = c.group(ctx, p.id, p.size)
	return err
}

// challengePartsMax is from how many files of a directory one is chosen: a run that
// begins anywhere.
const challengePartsMax = 4096

// known returns contents of a directory that is held here.
func (c *challenging) known(id content.ID) ([]part, error) {
	r, ok, err := c.library.catalog.hold(id)
	if err != nil || !ok || r.stage != holdWhole || r.adopted {
		return nil, err
	}
	var from content.ID
	for i := range from {
		from[i] = byte(rand.Uint32())
	}
	parts, err := c.library.catalog.partsAfter(id, &from, challengePartsMax)
	if err != nil || len(parts) == challengePartsMax {
		return parts, err
	}
	rest, err := c.library.catalog.partsAfter(id, nil, challengePartsMax-len(parts))
	return append(parts, rest...), err
}

// listedIn returns the files that a piece of a listing names, as far as their lines
// are whole.
func listedIn(data []byte) (parts []part) {
	for line := range bytes.Lines(data) {
		if e, err := parseEntry(line); err == nil && e.Kind == KindFile {
			parts = append(parts, part{e.ID, partRecord{size: e.Size}})
		}
	}
	return parts
}

// pickPart picks one, by its number of groups.
func pickPart(parts []part) part {
	var groups int64
	for _, p := range parts {
		groups += content.GroupCount(p.size)
	}
	at := rand.Int64N(groups)
	for _, p := range parts {
		if at -= content.GroupCount(p.size); at < 0 {
			return p
		}
	}
	return parts[0]
}

// group asks for a random group of a content, and returns it, verified. A size of -1
// is not known.
func (c *challenging) group(ctx context.Context, id content.ID, size int64) ([]byte, error) {
	f := &fetch{id: id, size: size}
	o, err := c.outboard(ctx, f)
	if err != nil {
		return nil, c.judge(err)
	}
	index := rand.Int64N(content.GroupCount(f.size))
	var got []byte
	err = c.of.span(ctx, id, f.size, content.Span{First: index, Count: 1}, func(index int64, data []byte) error {
		got = bytes.Clone(data)
		return f.verify(o, c.of, index, data)
	})
	return got, c.judge(err)
}

// outboard returns what a content is verified by, and sets the size: from here, or
// from the peer. A size that is a lie finds no outboard, or no last group.
func (c *challenging) outboard(ctx context.Context, f *fetch) (*content.Outboard, error) {
	if s, ok, err := c.library.catalog.stored(f.id); err != nil {
		return nil, err
	} else if ok {
		f.size = s.size
		if content.GroupCount(s.size) == 1 {
			return nil, nil
		}
		o, err := c.library.catalog.outboard(f.id, s.size)
		if err != nil || o != nil && o.Verify(f.id) == nil {
			return o, err
		}
	}
	if f.size < 0 {
		size, err := c.of.size(ctx, f.id)
		if err != nil {
			return nil, err
		}
		f.size = size
	}
	if f.size > fetchSizeMax {
		return nil, f.corrupt(c.of, "it is said to be impossibly large")
	}
	if content.GroupCount(f.size) == 1 {
		return nil, nil
	}
	return f.fetchOutboard(ctx, c.of, f.size)
}

// judge says which errors are an answer.
func (c *challenging) judge(err error) error {
	if err == nil || errors.Is(err, errBusy) {
		return err
	}
	if errors.Is(err, errNotHeld) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrRefused) || errors.Is(err, errAnswered) {
		return fmt.Errorf("%s: %w: %w", c.of.id, ErrUnproven, err)
	}
	return err
}
