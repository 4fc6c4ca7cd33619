package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
)

// valueAge is how long a DHT server keeps a value after it was put there last.
// What a value says of its own expiry is for its validator; this only has to be
// longer than that, so that a value is there for its lifetime when whoever put
// it is not.
const valueAge = 31 * 24 * time.Hour

// PutValue puts value under key in every DHT of reach that has a peer, and
// returns how many took it: 0 with a nil error means that no DHT has a peer. key
// is /NAMESPACE/…, of a namespace in Config.Values, whose validator must accept
// the value. Servers keep what the validator selects: when they hold a better
// value already, that stays, and is no error here unless this peer holds it too.
func (n *Node) PutValue(ctx context.Context, key string, value []byte, reach Reach) (sent int, err error) {
	if n.dht == nil {
		return 0, nil
	}
	targets := n.dht.withPeers(reach)
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, d := range targets {
		wg.Go(func() { errs[i] = d.PutValue(ctx, key, value) })
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			sent++
		}
	}
	if sent > 0 || len(targets) == 0 {
		return sent, nil
	}
	return 0, fmt.Errorf("put value: %w", errors.Join(errs...))
}

// Values asks both DHTs what is under key, and yields what their servers answer
// and the validator accepts: of each DHT only what is better than what it yielded
// before, so that the last of them is the best of it. It ends when the lookups
// have asked all they should, the caller breaks off, or ctx ends. A peer in no
// DHT, or alone in them, yields nothing.
func (n *Node) Values(ctx context.Context, key string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if n.dht == nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		found := make(chan []byte)
		var wg sync.WaitGroup
		for _, d := range n.dht.withPeers(ReachAll) {
			values, err := d.SearchValue(ctx, key, dht.Quorum(0))
			if err != nil {
				n.log.Debug("search value", "err", err)
				continue
			}
			wg.Go(func() { // ends with the lookup, which ends with ctx
				for v := range values {
					select {
					case found <- v:
					case <-ctx.Done():
					}
				}
			})
		}
		var closing sync.WaitGroup
		closing.Go(func() { wg.Wait(); close(found) })
		defer func() {
			cancel()
			for range found { // until the lookups have ended
			}
			closing.Wait()
		}()
		for v := range found {
			if !yield(v) {
				return
			}
		}
	}
}

// withPeers are the DHTs of reach whose tables are not empty.
func (r *routing) withPeers(reach Reach) []*dht.IpfsDHT {
	all := []*dht.IpfsDHT{r.dual.LAN}
	if reach == ReachAll {
		all = append(all, r.dual.WAN)
	}
	var some []*dht.IpfsDHT
	for _, d := range all {
		if d.RoutingTable().Size() > 0 {
			some = append(some, d)
		}
	}
	return some
}
