package content

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/p2pshare/p2pshare/share/content/internal/wide"
	"lukechampine.com/blake3/guts"
)

const (
	// ChunkSize is the length in bytes of a BLAKE3 leaf.
	ChunkSize = guts.ChunkSize

	// GroupSize is the length in bytes of a chunk group, the unit of verification
	// and of resume. It is part of every protocol and of the outboards on disk.
	// Doubling it halves the outboard (128 KiB per GiB at this size) and doubles
	// what one bad byte costs to fetch again; hashing speed is flat around here.
	GroupSize = 256 << 10

	// SegmentGroups is the number of groups in a segment: a subtree of 1 GiB, the
	// unit in which the outboard of a large content is fetched. A power of two, so
	// that a segment is a node of the tree.
	SegmentGroups = 4096

	// SizeMax is the length in bytes of the largest content accepted, 1 PiB: 2^32
	// groups in 2^20 segments.
	SizeMax = 1 << 50
)

const (
	chunksPerGroup = GroupSize / ChunkSize
	stripeSize     = guts.MaxSIMD * ChunkSize // what guts compresses in one call, and wide too
)

// useWide has groups computed by wide instead of guts, which takes half the time on
// the processors that can. Tests turn it off to see the other path.
var useWide = wide.Supported()

// ErrInvalidSize reports a size below 0 or above SizeMax. Whoever stated the size
// is wrong about it; there is nothing to retry.
var ErrInvalidSize = errors.New("not a content size")

// CheckSize returns an error that wraps ErrInvalidSize unless 0 <= size <= SizeMax.
// A size from outside goes through it before anything is computed from it.
func CheckSize(size int64) error {
	if size < 0 || size > SizeMax {
		return fmt.Errorf("%d bytes is %w: want 0 to %d", size, ErrInvalidSize, int64(SizeMax))
	}
	return nil
}

// GroupCount returns the number of groups of a content of size bytes, at least 1:
// the empty content is one empty group.
func GroupCount(size int64) int64 {
	if size <= 0 {
		return 1
	}
	return (size-1)/GroupSize + 1
}

// GroupLen returns the length in bytes of group index in a content of size bytes:
// GroupSize, or what remains for the last group, or 0 for the empty content and for
// an index outside it.
func GroupLen(size, index int64) int {
	if index < 0 || index >= GroupCount(size) {
		return 0
	}
	return int(max(0, min(GroupSize, size-index*GroupSize)))
}

// SegmentCount returns the number of segments of a content of size bytes, at least
// 1. The last one may be short.
func SegmentCount(size int64) int64 {
	return (GroupCount(size)-1)/SegmentGroups + 1
}

// TwoLevel reports whether the outboard of a content of size bytes is fetched in
// two levels, which is so above 64 GiB. Up to there the whole list is at most 8 MiB
// and one request is simpler.
func TwoLevel(size int64) bool { return size > 64<<30 }

// A Span is a run of chunk groups: Count of them from First on. One from outside
// goes through In before its other methods are used.
type Span struct{ First, Count int64 }

// SegmentSpan returns the groups of segment seg in a content of size bytes;
// 0 <= seg < SegmentCount(size).
func SegmentSpan(size, seg int64) Span {
	first := seg * SegmentGroups
	return Span{First: first, Count: min(SegmentGroups, GroupCount(size)-first)}
}

// End returns the index after the span's last group.
func (s Span) End() int64 { return s.First + s.Count }

// Offset returns where the span begins in the content, in bytes.
func (s Span) Offset() int64 { return s.First * GroupSize }

// Bytes returns the span's length in bytes in a content of size bytes. The span
// must be In(size).
func (s Span) Bytes(size int64) int64 {
	return min(s.End()*GroupSize, size) - s.Offset()
}

// In reports whether the span has at least one group and lies inside a content of
// size bytes. It is safe for any values.
func (s Span) In(size int64) bool {
	count := GroupCount(size)
	return s.First >= 0 && s.First < count && s.Count > 0 && s.Count <= count-s.First
}

// A CV is the chaining value of a subtree that is not the whole tree: a chunk
// group, a segment.
type CV [32]byte

// GroupCV returns the chaining value of data as chunk group index of a content of
// more than one group. data is 1 to GroupSize bytes and is not kept; GroupCV panics
// on another length. It allocates nothing and starts no goroutine.
func GroupCV(data []byte, index int64) CV {
	if len(data) == 0 || len(data) > GroupSize || index < 0 {
		panic(fmt.Sprintf("content: GroupCV of %d bytes at index %d", len(data), index))
	}
	return CV(bytesOf(guts.ChainingValue(groupNode(data, uint64(index)*chunksPerGroup))))
}

// Root returns the ID of a content that is one group: data is 0 to GroupSize bytes
// and is not kept; Root panics on more. Larger contents go through an Outboard.
func Root(data []byte) ID {
	if len(data) > GroupSize {
		panic(fmt.Sprintf("content: Root of %d bytes", len(data)))
	}
	return rootID(groupNode(data, 0))
}

// groupNode returns the top node of data, at most one group, whose first chunk is
// number chunk of the content. Finalizing is left to the caller, who knows whether
// it is the root.
func groupNode(data []byte, chunk uint64) guts.Node {
	switch {
	case len(data) <= ChunkSize:
		return guts.CompressChunk(data, &guts.IV, chunk, 0)
	case useWide:
		return groupNodeWide(data, chunk)
	default:
		return groupNodePortable(data, chunk)
	}
}

// groupNodeWide is groupNode of more than one chunk. It goes up the tree level by
// level, all parents of one at once: an odd node at the end of a level is the right
// child of one higher up, as BLAKE3 has it.
func groupNodeWide(data []byte, chunk uint64) guts.Node {
	var cvs [chunksPerGroup + 2*wide.Lanes][8]uint32
	count := 0
	for len(data) > 0 {
		n := min(len(data), stripeSize)
		wide.Chunks((*wide.CVs)(cvs[count:]), data[:n], chunk+uint64(count))
		count += (n + ChunkSize - 1) / ChunkSize
		data = data[n:]
	}
	for count > 2 {
		count = wide.Parents(cvs[:], count)
	}
	return guts.ParentNode(cvs[0], cvs[1], &guts.IV, 0)
}

// groupNodePortable is groupNode of more than one chunk.
//
// Each stripe is copied to the stack first. The AVX kernels gather their input with
// strides of 1 KiB, which on memory outside the first-level cache costs almost
// twice as much time as copying it there in order (0.37 against 0.21 CPU s/GB).
func groupNodePortable(data []byte, chunk uint64) guts.Node {
	var (
		stripe [stripeSize]byte
		t      tree
	)
	for {
		n := copy(stripe[:], data)
		node := guts.CompressBuffer(&stripe, n, &guts.IV, chunk, 0)
		data = data[n:]
		if len(data) == 0 && t.count == 0 {
			return node
		}
		t.push(guts.ChainingValue(node))
		if len(data) == 0 {
			return t.top()
		}
		chunk += guts.MaxSIMD
	}
}

// rootID finalizes the top node of a whole content.
func rootID(top guts.Node) ID {
	top.Flags |= guts.FlagRoot
	return ID(bytesOf(guts.ChainingValue(top)))
}

// tree merges the chaining values of neighboring subtrees, all complete and equally
// large except the last. Zero value: no subtree.
//
// The stack holds one chaining value per complete power of two of what was pushed,
// largest first, as in a binary counter. Merging is put off until the next push:
// before it nobody knows which parent is the topmost, whose node top must return.
//
// Invariant after push: the stack's depth is bits.OnesCount64(count-1) + 1.
//
// Source: BLAKE3, §5.1.2.
type tree struct {
	stack [33][8]uint32 // GroupCount(SizeMax) is 2^32
	depth int
	count uint64
}

func (t *tree) push(cv [8]uint32) {
	for t.depth > bits.OnesCount64(t.count) {
		parent := guts.ParentNode(t.stack[t.depth-2], t.stack[t.depth-1], &guts.IV, 0)
		t.depth--
		t.stack[t.depth-1] = guts.ChainingValue(parent)
	}
	t.stack[t.depth] = cv
	t.depth++
	t.count++
}

// top returns the topmost parent. At least two subtrees must have been pushed.
func (t *tree) top() guts.Node {
	i := t.depth - 2
	node := guts.ParentNode(t.stack[i], t.stack[i+1], &guts.IV, 0)
	for i--; i >= 0; i-- {
		node = guts.ParentNode(t.stack[i], guts.ChainingValue(node), &guts.IV, 0)
	}
	return node
}

// cv returns the chaining value over all that was pushed, at least one subtree.
func (t *tree) cv() CV {
	if t.depth == 1 {
		return CV(bytesOf(t.stack[0]))
	}
	return CV(bytesOf(guts.ChainingValue(t.top())))
}

func bytesOf(words [8]uint32) (b [32]byte) {
	for i, w := range words {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
	return b
}

func wordsOf(b [32]byte) (words [8]uint32) {
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return words
}
