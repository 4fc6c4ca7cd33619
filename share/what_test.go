package share

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/share/content"
)

// addrText makes multiaddrs comparable.
var addrText = cmp.Comparer(func(a, b ma.Multiaddr) bool { return a.Equal(b) })

func TestParseWhat(t *testing.T) {
	id := content.Root([]byte("report"))
	ann := keyID(t, testKey(t, 7))
	bob := keyID(t, testKey(t, 8))
	addr := ma.StringCast("/ip4/192.0.2.7/tcp/4001")
	addr6 := ma.StringCast("/ip6/2001:db8::1/udp/4001/quic-v1")
	at := func(p peer.ID, addrs ...ma.Multiaddr) peer.AddrInfo { return peer.AddrInfo{ID: p, Addrs: addrs} }
	peerParam := "peer=/ip4/192.0.2.7/tcp/4001/p2p/" + ann.String()
	for _, tt := range []struct {
		in   string
		want What
	}{
		{id.String(), What{ID: id}},
		{"b3:" + strings.ToUpper(id.Hex()), What{ID: id}},
		{id.Hex(), What{ID: id}},
		{strings.ToUpper(id.Hex()), What{ID: id}},
		{id.CID(), What{ID: id}},

		{"report.pdf", What{Name: "report.pdf"}},
		{"re\u0301sume\u0301.pdf", What{Name: "résumé.pdf"}},
		{"a name with spaces", What{Name: "a name with spaces"}},
		{id.Hex()[:63], What{Name: Name(id.Hex()[:63])}},
		{"bafkr4i", What{Name: "bafkr4i"}},
		{"issue #42", What{Name: "issue #42"}},
		{"c#", What{Name: "c#"}},
		{"a#1234567", What{Name: "a#1234567"}},
		{"a#1234567g", What{Name: "a#1234567g"}},
		{"a#" + strings.Repeat("0", 65), What{Name: Name("a#" + strings.Repeat("0", 65))}},
		{"b3", What{Name: "b3"}},
		{"~user", What{Name: "~user"}},

		{"report.pdf#9f3c21ab", What{Name: "report.pdf", Prefix: "9f3c21ab"}},
		{"report.pdf#9F3C21AB", What{Name: "report.pdf", Prefix: "9f3c21ab"}},
		{"report.pdf#" + id.Hex(), What{Name: "report.pdf", Prefix: id.Hex()}},
		{"a#b#9f3c21ab", What{Name: "a#b", Prefix: "9f3c21ab"}},

		{ann.String() + "/report.pdf", What{Name: "report.pdf", Publisher: ann}},
		{peer.ToCid(ann).String() + "/report.pdf", What{Name: "report.pdf", Publisher: ann}},
		{"@office/report.pdf", What{Name: "report.pdf", Group: "office"}},

		{"p2pshare:" + id.String(), What{ID: id}},
		{"p2pshare:" + id.Hex(), What{ID: id}},
		{"p2pshare:" + id.String() + "?", What{ID: id}},
		{"p2pshare:" + id.String() + "?name=a%20b%2B.pdf&kind=dir", What{ID: id, Name: "a b+.pdf", Kind: KindDir}},
		{"p2pshare:" + id.String() + "?name=a+b", What{ID: id, Name: "a b"}},
		{"p2pshare:" + id.String() + "?kind=file&later=1&later=2", What{ID: id, Kind: KindFile}},
		{"p2pshare:" + id.String() + "?" + peerParam, What{ID: id, Peers: []peer.AddrInfo{at(ann, addr)}}},
		{
			"p2pshare:" + id.String() + "?" + peerParam + "&peer=/ip6/2001:db8::1/udp/4001/quic-v1/p2p/" + bob.String() +
				"&peer=/ip6/2001:db8::1/udp/4001/quic-v1/p2p/" + ann.String(),
			What{ID: id, Peers: []peer.AddrInfo{at(ann, addr, addr6), at(bob, addr6)}},
		},
		{"p2pshare:" + id.String() + "?peer=/p2p/" + ann.String(), What{ID: id, Peers: []peer.AddrInfo{at(ann)}}},
	} {
		got, err := ParseWhat(tt.in)
		if err != nil {
			t.Errorf("ParseWhat(%q): %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, addrText); diff != "" {
			t.Errorf("ParseWhat(%q) (-want +got):\n%s", tt.in, diff)
		}
	}
}

func TestParseWhatRefuses(t *testing.T) {
	id := content.Root([]byte("report")).String()
	ann := keyID(t, testKey(t, 7)).String()
	for _, tt := range []struct {
		in   string
		want error
	}{
		{"", ErrBadName}, {".", ErrBadName}, {"..", ErrBadName}, {"a\x1b[2J", ErrBadName}, {`a\b`, ErrBadName}, {"\xff", ErrBadName},
		{"#9f3c21ab", ErrBadName},
		{"b3:", content.ErrInvalidID}, {"b3:12", content.ErrInvalidID}, {"b3:" + strings.Repeat("g", 64), content.ErrInvalidID},
		{id + "0", content.ErrInvalidID}, {"bafkr4i" + strings.Repeat("0", 52), content.ErrInvalidID},
		{"/etc/passwd", ErrBadWhat}, {"../../etc/passwd", ErrBadWhat}, {"ann@home/report.pdf", ErrBadWhat}, {"ann/a/b", ErrBadName},
		{strings.Repeat("1", 1<<20) + "/a", ErrBadWhat},
		{ann + "/", ErrBadName}, {ann + "/a/b", ErrBadName},
		{"@", ErrBadWhat}, {"@office", ErrBadWhat}, {"@/a", ErrBadWhat}, {"@office/", ErrBadName}, {"@office/a/b", ErrBadName},
		{"p2pshare:", content.ErrInvalidID}, {"p2pshare:?name=a", content.ErrInvalidID}, {"p2pshare:b3:12", content.ErrInvalidID},
		{"p2pshare://" + id, content.ErrInvalidID},
		{"p2pshare:" + id + "?name=..", ErrBadName}, {"p2pshare:" + id + "?name=a%2Fb", ErrBadName}, {"p2pshare:" + id + "?name=%FF", ErrBadName},
		{"p2pshare:" + id + "?name=%zz", ErrBadWhat}, {"p2pshare:" + id + "?a;b", ErrBadWhat},
		{"p2pshare:" + id + "?kind=link", ErrBadWhat},
		{"p2pshare:" + id + "?peer=", ErrBadWhat}, {"p2pshare:" + id + "?peer=192.0.2.7:4001", ErrBadWhat},
		{"p2pshare:" + id + "?peer=/ip4/192.0.2.7/tcp/4001", ErrBadWhat}, {"p2pshare:" + id + "?peer=/ip4/300.0.2.7/tcp/1/p2p/" + ann, ErrBadWhat},
		{"p2pshare:" + id + "?" + strings.Repeat("peer=/p2p/"+ann+"&", linkPeersMax+1), ErrBadWhat},
		{"p2pshare:" + id + "?name=" + strings.Repeat("a", linkMax), ErrBadWhat},
	} {
		start := time.Now()
		got, err := ParseWhat(tt.in)
		if !errors.Is(err, tt.want) {
			t.Errorf("ParseWhat(%.80q) = %+v, %v, want %v", tt.in, got, err, tt.want)
		}
		//lint:ignore SA1011 invalid UTF-8 is the point here
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\xff\n") {
			t.Errorf("ParseWhat(%.80q): the error %q could drive a terminal", tt.in, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("ParseWhat of %d bytes took %s", len(tt.in), took)
		}
	}
}

func TestParseLiteralTakesOtherForms(t *testing.T) {
	for _, s := range []string{"b3:12", "p2pshare:x", "@office", "report.pdf#9f3c21ab", content.Root(nil).Hex()} {
		if w, err := ParseLiteral(s); err != nil || !cmp.Equal(w, What{Name: Name(s)}) {
			t.Errorf("ParseLiteral(%q) = %+v, %v, want a bare name", s, w, err)
		}
	}
	if _, err := ParseLiteral("a/b"); !errors.Is(err, ErrBadName) {
		t.Errorf("ParseLiteral(a/b) = %v, want ErrBadName", err)
	}
}

func TestWhatStringParsesToTheSame(t *testing.T) {
	for _, w := range []What{
		{ID: content.Root(nil)}, {Name: "report.pdf"}, {Name: "a", Prefix: "9f3c21ab"},
		{Name: "a", Group: "office"}, {Name: "a", Publisher: keyID(t, testKey(t, 7))},
	} {
		if got, err := ParseWhat(w.String()); err != nil || !cmp.Equal(got, w) {
			t.Errorf("%q parses to %+v, %v, want %+v", w, got, err, w)
		}
	}
}

// sameLink compares a link with what it parses to. The kind of files is not written.
func sameLink(k Link, w What) string {
	if w.Kind == KindFile {
		w.Kind = ""
	}
	if k.Kind == KindFile {
		k.Kind = ""
	}
	return cmp.Diff(What{ID: k.ID, Name: k.Name, Kind: k.Kind, Peers: k.Peers}, w, addrText)
}

func TestLinkRoundTrip(t *testing.T) {
	names := []rune(`abc XYZ&?=+%#;:@!$'"()*,~é日本🙂<>|` + "\u00a0\u200d")
	addrs := []string{
		"/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1", "/dns4/example.org/tcp/443", "/dnsaddr/example.org",
		"/ip4/192.0.2.7/tcp/4001/p2p/" + keyID(t, testKey(t, 9)).String() + "/p2p-circuit", "/ip6zone/a%b&c+d#e/ip6/fe80::1/tcp/1",
	}
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		k := Link{ID: content.Root(randomBytes(3, string(rune(seed)))), Kind: []Kind{"", KindFile, KindDir}[r.IntN(3)]}
		if r.IntN(4) > 0 {
			name := []rune{'n'}
			for range r.IntN(20) {
				name = append(name, names[r.IntN(len(names))])
			}
			k.Name, _ = ParseName(string(name))
		}
		for i := range r.IntN(3) {
			p := peer.AddrInfo{ID: keyID(t, testKey(t, byte(10+i)))}
			for _, j := range r.Perm(len(addrs))[:1+r.IntN(3)] {
				p.Addrs = append(p.Addrs, ma.StringCast(addrs[j]))
			}
			k.Peers = append(k.Peers, p)
		}
		text := k.String()
		w, err := ParseWhat(text)
		if err != nil {
			t.Fatalf("seed %d: ParseWhat(%q): %v", seed, text, err)
		}
		if diff := sameLink(k, w); diff != "" {
			t.Fatalf("seed %d: %q (-link +parsed):\n%s", seed, text, diff)
		}
		if strings.ContainsAny(text, " \n\t\"<>|") {
			t.Fatalf("seed %d: %q would be broken up in a message", seed, text)
		}
	}
}

func FuzzParseWhat(f *testing.F) {
	id := content.Root([]byte("report")).String()
	ann := keyID(f, testKey(f, 7)).String()
	for _, s := range []string{
		"report.pdf", "report.pdf#9f3c21ab", id, "@office/a", ann + "/a", content.Root(nil).CID(),
		"p2pshare:" + id + "?name=a%20b&kind=dir&peer=/ip4/192.0.2.7/tcp/4001/p2p/" + ann,
		"p2pshare:" + id + "?peer=/ip6zone/x/ip6/fe80::1/udp/1/quic-v1/p2p/" + ann + "&peer=/dns/a.b/tcp/1/p2p/" + ann,
		"p2pshare:" + id + "?peer=/unix/a%2Fb/p2p/" + ann, "p2pshare:" + id + "?peer=/ip4/1.2.3.4/tcp/1/http-path/a%252Fb/p2p/" + ann,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w, err := ParseWhat(s)
		if err != nil {
			if !errors.Is(err, ErrBadWhat) && !errors.Is(err, ErrBadName) && !errors.Is(err, content.ErrInvalidID) {
				t.Fatalf("ParseWhat(%q): %v matches none of its errors", s, err)
			}
			return
		}
		if w.Name != "" {
			if n, err := ParseName(string(w.Name)); err != nil || n != w.Name {
				t.Fatalf("ParseWhat(%q) has the name %q", s, w.Name)
			}
		}
		if !strings.HasPrefix(s, linkScheme) {
			if w.Name == "" == w.ID.IsZero() && w.ID != (content.ID{}) {
				t.Fatalf("ParseWhat(%q) = %+v, want an ID or a name", s, w)
			}
			return
		}
		k := Link{ID: w.ID, Name: w.Name, Kind: w.Kind, Peers: w.Peers}
		text := k.String()
		if len(text) > linkMax {
			return // escapes made it too long to be a link
		}
		again, err := ParseWhat(text)
		if err != nil {
			t.Fatalf("%q parses, and its link %q does not: %v", s, text, err)
		}
		if diff := sameLink(k, again); diff != "" {
			t.Fatalf("%q (-link +parsed):\n%s", text, diff)
		}
	})
}
