package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Go's collector lets garbage grow to as much as what lives, which is twice the
// memory of a peer that holds the index of a large group. A daemon lets it grow as
// long as the heap is below heapGoal, and to garbageLeast beyond. A group of a
// million pins, 240 MB, is then collected for each 50 MB that are allocated, which
// takes a fifth of a second of one core; smaller ones as seldom as Go would.
const (
	heapGoal     = 280 << 20
	garbageLeast = 32 << 20
)

// boundGarbage bounds what the process has of garbage from now on. It is for the
// program that owns the process, and leaves alone who has set GOGC or GOMEMLIMIT.
func boundGarbage() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	set := 100
	// An object that nobody holds is found by each collection: when its finalizer
	// runs, it is known what lives.
	type sentinel struct{ _ [16]byte }
	var collected func(*sentinel)
	collected = func(s *sentinel) {
		metrics.Read(live)
		if percent := garbagePercent(live[0].Value.Uint64()); percent != set {
			set = percent
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(s, collected)
	}
	runtime.SetFinalizer(new(sentinel), collected)
}

// garbagePercent is how much garbage there may be, in percent of what lives: never
// more than Go's own 100, and not less than a tenth, which a heap of gigabytes needs.
func garbagePercent(live uint64) int {
	garbage := int64(heapGoal) - int64(live)
	garbage = max(garbage, garbageLeast, int64(live/10))
	return int(min(100, 100*garbage/max(1, int64(live))))
}
