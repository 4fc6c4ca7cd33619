package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

// addrBook keeps on disk where the providers are whose records this peer
// holds. kad-dht keeps records on disk and addresses in memory, so that after
// a restart a record would lead nowhere until its provider comes by again.
//
// A value is the time it was written (8 bytes, Unix seconds, big-endian), and
// each address behind its length (2 bytes).
type addrBook struct {
	store datastore.Batching

	mu      sync.Mutex
	written map[peer.ID]time.Time // guarded by mu: peers written lately
}

const (
	// addrsMax is how many addresses of one provider are kept.
	addrsMax = 16
	// addrsRefresh is how old an entry gets before it is written again; a
	// provider comes by with each of its records.
	addrsRefresh = time.Minute
	// writtenMax bounds the memory of what was written lately.
	writtenMax = 4096
)

func newAddrBook(store datastore.Batching) *addrBook {
	return &addrBook{store: store, written: map[peer.ID]time.Time{}}
}

// put keeps the addresses that p has just announced itself with.
func (b *addrBook) put(ctx context.Context, p peer.AddrInfo, now time.Time) error {
	b.mu.Lock()
	if now.Sub(b.written[p.ID]) < addrsRefresh {
		b.mu.Unlock()
		return nil
	}
	if len(b.written) >= writtenMax {
		clear(b.written)
	}
	b.written[p.ID] = now
	b.mu.Unlock()

	value := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))
	for _, a := range p.Addrs[:min(len(p.Addrs), addrsMax)] {
		value = binary.BigEndian.AppendUint16(value, uint16(len(a.Bytes())))
		value = append(value, a.Bytes()...)
	}
	return b.store.Put(ctx, datastore.NewKey(p.ID.String()), value)
}

// load puts every entry that has not expired into a peerstore, for the rest of
// its life, and removes the others.
func (b *addrBook) load(ctx context.Context, into peerstore.AddrBook, now time.Time) error {
	results, err := b.store.Query(ctx, query.Query{})
	if err != nil {
		return fmt.Errorf("read provider addresses: %w", err)
	}
	defer results.Close()
	var errs []error
	for r := range results.Next() {
		if r.Error != nil {
			return fmt.Errorf("read provider addresses: %w", r.Error)
		}
		key := datastore.RawKey(r.Key)
		p, err1 := peer.Decode(key.BaseNamespace())
		addrs, written, err2 := decodeAddrs(r.Value)
		age := now.Sub(written)
		if errors.Join(err1, err2) != nil || age >= providerAddrAge || age < 0 {
			errs = append(errs, b.store.Delete(ctx, key))
			continue
		}
		into.AddAddrs(p, addrs, providerAddrAge-age)
	}
	return errors.Join(errs...)
}

func decodeAddrs(value []byte) (addrs []ma.Multiaddr, written time.Time, err error) {
	in := bytes.NewBuffer(value)
	if in.Len() < 8 {
		return nil, written, errors.New("address entry is cut short")
	}
	written = time.Unix(int64(binary.BigEndian.Uint64(in.Next(8))), 0)
	for in.Len() >= 2 {
		n := int(binary.BigEndian.Uint16(in.Next(2)))
		if in.Len() < n {
			return nil, written, errors.New("address entry is cut short")
		}
		a, err := ma.NewMultiaddrBytes(bytes.Clone(in.Next(n)))
		if err != nil {
			return nil, written, err
		}
		addrs = append(addrs, a)
	}
	return addrs, written, nil
}
