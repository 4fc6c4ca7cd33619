package e2e

import (
	"testing"
	"time"
)

// TestQuotaIsNeverExceeded pins five times what the members may hold: they never
// hold more than 1 % above their quotas, what has no room is said to have none, with the
// remedy, and room that unpin makes is used. With -args -long it is 5 GiB of 1 GiB.
func TestQuotaIsNeverExceeded(t *testing.T) {
	besideOthers(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	quota, text, size, count := int64(8<<20), "8M", int64(400<<10), 100
	if *long {
		quota, text, size, count = 1<<30, "1G", 20<<20, 256
	}
	h := newHolders(t, holdersOptions{count: 3, grace: time.Minute, capacity: func(int) string { return text }})
	most := func() (n int64) {
		for _, m := range h.members {
			n = max(n, storeBytes(m))
		}
		return n
	}
	h.pinMany(count, func() int64 { return size })
	fits := int(quota / size)
	over := int64(0)
	settled := func(s standing) bool {
		over = max(over, most())
		full := 0
		for _, p := range s.lines {
			if p.Health == "no room" && p.Remedy != "" {
				full++
			}
		}
		return s.ok >= fits*9/10 && s.ok+full == s.all
	}
	h.await("what fits is there, and the rest has no room", 5*time.Minute, settled)
	s, err := h.look()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d of %d contents are there, %d would fit", s.ok, s.all, fits)
	freed := 0
	for name, p := range h.pins {
		if s.lines[p.id].Health == "ok" && freed < fits/2 {
			if err := h.unpin(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			freed++
		}
	}
	before := s.ok - freed
	h.await("the room that was freed is used", 5*time.Minute, func(s standing) bool { return settled(s) && s.ok > before })
	if limit := quota + quota/100; over > limit {
		t.Errorf("a store had %d bytes, want at most %d", over, limit)
	}
	t.Logf("a store never had more than %.3f of its quota", float64(over)/float64(quota))
}
