package coord

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is some peers on a mock network whose links can be cut.
type world struct {
	t     testing.TB
	net   mocknet.Mocknet
	peers []*testPeer
	cut   map[[2]int]bool
	held  *fakeNet // where the peers' stores are

	recovery ed25519.PrivateKey // of the group that found made
}

type testPeer struct {
	*Coord
	n       *node.Node
	dir     string
	timing  Timing
	log     *slog.Logger
	store   Store
	scrub   time.Duration
	prepare func(*Coord) // before it runs; nil: nothing
	down    bool
	stop    func() error  // ends Coord.Run
	ended   chan struct{} // closed when Coord.Run has returned
}

// start opens the peer's Coord, and runs it.
func (p *testPeer) start(t testing.TB) {
	t.Helper()
	c, err := Open(p.n, Config{Dir: p.dir, Timing: p.timing, Log: p.log, Store: p.store, Scrub: p.scrub})
	if err != nil {
		t.Fatal(err)
	}
	if p.prepare != nil {
		p.prepare(c)
	}
	ended := make(chan struct{})
	p.Coord, p.down, p.ended = c, false, ended
	p.stop = background(func(ctx context.Context) error {
		defer close(ended)
		return c.Run(ctx)
	})
}

// crash ends the peer's Coord without a word to the others. start brings it back
// with what is in its directory.
func (p *testPeer) crash(t testing.TB) {
	t.Helper()
	for _, g := range p.Groups() {
		g.abrupt.Store(true)
	}
	p.down = true
	if err := errors.Join(p.stop(), p.Close()); err != nil {
		t.Errorf("crash: %v", err)
	}
}

// newWorld runs count peers, each with a Coord, until the test ends.
func newWorld(t testing.TB, count int) *world {
	return newWorldOf(t, count, func(int, *testPeer) {})
}

// newWorldOf is newWorld of peers that setup may change before they start.
func newWorldOf(t testing.TB, count int, setup func(i int, p *testPeer)) *world {
	t.Helper()
	w := &world{t: t, net: mocknet.New(), cut: map[[2]int]bool{}, held: newFakeNet()}
	for i := range count {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		h, err := w.net.AddPeer(key, ma.StringCast(fmt.Sprintf("/ip4/10.0.%d.%d/tcp/4001", i/250, i%250+1)))
		if err != nil {
			t.Fatal(err)
		}
		n, err := node.New(t.Context(), node.Config{Host: h, NoMulticast: true, NoDHT: true})
		if err != nil {
			t.Fatal(err)
		}
		p := &testPeer{n: n, log: testLog(i), store: w.held.store(n.ID())}
		setup(i, p)
		if p.dir == "" {
			p.dir = t.TempDir()
		}
		p.start(t)
		stopNode := background(n.Run)
		<-n.Listening()
		t.Cleanup(func() {
			if err := errors.Join(p.stop(), p.Close(), stopNode(), n.Close()); err != nil {
				t.Errorf("stop peer %d: %v", i, err)
			}
		})
		w.peers = append(w.peers, p)
	}
	if err := w.net.LinkAll(); err != nil {
		t.Fatal(err)
	}
	return w
}

// background runs fn until stop is called, which returns fn's error and may be
// called twice.
func background(fn func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var err error
	go func() { defer close(ended); err = fn(ctx) }()
	return func() error { cancel(); <-ended; return err }
}

// testLog writes to stderr what the peers log, when asked for by P2PSHARE_TESTLOG.
func testLog(i int) *slog.Logger {
	if os.Getenv("P2PSHARE_TESTLOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("p", i)
}

// link cuts the link of two peers, or mends it.
func (w *world) link(a, b int, up bool) {
	w.t.Helper()
	a, b = min(a, b), max(a, b)
	if w.cut[[2]int{a, b}] == !up {
		return
	}
	w.cut[[2]int{a, b}] = !up
	x, y := w.peers[a].n.ID(), w.peers[b].n.ID()
	if up {
		if _, err := w.net.LinkPeers(x, y); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	if err := errors.Join(w.net.UnlinkPeers(x, y), w.net.DisconnectPeers(x, y)); err != nil {
		w.t.Fatal(err)
	}
}

// isolate cuts a peer off from all others, or mends that.
func (w *world) isolate(i int, cut bool) {
	for j := range w.peers {
		if j != i {
			w.link(i, j, !cut)
		}
	}
}

// found makes a group of the first peer and has the others join as voters.
func (w *world) found(voters int) []*Group {
	w.t.Helper()
	g, key, err := w.peers[0].Create(w.t.Context(), "office", MemberOptions{Capacity: 1 << 30})
	if err != nil {
		w.t.Fatal(err)
	}
	w.recovery = key
	groups := []*Group{g}
	for i := 1; i < voters; i++ {
		groups = append(groups, w.join(i, AsVoter))
	}
	w.eventually("all vote", func() bool { return len(w.voters(g)) == voters })
	return groups
}

func (w *world) invite(as Admission) Token {
	w.t.Helper()
	g := w.peers[0].Groups()[0]
	token, err := w.peers[0].Client(g.ID()).Invite(w.t.Context(), as, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	again, err := ParseToken(token.String())
	if err != nil {
		w.t.Fatal(err)
	}
	return again
}

func (w *world) join(i int, as Admission) *Group {
	w.t.Helper()
	g, err := w.peers[i].Join(w.t.Context(), w.invite(as), "", MemberOptions{Capacity: 1 << 30})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) voters(g *Group) (list []Peer) {
	if m, err := g.running(); err == nil {
		for _, s := range m.servers() {
			if s.voter {
				list = append(list, s.id)
			}
		}
	}
	return list
}

// eventually waits, on the bubble's clock, for what nothing signals.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	start := time.Now()
	for !condition() {
		if time.Since(start) > time.Minute {
			w.t.Fatalf("waited a minute in vain until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// leader returns the index of the one peer that leads, -1 when there is not one.
// A group may be nil.
func (w *world) leader(groups []*Group) int {
	found := -1
	for i, g := range groups {
		if g == nil {
			continue
		}
		if m, err := g.running(); err == nil && m.leads() {
			if found >= 0 {
				return -1
			}
			found = i
		}
	}
	return found
}

func pinOf(name string) PinOptions {
	return PinOptions{Name: share.Name("n" + name), ID: content.Root([]byte(name)), Kind: KindFile, Size: int64(len(name)), Expect: ExpectAny}
}

func (w *world) hashesAgree(groups []*Group) bool {
	var first pinset.Digest
	var index uint64
	for i, g := range groups {
		m, err := g.running()
		if err != nil {
			return false
		}
		var h pinset.Digest
		var at uint64
		m.fsm.view(func(s *pinset.State) { h, at = s.Hash(), s.Index() })
		if i == 0 {
			first, index = h, at
		} else if h != first || at != index {
			return false
		}
	}
	return true
}

func TestGroupSurvivesItsLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		groups := w.found(3)
		id := groups[0].ID()
		lead := w.leader(groups)
		follower := (lead + 1) % 3

		if _, err := w.peers[follower].Client(id).Pin(t.Context(), pinOf("a")); err != nil {
			t.Fatalf("pin through a follower: %v", err)
		}
		b, fresh, err := w.peers[(lead+2)%3].Client(id).Resolve(t.Context(), "na", ReadOptions{})
		if err != nil || b.ID != content.Root([]byte("a")) || fresh.Stale {
			t.Fatalf("Resolve at another follower = %v, %v, %v", b, fresh, err)
		}

		w.isolate(lead, true)
		cut := time.Now()
		if _, err := w.peers[follower].Client(id).Pin(t.Context(), pinOf("b")); err != nil {
			t.Fatalf("pin after the leader was cut off: %v", err)
		}
		t.Logf("failover took %s", time.Since(cut))
		if took := time.Since(cut); took > 3*time.Second {
			t.Errorf("failover took %s, want at most 3s", took)
		}
		time.Sleep(5 * time.Second)
		if _, err := w.peers[lead].Client(id).Pin(t.Context(), pinOf("c")); !errors.Is(err, ErrNoQuorum) {
			t.Errorf("pin without quorum: %v, want ErrNoQuorum", err)
		}
		if _, _, err := w.peers[lead].Client(id).Resolve(t.Context(), "na", ReadOptions{}); !errors.Is(err, ErrNoQuorum) {
			t.Errorf("linearizable read without quorum: %v, want ErrNoQuorum", err)
		}
		b, fresh, err = w.peers[lead].Client(id).Resolve(t.Context(), "na", ReadOptions{Stale: true})
		if err != nil || !fresh.Stale || fresh.Age < 4*time.Second {
			t.Errorf("stale read without quorum = %v, %+v, %v", b, fresh, err)
		}

		w.isolate(lead, false)
		healed := time.Now()
		w.eventually("the old leader has caught up", func() bool { return w.hashesAgree(groups) })
		if _, err := w.peers[lead].Client(id).Pin(t.Context(), pinOf("c")); err != nil {
			t.Errorf("pin at the old leader after the cut was mended: %v", err)
		}
		t.Logf("healed in %s", time.Since(healed))
	})
}

func otherKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
