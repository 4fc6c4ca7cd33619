package content

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"
	"github.com/multiformats/go-multihash"
)

// helloHex is what b3sum prints for the five bytes of "hello".
const helloHex = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"

func helloID(t testing.TB) ID {
	t.Helper()
	var id ID
	if _, err := hex.Decode(id[:], []byte(helloHex)); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestParseAcceptsEverySpelling(t *testing.T) {
	want := helloID(t)
	if got := Root([]byte("hello")); got != want {
		t.Fatalf("Root(hello) = %s, want %s", got, want)
	}
	tests := map[string]string{
		"own":            "b3:" + helloHex,
		"own upper case": "b3:" + strings.ToUpper(helloHex),
		"bare":           helloHex,
		"bare mixed":     strings.ToUpper(helloHex[:32]) + helloHex[32:],
		"CID":            "bafkr4ihkr4ld3m4gqkjf4reryxsy2s5tkbxprqkow6fin2iiyvreuzzab4",
	}
	c := cid.NewCidV1(cid.Raw, want.Multihash())
	for _, base := range []multibase.Encoding{
		multibase.Base2, multibase.Base16, multibase.Base16Upper, multibase.Base32, multibase.Base32Upper,
		multibase.Base32pad, multibase.Base36, multibase.Base58BTC, multibase.Base64, multibase.Base64url,
	} {
		s, err := c.StringOfBase(base)
		if err != nil {
			t.Fatal(err)
		}
		tests["CID in "+multibase.EncodingToStr[base]] = s
	}
	for name, s := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := Parse(s); err != nil || got != want {
				t.Errorf("Parse(%q) = %s, %v, want %s", s, got, err, want)
			}
		})
	}
}

func TestIDSpellings(t *testing.T) {
	id := helloID(t)
	for _, tt := range []struct{ name, got, want string }{
		{"String", id.String(), "b3:" + helloHex},
		{"Hex", id.Hex(), helloHex},
		{"Short", id.Short(), "ea8f163d"},
		{"CID", id.CID(), "bafkr4ihkr4ld3m4gqkjf4reryxsy2s5tkbxprqkow6fin2iiyvreuzzab4"},
		{"Multihash", id.Multihash().HexString(), "1e20" + helloHex},
	} {
		if tt.got != tt.want {
			t.Errorf("%s() = %s, want %s", tt.name, tt.got, tt.want)
		}
	}
	if id.IsZero() || !(ID{}).IsZero() {
		t.Errorf("IsZero() = %t and %t of the zero ID, want false and true", id.IsZero(), ID{}.IsZero())
	}
}

func TestParseRefuses(t *testing.T) {
	id := helloID(t)
	sha, err := multihash.Encode(id[:], multihash.SHA2_256)
	if err != nil {
		t.Fatal(err)
	}
	short, err := multihash.Encode(id[:20], multihash.BLAKE3)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"nothing":           "",
		"a file name":       "movie.mkv",
		"prefix alone":      "b3:",
		"prefix twice":      "b3:b3:" + helloHex,
		"another prefix":    "b2:" + helloHex,
		"one digit less":    "b3:" + helloHex[1:],
		"one digit more":    "b3:" + helloHex + "0",
		"not hex":           "b3:" + helloHex[:63] + "g",
		"bare, digit less":  helloHex[1:],
		"space before":      " b3:" + helloHex,
		"newline after":     "b3:" + helloHex + "\n",
		"CID after prefix":  "b3:" + id.CID(),
		"CID cut":           id.CID()[:40],
		"CID longer":        id.CID() + "aa",
		"CID in a path":     "/ipfs/" + id.CID(),
		"CIDv0":             cid.NewCidV0(sha).String(),
		"CID of sha2-256":   cid.NewCidV1(cid.Raw, sha).String(),
		"CID of dag-pb":     cid.NewCidV1(cid.DagProtobuf, id.Multihash()).String(),
		"CID of short hash": cid.NewCidV1(cid.Raw, short).String(),
		"too long":          "z" + strings.Repeat("1", 1<<20),
		"not text":          "\xff\x00\n\u2028",
	}
	for name, s := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(s)
			if !got.IsZero() {
				t.Errorf("Parse(%.100q) = %s, want the zero ID", s, got)
			}
			checkParseError(t, s, err)
		})
	}
}

// checkParseError checks that err is fit to be shown to a person who typed s.
func checkParseError(t *testing.T, s string, err error) {
	t.Helper()
	if !errors.Is(err, ErrInvalidID) {
		t.Fatalf("Parse(%.100q) error = %v, want ErrInvalidID", s, err)
	}
	text := err.Error()
	if strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("Parse(%.100q) error = %q, want one line", s, text)
	}
	if !strings.Contains(text, "want b3:") || !strings.HasPrefix(text, `"`) {
		t.Errorf("Parse(%.100q) error = %q, want the input quoted and what is accepted", s, text)
	}
	if len(text) > 1200 { // 80 runes, each at most 10 bytes when quoted
		t.Errorf("Parse(%.100q) error has %d bytes, want the input cut", s, len(text))
	}
}

func TestParseErrorReads(t *testing.T) {
	_, err := Parse("movie.mkv")
	want := `"movie.mkv" is not a content ID: neither hex nor a CID; want b3: and 64 hex digits, or a CIDv1 of raw bytes and BLAKE3-256 (bafkr4i…)`
	if err == nil || err.Error() != want {
		t.Errorf("Parse(movie.mkv) error = %v, want %s", err, want)
	}
}

func TestFromMultihashTakesOnlyBlake3Of32Bytes(t *testing.T) {
	id := helloID(t)
	if got, err := FromMultihash(id.Multihash()); err != nil || got != id {
		t.Errorf("FromMultihash(%x) = %s, %v, want %s", []byte(id.Multihash()), got, err, id)
	}
	bad := map[string][]byte{
		"nil":           nil,
		"no digest":     {0x1e, 0x20},
		"digest cut":    id.Multihash()[:33],
		"digest longer": append(id.Multihash(), 0),
		"short digest":  append([]byte{0x1e, 20}, id[:20]...),
		"long digest":   append([]byte{0x1e, 33, 0}, id[:]...),
		"sha2-256":      append([]byte{0x12, 32}, id[:]...),
		"long varint":   append([]byte{0x9e, 0x00, 32}, id[:]...),
	}
	for name, mh := range bad {
		if got, err := FromMultihash(mh); !errors.Is(err, ErrInvalidID) || !got.IsZero() {
			t.Errorf("%s: FromMultihash(%x) = %s, %v, want ErrInvalidID", name, mh, got, err)
		}
	}
}

func TestIDInJSONHasOneSpelling(t *testing.T) {
	type document struct{ ID ID }
	want := document{helloID(t)}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := `{"ID":"b3:` + helloHex + `"}`; string(text) != got {
		t.Errorf("Marshal = %s, want %s", text, got)
	}
	var got document
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("Unmarshal(%s) = %v, %v, want %v", text, got, err, want)
	}
	for _, s := range []string{"", "b3:", helloHex, "b3:" + strings.ToUpper(helloHex), want.ID.CID(), "b3:" + helloHex + "00"} {
		got := want.ID
		if err := got.UnmarshalText([]byte(s)); !errors.Is(err, ErrInvalidID) || got != want.ID {
			t.Errorf("UnmarshalText(%q) = %s, %v, want ErrInvalidID and no change", s, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	id := helloID(f)
	for _, s := range []string{"", "b3:", id.String(), id.Hex(), id.CID(), strings.ToUpper(id.Hex()),
		"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG", "f01551e20" + id.Hex(), "mAVUeIA", "\x00\x01\x55\x1e\x20"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err != nil {
			checkParseError(t, s, err)
			return
		}
		for _, spelling := range []string{id.String(), id.Hex(), id.CID()} {
			if again, err := Parse(spelling); err != nil || again != id {
				t.Errorf("Parse(%q) = %s, %v, want %s as from %q", spelling, again, err, id, s)
			}
		}
		if again, err := FromMultihash(id.Multihash()); err != nil || again != id {
			t.Errorf("FromMultihash(%x) = %s, %v, want %s", []byte(id.Multihash()), again, err, id)
		}
		text, _ := id.MarshalText()
		var again ID
		if err := again.UnmarshalText(text); err != nil || again != id || !bytes.Equal(text, []byte(id.String())) {
			t.Errorf("UnmarshalText(%q) = %s, %v, want %s", text, again, err, id)
		}
	})
}
