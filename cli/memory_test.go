package cli

import "testing"

func TestGarbagePercent(t *testing.T) {
	for _, c := range []struct {
		live uint64 // MiB
		want int
	}{{0, 100}, {20, 100}, {140, 100}, {200, 40}, {240, 16}, {320, 10}, {4096, 9}} {
		if got := garbagePercent(c.live << 20); got != c.want {
			t.Errorf("garbagePercent(%d MiB) = %d, want %d", c.live, got, c.want)
		}
	}
}
