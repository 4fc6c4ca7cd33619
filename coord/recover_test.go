package coord

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share/content"
)

// pin has the group pin names through a peer.
func (w *world) pin(i int, id GroupID, names ...string) {
	w.t.Helper()
	for _, name := range names {
		if _, err := w.peers[i].Client(id).Pin(w.t.Context(), pinOf(name)); err != nil {
			w.t.Fatalf("pin %s: %v", name, err)
		}
	}
}

// has says which of the names a group's member has pinned.
func (w *world) has(g *Group, names ...string) bool {
	m, err := g.running()
	if err != nil {
		return false
	}
	all := true
	m.fsm.view(func(s *pinset.State) {
		for _, name := range names {
			_, ok := s.Pin(content.Root([]byte(name)))
			all = all && ok
		}
	})
	return all
}

// recover begins a new epoch on a peer, as one who looked first.
func (w *world) recover(i int, id GroupID, o RecoverOptions) error {
	w.t.Helper()
	survey, err := w.peers[i].Survey(w.t.Context(), id)
	if err == nil {
		o.Seen = survey.Members[0]
		_, err = w.peers[i].Recover(w.t.Context(), id, o)
	}
	return err
}

func (w *world) awaitNoLeader(i int, id GroupID) {
	w.t.Helper()
	w.eventually("nobody leads", func() bool {
		s, err := w.peers[i].Survey(w.t.Context(), id)
		return err == nil && s.Leader() == ""
	})
}

func (w *world) groupOf(i int) *Group {
	w.t.Helper()
	g, err := w.peers[i].Find("office")
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func TestOneSurvivorOfThreeGoesOnAndTheOthersAreOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		id := w.found(3)[0].ID()
		w.pin(0, id, "a", "b")
		old := w.invite(AsVoter)
		if err := w.recover(0, id, RecoverOptions{}); !errors.Is(err, ErrHasLeader) {
			t.Errorf("recover with a leader: %v, want ErrHasLeader", err)
		}
		w.peers[1].crash(t)
		w.peers[2].crash(t)
		w.awaitNoLeader(0, id)
		survey, err := w.peers[0].Survey(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.peers[0].Recover(t.Context(), id, RecoverOptions{}); !errors.Is(err, ErrMoved) {
			t.Errorf("recover without having looked: %v, want ErrMoved", err)
		}
		epoch, err := w.peers[0].Recover(t.Context(), id, RecoverOptions{Seen: survey.Members[0]})
		if err != nil || epoch != 2 {
			t.Fatalf("recover: epoch %d, %v", epoch, err)
		}
		w.pin(0, id, "c")
		if !w.has(w.groupOf(0), "a", "b", "c") {
			t.Error("pins were lost by the recovery")
		}
		w.peers[0].crash(t)
		w.peers[0].start(t)
		w.pin(0, id, "d")
		if !w.has(w.groupOf(0), "a", "b", "c", "d") {
			t.Error("pins were lost by a restart in the new epoch")
		}

		for _, i := range []int{1, 2} {
			w.peers[i].start(t)
			w.eventually("it knows that it is out", func() bool { return errors.Is(w.groupOf(i).known().parked(), ErrRemoved) })
			if r := w.groupOf(i).known().Removed; r.By != w.peers[0].self() || r.Epoch != 2 || r.Index == 0 {
				t.Errorf("told of its removal: %+v", r)
			}
			if _, err := w.peers[i].Client(id).Pin(t.Context(), pinOf("x")); !errors.Is(err, ErrRemoved) {
				t.Errorf("pin by one that is out: %v, want ErrRemoved", err)
			}
		}
		if _, err := w.peers[1].Join(t.Context(), old, "", MemberOptions{}); !isRefusal(err, RefusedEpoch) {
			t.Errorf("join by an invitation of the old epoch: %v", err)
		}
		old.Epoch = 2
		if _, err := w.peers[1].Join(t.Context(), old, "", MemberOptions{}); !errors.Is(err, ErrToken) {
			t.Errorf("join by an invitation of the old epoch that says otherwise: %v, want ErrToken", err)
		}
		for _, i := range []int{1, 2} {
			w.join(i, AsVoter)
		}
		all := []*Group{w.groupOf(0), w.groupOf(1), w.groupOf(2)}
		w.eventually("all vote again", func() bool { return len(w.voters(all[0])) == 3 })
		w.eventually("all states are equal", func() bool { return w.hashesAgree(all) })
	})
}

func isRefusal(err error, why Refusal) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && refused.Why == why
}

func TestRecoveryKeyBeginsAnEpochAndWhoAnswersComesAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		id := w.found(5)[0].ID()
		w.pin(0, id, "a")
		for _, i := range []int{0, 3, 4} {
			w.peers[i].crash(t)
		}
		w.awaitNoLeader(1, id)
		if survey, err := w.peers[1].Survey(t.Context(), id); err != nil || survey.Ahead() != "" {
			if err := w.recover(1, id, RecoverOptions{Key: w.recovery}); !errors.Is(err, ErrAhead) {
				t.Errorf("recover on one that is behind: %v, want ErrAhead", err)
			}
			w.peers[1], w.peers[2] = w.peers[2], w.peers[1]
		}
		if err := w.recover(1, id, RecoverOptions{}); !errors.Is(err, ErrDenied) {
			t.Errorf("recover by no admin: %v, want ErrDenied", err)
		}
		if err := w.recover(1, id, RecoverOptions{Key: otherKey(t)}); !errors.Is(err, ErrDenied) {
			t.Errorf("recover with another key: %v, want ErrDenied", err)
		}
		if err := w.recover(1, id, RecoverOptions{Key: w.recovery}); err != nil {
			t.Fatal(err)
		}
		both := []*Group{w.groupOf(1), w.groupOf(2)}
		w.eventually("the other survivor has come along", func() bool { return both[1].known().Epoch == 2 && w.hashesAgree(both) })
		w.pin(2, id, "b")
		if roles := w.rolesOf(both[0], w.peers[1].self()); !roles.Has(RoleAdmin) {
			t.Errorf("roles of the survivor: %s, want admin", roles)
		}
		w.peers[0].start(t)
		w.eventually("the founder knows that it is out", func() bool { return errors.Is(w.groupOf(0).known().parked(), ErrRemoved) })
		if by := w.groupOf(0).known().Removed.By; by != w.peers[1].self() {
			t.Errorf("told that it was put out by %s, want %s, whose peer recovered", by, w.peers[1].self())
		}
		if err := w.recover(0, id, RecoverOptions{}); err == nil {
			t.Error("one that is out could recover")
		}
		w.peers[3].start(t)
		w.eventually("the next one knows that it is out", func() bool { return errors.Is(w.groupOf(3).known().parked(), ErrRemoved) })
	})
}

func (w *world) rolesOf(g *Group, p Peer) (r Roles) {
	if m, err := g.running(); err == nil {
		m.fsm.view(func(s *pinset.State) { r = s.Roles(p) })
	}
	return r
}

func TestMajorityThatWentOnAloneStopsWhenItMeetsTheNewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		id := w.found(3)[0].ID()
		w.isolate(0, true)
		w.awaitNoLeader(0, id)
		w.pin(1, id, "theirs")
		if err := w.recover(0, id, RecoverOptions{}); err != nil {
			t.Fatal(err)
		}
		w.pin(0, id, "ours")
		w.pin(1, id, "theirs too") // nobody has told them
		w.isolate(0, false)
		for _, i := range []int{1, 2} {
			w.eventually("it knows that it is out", func() bool { return errors.Is(w.groupOf(i).known().parked(), ErrRemoved) })
		}
		if !w.has(w.groupOf(0), "ours") {
			t.Error("the new epoch has lost its pin")
		}
	})
}

func TestTwoRecoveriesOfOneEpochStopBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		groups := w.found(3)
		id := groups[0].ID()
		if err := w.peers[0].Client(id).Grant(t.Context(), w.peers[1].n.ID(), RoleAdmin); err != nil {
			t.Fatal(err)
		}
		w.pin(0, id, "a")
		w.eventually("all states are equal", func() bool { return w.hashesAgree(groups) })
		w.eventually("all know the admins", func() bool { return len(groups[0].known().Admins) == 2 && len(groups[1].known().Admins) == 2 })
		w.peers[2].crash(t)
		w.isolate(0, true)
		for _, i := range []int{0, 1} {
			w.awaitNoLeader(i, id)
			if err := w.recover(i, id, RecoverOptions{}); err != nil {
				t.Fatal(err)
			}
			w.pin(i, id, "after")
		}
		w.isolate(0, false)
		for _, i := range []int{0, 1} {
			w.eventually("it has seen the other epoch", func() bool { return w.groupOf(i).known().Split != nil })
			synctest.Wait()
			if err := w.peers[i].stop(); !errors.Is(err, ErrSplit) {
				t.Errorf("Run of a peer whose group is split: %v, want ErrSplit", err)
			}
			w.peers[i].Close()
			w.peers[i].start(t)
			if _, err := w.peers[i].Client(id).Pin(t.Context(), pinOf("b")); !errors.Is(err, ErrSplit) {
				t.Errorf("pin in a group that is split: %v, want ErrSplit", err)
			}
		}
		// A person decides for the first: it begins a third epoch, and the other joins.
		if _, err := w.peers[0].Recover(t.Context(), id, RecoverOptions{}); err != nil {
			t.Fatal(err)
		}
		w.pin(0, id, "c")
		w.join(1, AsVoter)
		both := []*Group{w.groupOf(0), w.groupOf(1)}
		w.eventually("all states are equal", func() bool { return w.hashesAgree(both) })
		if e := both[1].known().Epoch; e != 3 {
			t.Errorf("epoch = %d, want 3", e)
		}
	})
}

func TestCrashInTheMiddleOfARecoveryIsFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		g := w.found(3)[0]
		id := g.ID()
		w.pin(0, id, "a")
		w.peers[1].crash(t)
		w.peers[2].crash(t)
		w.awaitNoLeader(0, id)
		w.peers[0].crash(t)
		before := filepath.Join(t.TempDir(), "before")
		if err := os.CopyFS(before, os.DirFS(g.dir)); err != nil {
			t.Fatal(err)
		}
		w.peers[0].start(t)
		w.awaitNoLeader(0, id)
		if err := w.recover(0, id, RecoverOptions{}); err != nil {
			t.Fatal(err)
		}
		w.peers[0].crash(t)
		f := w.groupOf(0).known()
		f.Begin = true
		if err := errors.Join(os.RemoveAll(g.dir), os.CopyFS(g.dir, os.DirFS(before)), f.write(g.dir)); err != nil {
			t.Fatal(err)
		}
		w.peers[0].start(t)
		w.pin(0, id, "b")
		if !w.has(w.groupOf(0), "a", "b") || w.groupOf(0).known().Begin {
			t.Errorf("begun: %v", !w.groupOf(0).known().Begin)
		}
		time.Sleep(time.Second)
	})
}

func TestLearnersSayNothingOfALeaderInASurvey(t *testing.T) {
	s := Survey{Members: []Standing{{Peer: "a", Vote: Voter, Self: true}, {Peer: "l", Vote: pinset.Learner, Leader: "x"}}}
	if got := s.Leader(); got != "" {
		t.Errorf("Leader = %s by a learner's word, want none", got)
	}
	s.Members = append(s.Members, Standing{Peer: "v", Vote: Voter, Leader: "y"})
	if got := s.Leader(); got != "y" {
		t.Errorf("Leader = %s, want y", got)
	}
}
