package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/provider/buffered"
	providerdual "github.com/libp2p/go-libp2p-kad-dht/provider/dual"
	"github.com/libp2p/go-libp2p-kad-dht/provider/keystore"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
)

// Reach says in which DHTs a key is announced.
type Reach int

const (
	// ReachAll announces in both DHTs.
	ReachAll Reach = iota
	// ReachLAN announces only among peers on private and loopback addresses.
	ReachLAN
)

// sweeper keeps provider records fresh. It groups keys by region of the
// keyspace, so that 100,000 keys cost a hundred lookups and not 100,000, and
// keeps its place in the 22-hour cycle over restarts. Source: go-libp2p-kad-dht
// provider/, "SweepingProvider".
type sweeper struct {
	queue *buffered.SweepingProvider // before both
	both  *providerdual.SweepingProvider
	keys  *keystore.ResettableKeystore
}

func newSweeper(r *routing) (*sweeper, error) {
	store := namespace.Wrap(r.store, datastore.NewKey("/provide"))
	keys, err := keystore.NewResettableKeystore(namespace.Wrap(store, datastore.NewKey("/keys")))
	if err != nil {
		return nil, fmt.Errorf("open provider keys: %w", err)
	}
	sweep, err := providerdual.New(r.dual, providerdual.WithKeystore(keys), providerdual.WithDatastore(store),
		providerdual.WithMessageSenderWAN(&placer{MessageSender: r.dual.WAN.MessageSender(), host: r.node.host, protocol: protocolWAN}),
		providerdual.WithMessageSenderLAN(&placer{MessageSender: r.dual.LAN.MessageSender(), host: r.node.host, protocol: protocolLAN}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start provider: %w", err), keys.Close())
	}
	return &sweeper{queue: buffered.New(sweep, namespace.Wrap(store, datastore.NewKey("/queue"))), both: sweep, keys: keys}, nil
}

func (s *sweeper) close() error { return errors.Join(s.queue.Close(), s.keys.Close()) }

// ErrNoDHT is returned by calls that need a DHT on a peer that is in none.
var ErrNoDHT = errors.New("this peer is in no DHT")

// ErrNoAddress is returned by Provide while this peer has no address that the
// others of a DHT could dial: behind a NAT, until it has a relay. Changed
// signals when that changes.
var ErrNoAddress = errors.New("no address yet that others can dial")

// KeepProviding announces keys in both DHTs soon, and again before their
// records expire, for as long as this home runs as RolePeer. It only queues;
// use Provide to know that a first announcement was sent.
func (n *Node) KeepProviding(keys ...mh.Multihash) error {
	if n.dht == nil || n.dht.sweep == nil || len(keys) == 0 {
		return nil
	}
	return n.dht.sweep.queue.StartProviding(false, keys...)
}

// StopProviding ends what KeepProviding began. Records that were sent expire
// by themselves within 48 hours.
func (n *Node) StopProviding(keys ...mh.Multihash) error {
	if n.dht == nil || n.dht.sweep == nil || len(keys) == 0 {
		return nil
	}
	return n.dht.sweep.queue.StopProviding(keys...)
}

// ProvidesWaiting is how many announcements of keys that KeepProviding was given wait
// for their turn, or are being sent, in the DHTs that have a peer.
func (n *Node) ProvidesWaiting(ctx context.Context) (waiting int64, err error) {
	if n.dht == nil || n.dht.sweep == nil {
		return 0, nil
	}
	for _, sweep := range []*provider.SweepingProvider{n.dht.sweep.both.LAN, n.dht.sweep.both.WAN} {
		s, err := sweep.Stats(ctx)
		if err != nil {
			return 0, fmt.Errorf("look what is announced: %w", err)
		}
		if s.Connectivity.Status == "online" {
			waiting += s.Queues.PendingKeyProvides + int64(s.Operations.Ongoing.KeyProvides)
		}
	}
	return waiting, nil
}

// ResetProviding makes keys the whole set that is kept provided: what the
// store of an earlier run held besides is forgotten. When ctx ends early the
// set is cut short; call it at every start, so that it does not last.
func (n *Node) ResetProviding(ctx context.Context, keys iter.Seq[mh.Multihash]) error {
	if n.dht == nil || n.dht.sweep == nil {
		return nil
	}
	feed := make(chan cid.Cid)
	var fed sync.WaitGroup
	fed.Go(func() {
		defer close(feed)
		for k := range keys {
			select {
			case feed <- keyCID(k):
			case <-ctx.Done():
				return
			}
		}
	})
	// Cancelling a reset while it starts leaves kad-dht 0.42.2's keystore
	// worker with an answer that nobody takes, and its Close waiting for ever.
	// So the reset itself is not cancelled: it ends with the feed.
	err := n.dht.sweep.keys.ResetCids(context.WithoutCancel(ctx), feed)
	for range feed { // after an error nobody else would empty it
	}
	fed.Wait()
	if err != nil {
		return fmt.Errorf("reset provided keys: %w", err)
	}
	return n.dht.sweep.queue.RefreshSchedule()
}

// Provide announces key now, in every DHT of reach that has a peer, and
// returns how many of them were sent the record: 0 with a nil error means that
// no DHT has a peer. A nil error is no proof that a server kept it: the
// protocol has no answer to a provider record. It returns ErrNoAddress when no
// DHT with a peer can be told where this peer is.
func (n *Node) Provide(ctx context.Context, key mh.Multihash, reach Reach) (sent int, err error) {
	if n.dht == nil {
		return 0, nil
	}
	targets := n.dht.withPeers(reach)
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, d := range targets {
		sent++
		if len(d.FilteredAddrs()) == 0 {
			errs[i] = ErrNoAddress // servers drop a record without addresses, and say nothing
			continue
		}
		wg.Go(func() { errs[i] = d.Provide(ctx, keyCID(key), true) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			sent--
		}
	}
	if sent == 0 {
		return 0, errors.Join(errs...)
	}
	return sent, nil
}

// FindProviders asks both DHTs who provides key and yields peers as they are
// found, each once, until the lookup has asked all it should, the caller
// breaks off, or ctx ends. An AddrInfo may come without addresses; Connect
// then looks for them. A peer in no DHT, or alone in them, yields nothing.
//
// Anybody can announce itself for any key: what is yielded are hints.
func (n *Node) FindProviders(ctx context.Context, key mh.Multihash) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		if n.dht == nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		found := n.dht.dual.FindProvidersAsync(ctx, keyCID(key), 0)
		defer func() {
			cancel()
			for range found { // the lookup ends when its channel closes
			}
		}()
		for p := range found {
			if p.ID != n.ID() && !yield(p) {
				return
			}
		}
	}
}

// keyCID wraps a key for kad-dht, which uses nothing but the multihash.
func keyCID(key mh.Multihash) cid.Cid { return cid.NewCidV1(cid.Raw, key) }
