package share

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/p2pshare/p2pshare/share/content"
)

// sizedID is a content and how large it is.
type sizedID struct {
	id   content.ID
	size int64
}

// largest keeps the n largest contents it is offered, each once: a heap with
// the smallest of them on top.
type largest struct {
	max  int
	heap []sizedID
	seen map[content.ID]bool
}

func newLargest(max int) *largest { return &largest{max: max, seen: map[content.ID]bool{}} }

func (l *largest) Len() int           { return len(l.heap) }
func (l *largest) Less(i, j int) bool { return l.heap[i].size < l.heap[j].size }
func (l *largest) Swap(i, j int)      { l.heap[i], l.heap[j] = l.heap[j], l.heap[i] }
func (l *largest) Push(x any)         { l.heap = append(l.heap, x.(sizedID)) }
func (l *largest) Pop() any {
	last := l.heap[len(l.heap)-1]
	l.heap = l.heap[:len(l.heap)-1]
	return last
}

func (l *largest) offer(id content.ID, size int64) {
	if l.seen[id] || len(l.heap) == l.max && size <= l.heap[0].size {
		return
	}
	if len(l.heap) == l.max {
		delete(l.seen, heap.Pop(l).(sizedID).id)
	}
	l.seen[id] = true
	heap.Push(l, sizedID{id, size})
}

// ids returns what was kept, largest first.
func (l *largest) ids() []content.ID {
	slices.SortFunc(l.heap, func(a, b sizedID) int { return cmp.Compare(b.size, a.size) })
	ids := make([]content.ID, len(l.heap))
	for i, s := range l.heap {
		ids[i] = s.id
	}
	return ids
}
