package coord

import (
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestPipelineEndsWithAnAnswerThatIsNoSuccess does as Raft's leader does with a member
// that takes no entries: it reads one answer, and may go on sending.
func TestPipelineEndsWithAnAnswerThatIsNoSuccess(t *testing.T) {
	var ends [2]*raft.NetworkTransport
	for i := range ends {
		end, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		defer end.Close()
		defer end.CloseStreams()
		ends[i] = end
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		for {
			select {
			case rpc := <-ends[1].Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Term: 1}, nil)
			case <-stop:
				return
			}
		}
	}()
	inner, err := ends[0].AppendEntriesPipeline("b", ends[1].LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	p := newPipeline(inner)
	defer p.Close()
	send := func() error {
		_, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 1}, new(raft.AppendEntriesResponse))
		return err
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	if f := <-p.Consumer(); f.Error() != nil || f.Response().Success {
		t.Fatalf("the answer is %+v, %v; want no success", f.Response(), f.Error())
	}
	ended := make(chan error, 1)
	go func() {
		for {
			if err := send(); err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("who sends waits still, 5 s after the answer that was no success")
		p.Close()
		<-ended
	}
}
