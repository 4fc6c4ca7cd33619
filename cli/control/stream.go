package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/p2pshare/p2pshare/share"
)

// stream writes lines, and raw bytes after data lines, as the answer to one
// request. Bytes of a content travel in the same stream as what is told of it,
// so they come in order, and a failure in the middle can't be mistaken for the
// end: an HTTP body alone would have to tell of it in a trailer, which few
// clients read.
//
// Its methods are safe for concurrent use. A client that does not read holds
// up its own operation and no other.
type stream struct {
	r *http.Request

	mu sync.Mutex // one line, with its bytes, at a time
	w  http.ResponseWriter
}

func newStream(w http.ResponseWriter, r *http.Request, contentType string) *stream {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	return &stream{w: w, r: r}
}

// send writes one event. Errors are not told: the request's context ends when
// its connection does.
func (s *stream) send(e Event) {
	if line, err := EncodeEvent(e); err == nil {
		s.write(line, nil)
	}
}

// sendLine writes v as a line of a listing, which is no event. It is not
// flushed: a listing is long, and nobody waits for one line of it.
func (s *stream) sendLine(v any) error {
	line, err := encode(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.w.Write(append(line, '\n'))
	return err
}

func (s *stream) write(line, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.w.Write(append(line, '\n')); err != nil {
		return err
	}
	if _, err := s.w.Write(data); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}

// Write sends p as data frames.
func (s *stream) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		frame := p[:min(len(p), frameMax)]
		line, err := EncodeEvent(&Data{Bytes: int64(len(frame))})
		if err != nil {
			return n, err
		}
		if err := s.write(line, frame); err != nil {
			return n, err
		}
		n += len(frame)
		p = p[len(frame):]
	}
	return n, nil
}

func (s *stream) progress(p share.Progress) { s.send(newProgress(p)) }
func (s *stream) note(text string)          { s.send(&Note{Message: text}) }
func (s *stream) tried(t share.Tried)       { s.send(newSource(t)) }
func (s *stream) warn(text string)          { s.send(&Warning{Message: text}) }

// fail ends the stream with an error.
func (s *stream) fail(e *Error) {
	s.abortIfCutOff()
	s.send(e)
}

// abortIfCutOff breaks the connection off when the request was, by its client
// or because this peer stops: so that the client sees an answer that was cut,
// and not one that ended, and asks another peer. It then does not return.
func (s *stream) abortIfCutOff() {
	if s.r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
}

// decode reads a request's body, which must be one JSON object with known
// fields only: a field that an older peer does not know may be a restriction.
// It answers by itself when the body is not that.
func decode[T any](w http.ResponseWriter, r *http.Request) (req T, ok bool) {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(&req)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return req, true
		}
		err = errors.New("more than one object")
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		writeErrorStatus(w, http.StatusRequestEntityTooLarge, Errorf(CodeUsage, "the body has more than %d bytes", tooLarge.Limit))
		return req, false
	}
	writeError(w, Errorf(CodeUsage, "the body is not as expected: %s", OneLine(err.Error())))
	return req, false
}

func writeError(w http.ResponseWriter, e *Error) { writeErrorStatus(w, e.Code.status(), e) }

func writeErrorStatus(w http.ResponseWriter, status int, e *Error) {
	line, err := EncodeEvent(e)
	if err != nil {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(line, '\n'))
}

func writeJSON(w http.ResponseWriter, v any) {
	line, err := encode(v)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(append(line, '\n'))
}
