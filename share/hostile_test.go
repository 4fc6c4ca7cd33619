package share

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"lukechampine.com/blake3/guts"
)

// Peers that lie about content. Each lie is told twice: once where nobody else
// has the content, and once where an honest peer has it, too. A getter must
// never write a wrong byte, must name the liar, and must not be kept from the
// content by it.

// handlers are the protocols of a peer that is not a Library.
type handlers map[protocol.ID]func(context.Context, network.Stream) error

// startRaw runs a node that speaks with the given handlers, in the network of
// the given bootstrap peers, until the test ends.
func startRaw(t *testing.T, bootstrap []peer.AddrInfo, hs handlers) *node.Node {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	n, err := node.New(ctx, node.Config{
		Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, NoMulticast: true, Bootstrap: bootstrap,
	})
	if err != nil {
		t.Fatal(err)
	}
	for proto, h := range hs {
		n.Handle(proto, node.HandlerConfig{}, h)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	<-n.Listening()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, n.Close()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	if len(bootstrap) > 0 && !n.WaitDHT(t.Context()) {
		t.Fatal("a peer did not enter the DHT")
	}
	return n
}

// nameContent returns the ID and the outboard (nil for one group) of data.
func nameContent(t *testing.T, data []byte) (content.ID, *content.Outboard) {
	t.Helper()
	id, o, err := hashContent(t.Context(), bytes.NewReader(data), int64(len(data)), true, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	return id, o
}

// frame is one frame of the data protocol.
func frame(kind frameType, tag uint32, parts ...[]byte) []byte {
	payload := slices.Concat(parts...)
	return append(appendHeader(nil, kind, tag, len(payload)), payload...)
}

func be64(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// dataLiar serves one content over the data protocol, but for its lie: lie
// returns what to send for a request, or nil for the honest answer.
type dataLiar struct {
	data     []byte
	id       content.ID
	outboard []byte
	lie      func(l *dataLiar, tag uint32, q dataRequest) []byte
}

// newDataLiar serves data.
func newDataLiar(t *testing.T, data []byte, lie func(*dataLiar, uint32, dataRequest) []byte) *dataLiar {
	t.Helper()
	l := &dataLiar{data: data, lie: lie}
	id, o := nameContent(t, data)
	if l.id = id; o != nil {
		l.outboard = o.Bytes()
	} else {
		l.outboard = id[:]
	}
	return l
}

func (l *dataLiar) serve(_ context.Context, s network.Stream) error { return l.answer(s) }

func (l *dataLiar) answer(s io.ReadWriter) error {
	payload := make([]byte, requestMax)
	for {
		h, err := readHeader(s, requestMax)
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(s, payload[:h.length]); err != nil {
			return err
		}
		q, err := decodeRequest(h.kind, payload[:h.length])
		if err != nil {
			return err
		}
		answer := l.lie(l, h.tag, q)
		if answer == nil {
			answer = l.honest(h.tag, q)
		}
		if _, err := s.Write(answer); err != nil {
			return err
		}
	}
}

func (l *dataLiar) group(i int64) []byte {
	return l.data[i*content.GroupSize:][:content.GroupLen(int64(len(l.data)), i)]
}

func (l *dataLiar) honest(tag uint32, q dataRequest) []byte {
	if q.first+q.count > content.GroupCount(int64(len(l.data))) {
		return frame(frameError, tag, []byte{byte(codeMalformed)})
	}
	switch q.kind {
	case frameInfo:
		return frame(frameSize, tag, be64(int64(len(l.data))))
	case frameOutboard:
		return frame(frameLast, tag, be64(q.first), l.outboard[32*q.first:][:32*q.count])
	case frameSpan:
		return l.span(tag, q, nil)
	}
	return []byte{} // a cancel: its request was answered before it was read
}

// span answers a span honestly, but for what twist does to a group.
func (l *dataLiar) span(tag uint32, q dataRequest, twist func(i int64, group []byte) []byte) []byte {
	var b []byte
	for i := q.first; i < q.first+q.count; i++ {
		kind, group := frameData, bytes.Clone(l.group(i))
		if i == q.first+q.count-1 {
			kind = frameLast
		}
		if twist != nil {
			group = twist(i, group)
		}
		b = append(b, frame(kind, tag, be64(i), group)...)
	}
	return b
}

// flipIn lies about one bit of one group.
func flipIn(index int64, at int) func(*dataLiar, uint32, dataRequest) []byte {
	return inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return l.span(tag, q, func(i int64, group []byte) []byte {
			if i == index {
				group[at] ^= 1
			}
			return group
		})
	})
}

func inSpans(lie func(l *dataLiar, tag uint32, q dataRequest) []byte) func(*dataLiar, uint32, dataRequest) []byte {
	return func(l *dataLiar, tag uint32, q dataRequest) []byte {
		if q.kind != frameSpan {
			return nil
		}
		return lie(l, tag, q)
	}
}

// tellSize lies about the size, in answer to info only.
func tellSize(size func(true int64) int64) func(*dataLiar, uint32, dataRequest) []byte {
	return func(l *dataLiar, tag uint32, q dataRequest) []byte {
		if q.kind != frameInfo {
			return nil
		}
		return frame(frameSize, tag, be64(size(int64(len(l.data)))))
	}
}

// shorter is the attack that package content warns of: a list of parents merges
// to the same ID as the true list, and stands for a shorter content.
func shorter(l *dataLiar, tag uint32, q dataRequest) []byte {
	switch q.kind {
	case frameInfo:
		return frame(frameSize, tag, be64(2*content.GroupSize))
	case frameOutboard:
		word := func(i int) (w [8]uint32) {
			for j := range w {
				w[j] = binary.LittleEndian.Uint32(l.outboard[32*i+4*j:])
			}
			return w
		}
		parent := func(left, right [8]uint32) [8]uint32 {
			return guts.ChainingValue(guts.ParentNode(left, right, &guts.IV, 0))
		}
		var list []byte
		for _, cv := range [][8]uint32{parent(parent(word(0), word(1)), parent(word(2), word(3))), word(4)} {
			for _, w := range cv {
				list = binary.LittleEndian.AppendUint32(list, w)
			}
		}
		return frame(frameLast, tag, be64(0), list)
	}
	return frame(frameLast, tag, be64(q.first), l.data[q.first*content.GroupSize:][:content.GroupSize])
}

// lieSize is five groups, the last one short.
const lieSize = 4*content.GroupSize + 1000

var dataLies = []struct {
	name string
	lie  func(*dataLiar, uint32, dataRequest) []byte
}{
	{"bit in the first group", flipIn(0, 0)},
	{"bit in a middle group", flipIn(2, 77777)},
	{"bit in the last group", flipIn(4, 999)},
	{"another content", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return l.span(tag, q, func(_ int64, group []byte) []byte { return randomBytes(len(group), "another") })
	})},
	{"groups exchanged", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return l.span(tag, q, func(i int64, group []byte) []byte {
			if i == 0 || i == 1 {
				return l.group(1 - i)
			}
			return group
		})
	})},
	{"group too short", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return l.span(tag, q, func(_ int64, group []byte) []byte { return group[:len(group)-1] })
	})},
	{"group too long", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return l.span(tag, q, func(_ int64, group []byte) []byte { return append(group, 0)[:min(len(group)+1, content.GroupSize)] })
	})},
	{"empty groups", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return l.span(tag, q, func(int64, []byte) []byte { return nil })
	})},
	{"wrong index", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return frame(frameData, tag, be64(q.first+1), l.group(min(q.first+1, 4)))
	})},
	{"index far outside", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return frame(frameData, tag, be64(content.SizeMax/content.GroupSize), l.group(0))
	})},
	{"impossible index", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return frame(frameData, tag, be64(-1), l.group(0))
	})},
	{"too few groups", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		if q.count == 1 {
			return nil
		}
		return frame(frameLast, tag, be64(q.first), l.group(q.first))
	})},
	{"no group", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return frame(frameLast, tag, be64(q.first))
	})},
	{"too many groups", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		b := l.span(tag, q, nil)
		last := len(b) - frameHeaderLen - 8 - len(l.group(q.first+q.count-1))
		b[last] = byte(frameData)
		return append(b, frame(frameLast, tag, be64(q.first+q.count), l.group(0))...)
	})},
	{"a size instead of groups", inSpans(func(_ *dataLiar, tag uint32, q dataRequest) []byte {
		return frame(frameSize, tag, be64(1))
	})},
	{"wrong outboard", func(l *dataLiar, tag uint32, q dataRequest) []byte {
		if q.kind != frameOutboard {
			return nil
		}
		list := bytes.Clone(l.outboard)
		list[40] ^= 0x80
		return frame(frameLast, tag, be64(0), list)
	}},
	{"outboard too short", func(_ *dataLiar, tag uint32, q dataRequest) []byte {
		if q.kind != frameOutboard {
			return nil
		}
		return frame(frameLast, tag, be64(0), make([]byte, 32))
	}},
	{"outboard of half values", func(_ *dataLiar, tag uint32, q dataRequest) []byte {
		if q.kind != frameOutboard {
			return nil
		}
		return frame(frameData, tag, be64(0), make([]byte, 33))
	}},
	{"outboard without end", func(_ *dataLiar, tag uint32, q dataRequest) []byte {
		if q.kind != frameOutboard {
			return nil
		}
		return bytes.Repeat(frame(frameData, tag, be64(0)), 1000)
	}},
	{"outboard of parents", shorter},
	{"one byte more", tellSize(func(n int64) int64 { return n + 1 })},
	{"one byte less", tellSize(func(n int64) int64 { return n - 1 })},
	{"size of one group", tellSize(func(int64) int64 { return 1000 })},
	{"size of nothing", tellSize(func(int64) int64 { return 0 })},
	{"size above the limit", tellSize(func(int64) int64 { return content.SizeMax + 1 })},
	{"negative size", tellSize(func(int64) int64 { return -1 })},
	{"data instead of a size", func(_ *dataLiar, tag uint32, q dataRequest) []byte {
		if q.kind != frameInfo {
			return nil
		}
		return bytes.Repeat(frame(frameData, tag, be64(0), make([]byte, 1000)), 1000)
	}},
	{"frame larger than allowed", func(_ *dataLiar, tag uint32, _ dataRequest) []byte {
		return frame(frameData, tag, be64(0), make([]byte, content.GroupSize+1))
	}},
	{"frame of 4 GiB", func(_ *dataLiar, tag uint32, _ dataRequest) []byte {
		return append(appendHeader(nil, frameData, tag, 1<<32-1), make([]byte, 1000)...)
	}},
	{"tag never used", func(_ *dataLiar, tag uint32, q dataRequest) []byte {
		return frame(frameData, tag+1000, be64(q.first), make([]byte, 1000))
	}},
	{"tag answered before", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return bytes.Repeat(frame(frameData, 0, be64(0), make([]byte, 1000)), 3)
	})},
	{"endless data", inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		return bytes.Repeat(frame(frameData, tag, be64(q.first), l.group(q.first)), 100)
	})},
	{"unknown type", func(_ *dataLiar, tag uint32, _ dataRequest) []byte { return frame(0x99, tag, make([]byte, 8)) }},
	{"request as an answer", func(l *dataLiar, tag uint32, _ dataRequest) []byte { return frame(frameInfo, tag, l.id[:]) }},
	{"error without a code", func(_ *dataLiar, tag uint32, _ dataRequest) []byte { return frame(frameError, tag) }},
	{"error with a long text", func(_ *dataLiar, tag uint32, _ dataRequest) []byte {
		return frame(frameError, tag, []byte{7}, make([]byte, errorTextMax+1))
	}},
	{"modified file", func(_ *dataLiar, tag uint32, _ dataRequest) []byte {
		return frame(frameError, tag, []byte{byte(codeModified)})
	}},
	{"text of another protocol", func(*dataLiar, uint32, dataRequest) []byte {
		return []byte("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>")
	}},
	{"noise", func(*dataLiar, uint32, dataRequest) []byte { return randomBytes(100_000, "noise") }},
}

func TestGetSurvivesEveryLieAboutData(t *testing.T) {
	net := startNetwork(t, 2)
	honest := net[1]
	for _, test := range dataLies {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			getter := net[2].fresh(t)
			told := make(chan struct{}, 1)
			size := lieSize
			if test.name == "too few groups" {
				size = 30 * content.GroupSize // so that several are asked for at once
			}
			data := randomBytes(size, test.name)
			liar := newDataLiar(t, data, func(l *dataLiar, tag uint32, q dataRequest) []byte {
				answer := test.lie(l, tag, q)
				if answer != nil {
					select {
					case told <- struct{}{}:
					default:
					}
				}
				return answer
			})
			n := startRaw(t, nil, handlers{dataProtocol: liar.serve})
			link := Link{ID: liar.id, Name: "video.mp4", Kind: KindFile, Peers: []peer.AddrInfo{n.AddrInfo()}}.String()

			got, err := getter.get(t, link, GetOptions{NoServe: true})
			wantCorrupt(t, err, n.ID())
			if !slices.Contains(got.Corrupt, n.ID()) {
				t.Errorf("Corrupt = %v, want the liar %s in it", got.Corrupt, n.ID())
			}
			mustHoldOnlyTrueBytes(t, getter.dir, data)
			select {
			case <-told:
			default:
				t.Error("the lie was never told")
			}

			// The DHT knows an honest peer: it is asked when the liar is out.
			honest.add(t, honest.write(t, test.name, data), AddOptions{})
			got, err = getter.get(t, link, GetOptions{NoServe: true})
			if err != nil {
				t.Fatalf("Get with an honest peer: %v", err)
			}
			if !slices.Equal(got.Corrupt, []peer.ID{n.ID()}) {
				t.Errorf("Corrupt = %v, want the liar %s", got.Corrupt, n.ID())
			}
			mustBe(t, filepath.Join(getter.dir, "video.mp4"), data)
			if left := partials(t, getter.dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// wantCorrupt checks that err blames p, and says so in words fit for a terminal.
func wantCorrupt(t *testing.T, err error, p peer.ID) {
	t.Helper()
	var bad *CorruptError
	if !errors.Is(err, ErrCorrupt) || !errors.As(err, &bad) {
		t.Fatalf("Get = %v, want ErrCorrupt", err)
	}
	if bad.Peer != p {
		t.Errorf("%v blames %s, want %s", bad, bad.Peer, p)
	}
	if !strings.Contains(err.Error(), p.String()) {
		t.Errorf("%q does not name %s", err, p)
	}
	if strings.ContainsFunc(err.Error(), unicode.IsControl) {
		t.Errorf("%q is not fit for a terminal", err)
	}
}

// mustHoldOnlyTrueBytes checks that a directory holds no finished file, and
// that what partial files hold is data or zeros where nothing came.
func mustHoldOnlyTrueBytes(t *testing.T, dir string, data []byte) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), partialSuffix) {
			t.Errorf("%s was saved", e.Name())
			continue
		}
		part, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if len(part) > len(data) {
			t.Errorf("the partial file has %d bytes, and the content %d", len(part), len(data))
		}
		for i, b := range part[:min(len(part), len(data))] {
			if b != 0 && b != data[i] {
				t.Errorf("byte %d of the partial file is wrong", i)
				break
			}
		}
	}
}

// partials lists the partial files in dir.
func partials(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, partialPrefix+"*"+partialSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
