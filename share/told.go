package share

import (
	"context"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
)

// Whom a source tells of is a stranger's word about where to connect to, and many
// getters may be told the same: so each dials few of them, and no machine twice.

const (
	// toldDialsMax is how many peers one get dials because a source told of them,
	// and tellerDialsMax how many of one source.
	toldDialsMax   = 32
	tellerDialsMax = 8
	// toldHostsMax is at how many IP addresses one peer is dialled that was told of:
	// one of each family.
	toldHostsMax = 2
)

// tolds counts the peers that one get was told of. The zero value is ready.
type tolds struct {
	count int
	by    map[peer.ID]int          // of each teller
	at    map[netip.Prefix]peer.ID // who is at an IP address, or an IPv6 network
}

// admit counts p, of whom teller has told, and returns at which of the addresses it
// may be dialled: none, when there were enough, or when another was told to be there.
func (t *tolds) admit(teller peer.ID, p peer.ID, addrs []ma.Multiaddr) (admitted []ma.Multiaddr) {
	if t.count == toldDialsMax || t.by[teller] == tellerDialsMax {
		return nil
	}
	var hosts []netip.Prefix
	for _, a := range addrs {
		host, ok := toldHost(a)
		if !ok {
			continue
		}
		if who, taken := t.at[host]; taken && who != p && !host.Addr().IsLoopback() {
			continue // on loopback all peers are at one address
		}
		if !slices.Contains(hosts, host) {
			if len(hosts) == toldHostsMax {
				continue
			}
			hosts = append(hosts, host)
		}
		admitted = append(admitted, a)
	}
	if len(admitted) == 0 {
		return nil
	}
	if t.by == nil {
		t.by, t.at = map[peer.ID]int{}, map[netip.Prefix]peer.ID{}
	}
	t.count++
	t.by[teller]++
	for _, host := range hosts {
		t.at[host] = p
	}
	return admitted
}

// toldHost stands for the machine at an address. In IPv6 whoever has one address has
// the network.
func toldHost(a ma.Multiaddr) (netip.Prefix, bool) {
	ip, ok := node.IPOf(a)
	if !ok {
		return netip.Prefix{}, false
	}
	bits := ip.BitLen()
	if ip.Is6() && !ip.IsLoopback() {
		bits = 64
	}
	host, err := ip.WithZone("").Prefix(bits)
	return host, err == nil
}

// told offers peers that a source has told of: as hints from a stranger, and at such
// addresses only as the teller itself could be at.
func (c *crowd) told(ctx context.Context, peers []peer.AddrInfo, teller *remote) {
	for _, p := range peers {
		p.Addrs = c.library.node.AcceptAddrs(teller.id, p.Addrs)
		if p.Addrs = c.admitTold(teller.id, p); len(p.Addrs) > 0 {
			c.offer(ctx, p)
		}
	}
}

// admitTold counts a peer that is new, and returns where it may be dialled.
func (c *crowd) admitTold(teller peer.ID, p peer.AddrInfo) []ma.Multiaddr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[p.ID] {
		return nil
	}
	addrs := c.tolds.admit(teller, p.ID, p.Addrs)
	if len(addrs) > 0 {
		c.hints[p.ID] = true
	}
	return addrs
}
