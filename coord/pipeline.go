package coord

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline is a raft.AppendPipeline that ends with the first answer that is not a
// success. Raft reads no further one, and in v1.8.0 may wait for ever to send: its
// decoder waits for somebody to take the next answer, its sender for the decoder, and
// neither looks whether the reader is gone. Heartbeats go on, so the member that
// refused, as one does whose disk failed, gets no entries from this leader any more.
type pipeline struct {
	raft.AppendPipeline
	answers  chan raft.AppendFuture // has no room: Raft takes one, or closes the pipeline
	quit     chan struct{}          // closed by Close
	quitOnce sync.Once
}

// newPipeline takes over p. Raft closes each pipeline, which ends what is started here.
func newPipeline(p raft.AppendPipeline) *pipeline {
	n := &pipeline{AppendPipeline: p, answers: make(chan raft.AppendFuture), quit: make(chan struct{})}
	go n.pass()
	return n
}

// pass hands answers to Raft until one is no success, or Close.
func (p *pipeline) pass() {
	for {
		var f raft.AppendFuture
		select {
		case f = <-p.AppendPipeline.Consumer():
		case <-p.quit:
			return
		}
		select {
		case p.answers <- f:
		case <-p.quit:
			return
		}
		if a := f.Response(); f.Error() != nil || !a.Success || a.Term > f.Request().Term {
			p.AppendPipeline.Close() // what waits to send returns
			return
		}
	}
}

// Consumer gives the answers in order.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close ends the pipeline. It may be called twice.
func (p *pipeline) Close() error {
	p.quitOnce.Do(func() { close(p.quit) })
	return p.AppendPipeline.Close()
}
