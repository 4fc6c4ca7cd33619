package share

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
)

// begin is Get in a goroutine of the test's, and tells when bytes have come.
func (p *testPeer) begin(ctx context.Context, w What, dir string) (ended <-chan running, moving <-chan struct{}) {
	result, moves := make(chan running, 1), make(chan struct{})
	once := sync.OnceFunc(func() { close(moves) })
	go func() {
		got, err := p.lib.Get(ctx, w, GetOptions{Dir: dir, Progress: func(p Progress) {
			if p.Phase == PhaseFetching && p.Done > content.GroupSize { // more than what proves the size
				once()
			}
		}})
		result <- running{got, err}
	}()
	return result, moves
}

// awaitMoving fails when no bytes come in time.
func awaitMoving(t *testing.T, who string, moving <-chan struct{}, ended <-chan running) {
	t.Helper()
	select {
	case <-moving:
	case r := <-ended:
		t.Fatalf("%s has ended before the gate was passed: %+v, %v", who, r.got, r.err)
	case <-time.After(20 * time.Second):
		t.Fatalf("%s has nothing while the gate is closed", who)
	}
}

func TestGetterServesWhatItHasWhileItFetches(t *testing.T) {
	data := randomBytes(64*content.GroupSize, "crowd")
	g := startGate(t, data, 4)
	first, _ := startPeer(t, node.Config{})
	second, _ := startPeer(t, node.Config{Role: node.RoleVisitor})
	ended1, moving1 := first.begin(t.Context(), g.film(), first.dir)
	awaitMoving(t, "the first", moving1, ended1)
	w := g.film()
	w.Peers = []peer.AddrInfo{first.AddrInfo()}
	ended2, moving2 := second.begin(t.Context(), w, second.dir)
	awaitMoving(t, "the second", moving2, ended2)
	g.pass()
	for who, ended := range map[string]<-chan running{"first": ended1, "second": ended2} {
		r := <-ended
		if r.err != nil {
			t.Fatalf("the %s: %v", who, r.err)
		}
		mustBe(t, r.got.Path, data)
		if who == "second" && (len(r.got.Sources) == 0 || !slices.ContainsFunc(r.got.Sources, func(s SourceStat) bool { return s.Peer == first.ID() })) {
			t.Errorf("the second got it from %+v, want from the first", r.got.Sources)
		}
	}
}

func TestTwoGetsOfOneContentShareOneDownload(t *testing.T) {
	data := randomBytes(64*content.GroupSize, "twice")
	g := startGate(t, data, 4)
	p, _ := startPeer(t, node.Config{})
	ended1, moving1 := p.begin(t.Context(), g.film(), t.TempDir())
	awaitMoving(t, "the first", moving1, ended1)
	ended2, moving2 := p.begin(t.Context(), g.film(), t.TempDir())
	awaitMoving(t, "the second", moving2, ended2)
	g.pass()
	fetched := int64(0)
	for _, ended := range []<-chan running{ended1, ended2} {
		r := <-ended
		if r.err != nil {
			t.Fatal(r.err)
		}
		mustBe(t, r.got.Path, data)
		fetched += r.got.BytesFetched
	}
	if fetched != int64(len(data)) {
		t.Errorf("%d bytes were fetched by both together, want the %d of the file", fetched, len(data))
	}
}

// The second get goes on by itself when the first is cancelled, with what that
// one had.
func TestAFollowerGoesOnWhenTheFirstGetEnds(t *testing.T) {
	data := randomBytes(64*content.GroupSize, "cancelled")
	g := startGate(t, data, 4)
	p, _ := startPeer(t, node.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended1, moving1 := p.begin(ctx, g.film(), t.TempDir())
	awaitMoving(t, "the first", moving1, ended1)
	ended2, moving2 := p.begin(t.Context(), g.film(), t.TempDir())
	awaitMoving(t, "the second", moving2, ended2)
	cancel()
	if r := <-ended1; !errors.Is(r.err, context.Canceled) {
		t.Errorf("the first: %v, want it cancelled", r.err)
	}
	g.pass()
	r := <-ended2
	if r.err != nil {
		t.Fatal(r.err)
	}
	mustBe(t, r.got.Path, data)
	if r.got.BytesFetched >= int64(len(data)) {
		t.Errorf("the second fetched all of it, and had a part")
	}
}

// TestAFollowerOfAnEditedFileGoesOn has a get of a directory be done with a file, and
// kept at the others; the file is edited meanwhile, and asked for once more.
func TestAFollowerOfAnEditedFileGoesOn(t *testing.T) {
	data := randomBytes(12*content.GroupSize, "edited")
	_, o := nameContent(t, data)
	g := startGate(t, data, openGate)
	for name, test := range map[string]struct {
		sources bool
		ordered bool
	}{"from others": {sources: true}, "in order": {sources: true, ordered: true}, "from nobody": {}} {
		t.Run(name, func(t *testing.T) {
			p, _ := startPeer(t, node.Config{NoDHT: true})
			edited := slices.Clone(data)
			edited[3*content.GroupSize] ^= 1
			file, err := os.Open(p.write(t, "edited.mp4", edited))
			if err != nil {
				t.Fatal(err)
			}
			have := swarm.NewBitfield(12)
			for i := range have.Len() {
				have.Set(i)
			}
			done := &transfer{id: g.id, size: int64(len(data)), outboard: o, segments: o.Segments, file: file,
				have: have, users: 1, public: true, change: make(chan struct{})}
			p.lib.transfers.byID[g.id] = done
			what, options := g.film(), GetOptions{Dir: t.TempDir()}
			if !test.sources {
				what.Peers = nil
			}
			var stream bytes.Buffer
			if test.ordered {
				options = GetOptions{Output: &stream}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			got, err := p.lib.Get(ctx, what, options)
			if !test.sources {
				if err == nil || ctx.Err() != nil {
					t.Errorf("Get from nobody else = %v, want an error in time", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if test.ordered && !bytes.Equal(stream.Bytes(), data) {
				t.Error("other bytes were streamed")
			}
			if !test.ordered {
				mustBe(t, got.Path, data)
			}
			if want := int64(content.GroupSize); !test.ordered && got.BytesFetched != want {
				t.Errorf("%d bytes were fetched, want the group that was edited: %d", got.BytesFetched, want)
			}
			// The kept one ends, and takes nobody else's place.
			other := &transfer{id: g.id}
			p.lib.transfers.byID[g.id] = other
			p.lib.exit(done)
			if p.lib.transfers.byID[g.id] != other {
				t.Error("the end of one transfer made another one be forgotten")
			}
		})
	}
}

func TestALiarIsNotAskedInTheNextGet(t *testing.T) {
	t.Parallel() // it mostly waits
	data := randomBytes(700_000, "liar")
	liar := newDataLiar(t, data, flipIn(1, 5))
	n := startRaw(t, nil, handlers{dataProtocol: liar.serve})
	getter, _ := startPeer(t, node.Config{})
	what := Link{ID: liar.id, Name: "a", Kind: KindFile, Peers: []peer.AddrInfo{n.AddrInfo()}}.String()
	var said notes
	if _, err := getter.get(t, what, GetOptions{Note: said.add}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("Get from a liar = %v, want ErrCorrupt", err)
	}
	if lines := said.about(n.ID().String()); len(lines) != 1 || !strings.Contains(lines[0], "chunk group 1") {
		t.Errorf("notes about the liar: %q, want one with what it did", lines)
	}
	got, err := getter.get(t, what, GetOptions{})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "not asked again") || !slices.Equal(got.Corrupt, []peer.ID{n.ID()}) {
		t.Errorf("the next Get = %v, corrupt %v, want the liar named, and not asked", err, got.Corrupt)
	}
}

func TestHavesAreChecked(t *testing.T) {
	const size = 100 * content.GroupSize
	many := make([][2]int64, havesMax+1)
	for i := range many {
		many[i] = [2]int64{int64(2 * i), 1}
	}
	tests := map[string]struct {
		answer metaAnswer
		first  int64
		more   int64
		spans  []content.Span
		bad    bool
	}{
		"all":              {answer: metaAnswer{Size: size, All: true}},
		"two runs":         {answer: metaAnswer{Size: size, Haves: [][2]int64{{0, 2}, {5, 95}}}, spans: []content.Span{{First: 0, Count: 2}, {First: 5, Count: 95}}},
		"more":             {answer: metaAnswer{Size: size, Haves: [][2]int64{{3, 2}}, More: 70}, more: 70, spans: []content.Span{{First: 3, Count: 2}}},
		"nothing yet":      {answer: metaAnswer{Size: size}},
		"negative size":    {answer: metaAnswer{Size: -1}, bad: true},
		"impossible size":  {answer: metaAnswer{Size: content.SizeMax + 1}, bad: true},
		"beyond the end":   {answer: metaAnswer{Size: size, Haves: [][2]int64{{99, 2}}}, bad: true},
		"from far outside": {answer: metaAnswer{Size: size, Haves: [][2]int64{{1 << 62, 1 << 62}}}, bad: true},
		"negative":         {answer: metaAnswer{Size: size, Haves: [][2]int64{{-1, 2}}}, bad: true},
		"an empty run":     {answer: metaAnswer{Size: size, Haves: [][2]int64{{1, 0}}}, bad: true},
		"descending":       {answer: metaAnswer{Size: size, Haves: [][2]int64{{5, 1}, {3, 1}}}, bad: true},
		"touching":         {answer: metaAnswer{Size: size, Haves: [][2]int64{{3, 1}, {4, 1}}}, bad: true},
		"before the first": {answer: metaAnswer{Size: size, Haves: [][2]int64{{3, 1}}}, first: 4, bad: true},
		"more of nothing":  {answer: metaAnswer{Size: size, More: 5}, bad: true},
		"more backwards":   {answer: metaAnswer{Size: size, Haves: [][2]int64{{3, 2}}, More: 4}, bad: true},
		"more beyond":      {answer: metaAnswer{Size: size, Haves: [][2]int64{{3, 2}}, More: 100}, bad: true},
		"too many runs":    {answer: metaAnswer{Size: 1 << 40, Haves: many}, bad: true},
		"too many peers":   {answer: metaAnswer{Size: size, Peers: make([]toldPeer, toldMax+1)}, bad: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var h havesAnswer
			more, err := h.take(tt.answer, tt.first)
			if tt.bad != (err != nil) {
				t.Fatalf("take = %v, want an error: %t", err, tt.bad)
			}
			if err == nil && (more != tt.more || !cmp.Equal(h.spans, tt.spans)) {
				t.Errorf("take = %d, %v, want %d, %v", more, h.spans, tt.more, tt.spans)
			}
		})
	}
}

func TestWhoAskedLatelyIsForgotten(t *testing.T) {
	l := lately{byID: map[content.ID][]askedAt{}}
	now := time.Unix(1e9, 0)
	id := content.Root(nil)
	for i := range latelyPeersMax + 3 {
		l.note(id, peer.ID(rune('a'+i)), now)
	}
	if others := l.note(id, "me", now); len(others) != latelyPeersMax || others[0] != peer.ID(rune('a'+latelyPeersMax+2)) {
		t.Errorf("%d others are remembered, latest %q; want %d and the last", len(others), others[0], latelyPeersMax)
	}
	if others := l.note(id, "me", now.Add(latelyFor+1)); len(others) != 0 {
		t.Errorf("after %v %v are remembered", latelyFor, others)
	}
	for i := range 2 * latelyMax {
		l.note(content.Root([]byte{byte(i), byte(i >> 8)}), "me", now.Add(time.Duration(i)))
	}
	if len(l.byID) != latelyMax {
		t.Errorf("%d contents are remembered, want %d", len(l.byID), latelyMax)
	}
}

// TestAGetDoesNotGiveAwayWhatIsScoped has a peer that shares a file with one other
// peer only get a stranger's directory with that file in it.
func TestAGetDoesNotGiveAwayWhatIsScoped(t *testing.T) {
	secret := randomBytes(40*content.GroupSize, "secret")
	small := randomBytes(1000, "small secret")
	net := startNetwork(t, 2)
	owner, friend := net[1], net[2]
	var ids []content.ID
	for name, data := range map[string][]byte{"secret": secret, "small": small} {
		owner.write(t, name, data)
		s := owner.add(t, filepath.Join(owner.dir, name), AddOptions{Scope: Scope{To: friend.ID()}})
		ids = append(ids, s.ID)
		friend.write(t, "bait/"+name, data) // who may have it passes it on
	}
	friend.add(t, filepath.Join(friend.dir, "bait"), AddOptions{})
	copied, err := owner.lib.Get(t.Context(), What{ID: ids[0]}, GetOptions{Target: filepath.Join(owner.dir, "copy")})
	if err != nil {
		t.Fatal(err)
	}
	if _, shared, err := owner.lib.catalog.byPath(copied.Path); err != nil || shared {
		t.Errorf("a copy of a file for one peer is shared (%v)", err)
	}
	got, err := owner.get(t, "bait", GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.BytesFetched < int64(len(secret)+len(small)) {
		t.Errorf("%d bytes were fetched: the rest came from what is not everybody's", got.BytesFetched)
	}
}
