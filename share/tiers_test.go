package share

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/node/nodetest"
	"github.com/p2pshare/p2pshare/share/content"
)

// rivals are two publishers of different contents under one name, and who asks.
type rivals struct {
	ann, eve     *testPeer
	byAnn, byEve Share
	getter       *testPeer
	peers        []peer.AddrInfo // to be asked, where there is no other way
	stopAnn      func()
	port         int // of their local network
	notes        []string
	groups       []Indexed
	groupErr     error
}

// startRivals has them on the DHT, on a local network, or known by address.
func startRivals(t *testing.T, where string) *rivals {
	t.Helper()
	r := &rivals{}
	var c node.Config
	switch where {
	case "dht":
		helper, _ := startPeer(t, node.Config{Role: node.RoleHelper})
		c.Bootstrap = []peer.AddrInfo{helper.AddrInfo()}
	case "lan":
		r.port = lanPort(t)
		c.NoDHT, c.LANPort = true, r.port
	default:
		c.NoDHT = true
	}
	r.ann, r.stopAnn = startPeer(t, c)
	r.eve, _ = startPeer(t, c)
	r.getter, _ = startPeer(t, c)
	if where == "dht" {
		for _, p := range []*testPeer{r.ann, r.eve, r.getter} {
			if !p.WaitDHT(t.Context()) {
				t.Fatal("a peer did not enter the DHT")
			}
		}
	}
	r.byAnn = r.ann.add(t, r.ann.write(t, "report.pdf", []byte("ann's")), AddOptions{})
	r.byEve = r.eve.add(t, r.eve.write(t, "report.pdf", []byte("eve's")), AddOptions{})
	if where == "lan" {
		r.getter.waitNeighbors(t, 2)
	}
	if where == "address" {
		r.peers = []peer.AddrInfo{r.ann.AddrInfo(), r.eve.AddrInfo()}
	}
	r.getter.lib.SetIndex(func(_ context.Context, _ string, name Name) ([]Indexed, error) {
		if r.groupErr == nil && name.Lookup() != "report.pdf" {
			return nil, ErrNotFound
		}
		return r.groups, r.groupErr
	}, func() bool { return len(r.groups) > 0 || r.groupErr != nil })
	return r
}

// waitNeighbors waits until p knows count neighbors.
func (p *testPeer) waitNeighbors(t *testing.T, count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for all := range p.WatchNeighbors(ctx) {
		if len(all) >= count {
			return
		}
	}
	t.Fatalf("there are not %d neighbors after 20 s", count)
}

func (r *rivals) get(t *testing.T, what string, o GetOptions) (content.ID, error) {
	t.Helper()
	r.notes = nil
	o.Dir, o.NoServe, o.Peers = t.TempDir(), true, r.peers
	o.Note = func(s string) { r.notes = append(r.notes, s) }
	got, err := r.getter.get(t, what, o)
	return got.ID, err
}

// mustGet checks which content a get brings.
func (r *rivals) mustGet(t *testing.T, what string, o GetOptions, want Share) {
	t.Helper()
	if id, err := r.get(t, what, o); err != nil || id != want.ID {
		t.Errorf("Get(%s) = %s, %v, want %s", what, id.Short(), err, want.ID.Short())
	}
}

// mustFail checks with which error a get ends.
func (r *rivals) mustFail(t *testing.T, what string, o GetOptions, want error) {
	t.Helper()
	if id, err := r.get(t, what, o); !errors.Is(err, want) {
		t.Errorf("Get(%s) = %s, %v, want %v", what, id.Short(), err, want)
	}
}

func (r *rivals) noted(part string) bool { return strings.Contains(strings.Join(r.notes, "\n"), part) }

func TestRivalsAreNeverPickedSilently(t *testing.T) {
	for _, where := range []string{"dht", "lan", "address"} {
		t.Run(where, func(t *testing.T) {
			r := startRivals(t, where)
			lib := r.getter.lib
			// Nobody is trusted.
			r.mustFail(t, "report.pdf", GetOptions{}, ErrAmbiguous)
			r.mustFail(t, "REPORT.pdf", GetOptions{Any: true}, ErrAmbiguous)
			r.mustFail(t, "report.pdf", GetOptions{Strict: true}, ErrAmbiguous)
			for e, err := range lib.Entries(t.Context(), What{Name: "report.pdf"}, FindOptions{Peers: r.peers}) {
				if !errors.Is(err, ErrAmbiguous) {
					t.Errorf("Entries has %+v, %v, want ErrAmbiguous", e, err)
				}
			}
			if m, err := lib.Look(t.Context(), What{Name: "report.pdf"}, OpenOptions{Peers: r.peers}); !errors.Is(err, ErrAmbiguous) {
				t.Errorf("Look = %+v, %v, want ErrAmbiguous", m, err)
			}
			if found, err := lib.Find(t.Context(), What{Name: "report.pdf"}, FindOptions{Peers: r.peers}); err != nil || len(found) != 2 {
				t.Errorf("Find = %v, %v, want both", found, err)
			}
			r.mustGet(t, r.ann.ID().String()+"/report.pdf", GetOptions{}, r.byAnn)
			r.mustGet(t, r.eve.ID().String()+"/report.pdf", GetOptions{Strict: true}, r.byEve)
			r.mustFail(t, "report.pdf", GetOptions{}, ErrAmbiguous) // neither was a choice for the bare name
			r.mustFail(t, "report.pdf#"+r.byEve.ID.Hex()[:8], GetOptions{Strict: true}, ErrRefused)
			r.mustFail(t, "report.pdf#00000000", GetOptions{}, ErrNotFound)
			r.mustFail(t, "ann/report.pdf", GetOptions{}, ErrBadWhat)

			// One is.
			if _, err := lib.TrustPeer(r.ann.ID(), "ann"); err != nil {
				t.Fatal(err)
			}
			r.mustGet(t, "ann/report.pdf", GetOptions{}, r.byAnn)
			r.mustGet(t, "Report.pdf", GetOptions{Strict: true}, r.byAnn)
			if !r.noted("says otherwise: report.pdf#" + r.byEve.ID.Short()) {
				t.Errorf("notes %q do not show who says otherwise", r.notes)
			}
			// A choice is remembered, and outlasts the petname.
			if err := lib.Untrust(r.ann.ID()); err != nil {
				t.Fatal(err)
			}
			r.mustGet(t, "report.pdf", GetOptions{}, r.byAnn)
			r.mustGet(t, "report.pdf#"+r.byEve.ID.Hex()[:32], GetOptions{Strict: true}, r.byEve)
			r.mustGet(t, "report.pdf", GetOptions{From: r.eve.ID()}, r.byEve)
			if !r.noted("stays what was chosen") {
				t.Errorf("notes %q do not tell that the choice stays", r.notes)
			}
			r.mustGet(t, "report.pdf", GetOptions{}, r.byAnn)

			// A choice of a stranger's is one of a stranger's.
			if err := lib.Forget("report.pdf"); err != nil {
				t.Fatal(err)
			}
			r.mustGet(t, "report.pdf", GetOptions{Pick: r.byEve.ID}, r.byEve)
			r.mustGet(t, "report.pdf", GetOptions{}, r.byEve)
			if !r.noted("unverified name") {
				t.Errorf("notes %q do not say that the name is unverified", r.notes)
			}
			r.mustFail(t, "report.pdf", GetOptions{Strict: true}, ErrRefused)
			if _, err := lib.TrustPeer(r.ann.ID(), "ann"); err != nil {
				t.Fatal(err)
			}
			r.mustFail(t, "report.pdf", GetOptions{}, ErrChanged)
			r.groups = []Indexed{{Group: "office", Name: "report.pdf", ID: r.byEve.ID, Kind: KindFile, Size: r.byEve.Size, Holders: []peer.AddrInfo{r.eve.AddrInfo()}}}
			r.mustGet(t, "report.pdf", GetOptions{}, r.byEve) // the group outranks ann, and agrees
			r.groups[0].ID, r.groups[0].Holders = r.byAnn.ID, []peer.AddrInfo{r.ann.AddrInfo()}
			r.mustFail(t, "report.pdf", GetOptions{}, ErrChanged)
			r.mustGet(t, "@office/report.pdf", GetOptions{Strict: true}, r.byAnn)
			r.mustFail(t, "@office/other.pdf", GetOptions{Any: true}, ErrNotFound)
			r.mustGet(t, "report.pdf", GetOptions{AcceptChange: true}, r.byAnn)
			r.groups, r.groupErr = nil, errors.New("no quorum")
			r.mustFail(t, "report.pdf", GetOptions{}, r.groupErr) // the choice is gone
			r.groupErr = nil
			r.mustGet(t, "report.pdf", GetOptions{}, r.byAnn)
			if trust, err := lib.Trust(); err != nil || len(trust.Choices) != 1 || trust.Choices[0].Publisher != r.ann.ID() {
				t.Errorf("the book says %+v, %v, want ann chosen", trust.Choices, err)
			}
		})
	}
}

func TestATrustedPublisherThatCantBeAskedIsNotReplacedByStrangers(t *testing.T) {
	r := startRivals(t, "dht")
	lib := r.getter.lib
	gone := newPublisher(t)
	if _, err := lib.TrustPeer(gone.id, "gone"); err != nil {
		t.Fatal(err)
	}
	r.mustFail(t, "report.pdf", GetOptions{}, ErrMustKnow)
	r.mustFail(t, "report.pdf", GetOptions{}, ErrUnreachable)
	r.mustFail(t, "gone/report.pdf", GetOptions{}, ErrUnreachable)
	r.mustFail(t, "report.pdf", GetOptions{Any: true}, ErrAmbiguous)
	r.mustGet(t, "report.pdf", GetOptions{From: r.eve.ID()}, r.byEve)
	// Another that is trusted and answers is enough, and what is not known is told.
	if err := lib.Forget("report.pdf"); err != nil {
		t.Fatal(err)
	}
	if _, err := lib.TrustPeer(r.ann.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	r.mustGet(t, "report.pdf", GetOptions{}, r.byAnn)
	if !r.noted("gone can't be asked whether it means the same") {
		t.Errorf("notes %q do not tell of who can't be asked", r.notes)
	}
	// Two that are trusted and differ.
	if err := errors.Join(lib.Forget("report.pdf"), lib.Untrust(gone.id)); err != nil {
		t.Fatal(err)
	}
	if _, err := lib.TrustPeer(r.eve.ID(), "eve"); err != nil {
		t.Fatal(err)
	}
	r.mustFail(t, "report.pdf", GetOptions{}, ErrAmbiguous)
	// What is held of one that is away counts: here its record in the DHT.
	if err := lib.Untrust(r.eve.ID()); err != nil {
		t.Fatal(err)
	}
	r.eve.add(t, r.eve.write(t, "a copy.bin", []byte("ann's")), AddOptions{})
	r.stopAnn()
	r.mustGet(t, "report.pdf", GetOptions{}, r.byAnn)
}

func TestAGroupThatCantBeAskedIsNotReplacedByStrangers(t *testing.T) {
	r := startRivals(t, "address")
	r.groupErr = errors.New("no quorum")
	r.mustFail(t, "report.pdf", GetOptions{}, r.groupErr)
	r.mustFail(t, "report.pdf", GetOptions{Any: true}, ErrAmbiguous)
	r.mustGet(t, "report.pdf", GetOptions{From: r.ann.ID()}, r.byAnn)
	r.mustGet(t, "report.pdf", GetOptions{}, r.byAnn) // that was a choice
	if !r.noted("a group can't be asked whether it means the same") {
		t.Errorf("notes %q do not tell of the group", r.notes)
	}
}

func TestBlockedPeersAndContentsAreNotDealtWith(t *testing.T) {
	r := startRivals(t, "dht")
	lib := r.getter.lib
	if err := lib.Block(r.eve.ID(), zeroID); err != nil {
		t.Fatal(err)
	}
	r.mustGet(t, "report.pdf", GetOptions{}, r.byAnn)
	r.mustFail(t, r.eve.ID().String()+"/report.pdf", GetOptions{}, ErrRefused)
	r.mustFail(t, r.eve.lib.Link(r.byEve).String(), GetOptions{}, ErrNotFound) // its only source is not dialled
	if err := errors.Join(lib.Unblock(r.eve.ID(), zeroID), lib.Block("", r.byAnn.ID)); err != nil {
		t.Fatal(err)
	}
	r.mustFail(t, r.byAnn.ID.String(), GetOptions{}, ErrRefused)
	r.mustGet(t, "report.pdf", GetOptions{}, r.byEve)
	if err := lib.Unblock("", r.byEve.ID); !errors.Is(err, ErrNotInBook) {
		t.Errorf("Unblock of what is not blocked = %v, want ErrNotInBook", err)
	}
	if err := lib.Block(r.getter.ID(), zeroID); !errors.Is(err, ErrRefused) {
		t.Errorf("Block of itself = %v, want ErrRefused", err)
	}
	// Nor is a peer served that is blocked.
	if err := r.ann.lib.Block(r.getter.ID(), zeroID); err != nil {
		t.Fatal(err)
	}
	if err := lib.Unblock("", r.byAnn.ID); err != nil {
		t.Fatal(err)
	}
	if id, err := r.get(t, r.ann.lib.Link(r.byAnn).String(), GetOptions{}); err == nil {
		t.Errorf("a peer that is blocked gets %s", id)
	}
}

// TestAFloodedNameIsAskedOfSome has more providers of one name than are asked, each
// with a content of its own; on a fake clock.
func TestAFloodedNameIsAskedOfSome(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs ninety nodes")
	}
	const flooders = askedMax + 20
	dirs := make([]string, 3)
	for i := range dirs {
		dirs[i] = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		nodes := nodetest.New(t, flooders+3)
		ann, getter, rest := nodes[1], nodes[2], nodes[3:]
		asked := 0
		for i, n := range rest {
			p := newPublisher(t)
			line := manifestLine(p.sign(t, p.manifest("report.pdf", content.Root([]byte{byte(i), byte(i >> 8)}), 10)))
			n.Handle(metaProtocol, node.HandlerConfig{}, answerMeta(append(line, endLine...)))
		}
		var libs []*Library
		for i, n := range []*node.Node{ann, getter} {
			l, err := Open(n, Config{Dir: dirs[i]})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			libs = append(libs, l)
		}
		var groups []Indexed
		libs[1].SetIndex(func(context.Context, string, Name) ([]Indexed, error) { return groups, nil }, func() bool { return groups != nil })
		stop := nodetest.Run(t, nodes, libs[0].Run, libs[1].Run)
		defer stop()
		annTest := &testPeer{ann, libs[0], dirs[2], new(sync.Mutex)}
		byAnn := annTest.add(t, annTest.write(t, "report.pdf", []byte("ann's")), AddOptions{})
		for _, n := range rest {
			if _, err := n.Provide(t.Context(), Name("report.pdf").Key(), node.ReachAll); err != nil {
				t.Fatal(err)
			}
		}
		get := func(what string, o GetOptions) (content.ID, error) {
			begun := time.Now()
			o.Dir, o.NoServe = t.TempDir(), true
			o.Tried = func(e Tried) {
				if e.Source == "peer" && e.Found == foundDHT {
					asked++
				}
			}
			w, err := ParseWhat(what)
			if err != nil {
				t.Fatal(err)
			}
			asked = 0
			got, err := libs[1].Get(t.Context(), w, o)
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("Get(%s) takes %s, want at most 10 s", what, took)
			}
			if asked > 2*askedMax {
				t.Errorf("Get(%s) asks %d peers", what, asked)
			}
			return got.ID, err
		}
		_, err := get("report.pdf", GetOptions{})
		var two *AmbiguousError
		if !errors.As(err, &two) || !two.Partial || !strings.Contains(err.Error(), "partial") {
			t.Errorf("Get of a flooded name = %v, want it ambiguous, and partial", err)
		}
		groups = []Indexed{{Group: "office", Name: "report.pdf", ID: byAnn.ID, Kind: KindFile, Size: byAnn.Size}}
		for _, what := range []string{"@office/report.pdf", "report.pdf"} {
			if id, err := get(what, GetOptions{}); err != nil || id != byAnn.ID {
				t.Errorf("Get(%s), which a group knows, = %s, %v, want %s", what, id, err, byAnn.ID)
			}
		}
		groups = nil
		if id, err := get(ann.ID().String()+"/report.pdf", GetOptions{}); err != nil || id != byAnn.ID {
			t.Errorf("Get of the publisher's = %s, %v, want %s", id, err, byAnn.ID)
		}
		if id, err := get("report.pdf", GetOptions{From: ann.ID()}); err != nil || id != byAnn.ID {
			t.Errorf("Get from the publisher = %s, %v, want %s", id, err, byAnn.ID)
		}
		if id, err := get("report.pdf", GetOptions{}); err != nil || id != byAnn.ID { // as chosen
			t.Errorf("Get of what was chosen = %s, %v, want %s", id, err, byAnn.ID)
		}
	})
}

func TestOneNetworkCountsOnce(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.254/udp/4/quic-v1", true},
		{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.3.1/tcp/1", false},
		{"/ip6/2001:db8:1::1/tcp/1", "/ip6/2001:db8:1:ffff::1/tcp/1", true},
		{"/ip6/2001:db8:1::1/tcp/1", "/ip6/2001:db8:2::1/tcp/1", false},
		{"/ip6/::ffff:192.0.2.1/tcp/1", "/ip4/192.0.2.9/tcp/1", true},
	} {
		if same := networkOf(ma.StringCast(test.a)) == networkOf(ma.StringCast(test.b)); same != test.same {
			t.Errorf("%s and %s are one network: %t, want %t", test.a, test.b, same, test.same)
		}
	}
	if networkOf(nil) != (netip.Prefix{}) {
		t.Error("no address is in a network")
	}
	var k Candidate
	for i := range 1000 {
		p := peer.ID(fmt.Sprint(i))
		c := claim{holders: []peer.AddrInfo{{ID: p}}, networks: []netip.Prefix{networkOf(ma.StringCast(fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i%256)))}}
		k.take(p, c)
		k.holdersOf(c)
	}
	k.Networks = len(k.networks)
	if k.Networks != 1 || len(k.Publishers) != 1000 || claimants(k) != "1000 publishers in 1 network" {
		t.Errorf("a thousand publishers of one network count as %d (%s)", k.Networks, claimants(k))
	}
}

func TestExplainTellsEverySource(t *testing.T) {
	r := startRivals(t, "dht")
	var tried []Tried
	o := GetOptions{Tried: func(e Tried) { tried = append(tried, e) }, From: r.ann.ID()}
	r.mustGet(t, "report.pdf", o, r.byAnn)
	find := func(what string, match func(Tried) bool) {
		t.Helper()
		for _, e := range tried {
			if match(e) {
				return
			}
		}
		t.Errorf("--explain does not tell of %s: %+v", what, tried)
	}
	find("the DHT, with a count", func(e Tried) bool { return e.Source == "DHT" && e.Count > 0 })
	find("the publisher, with its bytes", func(e Tried) bool {
		return e.Peer == r.ann.ID() && e.Bytes == 5 && e.Addr != "" && e.Via != "" && !e.Issued.IsZero() && e.Error == ""
	})
	r.stopAnn()
	tried = nil
	if err := r.getter.lib.Block(r.eve.ID(), zeroID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.get(t, r.byAnn.ID.String(), o); err == nil {
		t.Fatal("a content that nobody has was got")
	}
	find("the publisher that is gone, with an error", func(e Tried) bool { return e.Peer == r.ann.ID() && e.Error != "" })
}
