package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	p2ppeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// Hostile peers are processes of their own, which speak the data protocol as
// share/wire.go describes it and share no code with those that they attack.

const (
	metaProtocol protocol.ID = "/p2pshare/meta/1"
	dataProtocol protocol.ID = "/p2pshare/data/1"
)

// Frames of the data protocol.
const (
	frameHeaderLen = 9
	frameInfo      = 0x01
	frameOutboard  = 0x02
	frameSpan      = 0x03
	frameSize      = 0x81
	frameData      = 0x82
	frameLast      = 0x83
	frameError     = 0x84

	codeMalformed     = 5
	outboardPerFrame  = 8192
	spanCountMax      = 64
	requestsOpenMax   = 256
	requestPayloadMax = 45
)

func appendFrame(b []byte, kind byte, tag uint32, parts ...[]byte) []byte {
	payload := slices.Concat(parts...)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, tag)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

func be64(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }

// hostileTask is what a hostile process is to do, by taskVariable.
type hostileTask struct {
	Path   string // of the file that a provider claims to have
	Slow   bool   // a provider sends spans at 1 B/s, rather than wrong
	Target string // the address, with /p2p/ID, of the peer to besiege
	ID     string // the content to ask it for
	Count  int    // how many streams to open
}

const taskVariable = "E2E_TASK"

// startHostile runs a hostile process until the test ends.
func startHostile(t testing.TB, role string, task hostileTask) *process {
	t.Helper()
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	c := roleCommand(t, "", role)
	c.Env = append(c.Env, taskVariable+"="+string(text))
	p := startProcess(t, c)
	p.awaitReady(t)
	return p
}

// startHostileProvider runs one that claims to have path.
func startHostileProvider(t testing.TB, path string, slow bool) *source {
	t.Helper()
	p := startHostile(t, "hostile-provider", hostileTask{Path: path, Slow: slow})
	return &source{process: p, added: event{"link": p.ready.text("link")}}
}

// runHostile runs a node until it fails, and do beside it once it listens.
func runHostile(handlers map[protocol.ID]func(context.Context, network.Stream) error, do func(context.Context, *node.Node) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n, err := node.New(ctx, node.Config{
		Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, NoMulticast: true, NoDHT: true,
	})
	if err != nil {
		return err
	}
	defer n.Close()
	for id, h := range handlers {
		n.Handle(id, node.HandlerConfig{}, h)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-n.Listening():
	}
	if err := do(ctx, n); err != nil {
		return err
	}
	return <-ended
}

func readTask() (task hostileTask, err error) {
	err = json.Unmarshal([]byte(os.Getenv(taskVariable)), &task)
	return task, err
}

// hostileProvider has a file and serves it, but for its lies.
type hostileProvider struct {
	task     hostileTask
	file     *os.File
	size     int64
	outboard *content.Outboard
	id       content.ID
}

// hostileProviderRole serves until it is killed.
func hostileProviderRole() error {
	task, err := readTask()
	if err != nil {
		return err
	}
	p := &hostileProvider{task: task}
	if err := p.hash(); err != nil {
		return err
	}
	return runHostile(map[protocol.ID]func(context.Context, network.Stream) error{metaProtocol: p.tell, dataProtocol: p.serve},
		func(_ context.Context, n *node.Node) error {
			addrs, err := p2ppeer.AddrInfoToP2pAddrs(&p2ppeer.AddrInfo{ID: n.ID(), Addrs: n.Addrs()})
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(event{"event": "ready", "peer_id": n.ID(),
				"link": fmt.Sprintf("p2pshare:%s?peer=%s", p.id, addrs[0])})
		})
}

func (p *hostileProvider) hash() error {
	var err error
	if p.file, err = os.Open(p.task.Path); err != nil {
		return err
	}
	info, err := p.file.Stat()
	if err != nil {
		return err
	}
	p.size = info.Size()
	p.outboard = content.NewOutboard(p.size)
	buf := make([]byte, content.GroupSize)
	for i := range content.GroupCount(p.size) {
		data, err := p.group(i, buf)
		if err != nil {
			return err
		}
		p.outboard.SetGroup(i, data)
	}
	p.id = p.outboard.ID()
	return nil
}

func (p *hostileProvider) group(i int64, buf []byte) ([]byte, error) {
	data := buf[:content.GroupLen(p.size, i)]
	_, err := p.file.ReadAt(data, i*content.GroupSize)
	return data, err
}

// tell answers what it is asked by JSON: that it has all of its file, and knows no
// manifest.
func (p *hostileProvider) tell(_ context.Context, s network.Stream) error {
	say := json.NewEncoder(s)
	lines := bufio.NewScanner(s)
	lines.Buffer(nil, 128*kib)
	for lines.Scan() {
		var q struct{ Op, ID string }
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		answer := map[string]any{"end": true}
		if q.Op == "haves" && q.ID == p.id.String() {
			answer["size"], answer["all"] = p.size, true
		}
		if err := say.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// serve answers each request before it reads the next.
func (p *hostileProvider) serve(_ context.Context, s network.Stream) error {
	in, out := bufio.NewReader(s), bufio.NewWriterSize(s, 256*kib)
	head, payload := make([]byte, frameHeaderLen), make([]byte, requestPayloadMax)
	for {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(in, head); err != nil {
			return err
		}
		length := binary.BigEndian.Uint32(head[5:])
		if length > requestPayloadMax {
			return errors.New("a request is too long")
		}
		if _, err := io.ReadFull(in, payload[:length]); err != nil {
			return err
		}
		if err := p.answer(out, head[0], binary.BigEndian.Uint32(head[1:]), payload[:length]); err != nil {
			return err
		}
	}
}

// answer answers info and outboard truly. A cancel comes when all is answered, and
// is none of a provider's business then.
func (p *hostileProvider) answer(out *bufio.Writer, kind byte, tag uint32, q []byte) error {
	switch {
	case kind == frameInfo:
		_, err := out.Write(appendFrame(nil, frameSize, tag, be64(p.size)))
		return err
	case kind == frameOutboard && len(q) == 45 && q[32] == 0:
		return p.answerOutboard(out, tag, int64(binary.BigEndian.Uint64(q[33:])), int64(binary.BigEndian.Uint32(q[41:])))
	case kind == frameSpan && len(q) == 44:
		return p.answerSpan(out, tag, int64(binary.BigEndian.Uint64(q[32:])), int64(binary.BigEndian.Uint32(q[40:])))
	case kind == frameOutboard || kind == frameSpan:
		_, err := out.Write(appendFrame(nil, frameError, tag, []byte{codeMalformed}))
		return err
	}
	return nil
}

func (p *hostileProvider) answerOutboard(out *bufio.Writer, tag uint32, first, count int64) error {
	list := p.outboard.Bytes()
	if content.GroupCount(p.size) == 1 {
		list = p.id[:]
	}
	if first < 0 || first+count > int64(len(list))/32 {
		return errors.New("asked for an outboard beyond the end")
	}
	for end := first + count; first < end; first += outboardPerFrame {
		n := min(outboardPerFrame, end-first)
		kind := byte(frameData)
		if first+n == end {
			kind = frameLast
		}
		if _, err := out.Write(appendFrame(nil, kind, tag, be64(first), list[32*first:32*(first+n)])); err != nil {
			return err
		}
	}
	return nil
}

// answerSpan flips a bit in one group of each span, or sends it at 1 B/s.
func (p *hostileProvider) answerSpan(out *bufio.Writer, tag uint32, first, count int64) error {
	if first < 0 || count < 1 || first+count > content.GroupCount(p.size) {
		return errors.New("asked for a span beyond the end")
	}
	wrong := first + rand.Int64N(count)
	buf := make([]byte, content.GroupSize)
	for i := first; i < first+count; i++ {
		data, err := p.group(i, buf)
		if err != nil {
			return err
		}
		kind := byte(frameData)
		if i == first+count-1 {
			kind = frameLast
		}
		if !p.task.Slow && i == wrong && len(data) > 0 {
			data[rand.IntN(len(data))] ^= 1 << rand.IntN(8)
		}
		frame := appendFrame(nil, kind, tag, be64(i), data)
		if !p.task.Slow {
			if _, err := out.Write(frame); err != nil {
				return err
			}
			continue
		}
		for _, b := range frame {
			<-time.After(time.Second) // the rate that is to be suffered
			if err := errors.Join(out.WriteByte(b), out.Flush()); err != nil {
				return err
			}
		}
	}
	return nil
}

// besiegerRole opens as many streams as it can, asks for as much as it may on each,
// and reads nothing, until it is killed.
func besiegerRole() error {
	task, err := readTask()
	if err != nil {
		return err
	}
	target, err := p2ppeer.AddrInfoFromString(task.Target)
	if err != nil {
		return err
	}
	id, err := content.Parse(task.ID)
	if err != nil {
		return err
	}
	var requests []byte
	for tag := range uint32(requestsOpenMax) {
		count := binary.BigEndian.AppendUint32(nil, spanCountMax)
		requests = appendFrame(requests, frameSpan, tag, id[:], be64(0), count)
	}
	// No limits of its own keep it from harm.
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, say := context.Background(), json.NewEncoder(os.Stdout)
	if err := say.Encode(event{"event": "ready", "peer_id": h.ID()}); err != nil {
		return err
	}
	if err := h.Connect(ctx, *target); err != nil {
		return err
	}
	opened := besiege(ctx, h, target.ID, task.Count, requests)
	if err := say.Encode(event{"event": "besieging", "opened": opened}); err != nil {
		return err
	}
	select {} // until it is killed
}

// besiege returns once every stream was tried; those that were opened stay so.
func besiege(ctx context.Context, h host.Host, target p2ppeer.ID, count int, requests []byte) (opened int64) {
	const atOnce = 32
	var tried, done atomic.Int64
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for tried.Add(1) <= int64(count) {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				s, err := h.NewStream(ctx, target, dataProtocol)
				if err == nil {
					s.SetWriteDeadline(time.Now().Add(5 * time.Second))
					_, err = s.Write(requests)
				}
				cancel()
				if err == nil {
					done.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return done.Load()
}
