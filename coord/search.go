package coord

import (
	"context"
	"errors"
	"fmt"

	"github.com/p2pshare/p2pshare/share"
)

// Search is a share.SearchIndexFunc: it looks through what the groups have pinned that
// this peer is in or follows, as far as that is known here: names are not asked of a
// quorum. A group of which nothing is known does not keep the others from being
// searched; its error comes at the end.
func (c *Coord) Search(ctx context.Context, match func(share.Name, int64) bool, found func(share.Indexed)) error {
	var errs []error
	for _, k := range c.Known() {
		if !k.Follows && c.isOver(k.ID) {
			continue
		}
		if err := c.searchIn(ctx, k, match, found); err != nil {
			errs = append(errs, fmt.Errorf("group %s: %w", share.Escape(k.Name), err))
		}
	}
	return errors.Join(errs...)
}

func (c *Coord) searchIn(ctx context.Context, k Known, match func(share.Name, int64) bool, found func(share.Indexed)) error {
	cl := c.Client(k.ID)
	for page, err := range cl.PinPages(ctx, ReadOptions{Stale: true}) {
		if err != nil {
			return err
		}
		for _, p := range page.Pins {
			for _, text := range p.Names {
				name, err := share.ParseName(text)
				if err != nil || !match(name, p.Size) {
					continue
				}
				found(share.Indexed{Group: k.Name, Name: name, ID: p.ID, Kind: share.Kind(p.Kind.String()), Size: p.Size,
					LogIndex: p.Index, Stale: true, Age: page.Age, Holders: cl.holders(p.By)})
			}
		}
	}
	return nil
}
