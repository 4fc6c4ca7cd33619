package share

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// bulkServer is a peer that serves l's content: over libp2p streams by stream,
// and over bulk connections by bulk, each nil for honest.
type bulkServer struct {
	*dataLiar
	stream, bulk func(node.Stream) error
}

func startBulkServer(t *testing.T, b *bulkServer) *node.Node {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n, err := node.New(ctx, node.Config{Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, NoMulticast: true, NoDHT: true})
	if err != nil {
		t.Fatal(err)
	}
	n.HandleBulk(dataProtocol, node.HandlerConfig{}, node.HandlerConfig{}, func(_ context.Context, s node.Stream) error {
		fn := b.bulk
		if _, ok := s.(interface{ Conn() network.Conn }); ok {
			fn = b.stream
		}
		if fn == nil {
			return b.answer(s)
		}
		return fn(s)
	})
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	<-n.Listening()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, n.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return n
}

// openWide opens n as a source, with as many bulk connections as there will be.
func openWide(t *testing.T, n *node.Node, id content.ID) *remote {
	t.Helper()
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	if err := getter.Connect(t.Context(), n.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	r, err := getter.lib.openRemote(t.Context(), n.ID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	r.widen(t.Context(), id)
	r.opening.Wait()
	return r
}

// mustBring asks r for all of data, in spans of 16 groups at a time.
func mustBring(t *testing.T, r *remote, id content.ID, data []byte) {
	t.Helper()
	got := make([]byte, len(data))
	size := int64(len(data))
	var wg sync.WaitGroup
	for first := int64(0); first < content.GroupCount(size); first += 16 {
		wg.Go(func() {
			span := content.Span{First: first, Count: min(16, content.GroupCount(size)-first)}
			err := r.span(t.Context(), id, size, span, func(i int64, b []byte) error {
				copy(got[i*content.GroupSize:], b)
				return nil
			})
			if err != nil {
				t.Errorf("span %v: %v", span, err)
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(got, data) {
		t.Error("what came is not the content")
	}
}

func TestSpansComeOverBulkConnections(t *testing.T) {
	data := randomBytes(16<<20, "bulk")
	b := &bulkServer{dataLiar: newDataLiar(t, data, noLie)}
	b.stream = func(node.Stream) error { return errors.New("nothing is to come this way") }
	r := openWide(t, startBulkServer(t, b), b.id)
	if len(r.bulk) != bulkLanes {
		t.Fatalf("there are %d bulk connections, want %d", len(r.bulk), bulkLanes)
	}
	mustBring(t, r, b.id, data)
	// And the small questions, once the stream has broken.
	if size, err := r.size(t.Context(), b.id); size != int64(len(data)) || err != nil {
		t.Errorf("size = %d, %v", size, err)
	}
	values, err := r.values(t.Context(), b.id, 0, 0, content.GroupCount(int64(len(data))))
	if err != nil || !bytes.Equal(values, b.outboard) {
		t.Errorf("the outboard that came is another, or none: %v", err)
	}
}

// cutStream breaks after some bytes.
type cutStream struct {
	node.Stream
	left int
}

func (c *cutStream) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		c.Stream.Write(p[:len(p)/2]) // in the middle of a frame
		return 0, io.ErrClosedPipe
	}
	return c.Stream.Write(p)
}

func TestBrokenBulkConnectionsAreDoneWithout(t *testing.T) {
	data := randomBytes(32<<20, "cut")
	b := &bulkServer{dataLiar: newDataLiar(t, data, noLie)}
	b.bulk = func(s node.Stream) error { return b.answer(&cutStream{s, 5 << 20}) }
	r := openWide(t, startBulkServer(t, b), b.id)
	mustBring(t, r, b.id, data)
	if len(r.bulk) > 0 || len(r.broken) != bulkLanes {
		t.Errorf("%d connections are left and %d broken, want all broken", len(r.bulk), len(r.broken))
	}
}

func TestSourceIsLostWithItsLastLane(t *testing.T) {
	data := randomBytes(32<<20, "lost")
	b := &bulkServer{dataLiar: newDataLiar(t, data, noLie)}
	cut := func(s node.Stream) error { return b.answer(&cutStream{s, 5 << 20}) }
	b.stream, b.bulk = cut, cut
	r := openWide(t, startBulkServer(t, b), b.id)
	var err error
	for range 8 {
		if err == nil {
			err = r.span(t.Context(), b.id, int64(len(data)), content.Span{Count: 16}, func(int64, []byte) error { return nil })
		}
	}
	if err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("span = %v, want the network's error", err)
	}
}

func TestGetWorksWhereThereAreNoBulkConnections(t *testing.T) {
	data := randomBytes(16<<20, "stream")
	l := newDataLiar(t, data, noLie)
	for name, n := range map[string]*node.Node{
		"not taken": startRaw(t, nil, handlers{dataProtocol: l.serve}),
		"refused": startBulkServer(t, &bulkServer{dataLiar: l, bulk: func(node.Stream) error {
			return errors.New("refused")
		}}),
		"silent": startBulkServer(t, &bulkServer{dataLiar: l, bulk: func(s node.Stream) error {
			_, err := io.Copy(io.Discard, s)
			return err
		}}),
	} {
		t.Run(name, func(t *testing.T) {
			getter, _ := startPeer(t, node.Config{NoDHT: true})
			w := What{ID: l.id, Name: "film.mp4", Kind: KindFile, Peers: []peer.AddrInfo{n.AddrInfo()}}
			start := time.Now()
			if got := <-getter.start(t.Context(), w, GetOptions{}); got.err != nil {
				t.Fatal(got.err)
			}
			if took := time.Since(start); took > requestWrite {
				t.Errorf("it took %s: bulk connections are waited for", took)
			}
			mustBe(t, filepath.Join(getter.dir, "film.mp4"), data)
		})
	}
}

func TestLiarOnABulkConnectionIsNamed(t *testing.T) {
	data := randomBytes(128<<20, "liar")
	liar := &bulkServer{dataLiar: newDataLiar(t, data, noLie)}
	lies := &dataLiar{data: liar.data, id: liar.id, outboard: liar.outboard}
	var opened sync.WaitGroup // until the bulk connections have answered
	opened.Add(bulkLanes)
	lies.lie = func(l *dataLiar, tag uint32, q dataRequest) []byte {
		answer := l.honest(tag, q)
		if q.kind == frameInfo {
			opened.Done()
		} else {
			answer[len(answer)-1] ^= 1
		}
		return answer
	}
	liar.lie = func(_ *dataLiar, _ uint32, q dataRequest) []byte {
		if q.kind == frameSpan && q.count > 1 {
			opened.Wait()
		}
		return nil
	}
	liar.bulk = func(s node.Stream) error { return lies.answer(s) }
	n := startBulkServer(t, liar)
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	w := What{ID: liar.id, Name: "film.mp4", Kind: KindFile, Peers: []peer.AddrInfo{n.AddrInfo()}}
	got := <-getter.start(t.Context(), w, GetOptions{})
	var bad *CorruptError
	if !errors.As(got.err, &bad) || bad.Peer != n.ID() || !slices.Contains(got.got.Corrupt, n.ID()) {
		t.Errorf("Get = %v, and names %v, want the liar", got.err, got.got.Corrupt)
	}
}

func TestServerLimitsTheBulkConnectionsOfOnePeer(t *testing.T) {
	b := startBesieged(t)
	info := dataRequest{kind: frameInfo, id: b.id}.append(nil, 0)
	served := 0
	for range bulkConnsMax + 3 {
		s, err := b.raw.OpenBulk(t.Context(), b.ID(), dataProtocol)
		if err != nil {
			continue
		}
		t.Cleanup(func() { s.Reset() })
		if err := s.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err = s.Write(info); err == nil {
			_, err = readHeader(s, answerMax)
		}
		if err == nil {
			served++
		}
	}
	if served != bulkConnsMax {
		t.Errorf("%d bulk connections of one peer are served, want %d", served, bulkConnsMax)
	}
	b.mustServe(t)
	b.mustEndClean(t)
}

func TestDepthFollowsRateAndRoundTrip(t *testing.T) {
	for _, test := range []struct {
		rate      float64 // MB/s
		roundTrip time.Duration
		want      int
	}{
		{0, 0, spansMin}, // not measured yet
		{0, 80 * time.Millisecond, 16},
		{2000, 500 * time.Microsecond, spansMin}, // loopback
		{10, 300 * time.Millisecond, spansMin},
		{200, 80 * time.Millisecond, 8}, // 16 MiB under way: room for as much again
		{280, 80 * time.Millisecond, 11},
		{1000, 80 * time.Millisecond, spansMax},
	} {
		var f flow
		start := time.Now()
		f.add(0, start)
		f.add(int64(test.rate*1e6/10), start.Add(100*time.Millisecond))
		if got := f.depth(test.roundTrip); got != test.want {
			t.Errorf("depth at %.0f MB/s and %s = %d, want %d", test.rate, test.roundTrip, got, test.want)
		}
	}
}
