package coord

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// faulty makes a group of three on simulated disks and links.
func faulty(t *testing.T) (*simulation, []*Group, int) {
	t.Helper()
	s := newSimulation(t, 3, rand.New(rand.NewPCG(1, 1)), LAN, true)
	groups := s.found(3)
	s.id = groups[0].ID()
	s.pinned("first")
	lead := s.leader(groups)
	if lead < 0 {
		t.Fatal("there is no leader")
	}
	return s, groups, lead
}

// pinned pins through any peer that is not mute, within 10 s.
func (s *simulation) pinned(name string) {
	s.t.Helper()
	ctx, cancel := s.within(10)
	defer cancel()
	if _, err := s.peers[0].Client(s.id).Pin(ctx, pinOf(name)); err != nil {
		s.t.Fatalf("pin %s: %v", name, err)
	}
}

func (s *simulation) resolves(i int, name string) {
	s.t.Helper()
	ctx, cancel := s.within(5)
	defer cancel()
	if _, _, err := s.peers[i].Client(s.id).Resolve(ctx, "n"+name, ReadOptions{}); err != nil {
		s.t.Errorf("read of %s at peer %d: %v", name, i, err)
	}
}

func TestLeaderWhoseDiskHangsIsReplacedAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, groups, lead := faulty(t)
		s.disks[lead].setHang(true)
		hung := time.Now()
		time.AfterFunc(8*time.Second, func() { s.disks[lead].setHang(false) })
		pins := 0
		s.eventually("another leads", func() bool {
			s.pin(1) // what hangs is a write
			next := s.leader(groups)
			return next >= 0 && next != lead
		})
		took := time.Since(hung)
		if took > 10*time.Second { // 5 s until the disk is called slow, an election, and a try that was under way
			t.Errorf("another leads after %s, want at most 10s", took)
		}
		for range 5 {
			if s.pin(5) {
				pins++
			}
		}
		if pins != 5 {
			t.Errorf("%d of 5 pins with one member mute", pins)
		}
		s.eventually("it is back", func() bool { return s.hashesAgree(groups) })
		t.Logf("another leads after %s, all are equal after %s", took, time.Since(hung))
	})
}

func TestMemberWhoseDiskHangsForGoodEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, groups, lead := faulty(t)
		m, err := groups[lead].running()
		if err != nil {
			t.Fatal(err)
		}
		s.disks[lead].setHang(true)
		defer s.disks[lead].setHang(false)
		hung := time.Now()
		s.pin(1)
		select {
		case <-s.peers[lead].ended:
		case <-time.After(20 * time.Second):
			t.Fatal("Run goes on while the disk hangs for good")
		}
		t.Logf("Run has ended after %s", time.Since(hung))
		s.bury()
		m.log.Close() // which waited for the disk
		s.restart(lead)
		s.settle("all are equal", func() bool { return s.hashesAgree(s.groups()) })
	})
}

func TestFullDiskRefusesWritesAndGoesOnWithReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, groups, lead := faulty(t)
		for _, d := range s.disks {
			d.setFull(true)
		}
		term := s.term(groups[lead])
		var err error
		for n := 0; err == nil; n++ {
			if n > 1000 {
				t.Fatal("a full disk takes 1,000 pins")
			}
			_, err = s.peers[lead].Client(s.id).Pin(t.Context(), pinOf(fmt.Sprint("full", n)))
		}
		if !errors.Is(err, ErrDiskFull) {
			t.Fatalf("pin on a full disk: %v, want ErrDiskFull", err)
		}
		for i := range s.peers {
			s.resolves(i, "first")
		}
		time.Sleep(10 * time.Second)
		if now := s.term(groups[lead]); now != term {
			t.Errorf("term %d on a full disk, want %d as before", now, term)
		}
		for _, d := range s.disks {
			d.setFull(false)
		}
		time.Sleep(time.Second)
		s.pinned("last")
		s.settle("all are equal", func() bool { return s.hashesAgree(groups) })
	})
}

func (s *simulation) term(g *Group) uint64 {
	m, err := g.running()
	if err != nil {
		s.t.Fatal(err)
	}
	return m.term()
}

// A majority's vote is needed to take the vote of those away whose states differ.
func TestGroupGoesOnWhenBothFollowersDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, groups, lead := faulty(t)
		// A new leader's barrier is at an index that is not the state's.
		s.planned(lead)
		s.settle("another leads", func() bool {
			groups = s.groups()
			lead = s.leader(groups)
			return lead >= 0
		})
		time.Sleep(time.Second)
		old := map[int]*member{}
		for i, g := range groups {
			if i == lead {
				continue
			}
			m, err := g.running()
			if err != nil {
				t.Fatal(err)
			}
			old[i] = m
			if !forgeState(m, s.peers[lead].self(), i) {
				t.Fatalf("the state of peer %d can't be forged now", i)
			}
		}
		s.odd = true // has settle pin
		start := time.Now()
		s.settle("both have begun anew, vote again, and all states are equal", func() bool {
			for i, was := range old {
				if m, err := groups[i].running(); err != nil || m == was {
					return false
				}
			}
			return len(s.voters(groups[lead])) == 3 && s.hashesAgree(groups)
		})
		t.Logf("took %s", time.Since(start))
		s.resolves(0, "first")
	})
}

func TestLearnerThatWasAwayIsToldThatItWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		g := w.found(1)[0]
		away := w.join(1, AsReader)
		w.eventually("it has caught up", func() bool { return w.hashesAgree([]*Group{g, away}) })
		w.isolate(1, true)
		time.Sleep(5 * time.Second)
		if err := w.peers[0].Client(g.ID()).Remove(t.Context(), w.peers[1].n.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		w.isolate(1, false)
		w.eventually("it knows", func() bool { return away.known().Removed != nil })
	})
}

func TestMemberThatWasAwayForLongGetsASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, groups, lead := faulty(t)
		away := (lead + 1) % 3
		s.cutOff(away, refused)
		for range 10 {
			for range 20 {
				s.pin(2)
			}
			time.Sleep(30 * time.Second) // snapshots are taken
		}
		m, err := groups[lead].running()
		if err != nil {
			t.Fatal(err)
		}
		far, err := groups[away].running()
		if err != nil {
			t.Fatal(err)
		}
		if first, err := m.log.FirstIndex(); err != nil || first <= far.appliedIndex() {
			t.Fatalf("the leader's log begins at %d (%v), want it behind %d", first, err, far.appliedIndex())
		}
		s.cutOff(away, whole)
		s.settle("it has caught up", func() bool { return s.hashesAgree(groups) })
	})
}
