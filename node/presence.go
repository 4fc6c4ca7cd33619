package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node/internal/lan"
)

// presence is one datagram of the local network: an envelope of kind
// "presence", at most 1,200 bytes, sent to 239.192.42.42 and [ff02::4242], UDP
// port 42042, or by unicast in answer to one. Its content is
//
//	{"v":1,"type":"hello","boot":1795516800000,"n":7,"time":"2026-11-24T08:00:00Z",
//	 "alias":"ann","addrs":["/ip4/10.77.0.2/tcp/24001"],"rev":3,
//	 "want":["0123456789abcdef"],"ask":"…","echo":"…"}
//
// type is one of
//
//	hello  I have just come, or have another address: who is here?
//	here   I am (still) here
//	bye    I am going
//	want   who has a key that begins so? At most 16 prefixes of 8 bytes, in
//	       hexadecimal, of the digest of a name's key or of a content ID
//	have   I have these; in answer to a want
//
// boot is the sender's start in Unix milliseconds, and n counts its datagrams:
// together they grow, so that no datagram counts twice. time is for people:
// clocks are wrong exactly where there is no internet.
//
// addrs, at most 8, are where the sender can be dialled on the link that the
// datagram is sent on. A receiver drops those that are not on that link, and
// takes the datagram's source for an unspecified one (/ip4/0.0.0.0/…). Without
// any, the sender only asks, and is nobody's neighbor. rev changes when what
// the sender offers does.
//
// ask is a nonce, and echo the answer to one: the first 8 bytes, in hexadecimal,
// of SHA-256 over the nonce as it came, a zero byte, and the peer ID of who asked
// for it. A sender is believed once it has echoed a nonce that it alone was asked
// for, by unicast, in the last ten to twenty seconds: that it signed a datagram
// proves neither when nor where. What is in a have may be tried before: it is a
// hint, and the nonce of the question will do.
//
//	A → all  hello, ask a               or here, when the hello was lost
//	B → A    here, echo of a, ask b
//	A → B    here, echo of b, ask c     B believes A
//	B → A    here, echo of c            A believes B
//
// All but type, boot and n may be absent. Unknown fields are ignored; so is a
// datagram of another version or an unknown type.
type presence struct {
	Type  presenceType
	Boot  int64 // Unix milliseconds, > 0
	N     int64 // > 0
	Time  time.Time
	Alias string // at most aliasMax bytes of UTF-8: hostile text
	Addrs []ma.Multiaddr
	Rev   int64
	Want  []keyPrefix
	Ask   string // nonces are at most nonceMax bytes; empty: none
	Echo  string
}

type presenceType string

const (
	presenceHello presenceType = "hello"
	presenceHere  presenceType = "here"
	presenceBye   presenceType = "bye"
	presenceWant  presenceType = "want"
	presenceHave  presenceType = "have"
)

// keyPrefix is how the digest of a key begins.
type keyPrefix [8]byte

// Limits of a presence.
const (
	presenceVersion  = 1
	aliasMax         = 64
	presenceAddrsMax = 8
	presenceAddrMax  = 128 // characters of one address
	wantMax          = 16
	nonceMax         = 32
)

type presenceJSON struct {
	V     int      `json:"v"`
	Type  string   `json:"type"`
	Boot  int64    `json:"boot"`
	N     int64    `json:"n"`
	Time  string   `json:"time"`
	Alias string   `json:"alias,omitempty"`
	Addrs []string `json:"addrs,omitempty"`
	Rev   int64    `json:"rev,omitempty"`
	Want  []string `json:"want,omitempty"`
	Ask   string   `json:"ask,omitempty"`
	Echo  string   `json:"echo,omitempty"`
}

var errBadPresence = errors.New("bad presence")

// seal signs p as a datagram.
func (p presence) seal(key crypto.PrivKey) ([]byte, error) { return p.sealWithin(key, lan.DatagramMax) }

// sealWithin is seal for a datagram of at most max bytes, as far as that is to be
// had by leaving out addresses, the last first.
func (p presence) sealWithin(key crypto.PrivKey, max int) ([]byte, error) {
	j := presenceJSON{V: presenceVersion, Type: string(p.Type), Boot: p.Boot, N: p.N,
		Time: p.Time.UTC().Format(time.RFC3339), Alias: p.Alias, Rev: p.Rev, Ask: p.Ask, Echo: p.Echo}
	for _, w := range p.Want {
		j.Want = append(j.Want, hex.EncodeToString(w[:]))
	}
	for _, a := range p.Addrs[:min(len(p.Addrs), presenceAddrsMax)] {
		j.Addrs = append(j.Addrs, a.String())
	}
	for {
		content, err := json.Marshal(j)
		if err != nil {
			return nil, err
		}
		e, err := Seal(key, KindPresence, content)
		if err != nil {
			return nil, err
		}
		data := e.Encode()
		if len(data) <= max || len(j.Addrs) == 0 {
			return data, nil
		}
		j.Addrs = j.Addrs[:len(j.Addrs)-1]
	}
}

// openPresence checks and decodes a datagram.
func openPresence(data []byte) (sender peer.ID, p presence, err error) {
	e, err := DecodeEnvelope(data)
	if err != nil {
		return "", p, err
	}
	content, err := e.Open(KindPresence)
	if err != nil {
		return "", p, err
	}
	p, err = decodePresence(content)
	return e.Sender, p, err
}

// echoOf is what answers a nonce that a peer asked for. With its ID in it, nobody
// can have another answer for him. The echo of nothing is nothing.
func echoOf(nonce string, asker peer.ID) string {
	if nonce == "" {
		return ""
	}
	sum := sha256.Sum256(slices.Concat([]byte(nonce), []byte{0}, []byte(asker)))
	return hex.EncodeToString(sum[:8])
}

func decodePresence(content []byte) (presence, error) {
	var j presenceJSON
	if err := DecodeStrict(content, &j); err != nil {
		return presence{}, err
	}
	p := presence{Type: presenceType(j.Type), Boot: j.Boot, N: j.N, Alias: j.Alias, Rev: j.Rev, Ask: j.Ask, Echo: j.Echo}
	if err := j.check(); err != nil {
		return p, fmt.Errorf("%w: %w", errBadPresence, err)
	}
	if j.Time != "" {
		var err error
		if p.Time, err = time.Parse(time.RFC3339, j.Time); err != nil {
			return p, fmt.Errorf("%w: time %.40q", errBadPresence, j.Time)
		}
	}
	for _, s := range j.Addrs {
		if len(s) > presenceAddrMax {
			return p, fmt.Errorf("%w: an address of %d characters", errBadPresence, len(s))
		}
		if a, err := ma.NewMultiaddr(s); err == nil { // a kind we don't know is no fault
			p.Addrs = append(p.Addrs, a)
		}
	}
	for _, s := range j.Want {
		raw, err := hex.DecodeString(s)
		if err != nil || len(raw) != len(keyPrefix{}) {
			return p, fmt.Errorf("%w: key prefix %.40q", errBadPresence, s)
		}
		p.Want = append(p.Want, keyPrefix(raw))
	}
	return p, nil
}

// check applies the limits.
func (j *presenceJSON) check() error {
	switch presenceType(j.Type) {
	case presenceHello, presenceHere, presenceBye, presenceWant, presenceHave:
	default:
		return fmt.Errorf("type %.40q", j.Type)
	}
	switch {
	case j.V != presenceVersion:
		return fmt.Errorf("version %d, not %d", j.V, presenceVersion)
	case j.Boot <= 0 || j.N <= 0:
		return errors.New("boot and n must be positive")
	case len(j.Alias) > aliasMax:
		return fmt.Errorf("an alias of %d bytes", len(j.Alias))
	case len(j.Addrs) > presenceAddrsMax:
		return fmt.Errorf("%d addresses", len(j.Addrs))
	case len(j.Want) > wantMax:
		return fmt.Errorf("%d key prefixes", len(j.Want))
	case len(j.Ask) > nonceMax || len(j.Echo) > nonceMax:
		return errors.New("a nonce is too long")
	}
	return nil
}

// cutAlias shortens an alias to what fits.
func cutAlias(s string) string {
	if !utf8.ValidString(s) {
		return ""
	}
	for len(s) > aliasMax {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
