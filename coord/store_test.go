package coord

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

// TestOldLeaderWithALongTailTakesASnapshot cuts a leader off that has many entries
// which nobody else has. The others go on, and compact their logs: when it is back, a
// snapshot has to replace its whole log, though that goes on behind the snapshot.
func TestOldLeaderWithALongTailTakesASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorldOf(t, 3, func(i int, p *testPeer) {
			p.prepare = func(c *Coord) {
				// raft-wal goes on reading what was deleted while its segment is there.
				c.parts.raftlog = raftlog.Config{SegmentSize: 4 << 10}
				if i > 0 { // the first one, who leads, is to have no snapshot
					c.parts.snapshotThreshold, c.parts.trailingLogs = 40, 10
				}
			}
		})
		groups := w.found(3)
		old := w.leader(groups)
		m, err := groups[old].running()
		if err != nil {
			t.Fatal(err)
		}
		w.isolate(old, true)
		frame, err := pinset.EncodeCommand(&pinset.Unpin{Header: pinset.Header{Client: pinset.Client{1}, Seq: 1, By: w.peers[old].self(), At: 1}, Lookup: "none", Expect: ExpectAny})
		if err != nil {
			t.Fatal(err)
		}
		_, before := m.lastEntry()
		for range 300 {
			m.raft.Apply(frame, 0)
		}
		w.eventually("the old leader has its entries", func() bool { _, last := m.lastEntry(); return last == before+300 })

		other := (old + 1) % 3
		for i := range 100 {
			if _, err := w.peers[other].Client(groups[0].ID()).Pin(t.Context(), pinOf(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		w.eventually("the others have compacted their logs", func() bool {
			for i, g := range groups {
				if i == old {
					continue
				}
				m, err := g.running()
				if err != nil {
					return false
				}
				if first, _ := m.log.FirstIndex(); first <= before {
					return false
				}
			}
			return true
		})
		time.Sleep(2 * openingWait) // entries that were read before that are given up
		w.isolate(old, false)
		w.eventually("the old leader has the others' state", func() bool { return w.hashesAgree(groups) })
		if _, err := w.peers[other].Client(groups[0].ID()).Pin(t.Context(), pinOf("after")); err != nil {
			t.Fatal(err)
		}
		w.eventually("the old leader takes entries", func() bool { return w.hashesAgree(groups) })
	})
}
