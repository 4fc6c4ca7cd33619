package share

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// offerMirror asks a mirror what it has, and takes it up if that may be of use.
// It does not wait. ctx is the get's.
func (c *crowd) offerMirror(ctx context.Context, m *mirror) {
	c.mu.Lock()
	defer c.mu.Unlock()
	same := func(o *mirror) bool { return o.url == m.url && o.id == m.id }
	if c.closed || len(c.mirrors) == MirrorsMax || slices.ContainsFunc(c.mirrors, same) {
		return
	}
	if c.library != nil {
		m.down = &c.library.down
	}
	c.mirrors = append(c.mirrors, m)
	c.begin()
	c.group.Go(func() error {
		defer c.end()
		bounded, cancel := context.WithTimeout(ctx, dialMax)
		defer cancel()
		if err := m.open(bounded); err == nil {
			c.takeMirror(m)
		} else if ctx.Err() == nil {
			c.drop(m, err)
		}
		return nil
	})
}

func (c *crowd) takeMirror(m *mirror) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = append(c.live, m)
	c.meter.sources(len(c.live) - 1)
	c.changed()
}

// missMirror remembers a mirror that was dropped though it sent nothing wrong,
// and tells of any that was. The caller does not hold c.mu.
func (c *crowd) missMirror(m *mirror, err error) {
	m.close()
	var bad *CorruptError
	reason := err.Error()
	if errors.As(err, &bad) {
		reason = bad.Reason
	} else {
		c.mu.Lock()
		c.unheard++
		c.dialErr = fmt.Errorf("mirror %s: %w", Escape(m.url), err)
		c.mu.Unlock()
	}
	c.meter.noteOnce(fmt.Sprintf("mirror %s is not asked any more: %s", Escape(m.url), Escape(reason)))
}

// onlyMirrors reports whether a mirror that is still live waits for somebody
// to bring the outboard of id. The caller holds c.mu.
func (c *crowd) onlyMirrors(id content.ID) bool {
	return slices.ContainsFunc(c.live, func(s source) bool {
		m, ok := s.(*mirror)
		return ok && m.id == id && m.total > content.GroupSize
	})
}

// errOnlyMirrors tells that an outboard is missing.
var errOnlyMirrors = fmt.Errorf("a mirror has it, and nobody the tree that its bytes are verified by: a peer must be online that has the content: %w", ErrUnreachable)

// mirrorReport lists what each mirror gave, and the URLs of those that sent
// what is wrong. The caller holds c.mu.
func (c *crowd) mirrorReport() (stats []SourceStat, corrupt []string) {
	for _, m := range c.mirrors {
		if n := m.given.Load(); n > 0 {
			stats = append(stats, SourceStat{Mirror: m.url, Bytes: n, Via: ViaMirror})
		}
	}
	for _, e := range c.corrupt {
		if e.Mirror != "" {
			corrupt = append(corrupt, e.Mirror)
		}
	}
	return stats, corrupt
}

// mayNameMirrors reports whether a publisher's word is enough to connect to
// what it names: this peer's own, and that of one whom the person named.
// Others could aim every getter at a victim.
func (g *getting) mayNameMirrors(publisher peer.ID) bool {
	return g.options.AnyMirrors || publisher == g.library.node.ID() ||
		publisher != "" && (publisher == g.options.From || publisher == g.what.Publisher)
}

// hear keeps the mirrors that a manifest names.
func (g *getting) hear(m Manifest) {
	if len(m.Mirrors) == 0 {
		return
	}
	if !g.mayNameMirrors(m.Publisher) {
		g.meter.noteOnce("mirrors that a stranger names are not asked: --mirrors does, and so does --from the publisher")
		return
	}
	if g.mirrors == nil {
		g.mirrors = map[content.ID][]string{}
	}
	g.mirrors[m.ID] = append(g.mirrors[m.ID], m.Mirrors...)
}

// offerMirrors offers the mirrors of a file: those that the person gave, and
// those of the manifests that were heard or are kept here.
func (g *getting) offerMirrors(ctx context.Context, id content.ID) error {
	for _, s := range g.options.Mirrors {
		u, err := ParseMirror(s)
		if err != nil {
			return err
		}
		g.crowd.offerMirror(ctx, newMirror(u, id, true))
	}
	records, err := g.library.catalog.byID(id, metaManifestsMax)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Envelope == nil {
			continue
		}
		if m, err := OpenManifest(*r.Envelope, time.Now()); err == nil && m.ID == id {
			g.hear(m)
		}
	}
	for _, s := range g.mirrors[id] {
		if u, err := ParseMirror(s); err == nil {
			g.crowd.offerMirror(ctx, newMirror(u, id, false))
		}
	}
	return nil
}
