package share

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// source is somebody who may hold contents: another peer, or this library.
// What it says is not verified; what it does is bounded in size and time. Its
// methods may be called from several goroutines.
//
// They return errNotHeld for what the source does not hold, and a
// *CorruptError for an answer that can't be right; any other error but the
// context's means that the source is of no use any more.
type source interface {
	peer() peer.ID
	via() node.Via
	// size asks how large id is.
	size(ctx context.Context, id content.ID) (int64, error)
	// values asks for count chaining values of a level, from first on.
	values(ctx context.Context, id content.ID, level byte, first, count int64) ([]byte, error)
	// span asks for chunk groups, and calls fn with each, in order. fn must not
	// keep data; its error ends the request and is returned.
	span(ctx context.Context, id content.ID, size int64, span content.Span, fn func(index int64, data []byte) error) error
	close()
}

// errNotHeld is a source's answer for a content it does not hold.
var errNotHeld = errors.New("not held by this source")

const (
	// answerStall is how long a peer that owes us something may stay silent,
	// and how long one frame may take: 13 KB/s at least.
	answerStall = 20 * time.Second
	// requestWrite bounds the sending of one request.
	requestWrite = 10 * time.Second
)

// remote is a source at the other end of a data stream. One goroutine reads,
// and hands each frame to the request it answers: verifying and writing happen
// there, so that a slow disk slows the peer down and nothing piles up.
type remote struct {
	id     peer.ID
	how    node.Via
	stream network.Stream
	done   chan struct{} // closed when read has returned

	writing sync.Mutex // one frame at a time

	mu      sync.Mutex
	next    uint32              // guarded by mu: the next tag
	pending map[uint32]*request // guarded by mu
	since   time.Time           // guarded by mu: when pending was empty last
	failed  error               // guarded by mu: why the stream is of no use
}

// request is one unanswered request.
type request struct {
	mu     sync.Mutex // held while onData runs
	dead   bool       // guarded by mu: the asker has left
	frames int64      // guarded by mu: how many may still come
	onData func(dataAnswer) error
	result chan error  // capacity 1
	ended  func(error) // called in place of a send to result; holds mu, so must not wait for the request
}

// openRemote opens a data stream to a peer that is connected or whose
// addresses are known. The caller closes what it returns.
func (l *Library) openRemote(ctx context.Context, p peer.ID) (*remote, error) {
	s, err := l.node.Open(ctx, p, dataProtocol, node.OpenOptions{})
	if err != nil {
		return nil, err
	}
	return newRemote(p, l.down.paceDown(s)), nil
}

func newRemote(p peer.ID, s network.Stream) *remote {
	r := &remote{id: p, how: node.ViaStream(s), stream: s, done: make(chan struct{}), pending: map[uint32]*request{}}
	go func() { // ended and waited for by close
		defer close(r.done)
		r.fail(r.read())
	}()
	return r
}

func (r *remote) peer() peer.ID { return r.id }
func (r *remote) via() node.Via { return r.how }

func (r *remote) close() {
	r.stream.Reset()
	<-r.done
}

// read takes frames until the stream fails.
func (r *remote) read() error {
	in := bufio.NewReaderSize(r.stream, 64<<10)
	buf := make([]byte, answerMax)
	for {
		if err := r.await(in); err != nil {
			return err
		}
		h, payload, err := readFrame(in, buf)
		if err != nil {
			return err
		}
		a, err := decodeAnswer(h.kind, payload)
		if err != nil {
			return err
		}
		if err := r.deliver(h.tag, a); err != nil {
			return err
		}
	}
}

// await waits for the first byte of a frame, as long as nothing is owed, and
// sets the deadline for the whole of it. A request that comes while it waits is
// given its full time.
func (r *remote) await(in *bufio.Reader) error {
	for deadline := time.Now().Add(answerStall); ; {
		if err := r.stream.SetReadDeadline(deadline); err != nil {
			return err
		}
		_, err := in.Peek(1)
		if err == nil {
			return r.stream.SetReadDeadline(time.Now().Add(answerStall))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := time.Now()
		since, owes := r.owesSince()
		if deadline = now.Add(answerStall); owes {
			deadline = since.Add(answerStall)
		}
		if !deadline.After(now) {
			return err
		}
	}
}

// owesSince tells whether answers are owed, and for how long at least one was.
func (r *remote) owesSince() (since time.Time, owes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since, len(r.pending) > 0
}

// deliver hands a frame to its request. Frames for requests that were
// cancelled are dropped, as far as they were owed; one that answers nothing is a
// fault: with such frames a peer could seem alive for ever.
func (r *remote) deliver(tag uint32, a dataAnswer) error {
	r.mu.Lock()
	q := r.pending[tag]
	if a.kind != frameData {
		delete(r.pending, tag)
	}
	r.mu.Unlock()
	if q == nil {
		return fmt.Errorf("%w: answer to nothing", errMalformed)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.frames--; q.frames < 0 {
		return fmt.Errorf("%w: answer without end", errMalformed)
	}
	if q.dead {
		return nil
	}
	if a.kind == frameError {
		q.finish(r.answerError(a))
		return nil
	}
	err := q.onData(a)
	if err != nil {
		q.dead = true
		q.finish(err)
	} else if a.kind != frameData {
		q.finish(nil)
	}
	return nil
}

// finish tells the asker. The caller holds q.mu.
func (q *request) finish(err error) {
	if q.ended != nil {
		q.ended(err)
		return
	}
	q.result <- err
}

func (r *remote) answerError(a dataAnswer) error {
	switch a.code {
	case codeNotHeld:
		return errNotHeld
	case codeModified:
		return &CorruptError{Peer: r.id, Reason: "the file was modified there since it was shared", modified: true}
	case codeRefused:
		return fmt.Errorf("%s: %w", r.id, ErrRefused)
	}
	return fmt.Errorf("peer answers: error %d \"%s\"", a.code, Escape(a.text))
}

// fail ends every request with the reason why the stream ended.
func (r *remote) fail(err error) {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	case errors.Is(err, errMalformed):
		err = &CorruptError{Peer: r.id, Reason: err.Error()} // a lie is no network fault
	}
	r.mu.Lock()
	r.failed = err
	pending := r.pending
	r.pending = nil
	r.mu.Unlock()
	r.stream.Reset()
	for _, q := range pending {
		q.mu.Lock()
		if !q.dead {
			q.dead = true
			q.finish(err)
		}
		q.mu.Unlock()
	}
}

// ask sends a request and waits until it is answered, onData has failed, the
// stream has, or ctx ends. After it returns onData is not called any more.
func (r *remote) ask(ctx context.Context, q dataRequest, onData func(dataAnswer) error) error {
	err := r.exchange(ctx, q, onData)
	var bad *CorruptError
	if errors.As(err, &bad) && bad.ID.IsZero() { // the stream's fault, and not one answer's
		return &CorruptError{ID: q.id, Peer: bad.Peer, Reason: bad.Reason, modified: bad.modified}
	}
	return err
}

func (r *remote) exchange(ctx context.Context, q dataRequest, onData func(dataAnswer) error) error {
	// A value or a group may come in a frame of its own, and an error after all.
	p := &request{onData: onData, frames: max(1, q.count) + 1, result: make(chan error, 1)}
	r.mu.Lock()
	if r.failed != nil {
		defer r.mu.Unlock()
		return r.failed
	}
	tag := r.next
	r.next++
	if len(r.pending) == 0 {
		r.since = time.Now()
	}
	r.pending[tag] = p
	r.mu.Unlock()

	if err := r.send(q, tag); err != nil {
		r.stream.Reset() // ends read, which knows best what was wrong
	}
	select {
	case err := <-p.result:
		return err
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.dead = true // and pending still: its end is owed
	p.mu.Unlock()
	r.mu.Lock()
	_, unanswered := r.pending[tag]
	r.mu.Unlock()
	if unanswered {
		if err := r.send(dataRequest{kind: frameCancel}, tag); err != nil {
			r.stream.Reset()
		}
	}
	return ctx.Err()
}

func (r *remote) send(q dataRequest, tag uint32) error {
	return r.write(q.append(make([]byte, 0, frameHeaderLen+requestMax), tag))
}

// write sends whole frames.
func (r *remote) write(frames []byte) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	if err := r.stream.SetWriteDeadline(time.Now().Add(requestWrite)); err != nil {
		return err
	}
	_, err := r.stream.Write(frames)
	return err
}

func (r *remote) corrupt(id content.ID, format string, args ...any) error {
	return &CorruptError{ID: id, Peer: r.id, Reason: fmt.Sprintf(format, args...)}
}

func (r *remote) size(ctx context.Context, id content.ID) (int64, error) {
	var size int64
	err := r.ask(ctx, dataRequest{kind: frameInfo, id: id}, func(a dataAnswer) error {
		if a.kind != frameSize {
			return r.corrupt(id, "a size was asked, and something else came")
		}
		size = a.size
		return nil
	})
	return size, err
}

func (r *remote) values(ctx context.Context, id content.ID, level byte, first, count int64) ([]byte, error) {
	var got []byte
	for first, left := first, count; left > 0; {
		n := min(left, outboardCountMax)
		from := len(got)
		want := from + int(32*n)
		q := dataRequest{kind: frameOutboard, id: id, level: level, first: first, count: n}
		err := r.ask(ctx, q, func(a dataAnswer) error {
			if a.kind == frameSize || a.index != first+int64(len(got)-from)/32 ||
				len(a.data)%32 != 0 || len(a.data) == 0 || len(got)+len(a.data) > want {
				return r.corrupt(id, "chaining values came that were not asked for")
			}
			got = append(got, a.data...)
			if a.kind == frameLast && len(got) < want {
				return r.corrupt(id, "chaining values are missing")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		first, left = first+n, left-n
	}
	return got, nil
}

func (r *remote) span(ctx context.Context, id content.ID, size int64, span content.Span, fn func(int64, []byte) error) error {
	next := span.First
	q := dataRequest{kind: frameSpan, id: id, first: span.First, count: span.Count}
	return r.ask(ctx, q, func(a dataAnswer) error {
		switch {
		case a.kind == frameSize || a.index != next || next >= span.End():
			return r.corrupt(id, "chunk groups came that were not asked for")
		case a.kind == frameLast && next != span.End()-1:
			return r.corrupt(id, "chunk groups are missing")
		}
		next++
		return fn(a.index, a.data)
	})
}

// local is this library as a source.
type local struct{ library *Library }

func (s local) peer() peer.ID { return s.library.node.ID() }
func (s local) via() node.Via { return ViaLocal }
func (s local) close()        {}

func (s local) open(ctx context.Context, id content.ID) (*held, error) {
	h, err := s.library.openHeld(ctx, id, anyShare)
	if errors.Is(err, ErrNotShared) || errors.Is(err, ErrModified) {
		return nil, errNotHeld
	}
	return h, err
}

func (s local) size(ctx context.Context, id content.ID) (int64, error) {
	h, err := s.open(ctx, id)
	if err != nil {
		return 0, err
	}
	defer h.close()
	return h.identity.size, nil
}

func (s local) values(ctx context.Context, id content.ID, level byte, first, count int64) ([]byte, error) {
	size, err := s.size(ctx, id)
	if err != nil {
		return nil, err
	}
	if level == 0 {
		b, err := s.library.catalog.outboardRange(id, first, count)
		if err == nil && b == nil {
			err = errNotHeld
		}
		return b, err
	}
	o, err := s.library.catalog.outboard(id, size)
	if err != nil || o == nil {
		return nil, errors.Join(err, errNotHeld)
	}
	return content.EncodeCVs(o.Segments()[first : first+count]), nil
}

func (s local) span(ctx context.Context, id content.ID, size int64, span content.Span, fn func(int64, []byte) error) error {
	h, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	defer h.close()
	if h.identity.size != size {
		return errNotHeld
	}
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	defer groupBuffers.Put(buf)
	for i := span.First; i < span.End(); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := readHeld(h, size, i, buf)
		if errors.Is(err, ErrModified) || err == nil && !h.unchanged() {
			return errNotHeld // as if it had been so when we opened it
		}
		if err != nil {
			return err
		}
		if err := fn(i, buf[:content.GroupLen(size, i)]); err != nil {
			return err
		}
	}
	return nil
}
