package content

import "fmt"

// cvSize is the length in bytes of a chaining value in a list.
const cvSize = len(CV{})

// An Outboard is the list of a content's group chaining values, kept apart from the
// content's bytes, and the size they stand for. For a content of one group the one
// entry is the content ID (see the package comment).
//
// It may be read from several goroutines, and written by Set and SetGroup from
// several goroutines as long as no two touch one index at once and none reads that
// index. There is no lock.
type Outboard struct {
	size int64
	list []byte // cvSize bytes per group
}

// NewOutboard returns an outboard of all zero entries for a content of size bytes,
// to be filled by Set or SetGroup. It takes 32 bytes of memory per 256 KiB of size.
// It panics unless CheckSize(size) is nil: a size from outside is checked first, and
// held against what one is willing to allocate.
func NewOutboard(size int64) *Outboard {
	if err := CheckSize(size); err != nil {
		panic("content: NewOutboard: " + err.Error())
	}
	return &Outboard{size: size, list: make([]byte, GroupCount(size)*int64(cvSize))}
}

// ParseOutboard returns the outboard that b encodes for a content of size bytes.
// It keeps b. Nothing is proved yet: Verify checks the list, and VerifyGroup on the
// last group checks the size.
//
// Errors: ErrInvalidSize; ErrCorrupt if b is not exactly 32 bytes per group.
func ParseOutboard(size int64, b []byte) (*Outboard, error) {
	if err := CheckSize(size); err != nil {
		return nil, err
	}
	if want := GroupCount(size) * int64(cvSize); int64(len(b)) != want {
		return nil, fmt.Errorf("outboard of %d bytes, want %d for a content of %d: %w", len(b), want, size, ErrCorrupt)
	}
	return &Outboard{size: size, list: b}, nil
}

// Size returns the content's length in bytes, as claimed to NewOutboard or
// ParseOutboard.
func (o *Outboard) Size() int64 { return o.size }

// Groups returns the number of entries, GroupCount(Size()).
func (o *Outboard) Groups() int64 { return int64(len(o.list) / cvSize) }

// Bytes returns the encoding, 32 bytes per group. It is the outboard's own memory:
// read it only, and not while Set runs.
func (o *Outboard) Bytes() []byte { return o.list }

// SetGroup sets the entry of group index from the group's bytes, which must be
// exactly GroupLen(Size(), index) long; it panics otherwise. It covers contents of
// one group too. data is not kept.
func (o *Outboard) SetGroup(index int64, data []byte) {
	if len(data) != GroupLen(o.size, index) {
		panic(fmt.Sprintf("content: SetGroup(%d) with %d bytes in a content of %d", index, len(data), o.size))
	}
	o.Set(index, o.groupCV(index, data))
}

// groupCV returns the entry that stands for data as group index.
func (o *Outboard) groupCV(index int64, data []byte) CV {
	if o.Groups() == 1 {
		return CV(Root(data))
	}
	return GroupCV(data, index)
}

// Set sets entry index: GroupCV of the group's bytes, or Root of them if the content
// is one group (SetGroup chooses). It panics if index is outside the outboard.
func (o *Outboard) Set(index int64, cv CV) {
	copy(o.entry(index), cv[:])
}

// CV returns entry index. It panics if index is outside the outboard.
func (o *Outboard) CV(index int64) CV { return CV(o.entry(index)) }

func (o *Outboard) entry(index int64) []byte {
	if index < 0 || index >= o.Groups() {
		panic(fmt.Sprintf("content: entry %d of an outboard of %d", index, o.Groups()))
	}
	return o.list[index*int64(cvSize):][:cvSize]
}

// ID returns the content ID that the list merges to. It takes one compression per
// group, about half a millisecond per GiB of content.
func (o *Outboard) ID() ID {
	if o.Groups() == 1 {
		return ID(o.CV(0))
	}
	var t tree
	for i := range o.Groups() {
		t.push(wordsOf(o.CV(i)))
	}
	return rootID(t.top())
}

// Segments returns the top level of the two-level form, computed from the groups:
// one chaining value per segment. A content of one segment has no top level, because
// that subtree is the root, and Segments returns nil.
func (o *Outboard) Segments() []CV {
	count := SegmentCount(o.size)
	if count == 1 {
		return nil
	}
	segs := make([]CV, count)
	for i := range segs {
		var t tree
		span := SegmentSpan(o.size, int64(i))
		for g := span.First; g < span.End(); g++ {
			t.push(wordsOf(o.CV(g)))
		}
		segs[i] = t.cv()
	}
	return segs
}

// EncodeCVs returns a list of chaining values in the outboard's encoding, in a new
// slice: what travels for each level of the two-level form.
func EncodeCVs(cvs []CV) []byte {
	b := make([]byte, 0, len(cvs)*cvSize)
	for i := range cvs {
		b = append(b, cvs[i][:]...)
	}
	return b
}

// DecodeCVs is the inverse of EncodeCVs. It does not keep b. The error is ErrCorrupt
// if b is not a multiple of 32 bytes long.
func DecodeCVs(b []byte) ([]CV, error) {
	if len(b)%cvSize != 0 {
		return nil, fmt.Errorf("chaining values in %d bytes, want a multiple of %d: %w", len(b), cvSize, ErrCorrupt)
	}
	cvs := make([]CV, len(b)/cvSize)
	for i := range cvs {
		cvs[i] = CV(b[i*cvSize:][:cvSize])
	}
	return cvs, nil
}
