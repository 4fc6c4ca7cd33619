package wide

import (
	"math"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3/guts"
)

func skipUnsupported(t testing.TB) {
	if !Supported() {
		t.Skip("this processor has no AVX-512")
	}
}

// checkChunks compares with guts.
func checkChunks(t testing.TB, data []byte, counter uint64) {
	t.Helper()
	var got CVs
	Chunks(&got, data, counter)
	for i := 0; i*chunkSize < len(data); i++ {
		chunk := data[i*chunkSize : min((i+1)*chunkSize, len(data))]
		want := guts.ChainingValue(guts.CompressChunk(chunk, &guts.IV, counter+uint64(i), 0))
		if got[i] != want {
			t.Fatalf("%d bytes from chunk %d: chunk %d has chaining value %08x, want %08x", len(data), counter, i, got[i], want)
		}
	}
}

func randomStripe(seed uint64) []byte {
	data := make([]byte, StripeSize)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(data)
	return data
}

func TestChunksOfEveryLength(t *testing.T) {
	skipUnsupported(t)
	data := randomStripe(1)
	for n := 1; n <= len(data); n++ {
		checkChunks(t, data[len(data)-n:], 16)
	}
}

func TestChunksCountOnBeyond32Bits(t *testing.T) {
	skipUnsupported(t)
	data := randomStripe(2)
	for _, counter := range []uint64{0, 1, math.MaxUint32 - 15, math.MaxUint32 - 14, math.MaxUint32 - 7, math.MaxUint32,
		math.MaxUint32 + 1, 1<<40 - 16, 1<<40 - 3, 1<<63 - 5, math.MaxUint64 - 16} {
		checkChunks(t, data, counter)
		checkChunks(t, data[:5*chunkSize+70], counter)
	}
}

func TestParentsOfEveryCount(t *testing.T) {
	skipUnsupported(t)
	r := rand.New(rand.NewPCG(1, 2))
	for count := 1; count <= 300; count++ {
		cvs := make([][8]uint32, count+2*Lanes)
		for i := range count {
			for j := range cvs[i] {
				cvs[i][j] = r.Uint32()
			}
		}
		var want [][8]uint32
		for i := 0; i < count; i += 2 {
			cv := cvs[i]
			if i+1 < count {
				cv = guts.ChainingValue(guts.ParentNode(cvs[i], cvs[i+1], &guts.IV, 0))
			}
			want = append(want, cv)
		}
		n := Parents(cvs, count)
		if n != len(want) {
			t.Fatalf("Parents of %d values = %d, want %d", count, n, len(want))
		}
		for i := range want {
			if cvs[i] != want[i] {
				t.Fatalf("of %d values: parent %d = %08x, want %08x", count, i, cvs[i], want[i])
			}
		}
	}
}

func FuzzChunks(f *testing.F) {
	skipUnsupported(f)
	f.Add([]byte("a"), uint64(0))
	f.Add(randomStripe(3), uint64(math.MaxUint32-3))
	f.Add(randomStripe(4)[:7*chunkSize+63], uint64(1<<42))
	f.Fuzz(func(t *testing.T, data []byte, counter uint64) {
		if data = data[:min(len(data), StripeSize)]; len(data) > 0 {
			checkChunks(t, data, counter)
		}
	})
}

// BenchmarkStripe is a stripe in the first-level cache, beside guts.
func BenchmarkStripe(b *testing.B) {
	data := [StripeSize]byte(randomStripe(5))
	b.Run("wide", func(b *testing.B) {
		skipUnsupported(b)
		b.SetBytes(StripeSize)
		var cvs CVs
		for b.Loop() {
			Chunks(&cvs, data[:], 0)
		}
	})
	b.Run("guts", func(b *testing.B) {
		b.SetBytes(StripeSize)
		for b.Loop() {
			guts.CompressBuffer(&data, len(data), &guts.IV, 0, 0)
		}
	})
}

func BenchmarkParents(b *testing.B) {
	skipUnsupported(b)
	var cvs [2 * Lanes][8]uint32
	for b.Loop() {
		parents((*CVs)(cvs[:]), &cvs)
	}
}
