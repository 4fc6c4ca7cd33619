package raftlog

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// watchdog watches writes that are pending. A disk that hangs is worse than one
// that fails: Raft sends heartbeats from elsewhere, so a leader whose write hangs
// stays leader, and the group writes nothing.
//
// A write only enters and leaves a list. One timer looks at it, set while there
// are writes: a timer for each would wake a thread of the scheduler each time,
// which cost more than the checksums.
//
// Source: hashicorp/raft#503.
type watchdog struct {
	c    Config
	fail func(error)

	mu      sync.Mutex // guards all below
	pending []*pendingWrite
	timer   *time.Timer // nil before the first write
	set     bool        // timer will call look
}

type pendingWrite struct {
	what  string
	since time.Time
	slow  bool // OnSlow has been called
}

// enter begins to watch a write.
func (w *watchdog) enter(what string) *pendingWrite {
	p := &pendingWrite{what: what, since: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = append(w.pending, p)
	switch {
	case w.set: // for an earlier write, or one that is over
	case w.timer == nil:
		w.timer = time.AfterFunc(w.c.SlowAfter, w.look)
	default:
		w.timer.Reset(w.c.SlowAfter)
	}
	w.set = true
	return p
}

// leave ends it.
func (w *watchdog) leave(p *pendingWrite) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.Index(w.pending, p)
	w.pending = slices.Delete(w.pending, i, i+1)
}

// look acts on the writes that have been pending too long, and sets the timer for
// the next of them.
func (w *watchdog) look() {
	slow, stuck := w.overdue(time.Now())
	for _, p := range stuck {
		w.fail(fmt.Errorf("%s: still pending after %s", p.what, w.c.StopAfter))
	}
	for _, p := range slow {
		w.c.Log.Warn("a write to the Raft log is slow", "write", p.what, "took", w.c.SlowAfter)
		if w.c.OnSlow != nil {
			go w.c.OnSlow() // the caller's, as Config says; a look must not wait for it
		}
	}
}

func (w *watchdog) overdue(now time.Time) (slow, stuck []*pendingWrite) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := time.Duration(-1)
	for _, p := range w.pending {
		age := now.Sub(p.since)
		if age >= w.c.SlowAfter && !p.slow {
			p.slow = true
			slow = append(slow, p)
		}
		wait := w.c.StopAfter - age
		if wait <= 0 {
			stuck = append(stuck, p)
			continue
		}
		if !p.slow {
			wait = w.c.SlowAfter - age
		}
		if next < 0 || wait < next {
			next = wait
		}
	}
	w.set = next >= 0
	if w.set {
		w.timer.Reset(next)
	}
	return slow, stuck
}

// stop ends the watch.
func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}
