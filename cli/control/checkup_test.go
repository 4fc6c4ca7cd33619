package control

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
)

// What is not well has a remedy, and what is well has none.
func TestCheckup(t *testing.T) {
	addrs := func(texts ...string) (list []ma.Multiaddr) {
		for _, s := range texts {
			list = append(list, ma.StringCast(s))
		}
		return list
	}
	both := addrs("/ip4/192.168.1.2/tcp/4001", "/ip4/192.168.1.2/udp/4001/quic-v1")
	public := addrs("/ip4/8.8.8.8/tcp/4001", "/ip4/8.8.8.8/udp/4001/quic-v1")
	for name, row := range map[string]struct {
		got  Finding
		want FindingState
	}{
		"ports, both":        {examinePorts(both, node.RolePeer), OK},
		"ports, visitor":     {examinePorts(nil, node.RoleVisitor), OK},
		"ports, none":        {examinePorts(nil, node.RolePeer), Fail},
		"ports, loopback":    {examinePorts(addrs("/ip4/127.0.0.1/tcp/1"), node.RolePeer), Warn},
		"ports, no QUIC":     {examinePorts(both[:1], node.RolePeer), Warn},
		"dht":                {examineDHT(true, 1, 3), OK},
		"dht, off":           {examineDHT(false, 0, 0), Warn},
		"dht, nobody named":  {examineDHT(true, 0, 0), Warn},
		"dht, unreachable":   {examineDHT(true, 2, 0), Fail},
		"nat, public":        {examineNAT(network.ReachabilityPublic, true, both, true), OK},
		"nat, private":       {examineNAT(network.ReachabilityPrivate, true, both, true), Warn},
		"nat, firewall":      {examineNAT(network.ReachabilityPrivate, true, public, true), Warn},
		"nat, not tested":    {examineNAT(network.ReachabilityUnknown, true, both, true), OK},
		"nat, a command's":   {examineNAT(network.ReachabilityPrivate, true, both, false), OK},
		"disk":               {examineDisk(share.Usage{Free: 5 << 30}, "/home"), OK},
		"disk, unknown":      {examineDisk(share.Usage{Free: -1}, "/home"), OK},
		"disk, low":          {examineDisk(share.Usage{Free: 500 << 20}, "/home"), Warn},
		"disk, full":         {examineDisk(share.Usage{Free: 1 << 20}, "/home"), Fail},
		"disk, over quota":   {examineDisk(share.Usage{Free: 5 << 30, Used: 2 << 20, Quota: 1 << 20}, "/home"), Warn},
		"group":              {examineGroup(&GroupStatus{Group: "a", Leader: "x", Voters: 3, VotersUp: 3, CanLose: 1}), OK},
		"group of one":       {examineGroup(&GroupStatus{Group: "a", Leader: "x", Voters: 1, VotersUp: 1}), OK},
		"group, one down":    {examineGroup(&GroupStatus{Group: "a", Leader: "x", Voters: 3, VotersUp: 2}), Warn},
		"group, no leader":   {examineGroup(&GroupStatus{Group: "a", Voters: 3, VotersUp: 1}), Fail},
		"group, unreachable": {examineGroup(&GroupStatus{Group: "a", Unreachable: true}), Fail},
		"group, a problem":   {examineGroup(&GroupStatus{Group: "a", Problem: "bad disk"}), Fail},
	} {
		if row.got.State != row.want || row.got.Message == "" {
			t.Errorf("%s: %+v, want %s", name, row.got, row.want)
		}
		if (row.got.Remedy == "") != (row.want == OK) {
			t.Errorf("%s: %s with the remedy %q", name, row.got.State, row.got.Remedy)
		}
	}
}
