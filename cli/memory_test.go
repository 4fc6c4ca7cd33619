package cli

import "testing"

func TestGarbagePercent(t *testing.T) {
	for _, c := range []struct {
		live uint64 // MiB
		want int
	}{{0, 100}, {32, 100}, {64, 50}, {256, 12}, {480, 10}, {4096, 10}} {
		if got := garbagePercent(c.live << 20); got != c.want {
			t.Errorf("garbagePercent(%d MiB) = %d, want %d", c.live, got, c.want)
		}
	}
}
