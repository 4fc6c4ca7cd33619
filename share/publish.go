package share

import (
	"errors"
	"fmt"
	"time"

	"github.com/p2pshare/p2pshare/node"
)

// publish signs a manifest for r and makes it live, with the rest of its files; see
// catalog.finish.
func (l *Library) publish(r shareRecord, rest ...hashedFile) error {
	old, err := l.signAndRecord(&r, func() (shareKey, error) { return l.catalog.makeLive(&r, rest...) })
	if err != nil || old == 0 {
		return err
	}
	return l.catalog.remove(old)
}

// signAndRecord gives r a fresh manifest of this peer's own, and calls record.
func (l *Library) signAndRecord(r *shareRecord, record func() (shareKey, error)) (shareKey, error) {
	l.signing.Lock()
	defer l.signing.Unlock()
	w, withdrawn, err := l.catalog.withdrawal(r.Name)
	if err != nil {
		return 0, err
	}
	if err := l.signShare(r, w.Seq); err != nil {
		return 0, err
	}
	key, err := record()
	if err == nil && withdrawn && l.recordOf(*r) != nil && (r.reach() == node.ReachAll || w.LANOnly) {
		err = l.catalog.endWithdrawal(r.Name) // r's own record takes its place
	}
	return key, err
}

// signShare gives r a fresh manifest of this peer's own, with a seq above that by which
// the name was withdrawn, 0 for none. l.signing is held.
func (l *Library) signShare(r *shareRecord, withdrawn int64) error {
	previous := max(r.Seq, withdrawn)
	same, err := l.catalog.byName(nameDigest(r.Name), metaManifestsMax)
	if err != nil {
		return err
	}
	for _, s := range same {
		if s.Own {
			previous = max(previous, s.Seq)
		}
	}
	m := newManifest(r.Share, l.node.ID(), previous, time.Now())
	e, err := m.sign(l.node.Key())
	if err != nil {
		return fmt.Errorf("sign manifest of %q: %w", r.Name, err)
	}
	r.Envelope, r.Own, r.Seq, r.Expires = &e, true, m.Seq, m.Expires
	return nil
}

// replace makes a share live with publish, and ends what old, which it takes
// the place of, was announced by. An old without a key is none.
func (l *Library) replace(old shareRecord, publish func() error) error {
	var outdated keys
	if old.key != 0 {
		var err error
		if outdated, err = l.keysOf(old); err != nil {
			return err
		}
	}
	if err := publish(); err != nil {
		return err
	}
	l.touch()
	if old.key == 0 {
		return nil
	}
	// The new one is shared by now, whatever comes of the rest.
	if err := errors.Join(l.withdraw(outdated), l.dropListing(old.Share)); err != nil {
		l.log.Warn("withdraw what was replaced", "path", old.Path, "err", err)
	}
	return nil
}
