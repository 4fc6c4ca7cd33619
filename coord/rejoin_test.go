package coord

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/p2pshare/p2pshare/coord/internal/raftlog"
)

// answerAll answers every request with what do returns.
func answerAll(h host.Host, do func(request) answer) {
	h.SetStreamHandler(groupProtocol, func(s network.Stream) {
		if _, _, err := admit(s, func(o opening) admission { return admission{OK: true, Epoch: o.Epoch} }); err == nil {
			serveRequests(context.Background(), s, memberLimits, func(_ context.Context, r request) answer {
				a := do(r)
				a.Tag = r.Tag
				return a
			})
		}
		s.Reset()
	})
}

func TestOnlyAVoterCanSayThatAVoteWasTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		groups := w.found(3)
		w.join(3, AsStorage)
		w.eventually("all know the learner", func() bool {
			for _, g := range groups {
				if len(g.known().Members) != 4 {
					return false
				}
			}
			return true
		})
		for i := range 3 {
			w.peers[i].crash(t)
		}
		answerAll(w.hostile(3), func(request) answer { return answer{Index: 1 << 50} })
		dir := groups[1].dir
		if err := raftlog.Wipe(dir, raftlog.Rejoin{Reason: "test", Committed: 5}); err != nil {
			t.Fatal(err)
		}
		w.peers[1].start(t)
		time.Sleep(time.Minute)
		if _, err := w.groupOf(1).running(); err == nil {
			t.Error("a voter without a log votes again on a learner's word")
		}
		w.peers[0].start(t)
		w.peers[2].start(t)
		w.eventually("it works again by the leader's word", func() bool { _, err := w.groupOf(1).running(); return err == nil })
	})
}
