package control

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/node"
)

func TestExamineLAN(t *testing.T) {
	since := time.Now()
	link := func(change func(*node.LANLink)) node.LANLink {
		l := node.LANLink{Name: "eth0", Addr: netip.MustParsePrefix("10.77.0.2/24"), Echo: since.Add(time.Millisecond)}
		if change != nil {
			change(&l)
		}
		return l
	}
	lo := node.LANLink{Name: "lo", Loopback: true, Addr: netip.MustParsePrefix("127.0.0.1/8"), Echo: since.Add(time.Millisecond)}
	lo6 := node.LANLink{Name: "lo", Loopback: true, V6: true, Addr: netip.MustParsePrefix("::1/128"), Sent: errors.New("network is unreachable")}
	someone := []node.Neighbor{{}}
	for _, test := range []struct {
		name      string
		status    node.LANStatus
		neighbors []node.Neighbor
		want      []string // state subject: how the message or remedy goes on
	}{
		{"switched off", node.LANStatus{Err: node.ErrNoLAN}, nil, []string{"warn multicast: --no-lan"}},
		{"one family works", node.LANStatus{Port: node.LANPortDefault, Links: []node.LANLink{link(nil), link(func(l *node.LANLink) { l.V6, l.Echo = true, time.Time{} })}}, someone,
			[]string{"ok eth0 IPv4: ", "warn eth0 IPv6: port 24001", "ok neighbors: "}},
		{"another group", node.LANStatus{Port: 5555, Links: []node.LANLink{link(nil)}}, nil, []string{"ok eth0 IPv4: ", "warn neighbors: --lan-port 5555"}},
		{"port taken", node.LANStatus{Err: errors.New("open UDP port 42042: address already in use")}, nil, []string{"fail sockets: --lan-port"}},
		{"no interface", node.LANStatus{}, nil, []string{"fail interfaces: --listen"}},
		{"all well", node.LANStatus{Links: []node.LANLink{link(nil)}}, someone, []string{"ok eth0 IPv4: comes back", "ok neighbors: 1 neighbor;"}},
		{"alone", node.LANStatus{Links: []node.LANLink{link(nil)}}, nil, []string{"ok eth0 IPv4: ", "warn neighbors: --probe 10.77.0.0/24"}},
		{"loopback only", node.LANStatus{Links: []node.LANLink{lo, lo6}}, someone, []string{"ok lo IPv4: ", "ok neighbors: "}},
		{"loopback does not count", node.LANStatus{Links: []node.LANLink{lo6, link(nil)}}, someone, []string{"ok eth0 IPv4: ", "ok neighbors: "}},
		{"not joined", node.LANStatus{Links: []node.LANLink{link(func(l *node.LANLink) { l.Joined = errors.New("no buffer space available") })}}, someone,
			[]string{"fail eth0 IPv4: igmp_max_memberships", "ok neighbors: "}},
		{"not sent", node.LANStatus{Port: 42042, Links: []node.LANLink{link(func(l *node.LANLink) { l.Sent = errors.New("operation not permitted") })}}, someone,
			[]string{"fail eth0 IPv4: 42042-42058", "ok neighbors: "}},
		{"no echo", node.LANStatus{Port: 42042, Links: []node.LANLink{link(func(l *node.LANLink) { l.V6, l.Echo = true, since.Add(-time.Hour) })}}, someone,
			[]string{"fail eth0 IPv6: ufw allow", "ok neighbors: "}},
		{"clock", node.LANStatus{Links: []node.LANLink{link(nil)}}, []node.Neighbor{{Clock: time.Hour}, {Clock: time.Hour}, {}},
			[]string{"ok eth0 IPv4: ", "ok neighbors: 3 neighbors", "warn clock: 1h0m0s"}},
	} {
		got := examineLAN(test.status, test.neighbors, since, "24001")
		if len(got) != len(test.want) {
			t.Errorf("%s: %d findings %+v, want %d", test.name, len(got), got, len(test.want))
			continue
		}
		for i, f := range got {
			head, rest, _ := strings.Cut(test.want[i], ": ")
			if fmt.Sprintf("%s %s", f.State, f.Subject) != head || !strings.Contains(f.Message+f.Remedy, rest) || f.Check != "lan" {
				t.Errorf("%s: finding %d = %+v, want %s", test.name, i, f, test.want[i])
			}
			if (f.Remedy == "") != (f.State == OK) {
				t.Errorf("%s: %q is %s, with the remedy %q", test.name, f.Subject, f.State, f.Remedy)
			}
		}
	}
}
