package share

import (
	"encoding/binary"
	"slices"

	"github.com/p2pshare/p2pshare/share/content"
)

// twins finds the files of a listing that are equal, so that each content is
// fetched once and copied from there. Add every entry, then settle; after that
// the memory that it takes grows with the contents that occur more than once.
// It is for one goroutine at a time.
type twins struct {
	seen     []uint64            // the beginnings of all IDs, until settle
	repeated map[uint64]struct{} // those of more than one entry
	first    map[content.ID]string
}

// twinsMax is how many contents that occur more than once are remembered.
// Further ones are fetched for each of their names.
const twinsMax = 1 << 17

func twinKey(id content.ID) uint64 { return binary.BigEndian.Uint64(id[:8]) }

func (t *twins) add(e Entry) {
	if e.Kind == KindFile && e.Size > 0 {
		t.seen = append(t.seen, twinKey(e.ID))
	}
}

func (t *twins) settle() {
	slices.Sort(t.seen)
	t.repeated, t.first = map[uint64]struct{}{}, map[content.ID]string{}
	for i := 1; i < len(t.seen) && len(t.repeated) < twinsMax; i++ {
		if t.seen[i] == t.seen[i-1] {
			t.repeated[t.seen[i]] = struct{}{}
		}
	}
	t.seen = nil
}

// any reports whether there are equal files.
func (t *twins) any() bool { return len(t.repeated) > 0 }

// of returns the local path of the first file that is equal to e, which is at
// local, or "" when that is e itself or there is none. The files must be asked
// for in the listing's order; asked again, it answers the same.
func (t *twins) of(e Entry, local string) string {
	if _, ok := t.repeated[twinKey(e.ID)]; !ok || e.Size == 0 {
		return ""
	}
	first, ok := t.first[e.ID]
	if !ok {
		if len(t.first) < twinsMax { // IDs that only begin alike may be made
			t.first[e.ID] = local
		}
		return ""
	}
	if first == local {
		return ""
	}
	return first
}
