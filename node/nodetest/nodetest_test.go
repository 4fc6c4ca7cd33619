package nodetest

import (
	"testing"
	"testing/synctest"
	"time"

	mh "github.com/multiformats/go-multihash"
	"github.com/p2pshare/p2pshare/node"
)

func TestThirtyNodesFindEachOthersKeysOnAFakeClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := New(t, 30)
		stop := Run(t, nodes)
		defer stop()
		for i, n := range nodes[1:] {
			k, err := mh.Sum([]byte{byte(i)}, mh.SHA2_256, -1)
			if err != nil {
				t.Fatal(err)
			}
			if sent, err := n.Provide(t.Context(), k, node.ReachAll); err != nil || sent != 1 {
				t.Fatalf("node %d: Provide = %d, %v", i, sent, err)
			}
			asker := nodes[1+(i+7)%(len(nodes)-1)]
			found := false
			for p := range asker.FindProviders(t.Context(), k) {
				found = found || p.ID == n.ID()
			}
			if !found {
				t.Errorf("key %d is not found", i)
			}
		}
	})
}

// TestTheSweepReachesThoseClosestToAKey is in a network in which the keyspace has several
// regions, where kad-dht's sweep leaves out the closest to some keys.
func TestTheSweepReachesThoseClosestToAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := New(t, 60)
		stop := Run(t, nodes)
		defer stop()
		var keys []mh.Multihash
		for i := range 200 {
			k, err := mh.Sum([]byte{byte(i)}, mh.SHA2_256, -1)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k)
		}
		const provider, asker = 5, 30
		if err := nodes[provider].KeepProviding(keys...); err != nil {
			t.Fatal(err)
		}
		for waiting := int64(1); waiting > 0; { // on the fake clock
			time.Sleep(10 * time.Second)
			var err error
			if waiting, err = nodes[provider].ProvidesWaiting(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		missed, messages := 0, 0
		for _, k := range keys {
			found := false
			for p := range nodes[asker].FindProvidersWithin(t.Context(), k, 2, func() bool { messages++; return true }) {
				found = found || p.ID == nodes[provider].ID()
			}
			if !found {
				missed++
			}
		}
		t.Logf("%.1f messages a lookup", float64(messages)/float64(len(keys)))
		if missed > 0 {
			t.Errorf("the two closest to %d of %d keys have no record of them", missed, len(keys))
		}
	})
}
