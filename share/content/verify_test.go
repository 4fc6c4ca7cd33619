package content

import (
	"errors"
	"slices"
	"testing"

	"lukechampine.com/blake3/guts"
)

func TestVerifyGroupRefusesOtherBytes(t *testing.T) {
	data := pattern(3*GroupSize + 1000)
	o := outboardOf(data)
	if err := o.Verify(outboardOf(data).ID()); err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(group(data, 1))
	flipped[GroupSize-1] ^= 1
	for _, tt := range []struct {
		name  string
		index int64
		data  []byte
		want  error
	}{
		{"first", 0, group(data, 0), nil},
		{"last", 3, group(data, 3), nil},
		{"one bit flipped", 1, flipped, ErrCorrupt},
		{"another group", 1, group(data, 0), ErrCorrupt},
		{"one byte short", 1, group(data, 1)[1:], ErrCorrupt},
		{"last one byte short", 3, group(data, 3)[:999], ErrCorrupt},
		{"last padded", 3, append(slices.Clone(group(data, 3)), 0), ErrCorrupt},
		{"empty", 0, nil, ErrCorrupt},
		{"longer than a group", 0, data[:GroupSize+1], ErrCorrupt},
	} {
		if err := o.VerifyGroup(tt.index, tt.data); !errors.Is(err, tt.want) {
			t.Errorf("%s: VerifyGroup(%d, %d bytes) = %v, want %v", tt.name, tt.index, len(tt.data), err, tt.want)
		}
	}
}

func TestVerifyRefusesAnotherList(t *testing.T) {
	o := outboardOf(pattern(4*GroupSize + 1))
	id := o.ID()
	for i := range o.Bytes() {
		o.Bytes()[i] ^= 0x80
		if err := o.Verify(id); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d changed: Verify = %v, want ErrCorrupt", i, err)
		}
		o.Bytes()[i] ^= 0x80
	}
	first, second := o.CV(0), o.CV(1)
	o.Set(0, second)
	o.Set(1, first)
	if err := o.Verify(id); !errors.Is(err, ErrCorrupt) {
		t.Errorf("entries swapped: Verify = %v, want ErrCorrupt", err)
	}
}

// The attack: nodes from another height of the tree, offered as the list of a
// shorter or longer content. The list merges to the ID, so Verify accepts it; the
// defense is that no bytes are the last group's.
func TestLastGroupProvesTheSize(t *testing.T) {
	const size = 4 * GroupSize
	data := pattern(size)
	truth := outboardOf(data)
	id := truth.ID()
	left, right := parent(truth.CV(0), truth.CV(1)), parent(truth.CV(2), truth.CV(3))

	var halves []CV // of each group: its two complete subtrees of 128 chunks
	for i := range int64(8) {
		halves = append(halves, halfGroupCV(data, i))
	}
	if got := parent(halves[6], halves[7]); got != truth.CV(3) {
		t.Fatalf("halves of group 3 merge to %x, want %x", got, truth.CV(3))
	}

	for _, tt := range []struct {
		name string
		size int64
		list []CV
		last [][]byte // candidates for the last group: all that an attacker could send
	}{
		{"parents as the leaves of a shorter content", 2 * GroupSize, []CV{left, right},
			[][]byte{group(data, 0), group(data, 1), group(data, 2), group(data, 3)}},
		{"parents, last group cut", 2*GroupSize - 1, []CV{left, right},
			[][]byte{group(data, 1)[1:], group(data, 3)[:GroupSize-1]}},
		{"a parent as the last leaf only", 3 * GroupSize, []CV{truth.CV(0), truth.CV(1), right},
			[][]byte{group(data, 2), group(data, 3)}},
		{"halves as the leaves of a longer content", 8 * GroupSize, halves,
			[][]byte{group(data, 0), group(data, 3), make([]byte, GroupSize)}},
		{"halves, the last length too", 7*GroupSize + GroupSize/2, halves,
			[][]byte{data[size-GroupSize/2:]}},
		{"the right list, a byte less", size - 1, cvs(truth, Span{0, 4}),
			[][]byte{group(data, 3)[:GroupSize-1], group(data, 3)[1:]}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, err := ParseOutboard(tt.size, EncodeCVs(tt.list))
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Verify(id); err != nil {
				t.Fatalf("Verify = %v, want the attack to pass here", err)
			}
			for i, last := range tt.last {
				if err := o.VerifyGroup(o.Groups()-1, last); !errors.Is(err, ErrCorrupt) {
					t.Errorf("VerifyGroup(last, candidate %d) = %v, want ErrCorrupt", i, err)
				}
			}
		})
	}

	o, err := ParseOutboard(3*GroupSize, EncodeCVs([]CV{truth.CV(0), truth.CV(1), right}))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.VerifyGroup(1, group(data, 1)); err != nil {
		t.Errorf("VerifyGroup(1) of a list with a false size = %v, want the true bytes accepted", err)
	}
	if err := truth.VerifyGroup(3, group(data, 3)); err != nil {
		t.Errorf("VerifyGroup(last) of the true list = %v, want nil", err)
	}
}

// halfGroupCV returns the chaining value of the index-th run of 128 KiB of data.
func halfGroupCV(data []byte, index int64) CV {
	const half = GroupSize / 2
	var t tree
	for i := index * half; i < (index+1)*half; i += ChunkSize {
		node := groupNode(data[i:i+ChunkSize], uint64(i/ChunkSize))
		t.push(guts.ChainingValue(node))
	}
	return t.cv()
}

// A content of one group has no list, so the whole attack is another size for it.
func TestVerifyDataProvesTheSize(t *testing.T) {
	for _, size := range []int{0, 1, ChunkSize, GroupSize} {
		data := pattern(size)
		id := Root(data)
		if err := VerifyData(id, data); err != nil {
			t.Errorf("VerifyData of %d bytes = %v, want nil", size, err)
		}
		if err := VerifyData(id, append(slices.Clone(data), 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("VerifyData of %d bytes and a zero = %v, want ErrCorrupt", size, err)
		}
		if size > 0 {
			if err := VerifyData(id, data[:size-1]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("VerifyData of %d bytes less one = %v, want ErrCorrupt", size, err)
			}
		}
	}
	data := pattern(2 * GroupSize)
	if err := VerifyData(outboardOf(data).ID(), data); !errors.Is(err, ErrCorrupt) {
		t.Errorf("VerifyData of two groups = %v, want ErrCorrupt", err)
	}
}

func TestVerifySegmentsRefuses(t *testing.T) {
	const size = 2*segmentSize + GroupSize + 5 // segments of 4096, 4096 and 2 groups
	o := randomOutboard(size)
	id, segs := o.ID(), o.Segments()
	flipped := slices.Clone(segs)
	flipped[1][31] ^= 1
	for _, tt := range []struct {
		name string
		size int64
		segs []CV
		want error
	}{
		{"the list", size, segs, nil},
		{"none", size, nil, ErrCorrupt},
		{"one less", size, segs[:2], ErrCorrupt},
		{"one more", size, append(slices.Clone(segs), CV{}), ErrCorrupt},
		{"one bit flipped", size, flipped, ErrCorrupt},
		{"swapped", size, []CV{segs[1], segs[0], segs[2]}, ErrCorrupt},
		{"one segment", segmentSize, segs[:1], ErrOneSegment},
		{"no size", -1, segs, ErrInvalidSize},
		{"too large", SizeMax + 1, segs, ErrInvalidSize},
		{"another size of as many segments", size + 1, segs, nil}, // the last group tells
	} {
		if err := VerifySegments(id, tt.size, tt.segs); !errors.Is(err, tt.want) {
			t.Errorf("%s: VerifySegments(%d, %d segments) = %v, want %v", tt.name, tt.size, len(tt.segs), err, tt.want)
		}
	}
}

func TestVerifySegmentRefuses(t *testing.T) {
	const size = 2*segmentSize + GroupSize + 5
	o := randomOutboard(size)
	segs := o.Segments()
	last := cvs(o, SegmentSpan(size, 2))
	for _, tt := range []struct {
		name   string
		size   int64
		seg    int64
		groups []CV
		want   error
	}{
		{"the last list", size, 2, last, nil},
		{"none", size, 2, nil, ErrCorrupt},
		{"one less", size, 2, last[:1], ErrCorrupt},
		{"swapped", size, 2, []CV{last[1], last[0]}, ErrCorrupt},
		{"the entry itself as the only group", size, 2, segs[2:], ErrCorrupt},
		{"another segment's", size, 1, cvs(o, SegmentSpan(size, 0)), ErrCorrupt},
		{"one segment", segmentSize, 0, cvs(o, SegmentSpan(size, 0)), ErrOneSegment},
		{"too large", SizeMax + 1, 0, last, ErrInvalidSize},
	} {
		if err := VerifySegment(tt.size, tt.seg, segs[tt.seg], tt.groups); !errors.Is(err, tt.want) {
			t.Errorf("%s: VerifySegment(%d, %d, %d groups) = %v, want %v", tt.name, tt.size, tt.seg, len(tt.groups), err, tt.want)
		}
	}
}

func FuzzVerifyGroup(f *testing.F) {
	f.Add([]byte("hello"), uint32(0), uint32(0))
	f.Add([]byte{}, uint32(3*GroupSize-1), uint32(GroupSize*8))
	f.Add([]byte{0, 1, 2}, uint32(2*GroupSize+1), uint32(1<<31))
	f.Fuzz(func(t *testing.T, start []byte, size, bit uint32) {
		data := pattern(int(size % (3*GroupSize + 1)))
		copy(data, start)
		o := outboardOf(data)
		for i := range o.Groups() {
			if err := o.VerifyGroup(i, group(data, i)); err != nil {
				t.Errorf("%d bytes: VerifyGroup(%d) = %v, want nil", len(data), i, err)
			}
		}
		if len(data) == 0 {
			return
		}
		bit %= uint32(8 * len(data))
		index := int64(bit / 8 / GroupSize)
		id := o.ID()

		data[bit/8] ^= 1 << (bit % 8)
		if err := o.VerifyGroup(index, group(data, index)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes, bit %d flipped: VerifyGroup(%d) = %v, want ErrCorrupt", len(data), bit, index, err)
		}
		data[bit/8] ^= 1 << (bit % 8)

		short := group(data, index)[:int(bit/8)%GroupSize]
		if err := o.VerifyGroup(index, short); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes, cut to %d: VerifyGroup(%d) = %v, want ErrCorrupt", len(data), len(short), index, err)
		}

		at := int(bit) % (8 * len(o.Bytes()))
		o.Bytes()[at/8] ^= 1 << (at % 8)
		if err := o.Verify(id); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d bytes, bit %d of the outboard flipped: Verify = %v, want ErrCorrupt", len(data), at, err)
		}
	})
}
