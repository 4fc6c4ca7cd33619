package share

import (
	"errors"
	"path/filepath"
	"time"

	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// serves says whether what is got is shared on from here.
func (g *getting) serves() bool {
	return !g.holding && g.library.node.Role() == node.RolePeer && !g.options.NoServe && g.options.Path == "" && len(g.options.Include) == 0
}

// shares says whether others may have what is got while it comes. A visitor
// serves that much, so that a crowd of visitors feeds itself.
func (g *getting) shares() bool { return !g.options.NoServe }

// servingMax is how many complete files of a directory are kept open until
// the catalog has them: the others are served again then.
const servingMax = 64

// keepServing takes over a transfer that is complete, until stopServing: what
// it has brought is in no catalog yet.
func (g *getting) keepServing(t *transfer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.serving) == servingMax || content.GroupCount(t.size) < attendsMin {
		return false
	}
	g.serving = append(g.serving, t)
	return true
}

func (g *getting) stopServing() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.serving {
		g.library.exit(t)
	}
	g.serving = nil
}

// keep enters what was got into the library, with the publisher's manifest,
// and has it announced. key is where files of it were put before, or 0. What
// is shared from that path already, with that content, stays as it is. On a full
// disk nothing is entered, which is no error of the get.
func (g *getting) keep(c Candidate, s Share, key shareKey, rest []hashedFile) error {
	k, err := g.enter(c, s, key, rest)
	if errors.Is(noSpace(err), ErrNoSpace) { // the file is there, and its disk may be another one
		g.note("the disk of the home is full: what was got is not shared on from here")
		return nil
	}
	if err != nil || k == 0 {
		return err
	}
	r, ok, err := g.library.catalog.byPath(s.Path)
	if err != nil || !ok {
		return err
	}
	keys, err := g.library.keysOf(r)
	if err != nil {
		return err
	}
	g.library.keepProviding(keys)
	g.library.announceLater(k)
	return nil
}

// enter returns the key under which the share is live now, or 0 when there was
// nothing to enter.
func (g *getting) enter(c Candidate, s Share, key shareKey, rest []hashedFile) (_ shareKey, err error) {
	catalog := g.library.catalog
	defer func() {
		if err != nil && key != 0 {
			err = errors.Join(err, catalog.remove(key))
		}
	}()
	s.Added = time.Now().UTC().Truncate(time.Second)
	r := shareRecord{Share: s}
	if c.envelope.Sender != "" {
		if m, err := OpenManifest(c.envelope, time.Now()); err == nil {
			r.Envelope, r.Name, r.Seq, r.Expires = &c.envelope, m.Name, m.Seq, m.Expires
		}
	}
	if r.Name == "" {
		r.Name, _ = ParseName(filepath.Base(s.Path))
	}
	old, ok, err := catalog.byPath(s.Path)
	if err != nil {
		return 0, err
	}
	if ok && old.ID == s.ID || r.Name == "" { // shared already, or under no name that can be published
		if key != 0 {
			return 0, catalog.remove(key)
		}
		return 0, nil
	}
	r.key = key
	err = g.library.replace(old, func() error { return catalog.finish(&r, rest...) })
	return r.key, err
}
