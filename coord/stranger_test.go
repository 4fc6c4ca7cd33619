package coord

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/libp2p/go-libp2p/core/peer"
)

// TestAMemberThatLacksAGrantIsNotTheLastWord has a member that is cut off be asked by
// a peer to which the others have granted a role: the peer asks the next member.
func TestAMemberThatLacksAGrantIsNotTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		g := w.found(3)[0]
		ask := func(via ...peer.AddrInfo) error {
			_, _, err := w.peers[3].Client(g.ID(), via...).Resolve(t.Context(), "x", ReadOptions{})
			return err
		}
		for i := range 2 {
			w.link(2, i, false)
		}
		if err := w.peers[0].Client(g.ID()).Grant(t.Context(), w.peers[3].n.ID(), RoleReader); err != nil {
			t.Fatal(err)
		}
		w.eventually("a follower has it", func() bool { return errors.Is(ask(w.info(1)), ErrNotFound) })
		if err := ask(w.info(2)); !isRefusal(err, RefusedStranger) {
			t.Fatalf("ask the member without the grant: %v, want %q", err, RefusedStranger)
		}
		if err := ask(w.info(2), w.info(1)); !errors.Is(err, ErrNotFound) {
			t.Errorf("ask that member first, and then one that has it: %v, want %v", err, ErrNotFound)
		}
	})
}

// TestAMemberThatHasJustStartedCallsNobodyAStranger has one start alone: what it has
// applied may be old, and it can't know.
func TestAMemberThatHasJustStartedCallsNobodyAStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		g := w.found(3)[0]
		for i := range 3 {
			w.peers[i].crash(t)
		}
		w.peers[2].start(t)
		ask := func() error {
			_, _, err := w.peers[3].Client(g.ID(), w.info(2)).Resolve(t.Context(), "x", ReadOptions{})
			return err
		}
		w.eventually("it is there", func() bool { _, err := w.groupOf(2).running(); return err == nil })
		if err := ask(); !isRefusal(err, RefusedStopped) || errors.Is(err, ErrDenied) {
			t.Errorf("ask a member that has heard of no leader: %v, want %q", err, RefusedStopped)
		}
		w.peers[0].start(t)
		w.eventually("it knows that there is no such role", func() bool { return isRefusal(ask(), RefusedStranger) })
	})
}

func (w *world) info(i int) peer.AddrInfo {
	return peer.AddrInfo{ID: w.peers[i].n.ID(), Addrs: w.peers[i].n.Addrs()}
}
