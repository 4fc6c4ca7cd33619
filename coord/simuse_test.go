package coord

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing/synctest"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
	"github.com/p2pshare/p2pshare/share/content"
)

func isStopped(err error) bool { return errors.Is(err, raftlog.ErrStopped) }

// use asks the group for something.
func (s *simulation) use() {
	switch s.random.IntN(10) {
	case 0:
		s.unpin()
	case 1:
		s.regrant()
	case 2:
		s.readLog()
	default:
		s.pin(2)
	}
}

// pin tries to pin through any member that is up, every fourth time for a minute
// or two only, and to read the name through another.
func (s *simulation) pin(seconds int) bool {
	i := s.someone()
	if i < 0 {
		return false
	}
	s.made++
	name := fmt.Sprint(s.made)
	o := pinOf(name)
	if s.random.IntN(4) == 0 {
		o.Expires = time.Now().Add(time.Minute + time.Duration(s.random.IntN(60))*time.Second)
	}
	ctx, cancel := s.within(seconds)
	defer cancel()
	s.held.offer(o.ID, true)
	if _, err := s.peers[i].Client(s.id).Pin(ctx, o); err != nil {
		return false
	}
	s.counts["pins"]++
	if o.Expires.IsZero() {
		s.acked = append(s.acked, name)
	} else {
		s.expiring[name] = o.Expires
	}
	if j := s.someone(); j >= 0 {
		ctx, cancel := s.within(2)
		defer cancel()
		_, _, err := s.peers[j].Client(s.id).Resolve(ctx, "n"+name, ReadOptions{})
		if errors.Is(err, ErrNotFound) {
			s.t.Errorf("pin %s through peer %d was acknowledged, and peer %d has not found it", name, i, j)
		}
	}
	return true
}

func (s *simulation) unpin() {
	i := s.someone()
	if i < 0 || len(s.acked) == 0 {
		return
	}
	name := s.acked[s.random.IntN(len(s.acked))]
	s.acked = without(s.acked, name) // whatever becomes of it
	ctx, cancel := s.within(2)
	defer cancel()
	if _, err := s.peers[i].Client(s.id).Unpin(ctx, "n"+name, ExpectAny); err == nil {
		s.counts["unpins"]++
		s.unpinned = append(s.unpinned, name)
	}
}

// stranger is a peer that is no member, and a reader at times.
const stranger = "12D3KooWKKahN7vHAsHZzRmDGRVsBpDnC5aAJoCgSCeBs6Tf57Wn"

// regrant makes the stranger a reader, or no longer one.
func (s *simulation) regrant() {
	i := s.someone()
	if i < 0 {
		return
	}
	id, err := (knownMember{Peer: stranger}).info()
	if err != nil {
		s.t.Fatal(err)
	}
	reader := s.random.IntN(2) == 0
	s.reader = nil
	ctx, cancel := s.within(2)
	defer cancel()
	if reader {
		err = s.peers[i].Client(s.id).Grant(ctx, id.ID, RoleReader)
	} else {
		err = s.peers[i].Client(s.id).Revoke(ctx, id.ID, RoleReader)
	}
	if err == nil || reader && errors.Is(err, ErrExists) || !reader && errors.Is(err, ErrNotFound) {
		s.counts["grants"]++
		s.reader = &reader
	}
}

// readLog reads the changes, which are in order.
func (s *simulation) readLog() {
	i := s.someone()
	if i < 0 {
		return
	}
	ctx, cancel := s.within(2)
	defer cancel()
	var last uint64
	for c, err := range s.peers[i].Client(s.id).Log(ctx, 0, ReadOptions{Stale: s.random.IntN(2) == 0}) {
		if err != nil {
			return
		}
		if c.Index < last {
			s.t.Errorf("Log at peer %d has %d after %d", i, c.Index, last)
		}
		last = c.Index
	}
	s.counts["logs"]++
}

// comeOrGo has the last peer or the last founder leave, be removed or join.
func (s *simulation) comeOrGo() {
	i := len(s.peers) - 1 - s.random.IntN(2)
	p := s.peers[i]
	g, err := p.group(s.id)
	ctx, cancel := s.within(4)
	defer cancel()
	admin := s.peers[0]
	switch in := err == nil && g.known().Removed == nil; {
	case in && s.random.IntN(2) == 0 && !p.down:
		if p.Client(s.id).Leave(ctx) == nil {
			s.counts["left"]++
		}
	case in && !admin.down:
		if admin.Client(s.id).Remove(ctx, p.n.ID()) == nil {
			s.counts["removed"]++
		}
	case !in && !p.down && !admin.down:
		as := []Admission{AsVoter, AsVoter, AsWriter, AsReader}[s.random.IntN(4)]
		token, err := admin.Client(s.id).Invite(ctx, as, time.Hour)
		if err != nil {
			return
		}
		if _, err := p.Join(ctx, token, "", MemberOptions{Capacity: 1 << 30}); err == nil {
			s.counts["joined"]++
		}
	}
}

// forge changes a follower's state, as a bug or a bit that flips in memory would.
// That can be done at an index that is not the state's, as a barrier's is not.
func (s *simulation) forge(i int) {
	g := s.groups()[i]
	if g == nil || s.odd || s.peers[0].down {
		return
	}
	m, err := g.running()
	if err != nil || m.leads() {
		return
	}
	time.Sleep(10 * time.Millisecond)                                   // what is committed is applied
	s.held.offer(content.Root(fmt.Append(nil, "forged", s.made)), true) // the group may take it over
	s.odd = forgeState(m, s.peers[0].self(), s.made)
	if s.odd {
		s.counts["forged"]++
	}
}

// forgeState adds a pin to a member's state that the others have not.
func forgeState(m *member, by pinset.Peer, n int) (forged bool) {
	frame, err := pinset.EncodeCommand(&pinset.SetPin{Header: pinset.Header{Client: pinset.Client{1}, Seq: uint64(n + 1), By: by, At: 1},
		ID: content.Root(fmt.Append(nil, "forged", n)), Kind: KindFile, Size: 1, Replicas: 1, Expect: ExpectAny})
	if err != nil {
		panic(err)
	}
	index := m.appliedIndex()
	m.fsm.view(func(state *pinset.State) {
		if index > state.Index() {
			r, err := state.Apply(index, frame)
			forged = err == nil && r.Code == pinset.OK
		}
	})
	return forged
}

// heal mends everything, and checks what must hold then.
func (s *simulation) heal() {
	s.t.Helper()
	s.mend()
	start := time.Now()
	for !s.pin(10) {
		if time.Since(start) >= 10*time.Second {
			s.t.Fatalf("no commit within 10 s of a heal at %s, %v: %s; what the members said:\n%v",
				time.Since(s.told.start).Round(time.Millisecond), s.counts, s.describe(), s.told)
		}
		time.Sleep(retryMax) // an answer costs no virtual time
		s.revive()
	}
	s.counts["heals"]++
	var members []*Group
	s.settle("all members know that they are, and all states are equal", func() bool {
		members = s.members()
		return len(members) > 0 && s.hashesAgree(members)
	})
	s.odd = false
	m, err := members[0].running()
	if err != nil {
		s.t.Fatal(err)
	}
	m.fsm.view(s.check)
	for start = time.Now(); s.copiesAgree() != ""; { // while nothing is pinned
		if time.Since(start) > 3*time.Minute {
			s.t.Fatalf("waited 3 minutes in vain until the copies are as the plan has them: %s\n%v; what the members said:\n%v", s.describe(), s.counts, s.told)
		}
		time.Sleep(time.Second)
		s.revive()
	}
}

// copiesAgree tells of a copy that is not as the plan has it, "" when all are.
func (s *simulation) copiesAgree() string {
	members := s.members()
	if len(members) == 0 {
		return "it is not known who is a member"
	}
	m, err := members[0].running()
	if err != nil {
		return err.Error()
	}
	state, plan := members[0].plan(m)
	for p := range state.Pins(content.ID{}) {
		place, _ := plan.Place(p.ID)
		for _, g := range members {
			self, store := g.c.self(), s.held.store(g.c.node.ID())
			planned, inState, held := slices.Contains(place.Holders, self), slices.Contains(p.Copies, self), store.has(p.ID)
			if held {
				s.counts["copies seen"]++
			}
			kept := !planned && held && place.Lack != pinset.LackNone // fewer are planned than wanted
			if held != inState || planned != held && !kept {
				return fmt.Sprintf("%s at %s: planned %v, in the state %v, in the store %v", p.ID.Short(), self, planned, inState, held)
			}
		}
	}
	return ""
}

// mend mends links and disks, starts who is down, and waits for those that are
// mute because their disk hung.
func (s *simulation) mend() {
	for i := range s.peers {
		s.cutOff(i, whole)
		s.disks[i].setHang(false)
		s.disks[i].setFull(false)
		s.held.store(s.peers[i].n.ID()).setFull(false)
	}
	synctest.Wait() // who has given up because its disk hung can end now
	s.revive()
	for _, g := range s.groups() {
		if g == nil {
			continue
		}
		if m, err := g.running(); err == nil && s.net != nil {
			time.Sleep(time.Until(m.carrier.carrier.(*simCarrier).mutedUntil()))
		}
	}
}

// revive starts who is down or has given up, as whoever runs a process would. To end
// takes a member that gave up some seconds.
func (s *simulation) revive() {
	s.bury()
	for i := range s.peers {
		s.restart(i)
	}
}

// settle is eventually for what may need a mark to be made, and members that begin
// anew.
func (s *simulation) settle(what string, condition func() bool) {
	s.t.Helper()
	start := time.Now()
	for !condition() {
		if time.Since(start) > 3*time.Minute {
			s.t.Fatalf("waited 3 minutes in vain until %s: %s\n%v; what the members said:\n%v", what, s.describe(), s.counts, s.told)
		}
		// Marks are made when something has changed. A leader whose state was forged may
		// have had the others take it over; what it replays itself at a start is another.
		if s.odd || s.counts["forged"] > 0 {
			s.pin(2)
		}
		time.Sleep(time.Second)
		s.revive()
	}
}

// members returns the groups of all members, nil while not all peers know whether
// they are. Who was let in and has not heard of it is taken out.
func (s *simulation) members() []*Group {
	ctx, cancel := s.within(5)
	defer cancel()
	list, _, err := s.peers[0].Client(s.id).Members(ctx, ReadOptions{})
	if err != nil {
		return nil
	}
	var groups []*Group
	for i, g := range s.groups() {
		in := slices.ContainsFunc(list, func(m Member) bool { return m.Peer == s.peers[i].self() })
		knows := g != nil && g.known().Removed == nil
		switch {
		case in && !knows:
			s.peers[0].Client(s.id).Remove(ctx, s.peers[i].n.ID())
			return nil
		case in != knows:
			return nil
		case in:
			groups = append(groups, g)
		}
	}
	return groups
}

// check compares a state with what was acknowledged.
func (s *simulation) check(state *pinset.State) {
	has := func(name string) bool {
		_, ok := state.Pin(content.Root([]byte(name)))
		return ok
	}
	for _, name := range s.acked {
		if !has(name) {
			s.t.Errorf("pin %s was acknowledged and is lost", name)
		}
	}
	for _, name := range s.unpinned {
		if has(name) {
			s.t.Errorf("pin %s was taken away and is there", name)
		}
	}
	for name, until := range maps.All(s.expiring) {
		switch now := time.Now(); {
		case now.Before(until) && !has(name):
			s.t.Errorf("pin %s has expired %s before its time", name, until.Sub(now))
		case now.After(until.Add(time.Minute)):
			if has(name) {
				s.t.Errorf("pin %s is there %s after its time", name, now.Sub(until))
			}
			delete(s.expiring, name)
		}
	}
	if s.reader != nil && state.Roles(stranger).Has(RoleReader) != *s.reader {
		s.t.Errorf("the stranger is a reader: %v, want %v", !*s.reader, *s.reader)
	}
}

// describe tells how each member is.
func (s *simulation) describe() (text string) {
	text = "\n" + s.copiesAgree()
	for i, g := range s.groups() {
		if g == nil {
			text += fmt.Sprintf("\n%d: in no group, down %v", i, s.peers[i].down)
			continue
		}
		m, err := g.running()
		if err != nil {
			text += fmt.Sprintf("\n%d: %v", i, err)
			continue
		}
		m.fsm.view(func(state *pinset.State) {
			hash := state.Hash()
			text += fmt.Sprintf("\n%d: %v, term %d, applied %d of %d, state %d %x, %v, removed %v", i, m.raft.State(), m.term(),
				m.appliedIndex(), m.commitIndex(), state.Index(), hash[:4], m.servers(), g.known().Removed)
		})
	}
	return text
}
