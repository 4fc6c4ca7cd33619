package coord

import (
	"encoding/json"
	"runtime"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// lineWriter writes lines to a stream from many goroutines. Those that come while
// one is being written go out together with the next write: in one frame, one
// encrypted record and one system call.
//
// pendingMax bytes may wait; then writers do, until some have gone out.
type lineWriter struct {
	stream network.Stream

	mu      sync.Mutex
	room    sync.Cond // of mu: pending was taken
	pending []byte    // guarded by mu: whole lines
	spare   []byte    // guarded by mu: for pending, in turn
	writing bool      // guarded by mu: a goroutine is at it, and takes pending along
	err     error     // guarded by mu: of the stream, which has been reset
}

const pendingMax = 64 << 10

func newLineWriter(s network.Stream) *lineWriter {
	w := &lineWriter{stream: s}
	w.room.L = &w.mu
	return w
}

// write returns when v is on its way or waits to be taken along. When that fails
// later the stream is reset, which its reader sees.
func (w *lineWriter) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		w.stream.Reset()
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && len(w.pending) > pendingMax {
		w.room.Wait()
	}
	w.pending = append(append(w.pending, line...), '\n')
	if w.writing || w.err != nil {
		return w.err
	}
	w.writing = true
	w.mu.Unlock()
	runtime.Gosched() // the others that were woken by the same commit have lines, too
	w.mu.Lock()
	for w.err == nil && len(w.pending) > 0 {
		w.flush()
	}
	w.writing = false
	return w.err
}

// flush writes what is pending; w.mu is held, but not meanwhile.
func (w *lineWriter) flush() {
	out := w.pending
	w.pending, w.spare = w.spare[:0], nil
	w.room.Broadcast()
	w.mu.Unlock()
	err := w.stream.SetWriteDeadline(time.Now().Add(lineWait))
	if err == nil {
		_, err = w.stream.Write(out)
	}
	w.mu.Lock()
	if cap(out) <= 2*pendingMax {
		w.spare = out
	}
	if err != nil {
		w.err = err
		w.stream.Reset() // half a line may be out
		w.room.Broadcast()
	}
}
