package content

import (
	"errors"
	"fmt"
)

// ErrCorrupt reports bytes or chaining values that are not those of the content.
// Whoever sent them is to blame: do not keep them, and ask someone else. Reading our
// own file or outboard, it means that the disk or the file changed.
var ErrCorrupt = errors.New("does not match the content ID")

// Verify checks that the list merges to id. The error is ErrCorrupt.
//
// It does not prove Size: the list may be made of nodes higher or lower in the tree
// of id than a content of that size has (see the package comment). VerifyGroup on
// the last index does.
func (o *Outboard) Verify(id ID) error {
	if o.ID() != id {
		return fmt.Errorf("outboard of %d groups: %w", o.Groups(), ErrCorrupt)
	}
	return nil
}

// VerifyGroup checks that data is group index of the content: that it has the
// length that Size gives it and hashes to the entry. It is worth what the list is,
// so Verify comes first (or VerifySegments and VerifySegment, and Set). The error is
// ErrCorrupt. VerifyGroup panics if index is outside the outboard.
//
// Accepting the last group, Groups()-1, of a verified list proves that Size is the
// size of the content. Until then Size is a claim: do not extend a file to it, and do
// not blame a peer for a group that fails against a list that another peer gave.
// Best fetch the last group first, from the peer that gave the list.
func (o *Outboard) VerifyGroup(index int64, data []byte) error {
	want := o.CV(index)
	if n := GroupLen(o.size, index); len(data) != n {
		return fmt.Errorf("group %d of %d bytes, want %d: %w", index, len(data), n, ErrCorrupt)
	}
	if o.groupCV(index, data) != want {
		return fmt.Errorf("group %d: %w", index, ErrCorrupt)
	}
	return nil
}

// VerifyData checks a content of one group, which is its own proof, of the size too.
// The error is ErrCorrupt, also for data longer than a group.
func VerifyData(id ID, data []byte) error {
	if len(data) > GroupSize {
		return fmt.Errorf("content of %d bytes, want at most %d: %w", len(data), GroupSize, ErrCorrupt)
	}
	if Root(data) != id {
		return fmt.Errorf("content of %d bytes: %w", len(data), ErrCorrupt)
	}
	return nil
}

// ErrOneSegment reports the two-level form of a content that is a single segment.
// It has no top level: fetch the whole list and use Outboard.Verify.
var ErrOneSegment = errors.New("content of one segment has no list of segments")

// VerifySegments checks segs, the top level of the two-level form, against id. Like
// Outboard.Verify it does not prove size; the last group of the last segment does.
//
// Errors: ErrCorrupt, also for a wrong number of segments; ErrInvalidSize;
// ErrOneSegment if size is that of one segment.
func VerifySegments(id ID, size int64, segs []CV) error {
	count, err := segmentCount(size)
	if err != nil {
		return err
	}
	if int64(len(segs)) != count {
		return fmt.Errorf("list of %d segments, want %d for a content of %d: %w", len(segs), count, size, ErrCorrupt)
	}
	t := treeOf(segs)
	if rootID(t.top()) != id {
		return fmt.Errorf("list of %d segments: %w", len(segs), ErrCorrupt)
	}
	return nil
}

// VerifySegment checks groups, the chaining values of the groups of segment seg,
// against want, the entry for seg in a list that VerifySegments accepted. A last
// segment of one group is that group: its list is want itself.
//
// Errors: ErrCorrupt, also for a wrong number of groups; ErrInvalidSize;
// ErrOneSegment if size is that of one segment. It panics if seg is outside the
// content.
func VerifySegment(size, seg int64, want CV, groups []CV) error {
	count, err := segmentCount(size)
	if err != nil {
		return err
	}
	if seg < 0 || seg >= count {
		panic(fmt.Sprintf("content: segment %d of %d", seg, count))
	}
	if n := SegmentSpan(size, seg).Count; int64(len(groups)) != n {
		return fmt.Errorf("segment %d of %d groups, want %d: %w", seg, len(groups), n, ErrCorrupt)
	}
	t := treeOf(groups)
	if t.cv() != want {
		return fmt.Errorf("segment %d: %w", seg, ErrCorrupt)
	}
	return nil
}

// segmentCount is SegmentCount for the two-level form: at least 2.
func segmentCount(size int64) (int64, error) {
	if err := CheckSize(size); err != nil {
		return 0, err
	}
	count := SegmentCount(size)
	if count == 1 {
		return 0, ErrOneSegment
	}
	return count, nil
}

func treeOf(cvs []CV) (t tree) {
	for i := range cvs {
		t.push(wordsOf(cvs[i]))
	}
	return t
}
