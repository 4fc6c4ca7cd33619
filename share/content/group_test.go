package content

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/p2pshare/p2pshare/share/content/internal/wide"
	"lukechampine.com/blake3"
)

// pattern returns size bytes of the content of testdata/vectors.txt.
func pattern(size int) []byte {
	b := make([]byte, size)
	for i := range min(size, 251) {
		b[i] = byte(i)
	}
	for n := 251; n < size; n *= 2 { // a copy: byte by byte is slow under -race
		copy(b[n:], b[:n])
	}
	return b
}

// group returns the bytes of group index of data.
func group(data []byte, index int64) []byte {
	return data[index*GroupSize:][:GroupLen(int64(len(data)), index)]
}

// outboardOf returns the outboard of data.
func outboardOf(data []byte) *Outboard {
	o := NewOutboard(int64(len(data)))
	for i := range o.Groups() {
		o.SetGroup(i, group(data, i))
	}
	return o
}

// A kernel is one of the ways to compute a group's chaining value.
type kernel struct {
	name string
	wide bool
}

// kernels returns those that this processor has.
func kernels() []kernel {
	if !wide.Supported() {
		return []kernel{{"portable", false}}
	}
	return []kernel{{"portable", false}, {"wide", true}}
}

// use makes all hashing of the test use k.
func (k kernel) use(t testing.TB) {
	before := useWide
	useWide = k.wide
	t.Cleanup(func() { useWide = before })
}

func TestIDEqualsBlake3OfTheWhole(t *testing.T) {
	for _, k := range kernels() {
		t.Run(k.name, func(t *testing.T) {
			k.use(t)
			testIDEqualsBlake3OfTheWhole(t)
		})
	}
}

func testIDEqualsBlake3OfTheWhole(t *testing.T) {
	data := pattern(37*GroupSize + 5*ChunkSize + 3)
	check := func(size int) {
		want := ID(blake3.Sum256(data[:size]))
		if got := outboardOf(data[:size]).ID(); got != want {
			t.Errorf("%d bytes: ID = %s, want %s", size, got, want)
		}
		if size > GroupSize {
			return
		}
		if got := Root(data[:size]); got != want {
			t.Errorf("%d bytes: Root = %s, want %s", size, got, want)
		}
	}
	for size := range 3<<10 + 1 {
		check(size)
	}
	for chunks := 3; chunks <= 2*chunksPerGroup+1; chunks++ {
		for _, d := range []int{-1, 0, 1} {
			check(chunks*ChunkSize + d)
		}
	}
	for groups := 1; groups <= 9; groups++ {
		for _, d := range []int{-stripeSize - 1, -ChunkSize, -1, 0, 1, ChunkSize, ChunkSize + 1, stripeSize, stripeSize + 1} {
			check(groups*GroupSize + d)
		}
	}
	for _, size := range []int{31*GroupSize + 1, 32 * GroupSize, 33*GroupSize - 77777, len(data)} {
		check(size)
	}
}

func TestVectors(t *testing.T) {
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	defer func(before bool) { useWide = before }(useWide)
	count := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		sizeText, want, _ := strings.Cut(line, " ")
		size, err := strconv.Atoi(sizeText)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		count++
		for _, k := range kernels() {
			useWide = k.wide
			if got := outboardOf(pattern(size)).ID().Hex(); got != want {
				t.Errorf("%d bytes, %s: ID = %s, want %s", size, k.name, got, want)
			}
		}
	}
	if count < 50 {
		t.Errorf("read %d vectors, want at least 50", count)
	}
}

func FuzzKernelsAgree(f *testing.F) {
	if !wide.Supported() {
		f.Skip("this processor has one kernel only")
	}
	f.Add([]byte("seed"), uint32(ChunkSize+1), uint32(0))
	f.Add([]byte("0123"), uint32(GroupSize), uint32(1<<24))
	f.Add([]byte(""), uint32(GroupSize-stripeSize+1), uint32(math.MaxUint32))
	f.Fuzz(func(t *testing.T, seed []byte, size, index uint32) {
		data := make([]byte, ChunkSize+1+size%(GroupSize-ChunkSize))
		var key [32]byte
		copy(key[:], seed)
		rand.NewChaCha8(key).Read(data)
		chunk := uint64(index) * chunksPerGroup
		if got, want := groupNodeWide(data, chunk), groupNodePortable(data, chunk); got != want {
			t.Errorf("%d bytes from chunk %d: node = %08x, guts says %08x", len(data), chunk, got, want)
		}
	})
}

func TestIDEqualsB3sum(t *testing.T) {
	b3sum, err := exec.LookPath("b3sum")
	if err != nil {
		t.Skip("no b3sum on PATH; testdata/vectors.txt holds what it printed")
	}
	for _, size := range []int{0, 1, ChunkSize, ChunkSize + 1, GroupSize, GroupSize + 1, 5*GroupSize + 777, 12345678} {
		data := pattern(size)
		cmd := exec.Command(b3sum, "--no-names")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := outboardOf(data).ID().Hex(), strings.TrimSpace(string(out)); got != want {
			t.Errorf("%d bytes: ID = %s, b3sum says %s", size, got, want)
		}
	}
}

func TestGroupCVDependsOnIndex(t *testing.T) {
	data := pattern(GroupSize)
	seen := map[CV]int64{}
	for _, index := range []int64{0, 1, 2, SegmentGroups, 1<<32 - 1} {
		cv := GroupCV(data, index)
		if other, ok := seen[cv]; ok {
			t.Errorf("GroupCV at %d and at %d are equal, want the position in the hash", index, other)
		}
		seen[cv] = index
	}
	if CV(Root(data)) == GroupCV(data, 0) {
		t.Error("Root equals GroupCV at 0, want the root flag in the hash")
	}
}

func TestGroupCVDoesNotAllocate(t *testing.T) {
	data := pattern(GroupSize - 1)
	for _, k := range kernels() {
		k.use(t)
		if n := testing.AllocsPerRun(10, func() { GroupCV(data, 7) }); n != 0 {
			t.Errorf("%s: GroupCV allocates %v times, want 0", k.name, n)
		}
	}
}

func TestGroupCVAndRootPanicOutsideTheirLengths(t *testing.T) {
	for name, call := range map[string]func(){
		"GroupCV of nothing":         func() { GroupCV(nil, 0) },
		"GroupCV of too much":        func() { GroupCV(make([]byte, GroupSize+1), 0) },
		"GroupCV of index below 0":   func() { GroupCV([]byte{1}, -1) },
		"Root of too much":           func() { Root(make([]byte, GroupSize+1)) },
		"NewOutboard of size < 0":    func() { NewOutboard(-1) },
		"NewOutboard above SizeMax":  func() { NewOutboard(SizeMax + 1) },
		"SetGroup of wrong length":   func() { NewOutboard(10).SetGroup(0, make([]byte, 9)) },
		"SetGroup after the end":     func() { NewOutboard(10).SetGroup(1, nil) },
		"CV after the end":           func() { NewOutboard(10).CV(1) },
		"CV before the start":        func() { NewOutboard(10).CV(-1) },
		"VerifyGroup after the end":  func() { NewOutboard(10).VerifyGroup(1, nil) },
		"VerifySegment past the end": func() { VerifySegment(2*segmentSize, 2, CV{}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("returned, want a panic")
				}
			}()
			call()
		})
	}
}

// segmentSize is the length in bytes of a full segment.
const segmentSize = SegmentGroups * GroupSize

func TestGroupAndSegmentArithmetic(t *testing.T) {
	for _, tt := range []struct {
		size             int64
		groups, segments int64
		lastLen          int
	}{
		{0, 1, 1, 0},
		{1, 1, 1, 1},
		{GroupSize - 1, 1, 1, GroupSize - 1},
		{GroupSize, 1, 1, GroupSize},
		{GroupSize + 1, 2, 1, 1},
		{2 * GroupSize, 2, 1, GroupSize},
		{segmentSize - 1, SegmentGroups, 1, GroupSize - 1},
		{segmentSize, SegmentGroups, 1, GroupSize},
		{segmentSize + 1, SegmentGroups + 1, 2, 1},
		{SizeMax - 1, 1 << 32, 1 << 20, GroupSize - 1},
		{SizeMax, 1 << 32, 1 << 20, GroupSize},
	} {
		if got := GroupCount(tt.size); got != tt.groups {
			t.Errorf("GroupCount(%d) = %d, want %d", tt.size, got, tt.groups)
		}
		if got := SegmentCount(tt.size); got != tt.segments {
			t.Errorf("SegmentCount(%d) = %d, want %d", tt.size, got, tt.segments)
		}
		if got := GroupLen(tt.size, tt.groups-1); got != tt.lastLen {
			t.Errorf("GroupLen(%d, last) = %d, want %d", tt.size, got, tt.lastLen)
		}
		if tt.groups > 1 && GroupLen(tt.size, 0) != GroupSize {
			t.Errorf("GroupLen(%d, 0) = %d, want %d", tt.size, GroupLen(tt.size, 0), GroupSize)
		}
		for _, outside := range []int64{-1, tt.groups, math.MinInt64, math.MaxInt64} {
			if got := GroupLen(tt.size, outside); got != 0 {
				t.Errorf("GroupLen(%d, %d) = %d, want 0", tt.size, outside, got)
			}
		}
		whole := Span{First: 0, Count: tt.groups}
		if got := whole.Bytes(tt.size); got != tt.size || !whole.In(tt.size) {
			t.Errorf("%v.Bytes(%d) = %d, In = %t, want the size, true", whole, tt.size, got, whole.In(tt.size))
		}
		last := SegmentSpan(tt.size, tt.segments-1)
		if last.End() != tt.groups || !last.In(tt.size) {
			t.Errorf("SegmentSpan(%d, last) = %v, want it to end at %d", tt.size, last, tt.groups)
		}
	}
}

func TestCheckSize(t *testing.T) {
	for size, ok := range map[int64]bool{math.MinInt64: false, -1: false, 0: true, 1: true, SizeMax: true, SizeMax + 1: false, math.MaxInt64: false} {
		if err := CheckSize(size); (err == nil) != ok {
			t.Errorf("CheckSize(%d) = %v, want ok %t", size, err, ok)
		}
	}
}

func TestTwoLevelAbove64GiB(t *testing.T) {
	for size, want := range map[int64]bool{0: false, 64 << 30: false, 64<<30 + 1: true, SizeMax: true} {
		if got := TwoLevel(size); got != want {
			t.Errorf("TwoLevel(%d) = %t, want %t", size, got, want)
		}
	}
}

func TestSpanInIsSafeForAnyValues(t *testing.T) {
	const size = 5*GroupSize + 1 // 6 groups
	for _, tt := range []struct {
		span Span
		want bool
	}{
		{Span{0, 1}, true},
		{Span{0, 6}, true},
		{Span{5, 1}, true},
		{Span{2, 3}, true},
		{Span{0, 0}, false},
		{Span{0, 7}, false},
		{Span{5, 2}, false},
		{Span{6, 1}, false},
		{Span{6, 0}, false},
		{Span{-1, 2}, false},
		{Span{1, -1}, false},
		{Span{1, math.MaxInt64}, false},
		{Span{math.MaxInt64, math.MaxInt64}, false},
		{Span{math.MinInt64, math.MaxInt64}, false},
		{Span{math.MinInt64, math.MinInt64}, false},
	} {
		if got := tt.span.In(size); got != tt.want {
			t.Errorf("%v.In(%d) = %t, want %t", tt.span, size, got, tt.want)
		}
	}
	s := Span{First: 4, Count: 2}
	if s.End() != 6 || s.Offset() != 4*GroupSize || s.Bytes(size) != GroupSize+1 {
		t.Errorf("%v: End %d, Offset %d, Bytes %d, want 6, %d, %d", s, s.End(), s.Offset(), s.Bytes(size), 4*GroupSize, GroupSize+1)
	}
}

func BenchmarkGroupCV(b *testing.B) {
	for _, groups := range []int64{1, 256} {
		data := pattern(int(groups * GroupSize))
		for _, kernel := range kernels() {
			b.Run(fmt.Sprintf("over=%dKiB/%s", len(data)>>10, kernel.name), func(b *testing.B) {
				kernel.use(b)
				b.SetBytes(GroupSize)
				i := int64(0)
				for b.Loop() {
					GroupCV(group(data, i%groups), i%groups)
					i++
				}
			})
		}
	}
}
