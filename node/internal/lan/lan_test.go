package lan

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onLoopback keeps a beacon on this machine.
func onLoopback(a netip.Addr) bool { return a.IsLoopback() && a.Is4() }

func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// received is a datagram whose bytes the test may keep.
type received struct {
	Datagram
	text string
}

// open runs a beacon on loopback until the test ends.
func open(t *testing.T, port int) (*Beacon, <-chan received) {
	t.Helper()
	b, err := Open(Config{Port: port, Usable: onLoopback})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	in := make(chan received, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- b.Run(ctx, func(d Datagram) {
			select {
			case in <- received{d, string(d.Data)}:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b, in
}

// next returns the next datagram that comes from another beacon.
func next(t *testing.T, in <-chan received) received {
	t.Helper()
	select {
	case d := <-in:
		return d
	case <-time.After(20 * time.Second):
		t.Fatal("no datagram came")
		panic("unreachable")
	}
}

func TestBeaconsOfOneHostHearTheGroupAndEachOther(t *testing.T) {
	port := freePort(t)
	ann, annIn := open(t, port)
	ben, benIn := open(t, port)
	if links := ann.Links(); len(links) != 1 || !links[0].Loopback || links[0].Joined(false) != nil || links[0].Joined(true) != ErrNoAddress {
		t.Fatalf("links = %+v, want loopback, with IPv4 joined and no IPv6", links)
	}
	calls := 0
	if err := ann.Multicast(func(Link) []byte { calls++; return []byte("hello") }); err != nil {
		t.Fatal(err)
	}
	if calls != 1 {
		t.Errorf("a datagram was built %d times, want once for each link and family", calls)
	}
	own := next(t, annIn)
	d := next(t, benIn)
	for who, d := range map[string]received{"its sender": own, "another": d} {
		if d.Own != (who == "its sender") {
			t.Errorf("%s hears it as its own: %v", who, d.Own)
		}
		if d.text != "hello" || !d.Group || !d.From.Addr().IsLoopback() || !d.Link.Loopback {
			t.Errorf("%s hears %q from %s, group %v, on %+v", who, d.text, d.From, d.Group, d.Link)
		}
	}
	if err := ben.Send([]byte("here"), d.From); err != nil {
		t.Fatal(err)
	}
	if d := next(t, annIn); d.text != "here" || d.Group {
		t.Errorf("the answer is %q, group %v, want here by unicast", d.text, d.Group)
	}
	// One who knows only the host sends to the group's port.
	if err := ann.Send([]byte("anybody?"), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))); err != nil {
		t.Fatal(err)
	}
	select {
	case d = <-annIn:
	case d = <-benIn:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody hears what is sent to the port")
	}
	if d.text != "anybody?" || d.Group {
		t.Errorf("the port hears %q, group %v, want anybody? by unicast", d.text, d.Group)
	}
}

func TestBeaconDropsWhatIsTooLong(t *testing.T) {
	port := freePort(t)
	ann, in := open(t, port)
	for _, n := range []int{DatagramMax, DatagramMax + 1, 9000, 3} {
		if err := ann.Multicast(func(Link) []byte { return bytes.Repeat([]byte{'x'}, n) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{DatagramMax, 3} {
		if d := next(t, in); len(d.text) != want {
			t.Errorf("a datagram of %d bytes came, want one of %d", len(d.text), want)
		}
	}
}

func TestBeaconEndsWhileItReadsAndSaysALastWord(t *testing.T) {
	b, err := Open(Config{Port: freePort(t), Usable: onLoopback})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx, func(Datagram) {}); err != nil {
		t.Error(err)
	}
	if err := b.Multicast(func(Link) []byte { return []byte("bye") }); err != nil {
		t.Errorf("multicast after Run: %v", err)
	}
	for range 2 {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func TestLinkKnowsWhoIsOnIt(t *testing.T) {
	eth := Link{Name: "eth0", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.0.2/24"), netip.MustParsePrefix("fd00::2/64"), netip.MustParsePrefix("fe80::2/64")}}
	lo := Link{Name: "lo", Loopback: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}
	for _, test := range []struct {
		link Link
		addr string
		want bool
	}{
		{eth, "10.77.0.9", true},
		{eth, "10.77.1.9", false},
		{eth, "10.77.0.0", false},
		{eth, "10.77.0.255", false},
		{eth, "8.8.8.8", false},
		{eth, "127.0.0.1", false},
		{eth, "0.0.0.0", false},
		{eth, "fd00::9", true},
		{eth, "fd01::9", false},
		{eth, "fe80::9%eth0", true},
		{eth, "::1", false},
		{lo, "127.9.9.9", true},
		{lo, "10.77.0.9", false},
		{lo, "fe80::9%lo", false},
	} {
		if got := test.link.OnLink(netip.MustParseAddr(test.addr)); got != test.want {
			t.Errorf("%s: OnLink(%s) = %v, want %v", test.link.Name, test.addr, got, test.want)
		}
	}
}

func TestOwnDatagramsAreOfTheLinkWithTheirSource(t *testing.T) {
	eth := Link{Index: 2, Name: "eth0", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.77.0.2/24")}}
	lo := Link{Index: 1, Name: "lo", Loopback: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}
	b := &Beacon{links: []Link{lo, eth}}
	for _, test := range []struct {
		src     string
		ifIndex int
		want    string // empty: dropped
	}{
		{"10.77.0.2:1", 1, "eth0"}, // to oneself, over loopback
		{"10.77.0.9:1", 2, "eth0"},
		{"10.77.0.9:1", 0, "eth0"}, // where the system does not tell
		{"10.77.0.9:1", 1, ""},
		{"127.0.0.1:1", 1, "lo"},
		{"192.168.1.1:1", 2, ""},
		{"8.8.8.8:1", 0, ""},
	} {
		link, ok := b.linkOf(packet{src: netip.MustParseAddrPort(test.src), ifIndex: test.ifIndex})
		if ok != (test.want != "") || link.Name != test.want {
			t.Errorf("from %s over interface %d: link %q, %v, want %q", test.src, test.ifIndex, link.Name, ok, test.want)
		}
	}
}

func TestUsableLinksAreThoseWithAUsableAddress(t *testing.T) {
	links, err := usableLinks(onLoopback)
	if err != nil || len(links) != 1 || !links[0].Loopback || len(links[0].Prefixes) != 1 {
		t.Errorf("usableLinks(loopback) = %+v, %v, want one with one address", links, err)
	}
	if links, err := usableLinks(func(netip.Addr) bool { return false }); err != nil || len(links) != 0 {
		t.Errorf("usableLinks(nothing) = %+v, %v, want none", links, err)
	}
}
