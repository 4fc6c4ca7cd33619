package node

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

func TestRankDialsTheLocalNetworkFirstAndTCPBeforeQUIC(t *testing.T) {
	const relayed = "/ip4/44.0.0.9/tcp/1/p2p/12D3KooWRawPbxPtP1eZaJpumGnyWX2DcUyd3RQnydr3eAto4Az7/p2p-circuit"
	for _, test := range []struct {
		name  string
		addrs []string // as they come
		want  []network.AddrDelay
	}{
		{"everything", []string{relayed, "/ip4/44.0.0.1/udp/1/quic-v1", "/ip6/2a00::1/tcp/1", "/ip4/44.0.0.1/tcp/1",
			"/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/1", "/ip4/192.168.1.1/tcp/1"},
			[]network.AddrDelay{
				{Addr: ma.StringCast("/ip4/10.0.0.1/tcp/1")}, {Addr: ma.StringCast("/ip4/192.168.1.1/tcp/1")},
				{Addr: ma.StringCast("/ip4/10.0.0.1/udp/1/quic-v1"), Delay: dialStepLAN},
				{Addr: ma.StringCast("/ip4/44.0.0.1/tcp/1"), Delay: dialAfterLAN},
				{Addr: ma.StringCast("/ip6/2a00::1/tcp/1"), Delay: dialAfterLAN + dialStepPublic},
				{Addr: ma.StringCast("/ip4/44.0.0.1/udp/1/quic-v1"), Delay: dialAfterLAN + 2*dialStepPublic},
				{Addr: ma.StringCast(relayed), Delay: dialRelay},
			}},
		{"no local network", []string{"/ip4/44.0.0.1/udp/1/quic-v1", "/ip4/44.0.0.1/tcp/1"},
			[]network.AddrDelay{{Addr: ma.StringCast("/ip4/44.0.0.1/tcp/1")}, {Addr: ma.StringCast("/ip4/44.0.0.1/udp/1/quic-v1"), Delay: dialStepPublic}}},
		{"a relay alone", []string{relayed}, []network.AddrDelay{{Addr: ma.StringCast(relayed)}}},
		{"loopback", []string{"/ip4/127.0.0.1/tcp/1"}, []network.AddrDelay{{Addr: ma.StringCast("/ip4/127.0.0.1/tcp/1")}}},
		{"none", nil, nil},
	} {
		var addrs []ma.Multiaddr
		for _, a := range test.addrs {
			addrs = append(addrs, ma.StringCast(a))
		}
		got := rank(addrs)
		if !slices.EqualFunc(got, test.want, func(a, b network.AddrDelay) bool { return a.Addr.Equal(b.Addr) && a.Delay == b.Delay }) {
			t.Errorf("%s: rank =\n%v, want\n%v", test.name, got, test.want)
		}
	}
}
