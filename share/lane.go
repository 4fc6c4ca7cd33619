package share

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/p2pshare/p2pshare/node"
)

const (
	// answerStall is how long a peer that owes us something may stay silent, and
	// how far in arrears a frame's bytes may be; see patience.
	answerStall = 20 * time.Second
	// requestWrite bounds the sending of one request.
	requestWrite = 10 * time.Second
)

// lane is the asking end of one data stream. One goroutine reads, and hands each
// frame to the request it answers: verifying and writing happen there, so that
// a slow disk slows the peer down and nothing piles up.
type lane struct {
	stream node.Stream
	done   chan struct{} // closed when read has returned
	owed   atomic.Int64  // counts of the requests that are unanswered

	writing sync.Mutex // one frame at a time

	mu      sync.Mutex
	next    uint32              // guarded by mu: the next tag
	pending map[uint32]*request // guarded by mu
	since   time.Time           // guarded by mu: when pending was empty last
	failed  error               // guarded by mu: why the stream is of no use
	trip    time.Duration       // guarded by mu: the shortest time to an answer's first frame; 0: none came yet
}

// request is one unanswered request.
type request struct {
	mu     sync.Mutex // held while onData runs
	dead   bool       // guarded by mu: the asker has left
	frames int64      // guarded by mu: how many may still come
	sent   time.Time  // guarded by lane.mu: zero when the first frame has come
	onData func(dataAnswer) error
	result chan error  // capacity 1
	ended  func(error) // called in place of a send to result; holds mu, so must not wait for the request
}

func newLane(s node.Stream) *lane {
	l := &lane{stream: s, done: make(chan struct{}), pending: map[uint32]*request{}}
	go func() { // ended and waited for by close
		defer close(l.done)
		l.fail(l.read())
	}()
	return l
}

func (l *lane) close() {
	l.stream.Reset()
	<-l.done
}

// read takes frames until the stream fails.
func (l *lane) read() error {
	by := &patience{stream: l.stream}
	in := bufio.NewReaderSize(by, 32<<10)
	buf := make([]byte, answerMax)
	for {
		if err := l.await(in, by); err != nil {
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
		if err := l.deliver(h.tag, a); err != nil {
			return err
		}
	}
}

// await waits for the first byte of a frame, as long as nothing is owed. A request
// that comes while it waits is given its full time.
func (l *lane) await(in *bufio.Reader, by *patience) error {
	for by.until = time.Now().Add(answerStall); ; {
		_, err := in.Peek(1)
		if err == nil {
			by.until = time.Now().Add(answerStall)
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := time.Now()
		since, owes := l.owesSince()
		if by.until = now.Add(answerStall); owes {
			by.until = since.Add(answerStall)
		}
		if !by.until.After(now) {
			return err
		}
	}
}

// owesSince tells whether answers are owed, and for how long at least one was.
func (l *lane) owesSince() (since time.Time, owes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since, len(l.pending) > 0
}

// deliver hands a frame to its request. Frames for requests that were
// cancelled are dropped, as far as they were owed; one that answers nothing is a
// fault: with such frames a peer could seem alive for ever.
func (l *lane) deliver(tag uint32, a dataAnswer) error {
	l.mu.Lock()
	q := l.pending[tag]
	if q != nil && !q.sent.IsZero() {
		if took := time.Since(q.sent); l.trip == 0 || took < l.trip {
			l.trip = took
		}
		q.sent = time.Time{}
	}
	if a.kind != frameData {
		delete(l.pending, tag)
	}
	l.mu.Unlock()
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
		q.finish(l.answerError(a))
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

// lost tells whether err, which a request has ended with, is that of the whole
// stream, by no lie of the peer's.
func (l *lane) lost(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return err != nil && err == l.failed && !errors.Is(err, ErrCorrupt)
}

// isLost tells whether nothing can be asked any more.
func (l *lane) isLost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed != nil
}

// roundTrip is the shortest time that an answer took to begin, or 0.
func (l *lane) roundTrip() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trip
}

// finish tells the asker. The caller holds q.mu.
func (q *request) finish(err error) {
	if q.ended != nil {
		q.ended(err)
		return
	}
	q.result <- err
}

func (l *lane) answerError(a dataAnswer) error {
	switch a.code {
	case codeNotHeld:
		return errNotHeld
	case codeModified:
		return &CorruptError{Peer: l.stream.Peer(), Reason: "the file was modified there since it was shared", modified: true}
	case codeBusy:
		return errBusy
	case codeRefused:
		return fmt.Errorf("%s: %w", l.stream.Peer(), ErrRefused)
	}
	return fmt.Errorf("%w: error %d \"%s\"", errAnswered, a.code, Escape(a.text))
}

// errAnswered: a peer has refused a request, for a reason of its own.
var errAnswered = errors.New("peer answers")

// fail ends every request with the reason why the stream ended.
func (l *lane) fail(err error) {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	case errors.Is(err, errMalformed):
		err = &CorruptError{Peer: l.stream.Peer(), Reason: err.Error()} // a lie is no network fault
	}
	l.mu.Lock()
	l.failed = err
	pending := l.pending
	l.pending = nil
	l.mu.Unlock()
	l.stream.Reset()
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
func (l *lane) ask(ctx context.Context, q dataRequest, onData func(dataAnswer) error) error {
	err := l.exchange(ctx, q, onData)
	var bad *CorruptError
	if errors.As(err, &bad) && bad.ID.IsZero() { // the stream's fault, and not one answer's
		return &CorruptError{ID: q.id, Peer: bad.Peer, Reason: bad.Reason, modified: bad.modified}
	}
	return err
}

func (l *lane) exchange(ctx context.Context, q dataRequest, onData func(dataAnswer) error) error {
	// A value or a group may come in a frame of its own, and an error after all.
	p := &request{onData: onData, frames: max(1, q.count) + 1, sent: time.Now(), result: make(chan error, 1)}
	l.owed.Add(q.count)
	defer l.owed.Add(-q.count)
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	tag := l.next
	l.next++
	if len(l.pending) == 0 {
		l.since = time.Now()
	}
	l.pending[tag] = p
	l.mu.Unlock()

	if err := l.send(q, tag); err != nil {
		l.stream.Reset() // ends read, which knows best what was wrong
	}
	select {
	case err := <-p.result:
		return err
	case <-ctx.Done():
	}
	p.mu.Lock()
	p.dead = true // and pending still: its end is owed
	p.mu.Unlock()
	l.mu.Lock()
	_, unanswered := l.pending[tag]
	l.mu.Unlock()
	if unanswered {
		if err := l.send(dataRequest{kind: frameCancel}, tag); err != nil {
			l.stream.Reset()
		}
	}
	return ctx.Err()
}

func (l *lane) send(q dataRequest, tag uint32) error {
	return l.write(q.append(make([]byte, 0, frameHeaderLen+requestMax), tag))
}

// write sends whole frames.
func (l *lane) write(frames []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if err := l.stream.SetWriteDeadline(time.Now().Add(requestWrite)); err != nil {
		return err
	}
	_, err := l.stream.Write(frames)
	return err
}
