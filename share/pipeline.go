package share

import (
	"errors"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// smallAnswer takes the answer to one request of a pipeline: the data, which it
// must not keep, or the reason why there is none. It is called once for each
// request, by the goroutine that reads the stream: while it waits, so does the
// peer.
type smallAnswer func(data []byte, err error)

// askSmall asks for contents of one chunk group each, in one write, and does not
// wait for the answers. It returns a function that calls off those which have not
// come: once that has returned, no answer is called any more.
func (r *remote) askSmall(ids []content.ID, answers []smallAnswer) (callOff func()) {
	return r.steady().askSmall(ids, answers)
}

func (l *lane) askSmall(ids []content.ID, answers []smallAnswer) (callOff func()) {
	asked := make([]*request, len(ids))
	tags := make([]uint32, len(ids))
	frames := make([]byte, 0, len(ids)*(frameHeaderLen+requestMax))
	l.mu.Lock()
	if err := l.failed; err != nil {
		l.mu.Unlock()
		for _, answer := range answers {
			answer(nil, err)
		}
		return func() {}
	}
	if len(l.pending) == 0 {
		l.since = time.Now()
	}
	for i, id := range ids {
		asked[i] = l.smallRequest(id, answers[i])
		tags[i] = l.next
		l.pending[l.next] = asked[i]
		l.next++
		frames = dataRequest{kind: frameSpan, id: id, count: 1}.append(frames, tags[i])
	}
	l.mu.Unlock()
	if err := l.write(frames); err != nil {
		l.stream.Reset() // ends read, which knows best what was wrong, and fails them all
	}
	return func() { l.callOff(asked, tags) }
}

func (l *lane) smallRequest(id content.ID, answer smallAnswer) *request {
	return &request{
		frames: 2, // the group, and an error after all
		onData: func(a dataAnswer) error {
			if a.kind != frameLast || a.index != 0 {
				return &CorruptError{ID: id, Peer: l.stream.Peer(), Reason: "chunk groups came that were not asked for"}
			}
			answer(a.data, nil)
			return nil
		},
		ended: func(err error) {
			if err == nil {
				return // answered
			}
			if bad := new(CorruptError); errors.As(err, &bad) && bad.modified {
				err = errNotHeld // its other files are as good as before
			} else if bad.ID.IsZero() && bad.Peer != "" {
				err = &CorruptError{ID: id, Peer: bad.Peer, Reason: bad.Reason}
			}
			answer(nil, err)
		},
	}
}

func (l *lane) callOff(asked []*request, tags []uint32) {
	var frames []byte
	for i, q := range asked {
		q.mu.Lock()
		q.dead = true // and pending still: its end is owed
		q.mu.Unlock()
		l.mu.Lock()
		_, unanswered := l.pending[tags[i]]
		l.mu.Unlock()
		if unanswered {
			frames = dataRequest{kind: frameCancel}.append(frames, tags[i])
		}
	}
	if len(frames) == 0 {
		return
	}
	if err := l.write(frames); err != nil {
		l.stream.Reset()
	}
}
