package share

import (
	"io"
	"slices"
	"sync"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
)

// orderedWindow is how many groups ahead of the output are fetched: 16 MiB,
// which is also the most that ordered holds.
const orderedWindow = 64

// ordered is a sink that writes a content in order. What comes early waits. A
// slow reader of out slows the sources down.
type ordered struct {
	out io.Writer

	mu      sync.Mutex // guards all below, and the order of writes to out
	next    int64
	waiting map[int64][]byte
}

func (o *ordered) admit(int64) error { return nil }

func (o *ordered) prepare(int64, *content.Outboard) (*swarm.Bitfield, error) {
	o.waiting = map[int64][]byte{}
	return nil, nil
}

func (o *ordered) write(index int64, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if index != o.next {
		o.waiting[index] = slices.Clone(data)
		return nil
	}
	for ok := true; ok; data, ok = o.waiting[o.next] {
		if _, err := o.out.Write(data); err != nil {
			return err
		}
		delete(o.waiting, o.next)
		o.next++
	}
	return nil
}
