package share

import (
	"io"
	"os"
	"sync"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
)

// orderedWindow is how many groups ahead of the output are fetched: 32 MiB,
// which is also the most that ordered holds.
const orderedWindow = 128

// ordered is a sink that writes a content in order. What comes early waits. A
// slow reader of out slows the sources down.
type ordered struct {
	out io.Writer

	mu      sync.Mutex // guards all below, and the order of writes to out
	next    int64
	waiting map[int64]early
}

// early is a group that waits for those before it.
type early struct {
	buf *[content.GroupSize]byte // of groupBuffers
	len int
}

func (o *ordered) admit(int64) error { return nil }

func (o *ordered) prepare(int64, *content.Outboard) (*swarm.Bitfield, error) {
	o.waiting = map[int64]early{}
	return nil, nil
}

func (o *ordered) write(index int64, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if index != o.next {
		buf := groupBuffers.Get().(*[content.GroupSize]byte)
		o.waiting[index] = early{buf, copy(buf[:], data)}
		return nil
	}
	if _, err := o.out.Write(data); err != nil {
		return err
	}
	for o.next++; ; o.next++ {
		e, ok := o.waiting[o.next]
		if !ok {
			return nil
		}
		if _, err := o.out.Write(e.buf[:e.len]); err != nil {
			return err
		}
		delete(o.waiting, o.next)
		groupBuffers.Put(e.buf)
	}
}

// nowhere is a sink that keeps nothing, for which any order is right.
type nowhere struct{}

func (nowhere) admit(int64) error                                         { return nil }
func (nowhere) prepare(int64, *content.Outboard) (*swarm.Bitfield, error) { return nil, nil }
func (nowhere) write(int64, []byte) error                                 { return nil }

// keepsNothing tells whether out is the null device, or io.Discard.
func keepsNothing(out io.Writer) bool {
	if out == io.Discard {
		return true
	}
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err == nil && os.SameFile(info, null)
}
