package share

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestParsePeer(t *testing.T) {
	ann := keyID(t, testKey(t, 7)).String()
	for _, tt := range []struct{ in, want string }{
		{"192.0.2.7:4001", "/ip4/192.0.2.7/tcp/4001"},
		{"127.0.0.1:1", "/ip4/127.0.0.1/tcp/1"},
		{"127.0.0.1:65535", "/ip4/127.0.0.1/tcp/65535"},
		{"[::1]:4001", "/ip6/::1/tcp/4001"},
		{"[2001:DB8:0::7]:04001", "/ip6/2001:db8::7/tcp/4001"},
		{"[::ffff:192.0.2.7]:4001", "/ip4/192.0.2.7/tcp/4001"},
		{"localhost:4001", "/dns/localhost/tcp/4001"},
		{"host-7.example.:4001", "/dns/host-7.example/tcp/4001"},
		{"my_host:4001", "/dns/my_host/tcp/4001"},
		{"7.example:4001", "/dns/7.example/tcp/4001"},
		{"/ip4/192.0.2.7/tcp/4001/p2p/" + ann, "/ip4/192.0.2.7/tcp/4001/p2p/" + ann},
		{"/dnsaddr/example.org/p2p/" + ann, "/dnsaddr/example.org/p2p/" + ann},
	} {
		p, err := ParsePeer(tt.in)
		if err != nil || len(p.Addrs) != 1 {
			t.Errorf("ParsePeer(%q) = %v, %v, want %s", tt.in, p, err, tt.want)
			continue
		}
		got := p.Addrs[0].String()
		if p.ID != "" {
			got += "/p2p/" + p.ID.String()
		}
		if got != tt.want {
			t.Errorf("ParsePeer(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestParsePeerRefuses(t *testing.T) {
	ann := keyID(t, testKey(t, 7)).String()
	for _, tt := range []struct{ in, why string }{
		{"", "no port"}, {"nonsense", "no port"}, {"192.0.2.7", "no port"}, {"[::1]", "no port"}, {"host.example", "no port"}, {ann, "no port"},
		{"192.0.2.7:", "from 1 to 65535"}, {"192.0.2.7:0", "from 1 to 65535"}, {"192.0.2.7:65536", "from 1 to 65535"},
		{"192.0.2.7:-1", "from 1 to 65535"}, {"192.0.2.7:+1", "from 1 to 65535"}, {"192.0.2.7:http", "from 1 to 65535"}, {"192.0.2.7:4001/", "from 1 to 65535"},
		{"::1:4001", "brackets"}, {"2001:db8::7", "brackets"}, {"1:2:3:4:5:6:7:8:4001", "brackets"},
		{":4001", "neither an IP"}, {"192.0.2:4001", "neither an IP"}, {"192.0.2.300:4001", "neither an IP"}, {"7:4001", "neither an IP"},
		{"a b:4001", "neither an IP"}, {"a/b:4001", "neither an IP"}, {"-a:4001", "neither an IP"}, {"a..b:4001", "neither an IP"},
		{"[a:b]:4001", "neither an IP"}, {"bücher.example:4001", "neither an IP"}, {strings.Repeat("a", 64) + ":4001", "neither an IP"},
		{strings.Repeat("a.", 127) + "a:4001", "neither an IP"}, {"\x1b[31m:4001", "neither an IP"}, {"http://192.0.2.7:4001", "neither an IP"},
		{"0.0.0.0:4001", "no one machine"}, {"[::]:4001", "no one machine"}, {"239.192.42.42:4001", "no one machine"},
		{"[fe80::1%eth0]:4001", "link-local"}, {"[fe80::1]:4001", "link-local"}, {"[2001:db8::7%eth0]:4001", "link-local"},
		{"/ip4/192.0.2.7/tcp/4001", "/p2p/ID part is missing"}, {"/ip4/300.0.2.7/tcp/1/p2p/" + ann, "no multiaddr"}, {"/nonsense", "no multiaddr"},
	} {
		p, err := ParsePeer(tt.in)
		if !errors.Is(err, ErrBadPeer) || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("ParsePeer(%.80q) = %v, %v, want that it has %q", tt.in, p, err, tt.why)
		}
		_, err = ParsePeers([]string{"192.0.2.7:4001", tt.in})
		if !errors.Is(err, ErrBadPeer) || !strings.Contains(err.Error(), Escape(tt.in)) || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("ParsePeers with %.80q: %v, want an error that names it, escaped", tt.in, err)
		}
	}
}

func TestParsePeersMergesTheAddressesOfOneID(t *testing.T) {
	ann := "/p2p/" + keyID(t, testKey(t, 7)).String()
	got, err := ParsePeers([]string{"192.0.2.7:1", "/ip4/192.0.2.7/tcp/2" + ann, "192.0.2.7:3", "/ip4/192.0.2.7/tcp/4" + ann})
	if err != nil || len(got) != 3 || len(got[0].Addrs) != 1 || len(got[1].Addrs) != 2 || len(got[2].Addrs) != 1 {
		t.Errorf("ParsePeers = %v, %v, want ann with two addresses, and two unknown peers", got, err)
	}
}

func FuzzParsePeer(f *testing.F) {
	for _, s := range []string{"192.0.2.7:4001", "[::1]:1", "a.example:1", "[fe80::1%a]:1", "/ip4/192.0.2.7/tcp/1/p2p/" + keyID(f, testKey(f, 7)).String()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePeer(s)
		if err != nil {
			if !errors.Is(err, ErrBadPeer) {
				t.Fatalf("ParsePeer(%q): %v does not match ErrBadPeer", s, err)
			}
			return
		}
		if p.ID != "" {
			return
		}
		_, at, err := manet.DialArgs(p.Addrs[0])
		if err != nil {
			t.Fatalf("ParsePeer(%q) = %v, which can't be dialled: %v", s, p, err)
		}
		if again, err := ParsePeer(at); err != nil || !again.Addrs[0].Equal(p.Addrs[0]) {
			t.Fatalf("ParsePeer(%q) = %v, and %q is %v, %v", s, p, at, again, err)
		}
	})
}

// unknown is p as a person knows it who has only its address.
func unknown(p *testPeer) peer.AddrInfo { return peer.AddrInfo{Addrs: p.Addrs()[:1]} }

// closedPort is an unknown peer at an address where nobody listens.
func closedPort(t *testing.T) peer.AddrInfo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return peer.AddrInfo{Addrs: []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port))}}
}

// notes collects what a person is told.
type notes struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (n *notes) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
}

// about are the lines that begin so.
func (n *notes) about(begin string) (lines []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, line := range n.lines {
		if strings.HasPrefix(line, begin) {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestGetFromAPeerKnownByItsAddressAlone(t *testing.T) {
	ann, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(3*content.GroupSize, "talk")
	talk := ann.add(t, ann.write(t, "talk.mp4", data), AddOptions{})
	for form, w := range map[string]What{"name": {Name: "talk.mp4"}, "ID": {ID: talk.ID}} {
		t.Run(form, func(t *testing.T) {
			ben, _ := startPeer(t, node.Config{NoDHT: true})
			var told notes
			got, err := ben.lib.Get(t.Context(), w, GetOptions{Target: filepath.Join(ben.dir, form), Note: told.add,
				Peers: []peer.AddrInfo{closedPort(t), unknown(ann), unknown(ann), ann.AddrInfo()}})
			if err != nil || got.BytesFetched != int64(len(data)) || got.Sources[0].Peer != ann.ID() {
				t.Fatalf("Get = %+v, %v, want %d bytes from %s", got, err, len(data), ann.ID())
			}
			_, at, _ := manet.DialArgs(ann.Addrs()[0])
			if lines := told.about("peer "); len(lines) != 1 || lines[0] != "peer "+at+" is "+ann.ID().String() {
				t.Errorf("notes about peers: %q, want one that tells who is at %s", lines, at)
			}
		})
	}
}

func TestPeerThatCantBeLearntIsUnreachable(t *testing.T) {
	ben, _ := startPeer(t, node.Config{NoDHT: true})
	for form, w := range map[string]What{"name": {Name: "talk.mp4"}, "ID": {ID: content.Root([]byte("talk"))}} {
		_, err := ben.lib.Get(t.Context(), w, GetOptions{Target: filepath.Join(ben.dir, form), Peers: []peer.AddrInfo{closedPort(t)}})
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Get by %s from a closed port = %v, want ErrUnreachable, because the connection was refused", form, err)
		}
	}
}

func TestEntriesOfAPeerKnownByItsAddressAlone(t *testing.T) {
	ann, _ := startPeer(t, node.Config{NoDHT: true})
	ben, _ := startPeer(t, node.Config{NoDHT: true})
	ann.add(t, filepath.Dir(ann.write(t, "photos/a.txt", []byte("a"))), AddOptions{})
	var paths []Path
	for e, err := range ben.lib.Entries(t.Context(), What{Name: "photos"}, FindOptions{Peers: []peer.AddrInfo{unknown(ann)}}) {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, e.Path)
	}
	if len(paths) != 1 || paths[0] != "a.txt" {
		t.Errorf("Entries = %q, want a.txt", paths)
	}
}
