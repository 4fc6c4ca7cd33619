package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// ViaMirror marks bytes that came from an HTTP mirror.
const ViaMirror node.Via = "mirror"

// mirror is a source that knows nothing of us: a plain HTTP server that has
// the raw file. It is asked for spans by Range, one request at a time over one
// connection. It has no outboard: that must come from a peer, but for contents
// of one chunk group.
type mirror struct {
	url    string
	id     content.ID // the content that it is a mirror of
	client *http.Client
	turn   chan struct{} // capacity 1: held during a request
	stall  time.Duration // how long it may take for its headers, and for one chunk group
	total  int64         // bytes of its file as it tells; set by open
	given  atomic.Int64  // bytes that came and were used
	down   *limiter      // holds back what is read; nil: nothing does
}

// newMirror returns a mirror that was not asked yet. anywhere lets it have an
// address that is not public.
func newMirror(u *url.URL, id content.ID, anywhere bool) *mirror {
	given := ""
	if anywhere {
		given = u.Hostname()
	}
	return &mirror{url: u.String(), id: id, client: mirrorClient(given), turn: make(chan struct{}, 1), stall: answerStall}
}

func (m *mirror) peer() peer.ID { return "" }
func (m *mirror) via() node.Via { return ViaMirror }
func (m *mirror) close()        { m.client.CloseIdleConnections() }

// open asks for the first byte, to learn whether the mirror is of use and how
// large its file is.
func (m *mirror) open(ctx context.Context) error {
	return m.ask(ctx, 0, 1, func(a *mirrorAnswer) error {
		m.total = a.total
		return a.read(make([]byte, 1))
	})
}

// size is told only of a file that can be verified without an outboard: what a
// mirror says of a larger one proves nothing.
func (m *mirror) size(_ context.Context, id content.ID) (int64, error) {
	if id != m.id || m.total > content.GroupSize {
		return 0, errNotHeld
	}
	return m.total, nil
}

func (m *mirror) values(context.Context, content.ID, byte, int64, int64) ([]byte, error) {
	return nil, errNotHeld
}

func (m *mirror) span(ctx context.Context, id content.ID, size int64, span content.Span, fn func(int64, []byte) error) error {
	if id != m.id {
		return errNotHeld
	}
	if size != m.total {
		return m.corrupt("its file has %d bytes, and the content %d", m.total, size)
	}
	first := span.First * content.GroupSize
	length := min(span.Count*content.GroupSize, size-first)
	buf := groupBuffers.Get().(*[content.GroupSize]byte)
	defer groupBuffers.Put(buf)
	return m.ask(ctx, first, length, func(a *mirrorAnswer) error {
		if a.total != size {
			return m.corrupt("its file had %d bytes, and has %d", size, a.total)
		}
		for i := span.First; i < span.End(); i++ {
			data := buf[:content.GroupLen(size, i)]
			if err := a.read(data); err != nil {
				return err
			}
			if err := fn(i, data); err != nil {
				return err
			}
		}
		return nil
	})
}

// mirrorAnswer is the answer to one request.
type mirrorAnswer struct {
	total int64
	body  io.Reader
	stall time.Duration
	timer *time.Timer // ends the request; runs while we wait for the mirror

	ctx context.Context // of the request
	of  *mirror
}

// read fills data, and pays for it while the timer stands. Every byte that a mirror
// sends comes this way.
func (a *mirrorAnswer) read(data []byte) error {
	left := a.stall // of the time for all of data
	for len(data) > 0 {
		piece := data
		limited := a.of.down != nil && a.of.down.on.Load()
		if limited {
			piece = data[:min(len(data), int(a.of.down.piece.Load()))]
		}
		begun := time.Now()
		a.timer.Reset(left)
		_, err := io.ReadFull(a.body, piece)
		a.timer.Stop()
		if err != nil {
			return err
		}
		if a.of.down != nil {
			a.of.down.moved.Add(int64(len(piece)))
		}
		left = max(left-time.Since(begun), 1)
		if limited {
			a.of.down.wait(a.ctx.Done(), peer.ID(a.of.url), len(piece))
		}
		data = data[len(piece):]
	}
	return nil
}

// errMirrorStalls is why a request was given up.
var errMirrorStalls = errors.New("it does not send what was asked for")

// ask requests length bytes from first on, and calls fn with the answer, once
// its headers promise just that.
func (m *mirror) ask(ctx context.Context, first, length int64, fn func(*mirrorAnswer) error) error {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	asked, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(m.stall, func() { cancel(errMirrorStalls) })
	defer timer.Stop()
	err := m.exchange(asked, first, length, timer, fn)
	var wrapped *url.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case context.Cause(asked) != nil:
		return context.Cause(asked)
	case errors.As(err, &wrapped): // it names the URL, and so does who tells of it
		return wrapped.Err
	}
	return err
}

func (m *mirror) exchange(ctx context.Context, first, length int64, timer *time.Timer, fn func(*mirrorAnswer) error) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url, nil)
	if err != nil {
		return err
	}
	q.Header.Set("Range", "bytes="+strconv.FormatInt(first, 10)+"-"+strconv.FormatInt(first+length-1, 10))
	q.Header.Set("Accept-Encoding", "identity")
	q.Header.Set("User-Agent", "p2pshare")
	r, err := m.client.Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	timer.Stop()
	total, err := m.check(r, first, length)
	if err != nil {
		return err
	}
	return fn(&mirrorAnswer{total: total, body: r.Body, stall: m.stall, timer: timer, ctx: ctx, of: m})
}

// check takes an answer's headers, and returns how large the whole is. A status
// other than 206 is no lie: many servers know no ranges, and any may have lost
// the file.
func (m *mirror) check(r *http.Response, first, length int64) (total int64, err error) {
	if r.StatusCode != http.StatusPartialContent {
		return 0, fmt.Errorf("it answers with status %d where 206 is needed", r.StatusCode)
	}
	if e := r.Header.Values("Content-Encoding"); len(e) > 0 && (len(e) > 1 || e[0] != "identity") {
		return 0, m.corrupt("it encodes what was asked for as it is")
	}
	values := r.Header.Values("Content-Range")
	if len(values) != 1 {
		return 0, m.corrupt("it sends %d values of Content-Range", len(values))
	}
	got, ok := parseContentRange(values[0])
	if !ok || got.first != first || got.last != first+length-1 {
		return 0, m.corrupt("it sends another range than it was asked for")
	}
	if r.ContentLength >= 0 && r.ContentLength != length {
		return 0, m.corrupt("it sends %d bytes where %d were asked for", r.ContentLength, length)
	}
	return got.total, nil
}

func (m *mirror) corrupt(format string, args ...any) error {
	return &CorruptError{ID: m.id, Mirror: m.url, Reason: fmt.Sprintf(format, args...)}
}

// blame returns that a source sent what does not verify.
func blame(s source, id content.ID, reason string) error {
	if m, ok := s.(*mirror); ok {
		return m.corrupt("%s", reason)
	}
	return &CorruptError{ID: id, Peer: s.peer(), Reason: reason}
}

// requestsOf is how many requests a source is sent at a time.
func requestsOf(s source) int {
	switch s := s.(type) {
	case *mirror:
		return 1 // more would wait for the one connection, and keep spans from others
	case *remote:
		return max(requestsPerSource, s.depth())
	}
	return requestsPerSource
}
