package raftlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// BenchmarkStoreLogs stores entries of 256 bytes, beside raft-wal as it comes.
func BenchmarkStoreLogs(b *testing.B) {
	for _, n := range []int{1, 64} {
		for _, name := range []string{"raft-wal", "raftlog"} {
			b.Run(fmt.Sprintf("batch=%d/%s", n, name), func(b *testing.B) {
				var store raft.LogStore
				if name == "raftlog" {
					store, _ = mustOpen(b, b.TempDir(), Config{})
				} else {
					w, err := wal.Open(b.TempDir(), wal.WithSegmentSize(segmentSizeDefault), wal.WithLogger(hclog.NewNullLogger()))
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { w.Close() })
					store = w
				}
				es := make([]*raft.Log, n)
				for i := range es {
					es[i] = &raft.Log{Term: 1, Data: make([]byte, 256), AppendedAt: time.Now()}
				}
				index := uint64(0)
				b.SetBytes(int64(256 * n))
				for b.Loop() {
					for _, e := range es {
						index++
						e.Index = index
					}
					if err := store.StoreLogs(es); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkSealAll is what the seal adds to a batch: compare with the above.
func BenchmarkSealAll(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			es := make([]*raft.Log, n)
			for i := range es {
				es[i] = &raft.Log{Index: uint64(i), Term: 1, Data: make([]byte, 256), AppendedAt: time.Now()}
			}
			b.SetBytes(int64(256 * n))
			for b.Loop() {
				sealAll(es)
			}
		})
	}
}
