package node

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

// What a peer says of itself is told only where this peer sees it, so that
// nobody can send others to a victim.
func TestAddrsForTellsNoAddressThatIsNotSeen(t *testing.T) {
	teller, _ := start(t, Config{Dir: t.TempDir()})
	asker, _ := start(t, Config{Dir: t.TempDir()})
	told, _ := start(t, Config{Dir: t.TempDir()})
	for _, n := range []*Node{asker, told} {
		if err := teller.Connect(t.Context(), n.AddrInfo()); err != nil {
			t.Fatal(err)
		}
	}
	for _, victim := range []string{
		"/ip4/192.0.2.7/tcp/80", "/ip4/127.0.0.2/tcp/80", "/ip4/10.1.2.3/tcp/80", "/dns4/victim.example/tcp/443",
		"/ip4/127.0.0.1/tcp/4001/p2p/" + asker.ID().String() + "/p2p-circuit",
	} {
		teller.host.Peerstore().AddAddr(told.ID(), ma.StringCast(victim), peerstore.PermanentAddrTTL)
	}
	if got := teller.AddrsFor(asker.ID(), told.ID()); len(got) != 1 || !got[0].Equal(told.Addrs()[0]) {
		t.Errorf("AddrsFor = %v, want only %v", got, told.Addrs())
	}
	if got := teller.AddrsFor(peer.ID("a stranger"), told.ID()); len(got) != 0 {
		t.Errorf("AddrsFor one who is not connected = %v", got)
	}
	if got := asker.AddrsFor(teller.ID(), told.ID()); len(got) != 0 {
		t.Errorf("AddrsFor = %v of a peer that is not connected", got)
	}
}

func TestAcceptAddrsTakesNoNarrowerScope(t *testing.T) {
	n, _ := start(t, Config{Dir: t.TempDir()})
	teller, _ := start(t, Config{Dir: t.TempDir()})
	addrs := []ma.Multiaddr{
		ma.StringCast("/ip4/127.0.0.1/tcp/1"), ma.StringCast("/ip4/10.0.0.1/udp/1/quic-v1"), ma.StringCast("/ip4/8.8.8.8/tcp/1"),
		ma.StringCast("/ip4/0.0.0.0/tcp/1"), ma.StringCast("/dns4/victim.example/tcp/443"), ma.StringCast("/ip4/224.0.0.1/udp/1/quic-v1"),
	}
	if got := n.AcceptAddrs(teller.ID(), addrs); len(got) != 0 {
		t.Errorf("AcceptAddrs from one who is not connected = %v", got)
	}
	if err := n.Connect(t.Context(), teller.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	if got := n.AcceptAddrs(teller.ID(), addrs); len(got) != 3 { // over loopback all of one machine
		t.Errorf("AcceptAddrs over loopback = %v, want the first three", got)
	}
	for scope, want := range map[reachScope]int{scopePublic: 1, scopePrivate: 2, scopeLoopback: 3} {
		taken := slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool {
			s, _, ok := scopeOf(a)
			return !ok || s > scope
		})
		if len(taken) != want {
			t.Errorf("of scope %d at most are %v, want %d", scope, taken, want)
		}
	}
}
