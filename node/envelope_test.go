package node

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

var updateEnvelopes = flag.Bool("update-envelopes", false, "write testdata/envelope.txt anew")

var allKinds = []Kind{KindPresence, KindManifest, KindName, KindEpoch, KindBackup}

// envelopeKey returns the key whose seed is 32 times b.
func envelopeKey(t testing.TB, b byte) crypto.PrivKey {
	t.Helper()
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustSeal(t testing.TB, kind Kind, content string) Envelope {
	t.Helper()
	e, err := Seal(envelopeKey(t, 7), kind, []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEnvelopeVectors(t *testing.T) {
	const file = "testdata/envelope.txt"
	contents := map[Kind]string{
		KindPresence: `{"v":1,"type":"hello","boot":1767323045000,"n":1,"time":"2026-01-02T03:04:05Z","alias":"ann","addrs":["/ip4/192.0.2.1/tcp/4001"]}`,
		KindManifest: `{"v":1,"name":"r\u00e9sumé <1>.pdf","id":"b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262","kind":"file","size":0}`,
		KindName:     `{ "v": 1, "name": "spaces are signed too" }`,
		KindEpoch:    `{"v":1,"epoch":9007199254740993}`,
		KindBackup:   `{}`,
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Envelopes signed by the Ed25519 key with this seed. For each kind: the content,
# the signed bytes in hexadecimal, and the envelope as one line of JSON.

seed %x
sender %s
`, bytes.Repeat([]byte{7}, 32), mustSeal(t, KindBackup, "{}").Sender)
	for _, kind := range allKinds {
		e := mustSeal(t, kind, contents[kind])
		fmt.Fprintf(&b, "\nkind %s\ncontent %s\nsigned %x\nenvelope %s\n", kind, contents[kind], signedBytes(kind, e.Content), e.Encode())
	}
	if *updateEnvelopes {
		if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s made anew differs:\n%s", file, b.String())
	}

	// Now as a reader who has only the file and crypto/ed25519.
	var seed, kind, content, signed string
	opened := 0
	for line := range strings.Lines(string(want)) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "seed":
			seed = rest
		case "kind":
			kind = rest
		case "content":
			content = rest
		case "signed":
			signed = rest
		case "envelope":
			e, err := DecodeEnvelope([]byte(rest))
			if err != nil {
				t.Fatalf("DecodeEnvelope of %s: %v", kind, err)
			}
			if got, err := e.Open(Kind(kind)); err != nil || string(got) != content {
				t.Errorf("Open(%s) = %q, %v, want %q", kind, got, err, content)
			}
			if got := string(e.Encode()); got != rest {
				t.Errorf("%s encodes to %s, want %s", kind, got, rest)
			}
			seedBytes, _ := hex.DecodeString(seed)
			signedRaw, _ := hex.DecodeString(signed)
			if !bytes.Equal(ed25519.Sign(ed25519.NewKeyFromSeed(seedBytes), signedRaw), e.Signature) {
				t.Errorf("%s: the signed bytes do not give the signature", kind)
			}
			opened++
		}
	}
	if opened != len(allKinds) {
		t.Errorf("%s has %d envelopes, want %d", file, opened, len(allKinds))
	}
}

func TestOpenRefusesReplayAsAnotherKind(t *testing.T) {
	for _, sealed := range allKinds {
		e := mustSeal(t, sealed, `{"v":1}`)
		for _, opened := range append(allKinds, "", "other", sealed+"\x00", "presence\x00{") {
			_, err := e.Open(opened)
			if opened == sealed && err != nil {
				t.Errorf("sealed and opened as %q: %v", sealed, err)
			}
			if opened != sealed && !errors.Is(err, ErrBadEnvelope) {
				t.Errorf("sealed as %q, opened as %q: %v, want ErrBadEnvelope", sealed, opened, err)
			}
		}
	}
}

func TestOpenRefusesWhatTheSenderDidNotSign(t *testing.T) {
	good := mustSeal(t, KindManifest, `{"v":1}`)
	other, _ := peer.IDFromPrivateKey(envelopeKey(t, 8))
	rawPublic, _ := good.Sender.ExtractPublicKey()
	hashed := peer.ID(mustMultihash(t, []byte("a key elsewhere"), multihash.SHA2_256))
	// A second peer ID for the same key: its protobuf with an unknown field.
	encoded, _ := crypto.MarshalPublicKey(rawPublic)
	padded := peer.ID(mustMultihash(t, append(encoded, 0x18, 0x01), multihash.IDENTITY))
	if public, err := padded.ExtractPublicKey(); err != nil || !public.Equals(rawPublic) {
		t.Fatalf("the padded ID is not what this test is about: %v, %v", public, err)
	}
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	for name, e := range map[string]Envelope{
		"zero":                       {},
		"another sender":             {other, good.Content, good.Signature},
		"no sender":                  {"", good.Content, good.Signature},
		"a sender that is no ID":     {"xyz", good.Content, good.Signature},
		"an ID without the key":      {hashed, good.Content, good.Signature},
		"a second ID of the key":     {padded, good.Content, good.Signature},
		"another content":            {good.Sender, []byte(`{"v":2}`), good.Signature},
		"content with a space added": {good.Sender, []byte(`{"v":1} `), good.Signature},
		"no content":                 {good.Sender, nil, good.Signature},
		"no signature":               {good.Sender, good.Content, nil},
		"half a signature":           {good.Sender, good.Content, good.Signature[:32]},
		"a long signature":           {good.Sender, good.Content, append(bytes.Clone(good.Signature), 0)},
		"a bit flipped in R":         {good.Sender, good.Content, flip(good.Signature, 3)},
		"a bit flipped in S":         {good.Sender, good.Content, flip(good.Signature, 40)},
		"S not reduced":              {good.Sender, good.Content, addGroupOrder(good.Signature)},
	} {
		if got, err := e.Open(KindManifest); !errors.Is(err, ErrBadEnvelope) || got != nil {
			t.Errorf("%s: Open = %q, %v, want ErrBadEnvelope", name, got, err)
		}
	}
}

// addGroupOrder adds the order of Ed25519's group to the second half of a
// signature: the same number to a careless verifier, other bytes.
func addGroupOrder(signature []byte) []byte {
	order, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	out, carry := bytes.Clone(signature), 0
	for i, b := range order {
		sum := int(out[32+i]) + int(b) + carry
		out[32+i], carry = byte(sum), sum>>8
	}
	return out
}

func mustMultihash(t *testing.T, data []byte, code uint64) multihash.Multihash {
	t.Helper()
	h, err := multihash.Sum(data, code, -1)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestOpenRefusesSignedContentThatIsNotStrict has a sender that signs by itself
// what Seal would not.
func TestOpenRefusesSignedContentThatIsNotStrict(t *testing.T) {
	key := envelopeKey(t, 7)
	sender, _ := peer.IDFromPrivateKey(key)
	for _, content := range []string{``, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `{}{}`, "\"\xff\"", `{"a":`} {
		if _, err := Seal(key, KindName, []byte(content)); !errors.Is(err, ErrBadJSON) {
			t.Errorf("Seal(%q) = %v, want ErrBadJSON", content, err)
		}
		signature, _ := key.Sign(signedBytes(KindName, []byte(content)))
		_, err := Envelope{sender, []byte(content), signature}.Open(KindName)
		if !errors.Is(err, ErrBadEnvelope) || !errors.Is(err, ErrBadJSON) {
			t.Errorf("Open of signed %q = %v, want ErrBadEnvelope and ErrBadJSON", content, err)
		}
	}
}

func TestSealRefuses(t *testing.T) {
	secp, _, err := crypto.GenerateKeyPair(crypto.Secp256k1, 0)
	if err != nil {
		t.Fatal(err)
	}
	key := envelopeKey(t, 7)
	for name, seal := range map[string]func() (Envelope, error){
		"another type of key": func() (Envelope, error) { return Seal(secp, KindName, []byte(`{}`)) },
		"no key":              func() (Envelope, error) { return Seal(nil, KindName, []byte(`{}`)) },
		"an unknown kind":     func() (Envelope, error) { return Seal(key, "other", []byte(`{}`)) },
		"content too long": func() (Envelope, error) {
			return Seal(key, KindName, []byte(`"`+strings.Repeat("x", EnvelopeMax*3/4)+`"`))
		},
	} {
		if e, err := seal(); err == nil {
			t.Errorf("%s: Seal = %s, want an error", name, e.Encode())
		}
	}
}

func TestSealKeepsItsOwnCopy(t *testing.T) {
	content := []byte(`{"v":1}`)
	e, err := Seal(envelopeKey(t, 7), KindName, content)
	if err != nil {
		t.Fatal(err)
	}
	clear(content)
	if _, err := e.Open(KindName); err != nil {
		t.Errorf("after the caller's slice changed: %v", err)
	}
}

func TestDecodeEnvelopeTakesTheLongestThatSealMakes(t *testing.T) {
	// The longest content: base64 in whole quadruples up to EnvelopeMax.
	overhead := len(mustSeal(t, KindBackup, "{}").Encode()) - 4
	n := (EnvelopeMax - overhead) / 4 * 3
	e := mustSeal(t, KindBackup, `"`+strings.Repeat("x", n-2)+`"`)
	if _, err := Seal(envelopeKey(t, 7), KindBackup, []byte(`"`+strings.Repeat("x", n-1)+`"`)); err == nil {
		t.Error("Seal took a byte more than fits")
	}
	decoded, err := DecodeEnvelope(e.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decoded.Open(KindBackup); err != nil || len(got) != n {
		t.Errorf("Open gives %d bytes, %v, want %d", len(got), err, n)
	}
}

func TestDecodeEnvelopeRefuses(t *testing.T) {
	good := mustSeal(t, KindManifest, `{"v":1}`)
	sender := good.Sender.String()
	content := base64.StdEncoding.EncodeToString(good.Content)
	signature := base64.StdEncoding.EncodeToString(good.Signature)
	if !strings.HasSuffix(content, "fQ==") {
		t.Fatalf("content in base64 is %s, the cases below need fQ== at its end", content)
	}
	build := func(sender, content, signature string) string {
		return fmt.Sprintf(`{"sender":%q,"content":%q,"signature":%q}`, sender, content, signature)
	}
	line := build(sender, content, signature)
	if _, err := DecodeEnvelope([]byte(line)); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"nothing":                          ``,
		"null":                             `null`,
		"an array":                         `[]`,
		"an empty object":                  `{}`,
		"trailing bytes":                   line + "{}",
		"a second sender":                  strings.Replace(line, `{`, `{"sender":"x",`, 1),
		"a second content by case":         strings.Replace(line, `{`, `{"Content":"",`, 1),
		"a key by another case":            strings.Replace(line, "signature", "Signature", 1),
		"no signature":                     strings.Replace(line, `"signature"`, `"other"`, 1),
		"content without padding":          build(sender, strings.TrimRight(content, "="), signature),
		"content with stray bits":          build(sender, strings.Replace(content, "fQ==", "fR==", 1), signature),
		"content with a line break":        build(sender, content[:4]+"\n"+content[4:], signature),
		"content with a line break at end": build(sender, content+"\n", signature),
		"content in URL base64":            build(sender, "_-__", signature),
		"content with a space":             build(sender, " "+content, signature),
		"content as numbers":               strings.Replace(line, `"`+content+`"`, "[123,125]", 1),
		"content null":                     strings.Replace(line, `"`+content+`"`, "null", 1) + " ",
		"a short signature":                build(sender, content, "AAAA"),
		"no sender":                        build("", content, signature),
		"the sender as a CID":              build(peer.ToCid(good.Sender).String(), content, signature),
		"the sender with a space":          build(sender+" ", content, signature),
		"a hashed RSA identity":            build("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", content, signature),
		"a very long sender":               build(strings.Repeat("z", 60_000), content, signature),
		"too long":                         line + strings.Repeat(" ", EnvelopeMax),
	} {
		e, err := DecodeEnvelope([]byte(data))
		if name == "content null" { // the same as ""; Open refuses it, as not signed
			_, err = e.Open(KindManifest)
		}
		if !errors.Is(err, ErrBadEnvelope) {
			t.Errorf("%s: DecodeEnvelope = %v, want ErrBadEnvelope", name, err)
		} else if strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 300 {
			t.Errorf("%s: error is not one short line: %q", name, err)
		}
	}
}

func TestDecodeEnvelopeBringsEveryFormToOne(t *testing.T) {
	e := mustSeal(t, KindManifest, `{"v":1}`)
	loose := fmt.Sprintf("{ \"signature\": %q,\n \"content\":%q, \"hop\": 3, \"sender\":%q }",
		base64.StdEncoding.EncodeToString(e.Signature), base64.StdEncoding.EncodeToString(e.Content), e.Sender)
	decoded, err := DecodeEnvelope([]byte(loose))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := decoded.Encode(), e.Encode(); !bytes.Equal(got, want) {
		t.Errorf("Encode = %s, want %s", got, want)
	}
}

func TestEnvelopeInsideAMessageIsAsStrict(t *testing.T) {
	type message struct {
		Items []Envelope `json:"items"`
	}
	e := mustSeal(t, KindManifest, `{"v":1}`)
	data, err := json.Marshal(message{[]Envelope{e}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"items":[` + string(e.Encode()) + `]}`; string(data) != want {
		t.Errorf("Marshal = %s, want %s", data, want)
	}
	var m message
	if err := DecodeStrict(data, &m); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Items[0].Open(KindManifest); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{strings.Replace(string(data), "sender", "SENDER", 1), `{"items":[null]}`, `{"items":[{}]}`} {
		if err := DecodeStrict([]byte(bad), &m); !errors.Is(err, ErrBadJSON) || !errors.Is(err, ErrBadEnvelope) {
			t.Errorf("DecodeStrict(%s) = %v, want ErrBadJSON and ErrBadEnvelope", bad, err)
		}
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, kind := range allKinds {
		f.Add(mustSeal(f, kind, `{"v":1,"name":"x"}`).Encode())
	}
	f.Add([]byte(`{"sender":"","content":"","signature":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEnvelope(data)
		if err != nil {
			if !errors.Is(err, ErrBadEnvelope) || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("error %q", err)
			}
			return
		}
		line := e.Encode()
		again, err := DecodeEnvelope(line)
		if err != nil || !bytes.Equal(again.Encode(), line) {
			t.Fatalf("%s does not survive encoding: %v", line, err)
		}
		opened := 0
		for _, kind := range allKinds {
			content, err := e.Open(kind)
			if err != nil {
				continue
			}
			opened++
			if err := DecodeStrict(content, new(any)); err != nil && !strings.Contains(err.Error(), "does not fit") {
				t.Fatalf("opened content %q: %v", content, err)
			}
		}
		if opened > 1 {
			t.Fatalf("%s opens as %d kinds", line, opened)
		}
	})
}
