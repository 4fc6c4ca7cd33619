package pinset

import (
	"math/bits"
)

// Fractions of a plan are fixed-point numbers, since machines may round floating
// point differently (fused multiply-add, assembly of exp and log), and every
// member has to make the same plan. one is 1.
const (
	fractionBits = 32
	one          = 1 << fractionBits
)

// mulDiv returns a*b/c, rounded down; c is not less than a or b.
func mulDiv(a, b, c uint64) uint64 {
	if c == 0 {
		return 0
	}
	hi, lo := bits.Mul64(a, b)
	q, _ := bits.Div64(hi, lo, c)
	return q
}

// mulHigh returns a*b/2^64, rounded down.
func mulHigh(a, b uint64) uint64 {
	hi, _ := bits.Mul64(a, b)
	return hi
}

// mul returns the product of two fractions that are at most one.
func mul(a, b uint64) uint64 { return a * b >> fractionBits }

const (
	logBits  = 8 // of the tables' index
	logCells = 1 << logBits
)

// logTable has log2(1+i/256), and expTable 2^-(i/256), as fractions, for
// interpolation: by squaring and by bisection, in integers alone, which takes a
// tenth of a millisecond.
var logTable, expTable = makeLogTable(), makeExpTable()

func makeLogTable() *[logCells + 1]uint64 {
	t := new([logCells + 1]uint64)
	for i := range t {
		x := uint64(1)<<62 + uint64(i)<<(62-logBits) // 1+i/256, of 62 bits
		for range fractionBits {
			hi, lo := bits.Mul64(x, x)
			x = hi<<2 | lo>>62
			t[i] <<= 1
			if x >= 1<<63 {
				x >>= 1
				t[i]++
			}
		}
	}
	t[logCells] = one
	return t
}

func makeExpTable() *[logCells + 1]uint64 {
	t := new([logCells + 1]uint64)
	for i := range t {
		want := uint64(logCells-i) << (fractionBits - logBits) // log2 of 2 * 2^-(i/256)
		low, high := uint64(one), uint64(2*one)
		for high-low > 1 {
			if middle := (low + high) / 2; log2(middle)-fractionBits*one > want {
				high = middle
			} else {
				low = middle
			}
		}
		t[i] = high / 2
	}
	return t
}

// log2 returns log2(x) as a fraction; x is not 0.
func log2(x uint64) uint64 {
	zeros := bits.LeadingZeros64(x)
	x <<= zeros + 1 // what follows the first bit
	t := logTable
	i := x >> (64 - logBits)
	rest := x << logBits >> (64 - fractionBits)
	return uint64(63-zeros)<<fractionBits + t[i] + mul(t[i+1]-t[i], rest)
}

// exp2 returns 2^-x.
func exp2(x uint64) uint64 {
	whole := x >> fractionBits
	if whole >= fractionBits {
		return 0
	}
	t := expTable
	i := x & (one - 1) >> (fractionBits - logBits)
	rest := x << (fractionBits + logBits) >> (64 - fractionBits)
	return (t[i] - mul(t[i]-t[i+1], rest)) >> whole
}

// root returns the square root of hi:lo, rounded down to about 32 bits.
func root(hi, lo uint64) uint64 {
	shift := (129 - bits.LeadingZeros64(hi)) / 2 * 2 // even, so that 62 bits or more go
	if hi == 0 {
		shift = 0
	} else {
		shift -= 64
		lo = lo>>shift | hi<<(64-shift)
	}
	r := uint64(0)
	for bit := uint64(1) << 31; bit > 0; bit >>= 1 {
		if (r+bit)*(r+bit) <= lo {
			r += bit
		}
	}
	return r << (shift / 2)
}
