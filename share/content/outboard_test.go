package content

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"lukechampine.com/blake3/guts"
)

// randomOutboard returns an outboard of random chaining values: the tree above the
// groups needs no bytes below them.
func randomOutboard(size int64) *Outboard {
	o := NewOutboard(size)
	rand.NewChaCha8([32]byte{1}).Read(o.Bytes())
	return o
}

// cvs returns the entries of span.
func cvs(o *Outboard, span Span) []CV {
	list := make([]CV, span.Count)
	for i := range list {
		list[i] = o.CV(span.First + int64(i))
	}
	return list
}

// parent returns the chaining value of the node above two subtrees.
func parent(left, right CV) CV {
	return CV(bytesOf(guts.ChainingValue(guts.ParentNode(wordsOf(left), wordsOf(right), &guts.IV, 0))))
}

// recursiveCV is the tree by its definition: the left subtree holds the largest
// power of two of leaves that leaves something for the right.
func recursiveCV(list []CV) CV {
	if len(list) == 1 {
		return list[0]
	}
	left := 1
	for 2*left < len(list) {
		left *= 2
	}
	return parent(recursiveCV(list[:left]), recursiveCV(list[left:]))
}

func TestTreeMergesAsDefined(t *testing.T) {
	o := randomOutboard(300 * GroupSize)
	for n := int64(1); n <= 300; n++ {
		list := cvs(o, Span{0, n})
		tr := treeOf(list)
		if got, want := tr.cv(), recursiveCV(list); got != want {
			t.Fatalf("tree of %d = %x, want %x", n, got, want)
		}
	}
}

func TestOutboardOfOneGroupHoldsTheID(t *testing.T) {
	for _, size := range []int{0, 1, ChunkSize + 1, GroupSize} {
		data := pattern(size)
		id := Root(data)
		if got := outboardOf(data).Bytes(); !bytes.Equal(got, id[:]) {
			t.Errorf("%d bytes: outboard = %x, want the ID %x", size, got, id)
		}
		o, err := ParseOutboard(int64(size), id[:])
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(o.Verify(id), o.VerifyGroup(0, data)); err != nil {
			t.Errorf("%d bytes: outboard made of the ID: %v", size, err)
		}
	}
}

func TestSetFromManyGoroutines(t *testing.T) {
	data := pattern(9*GroupSize + 1)
	o := NewOutboard(int64(len(data)))
	var wg sync.WaitGroup
	for i := range o.Groups() {
		wg.Go(func() { o.SetGroup(i, group(data, i)) })
	}
	wg.Wait()
	if got, want := o.ID(), outboardOf(data).ID(); got != want {
		t.Errorf("ID = %s, want %s", got, want)
	}
}

func TestParseOutboardTakesTheExactLength(t *testing.T) {
	o := outboardOf(pattern(2*GroupSize + 5))
	b := o.Bytes()
	got, err := ParseOutboard(o.Size(), b)
	if err != nil || got.Size() != o.Size() || got.Groups() != 3 || !bytes.Equal(got.Bytes(), b) {
		t.Fatalf("ParseOutboard(%d, %d bytes) = %v, %v, want the same outboard", o.Size(), len(b), got, err)
	}
	for _, tt := range []struct {
		size int64
		b    []byte
		want error
	}{
		{o.Size(), nil, ErrCorrupt},
		{o.Size(), b[1:], ErrCorrupt},
		{o.Size(), b[32:], ErrCorrupt},
		{o.Size(), append(slices.Clone(b), 0), ErrCorrupt},
		{2 * GroupSize, b, ErrCorrupt},
		{3*GroupSize + 1, b, ErrCorrupt},
		{0, nil, ErrCorrupt},
		{SizeMax, b, ErrCorrupt},
		{-1, b, ErrInvalidSize},
		{SizeMax + 1, b, ErrInvalidSize},
		{math.MaxInt64, b, ErrInvalidSize},
	} {
		if got, err := ParseOutboard(tt.size, tt.b); !errors.Is(err, tt.want) || got != nil {
			t.Errorf("ParseOutboard(%d, %d bytes) = %v, %v, want %v", tt.size, len(tt.b), got, err, tt.want)
		}
	}
}

func TestSegmentsMergeToTheID(t *testing.T) {
	for _, groups := range []int64{
		1, 2, SegmentGroups - 1, SegmentGroups, SegmentGroups + 1, SegmentGroups + 2,
		2*SegmentGroups - 1, 2 * SegmentGroups, 2*SegmentGroups + 1, 3*SegmentGroups + 77, 5 * SegmentGroups,
	} {
		o := randomOutboard(groups*GroupSize - 3)
		segs := o.Segments()
		if groups <= SegmentGroups {
			if segs != nil {
				t.Errorf("%d groups: %d segments, want none", groups, len(segs))
			}
			continue
		}
		if int64(len(segs)) != SegmentCount(o.Size()) {
			t.Fatalf("%d groups: %d segments, want %d", groups, len(segs), SegmentCount(o.Size()))
		}
		if err := VerifySegments(o.ID(), o.Size(), segs); err != nil {
			t.Errorf("%d groups: VerifySegments: %v", groups, err)
		}
		for i, want := range segs {
			seg := int64(i)
			list := cvs(o, SegmentSpan(o.Size(), seg))
			if got := recursiveCV(list); got != want {
				t.Errorf("%d groups: segment %d = %x, want %x", groups, seg, want, got)
			}
			if err := VerifySegment(o.Size(), seg, want, list); err != nil {
				t.Errorf("%d groups: VerifySegment(%d): %v", groups, seg, err)
			}
		}
	}
}

func TestCVListRoundTrip(t *testing.T) {
	o := randomOutboard(5 * GroupSize)
	list := cvs(o, Span{0, 5})
	b := EncodeCVs(list)
	if !bytes.Equal(b, o.Bytes()) {
		t.Errorf("EncodeCVs = %x, want the outboard's encoding %x", b, o.Bytes())
	}
	if got, err := DecodeCVs(b); err != nil || !slices.Equal(got, list) {
		t.Errorf("DecodeCVs = %x, %v, want %x", got, err, list)
	}
	if got, err := DecodeCVs(b[1:]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("DecodeCVs of 159 bytes = %x, %v, want ErrCorrupt", got, err)
	}
}

func FuzzParseOutboard(f *testing.F) {
	f.Add(int64(0), make([]byte, 32))
	f.Add(int64(2*GroupSize+1), outboardOf(pattern(2*GroupSize+1)).Bytes())
	f.Add(int64(SizeMax), []byte{})
	f.Add(int64(-1), []byte{})
	f.Fuzz(func(t *testing.T, size int64, b []byte) {
		o, err := ParseOutboard(size, b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrInvalidSize) {
				t.Errorf("ParseOutboard(%d, %d bytes) error = %v, want a sentinel", size, len(b), err)
			}
			return
		}
		if o.Size() != size || o.Groups() != GroupCount(size) || !bytes.Equal(o.Bytes(), b) {
			t.Errorf("ParseOutboard(%d, %d bytes): size %d, %d groups, want the input back", size, len(b), o.Size(), o.Groups())
		}
		id := o.ID()
		if err := o.Verify(id); err != nil {
			t.Errorf("Verify of its own ID: %v", err)
		}
		if len(b) == 32 {
			return
		}
		if got := ID(recursiveCV(cvs(o, Span{0, o.Groups()}))); got == id {
			t.Errorf("ID %s equals the chaining value, want the root flag in it", id)
		}
		again := NewOutboard(size)
		for i := range o.Groups() {
			again.Set(i, o.CV(i))
		}
		if again.ID() != id {
			t.Errorf("ID after Set of every entry = %s, want %s", again.ID(), id)
		}
	})
}

func BenchmarkOutboardID(b *testing.B) {
	o := randomOutboard(segmentSize) // 4096 groups, 1 GiB of content
	b.SetBytes(int64(len(o.Bytes())))
	for b.Loop() {
		o.ID()
	}
}

func BenchmarkVerifySegment(b *testing.B) {
	o := randomOutboard(2 * segmentSize)
	want, list := o.Segments()[0], cvs(o, Span{0, SegmentGroups})
	b.SetBytes(int64(len(list) * cvSize))
	for b.Loop() {
		if err := VerifySegment(o.Size(), 0, want, list); err != nil {
			b.Fatal(err)
		}
	}
}
