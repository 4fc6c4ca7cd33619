package node

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node/internal/lan"
)

var updatePresence = flag.Bool("update-presence", false, "write testdata/presence.txt anew")

func testPresence() presence {
	return presence{
		Type: presenceWant, Boot: 1767323045000, N: 7, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Alias: "ann",
		Addrs: []ma.Multiaddr{ma.StringCast("/ip4/10.77.0.2/tcp/24001"), ma.StringCast("/ip4/10.77.0.2/udp/24001/quic-v1")},
		Rev:   3, Want: []keyPrefix{{1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}}, Ask: "00112233aabbccdd", Echo: "ffeeddcc44556677",
	}
}

// TestPresenceVector keeps a datagram's bytes as they are: another
// implementation reads the file.
func TestPresenceVector(t *testing.T) {
	const file = "testdata/presence.txt"
	data, err := testPresence().seal(envelopeKey(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	e, err := DecodeEnvelope(data)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf(`# A datagram of the local network, signed by the Ed25519 key with this seed: the
# content, and the whole.

seed %s
content %s
datagram %s
`, strings.Repeat("07", 32), e.Content, data)
	if *updatePresence {
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s made anew differs:\n%s", file, got)
	}
	sender, p, err := openPresence(data)
	if err != nil || sender != e.Sender || !reflect.DeepEqual(p, testPresence()) {
		t.Errorf("openPresence = %s, %+v, %v, want %s, %+v", sender, p, err, e.Sender, testPresence())
	}
}

func TestPresenceFitsADatagram(t *testing.T) {
	p := testPresence()
	p.Alias = strings.Repeat("ä", aliasMax/2)
	for i := range wantMax {
		p.Want = append(p.Want[:i], keyPrefix{byte(i)})
	}
	p.Addrs = nil
	for i := range 20 {
		p.Addrs = append(p.Addrs, ma.StringCast(fmt.Sprintf("/ip6/fd00:1234:5678:9abc:def0:1234:5678:%d/udp/24001/quic-v1", i)))
	}
	data, err := p.seal(envelopeKey(t, 7))
	if err != nil {
		t.Fatal(err)
	}
	_, got, err := openPresence(data)
	if err != nil || len(data) > lan.DatagramMax {
		t.Fatalf("a datagram of %d bytes: %v", len(data), err)
	}
	if len(got.Want) != wantMax || got.Alias != p.Alias || len(got.Addrs) == len(p.Addrs) {
		t.Errorf("sealed %d prefixes, alias %q and %d addresses, got %d, %q and %d",
			len(p.Want), p.Alias, len(p.Addrs), len(got.Want), got.Alias, len(got.Addrs))
	}
}

func TestDecodePresenceRefuses(t *testing.T) {
	const rest = `"boot":1,"n":1,"time":"2026-01-02T03:04:05Z"`
	many := func(n int, s string) string { return "[" + strings.TrimSuffix(strings.Repeat(s+",", n), ",") + "]" }
	for name, content := range map[string]string{
		"no JSON":              `hello`,
		"another version":      `{"v":2,"type":"hello",` + rest + `}`,
		"unknown type":         `{"v":1,"type":"party",` + rest + `}`,
		"a type of other case": `{"v":1,"type":"Hello",` + rest + `}`,
		"no boot":              `{"v":1,"type":"hello","n":1}`,
		"negative n":           `{"v":1,"type":"hello","boot":1,"n":-1}`,
		"n beyond 64 bits":     `{"v":1,"type":"hello","boot":1,"n":99999999999999999999}`,
		"a time of its own":    `{"v":1,"type":"hello","boot":1,"n":1,"time":"yesterday"}`,
		"a long alias":         `{"v":1,"type":"hello",` + rest + `,"alias":"` + strings.Repeat("a", aliasMax+1) + `"}`,
		"many addresses":       `{"v":1,"type":"hello",` + rest + `,"addrs":` + many(presenceAddrsMax+1, `"/ip4/10.0.0.1/tcp/1"`) + `}`,
		"a long address":       `{"v":1,"type":"hello",` + rest + `,"addrs":["/dns/` + strings.Repeat("a", presenceAddrMax) + `/tcp/1"]}`,
		"many prefixes":        `{"v":1,"type":"want",` + rest + `,"want":` + many(wantMax+1, `"0011223344556677"`) + `}`,
		"a short prefix":       `{"v":1,"type":"want",` + rest + `,"want":["001122"]}`,
		"a prefix not in hex":  `{"v":1,"type":"want",` + rest + `,"want":["zz11223344556677"]}`,
		"a long nonce":         `{"v":1,"type":"hello",` + rest + `,"ask":"` + strings.Repeat("a", nonceMax+1) + `"}`,
		"a field twice":        `{"v":1,"type":"hello","type":"bye",` + rest + `}`,
		"trailing bytes":       `{"v":1,"type":"hello",` + rest + `}{}`,
	} {
		if p, err := decodePresence([]byte(content)); err == nil {
			t.Errorf("%s: decodePresence = %+v, want an error", name, p)
		} else if !errors.Is(err, errBadPresence) && !errors.Is(err, ErrBadJSON) {
			t.Errorf("%s: decodePresence: %v, want errBadPresence or ErrBadJSON", name, err)
		}
	}
	p, err := decodePresence([]byte(`{"v":1,"type":"hello",` + rest + `,"addrs":["/newer/1","/ip4/10.0.0.1/tcp/1"],"later":[{}]}`))
	if err != nil || len(p.Addrs) != 1 {
		t.Errorf("with an address and a field of a later version: %d addresses, %v, want 1", len(p.Addrs), err)
	}
}

func TestCutAlias(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "ann": "ann", strings.Repeat("a", 64): strings.Repeat("a", 64), strings.Repeat("a", 65): strings.Repeat("a", 64),
		strings.Repeat("a", 63) + "ä": strings.Repeat("a", 63), "\xff": "",
	} {
		if got := cutAlias(in); got != want {
			t.Errorf("cutAlias(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzOpenPresence throws datagrams at the decoder. Seeds are good ones, so that
// the fuzzer gets past the signature by leaving it alone.
func FuzzOpenPresence(f *testing.F) {
	data, err := testPresence().seal(envelopeKey(f, 7))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte(`{"sender":"","content":"","signature":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		sender, p, err := openPresence(data)
		if err == nil && (sender == "" || len(p.Addrs) > presenceAddrsMax || len(p.Want) > wantMax) {
			t.Errorf("openPresence = %q, %+v", sender, p)
		}
	})
}

// FuzzDecodePresence throws contents at the decoder, which an attacker signs
// with a key of his own. What is decoded must survive being sent.
func FuzzDecodePresence(f *testing.F) {
	data, err := testPresence().seal(envelopeKey(f, 7))
	if err != nil {
		f.Fatal(err)
	}
	e, err := DecodeEnvelope(data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.Content)
	f.Add([]byte(`{"v":1,"type":"bye","boot":1,"n":1}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := decodePresence(content)
		if err != nil {
			return
		}
		data, err := p.seal(envelopeKey(t, 7))
		if err != nil {
			t.Fatalf("seal %+v: %v", p, err)
		}
		_, again, err := openPresence(data)
		if err != nil || again.Type != p.Type || again.N != p.N || len(again.Want) != len(p.Want) || again.Alias != p.Alias {
			t.Errorf("decoded %+v, and after sealing %+v, %v", p, again, err)
		}
	})
}
