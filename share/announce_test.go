package share

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

func keysAt(t *testing.T, l *Library, path string) keys {
	t.Helper()
	k, err := l.keysOf(sharedAt(t, l, path))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// hexKeys makes keys comparable, in order.
func hexKeys(keys []multihash.Multihash) []string {
	out := []string{}
	for _, k := range keys {
		out = append(out, k.HexString())
	}
	return out
}

func sortedKeys(keys []multihash.Multihash) []string {
	return slices.Sorted(slices.Values(hexKeys(keys)))
}

func TestKeysOfAShare(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := makeFiles(t, filepath.Join(t.TempDir(), "album"), "mm", "a/lll", "empty/", "s")
	writeFile(t, dir, "twin1", "the same")
	writeFile(t, dir, "twin2", "the same")
	file := writeFile(t, t.TempDir(), "Report.pdf", "x")

	s := addTo(t, l, file, AddOptions{})
	k := keysAt(t, l, file)
	if want := hexKeys([]multihash.Multihash{Name("report.PDF").Key(), s.ID.Multihash()}); !cmp.Equal(hexKeys(k.first), want) || len(k.files) != 0 || k.reach != node.ReachAll {
		t.Errorf("keys of a file: %+v", k)
	}

	s = addTo(t, l, dir, AddOptions{Scope: Scope{Unlisted: true}})
	k = keysAt(t, l, dir)
	var want []multihash.Multihash // the largest first, each once, not the listing
	for _, data := range []string{"the same", "a/lll", "mm", "s"} {
		want = append(want, content.Root([]byte(data)).Multihash())
	}
	if !cmp.Equal(hexKeys(k.files), hexKeys(want)) || !cmp.Equal(hexKeys(k.first), hexKeys([]multihash.Multihash{Name("album").Key(), s.ID.Multihash()})) {
		t.Errorf("keys of a directory: %+v", k)
	}
	for _, inner := range []Name{"mm", "lll", "twin1"} {
		if slices.Contains(hexKeys(append(k.first, k.files...)), inner.Key().HexString()) {
			t.Errorf("the inner name %s is announced", inner)
		}
	}

	addTo(t, l, dir, AddOptions{Scope: Scope{LANOnly: true}})
	if k = keysAt(t, l, dir); k.reach != node.ReachLAN {
		t.Errorf("a share for the LAN only reaches %v", k.reach)
	}
}

func TestSweepHasEveryShareButThoseForTheLAN(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	public := addTo(t, l, makeFiles(t, filepath.Join(dir, "public"), "a", "b"), AddOptions{})
	addTo(t, l, makeFiles(t, filepath.Join(dir, "private"), "c"), AddOptions{Scope: Scope{LANOnly: true}})
	bound := addTo(t, l, writeFile(t, dir, "bound", "d"), AddOptions{Scope: Scope{To: keyID(t, testKey(t, 7))}})
	var failed error
	got := slices.Collect(l.sweptKeys(&failed))
	want := []multihash.Multihash{
		Name("public").Key(), public.ID.Multihash(), content.Root([]byte("a")).Multihash(), content.Root([]byte("b")).Multihash(),
		Name("bound").Key(), bound.ID.Multihash(),
		WordKey("public"), WordKey("bound"),
	}
	if failed != nil || !cmp.Equal(sortedKeys(got), sortedKeys(want)) {
		t.Errorf("the sweep gets %q, %v, want %q", sortedKeys(got), failed, sortedKeys(want))
	}
	for range l.sweptKeys(&failed) { // a sweep that breaks off
		break
	}
}

func TestWithdrawKeepsKeysThatOtherSharesNeed(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	album := makeFiles(t, filepath.Join(dir, "album"), "a", "b", "c")
	one := addTo(t, l, album, AddOptions{})
	addTo(t, l, writeFile(t, dir, "alone", "a"), AddOptions{})                                              // one content of the album
	addTo(t, l, writeFile(t, dir, "lan/album", "b"), AddOptions{Scope: Scope{LANOnly: true}})               // another, and its name
	addTo(t, l, makeFiles(t, filepath.Join(dir, "lan tree"), "c"), AddOptions{Scope: Scope{LANOnly: true}}) // the third
	k := keysAt(t, l, album)
	if stop, err := l.unneeded(k); err != nil || len(stop) != 0 {
		t.Errorf("while it is shared, %d keys are unneeded, %v", len(stop), err)
	}
	if err := l.catalog.remove(sharedAt(t, l, album).key); err != nil {
		t.Fatal(err)
	}
	// What is shared for the LAN only must not stay announced to everybody.
	want := []multihash.Multihash{Name("album").Key(), WordKey("album"), one.ID.Multihash(), content.Root([]byte("b")).Multihash(), content.Root([]byte("c")).Multihash()}
	stop, err := l.unneeded(k)
	if err != nil || !cmp.Equal(sortedKeys(stop), sortedKeys(want)) {
		t.Errorf("unneeded after its removal: %q, %v, want %q", sortedKeys(stop), err, sortedKeys(want))
	}
}

func TestAddAgainForTheLANOnlyEndsTheAnnouncement(t *testing.T) {
	l := openLibrary(t, Config{})
	path := writeFile(t, t.TempDir(), "a", "x")
	addTo(t, l, path, AddOptions{})
	k := keysAt(t, l, path)
	addTo(t, l, path, AddOptions{Scope: Scope{LANOnly: true}})
	if stop, err := l.unneeded(k); err != nil || len(stop) != 3 { // of the name, its word, and the content
		t.Errorf("%d of two keys are unneeded, %v", len(stop), err)
	}
}

func TestAnnounceAlone(t *testing.T) {
	l := openLibrary(t, Config{})
	s := addTo(t, l, writeFile(t, t.TempDir(), "a", "x"), AddOptions{})
	if a := l.Announce(t.Context(), s); a != AnnouncedNone {
		t.Errorf("Announce without a network = %s, want none", a)
	}
	s.Path += " elsewhere"
	if a := l.Announce(t.Context(), s); a != AnnouncedNone {
		t.Errorf("Announce of what is not shared = %s, want none", a)
	}
}

func TestLinkRankOrdersAddresses(t *testing.T) {
	relay := "/p2p/" + keyID(t, testKey(t, 9)).String() + "/p2p-circuit"
	want := []string{
		"/ip4/192.0.2.1/tcp/1",
		"/ip6/2001:db8::1/tcp/1",
		"/ip4/192.0.2.1/udp/1/quic-v1",
		"/ip6/2001:db8::1/udp/1/quic-v1",
		"/ip4/192.0.2.1/tcp/1" + relay,
		"/ip6/2001:db8::1/tcp/1" + relay,
		"/ip4/192.0.2.1/udp/1/quic-v1" + relay,
	}
	for i := 1; i < len(want); i++ {
		if a, b := linkRank(ma.StringCast(want[i-1])), linkRank(ma.StringCast(want[i])); a >= b {
			t.Errorf("%s ranks %d, and %s ranks %d", want[i-1], a, want[i], b)
		}
	}
}

func TestLinkHasTheFourBestAddresses(t *testing.T) {
	listen := []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")}
	for range 4 {
		listen = append(listen, ma.StringCast("/ip4/127.0.0.1/tcp/0"))
	}
	p, _ := startPeer(t, node.Config{Listen: listen, NoDHT: true})
	if n := len(p.Addrs()); n < 5 {
		t.Fatalf("the peer has %d addresses", n)
	}
	s := p.add(t, p.write(t, "talk.mp4", []byte("x")), AddOptions{})
	link := p.lib.Link(s)
	if len(link.Peers) != 1 || link.Peers[0].ID != p.ID() || len(link.Peers[0].Addrs) != linkAddrsMax {
		t.Fatalf("Link = %+v, want %d addresses", link, linkAddrsMax)
	}
	if !slices.IsSortedFunc(link.Peers[0].Addrs, func(a, b ma.Multiaddr) int { return linkRank(a) - linkRank(b) }) || linkRank(link.Peers[0].Addrs[2]) != 0 {
		t.Errorf("addresses %v, want the TCP ones first", link.Peers[0].Addrs)
	}
	w, err := ParseWhat(link.String())
	if err != nil {
		t.Fatal(err)
	}
	if diff := sameLink(link, w); diff != "" || w.Name != "talk.mp4" || w.ID != s.ID {
		t.Errorf("%s parses to (-link +parsed):\n%s", link, diff)
	}
}

func TestLinkOfAPeerWithoutAddresses(t *testing.T) {
	l := openLibrary(t, Config{})
	s := addTo(t, l, makeFiles(t, filepath.Join(t.TempDir(), "d"), "a"), AddOptions{})
	if got, want := l.Link(s).String(), fmt.Sprintf("p2pshare:%s?name=d&kind=dir", s.ID); got != want {
		t.Errorf("Link = %s, want %s", got, want)
	}
}

func TestScopeAllows(t *testing.T) {
	ann, bob := keyID(t, testKey(t, 7)), keyID(t, testKey(t, 8))
	type call struct {
		p   peer.ID
		via node.Via
	}
	all := []call{{ann, node.ViaLAN}, {ann, node.ViaDirect}, {ann, node.ViaRelay}, {bob, node.ViaLAN}, {bob, node.ViaDirect}, {bob, node.ViaRelay}}
	for _, tt := range []struct {
		scope Scope
		want  []call
	}{
		{Scope{}, all},
		{Scope{Unlisted: true}, all},
		{Scope{LANOnly: true}, []call{{ann, node.ViaLAN}, {bob, node.ViaLAN}}},
		{Scope{To: ann}, []call{{ann, node.ViaLAN}, {ann, node.ViaDirect}, {ann, node.ViaRelay}}},
		{Scope{To: ann, LANOnly: true, Unlisted: true}, []call{{ann, node.ViaLAN}}},
	} {
		var got []call
		for _, c := range all {
			if tt.scope.allows(c.p, c.via) {
				got = append(got, c)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%+v allows %v, want %v", tt.scope, got, tt.want)
		}
	}
}

func TestShareToOnePeerIsServedToThatPeerOnly(t *testing.T) {
	net := startNetwork(t, 3)
	sharer, friend, stranger := net[1], net[2], net[3]
	data := []byte("for a friend's eyes")
	s := sharer.add(t, sharer.write(t, "letter.txt", data), AddOptions{Scope: Scope{To: friend.ID()}})
	for _, what := range []string{"letter.txt", s.ID.String(), sharer.lib.Link(s).String()} {
		friend.dir = t.TempDir()
		if _, err := friend.get(t, what, GetOptions{NoServe: true}); err != nil {
			t.Errorf("the friend's Get(%s): %v", what, err)
		} else {
			mustBe(t, filepath.Join(friend.dir, "letter.txt"), data)
		}
		if got, err := stranger.get(t, what, GetOptions{}); err == nil {
			t.Errorf("the stranger's Get(%s) = %+v", what, got)
		} else if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrAmbiguous) {
			t.Errorf("the stranger's Get(%s) = %v, want that it is not found or refused", what, err)
		}
	}
	if left, err := os.ReadDir(stranger.dir); err != nil && !errors.Is(err, fs.ErrNotExist) || len(left) != 0 {
		t.Errorf("the stranger has %v", left)
	}
}

func TestLANOnlyShareIsGotOnTheLAN(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	data := []byte("for this house")
	sharer.add(t, sharer.write(t, "plan.txt", data), AddOptions{Scope: Scope{LANOnly: true}})
	if _, err := getter.get(t, "plan.txt", GetOptions{NoServe: true}); err != nil {
		t.Fatal(err)
	}
	mustBe(t, filepath.Join(getter.dir, "plan.txt"), data)
}
