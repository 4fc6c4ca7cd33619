package share

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// testKey returns the key whose seed is 32 times b.
func testKey(t testing.TB, b byte) crypto.PrivKey {
	t.Helper()
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyID(t testing.TB, key crypto.PrivKey) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// manifestTime is when the manifests of these tests are made.
var manifestTime = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

// testManifest is a good manifest of testKey(7).
func testManifest(t testing.TB) Manifest {
	t.Helper()
	s := Share{Name: "report.pdf", ID: content.Root([]byte("report")), Kind: KindFile, Size: 6}
	return newManifest(s, keyID(t, testKey(t, 7)), 0, manifestTime)
}

// testDirManifest is a good manifest of a directory that has attributes.
func testDirManifest(t testing.TB) Manifest {
	t.Helper()
	s := Share{Name: "reports", ID: content.Root([]byte("listing")), Kind: KindDir, Size: 6, Attrs: content.Root([]byte("attributes"))}
	return newManifest(s, keyID(t, testKey(t, 7)), 0, manifestTime)
}

func TestParseNote(t *testing.T) {
	for _, good := range []string{"", "a note", "späť 日本語 👩\u200d🚀", `"quoted" <b>`, strings.Repeat("n", noteMax)} {
		if got, err := ParseNote(" " + good + "\n"); err != nil || got != good {
			t.Errorf("ParseNote(%q) = %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"a\nb", "\x1b[31m", "a\x00b", "\u202eb", "a\u2028b", "\xff", strings.Repeat("n", noteMax+1), "\u0085a\u0085b"} {
		if got, err := ParseNote(bad); !errors.Is(err, ErrBadNote) {
			t.Errorf("ParseNote(%q) = %q, %v, want ErrBadNote", bad, got, err)
		}
	}
}

func TestManifestVector(t *testing.T) {
	const file = "testdata/manifest.txt"
	key := testKey(t, 7)
	m := testManifest(t)
	m.Media = "application/pdf" // the system's tables may say more
	m.Note = `a "note" <with> escapes`
	m.Mirrors = []string{"https://example.org/report.pdf", "http://[2001:db8::1]:8080/a%20b?c=d"}
	e, err := m.sign(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := testDirManifest(t)
	dirEnvelope, err := dir.sign(key)
	if err != nil {
		t.Fatal(err)
	}
	made := fmt.Sprintf(`# Manifests, of a file and of a directory, signed by the Ed25519 key with this seed,
# as JSON and as the envelope of kind "manifest" in which each travels. node's
# testdata/envelope.txt has the signed bytes.

seed %x
publisher %s
manifest %s
envelope %s
manifest %s
envelope %s
`, bytes.Repeat([]byte{7}, 32), m.Publisher, e.Content, e.Encode(), dirEnvelope.Content, dirEnvelope.Encode())
	if *update {
		if err := os.WriteFile(file, []byte(made), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), made); diff != "" {
		t.Errorf("%s made anew differs (-file +made):\n%s", file, diff)
	}
	signed := []Manifest{m, dir}
	for line := range strings.Lines(string(want)) {
		encoded, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "envelope ")
		if !ok {
			continue
		}
		e, err := node.DecodeEnvelope([]byte(encoded))
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenManifest(e, manifestTime)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(signed[0], got); diff != "" {
			t.Errorf("the manifest opened differs (-signed +opened):\n%s", diff)
		}
		signed = signed[1:]
	}
}

// sealed signs a manifest whose fields were changed as JSON.
func sealed(t *testing.T, change func(map[string]any)) node.Envelope {
	t.Helper()
	body, err := json.Marshal(testManifest(t))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		t.Fatal(err)
	}
	change(fields)
	if body, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	e, err := node.Seal(testKey(t, 7), node.KindManifest, body)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestOpenManifestRefuses(t *testing.T) {
	set := func(key string, value any) func(map[string]any) {
		return func(m map[string]any) { m[key] = value }
	}
	drop := func(key string) func(map[string]any) { return func(m map[string]any) { delete(m, key) } }
	at := func(d time.Duration) string { return manifestTime.Add(d).Format(time.RFC3339) }
	for _, tt := range []struct {
		what   string
		change func(map[string]any)
		reason string
	}{
		{"version 2", set("v", 2), "version 2, and this program knows 1"},
		{"version 2 of another form", func(m map[string]any) { m["v"] = 2; m["size"] = "large" }, "version 2, and this program knows 1"},
		{"no version", drop("v"), "version 0, and this program knows 1"},
		{"version as text", set("v", "1"), "bad JSON"},
		{"no name", drop("name"), "is empty"},
		{"parent", set("name", ".."), "reference to a directory"},
		{"path", set("name", "../../etc/passwd"), "slash"},
		{"ESC", set("name", "a\x1b[2J"), "control character"},
		{"NFD", set("name", "re\u0301sume\u0301"), "normal form"},
		{"name as a number", set("name", 1), "bad JSON"},
		{"no ID", drop("id"), "no content ID"},
		{"zero ID", set("id", content.ID{}.String()), "no content ID"},
		{"malformed ID", set("id", "b3:12"), "not a content ID"},
		{"no kind", drop("kind"), "unknown kind"},
		{"unknown kind", set("kind", "link"), "unknown kind"},
		{"negative size", set("size", -1), "impossible size -1"},
		{"too large", set("size", int64(content.SizeMax)+1), "impossible size"},
		{"size beyond int64", set("size", json.Number("9223372036854775808")), "bad JSON"},
		{"size as a fraction", set("size", 1.5), "bad JSON"},
		{"no publisher", drop("publisher"), "publisher is not the signer"},
		{"another publisher", set("publisher", keyID(t, testKey(t, 8)).String()), "publisher is not the signer"},
		{"the publisher as a CID", set("publisher", peer.ToCid(keyID(t, testKey(t, 7))).String()), "publisher is not the signer"},
		{"a publisher that takes long to decode", set("publisher", strings.Repeat("z", 40_000)), "publisher is not the signer"},
		{"no seq", drop("seq"), "impossible sequence number 0"},
		{"negative seq", set("seq", -7), "impossible sequence number -7"},
		{"seq from the future", set("seq", manifestTime.Add(clockSkew).UnixMilli()+1), "from the future"},
		{"largest seq", set("seq", int64(1<<63-1)), "from the future"},
		{"issued in the future", set("issued", at(clockSkew+time.Minute)), "issued in the future"},
		{"expired", set("expires", at(-clockSkew-time.Minute)), "expired 2026-01-01"},
		{"no expiry", drop("expires"), "expired"},
		{"expires before it was issued", func(m map[string]any) { m["issued"], m["expires"] = at(2*time.Hour), at(time.Hour) }, "before it was issued"},
		{"time as a number", set("issued", 1), ""},
		{"long note", set("note", strings.Repeat("n", noteMax+1)), "too long"},
		{"five mirrors", set("mirrors", []string{"a", "b", "c", "d", "e"}), "too long"},
		{"a mirror of another scheme", set("mirrors", []string{"ftp://example.org/x"}), "neither http"},
		{"a mirror with a user", set("mirrors", []string{"https://example.org/x", "https://me@example.org/x"}), "names a user"},
		{"a mirror of a directory", func(m map[string]any) { m["kind"], m["mirrors"] = "dir", []string{"https://example.org/x"} }, "directory"},
		{"attributes of a file", set("attrs", content.Root(nil).String()), "only a directory"},
		{"attributes of another form", func(m map[string]any) { m["kind"], m["attrs"] = "dir", map[string]string{"a": "b"} }, "bad JSON"},
		{"attributes without an ID", func(m map[string]any) { m["kind"], m["attrs"] = "dir", "" }, "not a content ID"},
		{"long media type", set("media", strings.Repeat("m", 256)), "too long"},
		{"key in another case", func(m map[string]any) { m["Name"] = m["name"]; delete(m, "name") }, "must be written"},
	} {
		m, err := OpenManifest(sealed(t, tt.change), manifestTime)
		if !errors.Is(err, ErrBadManifest) || !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%s: OpenManifest = %v, want ErrBadManifest that says %q", tt.what, err, tt.reason)
		}
		if !cmp.Equal(m, Manifest{}) {
			t.Errorf("%s: OpenManifest gave %+v beside its error", tt.what, m)
		}
	}
}

func TestOpenManifestAcceptsClockSkew(t *testing.T) {
	e := sealed(t, func(m map[string]any) { m["future"] = []int{1} })
	for _, now := range []time.Time{
		manifestTime.Add(-clockSkew + time.Second), manifestTime, manifestTime.Add(manifestLife), manifestTime.Add(manifestLife + clockSkew - time.Second),
	} {
		if _, err := OpenManifest(e, now); err != nil {
			t.Errorf("at %s: %v", now, err)
		}
	}
	for _, now := range []time.Time{manifestTime.Add(-clockSkew - time.Second), manifestTime.Add(manifestLife + clockSkew + time.Second)} {
		if _, err := OpenManifest(e, now); !errors.Is(err, ErrBadManifest) {
			t.Errorf("at %s: %v, want ErrBadManifest", now, err)
		}
	}
}

func TestOpenManifestRefusesOtherEnvelopes(t *testing.T) {
	e, err := testManifest(t).sign(testKey(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	body := e.Content
	asName, err := node.Seal(testKey(t, 7), node.KindName, body)
	if err != nil {
		t.Fatal(err)
	}
	byOther, err := node.Seal(testKey(t, 8), node.KindManifest, body)
	if err != nil {
		t.Fatal(err)
	}
	changed := e
	changed.Content = bytes.Replace(body, []byte(`"size":6`), []byte(`"size":7`), 1)
	for what, tt := range map[string]struct {
		e    node.Envelope
		want error
	}{
		"signed as a name":   {asName, node.ErrBadEnvelope},
		"changed after":      {changed, node.ErrBadEnvelope},
		"signed by another":  {byOther, ErrBadManifest},
		"nothing signed":     {node.Envelope{}, node.ErrBadEnvelope},
		"sender exchanged":   {node.Envelope{Sender: byOther.Sender, Content: e.Content, Signature: e.Signature}, node.ErrBadEnvelope},
		"signature of other": {node.Envelope{Sender: e.Sender, Content: e.Content, Signature: byOther.Signature}, node.ErrBadEnvelope},
	} {
		if _, err := OpenManifest(tt.e, manifestTime); !errors.Is(err, tt.want) {
			t.Errorf("%s: OpenManifest = %v, want %v", what, err, tt.want)
		}
	}
}

func TestManifestSeqGrows(t *testing.T) {
	now := manifestTime
	s := Share{Name: "a", ID: content.Root(nil), Kind: KindFile}
	for _, tt := range []struct{ previous, want int64 }{
		{0, now.UnixMilli()},
		{now.UnixMilli() - 1, now.UnixMilli()},
		{now.UnixMilli(), now.UnixMilli() + 1},
		{now.UnixMilli() + 5000, now.UnixMilli() + 5001},
	} {
		if got := newManifest(s, "", tt.previous, now).Seq; got != tt.want {
			t.Errorf("seq after %d = %d, want %d", tt.previous, got, tt.want)
		}
	}
}

func TestRenewSignsAgainAtHalfOfTheLife(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	record := func(name string, change func(*shareRecord)) shareRecord {
		path := writeFile(t, dir, name, name)
		addTo(t, l, path, AddOptions{})
		r, ok, err := l.catalog.byPath(path)
		if err != nil || !ok {
			t.Fatalf("byPath(%s) = %v, %v", path, ok, err)
		}
		change(&r)
		if err := l.catalog.update(r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	half := time.Now().Add(manifestLife / 2)
	old := record("old", func(r *shareRecord) { r.Expires = half.Add(-time.Hour) })
	young := record("young", func(r *shareRecord) { r.Expires = half.Add(time.Hour) })
	foreign := record("foreign", func(r *shareRecord) { r.Expires, r.Own = half.Add(-time.Hour), false })
	if err := l.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, was := range []shareRecord{old, young, foreign} {
		is, _, err := l.catalog.byPath(was.Path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := OpenManifest(*is.Envelope, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if renewed := is.Seq > was.Seq; renewed != (was.Name == "old") {
			t.Errorf("%s: renewed = %v", was.Name, renewed)
		}
		if m.Seq != is.Seq || m.ID != was.ID || m.Name != was.Name {
			t.Errorf("%s: the manifest is %+v", was.Name, m)
		}
		if was.Name == "old" && (!is.Expires.Equal(m.Expires) || time.Until(is.Expires) < manifestLife-time.Hour) {
			t.Errorf("%s: expires %s, want a whole life from now", was.Name, is.Expires)
		}
	}
}

func FuzzOpenManifest(f *testing.F) {
	key := testKey(f, 7)
	body, err := json.Marshal(testManifest(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add(bytes.Replace(body, []byte(`"file"`), []byte(`"dir","attrs":"`+content.Root(nil).String()+`","note":"n"`), 1))
	f.Add(bytes.Replace(body, []byte(`"file"`), []byte(`"file","mirrors":["https://example.org/a%20b?c=d","http://[2001:db8::1]:8080/"]`), 1))
	f.Add([]byte(`{"v":1,"publisher":"` + keyID(f, key).String() + `"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := node.Seal(key, node.KindManifest, body)
		if err != nil {
			return
		}
		m, err := OpenManifest(e, manifestTime)
		if err != nil {
			if !errors.Is(err, ErrBadManifest) {
				t.Fatalf("%q: %v, want ErrBadManifest", body, err)
			}
			return
		}
		if m.Publisher != e.Sender || m.ID.IsZero() || m.Size < 0 || m.Seq < 1 {
			t.Fatalf("%q was accepted as %+v", body, m)
		}
		if n, err := ParseName(string(m.Name)); err != nil || n != m.Name {
			t.Fatalf("%q was accepted with the name %q", body, m.Name)
		}
		if err := checkMirrors(m.Kind, m.Mirrors); err != nil {
			t.Fatalf("%q was accepted: %v", body, err)
		}
		again, err := m.sign(key)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := OpenManifest(again, manifestTime); err != nil {
			t.Fatalf("%q was accepted, and signed again is %v", body, err)
		} else if fmt.Sprint(back) != fmt.Sprint(m) {
			t.Fatalf("%q reads as %+v, and signed again as %+v", body, m, back)
		}
	})
}
