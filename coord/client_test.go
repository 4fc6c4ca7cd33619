package coord

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

// TestMemberThatHangsCostsItsClientsASecond has a client ask first a member that
// takes streams and says nothing, as a stopped process does.
func TestMemberThatHangsCostsItsClientsASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		g := w.found(1)[0]
		if err := w.peers[0].Client(g.ID()).Grant(t.Context(), w.peers[2].n.ID(), RoleReader); err != nil {
			t.Fatal(err)
		}
		hung := w.peers[1].n
		hung.Handle(groupProtocol, node.HandlerConfig{}, func(ctx context.Context, _ network.Stream) error {
			<-ctx.Done()
			return nil
		})
		client := w.peers[2].Client(g.ID(), peer.AddrInfo{ID: hung.ID()}, peer.AddrInfo{ID: w.peers[0].n.ID()})
		for _, atMost := range []time.Duration{2 * time.Second, 100 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			began := time.Now()
			_, _, err := client.Resolve(ctx, "x", ReadOptions{})
			cancel()
			if took := time.Since(began); !errors.Is(err, ErrNotFound) || took > atMost {
				t.Errorf("Resolve = %v after %v, want %v within %v", err, took, ErrNotFound, atMost)
			}
		}
	})
}

// TestWhoHasJoinedIsAnsweredAtOnce asks a new member's own state, which has to have
// the member before anything is read there.
func TestWhoHasJoinedIsAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		g := w.found(1)[0]
		w.join(1, AsReader)
		list, fresh, err := w.peers[1].Client(g.ID()).Members(t.Context(), ReadOptions{Stale: true})
		if err != nil || len(list) != 2 || !fresh.Stale {
			t.Errorf("Members of who has just joined = %v, %+v, %v; want both, of its own state", list, fresh, err)
		}
	})
}

// TestMemberThatIsBehindDeniesNobody has a state that lacks the member itself: others
// are to be asked who may read.
func TestMemberThatIsBehindDeniesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newWorld(t, 1).found(1)[0]
		who := asker{peer: stranger}
		if err := g.mayRead(pinset.New(), who); !errors.Is(err, ErrStopped) {
			t.Errorf("a member that is behind answers %v, want %v", err, ErrStopped)
		}
		m, err := g.running()
		if err != nil {
			t.Fatal(err)
		}
		m.fsm.view(func(s *pinset.State) { err = g.mayRead(s, who) })
		if !isAnswer(err) {
			t.Errorf("a member that is up to date answers %v, want that it is denied", err)
		}
	})
}

// TestReadDoesNotWaitForAnothersBarrier has a barrier under way that does not end, as
// while the leader's disk hangs: who waits behind it goes when its time is up.
func TestReadDoesNotWaitForAnothersBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := newWorld(t, 1).found(1)[0].running()
		if err != nil {
			t.Fatal(err)
		}
		m.fenceTerm.Store(0)
		m.fencing <- struct{}{}
		defer func() { <-m.fencing }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.fence(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("fence behind a barrier that hangs = %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
