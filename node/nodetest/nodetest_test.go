package nodetest

import (
	"testing"
	"testing/synctest"

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
