package swarm

import (
	"math/bits"
	"slices"
)

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

// Clone returns a copy.
func (b *Bitfield) Clone() *Bitfield {
	return &Bitfield{words: slices.Clone(b.words), len: b.len, count: b.count}
}

// Clear takes group i out of the set, and reports whether it was in it.
func (b *Bitfield) Clear(i int64) bool {
	if !b.Has(i) {
		return false
	}
	b.words[i/64] &^= 1 << (i % 64)
	b.count--
	return true
}

// SetAll puts every group into the set.
func (b *Bitfield) SetAll() {
	for i := range b.words {
		b.words[i] = ^uint64(0)
	}
	if rest := b.len % 64; rest > 0 {
		b.words[len(b.words)-1] = 1<<rest - 1
	}
	b.count = b.len
}

// NextSet returns the first group at or after i that is in the set, or Len
// when there is none.
func (b *Bitfield) NextSet(i int64) int64 {
	for i < b.len {
		if rest := b.words[i/64] >> (i % 64); rest != 0 {
			return i + int64(bits.TrailingZeros64(rest))
		}
		i = (i/64 + 1) * 64
	}
	return b.len
}

// NextBeyond returns the first group at or after i that is in the set and not
// in other, which is as long, or Len when there is none.
func (b *Bitfield) NextBeyond(i int64, other *Bitfield) int64 { return nextOf(i, b.len, b, other) }

// nextOf returns the first group at or after i, and below end, that is in
// within (nil: any) and in neither of not, or end when there is none.
func nextOf(i, end int64, within *Bitfield, not ...*Bitfield) int64 {
	for i < end {
		word := ^uint64(0)
		if within != nil {
			word = within.words[i/64]
		}
		for _, n := range not {
			word &^= n.words[i/64]
		}
		if word >>= i % 64; word != 0 {
			return min(i+int64(bits.TrailingZeros64(word)), end)
		}
		i = (i/64 + 1) * 64
	}
	return end
}
