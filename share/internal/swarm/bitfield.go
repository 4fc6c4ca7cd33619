package swarm

import "math/bits"

// Bitfield is a set of chunk groups, numbered from 0 up to its length.
type Bitfield struct {
	words []uint64
	len   int64
	count int64
}

// NewBitfield returns an empty set over n groups.
func NewBitfield(n int64) *Bitfield {
	return &Bitfield{words: make([]uint64, (n+63)/64), len: n}
}

// Len is how many groups there are; Count how many are in the set.
func (b *Bitfield) Len() int64   { return b.len }
func (b *Bitfield) Count() int64 { return b.count }

// Has reports whether group i is in the set. i must be below Len.
func (b *Bitfield) Has(i int64) bool { return b.words[i/64]&(1<<(i%64)) != 0 }

// Set puts group i into the set, and reports whether it was not in it before.
func (b *Bitfield) Set(i int64) bool {
	if b.Has(i) {
		return false
	}
	b.words[i/64] |= 1 << (i % 64)
	b.count++
	return true
}

// NextClear returns the first group at or after i that is not in the set, or
// Len when there is none.
func (b *Bitfield) NextClear(i int64) int64 {
	for i < b.len {
		rest := ^b.words[i/64] >> (i % 64)
		if rest != 0 {
			return min(i+int64(bits.TrailingZeros64(rest)), b.len)
		}
		i = (i/64 + 1) * 64
	}
	return b.len
}
