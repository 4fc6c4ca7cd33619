package share

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
)

// The fetch by itself: sources that are values, and peers at the other end of a
// pipe, on a clock that costs no time.

// madeSource is a source that holds data. What is nil answers honestly.
type madeSource struct {
	id       peer.ID
	data     []byte
	outboard *content.Outboard
	notHeld  bool
	onSpan   func(context.Context) error
}

func (s *madeSource) peer() peer.ID { return s.id }
func (s *madeSource) via() node.Via { return node.ViaLAN }
func (s *madeSource) close()        {}

func (s *madeSource) size(context.Context, content.ID) (int64, error) {
	if s.notHeld {
		return 0, errNotHeld
	}
	return int64(len(s.data)), nil
}

func (s *madeSource) values(_ context.Context, _ content.ID, _ byte, first, count int64) ([]byte, error) {
	return s.outboard.Bytes()[32*first:][:32*count], nil
}

func (s *madeSource) span(ctx context.Context, _ content.ID, size int64, span content.Span, fn func(int64, []byte) error) error {
	if s.notHeld {
		return errNotHeld
	}
	if s.onSpan != nil {
		if err := s.onSpan(ctx); err != nil {
			return err
		}
	}
	for i := span.First; i < span.End(); i++ {
		if err := fn(i, s.data[i*content.GroupSize:][:content.GroupLen(size, i)]); err != nil {
			return err
		}
	}
	return nil
}

// crowdOf has these sources, and no hope of others for id.
func crowdOf(id content.ID, sources ...source) *crowd {
	return &crowd{
		meter: newMeter(nil, PhaseLocal), live: sources,
		stats: map[peer.ID]*SourceStat{}, seen: map[peer.ID]bool{},
		searched: map[content.ID]bool{id: true}, change: make(chan struct{}), wide: dials{slots: make(chan struct{}, dialParallel)},
	}
}

// memorySink keeps what comes.
type memorySink struct {
	mu      sync.Mutex
	data    []byte
	onWrite func(index int64) error
}

func (m *memorySink) admit(int64) error { return nil }

func (m *memorySink) prepare(size int64, _ *content.Outboard) (*swarm.Bitfield, error) {
	m.data = make([]byte, size)
	return nil, nil
}

func (m *memorySink) write(index int64, data []byte) error {
	if m.onWrite != nil {
		if err := m.onWrite(index); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[index*content.GroupSize:], data)
	return nil
}

func newFetch(id content.ID, c *crowd, s sink) *fetch {
	return &fetch{crowd: c, meter: c.meter, id: id, size: -1, sink: s}
}

// A group counts as arrived while it is being written: that all have arrived
// does not mean that all were written.
func TestFetchFailsWhenTheLastWriteFails(t *testing.T) {
	data := randomBytes(3*content.GroupSize, "last write")
	id, o := nameContent(t, data)
	synctest.Test(t, func(t *testing.T) {
		writing, broken := make(chan struct{}), make(chan struct{})
		sink := &memorySink{onWrite: func(index int64) error {
			switch index {
			case 0:
				<-writing // settled only when the other group has arrived
			case 1:
				close(writing)
				<-broken
				return errBroken
			}
			return nil
		}}
		result := make(chan error, 1)
		// The other source owes groups, too, and when all is here it is the first
		// to end with an error: that it is not needed any more.
		asked := make(chan struct{})
		once := sync.OnceFunc(func() { close(asked) })
		slow := &madeSource{id: "slow", data: data, outboard: o, onSpan: func(ctx context.Context) error {
			once()
			<-ctx.Done()
			return ctx.Err()
		}}
		var spans atomic.Int64
		fast := &madeSource{id: "fast", data: data, outboard: o, onSpan: func(context.Context) error {
			if spans.Add(1) > 1 { // the first one proves the size
				<-asked
			}
			return nil
		}}
		go func() {
			_, err := newFetch(id, crowdOf(id, fast, slow), sink).run(t.Context())
			result <- err
		}()
		synctest.Wait() // all has arrived, and all but one write are done
		close(broken)
		if err := <-result; !errors.Is(err, errBroken) {
			t.Errorf("run = %v, want %v", err, errBroken)
		}
	})
}

// Peers that hold nothing can't take up all the places.
func TestFetchTriesThoseForWhomThereWasNoPlace(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	data := randomBytes(700_000, "spare")
	id, _ := nameContent(t, data)
	honest := startRaw(t, nil, handlers{dataProtocol: newDataLiar(t, data, noLie).serve})
	ctx, cancel := context.WithCancel(t.Context())
	c := getter.lib.newCrowd(newMeter(nil, PhaseLocal))
	defer func() {
		cancel()
		c.close()
	}()
	for i := range sourcesMax {
		c.live = append(c.live, &madeSource{id: peer.ID(rune('a' + i)), notHeld: true})
	}
	c.offer(ctx, honest.AddrInfo())
	sink := &memorySink{}
	if _, err := newFetch(id, c, sink).run(ctx); err != nil || !bytes.Equal(sink.data, data) {
		t.Errorf("run = %v, want the content from the one that holds it", err)
	}
}

// When one bad answer makes several requests fail, the first to be told need
// not be the one that says why.
func TestDropRemembersWhoLiedWhateverCameFirst(t *testing.T) {
	id := content.Root(nil)
	liar := &madeSource{id: "liar"}
	c := crowdOf(id, liar)
	c.drop(liar, io.ErrUnexpectedEOF)
	bad := &CorruptError{ID: id, Peer: "liar", Reason: "wrong"}
	c.drop(liar, bad)
	c.drop(liar, bad)
	if _, corrupt, _ := c.report(); !slices.Equal(corrupt, []peer.ID{"liar"}) {
		t.Errorf("corrupt = %v, want the liar once", corrupt)
	}
	if err := c.verdict(id); !errors.Is(err, ErrCorrupt) {
		t.Errorf("verdict = %v, want ErrCorrupt", err)
	}
}

// A size is only a word, and a gigantic outboard would be asked for on its
// strength.
func TestGetIsNotMovedByAWordAboutSize(t *testing.T) {
	t.Parallel() // it mostly waits
	net := startNetwork(t, 2)
	honest, getter := net[1], net[2]
	for _, size := range []int64{fetchSizeMax + 1, content.SizeMax} {
		data := randomBytes(1000, string(rune(size)))
		asked := make(chan frameType, 100)
		liar := newDataLiar(t, data, func(_ *dataLiar, tag uint32, q dataRequest) []byte {
			asked <- q.kind
			return frame(frameSize, tag, be64(size))
		})
		n := startRaw(t, nil, handlers{dataProtocol: liar.serve})
		w := What{ID: liar.id, Name: "film.mp4", Kind: KindFile, Peers: []peer.AddrInfo{n.AddrInfo()}}
		getter.dir = t.TempDir()
		if got := <-getter.start(t.Context(), w, GetOptions{}); !errors.Is(got.err, ErrRefused) {
			t.Errorf("Get of %d bytes = %v, want ErrRefused", size, got.err)
		}
		if q := <-asked; q != frameInfo || len(asked) > 0 {
			t.Errorf("asked for %#x and %d more, want the size only", q, len(asked))
		}
		honest.add(t, honest.write(t, "film.mp4", data), AddOptions{})
		if got := <-getter.start(t.Context(), w, GetOptions{}); got.err != nil {
			t.Errorf("Get with an honest peer: %v", got.err)
		}
		mustBe(t, filepath.Join(getter.dir, "film.mp4"), data)
	}
}

// A file that was changed a moment ago may be changed again within the same
// tick of the file system's clock.
func TestGetDoesNotTrustTheTimesOfAFreshTarget(t *testing.T) {
	p, _ := startPeer(t, node.Config{})
	data := []byte("there already")
	target := p.write(t, "x", data)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(target, later, later); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := &saving{root: root, name: "x", id: content.Root(data), size: -1, meter: newMeter(nil, PhaseLocal)}
	if same, err := s.compare(t.Context()); !same || err != nil {
		t.Fatalf("compare = %t, %v, want the same bytes", same, err)
	}
	info, err := os.Stat(target)
	if err != nil {
		t.Fatal(err)
	}
	if s.identity == sysIdentity(info) {
		t.Errorf("identity %+v would pass for the file's after another change", s.identity)
	}
}

// pipeStream is one end of a stream between peers in one synctest bubble.
type pipeStream struct {
	network.Stream // nil: what is not below is not called
	pipe           net.Conn
}

func newPipe() (a, b pipeStream) {
	x, y := net.Pipe()
	return pipeStream{pipe: x}, pipeStream{pipe: y}
}

func (s pipeStream) Read(p []byte) (int, error)         { return s.pipe.Read(p) }
func (s pipeStream) Write(p []byte) (int, error)        { return s.pipe.Write(p) }
func (s pipeStream) SetReadDeadline(at time.Time) error { return s.pipe.SetReadDeadline(at) }
func (s pipeStream) SetWriteDeadline(at time.Time) error {
	return s.pipe.SetWriteDeadline(at)
}
func (s pipeStream) Reset() error       { return s.pipe.Close() }
func (s pipeStream) Conn() network.Conn { return pipeConn{} }

type pipeConn struct{ network.Conn }

func (pipeConn) RemotePeer() peer.ID { return "other end" }
func (pipeConn) RemoteMultiaddr() ma.Multiaddr {
	return ma.StringCast("/ip4/127.0.0.1/tcp/1")
}

// readRequest reads one request from a stream.
func readRequest(t *testing.T, s io.Reader) (tag uint32, q dataRequest) {
	t.Helper()
	h, err := readHeader(s, requestMax)
	if err != nil {
		t.Error(err)
		return 0, q
	}
	payload := make([]byte, h.length)
	if _, err = io.ReadFull(s, payload); err == nil {
		q, err = decodeRequest(h.kind, payload)
	}
	if err != nil {
		t.Error(err)
	}
	return h.tag, q
}

func TestRemoteThatStallsIsGivenUp(t *testing.T) {
	for name, answer := range map[string][]byte{
		"before the answer":      nil,
		"in the frame's header":  frame(frameSize, 0, be64(7))[:5],
		"in the frame's payload": frame(frameSize, 0, be64(7))[:12],
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := newPipe()
				r := newRemote("other", node.StreamOf(ours))
				defer r.close()
				go func() {
					readRequest(t, theirs)
					theirs.Write(answer)
				}()
				start := time.Now()
				_, err := r.size(t.Context(), content.Root(nil))
				if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrCorrupt) {
					t.Errorf("size = %v, want a deadline's error, which is no lie", err)
				}
				if took := time.Since(start); took != answerStall {
					t.Errorf("it took %s, want %s", took, answerStall)
				}
			})
		})
	}
}

func TestRemoteMayBeSilentWhenItOwesNothing(t *testing.T) {
	for _, idle := range []time.Duration{time.Second, answerStall - time.Second, answerStall, time.Hour, time.Hour + time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := newPipe()
			r := newRemote("other", node.StreamOf(ours))
			defer r.close()
			time.Sleep(idle) // fake: nothing is waited for
			go func() {
				tag, _ := readRequest(t, theirs)
				time.Sleep(answerStall - time.Second) // fake: slow, but in time
				theirs.Write(frame(frameSize, tag, be64(7)))
			}()
			if size, err := r.size(t.Context(), content.Root(nil)); size != 7 || err != nil {
				t.Errorf("size after %s = %d, %v, want 7", idle, size, err)
			}
		})
	}
}

func TestRemoteMustEndWhatWasCancelled(t *testing.T) {
	for name, test := range map[string]struct {
		then []byte
		want error
	}{
		"ended":        {frame(frameError, 0, []byte{byte(codeCancelled)}), nil},
		"answered":     {frame(frameSize, 0, be64(7)), nil},
		"never":        {nil, os.ErrDeadlineExceeded},
		"ended twice":  {bytes.Repeat(frame(frameError, 0, []byte{byte(codeCancelled)}), 2), ErrCorrupt},
		"answered on":  {bytes.Repeat(frame(frameData, 0, be64(0)), 3), ErrCorrupt},
		"another ends": {frame(frameError, 7, []byte{byte(codeCancelled)}), ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := newPipe()
				r := newRemote("other", node.StreamOf(ours))
				defer r.close()
				id := content.Root(nil)
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					tag, _ := readRequest(t, theirs)
					cancel()
					if again, q := readRequest(t, theirs); again != tag || q.kind != frameCancel {
						t.Errorf("after the context's end came %+v under tag %d, want a cancel of %d", q, again, tag)
					}
					theirs.Write(test.then)
				}()
				if _, err := r.size(ctx, id); !errors.Is(err, context.Canceled) {
					t.Errorf("size = %v, want it cancelled", err)
				}
				time.Sleep(answerStall + time.Second) // fake
				go func() {
					if test.want == nil {
						tag, _ := readRequest(t, theirs)
						theirs.Write(frame(frameSize, tag, be64(7)))
					}
				}()
				if _, err := r.size(t.Context(), id); !errors.Is(err, test.want) {
					t.Errorf("the next request: %v, want %v", err, test.want)
				}
			})
		})
	}
}

func TestFetchGoesOnWithoutASourceThatStalls(t *testing.T) {
	data := randomBytes(40*content.GroupSize, "stall")
	id, o := nameContent(t, data)
	for name, after := range map[string]int{"from the start": 0, "after the size": 1, "in the middle": 5} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := newPipe()
				stalls := newRemote("stalls", node.StreamOf(ours))
				l := newDataLiar(t, data, noLie)
				go func() { // reads all, and answers the first few
					for n := 0; ; n++ {
						h, err := readHeader(theirs, requestMax)
						if err != nil {
							return
						}
						payload := make([]byte, h.length)
						if _, err := io.ReadFull(theirs, payload); err != nil {
							return
						}
						q, err := decodeRequest(h.kind, payload)
						if err != nil {
							t.Error(err)
							return
						}
						if n < after {
							theirs.Write(l.honest(h.tag, q))
						}
					}
				}()
				c := crowdOf(id, stalls, &madeSource{id: "honest", data: data, outboard: o})
				defer c.close()
				sink := &memorySink{}
				start := time.Now()
				if _, err := newFetch(id, c, sink).run(t.Context()); err != nil || !bytes.Equal(sink.data, data) {
					t.Errorf("run = %v, want the content from the other", err)
				}
				if took := time.Since(start); took > answerStall {
					t.Errorf("it took %s, want at most %s", took, answerStall)
				}
			})
		})
	}
}

// A getter on a slow line asks ahead, and then asks nothing for minutes.
func TestServerWaitsForAPeerThatReadsSlowly(t *testing.T) {
	p, _ := startPeer(t, node.Config{})
	id := p.add(t, p.write(t, "film.mp4", randomBytes(16<<20, "slow")), AddOptions{}).ID
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := newPipe()
		served := make(chan error, 1)
		go func() { served <- p.lib.serveData(t.Context(), ours) }()
		for tag := range uint32(4) {
			if _, err := theirs.Write(dataRequest{kind: frameSpan, id: id, count: 64}.append(nil, tag)); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		for range 4 * 64 {
			time.Sleep(10 * time.Second) // fake: 26 kB/s
			if _, a := readAnswerFrame(t, theirs); a.kind == frameError {
				t.Fatalf("answered with error %d", a.code)
			}
		}
		if took := time.Since(start); took < 2*dataIdle {
			t.Errorf("it took %s, which shows nothing", took)
		}
		// When nothing is owed, the wait is not for ever.
		synctest.Wait()
		start = time.Now()
		if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an idle stream ends with %v, want a deadline's error", err)
		}
		if took := time.Since(start); took > dataIdle {
			t.Errorf("an idle stream ends after %s, want at most %s", took, dataIdle)
		}
	})
}
