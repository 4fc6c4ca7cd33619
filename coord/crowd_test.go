package coord

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
)

// TestCrowdThatBeginsAtOnceOpensOneStream has more at once ask through one peer than
// a member gives streams to: they have to share one.
func TestCrowdThatBeginsAtOnceOpensOneStream(t *testing.T) {
	w := newWorld(t, 2)
	g := w.found(1)[0]
	if err := w.peers[0].Client(g.ID()).Grant(t.Context(), w.peers[1].n.ID(), RoleReader); err != nil {
		t.Fatal(err)
	}
	cl := w.peers[1].Client(g.ID(), peer.AddrInfo{ID: w.peers[0].n.ID()})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tasks, ctx := errgroup.WithContext(ctx)
	begin := make(chan struct{})
	for range 32 * groupPerPeer {
		tasks.Go(func() error {
			<-begin
			_, _, err := cl.Status(ctx)
			return err
		})
	}
	close(begin)
	if err := tasks.Wait(); err != nil {
		t.Error(err)
	}
}
