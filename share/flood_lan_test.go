package share

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// Neighbors that claim thousands of contents under one name.

// floodOf answers a question for a name with as many manifests as fit, each of
// another publisher and another content; who asks for data of one waits in vain.
func floodOf(t *testing.T, name Name, seed string) handlers {
	t.Helper()
	var answer []byte
	for i := range metaManifestsMax {
		p := newPublisher(t)
		answer = append(answer, manifestLine(p.sign(t, p.manifest(name, content.Root(fmt.Append(nil, seed, i)), 10)))...)
	}
	return handlers{metaProtocol: answerMeta(append(answer, endLine...)), dataProtocol: hang}
}

func TestAFloodOfTheLocalNetworkDecidesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs sixty nodes")
	}
	const flooders = 60 // as many as one address may have in the table of neighbors
	r := startRivals(t, "lan")
	lib := r.getter.lib
	timed := func(what string, o GetOptions) (content.ID, error) {
		t.Helper()
		begun := time.Now()
		id, err := r.get(t, what, o)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("Get(%s) takes %s in a flood, want at most 10 s", what, took)
		}
		return id, err
	}
	must := func(what string, o GetOptions, want Share) {
		t.Helper()
		if id, err := timed(what, o); err != nil || id != want.ID {
			t.Errorf("Get(%s) in a flood = %s, %v, want %s", what, id.Short(), err, want.ID.Short())
		}
	}
	// A choice is made before the other publisher has its friends come.
	r.mustGet(t, "report.pdf", GetOptions{Pick: r.byAnn.ID}, r.byAnn)
	for i := range flooders {
		startLANLiar(t, r.port, floodOf(t, "report.pdf", fmt.Sprintf("flooder %d ", i)))
	}
	r.getter.waitNeighbors(t, flooders)
	must("report.pdf", GetOptions{}, r.byAnn)
	must(r.ann.ID().String()+"/report.pdf", GetOptions{Strict: true}, r.byAnn)
	must("report.pdf", GetOptions{From: r.ann.ID()}, r.byAnn)

	if err := lib.Forget("report.pdf"); err != nil {
		t.Fatal(err)
	}
	for _, o := range []GetOptions{{}, {Any: true}, {Strict: true}} {
		_, err := timed("Report.pdf", o)
		var many *AmbiguousError
		if !errors.As(err, &many) || !many.Partial {
			t.Fatalf("Get in a flood = %v, want it ambiguous, and partial", err)
		}
		if n := len(many.Candidates); n > 2+flooders*claimsMax {
			t.Errorf("%d candidates are kept of %d that are claimed", n, flooders*metaManifestsMax)
		}
	}
	// Whether ann is among those that are asked is up to the flood, but it is hers or nobody's.
	if id, err := timed("report.pdf#"+r.byAnn.ID.Hex()[:16], GetOptions{}); id != r.byAnn.ID && !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of ann's prefix in a flood = %s, %v, want hers or ErrNotFound", id.Short(), err)
	} else if err == nil {
		if err := lib.Forget("report.pdf"); err != nil {
			t.Fatal(err)
		}
	}
	r.groups = []Indexed{{Group: "office", Name: "report.pdf", ID: r.byAnn.ID, Kind: KindFile, Size: r.byAnn.Size, Holders: []peer.AddrInfo{r.ann.AddrInfo()}}}
	must("@office/report.pdf", GetOptions{Strict: true}, r.byAnn)
	must("report.pdf", GetOptions{}, r.byAnn)
	r.groups = nil
	if _, err := lib.TrustPeer(r.ann.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	must("ann/report.pdf", GetOptions{Strict: true}, r.byAnn)
	must("report.pdf", GetOptions{Strict: true}, r.byAnn)
}

// TestOneNeighborIsOneVoiceAmongMany has one neighbor claim as many contents as an
// answer holds, of as many publishers.
func TestOneNeighborIsOneVoiceAmongMany(t *testing.T) {
	r := startRivals(t, "lan")
	startLANLiar(t, r.port, floodOf(t, "report.pdf", "one"))
	r.getter.waitNeighbors(t, 3)
	f, err := r.getter.lib.find(t.Context(), What{Name: "report.pdf"}, FindOptions{}, newMeter(nil, PhaseLocal))
	defer f.end()
	if err != nil || !f.partial || len(f.candidates) > 2+claimsMax {
		t.Errorf("find = %d candidates, partial %t, %v, want at most %d of %d, and that they are not all",
			len(f.candidates), f.partial, err, 2+claimsMax, 2+metaManifestsMax)
	}
	for _, want := range []Share{r.byAnn, r.byEve} {
		if !slices.ContainsFunc(f.candidates, func(c Candidate) bool { return c.ID == want.ID }) {
			t.Errorf("%s is not among the candidates", want.ID.Short())
		}
	}
	r.mustFail(t, "report.pdf", GetOptions{}, ErrAmbiguous)
}

// TestWhatIsAskedForIsKeptOfALongAnswer has a neighbor that tells of the wanted
// content, and of the wanted publisher, last.
func TestWhatIsAskedForIsKeptOfALongAnswer(t *testing.T) {
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	var answer []byte
	last := newPublisher(t)
	id := content.Root([]byte("the last"))
	for i := range metaManifestsMax - 1 {
		p := newPublisher(t)
		answer = append(answer, manifestLine(p.sign(t, p.manifest("x", content.Root([]byte{byte(i)}), 10)))...)
	}
	answer = append(answer, manifestLine(last.sign(t, last.manifest("x", id, 10)))...)
	teller := startRaw(t, nil, handlers{metaProtocol: answerMeta(append(answer, endLine...))})
	for name, w := range map[string]What{
		"prefix":    {Name: "x", Prefix: id.Hex()[:8]},
		"publisher": {Name: "x", Publisher: last.id},
	} {
		found, err := getter.lib.Find(t.Context(), w, FindOptions{Peers: []peer.AddrInfo{teller.AddrInfo()}})
		if err != nil || len(found) != 1 || found[0].ID != id {
			t.Errorf("by %s: Find = %v, %v, want the one that was told last", name, found, err)
		}
	}
	if _, err := getter.lib.TrustPeer(last.id, "last"); err != nil {
		t.Fatal(err)
	}
	found, err := getter.lib.Find(t.Context(), What{Name: "x"}, FindOptions{Peers: []peer.AddrInfo{teller.AddrInfo()}})
	if err != nil || len(found) != 1 || found[0].ID != id || found[0].Tier != tierFriends {
		t.Errorf("with a petname: Find = %v, %v, want the one of the publisher that has it", found, err)
	}
}

// TestAPublisherThatForgotIsNotReplacedByStrangers has one with a petname offer an
// older version than was got from it, as after its home was restored.
func TestAPublisherThatForgotIsNotReplacedByStrangers(t *testing.T) {
	r := startRivals(t, "address")
	lib := r.getter.lib
	newer := r.eve.add(t, r.eve.write(t, "a copy.bin", []byte("ann's, and newer")), AddOptions{})
	r.peers[1] = r.eve.AddrInfo()
	v := version{ID: newer.ID, Kind: KindFile, Size: newer.Size, Seq: time.Now().Add(time.Hour).UnixMilli(), At: now()}
	if err := lib.catalog.keepVersion(r.ann.ID(), "report.pdf", v); err != nil {
		t.Fatal(err)
	}
	if _, err := lib.TrustPeer(r.ann.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	found, err := lib.Find(t.Context(), What{Name: "report.pdf"}, FindOptions{Peers: r.peers})
	if err != nil || len(found) != 1 || found[0].ID != newer.ID {
		t.Errorf("Find = %v, %v, want what was got from ann before", found, err)
	}
	if id, err := r.get(t, "report.pdf", GetOptions{}); err == nil && id != newer.ID {
		t.Errorf("Get = %s, want %s or an error", id.Short(), newer.ID.Short())
	}
	if !r.noted("ann offers an older version") {
		t.Errorf("notes %q do not tell that ann offers an older version", r.notes)
	}
}

// TestAStrangersChoiceIsCheckedAgainstWhatIsHeld has a publisher with a petname be
// away whose word was got before, and differs from a stranger's that was chosen.
func TestAStrangersChoiceIsCheckedAgainstWhatIsHeld(t *testing.T) {
	r := startRivals(t, "address")
	lib := r.getter.lib
	r.mustGet(t, r.ann.ID().String()+"/report.pdf", GetOptions{}, r.byAnn)
	r.mustGet(t, "report.pdf", GetOptions{Pick: r.byEve.ID}, r.byEve)
	r.stopAnn()
	gone := newPublisher(t)
	if _, err := lib.TrustPeer(gone.id, "gone"); err != nil {
		t.Fatal(err)
	}
	r.mustGet(t, "report.pdf", GetOptions{}, r.byEve)
	if !r.noted("gone can't be asked whether it means the same") {
		t.Errorf("notes %q do not tell of who can't be asked", r.notes)
	}
	if _, err := lib.TrustPeer(r.ann.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	r.mustFail(t, "report.pdf", GetOptions{}, ErrChanged)
}

// TestFromDoesNotContradictWhat has a form of WHAT say whose word is meant, and
// From another's.
func TestFromDoesNotContradictWhat(t *testing.T) {
	r := startRivals(t, "address")
	r.groups = []Indexed{{Group: "office", Name: "report.pdf", ID: r.byAnn.ID, Kind: KindFile, Size: r.byAnn.Size, Holders: []peer.AddrInfo{r.ann.AddrInfo()}}}
	r.mustFail(t, "@office/report.pdf", GetOptions{From: r.eve.ID()}, ErrBadWhat)
	r.mustFail(t, r.ann.ID().String()+"/report.pdf", GetOptions{From: r.eve.ID()}, ErrBadWhat)
	r.mustGet(t, r.ann.ID().String()+"/report.pdf", GetOptions{From: r.ann.ID()}, r.byAnn)
}

// TestWhoDoesNotAnswerInTimeIsTold has neighbors that claim the name and say nothing
// take the places in which others are asked, so that one content is left.
func TestWhoDoesNotAnswerInTimeIsTold(t *testing.T) {
	r := startRivals(t, "lan")
	startLANLiars(t, 3, r.port, handlers{metaProtocol: hang})
	r.getter.waitNeighbors(t, 5)
	if err := r.getter.lib.Block(r.eve.ID(), zeroID); err != nil {
		t.Fatal(err)
	}
	r.mustGet(t, "report.pdf", GetOptions{}, r.byAnn)
	if !r.noted("3 more claim to have this name, and did not answer in time") {
		t.Errorf("notes %q do not tell of those that say nothing", r.notes)
	}
	if err := r.getter.lib.Block(r.ann.ID(), zeroID); err != nil {
		t.Fatal(err)
	}
	if err := r.getter.lib.Unblock(r.eve.ID(), zeroID); err != nil {
		t.Fatal(err)
	}
	r.mustGet(t, "report.pdf", GetOptions{}, r.byEve)
	if !r.noted("is blocked, and does not count") {
		t.Errorf("notes %q do not tell that the choice is blocked", r.notes)
	}
}

// TestAFloodIsNotRememberedInThePlaceOfOthers keeps when a content was first seen from
// being pushed out.
func TestAFloodIsNotRememberedInThePlaceOfOthers(t *testing.T) {
	r := startRivals(t, "lan")
	r.mustFail(t, "report.pdf", GetOptions{}, ErrAmbiguous)
	for i := range 5 {
		startLANLiar(t, r.port, floodOf(t, "report.pdf", fmt.Sprint(i)))
	}
	r.getter.waitNeighbors(t, 7)
	r.mustFail(t, "report.pdf", GetOptions{}, ErrAmbiguous)
	if n := bucketSizes(t, r.getter.lib.catalog)[string(bucketSightings)]; n > 2+seenMax {
		t.Errorf("%d contents are remembered, want %d at most", n, 2+seenMax)
	}
}

// TestWhatIsHiddenInANameIsNotSaved has a publisher spell a name with what is not seen.
func TestWhatIsHiddenInANameIsNotSaved(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	peers := []peer.AddrInfo{sharer.AddrInfo()}
	for spelled, want := range map[string]string{
		"Report.pdf": "Report.pdf", "repo\u200drt.pdf": "report.pdf", "report.pdf\u3164": "report.pdf", "ｒeport.pdf": "ｒeport.pdf",
	} {
		s := sharer.add(t, sharer.write(t, "f", []byte(spelled)), AddOptions{Name: spelled})
		getter.dir = t.TempDir()
		got, err := getter.get(t, "report.pdf", GetOptions{NoServe: true, Peers: peers})
		if err != nil || filepath.Base(got.Path) != want {
			t.Errorf("Get of what is spelled %q saves %q, %v, want %q", spelled, got.Path, err, want)
		}
		// Whoever types it so gets it so.
		getter.dir = t.TempDir()
		got, err = getter.get(t, spelled, GetOptions{NoServe: true, Peers: peers})
		if err != nil || filepath.Base(got.Path) != string(s.Name) {
			t.Errorf("Get(%q) saves %q, %v", spelled, got.Path, err)
		}
	}
}

// TestAFloodOfTheDHTHidesNoNeighbor has more providers of a name in the DHT than are
// asked, and the honest one on the local network only.
func TestAFloodOfTheDHTHidesNoNeighbor(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs seventy nodes")
	}
	helper, _ := startPeer(t, node.Config{Role: node.RoleHelper})
	boot := []peer.AddrInfo{helper.AddrInfo()}
	port := lanPort(t)
	for i := range askedMax + 2 {
		p := newPublisher(t)
		line := manifestLine(p.sign(t, p.manifest("report.pdf", content.Root([]byte{byte(i)}), 10)))
		n := startRaw(t, boot, handlers{metaProtocol: answerMeta(append(line, endLine...)), dataProtocol: hang})
		if sent, err := n.Provide(t.Context(), Name("report.pdf").Key(), node.ReachAll); sent == 0 || err != nil {
			t.Fatalf("Provide = %d, %v", sent, err)
		}
	}
	ann, byAnn := neighbor(t, port, "report.pdf", []byte("ann's"), AddOptions{})
	getter, _ := startPeer(t, node.Config{LANPort: port, Bootstrap: boot})
	if !getter.WaitDHT(t.Context()) {
		t.Fatal("the getter did not enter the DHT")
	}
	getter.waitNeighbors(t, 1)
	f, err := getter.lib.find(t.Context(), What{Name: "report.pdf"}, FindOptions{}, newMeter(nil, PhaseLocal))
	defer f.end()
	if err != nil || !f.partial || len(f.candidates) > askedMax+1 {
		t.Errorf("find = %d candidates, partial %t, %v, want at most %d, and that they are not all", len(f.candidates), f.partial, err, askedMax+1)
	}
	if !slices.ContainsFunc(f.candidates, func(c Candidate) bool { return c.ID == byAnn.ID }) {
		t.Error("what the neighbor has is not among the candidates")
	}
	got, err := getter.get(t, ann.ID().String()+"/report.pdf", GetOptions{NoServe: true})
	if err != nil || got.ID != byAnn.ID {
		t.Errorf("Get of the neighbor's name = %s, %v, want %s", got.ID, err, byAnn.ID)
	}
}

func TestNeighborsThatHangKeepNobodyFromBeingAsked(t *testing.T) {
	r := startRivals(t, "lan")
	startLANLiars(t, 40, r.port, handlers{metaProtocol: hang})
	r.getter.waitNeighbors(t, 42)
	begun := time.Now()
	found, err := r.getter.lib.Find(t.Context(), What{Name: "report.pdf"}, FindOptions{})
	if took := time.Since(begun); err != nil || len(found) == 0 || took > 3*time.Second {
		t.Errorf("Find = %v, %v after %s, want what those have that answer, at once", found, err, took)
	}
}
