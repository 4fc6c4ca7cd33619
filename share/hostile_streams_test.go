package share

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/p2pshare/p2pshare/node"
)

// A peer opens streams as fast as it can, asks for 16 MiB on each, reads
// nothing, and keeps 200 of them.
func TestServerIsBoundedByTheStreamsOfOnePeer(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 streams are opened")
	}
	b := startBesieged(t)
	b.mustServe(t) // what a getter leaves behind is no growth
	before := heapInUse()
	junk := dataRequest{kind: frameSpan, id: b.id, count: spanCountMax}.append(nil, 1)
	var kept []network.Stream
	defer func() {
		for _, s := range kept {
			s.Reset()
		}
	}()
	for range 10_000 {
		s, err := b.raw.Open(t.Context(), b.ID(), dataProtocol, node.OpenOptions{})
		if err != nil {
			continue // refused already
		}
		kept = append(kept, s)
		s.SetWriteDeadline(time.Now().Add(20 * time.Second))
		s.Write(junk)
		if len(kept) > 200 { // more than are served: those are reset by now
			kept[0].Reset()
			kept = kept[1:]
		}
	}
	if grown := heapInUse() - before; grown > 64<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	b.mustServe(t)
	b.mustEndClean(t)
}
