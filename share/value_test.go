package share

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

func TestValueRecordsThatAreRefused(t *testing.T) {
	ann, eve := newPublisher(t), newPublisher(t)
	id := content.Root([]byte("report"))
	good := ann.manifest("report.pdf", id, 6)
	key := valueKey(ann.id, nameDigest("report.pdf"))
	change := func(fn func(*Manifest)) []byte {
		m := good
		fn(&m)
		return ann.sign(t, m)
	}
	encode := func(b []byte) []byte {
		e, err := node.DecodeEnvelope(b)
		if err != nil {
			t.Fatal(err)
		}
		return e.Encode()
	}
	now := time.Now()
	byEve := eve.manifest("report.pdf", id, 6)
	named, err := node.Seal(ann.key, node.KindName, mustJSON(t, good))
	if err != nil {
		t.Fatal(err)
	}
	withdraw := func(by publisher, change func(*withdrawal)) []byte {
		w := withdrawal{V: 1, Name: "report.pdf", Publisher: by.id, Seq: good.Seq + 1, Issued: good.Issued, Expires: good.Expires, Withdrawn: true}
		change(&w)
		e, err := node.Seal(by.key, node.KindName, mustJSON(t, w))
		if err != nil {
			t.Fatal(err)
		}
		return e.Encode()
	}
	for _, test := range []struct {
		name  string
		key   string
		value []byte
		ok    bool
	}{
		{"good", key, encode(ann.sign(t, good)), true},
		{"one that expired within the skew of clocks", key, encode(change(func(m *Manifest) { m.Issued, m.Expires = now.Add(-48*time.Hour), now.Add(-23*time.Hour) })), true},
		{"another's", key, encode(eve.sign(t, byEve)), false},
		{"another's, that says it is ann's", key, encode(eve.sign(t, good)), false},
		{"ann's, under another's key", valueKey(eve.id, nameDigest("report.pdf")), encode(ann.sign(t, good)), false},
		{"of another name", key, encode(change(func(m *Manifest) { m.Name = "other.pdf" })), false},
		{"of a name with the same lookup form", key, encode(change(func(m *Manifest) { m.Name = "REPORT.pdf" })), true},
		{"expired", key, encode(change(func(m *Manifest) { m.Issued, m.Expires = now.Add(-72*time.Hour), now.Add(-25*time.Hour) })), false},
		{"issued in the far future", key, encode(change(func(m *Manifest) { m.Issued, m.Expires = now.Add(25*time.Hour), now.Add(50*time.Hour) })), false},
		{"a seq of the far future", key, encode(change(func(m *Manifest) { m.Seq = now.Add(25 * time.Hour).UnixMilli() })), false},
		{"no seq", key, encode(change(func(m *Manifest) { m.Seq = 0 })), false},
		{"a manifest signed as a withdrawal", key, named.Encode(), false},
		{"a withdrawal", key, withdraw(ann, func(*withdrawal) {}), true},
		{"another's withdrawal", key, withdraw(eve, func(*withdrawal) {}), false},
		{"another's withdrawal, that says it is ann's", key, withdraw(eve, func(w *withdrawal) { w.Publisher = ann.id }), false},
		{"a withdrawal of another name", key, withdraw(ann, func(w *withdrawal) { w.Name = "other.pdf" }), false},
		{"a withdrawal that expired", key, withdraw(ann, func(w *withdrawal) { w.Issued, w.Expires = now.Add(-72*time.Hour), now.Add(-25*time.Hour) }), false},
		{"a withdrawal with a seq of the far future", key, withdraw(ann, func(w *withdrawal) { w.Seq = now.Add(25 * time.Hour).UnixMilli() }), false},
		{"a withdrawal of nothing", key, withdraw(ann, func(w *withdrawal) { w.Withdrawn = false }), false},
		{"a withdrawal of an unknown version", key, withdraw(ann, func(w *withdrawal) { w.V = 2 }), false},
		{"forged", key, bytes.Replace(encode(ann.sign(t, good)), []byte(`"signature":"`), []byte(`"signature":"A`), 1), false},
		{"with a space before it", key, append([]byte(" "), encode(ann.sign(t, good))...), false},
		{"too long", key, encode(change(func(m *Manifest) { m.Note = strings.Repeat("n", noteMax); m.Media = strings.Repeat("m", valueMax) })), false},
		{"nothing", key, nil, false},
		{"no envelope", key, []byte("{}"), false},
		{"a key without a digest", "/p2pshare/" + ann.id.String(), encode(ann.sign(t, good)), false},
		{"a key in upper case", "/p2pshare/" + ann.id.String() + "/" + strings.ToUpper(key[len(key)-64:]), encode(ann.sign(t, good)), false},
		{"a key in another spelling", "/p2pshare/" + peer.ToCid(ann.id).String() + key[len(key)-65:], encode(ann.sign(t, good)), false},
		{"a key with more", key + "/", encode(ann.sign(t, good)), false},
		{"a key of another namespace", "/ipns" + strings.TrimPrefix(key, "/p2pshare"), encode(ann.sign(t, good)), false},
	} {
		if err := (nameRecords{}).Validate(test.key, test.value); (err == nil) != test.ok {
			t.Errorf("%s: Validate = %v, want it valid: %t", test.name, err, test.ok)
		}
	}
}

func TestTheHighestSeqIsSelected(t *testing.T) {
	ann := newPublisher(t)
	key := valueKey(ann.id, nameDigest("report.pdf"))
	value := func(seq int64, what string) []byte {
		m := ann.manifest("report.pdf", content.Root([]byte(what)), 6)
		m.Seq = seq
		e, err := node.DecodeEnvelope(ann.sign(t, m))
		if err != nil {
			t.Fatal(err)
		}
		return e.Encode()
	}
	one, two, other := value(1, "a"), value(2, "b"), value(2, "c")
	top := 0
	if bytes.Compare(other, two) > 0 {
		top = 1
	}
	for _, test := range []struct {
		values [][]byte
		want   int
	}{
		{[][]byte{one}, 0}, {[][]byte{one, two}, 1}, {[][]byte{two, one}, 0}, {[][]byte{two, two}, 0},
		{[][]byte{two, other}, top}, {[][]byte{other, two}, 1 - top}, {[][]byte{[]byte("junk"), one}, 1},
	} {
		if got, err := (nameRecords{}).Select(key, test.values); err != nil || got != test.want {
			t.Errorf("Select = %d, %v, want %d", got, err, test.want)
		}
	}
	if _, err := (nameRecords{}).Select(key, [][]byte{[]byte("junk")}); err == nil {
		t.Error("junk was selected")
	}
}

func FuzzValueRecord(f *testing.F) {
	key := testKey(f, 7)
	id := keyID(f, key)
	m := newManifest(Share{Name: "report.pdf", ID: content.Root(nil), Kind: KindFile}, id, 0, time.Now())
	e, err := m.sign(key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(valueKey(id, nameDigest("report.pdf")), e.Encode())
	f.Add("/p2pshare/x/"+hex.EncodeToString(make([]byte, 32)), []byte("{}"))
	f.Add("/p2pshare//", []byte(nil))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if (nameRecords{}).Validate(key, value) != nil {
			return
		}
		publisher, digest, err := parseValueKey(key)
		if err != nil || valueKey(publisher, digest) != key {
			t.Fatalf("a value under %q is valid, and that is no key: %v", key, err)
		}
		w, err := openValue(publisher, digest, value, time.Now())
		if m := w.manifest; err != nil || m.Publisher != publisher || w.envelope.Sender != publisher || nameDigest(m.Name) != digest {
			t.Fatalf("a value under %q is valid, and opens as %+v, %v", key, w, err)
		}
		if i, err := (nameRecords{}).Select(key, [][]byte{value}); i != 0 || err != nil {
			t.Fatalf("Select of one valid value = %d, %v", i, err)
		}
	})
}

// TestAPublishersNameOutlivesIt has a publisher's name resolved from its record
// alone: it is gone, and whoever has the content has no word of its own on the name.
func TestAPublishersNameOutlivesIt(t *testing.T) {
	net := startNetwork(t, 2)
	holder, getter := net[1], net[2]
	ann, stopAnn := startPeer(t, node.Config{Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	if !ann.WaitDHT(t.Context()) {
		t.Fatal("the publisher did not enter the DHT")
	}
	data := []byte("the report\n")
	path := ann.write(t, "report.pdf", data)
	first := ann.add(t, path, AddOptions{})
	holder.add(t, holder.write(t, "something else.bin", data), AddOptions{})
	stopAnn()
	got, err := getter.get(t, ann.ID().String()+"/report.pdf", GetOptions{NoServe: true})
	if err != nil || got.ID != first.ID {
		t.Fatalf("Get = %s, %v, want %s", got.ID, err, first.ID)
	}
	mustBe(t, got.Path, data)
	if _, err := getter.get(t, ann.ID().String()+"/other.pdf", GetOptions{NoServe: true}); err == nil {
		t.Error("a name that was never published was got")
	}
}

func TestANewVersionReplacesTheOldOneAndSaysSo(t *testing.T) {
	net := startNetwork(t, 2)
	ann, getter := net[1], net[2]
	if _, err := getter.lib.TrustPeer(ann.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	first := ann.add(t, ann.write(t, "report.pdf", []byte("one")), AddOptions{})
	if got, err := getter.get(t, "ann/report.pdf", GetOptions{NoServe: true}); err != nil || got.ID != first.ID {
		t.Fatalf("Get = %s, %v, want %s", got.ID, err, first.ID)
	}
	second := ann.add(t, ann.write(t, "report.pdf", []byte("two")), AddOptions{})
	var notes []string
	getter.dir = t.TempDir()
	got, err := getter.get(t, "ann/report.pdf", GetOptions{NoServe: true, Note: func(s string) { notes = append(notes, s) }})
	if err != nil || got.ID != second.ID {
		t.Fatalf("Get = %s, %v, want %s", got.ID, err, second.ID)
	}
	if all := strings.Join(notes, "\n"); !strings.Contains(all, "ann published a new version") || !strings.Contains(all, second.ID.Short()+" replaces "+first.ID.Short()) {
		t.Errorf("notes %q do not say that %s replaces %s", all, second.ID.Short(), first.ID.Short())
	}
}

// TestAnOldManifestIsNotSoldAsNew has a peer replay a publisher's old manifest to one
// that has the new one.
func TestAnOldManifestIsNotSoldAsNew(t *testing.T) {
	p := newPublisher(t)
	old, now := newDataLiar(t, []byte("an old version"), noLie), newDataLiar(t, []byte("the new version"), noLie)
	m := p.manifest("plan.txt", old.id, 14)
	m.Seq -= 1000
	oldLine := append(manifestLine(p.sign(t, m)), endLine...)
	newLine := append(manifestLine(p.sign(t, p.manifest("plan.txt", now.id, 15))), endLine...)
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	seller := startRaw(t, nil, handlers{dataProtocol: now.serve, metaProtocol: answerMeta(newLine)})
	replayer := startRaw(t, nil, handlers{dataProtocol: old.serve, metaProtocol: answerMeta(oldLine)})
	for _, what := range []string{"plan.txt", p.id.String() + "/plan.txt"} {
		getter.dir = t.TempDir()
		got, err := getter.get(t, what, GetOptions{NoServe: true, Peers: []peer.AddrInfo{seller.AddrInfo(), replayer.AddrInfo()}})
		if err != nil || got.ID != now.id {
			t.Fatalf("Get(%s) of both = %s, %v, want the new one", what, got.ID, err)
		}
		// Now the old one alone is on offer, and is not believed.
		getter.dir = t.TempDir()
		if got, err := getter.get(t, what, GetOptions{NoServe: true, Peers: []peer.AddrInfo{replayer.AddrInfo()}}); err == nil {
			t.Errorf("Get(%s) of the old one alone brings %s", what, got.ID)
		}
	}
}

// TestAnOldRecordIsNotBelieved has the DHTs know a publisher's record in a version
// older than was got from it, as they do when the servers with the newer one are kept
// away. The publisher is gone.
func TestAnOldRecordIsNotBelieved(t *testing.T) {
	net := startNetwork(t, 2)
	holder, getter := net[1], net[2]
	old := holder.add(t, holder.write(t, "old.bin", []byte("an old version")), AddOptions{})
	newer := holder.add(t, holder.write(t, "newer.bin", []byte("the newer version")), AddOptions{})
	p := newPublisher(t)
	m := p.manifest("plan.txt", old.ID, old.Size)
	e, err := node.DecodeEnvelope(p.sign(t, m))
	if err != nil {
		t.Fatal(err)
	}
	if sent, err := holder.PutValue(t.Context(), valueKey(p.id, nameDigest("plan.txt")), e.Encode(), node.ReachAll); sent == 0 || err != nil {
		t.Fatalf("PutValue = %d, %v", sent, err)
	}
	what := p.id.String() + "/plan.txt"
	if got, err := getter.get(t, what, GetOptions{NoServe: true}); err != nil || got.ID != old.ID {
		t.Fatalf("Get of the record that there is = %s, %v, want %s", got.ID, err, old.ID)
	}
	v := version{ID: newer.ID, Kind: KindFile, Size: newer.Size, Seq: m.Seq + 1, At: now()}
	if err := getter.lib.catalog.keepVersion(p.id, "plan.txt", v); err != nil {
		t.Fatal(err)
	}
	getter.dir = t.TempDir()
	if got, err := getter.get(t, what, GetOptions{NoServe: true}); err != nil || got.ID != newer.ID {
		t.Errorf("Get with a newer version remembered = %s, %v, want that, %s", got.ID, err, newer.ID)
	}
}

// TestNoBadRecordEntersADHT tries to put what another signed, what is expired and what
// is older than what is there.
func TestNoBadRecordEntersADHT(t *testing.T) {
	net := startNetwork(t, 2)
	putter, getter := net[1], net[2]
	ann, eve := newPublisher(t), newPublisher(t)
	id := content.Root([]byte("plan"))
	key := valueKey(ann.id, nameDigest("plan.txt"))
	good := ann.manifest("plan.txt", id, 4)
	older, expired, future := good, good, good
	older.Seq -= 1000
	expired.Issued, expired.Expires = expired.Issued.AddDate(-1, 0, 0), expired.Expires.AddDate(-1, 0, 0)
	future.Seq = time.Now().AddDate(1, 0, 0).UnixMilli()
	put := func(by publisher, m Manifest) (int, error) {
		e, err := node.DecodeEnvelope(by.sign(t, m))
		if err != nil {
			t.Fatal(err)
		}
		return putter.PutValue(t.Context(), key, e.Encode(), node.ReachAll)
	}
	if sent, err := put(ann, good); sent == 0 || err != nil {
		t.Fatalf("PutValue = %d, %v", sent, err)
	}
	for name, test := range map[string]struct {
		by publisher
		m  Manifest
	}{
		"another's":  {eve, eve.manifest("plan.txt", id, 4)},
		"expired":    {ann, expired},
		"far future": {ann, future},
		"older":      {ann, older},
		"other name": {ann, ann.manifest("other.txt", id, 4)},
	} {
		if sent, err := put(test.by, test.m); sent > 0 && err == nil {
			t.Errorf("%s: %d servers took it", name, sent)
		}
		seq := int64(0)
		getter.lib.findRecord(t.Context(), ann.id, "plan.txt", func(w word) { seq = w.manifest.Seq })
		if seq != good.Seq {
			t.Errorf("%s: the record has seq %d now, want %d", name, seq, good.Seq)
		}
	}
}
