package node

import (
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	ma "github.com/multiformats/go-multiaddr"
)

func TestAddrBookForgetsWhatHasExpired(t *testing.T) {
	ctx, now := t.Context(), time.Now()
	store := dssync.MutexWrap(datastore.NewMapDatastore())
	fresh := peer.AddrInfo{ID: mustPeerID(t), Addrs: loopback(1)}
	old := peer.AddrInfo{ID: mustPeerID(t), Addrs: loopback(2)}
	b := newAddrBook(store)
	if err := b.put(ctx, old, now.Add(-providerAddrAge)); err != nil {
		t.Fatal(err)
	}
	if err := b.put(ctx, fresh, now.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	broken := datastore.NewKey(mustPeerID(t).String())
	if err := store.Put(ctx, broken, []byte("short")); err != nil {
		t.Fatal(err)
	}
	into := pstoremem.NewAddrBook()
	defer into.Close()
	if err := newAddrBook(store).load(ctx, into, now); err != nil {
		t.Fatal(err)
	}
	if got := into.Addrs(fresh.ID); len(got) != 1 || !got[0].Equal(fresh.Addrs[0]) {
		t.Errorf("addresses of a fresh entry = %v, want %v", got, fresh.Addrs)
	}
	if got := into.Addrs(old.ID); len(got) != 0 {
		t.Errorf("addresses of an expired entry = %v, want none", got)
	}
	for _, k := range []datastore.Key{broken, datastore.NewKey(old.ID.String())} {
		if has, _ := store.Has(ctx, k); has {
			t.Errorf("entry %s was left in the store", k)
		}
	}
}

func TestAddrBookKeepsFewAddressesOfOnePeer(t *testing.T) {
	many := peer.AddrInfo{ID: mustPeerID(t)}
	for i := range 100 {
		many.Addrs = append(many.Addrs, loopback(i+1)...)
	}
	store := dssync.MutexWrap(datastore.NewMapDatastore())
	if err := newAddrBook(store).put(t.Context(), many, time.Now()); err != nil {
		t.Fatal(err)
	}
	v, err := store.Get(t.Context(), datastore.NewKey(many.ID.String()))
	if err != nil {
		t.Fatal(err)
	}
	if addrs, _, err := decodeAddrs(v); err != nil || len(addrs) != addrsMax {
		t.Errorf("kept %d addresses, %v, want %d", len(addrs), err, addrsMax)
	}
}

func FuzzDecodeAddrs(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x65\x00\x00\x00\x00\x08" + string(ma.StringCast("/ip4/127.0.0.1/tcp/1").Bytes())))
	f.Fuzz(func(_ *testing.T, value []byte) { decodeAddrs(value) })
}
