package coord

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
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
		streams[0].SetReadDeadline(time.Now().Add(time.Second))
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
			s.SetReadDeadline(time.Now())
			if _, err := s.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "deadline") {
				t.Fatalf("stream %d has not ended: %v", i, err)
			}
		}
		w.join(1, AsReader)
	})
}
