package pinset

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// someState has records of every kind.
func someState(t testing.TB) *State {
	w := &world{rng: rand.New(rand.NewPCG(3, 3))}
	s := New()
	for i := range uint64(400) {
		if _, err := s.Apply(i+1, w.frame(s)); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[tag]bool{}
	for r := range s.records() {
		seen[r.tag()] = true
	}
	for k := tagGroup; k <= tagSession; k++ {
		if !seen[k] {
			t.Errorf("no record of kind %d", k)
		}
	}
	return s
}

func TestDecodeRefusesEveryFlippedByte(t *testing.T) {
	data := encoded(t, someState(t))
	if s, err := Decode(iotest.OneByteReader(bytes.NewReader(data))); err != nil || !bytes.Equal(encoded(t, s), data) {
		t.Errorf("Decode byte by byte: %v", err)
	}
	step := 1
	if testing.Short() {
		step = 11
	}
	for i := 0; i < len(data); i += step {
		bad := bytes.Clone(data)
		bad[i] ^= byte(1 + i%255)
		if _, err := Decode(bytes.NewReader(bad)); !errors.Is(err, ErrBadState) {
			t.Fatalf("byte %d of %d flipped: %v, want %v", i, len(data), err, ErrBadState)
		}
	}
	for n := 0; n < len(data); n += 97 {
		if _, err := Decode(bytes.NewReader(data[:n])); !errors.Is(err, ErrBadState) {
			t.Fatalf("cut at byte %d of %d: %v, want %v", n, len(data), err, ErrBadState)
		}
	}
	if _, err := Decode(bytes.NewReader(append(bytes.Clone(data), 0))); !errors.Is(err, ErrBadState) {
		t.Errorf("a byte after the end: %v, want %v", err, ErrBadState)
	}
	broken := errors.New("broken disk")
	if _, err := Decode(io.MultiReader(bytes.NewReader(data[:5000]), iotest.ErrReader(broken))); !errors.Is(err, broken) || errors.Is(err, ErrBadState) {
		t.Errorf("a reader's error comes as %v", err)
	}
}

// TestDecodeChecksWhatIsConsistent is of states with the right sums, made by
// somebody who wants us to hold nonsense.
func TestDecodeChecksWhatIsConsistent(t *testing.T) {
	for what, damage := range map[string]func(*State){
		"name without pin": func(s *State) { p, _ := s.pins.least(); drop(s, &s.pins, p) },
		"pin for nobody": func(s *State) {
			id := idOf(777)
			put(s, &s.pins, &pin{ref: &id, kind: KindFile, replicas: 1, origin: newOrigin(sharedPeer("a"), sharedPeer(""))})
		},
		"no group":      func(s *State) { s.sum.subtract(s.digest(s.group)); s.group = nil },
		"no admin":      func(s *State) { s.setGranted("ann", RoleReader) },
		"future change": func(s *State) { put(s, &s.changes, &Change{Index: s.applied + 1, By: "a", Op: OpPin}) },
		"future result": func(s *State) { put(s, &s.sessions, &session{client: Client{1}, seq: 1, index: s.applied + 1}) },
		"bound history": func(s *State) {
			n, _ := s.names.least()
			put(s, &s.pasts, &past{lookup: n.lookup(), unbound: 1, versions: []version{{display: "a", by: sharedPeer("a")}}})
		},
		"same client and number": func(s *State) { x, _ := s.sessions.least(); y := *x; y.index++; put(s, &s.sessions, &y) },
		"display too long": func(s *State) {
			n, _ := s.names.least()
			m := newName(n.lookup(), strings.Repeat("x", 300))
			m.ref, m.by = n.ref, n.by
			put(s, &s.names, m)
		},
		"source of two lines for a peer": func(s *State) {
			p, _ := s.pins.least()
			q := *p
			q.origin = newOrigin((&Source{Peer: "a", Addrs: []string{"/a"}}).join(), q.origin.Value().source)
			put(s, &s.pins, &q)
		},
		"source with a control character": func(s *State) {
			p, _ := s.pins.least()
			q := *p
			q.origin = newOrigin(q.origin.Value().by, sharedPeer("a\n/a\x1b"))
			put(s, &s.pins, &q)
		},
		"copy of nobody": func(s *State) {
			p, _ := s.pins.least()
			q := *p
			q.setHeld([]slot{s.slots.with("eve").of("eve")})
			s.slots = s.slots.with("eve")
			put(s, &s.pins, &q)
		},
		"copy that is unproven": func(s *State) {
			p, _ := s.pins.least()
			q := *p
			q.setHeld([]slot{1})
			q.setUnproven([]slot{1})
			put(s, &s.pins, &q)
		},
		"copies twice": func(s *State) {
			p, _ := s.pins.least()
			q := *p
			q.setHeld([]slot{1, 1})
			put(s, &s.pins, &q)
		},
		"grace":       func(s *State) { g := *s.group; g.Grace = 1; s.setGroup(&g) },
		"no replicas": func(s *State) { p, _ := s.pins.least(); q := *p; q.replicas = 0; put(s, &s.pins, &q) },
		"member's vote": func(s *State) {
			m, _ := s.members.least()
			n := *m
			n.Vote = 9
			put(s, &s.members, &n)
		},
	} {
		g := newGroup(t)
		g.want(OK, "ann", &Grant{Peer: "bob", Role: RoleAdmin})
		g.want(OK, "bob", &Revoke{Peer: "bob", Role: RoleAdmin})
		g.want(OK, "ann", pinAs("a", 1))
		g.applied += 5
		damage(g.State)
		if _, err := Decode(bytes.NewReader(encoded(t, g.State))); !errors.Is(err, ErrBadState) {
			t.Errorf("%s: %v, want %v", what, err, ErrBadState)
		}
	}
}

func TestDecodeDoesNotAllocateWhatIsDeclared(t *testing.T) {
	head := append([]byte(stateMagic), stateVersion, 1)
	bomb := append(head, 0xff, 0xff, 0x0f, byte(tagPast))
	bomb = append(bomb, bytes.Repeat([]byte{0xff}, 100)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := Decode(bytes.NewReader(bomb)); !errors.Is(err, ErrBadState) {
			t.Fatalf("Decode: %v, want %v", err, ErrBadState)
		}
	}
	runtime.ReadMemStats(&after)
	if perDecode := (after.TotalAlloc - before.TotalAlloc) / 100; perDecode > 1<<20 {
		t.Errorf("Decode of %d bytes allocates %d", len(bomb), perDecode)
	}
}

func FuzzDecode(f *testing.F) {
	w := &world{rng: rand.New(rand.NewPCG(3, 3))}
	s := New()
	for i := range uint64(60) {
		data := encoded(f, s)
		f.Add(data[len(stateMagic)+2 : len(data)-1-2*sha256.Size])
		must(s.Apply(i+1, w.frame(s)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// The fuzzer makes records; with the sums right they get as far as they can.
		_, _ = Decode(bytes.NewReader(data))
		in := append(append([]byte(stateMagic), stateVersion, 100), data...)
		in = append(in, 0)
		s := New()
		_ = s.loadAll(&input{r: bytes.NewReader(in[len(stateMagic)+2:]), sum: sha256.New()}, stateVersion)
		h := s.Hash()
		in = append(in, h[:]...)
		sum := sha256.Sum256(in)
		in = append(in, sum[:]...)
		decoded, err := Decode(bytes.NewReader(in))
		if err != nil {
			return
		}
		if !bytes.Equal(encoded(t, decoded), in) {
			t.Error("a state in another form than that of Encode is decoded")
		}
	})
}
