package control

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// transfers are the gets of this peer: those that run or are paused, and the last
// that ended in the background. Its methods are safe for concurrent use.
//
//	running ──pause──▶ paused ──resume──▶ running ──▶ done | failed
//	   └──────────────────┴──cancel──▶ gone, its partial file kept
type transfers struct {
	mu   sync.Mutex
	list []*transfer // guarded by mu, and so are their fields below that line
	last int         // guarded by mu: the highest number that was given as an ID
}

type transfer struct {
	req  GetRequest
	what share.What
	id   string // set by add

	// Guarded by transfers.mu.
	state    TransferState
	progress share.Progress
	name     share.Name
	content  content.ID
	path     string
	failure  *Error
	stop     context.CancelCauseFunc // ends the attempt under way; nil: none
	change   chan struct{}           // closed and replaced when state changes
	cut      bool                    // cancelled
}

// Why an attempt ends that was not the last word.
var (
	errPaused    = errors.New("paused")
	errCancelled = Errorf(CodeInterrupted, "the transfer was cancelled").
			WithHint("the partial file is kept; the same get goes on from it")
)

// endedMax is how many transfers that ended in the background are remembered.
const endedMax = 32

// add enters a transfer and gives it an ID, unless it has one from an earlier run.
func (ts *transfers) add(t *transfer) error {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	background := 0
	for _, other := range ts.list {
		if other.req.Detached && other.under() {
			background++
		}
	}
	if t.req.Detached && background >= backgroundMax {
		return Errorf(CodeRefused, "%d transfers run in the background already", backgroundMax).
			WithHint("wait for one of them to end, or cancel one: p2pshare transfers")
	}
	if t.id == "" {
		ts.last++
		t.id = strconv.Itoa(ts.last)
	}
	if n, err := strconv.Atoi(t.id); err == nil {
		ts.last = max(ts.last, n)
	}
	if t.state == "" {
		t.state = TransferRunning
	}
	t.name, t.content, t.path, t.change = t.what.Name, t.what.ID, t.req.Target, make(chan struct{})
	ts.list = append(ts.list, t)
	return nil
}

// under tells that it is not over.
func (t *transfer) under() bool { return t.state == TransferRunning || t.state == TransferPaused }

func (ts *transfers) drop(t *transfer) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.list = slices.DeleteFunc(ts.list, func(other *transfer) bool { return other == t })
}

// end notes how a background transfer ended.
func (ts *transfers) end(t *transfer, got share.Got, err error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t.state, t.path = TransferDone, got.Path
	if err != nil {
		t.state, t.failure = TransferFailed, ErrorOf(err)
	}
	ended := 0
	for _, other := range slices.Backward(ts.list) {
		if !other.under() {
			ended++
			other.cut = other.cut || ended > endedMax
		}
	}
	ts.list = slices.DeleteFunc(ts.list, func(other *transfer) bool { return !other.under() && other.cut })
}

// run calls get until it ends by itself, or t is cancelled, or ctx ends. While t is
// paused it waits.
func (ts *transfers) run(ctx context.Context, t *transfer, get func(context.Context) (share.Got, error)) (share.Got, error) {
	for {
		attempt, end, err := ts.attempt(ctx, t)
		if err != nil {
			return share.Got{}, err
		}
		got, err := get(attempt)
		cause := context.Cause(attempt)
		end(nil)
		switch {
		case err == nil:
			return got, nil
		case ctx.Err() != nil || !errors.Is(cause, errPaused):
			if errors.Is(cause, errCancelled) {
				err = errCancelled
			}
			return got, err
		}
	}
}

// attempt waits until t runs, and returns the context of the next attempt.
func (ts *transfers) attempt(ctx context.Context, t *transfer) (context.Context, context.CancelCauseFunc, error) {
	for {
		ts.mu.Lock()
		state, cut, change := t.state, t.cut, t.change
		if state == TransferRunning && !cut {
			ctx, stop := context.WithCancelCause(ctx)
			t.stop = stop
			ts.mu.Unlock()
			return ctx, stop, nil
		}
		ts.mu.Unlock()
		if cut {
			return nil, nil, errCancelled
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// change does one op on the transfer with that ID.
func (ts *transfers) change(op, id string) (*TransferChanged, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	i := slices.IndexFunc(ts.list, func(t *transfer) bool { return t.id == id })
	if i < 0 {
		return nil, Errorf(CodeNotFound, "there is no transfer %q", share.Escape(id)).WithHint("p2pshare transfers lists them")
	}
	t := ts.list[i]
	var cause error
	switch {
	case op == "cancel" && !t.under():
		ts.list = slices.Delete(ts.list, i, i+1) // no more than a line that is struck off
		return &TransferChanged{ID: id, State: TransferCancelled}, nil
	case !t.under():
		return nil, Errorf(CodeUsage, "transfer %s has ended", id)
	case op == "cancel":
		t.cut, cause = true, errCancelled
	case op == "pause" && t.req.Stream:
		return nil, Errorf(CodeRefused, "transfer %s streams, and can't begin again in the middle", id).
			WithHint("stop whoever reads it")
	case op == "pause":
		t.state, cause = TransferPaused, errPaused
	case op == "resume":
		t.state = TransferRunning
	default:
		return nil, Errorf(CodeUsage, "unknown op %q", share.Escape(op))
	}
	if cause != nil && t.stop != nil {
		t.stop(cause)
	}
	t.progress.Rate, t.progress.ETA = 0, 0
	close(t.change)
	t.change = make(chan struct{})
	changed := &TransferChanged{ID: id, State: t.state}
	if t.cut {
		changed.State = TransferCancelled
	}
	return changed, nil
}

// watch has t know what its get does.
func (ts *transfers) watch(t *transfer, o share.GetOptions) share.GetOptions {
	tell := o.Progress
	o.Progress = func(p share.Progress) {
		ts.mu.Lock()
		t.progress = p
		ts.mu.Unlock()
		if tell != nil {
			tell(p)
		}
	}
	o.Resolved = func(name share.Name, id content.ID) {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		t.name, t.content = name, id
	}
	return o
}

// lines tells of all transfers, in the order in which they were begun.
func (ts *transfers) lines() []*Transfer {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	var list []*Transfer
	for _, t := range ts.list {
		list = append(list, t.line())
	}
	return list
}

// line is t as it is listed. The caller holds transfers.mu.
func (t *transfer) line() *Transfer {
	p := t.progress
	line := &Transfer{Direction: DirectionDown, ID: t.id, Name: string(t.name), Content: t.content, Path: t.path,
		State: t.state, Phase: p.Phase, Done: p.Done, Total: p.Total, Rate: p.Rate, ETA: seconds(p.ETA),
		Sources: slices.Clone(p.Peers), Error: t.failure, What: t.req.What}
	if t.failure != nil {
		line.Problem = t.failure.Message
	}
	if line.Path == "" && t.req.Dir != "" {
		line.Path = filepath.Join(t.req.Dir, filepath.Base(string(t.name)))
	}
	if !t.under() || t.state == TransferPaused {
		line.Rate, line.ETA, line.Phase = 0, 0, ""
		for i := range line.Sources {
			line.Sources[i].Rate = 0
		}
	}
	if t.state == TransferDone {
		line.Done = line.Total
	}
	return line
}

// running is how many gets are under way.
func (t *transfers) running() (count int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.list {
		if x.state == TransferRunning {
			count++
		}
	}
	return count
}
