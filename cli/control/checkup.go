package control

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
)

// enterMax is how long doctor waits for the DHT to be entered.
const enterMax = 3 * time.Second

// enterBriefly gives a peer that has just begun the time to enter the DHT.
func (s *Server) enterBriefly(ctx context.Context) {
	if !s.cfg.Node.HasDHT() || s.cfg.Node.BootstrapPeers() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, enterMax)
	defer cancel()
	s.cfg.Node.WaitDHT(ctx)
}

// examinePorts judges where this peer listens.
func examinePorts(addrs []ma.Multiaddr, role node.Role) Finding {
	f := Finding{Check: "ports", Subject: "listening", State: OK}
	var tcp, quic, beyond bool
	var texts []string
	for _, a := range addrs {
		_, err := a.ValueForProtocol(ma.P_TCP)
		tcp = tcp || err == nil
		_, err = a.ValueForProtocol(ma.P_QUIC_V1)
		quic = quic || err == nil
		beyond = beyond || !manet.IsIPLoopback(a)
		texts = append(texts, a.String())
	}
	switch {
	case len(addrs) == 0 && role == node.RoleVisitor:
		f.Message = "this command's own peer listens nowhere, and a daemon would"
	case len(addrs) == 0:
		f.State, f.Message = Fail, "it listens on no address: nobody can reach it"
		f.Remedy = "name an address of this machine, and a port that is free, with --listen"
	case !beyond:
		f.State, f.Message = Warn, "it listens on loopback only: other machines can't reach it"
		f.Remedy = "run it without --listen (listen in config.toml), or with an address of a network"
	case !tcp || !quic:
		f.State, f.Message = Warn, "it listens on "+map[bool]string{true: "TCP", false: "QUIC"}[tcp]+" only"
		f.Remedy = "listen on the same port of both: peers behind some routers and firewalls reach only one of them"
	default:
		f.Message = strings.Join(texts, ", ")
	}
	return f
}

// examineDHT judges the way to names and peers beyond the local network.
func examineDHT(has bool, bootstrap, peers int) Finding {
	f := Finding{Check: "dht", Subject: "peers", State: OK, Message: fmt.Sprintf("%d connected peers are members of a DHT", peers)}
	switch {
	case !has:
		f.State, f.Message = Warn, "the DHT is switched off: what is shared is found on the local network and by links only"
		f.Remedy = "run the peer without --no-dht (no_dht in config.toml)"
	case peers == 0 && bootstrap == 0:
		f.State, f.Message = Warn, "no bootstrap peer is named, and no peer of a DHT is connected: names are found on the local network only"
		f.Remedy = "name one with --bootstrap MULTIADDR (bootstrap in config.toml); p2pshare bootstrap on a machine with a public address is one"
	case peers == 0:
		f.State, f.Message = Fail, fmt.Sprintf("none of %d bootstrap peers could be reached", bootstrap)
		f.Remedy = "see with p2pshare config whether their addresses are right, and whether they run; a firewall may forbid TCP and UDP to their ports"
	}
	return f
}

// examineNAT judges whether others can dial this peer from the internet.
func examineNAT(r network.Reachability, dht bool, addrs []ma.Multiaddr, stays bool) Finding {
	f := Finding{Check: "nat", Subject: "reachability", State: OK}
	public := ""
	for _, a := range addrs {
		if ip, err := manet.ToIP(a); err == nil {
			if addr, ok := netip.AddrFromSlice(ip); ok && node.IsPublic(addr) {
				public = addr.Unmap().String()
			}
		}
	}
	switch {
	case r == network.ReachabilityPublic:
		f.Message = "others have dialled this peer from the internet"
	case !dht || !stays:
		f.Message = "not tested: that takes a daemon with a DHT, and minutes"
	case public != "" && r == network.ReachabilityUnknown:
		f.Message = "it has the public address " + public + ", which nobody has tested yet"
	case public != "":
		f.State, f.Message = Warn, "it has the public address "+public+", and others can't dial it"
		f.Remedy = "let the firewall pass TCP and UDP to the port on which it listens"
	case r == network.ReachabilityPrivate:
		f.State, f.Message = Warn, "it is behind a NAT or a firewall: others reach it through relays and by hole punching, which is slower and may fail"
		f.Remedy = "switch on UPnP or NAT-PMP in the router, or forward the port on which this peer listens, TCP and UDP, to this machine"
	default:
		f.Message = "others have not tested yet whether they can dial this peer"
	}
	return f
}

// diskLow is what the home's disk should have left, in bytes, and diskOut what it needs
// for the catalog and the groups' logs.
const (
	diskLow = 1 << 30
	diskOut = 64 << 20
)

// examineDisk judges the room on the disk of the home.
func examineDisk(u share.Usage, home string) Finding {
	f := Finding{Check: "disk", Subject: "home", State: OK, Message: fmt.Sprintf("%d MiB are free", u.Free>>20)}
	switch {
	case u.Free < 0:
		f.Message = "the system does not tell how much is free"
	case u.Free < diskOut:
		f.State = Fail
	case u.Free < diskLow:
		f.State = Warn
	}
	if f.State != OK {
		f.Remedy = "make room on the disk of " + share.Escape(home) + ", run p2pshare gc, or move the home and name it with --home"
	}
	if u.Quota > 0 && f.State == OK && u.Used+u.Reserved > u.Quota {
		f.State, f.Message = Warn, fmt.Sprintf("the store holds %d MiB, more than its quota of %d MiB", u.Used>>20, u.Quota>>20)
		f.Remedy = "raise the capacity of this member, or leave a group"
	}
	return f
}

// examineWatches tells of watched shares that are not followed as they should be.
func (s *Server) examineWatches(ctx context.Context) (findings []Finding) {
	for sh, err := range s.cfg.Library.List(ctx) {
		if err != nil {
			return append(findings, Finding{"catalog", "shares", Fail, OneLine(err.Error()), "restore " + share.Escape(s.cfg.Home) + " from a backup, or move catalog.db away and add what is shared again"})
		}
		if w := s.watchOf(sh); w != nil && w.Running && w.Problem != "" {
			findings = append(findings, Finding{"watch", share.Escape(string(sh.Name)), Warn, w.Problem,
				"see that " + share.Escape(sh.Path) + " is there and may be read; where it has very many directories, watch parts of it"})
		}
	}
	return findings
}

// examineGroups judges the groups that this peer is in or follows.
func (s *Server) examineGroups(ctx context.Context) (findings []Finding) {
	if s.cfg.Coord == nil {
		return nil
	}
	for _, g := range s.cfg.Coord.Known() {
		findings = append(findings, examineGroup(s.groupStatus(ctx, s.cfg.Coord, g)))
	}
	return findings
}

// examineGroup judges one group by its status.
func examineGroup(g *GroupStatus) Finding {
	f := Finding{Check: "group", Subject: share.Escape(g.Group), State: OK,
		Message: fmt.Sprintf("%d of %d voters are up, and %d more may fail", g.VotersUp, g.Voters, g.CanLose)}
	switch {
	case g.Problem != "":
		f.State, f.Message = Fail, g.Problem
		f.Remedy = g.Hint
		if f.Remedy == "" {
			f.Remedy = "see that members run and can be reached: p2pshare group status"
		}
	case g.Unreachable:
		f.State, f.Message = Fail, "no member answers"
		f.Remedy = "see that members run and can be reached: p2pshare group status"
	case g.Leader == "":
		f.State, f.Message = Fail, fmt.Sprintf("it has no leader: %d of %d voters are up", g.VotersUp, g.Voters)
		f.Remedy = "start the members that are down; if a majority of the voters is lost for good: p2pshare group recover"
	case g.Voters > 1 && g.CanLose == 0:
		f.State, f.Message = Warn, fmt.Sprintf("%d of %d voters are up: if one more fails it can't decide", g.VotersUp, g.Voters)
		f.Remedy = "start the members that are down, or remove those that are lost and invite others"
	}
	return f
}
