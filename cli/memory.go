package cli

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Go's collector lets garbage grow to as much as what lives, which is twice the
// memory of a peer that holds the index of a large group. A daemon lets it grow to
// garbageMax, or to garbageLeast percent of what lives where that is more: a group
// of a million pins, 270 MB, is collected once for each 32 MiB allocated, which
// takes a fifth of a second of one core.
const (
	garbageMax   = 32 << 20
	garbageLeast = 10 // percent
)

// boundGarbage bounds what the process has of garbage from now on. It is for the
// program that owns the process, and leaves alone who has set GOGC or GOMEMLIMIT.
func boundGarbage() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	collected := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	set := 100
	// An object that nobody holds is found by each collection: when its finalizer
	// runs, it is known what lives.
	type sentinel struct{ _ [16]byte }
	var after func(*sentinel)
	after = func(s *sentinel) {
		metrics.Read(collected)
		if percent := garbagePercent(collected[0].Value.Uint64()); percent != set {
			set = percent
			debug.SetGCPercent(percent)
		}
		runtime.SetFinalizer(s, after)
	}
	runtime.SetFinalizer(new(sentinel), after)
}

// garbagePercent is how much garbage there may be, in percent of what lives.
func garbagePercent(live uint64) int {
	if live <= garbageMax {
		return 100
	}
	return max(garbageLeast, int(100*garbageMax/live))
}
