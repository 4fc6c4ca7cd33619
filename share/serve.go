package share

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// Deadlines and bounds on what a stranger can make this peer do.
const (
	metaIdle       = 30 * time.Second // between requests on a meta stream
	dataIdle       = 2 * time.Minute  // between requests on a data stream
	writeStall     = 30 * time.Second // for one frame or answer to be taken
	metaStreamsMax = 12               // from one peer: for holdsParallel, and its gets
	dataStreamsMax = 12               // from one peer; as metaStreamsMax
	bulkConnsMax   = 4                // from one peer; gets that are refused one do without
	// serveBatch is how much is written at a time: a chunk group's frame, and
	// small ones before it.
	serveBatch = frameHeaderLen + answerMax + 64<<10
)

// serve registers the handlers of both protocols.
func (l *Library) serve() {
	l.node.Handle(metaProtocol, node.HandlerConfig{PerPeer: metaStreamsMax}, l.serveMeta)
	l.node.HandleBulk(dataProtocol, node.HandlerConfig{PerPeer: dataStreamsMax, Total: 256}, node.HandlerConfig{PerPeer: bulkConnsMax, Total: 256}, l.serveBulk)
	l.node.HandleWant(l.matches)
}

// matches answers the local network's question who has a name or content by the
// beginning of its digest.
func (l *Library) matches(who peer.ID, prefix []byte) bool {
	if l.book.blocked(who, zeroID) {
		return false
	}
	allow := func(r shareRecord) bool { return r.Scope.allows(who, node.ViaLAN) }
	found, err := l.catalog.matches(prefix, allow)
	if err == nil && !found && !l.visitor {
		found, err = l.catalog.storesPrefix(prefix)
	}
	if err != nil {
		l.log.Warn("look for what a neighbor wants", "err", err)
	}
	return found || l.transferring(prefix, allow)
}

// askerAt is the peer at the other end of s.
func askerAt(s network.Stream) asker { return asker{s.Conn().RemotePeer(), node.ViaStream(s)} }

func (c Scope) allows(p peer.ID, via node.Via) bool {
	return (c.To == "" || c.To == p) && (!c.LANOnly || via == node.ViaLAN)
}

// dataServer answers one data stream: read takes requests into a bounded
// queue, answer works it off in order. Only cancels overtake.
type dataServer struct {
	library *Library
	stream  node.Stream
	allow   func(shareRecord) bool
	queue   chan taggedRequest

	mu   sync.Mutex
	open map[uint32]bool // guarded by mu: unanswered tags, true once cancelled

	file *held     // the file of the last request, kept open for the next
	live *transfer // or the get under way that it was served from
	id   content.ID

	batch []taggedRequest        // being answered
	found map[content.ID]located // its contents, once one had to be looked up; see locate

	out  *[serveBatch]byte // frames to be written; nil while there are none
	used int               // bytes of out

	sending atomic.Bool               // out is being written
	sent    atomic.Pointer[time.Time] // when it was the last time; at first, when the stream began
}

var serveBatches = sync.Pool{New: func() any { return new([serveBatch]byte) }}

type taggedRequest struct {
	tag uint32
	dataRequest
}

func (l *Library) serveData(ctx context.Context, s network.Stream) error {
	return l.serveBulk(ctx, node.StreamOf(s))
}

func (l *Library) serveBulk(ctx context.Context, s node.Stream) error {
	if s.Via() == node.ViaRelay {
		return node.ErrRelayOnly
	}
	if l.book.blocked(s.Peer(), zeroID) {
		return ErrRefused
	}
	l.uploads.enter(s.Peer(), s.Via())
	defer l.uploads.leave(s.Peer())
	paced := l.up.paceUp(ctx, s)
	defer paced.stop()
	s = paced
	d := &dataServer{
		library: l, stream: s, allow: asker{s.Peer(), s.Via()}.allows,
		queue: make(chan taggedRequest, requestsOpenMax),
		open:  map[uint32]bool{},
	}
	d.wroteAt(time.Now())
	defer d.release()
	defer d.closeContent()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(d.queue)
		err := d.read(ctx)
		if err != nil {
			s.Reset() // ends what answerAll is at: nothing more is owed
		}
		return err
	})
	g.Go(func() error {
		err := d.answerAll(ctx)
		if err != nil {
			s.Reset() // wakes read
		}
		return err
	})
	return g.Wait()
}

// read takes requests until the stream ends. A full queue makes it wait, and
// so the peer.
func (d *dataServer) read(ctx context.Context) error {
	in := bufio.NewReader(d.stream)
	buf := make([]byte, requestMax)
	for {
		if err := d.await(in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		h, payload, err := readFrame(in, buf)
		if err != nil {
			return err
		}
		q, err := decodeRequest(h.kind, payload)
		if err != nil {
			return err
		}
		if !d.enter(h.tag, q.kind) {
			return fmt.Errorf("%w: tag %d is in use", errMalformed, h.tag)
		}
		if q.kind == frameCancel {
			continue
		}
		select {
		case d.queue <- taggedRequest{h.tag, q}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// await waits for the first byte of a request, as long as any is unanswered or an
// answer is on its way (a slow peer takes minutes for what it has asked), and sets
// the deadline for the whole of it.
func (d *dataServer) await(in *bufio.Reader) error {
	for deadline := time.Now().Add(dataIdle); ; {
		if err := d.stream.SetReadDeadline(deadline); err != nil {
			return err
		}
		_, err := in.Peek(1)
		if err == nil {
			return d.stream.SetReadDeadline(time.Now().Add(dataIdle))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := time.Now()
		if deadline = now.Add(dataIdle); d.unanswered() == 0 && !d.sending.Load() {
			if deadline = d.sent.Load().Add(dataIdle); !deadline.After(now) {
				return err
			}
		}
	}
}

func (d *dataServer) unanswered() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// enter notes a request, or a request's cancellation.
func (d *dataServer) enter(tag uint32, kind frameType) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, known := d.open[tag]
	if kind == frameCancel {
		if known {
			d.open[tag] = true
		}
		return true
	}
	if known {
		return false
	}
	d.open[tag] = false
	return true
}

func (d *dataServer) cancelled(tag uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[tag]
}

func (d *dataServer) leave(tag uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, tag)
}

func (d *dataServer) answerAll(ctx context.Context) error {
	for {
		var err error
		if d.batch, err = d.take(); err != nil {
			return err
		}
		if len(d.batch) == 0 {
			return d.flush()
		}
		d.found = nil
		for _, q := range d.batch {
			err := d.answer(ctx, q)
			if refused := new(refusal); errors.As(err, &refused) {
				err = d.refuse(q.tag, *refused)
			}
			if err != nil {
				return err
			}
		}
	}
}

// batchedRequests is how many requests are looked up at once. What is removed or
// shared meanwhile is noticed by the next batch.
const batchedRequests = 32

// take waits for a request, and takes with it what waits behind it. It returns
// none at the end of the stream.
func (d *dataServer) take() (batch []taggedRequest, err error) {
	for len(batch) < batchedRequests {
		select {
		case q, ok := <-d.queue:
			if !ok {
				return batch, nil
			}
			batch = append(batch, q)
			continue
		default:
		}
		if len(batch) > 0 {
			return batch, nil
		}
		// Nothing waits: let the peer have what there is.
		if err := d.flush(); err != nil {
			return nil, err
		}
		d.release()
		q, ok := <-d.queue
		if !ok {
			return nil, nil
		}
		batch = append(batch, q)
	}
	return batch, nil
}

// locate returns where id is. The first that is asked for looks up all contents
// of the batch.
func (d *dataServer) locate(id content.ID) (located, error) {
	if d.found == nil {
		ids := make([]content.ID, len(d.batch))
		for i, q := range d.batch {
			ids[i] = q.id
		}
		var err error
		if d.found, err = d.library.catalog.filesOf(ids); err != nil {
			return located{}, err
		}
	}
	return d.found[id], nil
}

// refusal is an answer of the protocol, and no fault of the stream.
type refusal struct {
	code errorCode
	text string
}

// errTooMany refuses a peer for which the upload rate has no place now.
var errTooMany = &refusal{codeBusy, "busy: ask again in a few seconds"}

func (r *refusal) Error() string { return r.text }

func (d *dataServer) answer(ctx context.Context, q taggedRequest) error {
	if d.cancelled(q.tag) {
		return &refusal{codeCancelled, "cancelled"}
	}
	size, err := d.openContent(ctx, q.id)
	if err != nil {
		return err
	}
	switch q.kind {
	case frameInfo:
		return d.frame(frameSize, q.tag, binary.BigEndian.AppendUint64(nil, uint64(size)), nil)
	case frameOutboard:
		return d.answerOutboard(q, size)
	default:
		return d.answerSpan(q, size)
	}
}

// openContent makes id the open file. It stays open for the next request.
func (d *dataServer) openContent(ctx context.Context, id content.ID) (size int64, err error) {
	if d.file != nil && d.id == id && d.file.unchanged() {
		return d.file.identity.size, nil
	}
	if d.live != nil && d.id == id && !d.live.ended() {
		return d.live.size, nil
	}
	d.closeContent()
	if t := d.library.serving(id, d.allow); t != nil {
		d.live, d.id = t, id
		return t.size, nil
	}
	if d.library.visitor {
		return 0, &refusal{codeNotHeld, notHeldText}
	}
	found, err := d.locate(id)
	if err != nil {
		return 0, &refusal{codeInternal, "can't be looked up"}
	}
	h, err := d.library.openLocated(ctx, id, found, d.allow)
	switch {
	case errors.Is(err, ErrNotShared):
		return 0, &refusal{codeNotHeld, notHeldText}
	case errors.Is(err, ErrModified):
		return 0, &refusal{codeModified, "modified since it was shared"}
	case err != nil:
		return 0, &refusal{codeInternal, "can't be read"}
	}
	d.file, d.id = h, id
	return h.identity.size, nil
}

func (d *dataServer) closeContent() {
	if d.file != nil {
		d.file.close()
	}
	if d.live != nil {
		d.live.release()
	}
	d.file, d.live = nil, nil
}

func (d *dataServer) answerOutboard(q taggedRequest, size int64) error {
	total := content.GroupCount(size)
	if q.level == 1 {
		total = content.SegmentCount(size)
	}
	if q.first+q.count > total || q.level == 1 && total == 1 {
		return &refusal{codeMalformed, "range is not inside the content"}
	}
	if !d.library.up.admit(d.stream.Peer(), int(32*q.count)) {
		return errTooMany
	}
	if d.file != nil && d.file.stored != nil {
		if err := d.file.stored.checkOutboard(); err != nil {
			return &refusal{codeNotHeld, "not held any more"}
		}
	}
	values, err := d.chainingValues(q, size)
	if err != nil || values == nil {
		return &refusal{codeInternal, "outboard can't be read"}
	}
	for first := q.first; ; {
		n := min(len(values), 32*outboardPerFrame)
		kind := frameData
		if n == len(values) {
			kind = frameLast
		}
		if err := d.frame(kind, q.tag, binary.BigEndian.AppendUint64(nil, uint64(first)), values[:n]); err != nil {
			return err
		}
		if kind == frameLast {
			return nil
		}
		first += int64(n / 32)
		values = values[n:]
	}
}

// chainingValues reads the values of either level.
func (d *dataServer) chainingValues(q taggedRequest, size int64) ([]byte, error) {
	if content.GroupCount(size) == 1 {
		return q.id[:], nil
	}
	if d.live != nil {
		return d.live.values(q.level, q.first, q.count), nil
	}
	if q.level == 0 {
		return d.library.catalog.outboardRange(q.id, q.first, q.count)
	}
	o, err := d.library.catalog.outboard(q.id, size)
	if err != nil || o == nil {
		return nil, err
	}
	return content.EncodeCVs(o.Segments()[q.first : q.first+q.count]), nil
}

func (d *dataServer) answerSpan(q taggedRequest, size int64) error {
	span := content.Span{First: q.first, Count: q.count}
	if !span.In(size) {
		return &refusal{codeMalformed, "range is not inside the content"}
	}
	bytes := min(span.Count*content.GroupSize, size-span.First*content.GroupSize)
	if !d.library.up.admit(d.stream.Peer(), int(bytes)) {
		return errTooMany
	}
	for i := span.First; i < span.End(); i++ {
		if d.cancelled(q.tag) {
			return &refusal{codeCancelled, "cancelled"}
		}
		if err := d.room(frameHeaderLen + answerMax); err != nil {
			return err
		}
		// It is read to where its frame will be. A frame that is not completed is
		// overwritten by the next one.
		const head = frameHeaderLen + 8
		n := content.GroupLen(size, i)
		if err := d.readGroup(size, i, (*[content.GroupSize]byte)(d.out[d.used+head:])); err != nil {
			return err
		}
		kind := frameData
		if i == span.End()-1 {
			kind = frameLast
			d.leave(q.tag)
		}
		b := appendHeader(d.out[:d.used], kind, q.tag, 8+n)
		binary.BigEndian.PutUint64(d.out[len(b):], uint64(i))
		d.used += head + n
		d.library.uploads.sent(d.stream.Peer(), d.id, n)
	}
	return nil
}

// readGroup reads a group of the open file into buf.
func (d *dataServer) readGroup(size, index int64, buf *[content.GroupSize]byte) error {
	if d.live != nil {
		if !d.live.holds(index) {
			return &refusal{codeNotHeld, "not held yet"}
		}
		if _, err := d.live.read(index, buf); err != nil {
			return &refusal{codeNotHeld, "can't be read any more"}
		}
		return nil
	}
	err := readHeld(d.file, size, index, buf)
	if errors.Is(err, errDamaged) {
		return &refusal{codeNotHeld, "not held any more"}
	}
	if errors.Is(err, ErrModified) || err == nil && d.file.stored == nil && !d.file.unchanged() {
		return &refusal{codeModified, "modified since it was shared"}
	}
	if err != nil {
		return &refusal{codeInternal, "can't be read"}
	}
	return nil
}

func (d *dataServer) refuse(tag uint32, r refusal) error {
	return d.frame(frameError, tag, []byte{byte(r.code)}, []byte(r.text))
}

// frame puts one frame into the batch. Its last one is the tag's end: it is left
// before the peer can see it, and use the tag again.
func (d *dataServer) frame(kind frameType, tag uint32, head, body []byte) error {
	if kind != frameData {
		d.leave(tag)
	}
	n := frameHeaderLen + len(head) + len(body)
	if err := d.room(n); err != nil {
		return err
	}
	if kind == frameError || kind == frameSize {
		d.library.up.admit(d.stream.Peer(), len(head)+len(body)) // which waits for no place
	}
	if kind != frameError {
		d.library.uploads.sent(d.stream.Peer(), d.id, len(body))
	}
	b := appendHeader(d.out[:d.used], kind, tag, len(head)+len(body))
	b = append(b, head...)
	copy(d.out[len(b):], body)
	d.used += n
	return nil
}

// room makes room for a frame of n bytes. The batch goes out when it is full,
// or when nothing else waits to be answered.
func (d *dataServer) room(n int) error {
	if d.out == nil {
		d.out = serveBatches.Get().(*[serveBatch]byte)
	}
	if d.used+n > serveBatch {
		return d.flush()
	}
	return nil
}

func (d *dataServer) flush() error {
	if d.used == 0 {
		return nil
	}
	if err := d.stream.SetWriteDeadline(time.Now().Add(writeStall)); err != nil {
		return err
	}
	d.sending.Store(true)
	_, err := d.stream.Write(d.out[:d.used])
	d.wroteAt(time.Now())
	d.sending.Store(false)
	d.used = 0
	return err
}

func (d *dataServer) wroteAt(now time.Time) { d.sent.Store(&now) }

// release gives the batch back: a stream that waits holds none.
func (d *dataServer) release() {
	if d.out != nil {
		serveBatches.Put(d.out)
		d.out = nil
	}
}
