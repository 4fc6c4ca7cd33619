package node

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
)

func TestLookupSendsNoMoreThanItMay(t *testing.T) {
	helper, _ := start(t, Config{Role: RoleHelper})
	boot := []peer.AddrInfo{helper.AddrInfo()}
	provider, _ := start(t, Config{Bootstrap: boot})
	asker, _ := start(t, Config{Bootstrap: boot, Role: RoleVisitor}) // keeps no records itself
	for _, n := range []*Node{provider, asker} {
		if !n.WaitDHT(t.Context()) {
			t.Fatal("a node did not enter the DHT")
		}
	}
	k := key(t, "a word")
	mustProvide(t, provider, k)
	awaitRecord(t, helper, k)

	lookup := func(max int32) (found []peer.AddrInfo, asked int32) {
		var calls atomic.Int32
		for p := range asker.FindProvidersWithin(t.Context(), k, 3, func() bool { return calls.Add(1) <= max }) {
			found = append(found, p)
		}
		return found, calls.Load()
	}
	found, asked := lookup(100)
	if len(found) != 1 || found[0].ID != provider.ID() || len(found[0].Addrs) == 0 || asked == 0 || asked > 2*3 {
		t.Errorf("found %v after %d requests, want %s after some", found, asked, provider.ID())
	}
	if found, asked := lookup(0); len(found) != 0 || asked == 0 {
		t.Errorf("a lookup that may send nothing found %v, and asked %d times whether it may", found, asked)
	}
	// Whoever breaks off is not kept waiting.
	for range asker.FindProvidersWithin(t.Context(), k, 3, func() bool { return true }) {
		break
	}
	offline, _ := start(t, Config{NoDHT: true})
	for p := range offline.FindProvidersWithin(t.Context(), k, 3, func() bool { return true }) {
		t.Errorf("a peer in no DHT found %v", p)
	}
}

func FuzzKadMessage(f *testing.F) {
	good, err := proto.Marshal(pb.NewMessage(pb.Message_GET_PROVIDERS, []byte("key"), 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(binary.AppendUvarint(nil, uint64(len(good))), good...))
	f.Add(binary.AppendUvarint(nil, 1<<40))
	f.Add(append(binary.AppendUvarint(nil, lookupAnswerMax), 1, 2, 3))
	f.Add(slices.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := readKadMessage(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		for _, p := range append(addrInfos(m.GetProviderPeers()), addrInfos(m.GetCloserPeers())...) {
			for _, a := range publicAddrs(p.Addrs) {
				if at, ok := IPOf(a); !ok || !IsPublic(at) {
					t.Fatalf("%s counts as public", a)
				}
			}
		}
	})
}
