//go:build ignore

// Gen writes wide_amd64.s. It is run by "go generate", with the dependencies of
// .tools.mod, so that the module itself does not depend on avo.
//
// The state and the message of 16 compressions fill the 32 ZMM registers exactly:
// word i of all 16 states is one register, as is word i of all 16 messages, and a
// round is the scalar algorithm with each operation done 16 times. Nothing is
// spilled.
//
// Source: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, "BLAKE3", §2.2 (compression),
// §5.3 (many inputs at once).
package main

import (
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	lanes      = 16
	blockSize  = 64
	chunkSize  = 1024
	rounds     = 7
	flagStart  = 1
	flagEnd    = 2
	flagParent = 4
)

var (
	iv          = [8]uint32{0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19}
	permutation = [16]int{2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8}
)

// zmm are all vector registers: the state's words, then the message's.
var zmm = []VecPhysical{
	Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
	Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31,
}

func main() {
	Package("github.com/p2pshare/p2pshare/share/content/internal/wide")
	ConstraintExpr("!purego")
	k := constants{
		iv:     words("iv", iv[:]...),
		scalar: words("scalar", blockSize, flagEnd, flagParent, 1),
		lane:   words("lane", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
		flags:  words("flags", flagStart, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, flagEnd),
	}
	k.chunks()
	k.parents()
	Generate()
}

// constants are the read-only data.
type constants struct {
	iv     Mem
	scalar Mem // see below
	lane   Mem // the number of each lane
	flags  Mem // of each block of a chunk
}

// The places of single words in constants.scalar.
const (
	constBlockSize = 4 * iota
	constFlagEnd
	constFlagParent
	constOne
)

// words declares read-only data.
func words(name string, values ...uint32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i, v := range values {
		DATA(4*i, U32(v))
	}
	return m
}

func (k constants) chunks() {
	TEXT("chunks", NOSPLIT, "func(cvs *[16][8]uint32, data *byte, counter uint64, lastLane, lastBlock, lastLen uint64)")
	Pragma("noescape")
	Doc("chunks sets cvs to the chaining values of 16 neighboring chunks, of which the",
		"first is number counter. It reads 16 KiB of data. The chunk of the lane whose",
		"bit lastLane has, if any, ends after lastLen bytes of block lastBlock; what",
		"follows in that block must be zero.")
	cvs := Load(Param("cvs"), GP64())
	data := Load(Param("data"), GP64())
	counter := Load(Param("counter"), GP64())
	lastLane := Load(Param("lastLane"), GP64())
	lastBlock := Load(Param("lastBlock"), GP64())
	lastLen := Load(Param("lastLen"), GP64())
	counters := AllocLocal(2 * 4 * lanes)
	short := AllocLocal(8 * 4 * lanes)

	Comment("The counter of each lane; a sum below its summand has carried.")
	VPBROADCASTD(counter.(GPVirtual).As32(), Z0)
	SHRQ(U8(32), counter)
	VPBROADCASTD(counter.(GPVirtual).As32(), Z1)
	VPADDD(k.lane, Z0, Z2)
	VPCMPUD(U8(1), Z0, Z2, K2)
	VPADDD_BCST(k.scalar.Offset(constOne), Z1, K2, Z1)
	VMOVDQU32(Z2, counters)
	VMOVDQU32(Z1, counters.Offset(4*lanes))

	KMOVW(lastLane.(GPVirtual).As32(), K1)
	k.loadIV(zmm[:8])
	flags := GP64()
	LEAQ(k.flags, flags)
	block := GP64()
	XORQ(block, block)

	ahead := GP64()
	LEAQ(Mem{Base: data, Disp: lanes * chunkSize}, ahead)

	Label("block")
	m, v := loadMessage(data, chunkSize)
	k.loadIV(v[8:12])
	VMOVDQU32(counters, v[12])
	VMOVDQU32(counters.Offset(4*lanes), v[13])
	VPBROADCASTD(k.scalar.Offset(constBlockSize), v[14])
	VPBROADCASTD(Mem{Base: flags, Index: block, Scale: 4}, v[15])
	CMPQ(block, lastBlock)
	JNE(LabelRef("compress"))
	VPBROADCASTD(lastLen.(GPVirtual).As32(), K1, v[14])
	VPORD_BCST(k.scalar.Offset(constFlagEnd), v[15], K1, v[15])

	Label("compress")
	Comment("Fetch a chunk of the next stripe ahead, front to back: what the processor sees of",
		"the loads, 16 streams side by side, it does not fetch ahead in time.")
	compress(v, m, func(i int) { PREFETCHT0(Mem{Base: ahead, Disp: i * blockSize}) })
	CMPQ(block, lastBlock)
	JNE(LabelRef("next"))
	Comment("Keep the chaining value of the lane that ends here.")
	for i := range 8 {
		VMOVDQU32(zmm[i], short.Offset(4*lanes*i))
	}

	Label("next")
	ADDQ(U8(blockSize), data)
	ADDQ(U32(chunkSize), ahead)
	INCQ(block)
	CMPQ(block, U8(chunkSize/blockSize))
	JNE(LabelRef("block"))

	TESTQ(lastLane, lastLane)
	JEQ(LabelRef("store"))
	for i := range 8 {
		VMOVDQU32(short.Offset(4*lanes*i), K1, zmm[i])
	}
	Label("store")
	storeCVs(cvs)
	VZEROUPPER()
	RET()
}

func (k constants) parents() {
	TEXT("parents", NOSPLIT, "func(cvs *[16][8]uint32, children *[32][8]uint32)")
	Pragma("noescape")
	Doc("parents sets cvs to the chaining values of 16 parents, from those of their",
		"children. cvs may be the first half of children.")
	cvs := Load(Param("cvs"), GP64())
	children := Load(Param("children"), GP64())
	k.loadIV(zmm[:8])
	m, v := loadMessage(children, blockSize)
	k.loadIV(v[8:12])
	VPXORD(v[12], v[12], v[12])
	VPXORD(v[13], v[13], v[13])
	VPBROADCASTD(k.scalar.Offset(constBlockSize), v[14])
	VPBROADCASTD(k.scalar.Offset(constFlagParent), v[15])
	compress(v, m, func(int) {})
	storeCVs(cvs)
	VZEROUPPER()
	RET()
}

func (k constants) loadIV(to []VecPhysical) {
	for i, z := range to {
		VPBROADCASTD(k.iv.Offset(4*i), z)
	}
}

// vector is the registers of 16 words: of the state, or of the message.
type vector [16]VecPhysical

// loadMessage loads the blocks at 16 addresses, stride bytes apart. It returns the
// registers of the message's words, and those of a state whose first half is in
// zmm[:8].
//
// Whole blocks are loaded and transposed as a matrix of 16 rows: in two steps
// within their quarters, in two more the quarters themselves. Gathers, which do
// it in one, take twice the time.
func loadMessage(from Register, stride int) (message, state vector) {
	rows := vector(zmm[16:])
	for i, z := range rows {
		VMOVDQU32(Mem{Base: from, Disp: i * stride}, z)
	}
	spare := zmm[8]
	// both replaces rows a and b by low and high of them.
	both := func(a, b int, low, high func(ops ...Op)) {
		low(rows[b], rows[a], spare)
		high(rows[b], rows[a], rows[b])
		rows[a], spare = spare, rows[a]
	}
	for i := 0; i < lanes; i += 2 {
		both(i, i+1, VPUNPCKLDQ, VPUNPCKHDQ)
	}
	// Quarter L of row 4q is now words 4L and 4L+1 of rows 4q and 4q+1, of row 4q+1
	// words 4L+2 and 4L+3; rows 4q+2 and 4q+3 are the same of those two.
	for q := 0; q < lanes; q += 4 {
		both(q, q+2, VPUNPCKLQDQ, VPUNPCKHQDQ)
		both(q+1, q+3, VPUNPCKLQDQ, VPUNPCKHQDQ)
	}
	// Quarter L of row 4q+place[i] is now word 4L+i of rows 4q to 4q+3.
	place := [4]int{0, 2, 1, 3}
	even := func(ops ...Op) { VSHUFI32X4(append([]Op{U8(0x88)}, ops...)...) }
	odd := func(ops ...Op) { VSHUFI32X4(append([]Op{U8(0xdd)}, ops...)...) }
	for i, p := range place {
		a, b, c, d := p, 4+p, 8+p, 12+p
		both(a, b, even, odd)
		both(c, d, even, odd)
		both(a, c, even, odd)
		both(b, d, even, odd)
		message[i], message[4+i], message[8+i], message[12+i] = rows[a], rows[b], rows[c], rows[d]
	}
	copy(state[:], zmm[:8])
	copy(state[8:], zmm[8:16])
	for i, z := range state {
		if slices.Contains(message[:], z) {
			state[i] = spare
		}
	}
	return message, state
}

// skew is by how many steps the second half of a round's mixing follows the first.
// A step is one operation on two columns or diagonals. Rotations run on half of the
// ports: with 2, those of one half stand beside additions of the other.
//
// It can't be more than 4, or a diagonal would overwrite words that a column that
// follows still needs.
const skew = 2

// compress sets the first half of v to the chaining values. It puts what meanwhile
// writes, 16 times, between the rounds' steps.
func compress(v, m vector, meanwhile func(i int)) {
	// The diagonals that go first start from what the columns that go first end
	// with, and the other way round.
	type quad [4]int
	columns := [2][2]quad{{{0, 4, 8, 12}, {1, 5, 9, 13}}, {{2, 6, 10, 14}, {3, 7, 11, 15}}}
	diagonals := [2][2]quad{{{3, 4, 9, 14}, {0, 5, 10, 15}}, {{1, 6, 11, 12}, {2, 7, 8, 13}}}

	var steps [2][]func()
	// mix puts the steps of the quarter rounds on two quads, which take their words
	// of m at first, to the end of steps[half].
	mix := func(half int, quads [2]quad, m [4]VecPhysical) {
		step := func(op func(q quad, i int)) {
			steps[half] = append(steps[half], func() {
				for i, q := range quads {
					op(q, i)
				}
			})
		}
		for word, rotations := range [2][2]uint64{{16, 12}, {8, 7}} {
			step(func(q quad, i int) { VPADDD(m[2*i+word], v[q[0]], v[q[0]]) })
			step(func(q quad, i int) { VPADDD(v[q[1]], v[q[0]], v[q[0]]) })
			step(func(q quad, i int) { VPXORD(v[q[0]], v[q[3]], v[q[3]]) })
			step(func(q quad, i int) { VPRORD(U8(rotations[0]), v[q[3]], v[q[3]]) })
			step(func(q quad, i int) { VPADDD(v[q[3]], v[q[2]], v[q[2]]) })
			step(func(q quad, i int) { VPXORD(v[q[2]], v[q[1]], v[q[1]]) })
			step(func(q quad, i int) { VPRORD(U8(rotations[1]), v[q[1]], v[q[1]]) })
		}
	}
	for range rounds {
		mix(0, columns[0], [4]VecPhysical(m[0:4]))
		mix(1, columns[1], [4]VecPhysical(m[4:8]))
		mix(0, diagonals[0], [4]VecPhysical{m[14], m[15], m[8], m[9]})
		mix(1, diagonals[1], [4]VecPhysical(m[10:14]))
		var next vector
		for i, from := range permutation {
			next[i] = m[from]
		}
		m = next
	}
	spread := len(steps[0]) / lanes
	for i := range len(steps[0]) + skew {
		if i%spread == 0 && i/spread < lanes {
			meanwhile(i / spread)
		}
		if i < len(steps[0]) {
			steps[0][i]()
		}
		if i >= skew {
			steps[1][i-skew]()
		}
	}
	for i := range 8 {
		VPXORD(v[8+i], v[i], v[i])
	}
}

// storeCVs transposes registers 0 to 7, word by word of 16 chaining values, into
// memory: value by value.
func storeCVs(to Register) {
	rows, spare := vector(zmm[:16]), zmm[16]
	both := func(a, b int, low, high func(ops ...Op)) {
		low(rows[b], rows[a], spare)
		high(rows[b], rows[a], rows[b])
		rows[a], spare = spare, rows[a]
	}
	for half := 0; half < 8; half += 4 {
		both(half, half+1, VPUNPCKLDQ, VPUNPCKHDQ)
		both(half+2, half+3, VPUNPCKLDQ, VPUNPCKHDQ)
		both(half, half+2, VPUNPCKLQDQ, VPUNPCKHQDQ)
		both(half+1, half+3, VPUNPCKLQDQ, VPUNPCKHQDQ)
		// Quarter L of row place[i] is half a chaining value of lane 4L+i.
		for i, p := range [4]int{0, 2, 1, 3} {
			for quarter := range 4 {
				VEXTRACTI32X4(U8(quarter), rows[half+p], Mem{Base: to, Disp: 32*(4*quarter+i) + 4*half})
			}
		}
	}
}
