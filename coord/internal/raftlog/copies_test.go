package raftlog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestCopiesSurviveACrashAtEveryByte(t *testing.T) {
	c, _ := small.withDefaults()
	path := filepath.Join(t.TempDir(), watermarkName)
	if err := createCopies(path, kindWatermark, watermarkRoom, encodeWatermark(41)); err != nil {
		t.Fatal(err)
	}
	older, _ := os.ReadFile(path)
	f, _, err := openCopies(path, kindWatermark, watermarkRoom, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.write(encodeWatermark(42)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	newer, _ := os.ReadFile(path)

	const size = copyHeader + 8
	for half := range 2 {
		for n := range size + 1 { // n bytes of this half are written, in front or at the end
			for _, from := range []int{0, size - n} {
				torn := bytes.Clone(older)
				if half == 1 {
					copy(torn, newer[:watermarkRoom])
				}
				at := half*watermarkRoom + from
				copy(torn[at:at+n], newer[at:at+n])
				_, payload, err := newestCopy(kindWatermark, torn)
				if err != nil {
					t.Fatalf("bytes %d to %d of half %d: %v", from, from+n, half, err)
				}
				got, err := decodeWatermark(payload)
				if err != nil || got != 42 && (got != 41 || half == 1) {
					t.Fatalf("bytes %d to %d of half %d: %d, %v, want the older or the newer", from, from+n, half, got, err)
				}
			}
		}
	}
}

// One damaged copy must neither bring back an older record nor, once the other
// is written, be all that is left.
func TestCopiesHealFromTheTwin(t *testing.T) {
	c, _ := small.withDefaults()
	path := filepath.Join(t.TempDir(), watermarkName)
	if err := createCopies(path, kindWatermark, watermarkRoom, encodeWatermark(41)); err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * (copyHeader + 8) {
		for _, half := range []int{0, watermarkRoom} {
			whole, _ := os.ReadFile(path)
			whole[half+bit/8] ^= 1 << (bit % 8)
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			f, payload, err := openCopies(path, kindWatermark, watermarkRoom, c)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := decodeWatermark(payload); got != 41 {
				t.Fatalf("bit %d of the half at %d: %d, want 41", bit, half, got)
			}
			f.Close()
			whole, _ = os.ReadFile(path)
			if !bytes.Equal(whole[:watermarkRoom], whole[watermarkRoom:]) {
				t.Fatalf("bit %d of the half at %d is not healed", bit, half)
			}
		}
	}
	whole, _ := os.ReadFile(path)
	whole[0], whole[watermarkRoom] = 0, 0
	os.WriteFile(path, whole, 0o600)
	if _, _, err := openCopies(path, kindWatermark, watermarkRoom, c); err == nil {
		t.Error("both copies damaged: no error")
	}
}

func FuzzDecodeWatermark(f *testing.F) {
	seed, _ := encodeCopy(kindWatermark, watermarkRoom, 3, encodeWatermark(42))
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, payload, err := decodeCopy(kindWatermark, b)
		if err != nil {
			return
		}
		again, err := encodeCopy(kindWatermark, int64(len(b)), seq, payload)
		if err != nil || !bytes.HasPrefix(b, again) {
			t.Errorf("%x is read as %d, %x, which is written as %x, %v", b, seq, payload, again, err)
		}
		decodeWatermark(payload)
	})
}

func FuzzDecodeRejoin(f *testing.F) {
	seed, _ := encodeCopy(kindRejoin, rejoinRoom, 1, []byte(`{"reason":"entry 7","committed":42}`))
	f.Add(append(seed, seed...))
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRejoin(b); (r == nil) == (err == nil) {
			t.Errorf("%x: %v, %v", b, r, err)
		}
	})
}

func ExampleDamagedError() {
	fmt.Println(&DamagedError{Reason: "the log ends at 10", First: 1, Last: 10, Watermark: 15})
	// Output: the Raft log is damaged: the log ends at 10 (entries 1 to 10, committed to 15)
}
