package e2e

import (
	"os"
	"testing"
	"time"
)

// TestCopiesSurviveTwoMembers has a group keep three copies of files of mixed sizes
// while a client goes on pinning and unpinning. Two members are killed at once, one of
// which leads: every pin is back at three verified copies within 60 s of the grace
// time, and none is ever without one. The two return: what is too much goes, nothing
// is lost, and the quotas are kept.
//
// Plainly with 5 members on loopback and 60 pins. As it is judged, with 10 members in
// namespaces and 2,000 pins:
//
//	go test ./cli/e2e -run TestCopiesSurviveTwoMembers -v -timeout 30m -args -long
func TestCopiesSurviveTwoMembers(t *testing.T) {
	besideOthers(t)
	o := holdersOptions{count: 5, grace: 3 * time.Second, capacity: func(int) string { return "64M" }}
	pins, atMost := 60, time.Minute
	if *long {
		o = holdersOptions{count: 10, grace: 10 * time.Second, netns: true, capacity: func(int) string { return "2G" }}
		pins, atMost = 2000, 15*time.Minute
	} else if testing.Short() {
		t.Skip("takes half a minute")
	}
	h := newHolders(t, o)
	start := time.Now()
	h.pinMany(pins, h.size)
	pinned := time.Since(start)
	h.await("all have three copies", atMost, allOK)
	t.Logf("%d pins in %s, all at 3 copies %s after the first", pins, pinned.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))

	stop := h.churn()
	lead := h.leader()
	other := h.members[0]
	if other == lead {
		other = h.members[len(h.members)-1]
	}
	endAll(t, os.Kill, lead.daemon, other.daemon)
	killed := time.Now()
	h.await("the loss is seen", o.grace+10*time.Second, func(s standing) bool { return s.ok < s.all })
	_, least := h.await("all are back at three copies", o.grace+60*time.Second, func(s standing) bool {
		return time.Since(killed) > o.grace && s.ok == s.all
	})
	t.Logf("back at 3 copies %s after the kill; grace %s; never fewer than %d", time.Since(killed).Round(time.Millisecond), o.grace, least)
	if least < 1 {
		t.Errorf("a pin had %d verified copies", least)
	}
	for _, m := range []*member{lead, other} {
		m.daemon = m.peer.start(t, "daemon")
	}
	lead.daemon.awaitReady(t)
	other.daemon.awaitReady(t)
	back := time.Now()
	made, taken := stop()
	h.await("what is too much is gone", atMost, func(s standing) bool {
		for _, p := range s.lines {
			if len(p.Copies) != 3 || len(p.Absent) > 0 || p.Health != "ok" {
				return false
			}
		}
		return true
	})
	t.Logf("no copy too many %s after the return; the client pinned %d and unpinned %d", time.Since(back).Round(time.Millisecond), made, taken)
	h.awaitStores(3)
	h.checkStores(3)
	for _, m := range h.members {
		limit := int64(64 << 20)
		if *long {
			limit = 2 << 30
		}
		if n := storeBytes(m); n > limit+limit/100 {
			t.Errorf("%s has %d bytes in its store, over its quota of %d", m.id, n, limit)
		}
	}
}
