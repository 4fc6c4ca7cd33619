package coord

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
)

// hostile ends a peer's Coord and returns its host, to do what a Coord would not.
func (w *world) hostile(i int) host.Host {
	w.t.Helper()
	w.peers[i].crash(w.t)
	return w.net.Host(w.peers[i].n.ID())
}

// refuseAll answers every opening with one admission.
func refuseAll(h host.Host, a admission) {
	for _, proto := range []protocol.ID{groupProtocol, raftProtocol} {
		h.SetStreamHandler(proto, func(s network.Stream) {
			admit(s, func(opening) admission { return a })
			s.Close()
		})
	}
}

func TestNobodyButAVoterIsBelievedThatAMemberWasRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		groups := w.found(3)
		w.join(3, AsStorage)
		w.eventually("the learner is in the configuration", func() bool {
			m, err := groups[0].running()
			return err == nil && len(m.servers()) == 4
		})
		removed := admission{Error: RefusedRemoved, By: w.peers[0].self(), Index: 1 << 50, Epoch: 1, Message: "you are out"}
		stranger := w.hostile(4)
		for _, h := range []host.Host{stranger, w.hostile(3)} {
			refuseAll(h, removed)
		}
		for _, p := range w.peers[:3] { // which has it look at the stranger
			dialGroup(t.Context(), w.peers[4].n, peer.AddrInfo{ID: p.n.ID()}, groupProtocol, opening{Group: groups[0].ID(), Epoch: 99})
		}
		time.Sleep(time.Minute)
		for i, g := range groups {
			if err := g.known().parked(); err != nil {
				t.Errorf("member %d: %v", i, err)
			}
		}
		w.pin(0, groups[0].ID(), "a")
	})
}

func TestMemberWithoutAVoteIsNotHeardInRaft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		groups := w.found(3)
		learner := w.join(3, AsReader)
		w.eventually("it has caught up", func() bool { return w.hashesAgree([]*Group{groups[0], learner}) })
		o := learner.opening()
		h := w.hostile(3)
		for _, p := range w.peers[:3] {
			_, _, err := dialGroup(t.Context(), w.peers[3].n, peer.AddrInfo{ID: p.n.ID()}, raftProtocol, o)
			if !isRefusal(err, RefusedLearner) {
				t.Errorf("a learner's Raft stream: %v, want that it is refused", err)
			}
		}

		// What it answers has no leader step down.
		lead := w.leader(groups)
		m, err := groups[lead].running()
		if err != nil {
			t.Fatal(err)
		}
		term := m.term()
		layer := newStreamLayer(w.peers[3].n)
		trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: layer, MaxPool: 3, Timeout: rpcTimeout,
			Logger: raftLogger{log: slog.New(slog.DiscardHandler)}})
		trans.SetHeartbeatHandler(nil)
		answered := 0
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		defer func() {
			cancel()
			<-ended
			h.RemoveStreamHandler(raftProtocol)
			layer.Close()
			trans.Close()
		}()
		go func() {
			defer close(ended)
			for {
				select {
				case rpc := <-trans.Consumer():
					answered++
					rpc.Respond(&raft.AppendEntriesResponse{Term: 1 << 40, LastLog: 1}, nil)
				case <-ctx.Done():
					return
				}
			}
		}()
		h.SetStreamHandler(raftProtocol, func(s network.Stream) {
			if _, _, err := admit(s, func(o opening) admission { return admission{OK: true, Epoch: 1} }); err == nil {
				layer.serve(ctx, s)
			}
		})
		w.eventually("it is asked", func() bool { return answered > 10 })
		w.pin(0, groups[0].ID(), "a")
		for range 20 {
			if _, _, err := w.peers[lead].Client(groups[0].ID()).Members(t.Context(), ReadOptions{}); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		if !m.leads() || m.term() != term {
			t.Errorf("the leader of term %d leads: %v, in term %d", term, m.leads(), m.term())
		}
	})
}

func TestRaftAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		h := w.hostile(1)
		h.SetStreamHandler(raftProtocol, func(s network.Stream) {
			if _, _, err := admit(s, func(o opening) admission { return admission{OK: true, Epoch: 1} }); err == nil {
				s.Write([]byte{0xdb, 0xff, 0xff, 0xff, 0xff}) // a text of 4 GiB follows
				for err == nil {
					_, err = s.Write(make([]byte, 64<<10))
				}
			}
			s.Reset()
		})
		layer := newStreamLayer(w.peers[0].n)
		layer.opening = func() opening { return opening{Epoch: 1} }
		layer.where = func(p peer.ID) peer.AddrInfo { return peer.AddrInfo{ID: p} }
		defer layer.Close()
		c, err := layer.Dial(raft.ServerAddress(w.peers[1].n.ID().String()), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		for err == nil {
			var got int
			got, err = c.Read(make([]byte, 32<<10))
			n += int64(got)
		}
		if !errors.Is(err, errAnswersTooLong) || n > raftAnswersMax {
			t.Errorf("%d bytes were read, then %v", n, err)
		}
	})
}

func TestStrangersDoNotKeepAMemberBusyWithTheirEpochs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const strangers = 10
		w := newWorld(t, 1+strangers)
		g := w.found(1)[0]
		dialled := 0
		for i := 1; i <= strangers; i++ {
			h := w.hostile(i)
			h.SetStreamHandler(groupProtocol, func(s network.Stream) { dialled++; <-t.Context().Done(); s.Reset() })
			defer h.RemoveStreamHandler(groupProtocol)
		}
		start := time.Now()
		for time.Since(start) < time.Minute {
			for _, p := range w.peers[1:] {
				dialGroup(t.Context(), p.n, peer.AddrInfo{ID: w.peers[0].n.ID()}, groupProtocol, opening{Group: g.ID(), Epoch: 99})
			}
			time.Sleep(time.Second)
		}
		if dialled == 0 || dialled > 3 {
			t.Errorf("%d strangers were looked at within a minute, want one each %s", dialled, greetStranger)
		}
	})
}

func TestWhatARefusalSaysIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		h := w.hostile(1)
		refuseAll(h, admission{Error: Refusal(strings.Repeat("w", 1000)), Message: strings.Repeat("m", 100_000)})
		_, _, err := dialGroup(t.Context(), w.peers[0].n, peer.AddrInfo{ID: h.ID()}, groupProtocol, opening{})
		var r *RefusedError
		if !errors.As(err, &r) || len(r.Why) > whyMax || len(r.Message) > messageMax {
			t.Errorf("refusal: %v", err)
		}
	})
}

func TestGroupNameCannotDriveATerminalOrPassForAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		for _, name := range []string{"\x1b[2J", "a\u202eb", "a\nb", strings.Repeat("ab", 32), "a/b", "", ".", ".."} {
			if err := w.peers[0].checkName(name, GroupID{}); !errors.Is(err, ErrInvalid) {
				t.Errorf("a group may be called %q", name)
			}
		}
		if err := w.peers[0].checkName("Büro 2", GroupID{}); err != nil {
			t.Error(err)
		}
	})
}

func TestMemberThatMissedWhoJoinedAsksTheVotersItKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		groups := w.found(3)
		w.peers[2].crash(t) // and hears of nothing from now on
		late := w.join(3, AsVoter)
		w.join(4, AsVoter)
		reader := w.join(5, AsReader)
		w.eventually("five vote", func() bool { return len(w.voters(groups[0])) == 5 })
		lead := w.leader([]*Group{groups[0], groups[1]})
		if lead < 0 {
			t.Fatal("one of the first two should lead")
		}
		for _, i := range []int{lead, 3, 4, 5} {
			w.link(2, i, false) // so that nobody tells it
		}
		w.peers[2].start(t)
		g := w.groupOf(2)
		admitted := func(other *Group, p peer.ID) bool { return g.admitRaft(p, other.opening()).OK }
		w.eventually("it takes Raft's streams of one that votes", func() bool { return admitted(late, w.peers[3].n.ID()) })
		start := time.Now()
		for time.Since(start) < 10*time.Second {
			if admitted(reader, w.peers[5].n.ID()) {
				t.Fatal("it takes Raft's streams of one that does not vote")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if _, known := g.stateMember(w.peers[3].self()); known {
			t.Error("it has heard of it otherwise: the test shows nothing")
		}
	})
}

func (g *Group) stateMember(p Peer) (x pinset.Member, known bool) {
	if m, err := g.running(); err == nil {
		m.fsm.view(func(s *pinset.State) { x, known = s.Member(p) })
	}
	return x, known
}
