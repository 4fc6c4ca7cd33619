package pinset

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

func TestFixedPointIsNearTheRealThing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100_000 {
		x := rng.Uint64()>>rng.IntN(63) | 1
		if got, want := float64(log2(x))/one, math.Log2(float64(x)); math.Abs(got-want) > 4e-6 {
			t.Fatalf("log2(%d) = %f, want %f", x, got, want)
		}
		y := rng.Uint64N(40 * one)
		if got, want := float64(exp2(y))/one, math.Exp2(-float64(y)/one); math.Abs(got-want) > 4e-6 {
			t.Fatalf("exp2(%f) = %f, want %f", float64(y)/one, got, want)
		}
		hi, lo := rng.Uint64()>>rng.IntN(64)>>1, rng.Uint64()
		if rng.IntN(2) == 0 {
			hi = 0
		}
		square := new(big.Int).SetUint64(hi)
		square.Lsh(square, 64).Add(square, new(big.Int).SetUint64(lo))
		want, _ := new(big.Float).SetInt(new(big.Int).Sqrt(square)).Float64()
		if got := float64(root(hi, lo)); math.Abs(got-want) > want*1e-8+1 {
			t.Fatalf("root(%d, %d) = %f, want %f", hi, lo, got, want)
		}
	}
}

// TestFixedPointVectors keeps some to the bit: members of different builds and
// machines must agree.
func TestFixedPointVectors(t *testing.T) {
	sum := uint64(0)
	for i := range uint64(logCells + 1) {
		sum = sum*1099511628211 + logTable[i]
		sum = sum*1099511628211 + expTable[i]
	}
	if got := [4]uint64{sum, log2(12345678901234567), exp2(1234567890), root(77, 99)}; got != [4]uint64{15617672110580126766, 229586854450, 3519092717, 37688185056} {
		t.Errorf("got %d", got)
	}
}
