package share

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// Peers that lie about names.

// answerMeta answers every request of a meta stream with the same bytes.
func answerMeta(answer []byte) func(context.Context, network.Stream) error {
	return func(_ context.Context, s network.Stream) error {
		in := newLineReader(s)
		for {
			if _, err := readLine(in); err != nil {
				return err
			}
			if _, err := s.Write(answer); err != nil {
				return err
			}
		}
	}
}

const endLine = `{"end":true}` + "\n"

func manifestLine(envelope []byte) []byte {
	return slices.Concat([]byte(`{"manifest":`), envelope, []byte("}\n"))
}

// publisher is an identity that signs whatever it is told to.
type publisher struct {
	key crypto.PrivKey
	id  peer.ID
}

func newPublisher(t *testing.T) publisher {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return publisher{key, id}
}

// manifest is a good manifest of a file.
func (p publisher) manifest(name Name, id content.ID, size int64) Manifest {
	return newManifest(Share{Name: name, ID: id, Kind: KindFile, Size: size}, p.id, 0, time.Now())
}

// sign returns m in its envelope, encoded.
func (p publisher) sign(t *testing.T, m Manifest) []byte {
	t.Helper()
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return p.signRaw(t, body)
}

// signRaw signs bytes that Seal would refuse.
func (p publisher) signRaw(t *testing.T, body []byte) []byte {
	t.Helper()
	signature, err := p.key.Sign(slices.Concat([]byte("p2pshare/envelope/1\x00manifest\x00"), body))
	if err != nil {
		t.Fatal(err)
	}
	e, err := json.Marshal(map[string]string{
		"sender": p.id.String(), "content": base64.StdEncoding.EncodeToString(body), "signature": base64.StdEncoding.EncodeToString(signature),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// manifestLies make an answer to a request for name. id is that of a content
// nobody has.
var manifestLies = []struct {
	name   string
	answer func(t *testing.T, p publisher, name Name, id content.ID) []byte
}{
	{"bad signature", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		e, err := node.DecodeEnvelope(p.sign(t, p.manifest(name, id, 10)))
		if err != nil {
			t.Fatal(err)
		}
		e.Content = bytes.Replace(e.Content, []byte(`"size":10`), []byte(`"size":11`), 1)
		return manifestLine(e.Encode())
	}},
	{"signed as another kind", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		body, err := json.Marshal(p.manifest(name, id, 10))
		if err != nil {
			t.Fatal(err)
		}
		e, err := node.Seal(p.key, node.KindName, body)
		if err != nil {
			t.Fatal(err)
		}
		return manifestLine(e.Encode())
	}},
	{"another name", func(t *testing.T, p publisher, _ Name, id content.ID) []byte {
		return manifestLine(p.sign(t, p.manifest("another name", id, 10)))
	}},
	{"expired", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		m := p.manifest(name, id, 10)
		m.Issued, m.Expires = m.Issued.AddDate(-1, 0, 0), m.Expires.AddDate(-1, 0, 0)
		return manifestLine(p.sign(t, m))
	}},
	{"sequence number from the far future", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		m := p.manifest(name, id, 10)
		m.Seq = time.Now().AddDate(1, 0, 0).UnixMilli()
		return manifestLine(p.sign(t, m))
	}},
	{"issued in the far future", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		m := p.manifest(name, id, 10)
		m.Issued, m.Expires = m.Issued.AddDate(1, 0, 0), m.Expires.AddDate(1, 0, 0)
		return manifestLine(p.sign(t, m))
	}},
	{"publisher is not the signer", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		return manifestLine(p.sign(t, newPublisher(t).manifest(name, id, 10)))
	}},
	{"name that drives a terminal", func(t *testing.T, p publisher, _ Name, id content.ID) []byte {
		return manifestLine(p.sign(t, p.manifest("\x1b]0;pwned\a", id, 10)))
	}},
	{"name that climbs", func(t *testing.T, p publisher, _ Name, id content.ID) []byte {
		return manifestLine(p.sign(t, p.manifest("../../etc/passwd", id, 10)))
	}},
	{"impossible size", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		return manifestLine(p.sign(t, p.manifest(name, id, -1)))
	}},
	{"unknown version", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		m := p.manifest(name, id, 10)
		m.V = 2
		return manifestLine(p.sign(t, m))
	}},
	{"duplicate keys in the manifest", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		body, err := json.Marshal(p.manifest(name, id, 10))
		if err != nil {
			t.Fatal(err)
		}
		return manifestLine(p.signRaw(t, bytes.Replace(body, []byte(`"size":10`), []byte(`"size":10,"size":11`), 1)))
	}},
	{"duplicate keys in the envelope", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		e := p.sign(t, p.manifest(name, id, 10))
		return manifestLine(slices.Concat([]byte(`{"sender":"`+newPublisher(t).id.String()+`",`), e[1:]))
	}},
	{"duplicate keys in the answer", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		e := p.sign(t, p.manifest(name, id, 10))
		return slices.Concat([]byte(`{"manifest":`), e, []byte(`,"manifest":`), e, []byte("}\n"))
	}},
	{"manifest list without end", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		return bytes.Repeat(manifestLine(p.sign(t, p.manifest(name, id, 10))), 1000)
	}},
	{"a manifest of tens of thousands of bytes", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		body, err := json.Marshal(p.manifest(name, id, 10))
		if err != nil {
			t.Fatal(err)
		}
		more := `{"padding":"` + strings.Repeat("x", 40_000) + `",`
		return manifestLine(p.signRaw(t, append([]byte(more), body[1:]...)))
	}},
	{"line without end", func(*testing.T, publisher, Name, content.ID) []byte {
		return bytes.Repeat([]byte("x"), 4<<20)
	}},
	{"string without end", func(*testing.T, publisher, Name, content.ID) []byte {
		return slices.Concat([]byte(`{"manifest":{"content":"`), bytes.Repeat([]byte("A"), 4<<20))
	}},
	{"empty lines", func(*testing.T, publisher, Name, content.ID) []byte { return []byte("\n\n\n\n") }},
	{"null", func(*testing.T, publisher, Name, content.ID) []byte {
		return []byte("null\n" + `{"manifest":null}` + "\n")
	}},
	{"deep JSON", func(*testing.T, publisher, Name, content.ID) []byte {
		return append(bytes.Repeat([]byte("["), 90_000), '\n')
	}},
	{"noise", func(*testing.T, publisher, Name, content.ID) []byte { return randomBytes(200_000, "noise") }},
	// The first manifest is good, but a liar is believed nothing.
	{"good manifest, then a bad one", func(t *testing.T, p publisher, name Name, id content.ID) []byte {
		good := p.sign(t, p.manifest(name, id, 10))
		return slices.Concat(manifestLine(good), manifestLine([]byte(`{}`)))
	}},
}

func TestGetSurvivesEveryLieAboutNames(t *testing.T) {
	net := startNetwork(t, 2)
	honest := net[1]
	for i, test := range manifestLies {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			getter := net[2].fresh(t)
			name := Name(fmt.Sprintf("report %d.pdf", i))
			data := randomBytes(1000, test.name)
			answer := test.answer(t, newPublisher(t), name, content.Root([]byte(test.name)))
			liar := startRaw(t, nil, handlers{metaProtocol: answerMeta(append(answer, endLine...))})
			o := GetOptions{NoServe: true, Peers: []peer.AddrInfo{liar.AddrInfo()}}

			got, err := getter.get(t, string(name), o)
			wantCorrupt(t, err, liar.ID())
			if !slices.Equal(got.Corrupt, []peer.ID{liar.ID()}) {
				t.Errorf("Corrupt = %v, want the liar %s", got.Corrupt, liar.ID())
			}
			if left := readTree(t, getter.dir); left["."] != "/" {
				t.Errorf("left behind: %v", left)
			}

			honest.add(t, honest.write(t, string(name), data), AddOptions{})
			got, err = getter.get(t, string(name), o)
			if err != nil {
				t.Fatalf("Get with an honest peer: %v", err)
			}
			if !slices.Equal(got.Corrupt, []peer.ID{liar.ID()}) {
				t.Errorf("Corrupt = %v, want the liar %s", got.Corrupt, liar.ID())
			}
			mustBe(t, filepath.Join(getter.dir, string(name)), data)
		})
	}
}

// twoClaims makes two peers that tell of different contents under one name. The
// second is a rival's, and its data may lie.
func twoClaims(t *testing.T, lie func(l *dataLiar, tag uint32, q dataRequest) []byte) (getter *testPeer, honest Share, rival *node.Node, rivalID content.ID) {
	t.Helper()
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	honest = sharer.add(t, sharer.write(t, "plan.txt", []byte("the plan")), AddOptions{})
	liar := newDataLiar(t, []byte("another plan"), lie)
	p := newPublisher(t)
	line := manifestLine(p.sign(t, p.manifest("plan.txt", liar.id, 12)))
	rival = startRaw(t, []peer.AddrInfo{net[0].AddrInfo()}, handlers{
		dataProtocol: liar.serve, metaProtocol: answerMeta(append(line, endLine...)),
	})
	if sent, err := rival.Provide(t.Context(), Name("plan.txt").Key(), node.ReachAll); sent == 0 || err != nil {
		t.Fatalf("Provide = %d, %v", sent, err)
	}
	return getter, honest, rival, liar.id
}

func noLie(*dataLiar, uint32, dataRequest) []byte { return nil }

func TestGetNeverPicksOneOfTwoContents(t *testing.T) {
	getter, honest, _, rival := twoClaims(t, noLie)
	want := []content.ID{honest.ID, rival}
	slices.SortFunc(want, func(a, b content.ID) int { return bytes.Compare(a[:], b[:]) })
	for range 3 {
		_, err := getter.get(t, "plan.txt", GetOptions{NoServe: true})
		var two *AmbiguousError
		if !errors.Is(err, ErrAmbiguous) || !errors.As(err, &two) {
			t.Fatalf("Get = %v, want ErrAmbiguous", err)
		}
		var ids []content.ID
		for _, c := range two.Candidates {
			ids = append(ids, c.ID)
		}
		if !slices.Equal(ids, want) {
			t.Errorf("candidates are %v, want %v", ids, want)
		}
	}
	if left := readTree(t, getter.dir); left["."] != "/" {
		t.Errorf("left behind: %v", left)
	}

	for what, want := range map[string]string{
		"plan.txt#" + rival.Hex()[:8]:     "another plan",
		"plan.txt#" + honest.ID.Hex()[:8]: "the plan",
	} {
		getter.dir = t.TempDir()
		if _, err := getter.get(t, what, GetOptions{NoServe: true}); err != nil {
			t.Fatalf("Get(%s): %v", what, err)
		}
		mustBe(t, filepath.Join(getter.dir, "plan.txt"), []byte(want))
	}
	if _, err := getter.get(t, "plan.txt#00000000", GetOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of a prefix that no ID has = %v, want ErrNotFound", err)
	}
}

func TestGetFromTakesOnlyThatPublishersContent(t *testing.T) {
	getter, _, rival, _ := twoClaims(t, noLie)
	w, err := ParseWhat("plan.txt")
	if err != nil {
		t.Fatal(err)
	}
	candidates, err := getter.lib.Find(t.Context(), w, FindOptions{})
	if err != nil || len(candidates) != 2 {
		t.Fatalf("Find = %v, %v, want two candidates", candidates, err)
	}
	for _, c := range candidates {
		getter.dir = t.TempDir()
		got, err := getter.get(t, "plan.txt", GetOptions{From: c.Publishers[0], NoServe: true})
		if err != nil || got.ID != c.ID {
			t.Errorf("Get from %s = %s, %v, want %s", c.Publishers[0], got.ID, err, c.ID)
		}
		got, err = getter.get(t, c.Publishers[0].String()+"/plan.txt", GetOptions{NoServe: true})
		if err != nil || got.ID != c.ID {
			t.Errorf("Get of the publisher's name = %s, %v, want %s", got.ID, err, c.ID)
		}
	}
	// The rival passed a manifest on, and signed none.
	if _, err := getter.get(t, "plan.txt", GetOptions{From: rival.ID()}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get from a peer that signed nothing = %v, want ErrNotFound", err)
	}
}

func TestGetTakesTheOtherWhenAClaimLeadsNowhere(t *testing.T) {
	for name, nowhere := range map[string]func(l *dataLiar, tag uint32, q dataRequest) []byte{
		"not held": func(_ *dataLiar, tag uint32, _ dataRequest) []byte {
			return frame(frameError, tag, []byte{byte(codeNotHeld)})
		},
		"wrong bytes": flipIn(0, 0),
		"garbage":     func(*dataLiar, uint32, dataRequest) []byte { return []byte("garbage garbage") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			getter, honest, _, rival := twoClaims(t, nowhere)
			var notes []string
			got, err := getter.get(t, "plan.txt", GetOptions{NoServe: true, Note: func(s string) { notes = append(notes, s) }})
			if err != nil || got.ID != honest.ID {
				t.Fatalf("Get = %s, %v, want %s", got.ID, err, honest.ID)
			}
			if !slices.ContainsFunc(notes, func(s string) bool { return strings.Contains(s, rival.Short()) }) {
				t.Errorf("notes are %q, want one about %s", notes, rival.Short())
			}
		})
	}
}

// A liar with many claims that lead nowhere must not keep an honest claim from
// being probed, and so leave one of its own as the only content of a name.
func TestGetDoesNotPickWhatAFloodOfClaimsLeavesOver(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for as long as one get probes")
	}
	t.Parallel()
	getter, _ := startPeer(t, node.Config{})
	liar := newDataLiar(t, []byte("poison"), noLie)
	host := startRaw(t, nil, handlers{dataProtocol: func(ctx context.Context, s network.Stream) error {
		var ask [frameHeaderLen + 32]byte
		if _, err := io.ReadFull(s, ask[:]); err != nil {
			return err
		}
		if content.ID(ask[frameHeaderLen:]) != liar.id {
			<-ctx.Done() // a claim that leads nowhere, slowly
			return ctx.Err()
		}
		if _, err := s.Write(liar.honest(0, dataRequest{kind: frameInfo})); err != nil {
			return err
		}
		return liar.serve(ctx, s)
	}})
	claim := func(id content.ID) Candidate {
		return Candidate{ID: id, Publishers: []peer.ID{host.ID()}, holders: []peer.AddrInfo{host.AddrInfo()}}
	}
	found := []Candidate{claim(liar.id)}
	for i := range probeParallel {
		found = append(found, claim(content.Root([]byte{byte(i)})))
	}
	honest := claim(content.Root([]byte("never had its turn")))
	found = append(found, honest)

	g := &getting{library: getter.lib, meter: newMeter(nil, PhaseLocal), what: What{Name: "x"}}
	alive, err := g.probe(t.Context(), found)
	if err != nil || len(alive) != 2 || alive[0].ID != liar.id || alive[1].ID != honest.ID {
		t.Errorf("probe leaves %d candidates, %v, want the one that answered and the one that was not asked", len(alive), err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if alive, err := g.probe(ctx, found); !errors.Is(err, context.Canceled) {
		t.Errorf("probe after Ctrl-C = %d candidates, %v, want the context's error", len(alive), err)
	}
}

func TestForeignManifestsDoNotShortenTheSearchForOnePublishers(t *testing.T) {
	asker, _ := startPeer(t, node.Config{})
	p := newPublisher(t)
	line := manifestLine(p.sign(t, p.manifest("x", content.Root(nil), 0)))
	eager := startRaw(t, nil, handlers{metaProtocol: answerMeta(append(line, endLine...))})
	for _, test := range []struct {
		from peer.ID
		want bool
	}{{"", true}, {p.id, true}, {newPublisher(t).id, false}} {
		called := false
		s := asker.lib.newSearch("x", newMeter(nil, PhaseDHT), nil)
		s.from, s.first = test.from, func() { called = true }
		s.ask(t.Context(), eager.AddrInfo(), true, &s.wide)
		if called != test.want {
			t.Errorf("asking for manifests of %q: the search counts as answered: %t, want %t", test.from, called, test.want)
		}
	}
}

// TestGetByIDBelievesNoManifestOfAnotherContent has a provider of an ID tell of another
// content, that is said to be a directory.
func TestGetByIDBelievesNoManifestOfAnotherContent(t *testing.T) {
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	liar := newDataLiar(t, []byte("a file"), noLie)
	p := newPublisher(t)
	m := p.manifest("album", content.Root([]byte("another")), 6)
	m.Kind = KindDir
	host := startRaw(t, nil, handlers{dataProtocol: liar.serve, metaProtocol: answerMeta(append(manifestLine(p.sign(t, m)), endLine...))})
	got, err := getter.get(t, liar.id.String(), GetOptions{NoServe: true, Peers: []peer.AddrInfo{host.AddrInfo()}})
	if got.Name == "album" || err == nil && got.Kind != KindFile {
		t.Errorf("Get = %+v, %v: it took the manifest of another content", got, err)
	}
	if err == nil {
		mustBe(t, got.Path, []byte("a file"))
	}
	if !slices.Equal(got.Corrupt, []peer.ID{host.ID()}) {
		t.Errorf("Corrupt = %v, want the liar %s (%v)", got.Corrupt, host.ID(), err)
	}
}

// TestNobodyGetsAHiddenFileUnasked has a content be called as a file that a shell reads.
func TestNobodyGetsAHiddenFileUnasked(t *testing.T) {
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	s := sharer.add(t, sharer.write(t, "f", []byte("echo pwned")), AddOptions{Name: ".profile"})
	for what, want := range map[string]string{
		s.ID.String():               "_profile",
		".profile":                  ".profile",
		sharer.lib.Link(s).String(): ".profile",
	} {
		getter.dir = t.TempDir()
		got, err := getter.get(t, what, GetOptions{NoServe: true, Peers: []peer.AddrInfo{sharer.AddrInfo()}})
		if err != nil || filepath.Base(got.Path) != want {
			t.Errorf("Get(%s) saves %s, %v, want %s", what, got.Path, err, want)
		}
	}
}
