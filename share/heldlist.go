package share

import (
	"context"
	"errors"
	"iter"

	"github.com/multiformats/go-multihash"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// Held tells whether a content is held, whole, and how.
func (l *Library) Held(id content.ID) (Held, bool, error) {
	r, ok, err := l.catalog.hold(id)
	if err != nil || !ok || r.stage != holdWhole || r.adopted && !l.store.stands(id, r) {
		return Held{}, false, err
	}
	h, err := l.store.describe(id, r)
	return h, err == nil, err
}

// Holding yields what is held, whole, in the order of the IDs.
func (l *Library) Holding(ctx context.Context) iter.Seq2[Held, error] {
	return l.holds(ctx, func(at holdAt) bool {
		return at.stage == holdWhole && (!at.adopted || l.store.stands(at.id, at.holdRecord))
	})
}

// Damaged returns what of the held contents is Damaged, to be scrubbed: it costs little
// while nothing is.
func (l *Library) Damaged(ctx context.Context) (ids []content.ID, err error) {
	if damage, err := l.catalog.damage(); err != nil || len(damage) == 0 {
		return nil, err
	}
	for h, err := range l.Holding(ctx) {
		if err != nil {
			return nil, err
		}
		if h.Damaged {
			ids = append(ids, h.ID)
		}
	}
	return ids, nil
}

// Unfinished yields what Hold has begun and not brought to its end, with what of it
// is in the store: to be held or released. Those under way are among them.
func (l *Library) Unfinished(ctx context.Context) iter.Seq2[Held, error] {
	return l.holds(ctx, func(at holdAt) bool { return at.stage == holdFetching })
}

func (l *Library) holds(ctx context.Context, which func(holdAt) bool) iter.Seq2[Held, error] {
	return func(yield func(Held, error) bool) {
		damage, err := l.catalog.damage()
		var after *content.ID
		for more := true; err == nil && more; {
			var page []holdAt
			if page, err = l.catalog.holdsAfter(after); err != nil {
				break
			}
			more = len(page) == pageMax
			for _, at := range page {
				after = &at.id
				if !which(at) {
					continue
				}
				h := at.held(at.id)
				if h.Damaged, err = l.catalog.isDamaged(at.id, at.kind, damage); err != nil {
					break
				}
				if !yield(h, nil) {
					return
				}
			}
			err = errors.Join(err, ctx.Err())
		}
		if err != nil {
			yield(Held{}, err)
		}
	}
}

// describe is a hold with what is known of damage.
func (s *store) describe(id content.ID, r holdRecord) (Held, error) {
	h := r.held(id)
	damage, err := s.catalog.damage()
	if err == nil {
		h.Damaged, err = s.catalog.isDamaged(id, r.kind, damage)
	}
	return h, err
}

// announceHeld has the ID of what is held announced, and of a directory those of its
// files, but no names: who knows the ID finds this peer.
func (l *Library) announceHeld(id content.ID) {
	k, err := l.heldKeys(id)
	if err == nil {
		err = l.node.KeepProviding(k.first...)
	}
	if err == nil {
		err = l.node.KeepProviding(k.files...)
	}
	if err != nil {
		l.log.Warn("keep announcing what is held", "id", id, "err", err)
	}
}

// heldKeys are the DHT keys under which a held content is found.
func (l *Library) heldKeys(id content.ID) (keys, error) {
	k := keys{reach: node.ReachAll}
	k.first = append(k.first, id.Multihash())
	largest := newLargest(fileKeysMax)
	for p, err := range l.catalog.parts(id) {
		if err != nil {
			return k, err
		}
		if p.id != id && p.there {
			largest.offer(p.id, p.size)
		}
	}
	for _, id := range largest.ids() {
		k.files = append(k.files, id.Multihash())
	}
	return k, nil
}

// heldSweptKeys is the part of sweptKeys that is about what is held.
func (l *Library) heldSweptKeys(failed *error, yield func(multihash.Multihash) bool) {
	for h, err := range l.Holding(context.Background()) {
		var k keys
		if err == nil && !h.Adopted {
			k, err = l.heldKeys(h.ID)
		}
		if err != nil {
			*failed = err
			return
		}
		for _, key := range append(k.first, k.files...) {
			if !yield(key) {
				return
			}
		}
	}
}
