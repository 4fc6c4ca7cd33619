package node

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/node/internal/lan"
)

// echoes remembers on which links this peer's own multicasts came back: a
// system that drops them drops others' too.
type echoes struct {
	mu    sync.Mutex
	heard map[echoKey]time.Time // guarded by mu
}

type echoKey struct {
	link string
	v6   bool
}

func (e *echoes) note(d lan.Datagram) {
	if !d.Group {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heard == nil {
		e.heard = map[echoKey]time.Time{}
	}
	e.heard[echoKey{d.Link.Name, d.From.Addr().Is6()}] = time.Now()
}

func (e *echoes) last(link string, v6 bool) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[echoKey{link, v6}]
}

// LANStatus says how the local network stands, for people who look for a fault.
type LANStatus struct {
	// Err is why there is none; nil when it is open. ErrNoLAN: it is not to be.
	Err   error
	Port  int // UDP, of the groups
	Links []LANLink
}

// LANLink is how one family of one interface stands.
type LANLink struct {
	Name     string
	V6       bool
	Loopback bool
	Addr     netip.Prefix // its first address
	Joined   error        // nil: the group is joined
	Sent     error        // nil: the last datagram could be sent
	Echo     time.Time    // when an own datagram last came back from the group
}

// LANPortDefault is the UDP port of the local network's groups.
const LANPortDefault = lan.DefaultPort

// ErrNoLAN is LANStatus.Err where Config has it that there is no local network.
var ErrNoLAN = errors.New("multicast is switched off")

// LANStatus tells how the local network stands.
func (n *Node) LANStatus() LANStatus {
	l := n.lanNow()
	if l == nil {
		s := LANStatus{Err: ErrNoLAN}
		if err := n.lanErr.Load(); err != nil {
			s.Err = *err
		}
		return s
	}
	s := LANStatus{Port: l.beacon.Port()}
	for _, link := range l.beacon.Links() {
		for _, v6 := range []bool{false, true} {
			i := slices.IndexFunc(link.Prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 })
			if i < 0 {
				continue
			}
			s.Links = append(s.Links, LANLink{Name: link.Name, V6: v6, Loopback: link.Loopback, Addr: link.Prefixes[i],
				Joined: link.Joined(v6), Sent: l.beacon.SendError(link, v6), Echo: l.echoes.last(link.Name, v6)})
		}
	}
	return s
}
