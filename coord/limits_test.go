package coord

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

func TestStrangersWhoSayThatTheyJoinTakeLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const strangers = 5
		w := newWorld(t, 1+strangers)
		g := w.found(1)[0]
		to := peer.AddrInfo{ID: w.peers[0].n.ID()}
		join := opening{Group: g.ID(), Epoch: 1, Join: true}
		var streams []network.Stream
		refused := 0
		for _, p := range w.peers[1:] {
			for range groupPerPeer {
				s, _, err := dialGroup(t.Context(), p.n, to, groupProtocol, join)
				switch {
				case err == nil:
					streams = append(streams, s)
				case isRefusal(err, RefusedStopped):
					refused++
				default:
					t.Fatal(err)
				}
			}
		}
		if len(streams) != joinersMax || refused != strangers*groupPerPeer-joinersMax {
			t.Errorf("%d streams of joiners were let in, want %d; %d were refused", len(streams), joinersMax, refused)
		}
		if _, err := streams[0].Write([]byte(strings.Repeat("x", joinMax+1))); err != nil {
			t.Fatal(err)
		}
		if _, err := streams[0].Read(make([]byte, 1)); err == nil {
			t.Error("a line that is too long was answered")
		}
		s, _, err := dialGroup(t.Context(), w.peers[1].n, to, groupProtocol, join)
		if err != nil {
			t.Errorf("opening once another one has ended: %v", err)
		} else {
			streams = append(streams, s)
		}
		time.Sleep(joinerWait + time.Second) // for nothing: they say nothing
		for i, s := range streams {
			if _, err := s.Read(make([]byte, 1)); err == nil {
				t.Fatalf("stream %d has not ended", i)
			}
		}
		w.join(1, AsReader)
	})
}

func TestStrangersWhoSayNothingLeaveRoomForMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const strangers = 70 // of whom each may open 16 streams
		w := newWorld(t, 2+strangers)
		g := w.found(1)[0]
		member := w.join(1, AsReader)
		var streams []network.Stream
		for _, p := range w.peers[2:] {
			for range groupPerPeer {
				s, err := p.n.Open(t.Context(), w.peers[0].n.ID(), groupProtocol, node.OpenOptions{})
				if err != nil {
					t.Fatal(err)
				}
				s.Write([]byte("{")) // and not a word more
				streams = append(streams, s)
			}
		}
		synctest.Wait()
		if n := len(w.peers[0].opening); n != openingsMax {
			t.Errorf("%d openings of strangers are under way, want %d", n, openingsMax)
		}
		s, _, err := dialGroup(t.Context(), w.peers[1].n, peer.AddrInfo{ID: w.peers[0].n.ID()}, groupProtocol, member.opening())
		if err != nil {
			t.Fatalf("a member's stream while %d strangers open theirs: %v", len(streams), err)
		}
		s.Reset()
		for _, s := range streams { // the mock network has no deadlines
			s.Reset()
		}
		w.eventually("there is room again", func() bool { return len(w.peers[0].opening) == 0 })
		w.pin(0, g.ID(), "a")
	})
}
