package pinset

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
)

// world makes random commands: mostly pins and unpins of few names and contents,
// so that they meet, by peers who may and who may not.
type world struct {
	rng    *rand.Rand
	seq    uint64
	frames [][]byte
}

func (w *world) peer() Peer {
	return Peer([]string{"ann", "ann", "ann", "bob", "cat", "dan", "eve"}[w.rng.IntN(7)])
}

func (w *world) expect(s *State) Expect {
	switch w.rng.IntN(4) {
	case 0:
		return ExpectNone
	case 1:
		return max(1, Expect(s.Index())-Expect(w.rng.IntN(20)))
	}
	return ExpectAny
}

func (w *world) at() int64 { return noon + int64(w.seq) }

func (w *world) pin(s *State) *SetPin {
	c := &SetPin{ID: idOf(1 + w.rng.IntN(40)), Kind: KindFile, Size: 100, Replicas: 1 + w.rng.Int64N(5), Expect: w.expect(s)}
	if w.rng.IntN(6) > 0 {
		n := w.rng.IntN(60)
		c.Lookup = fmt.Sprintf("näme%d", n)
		c.Name = c.Lookup
		if w.rng.IntN(2) == 0 {
			c.Name = fmt.Sprintf("Näme%d", n)
		}
	}
	if w.rng.IntN(3) == 0 {
		c.Expires = w.at() + w.rng.Int64N(500)
	}
	if w.rng.IntN(3) == 0 {
		c.Source = &Source{Peer: w.peer()}
		for range w.rng.IntN(3) {
			c.Source.Addrs = append(c.Source.Addrs, fmt.Sprintf("/ip4/10.0.0.%d/tcp/1", w.rng.IntN(9)))
		}
	}
	if w.rng.IntN(50) == 0 {
		c.Size++ // another lies
	}
	return c
}

func (w *world) command(s *State) Command {
	key := Key{1, byte(w.rng.IntN(30))}
	role := Roles(1 << w.rng.IntN(4))
	switch n := w.rng.IntN(100); {
	case n < 45:
		return w.pin(s)
	case n < 60:
		return &Unpin{Lookup: fmt.Sprintf("näme%d", w.rng.IntN(60)), Expect: ExpectAny}
	case n < 62:
		return w.copies()
	case n < 65:
		return &Unpin{ID: new(idOf(1 + w.rng.IntN(40))), Expect: ExpectAny}
	case n < 70:
		c := &SetMember{Peer: w.peer(), Vote: Vote(w.rng.IntN(3))}
		if w.rng.IntN(2) == 0 {
			c.Zone, c.Addrs = new("attic"), new([]string{"/ip4/10.0.0.1/tcp/1"})
		}
		if w.rng.IntN(4) == 0 {
			c.Roles = new(role | RoleReader)
		}
		return c
	case n < 73:
		return &Remove{Peer: w.peer()}
	case n < 78:
		return &Grant{Peer: w.peer(), Role: role}
	case n < 81:
		return &Revoke{Peer: w.peer(), Role: role}
	case n < 85:
		return &Invite{Token: key, Role: Admission(1 + w.rng.IntN(4)), Expires: w.at() + w.rng.Int64N(200)}
	case n < 87:
		c := &Away{Away: []Peer{w.peer()}}
		if w.rng.IntN(2) == 0 {
			c = &Away{Back: []Peer{w.peer(), w.peer()}, Unproven: []Peer{w.peer()}, Proven: []Peer{w.peer()}}
		}
		return c
	case n < 90:
		return &Join{Token: key, Capacity: 7, Zone: "cellar"}
	case n < 92:
		return &Uninvite{Token: key}
	case n < 96:
		return &Expire{}
	case n < 99:
		index, hash := s.Mark()
		return &Mark{Index: index, Hash: hash}
	}
	if g, _ := s.Group(); w.rng.IntN(3) == 0 {
		return &Epoch{Epoch: g.Epoch + 1, State: s.Hash(), Members: []EpochMember{{"ann", Voter}, {"bob", Learner}}, Admin: "ann"}
	}
	return &Expire{}
}

func (w *world) copies() *Copies {
	ids := func() (list []content.ID) {
		for range w.rng.IntN(20) {
			list = append(list, idOf(1+w.rng.IntN(40)))
		}
		return list
	}
	c := &Copies{Peer: w.peer(), Held: append(ids(), idOf(1)), Gone: ids()}
	if w.rng.IntN(3) == 0 {
		c.Unproven = ids()
	}
	return c
}

// frame is the next command, or one that was before.
func (w *world) frame(s *State) []byte {
	if len(w.frames) > 0 && w.rng.IntN(20) == 0 {
		return w.frames[w.rng.IntN(len(w.frames))]
	}
	w.seq++
	var c Command = &Found{Group: Digest{9}, Name: "office", Recovery: recoveryKey}
	by := Peer("ann")
	if w.seq > 1 {
		c, by = w.command(s), w.peer()
	}
	if c, ok := c.(*Copies); ok && w.rng.IntN(2) == 0 {
		by = c.Peer
	}
	*c.header() = Header{Client: Client{byte(w.seq % 3), 1}, Seq: w.seq, By: by, At: w.at()}
	w.frames = append(w.frames, must(EncodeCommand(c)))
	return w.frames[len(w.frames)-1]
}

// checkInvariants compares what is derived with the records.
func checkInvariants(t *testing.T, s *State) {
	t.Helper()
	names := 0
	for p := range s.pins.all() {
		names += p.nameCount()
		if p.nameCount() == 0 && !p.bare {
			t.Fatalf("%s is pinned for nobody", p.id())
		}
		for _, n := range p.names() {
			if bound, _ := s.nameOf(n.lookup()); bound != n {
				t.Fatalf("%s has a name %q that is not that of the table", p.id(), n.lookup())
			}
		}
	}
	for p := range s.pins.all() {
		for x := range p.held() {
			if contains(p.unproven(), x) || s.slots.peer(x) == (shared{}) {
				t.Fatalf("%s is held by slot %d, which is nobody's or could not prove it", p.id(), x)
			}
		}
	}
	for _, m := range s.Members() {
		if x := s.slots.of(m.Peer); x == 0 || s.slots.peer(x).Value() != string(m.Peer) {
			t.Fatalf("%s has slot %d of %v", m.Peer, x, s.slots.peers)
		}
	}
	if len(s.slots.byPeer) != s.members.length {
		t.Fatalf("%d members have a slot, and there are %d", len(s.slots.byPeer), s.members.length)
	}
	if names != s.names.length {
		t.Fatalf("%d names, and pins have %d", s.names.length, names)
	}
	var fresh sum
	for r := range s.records() {
		fresh.add(s.digest(r))
	}
	if fresh != s.sum {
		t.Fatal("the hash is not that of the records")
	}
}

// TestStatesStayEqual feeds one log to a leader, and to a member that is cloned,
// encoded and decoded now and then; old clones must stay as they were.
func TestStatesStayEqual(t *testing.T) {
	type kept struct {
		state *State
		data  []byte
	}
	seeds := uint64(30)
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		w := &world{rng: rand.New(rand.NewPCG(seed, 1))}
		leader, member := New(), New()
		var clones []kept
		codes := map[Code]int{}
		index := uint64(0)
		for range 3000 {
			index += 1 + w.rng.Uint64N(2)
			f := w.frame(leader)
			a, errA := leader.Apply(index, f)
			b, errB := member.Apply(index, f)
			if errA != nil || errB != nil {
				t.Fatalf("seed %d, index %d: %v, %v", seed, index, errA, errB)
			}
			if !cmp.Equal(a, b) || leader.Hash() != member.Hash() || a.Differs {
				t.Fatalf("seed %d, index %d: %+v and %+v, or the hashes are not equal", seed, index, a, b)
			}
			codes[a.Code]++
			switch w.rng.IntN(150) {
			case 0: // go on with the clone
				clones = append(clones, kept{member, encoded(t, member)})
				member = member.Clone()
			case 1: // go on with the original
				clones = append(clones, kept{member.Clone(), encoded(t, member)})
			case 2: // as from a snapshot
				data := encoded(t, leader)
				if !bytes.Equal(data, encoded(t, member)) {
					t.Fatalf("seed %d, index %d: equal states encode to different bytes", seed, index)
				}
				decoded, err := Decode(bytes.NewReader(data))
				if err != nil {
					t.Fatalf("seed %d, index %d: %v", seed, index, err)
				}
				if got, want := summary(decoded), summary(leader); got != want {
					t.Fatalf("seed %d, index %d: decoded state differs:\n%s", seed, index, cmp.Diff(want, got))
				}
				checkInvariants(t, leader)
				checkInvariants(t, decoded)
				member = decoded
			}
		}
		for _, c := range clones {
			if !bytes.Equal(encoded(t, c.state), c.data) {
				t.Fatalf("seed %d: a clone changed with its original", seed)
			}
		}
		if len(codes) < 6 {
			t.Errorf("seed %d: only %v happened", seed, codes)
		}
	}
}

// TestCloneIsReadWhileTheOriginalChanges is for the race detector.
func TestCloneIsReadWhileTheOriginalChanges(t *testing.T) {
	w := &world{rng: rand.New(rand.NewPCG(1, 1))}
	s := New()
	index := uint64(0)
	apply := func(n int) {
		for range n {
			index++
			if _, err := s.Apply(index, w.frame(s)); err != nil {
				t.Fatal(err)
			}
		}
	}
	apply(500)
	for range 10 {
		c, want := s.Clone(), encoded(t, s)
		read := make(chan error)
		go func() {
			var b bytes.Buffer
			err := c.Encode(&b)
			if err == nil && !bytes.Equal(b.Bytes(), want) {
				err = fmt.Errorf("a clone changed with its original")
			}
			_ = summary(c)
			read <- err
		}()
		apply(300)
		if err := <-read; err != nil {
			t.Fatal(err)
		}
	}
}

// TestEqualStatesHaveEqualHashes comes to one set of records by two ways.
func TestEqualStatesHaveEqualHashes(t *testing.T) {
	a, b := New(), New()
	var records []record
	for i := range 200 {
		n := newName(fmt.Sprintf("name%d", i), strings.Repeat("x", i+1))
		n.ref, n.by = new(content.ID), sharedPeer("ann")
		records = append(records, n)
	}
	for _, r := range records {
		put(a, &a.names, r.(*name))
	}
	slices.Reverse(records)
	other := newName("other", "other")
	other.ref, other.by = new(content.ID), sharedPeer("bob")
	put(b, &b.names, other)
	for _, r := range records {
		first := *r.(*name)
		first.index = 7
		put(b, &b.names, &first)
		put(b, &b.names, r.(*name))
	}
	drop(b, &b.names, other)
	if a.Hash() != b.Hash() || a.Hash() == (Digest{}) {
		t.Errorf("hashes are %s and %s, want them equal", a.Hash(), b.Hash())
	}
	empty := New()
	for _, r := range records {
		drop(b, &b.names, r.(*name))
	}
	if b.Hash() != empty.Hash() {
		t.Error("an empty table leaves something in the hash")
	}
}
