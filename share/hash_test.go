package share

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/p2pshare/p2pshare/share/content"
	"lukechampine.com/blake3"
)

// boundarySizes are sizes around everything that hashContent divides by.
func boundarySizes() []int {
	sizes := []int{0, 1, 63, 64, 65}
	for _, edge := range []int{1024, 2048, content.GroupSize, 2 * content.GroupSize, 3 * content.GroupSize, hashRun * content.GroupSize, 2 * hashRun * content.GroupSize} {
		sizes = append(sizes, edge-1, edge, edge+1)
	}
	return append(sizes, 5*content.GroupSize+777)
}

func TestHashContentNamesEverySize(t *testing.T) {
	sizes := boundarySizes()
	data := randomBytes(sizes[len(sizes)-2]+content.GroupSize, "hash")
	for _, size := range sizes {
		want := content.ID(blake3.Sum256(data[:size]))
		for _, parallel := range []bool{false, true} {
			var hashed atomic.Int64
			// A reader that has more must not matter: a file may grow.
			id, o, err := hashContent(t.Context(), bytes.NewReader(data), int64(size), parallel, func(n int) { hashed.Add(int64(n)) })
			if err != nil || id != want {
				t.Errorf("%d bytes, parallel %v: %s, %v, want %s", size, parallel, id, err, want)
				continue
			}
			if hashed.Load() != int64(size) {
				t.Errorf("%d bytes, parallel %v: told of %d", size, parallel, hashed.Load())
			}
			if size <= content.GroupSize {
				if o != nil {
					t.Errorf("%d bytes: an outboard for one group", size)
				}
				continue
			}
			expect := content.NewOutboard(int64(size))
			for i := range content.GroupCount(int64(size)) {
				at := i * content.GroupSize
				expect.SetGroup(i, data[at:at+int64(content.GroupLen(int64(size), i))])
			}
			if !bytes.Equal(o.Bytes(), expect.Bytes()) || o.Verify(id) != nil {
				t.Errorf("%d bytes, parallel %v: the outboard differs", size, parallel)
			}
		}
	}
}

func TestHashContentOfSourceThatEndsEarly(t *testing.T) {
	data := randomBytes(3*content.GroupSize, "short")
	for _, size := range []int{1, content.GroupSize, content.GroupSize + 1, len(data)} {
		for _, parallel := range []bool{false, true} {
			_, _, err := hashContent(t.Context(), bytes.NewReader(data[:size-1]), int64(size), parallel, func(int) {})
			if !errors.Is(err, ErrModified) {
				t.Errorf("%d bytes of %d: %v, want ErrModified", size-1, size, err)
			}
		}
	}
}

type errReaderAt struct{ error }

func (r errReaderAt) ReadAt([]byte, int64) (int, error) { return 0, r.error }

func TestHashContentPassesOnErrors(t *testing.T) {
	for _, size := range []int64{1, 3 * content.GroupSize} {
		if _, _, err := hashContent(t.Context(), errReaderAt{iotest.ErrTimeout}, size, true, func(int) {}); !errors.Is(err, iotest.ErrTimeout) || errors.Is(err, ErrModified) {
			t.Errorf("%d bytes: %v, want the reader's error", size, err)
		}
	}
	if _, _, err := hashContent(t.Context(), errReaderAt{io.EOF}, content.SizeMax+1, true, func(int) {}); !errors.Is(err, ErrNotShareable) {
		t.Errorf("more than the largest: %v, want ErrNotShareable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	data := make([]byte, 64*content.GroupSize)
	_, _, err := hashContent(ctx, bytes.NewReader(data), int64(len(data)), false, func(int) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want context.Canceled", err)
	}
}

func BenchmarkHashContent(b *testing.B) {
	data := randomBytes(64<<20, "bench")
	for _, parallel := range []bool{false, true} {
		b.Run(fmt.Sprintf("parallel=%v", parallel), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, _, err := hashContent(b.Context(), bytes.NewReader(data), int64(len(data)), parallel, func(int) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
