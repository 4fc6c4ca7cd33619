package share

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// Peers that ask for what they should not, and more than anybody needs. A
// server must live through it, serve others meanwhile, and keep nothing.

// besieged is a sharer with one file, and a raw peer that is connected to it.
type besieged struct {
	*testPeer
	stop func()
	id   content.ID
	data []byte
	raw  *node.Node
}

func startBesieged(t *testing.T) *besieged {
	t.Helper()
	p, stop := startPeer(t, node.Config{})
	b := &besieged{testPeer: p, stop: stop, data: randomBytes(16<<20, "besieged")}
	b.id = p.add(t, p.write(t, "film.mp4", b.data), AddOptions{}).ID
	b.raw = startRaw(t, nil, nil)
	if err := b.raw.Connect(t.Context(), p.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	return b
}

// open opens a stream to the sharer, with a deadline for everything on it.
func (b *besieged) open(t *testing.T, proto protocol.ID) network.Stream {
	t.Helper()
	s, err := b.raw.Open(t.Context(), b.ID(), proto, node.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Reset() })
	return s
}

// mustServe gets the file, as an honest peer that has just come.
func (b *besieged) mustServe(t *testing.T) {
	t.Helper()
	getter, stop := startPeer(t, node.Config{})
	defer stop()
	w := What{ID: b.id, Name: "film.mp4", Kind: KindFile, Peers: []peer.AddrInfo{b.AddrInfo()}}
	if got := <-getter.start(t.Context(), w, GetOptions{}); got.err != nil {
		t.Fatalf("an honest Get: %v", got.err)
	}
	mustBe(t, filepath.Join(getter.dir, "film.mp4"), b.data)
}

// mustEndClean stops the sharer, which waits for its handlers, and looks for
// goroutines that serve a stream still.
func (b *besieged) mustEndClean(t *testing.T) {
	t.Helper()
	b.stop()
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	for _, s := range strings.Split(stacks.String(), "\n\n") {
		if strings.Contains(s, "share.(*dataServer)") || strings.Contains(s, "share.(*Library).serve") {
			t.Errorf("a goroutine is left:\n%s", s)
		}
	}
}

func readAnswerFrame(t *testing.T, r io.Reader) (frameHeader, dataAnswer) {
	t.Helper()
	h, err := readHeader(r, answerMax)
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, h.length)
	if _, err := io.ReadFull(r, payload); err != nil {
		t.Fatal(err)
	}
	a, err := decodeAnswer(h.kind, payload)
	if err != nil {
		t.Fatal(err)
	}
	return h, a
}

func TestServerRefusesWhatCanNotBeAnswered(t *testing.T) {
	b := startBesieged(t)
	small := []byte("one group")
	smallID := b.add(t, b.write(t, "small", small), AddOptions{}).ID
	s := b.open(t, dataProtocol)
	for tag, test := range []struct {
		q    dataRequest
		want errorCode // 0: it is answered
	}{
		{dataRequest{kind: frameSpan, id: b.id, first: 64, count: 1}, codeMalformed},
		{dataRequest{kind: frameSpan, id: b.id, first: 60, count: 5}, codeMalformed},
		{dataRequest{kind: frameSpan, id: b.id, first: content.SizeMax / content.GroupSize, count: 64}, codeMalformed},
		{dataRequest{kind: frameOutboard, id: b.id, first: 0, count: 65}, codeMalformed},
		{dataRequest{kind: frameOutboard, id: b.id, first: 1, count: outboardCountMax}, codeMalformed},
		{dataRequest{kind: frameOutboard, id: b.id, level: 1, count: 1}, codeMalformed},
		{dataRequest{kind: frameOutboard, id: smallID, level: 1, count: 1}, codeMalformed},
		{dataRequest{kind: frameOutboard, id: smallID, count: 2}, codeMalformed},
		{dataRequest{kind: frameInfo, id: content.Root([]byte("not held"))}, codeNotHeld},
		{dataRequest{kind: frameSpan, id: content.Root([]byte("not held")), count: 1}, codeNotHeld},
		{dataRequest{kind: frameInfo}, codeNotHeld},
		{dataRequest{kind: frameOutboard, id: smallID, count: 1}, 0},
		{dataRequest{kind: frameSpan, id: smallID, count: 1}, 0},
		{dataRequest{kind: frameInfo, id: b.id}, 0},
	} {
		if _, err := s.Write(test.q.append(nil, uint32(tag))); err != nil {
			t.Fatal(err)
		}
		h, a := readAnswerFrame(t, s)
		if h.tag != uint32(tag) || a.code != test.want {
			t.Errorf("answer to %+v is %#x with code %d, want code %d", test.q, h.kind, a.code, test.want)
		}
	}
	b.mustServe(t)
	b.mustEndClean(t)
}

func TestServerEndsMalformedStreams(t *testing.T) {
	b := startBesieged(t)
	span := dataRequest{kind: frameSpan, id: b.id, count: spanCountMax}
	var flood []byte // 3.75 GiB are asked for, and then comes nonsense
	for tag := range uint32(240) {
		flood = span.append(flood, tag)
	}
	for name, bad := range map[string][]byte{
		"text":                       []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"),
		"noise":                      randomBytes(1000, "noise"),
		"unknown type":               frame(0x7f, 1, make([]byte, 32)),
		"an answer":                  frame(frameLast, 1, make([]byte, 20)),
		"payload too long":           frame(frameInfo, 1, make([]byte, 33)),
		"payload too short":          frame(frameInfo, 1, make([]byte, 31)),
		"payload of 4 GiB":           append(appendHeader(nil, frameInfo, 1, 1<<32-1), make([]byte, 1000)...),
		"no count":                   dataRequest{kind: frameSpan, id: b.id}.append(nil, 1),
		"count above the limit":      dataRequest{kind: frameSpan, id: b.id, count: spanCountMax + 1}.append(nil, 1),
		"values above the limit":     dataRequest{kind: frameOutboard, id: b.id, count: outboardCountMax + 1}.append(nil, 1),
		"level 2":                    dataRequest{kind: frameOutboard, id: b.id, level: 2, count: 1}.append(nil, 1),
		"index above the limit":      dataRequest{kind: frameSpan, id: b.id, first: -1, count: 1}.append(nil, 1),
		"nonsense after many spans":  append(flood, frame(0x7f, 1000)...),
		"a tag in use by many spans": append(bytes.Clone(flood), span.append(nil, 200)...),
	} {
		t.Run(name, func(t *testing.T) {
			s := b.open(t, dataProtocol)
			if _, err := s.Write(bad); err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, s)
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the stream ends with %v after %d bytes, want it reset", err, n)
			}
			if n > 1<<30 {
				t.Errorf("%d MiB came after the nonsense", n>>20)
			}
		})
	}
	b.mustServe(t)
	b.mustEndClean(t)
}

func TestServerAnswersMalformedQuestionsAboutNames(t *testing.T) {
	b := startBesieged(t)
	s := b.open(t, metaProtocol)
	in := newLineReader(s)
	for _, line := range []string{
		"", "null", "[]", "7", "{}", "{", "\xff", `{"op":"nonsense"}`, `{"op":"name"}`, `{"op":"name","key":"zz"}`, `{"op":"name","key":"1220"}`,
		`{"op":"id","id":"b3:12"}`, `{"op":"id","op":"id"}`, `{"op":"name","key":"` + strings.Repeat("ab", 20_000) + `"}`,
		strings.Repeat("[", 50_000),
	} {
		if _, err := io.WriteString(s, line+"\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := readLine(in)
		if err != nil {
			t.Fatalf("after %.40q: %v", line, err)
		}
		if a, err := decodeMetaAnswer(answer); err != nil || !a.End || a.Error == "" {
			t.Errorf("answer to %.40q is %s, %v, want an error", line, answer, err)
		}
	}
	if _, err := s.Write(bytes.Repeat([]byte("x"), metaLineMax+10)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, s); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after a line without end the stream ends with %v, want it reset", err)
	}
	b.mustServe(t)
	b.mustEndClean(t)
}

func TestServerIsBoundedByWhatItAnswers(t *testing.T) {
	b := startBesieged(t)
	before := heapInUse()
	// 100,000 requests for 16 MiB each, on as many streams as one peer may
	// have, and nobody reads.
	var flood []byte
	for tag := range uint32(100_000) {
		flood = dataRequest{kind: frameSpan, id: b.id, count: spanCountMax}.append(flood, tag)
	}
	for range dataStreamsMax {
		s := b.open(t, dataProtocol)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			s.Write(flood) // until the window is full, and then until it is reset
		}()
		t.Cleanup(func() {
			s.Reset()
			<-sent
		})
	}
	b.mustServe(t)
	// The windows of the streams, 4 MiB each way, and what the getter left.
	if grown := heapInUse() - before; grown > 128<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	b.mustEndClean(t)
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

func TestServerLimitsTheStreamsOfOnePeer(t *testing.T) {
	b := startBesieged(t)
	info := dataRequest{kind: frameInfo, id: b.id}.append(nil, 0)
	served, refused := 0, 0
	for range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		s, err := b.raw.Open(ctx, b.ID(), dataProtocol, node.OpenOptions{})
		cancel()
		if err != nil {
			refused++
			continue
		}
		t.Cleanup(func() { s.Reset() })
		if err := s.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = s.Write(info)
		if err == nil {
			_, err = readHeader(s, answerMax)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatal("a stream is neither served nor refused")
		case err != nil:
			refused++
		default:
			served++
		}
	}
	if served != dataStreamsMax {
		t.Errorf("%d streams of one peer are served and %d refused, want %d served", served, refused, dataStreamsMax)
	}
	b.mustServe(t)
	b.mustEndClean(t)
}
