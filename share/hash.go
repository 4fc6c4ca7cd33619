package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// groupBuffers are buffers of one chunk group, one a worker. 256 KiB reads are
// where reading from the page cache stops getting faster.
var groupBuffers = sync.Pool{New: func() any { return new([content.GroupSize]byte) }}

// hashRun is how many groups a worker takes at once: 4 MiB, so that workers
// read long runs and still end together.
const hashRun = 16

// hashContent names size bytes of r. Contents of more than one group are read
// by one worker a processor, or a single one with parallel false. The outboard is nil for a content of
// one group, which needs none. hashed is called with each group's length as it
// is done, from several goroutines. A source that ends early is ErrModified.
func hashContent(ctx context.Context, r io.ReaderAt, size int64, parallel bool, hashed func(n int)) (content.ID, *content.Outboard, error) {
	if size > content.SizeMax {
		return content.ID{}, nil, fmt.Errorf("larger than %d bytes: %w", int64(content.SizeMax), ErrNotShareable)
	}
	groups := content.GroupCount(size)
	if groups == 1 {
		buf := groupBuffers.Get().(*[content.GroupSize]byte)
		defer groupBuffers.Put(buf)
		if err := readGroup(r, size, 0, buf); err != nil {
			return content.ID{}, nil, err
		}
		hashed(int(size))
		return content.Root(buf[:size]), nil, nil
	}
	o := content.NewOutboard(size)
	workers := int64(1)
	if parallel {
		workers = min(int64(runtime.GOMAXPROCS(0)), (groups+hashRun-1)/hashRun)
	}
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error {
			buf := groupBuffers.Get().(*[content.GroupSize]byte)
			defer groupBuffers.Put(buf)
			for {
				first := next.Add(hashRun) - hashRun
				if first >= groups {
					return nil
				}
				for i := first; i < min(first+hashRun, groups); i++ {
					if err := ctx.Err(); err != nil {
						return err
					}
					if err := readGroup(r, size, i, buf); err != nil {
						return err
					}
					n := content.GroupLen(size, i)
					o.Set(i, content.GroupCV(buf[:n], i))
					hashed(n)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return content.ID{}, nil, err
	}
	return o.ID(), o, nil
}

// readGroup fills buf with chunk group index of r.
func readGroup(r io.ReaderAt, size, index int64, buf *[content.GroupSize]byte) error {
	n := content.GroupLen(size, index)
	if n == 0 {
		return nil
	}
	got, err := r.ReadAt(buf[:n], index*content.GroupSize)
	if got == n {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it became shorter while it was read: %w", ErrModified)
	}
	return err
}
