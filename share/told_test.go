package share

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestToldPeersAreFewAndApart(t *testing.T) {
	type told struct {
		teller, peer peer.ID
		addrs        []string
		want         int // addresses
	}
	many := func(teller string, n int, want func(i int) int) (list []told) {
		for i := range n {
			list = append(list, told{peer.ID(teller), peer.ID(fmt.Sprint(teller, i)), []string{fmt.Sprintf("/ip4/8.%d.%d.1/tcp/1", teller[0], i)}, want(i)})
		}
		return list
	}
	upTo := func(n int) func(int) int {
		return func(i int) int {
			if i < n {
				return 1
			}
			return 0
		}
	}
	var five []told
	for _, teller := range []string{"a", "b", "c", "d"} {
		five = append(five, many(teller, tellerDialsMax, upTo(tellerDialsMax))...)
	}
	five = append(five, many("e", 1, upTo(0))...) // 32 are all
	for name, list := range map[string][]told{
		"one at an address": {
			{"a", "p", []string{"/ip4/8.8.8.8/tcp/1"}, 1},
			{"b", "q", []string{"/ip4/8.8.8.8/tcp/2", "/ip4/8.8.8.8/udp/2/quic-v1"}, 0},
			{"b", "r", []string{"/ip4/8.8.8.8/tcp/2", "/ip4/8.8.4.4/tcp/2"}, 1},
			{"b", "p", []string{"/ip4/8.8.8.8/tcp/1", "/ip4/8.8.8.8/udp/1/quic-v1"}, 2}, // the same again
		},
		"one in an IPv6 network": {
			{"a", "p", []string{"/ip6/2606:4700:1:2::1/tcp/1"}, 1},
			{"b", "q", []string{"/ip6/2606:4700:1:2:ffff::9/tcp/1"}, 0},
			{"b", "q", []string{"/ip6/2606:4700:1:3::1/tcp/1"}, 1},
		},
		"an IPv4 address in IPv6": {
			{"a", "p", []string{"/ip4/8.8.8.8/tcp/1"}, 1},
			{"b", "q", []string{"/ip6/::ffff:8.8.8.8/tcp/1"}, 0},
		},
		"many on loopback": {
			{"a", "p", []string{"/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"}, 2},
			{"a", "q", []string{"/ip4/127.0.0.1/tcp/2", "/ip6/::1/tcp/2"}, 2},
		},
		"two addresses of one peer": {
			{"a", "p", []string{"/ip4/8.8.8.8/tcp/1", "/ip4/8.8.4.4/tcp/1", "/ip4/1.1.1.1/tcp/1", "/ip4/8.8.4.4/udp/1/quic-v1"}, 3},
		},
		"few of a teller":   many("a", 3*tellerDialsMax, upTo(tellerDialsMax)),
		"few of all":        five,
		"nothing to dial":   {{"a", "p", nil, 0}, {"a", "q", []string{"/dns4/victim.example/tcp/1"}, 0}},
		"refused cost none": append([]told{{"a", "x", nil, 0}}, many("a", tellerDialsMax, upTo(tellerDialsMax))...),
	} {
		t.Run(name, func(t *testing.T) {
			var s tolds
			for _, p := range list {
				var addrs []ma.Multiaddr
				for _, a := range p.addrs {
					addrs = append(addrs, ma.StringCast(a))
				}
				if got := s.admit(p.teller, p.peer, addrs); len(got) != p.want {
					t.Errorf("%s tells of %s at %v: admitted %v, want %d", p.teller, p.peer, addrs, got, p.want)
				}
			}
		})
	}
}

// TestATellerCanNotAimAGetAtAVictim has a source tell of peers that don't exist, as
// many as it may, again and again, all of them at a machine that is none of them.
func TestATellerCanNotAimAGetAtAVictim(t *testing.T) {
	t.Parallel() // it mostly waits
	victim, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var hits atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := victim.Accept()
			if err != nil {
				return
			}
			hits.Add(1)
			c.Close()
		}
	}()
	const answers = 4
	told := make(chan struct{})
	var asked atomic.Int64
	size := int64(12 * content.GroupSize)
	tell := func(_ context.Context, s network.Stream) error {
		for in := bufio.NewReader(s); ; {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return err
			}
			var q metaRequest
			if err := json.Unmarshal(line, &q); err != nil || q.Op != opHaves {
				writeLine(s, metaAnswer{End: true, Error: "unknown"})
				continue
			}
			a := metaAnswer{End: true, Size: size, All: true}
			for range toldMax {
				id, err := test.RandPeerID()
				if err != nil {
					return err
				}
				a.Peers = append(a.Peers, toldPeer{ID: id.String(), Addrs: []string{"/ip4/127.0.0.1/tcp/" + fmt.Sprint(victim.Addr().(*net.TCPAddr).Port)}})
			}
			if err := writeLine(s, a); err != nil {
				return err
			}
			if asked.Add(1) == answers+1 { // what was told before has been taken
				close(told)
			}
		}
	}
	hold := func(*dataLiar, uint32, dataRequest) []byte { <-told; return nil }
	l := newDataLiar(t, randomBytes(int(size), "victim"), inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		if q.first+q.count == 12 { // what proves the size
			return nil
		}
		return hold(l, tag, q)
	}))
	liar := startRaw(t, nil, handlers{dataProtocol: l.serve, metaProtocol: tell})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	w := What{ID: l.id, Peers: []peer.AddrInfo{liar.AddrInfo()}}
	if _, err := getter.lib.Get(t.Context(), w, GetOptions{Output: io.Discard}); err != nil {
		t.Fatal(err)
	}
	victim.Close()
	<-ended
	if n := hits.Load(); n == 0 || n > tellerDialsMax {
		t.Errorf("the victim was dialled %d times, want 1 to %d", n, tellerDialsMax)
	}
}
