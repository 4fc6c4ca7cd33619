package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
)

// clockOff is by how much the neighbors' clocks may differ before it is told.
const clockOff = 5 * time.Minute

// examine looks for what is wrong and tells, a line for each finding.
func (s *Server) examine(w http.ResponseWriter, r *http.Request) {
	since := time.Now()
	status := s.cfg.Node.LANStatus()
	if status.Err == nil {
		s.cfg.Node.Greet()
		if err := s.listenFor(r.Context(), since); err != nil {
			writeError(w, ErrorOf(err))
			return
		}
		status = s.cfg.Node.LANStatus()
	}
	s.enterBriefly(r.Context())
	findings := examineLAN(status, s.cfg.Node.Neighbors(), since, s.listenPorts())
	findings = append(findings, examinePorts(s.cfg.Node.Addrs(), s.cfg.Node.Role()))
	findings = append(findings, examineDHT(s.cfg.Node.HasDHT(), s.cfg.Node.BootstrapPeers(), s.cfg.Node.DHTPeers()))
	findings = append(findings, examineNAT(s.cfg.Node.Reachability(), s.cfg.Node.HasDHT(), s.cfg.Node.Addrs(), s.cfg.Service >= ServiceServing))
	findings = append(findings, examineDisk(s.cfg.Library.Usage(), s.cfg.Home))
	findings = append(findings, s.examineWatches(r.Context())...)
	findings = append(findings, s.examineGroups(r.Context())...)
	out := newStream(w, r, contentTypeLines)
	for _, f := range findings {
		if out.sendLine(f) != nil {
			return
		}
	}
}

// listenFor waits until every link has brought the peer's own hello back and
// somebody has answered, or lanListen is over.
func (s *Server) listenFor(ctx context.Context, since time.Time) error {
	over := time.NewTimer(lanListen)
	look := time.NewTicker(lanListen / 20)
	defer over.Stop()
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over.C:
			return nil
		case <-look.C:
			deaf := slices.ContainsFunc(checkedLinks(s.cfg.Node.LANStatus()), func(l node.LANLink) bool { return l.Echo.Before(since) })
			if !deaf && len(s.cfg.Node.Neighbors()) > 0 {
				return nil
			}
		}
	}
}

// checkedLinks are the links that must work: loopback counts only where there is
// nothing else, and with IPv4 only, for IPv6 multicast has no route there.
func checkedLinks(s node.LANStatus) []node.LANLink {
	links := slices.DeleteFunc(slices.Clone(s.Links), func(l node.LANLink) bool { return l.Loopback })
	if len(links) > 0 {
		return links
	}
	return slices.DeleteFunc(slices.Clone(s.Links), func(l node.LANLink) bool { return l.V6 })
}

// portTaken is what to do when another program has the groups' port.
const portTaken = "end the program that has the port, or give every peer another one with --lan-port"

// examineLAN judges the local network. since is when the last hello was said.
//
// Where one family of an interface works, another's fault keeps nobody out: it
// is a warning.
func examineLAN(s node.LANStatus, neighbors []node.Neighbor, since time.Time, listening string) []Finding {
	switch {
	case errors.Is(s.Err, node.ErrNoLAN):
		return []Finding{{"lan", "multicast", Warn, "multicast is switched off: neighbors are neither seen nor asked",
			"run the peer without --no-lan (no_lan in config.toml, P2PSHARE_NO_LAN)"}}
	case s.Err != nil:
		return []Finding{{"lan", "sockets", Fail, "no local network: " + OneLine(s.Err.Error()),
			portTaken}}
	}
	links := checkedLinks(s)
	if len(links) == 0 {
		return []Finding{{"lan", "interfaces", Fail, "no interface is up that has an address this peer listens on",
			"connect a network, or listen on its address with --listen"}}
	}
	var findings []Finding
	works := map[string]bool{}
	for _, l := range links {
		f := examineLink(l, s.Port, since, listening)
		works[l.Name] = works[l.Name] || f.State == OK
		findings = append(findings, f)
	}
	for i, l := range links {
		if findings[i].State == Fail && works[l.Name] {
			findings[i].State = Warn
		}
	}
	findings = append(findings, examineNeighbors(links, neighbors, s.Port))
	if f, off := examineClock(neighbors); off {
		findings = append(findings, f)
	}
	return findings
}

// examineLink judges one family of one interface.
func examineLink(l node.LANLink, port int, since time.Time, listening string) Finding {
	family := "IPv4"
	if l.V6 {
		family = "IPv6"
	}
	f := Finding{Check: "lan", Subject: l.Name + " " + family, State: OK, Message: fmt.Sprintf("%s: own multicast comes back", l.Addr)}
	switch {
	case errors.Is(l.Joined, syscall.EADDRINUSE):
		f.State, f.Message = Fail, "another program has the port: "+OneLine(l.Joined.Error())
		f.Remedy = portTaken
	case l.Joined != nil:
		f.State, f.Message = Fail, "the multicast group can't be joined: "+OneLine(l.Joined.Error())
		f.Remedy = "switch multicast on for the interface (ip link set " + l.Name + " multicast on); Linux allows 20 groups a socket (sysctl net.ipv4.igmp_max_memberships)"
	case l.Sent != nil:
		f.State, f.Message = Fail, "multicast can't be sent: "+OneLine(l.Sent.Error())
		f.Remedy = fmt.Sprintf("a firewall on this machine may forbid it: allow UDP to 239.192.42.42 and ff02::4242, port %d, and %s", port, allowText(l.Addr, port, listening))
	case l.Echo.Before(since):
		f.State, f.Message = Fail, "own multicast does not come back: a firewall on this machine is likely to drop it"
		f.Remedy = allowText(l.Addr, port, listening)
	}
	return f
}

// allowText says what a firewall must let through.
func allowText(addr netip.Prefix, port int, listening string) string {
	text := fmt.Sprintf("allow UDP ports %d-%d from the local network, as with: ufw allow proto udp from %s to any port %d:%d",
		port, port+16, addr.Masked(), port, port+16)
	if listening != "" {
		text += "; and TCP and UDP port " + listening + ", on which this peer serves"
	}
	return text
}

// listenPorts are the ports on which this peer listens, in words.
func (s *Server) listenPorts() string {
	var ports []string
	for _, a := range s.cfg.Node.Addrs() {
		for _, proto := range []int{ma.P_TCP, ma.P_UDP} {
			if port, err := a.ValueForProtocol(proto); err == nil && !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return strings.Join(ports, ", ")
}

func examineNeighbors(links []node.LANLink, neighbors []node.Neighbor, port int) Finding {
	if len(neighbors) > 0 {
		count := "1 neighbor"
		if len(neighbors) > 1 {
			count = fmt.Sprintf("%d neighbors", len(neighbors))
		}
		return Finding{Check: "lan", Subject: "neighbors", State: OK, Message: count + "; p2pshare lan shows them"}
	}
	probe := ""
	for _, l := range links {
		if !l.V6 && !l.Loopback {
			probe = l.Addr.Masked().String()
			break
		}
	}
	f := Finding{Check: "lan", Subject: "neighbors", State: Warn,
		Message: "nobody is heard: there is no other peer, or the network keeps multicast between its members back (guest Wi-Fi, client isolation, some switches)",
		Remedy:  "run p2pshare daemon on another machine; where it runs already, try p2pshare lan --probe " + probe + ", or name it with --peer IP:PORT"}
	if probe == "" {
		f.Message = "nobody is heard: only loopback is there, or this peer listens nowhere else"
		f.Remedy = "connect a network, or run another peer on this machine"
	}
	if port != node.LANPortDefault {
		f.Message += fmt.Sprintf("; and only peers with --lan-port %d are seen", port)
	}
	return f
}

// examineClock tells when the neighbors agree that this peer's clock is off.
func examineClock(neighbors []node.Neighbor) (Finding, bool) {
	if len(neighbors) == 0 {
		return Finding{}, false
	}
	var ahead []time.Duration
	for _, n := range neighbors {
		ahead = append(ahead, n.Clock)
	}
	slices.Sort(ahead)
	median := ahead[len(ahead)/2]
	if median.Abs() < clockOff {
		return Finding{}, false
	}
	return Finding{Check: "lan", Subject: "clock", State: Warn,
		Message: fmt.Sprintf("this machine's clock and its neighbors' differ by %s", median.Abs()),
		Remedy:  "set the clock: manifests are refused when they seem to come from tomorrow or to have expired"}, true
}
