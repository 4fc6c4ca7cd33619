package share

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// What is the thing that a person asks for, parsed: exactly one of ID, Name
// is set, except in a link, which has both.
type What struct {
	// ID names a content outright; zero when it is to be found by name.
	ID content.ID
	// Name is a bare name, or in a link the name to save under.
	Name Name
	// Kind is told by links of directories; empty when not known.
	Kind Kind
	// Prefix is at least eight hex digits of the ID that is meant, from
	// name#prefix. It selects among candidates and is no proof by itself.
	Prefix string
	// Publisher restricts a name to manifests signed by this peer; empty: any.
	Publisher peer.ID
	// Petname is what stands for the publisher where a person wrote no peer ID; the
	// trust book knows whom it means. Empty: none.
	Petname Petname
	// Group is the petname of a group whose index is to answer; empty: none.
	Group string
	// Peers are addresses to ask first, from a link.
	Peers []peer.AddrInfo
}

// PrefixMin is how many hex digits a name#prefix must have.
const PrefixMin = 8

// ErrBadWhat is returned by ParseWhat for what can't be asked for.
var ErrBadWhat = errors.New("can't be asked for")

const linkScheme = "p2pshare:"

// whatShownMax is how many characters an error shows of what can't be asked for.
const whatShownMax = 120

// ParseWhat reads a person's WHAT in any of its forms:
//
//	b3:HASH, 64 hex digits, a CIDv1        the content itself
//	p2pshare:b3:HASH?name=…&peer=…         a link; see Link
//	PEERID/NAME, PETNAME/NAME              a name as published by that peer
//	@GROUP/NAME                            a name in a group's index
//	NAME#9f3c21ab                          a name, and how its ID begins
//	NAME                                   a bare name
//
// A name that looks like another form is parsed by ParseLiteral. The error
// matches ErrBadWhat, content.ErrInvalidID or ErrBadName.
func ParseWhat(s string) (What, error) {
	switch {
	case strings.HasPrefix(s, linkScheme):
		return parseLink(s)
	case strings.HasPrefix(s, "b3:") || looksLikeID(s):
		id, err := content.Parse(s)
		return What{ID: id}, err
	case strings.HasPrefix(s, "@"):
		group, name, ok := strings.Cut(s[1:], "/")
		if !ok || group == "" {
			return What{}, fmt.Errorf("%w: \"%s\": a name in a group is written @GROUP/NAME", ErrBadWhat, escapeCut(s, whatShownMax))
		}
		if _, err := ParseName(group); err != nil {
			return What{}, fmt.Errorf("%w: no group is called so: %w", ErrBadWhat, err)
		}
		w, err := ParseLiteral(name)
		w.Group = group
		return w, err
	}
	if who, name, ok := strings.Cut(s, "/"); ok {
		publisher, petname, err := parsePublisher(who)
		if err != nil {
			return What{}, fmt.Errorf("%w: \"%s\": %w", ErrBadWhat, escapeCut(s, whatShownMax), err)
		}
		w, err := ParseLiteral(name)
		w.Publisher, w.Petname = publisher, petname
		return w, err
	}
	if i := strings.LastIndexByte(s, '#'); i >= 0 && isHex(s[i+1:]) && len(s)-i-1 >= PrefixMin && len(s)-i-1 <= 2*len(content.ID{}) {
		w, err := ParseLiteral(s[:i])
		w.Prefix = strings.ToLower(s[i+1:])
		return w, err
	}
	return ParseLiteral(s)
}

// parsePublisher reads a peer ID or a petname.
func parsePublisher(who string) (peer.ID, Petname, error) {
	if publisher, err := decodePeer(who); err == nil {
		return publisher, "", nil
	}
	petname, err := ParsePetname(who)
	if err != nil {
		return "", "", fmt.Errorf("\"%s\" is no peer ID, and can be no petname", escapeCut(who, whatShownMax))
	}
	return "", petname, nil
}

// peerTextMax is above the longest text of a peer ID: a CID of 42 bytes in
// multibase base2 is 337 characters. What is longer is refused undecoded,
// because base58 takes time with the square of the length.
const peerTextMax = 512

func decodePeer(s string) (peer.ID, error) {
	if len(s) > peerTextMax {
		return "", errors.New("too long")
	}
	p, err := peer.Decode(s)
	if err == nil && len(p) < peerIDMin {
		err = errors.New("too short: it may have been cut for a line of output")
	}
	return p, err
}

// peerIDMin is the length of a peer ID in bytes, at least: of the multihash of a
// key's SHA-256. How a longer one begins may decode too.
const peerIDMin = 34

// ParsePeerID reads a peer ID in its text form.
func ParsePeerID(s string) (peer.ID, error) { return decodePeer(s) }

// ParseLiteral reads s as a bare name, whatever it looks like.
func ParseLiteral(s string) (What, error) {
	name, err := ParseName(s)
	return What{Name: name}, err
}

// looksLikeID recognises the two bare forms: 64 hex digits, and the CIDv1 of a
// BLAKE3-256 multihash, which always begins the same.
func looksLikeID(s string) bool {
	return len(s) == 64 && isHex(s) || len(s) == 59 && strings.HasPrefix(s, "bafkr4i")
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == "" && s != ""
}

func (w What) String() string {
	switch {
	case w.Name == "":
		return w.ID.String()
	case w.Publisher != "":
		return w.Publisher.String() + "/" + string(w.Name)
	case w.Petname != "":
		return string(w.Petname) + "/" + string(w.Name)
	case w.Group != "":
		return "@" + w.Group + "/" + string(w.Name)
	case w.Prefix != "":
		return string(w.Name) + "#" + w.Prefix
	}
	return string(w.Name)
}

// Limits of a link: what fits on a few lines of a message.
const (
	linkMax      = 4096
	linkPeersMax = 8
)

// Link is a self-contained reference: the ID, a name to save under, and where
// to ask, as in
//
//	p2pshare:b3:9f3c…?name=talk.mp4&peer=/ip4/…/tcp/…/p2p/12D3…
//
// Query keys: name, kind=dir for directories, and peer, repeated. Others are
// ignored, so that later versions can add some.
type Link struct {
	ID    content.ID
	Name  Name
	Kind  Kind
	Peers []peer.AddrInfo
}

func (k Link) String() string {
	var b strings.Builder
	b.WriteString(linkScheme + k.ID.String())
	sep := byte('?')
	add := func(key, value string) {
		b.WriteByte(sep)
		sep = '&'
		b.WriteString(key + "=" + value)
	}
	if k.Name != "" {
		add("name", url.QueryEscape(string(k.Name)))
	}
	if k.Kind == KindDir {
		add("kind", string(KindDir))
	}
	for _, p := range k.Peers {
		addrs, err := peer.AddrInfoToP2pAddrs(&p)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			// Multiaddrs need no escape but these, and stay readable.
			add("peer", strings.NewReplacer("%", "%25", "&", "%26", "+", "%2B", "#", "%23", " ", "%20").Replace(a.String()))
		}
	}
	return b.String()
}

func parseLink(s string) (What, error) {
	bad := func(format string, args ...any) (What, error) {
		return What{}, fmt.Errorf("%w: link: %s", ErrBadWhat, fmt.Sprintf(format, args...))
	}
	if len(s) > linkMax {
		return bad("longer than %d bytes", linkMax)
	}
	idText, query, _ := strings.Cut(strings.TrimPrefix(s, linkScheme), "?")
	id, err := content.Parse(idText)
	if err != nil {
		return What{}, fmt.Errorf("link: %w", err)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return bad("%q is not well formed", Escape(query))
	}
	w := What{ID: id}
	if name := values.Get("name"); name != "" {
		if w.Name, err = ParseName(name); err != nil {
			return What{}, fmt.Errorf("link: %w", err)
		}
	}
	switch kind := Kind(values.Get("kind")); kind {
	case "", KindFile, KindDir:
		w.Kind = kind
	default:
		return bad("unknown kind %q", Escape(string(kind)))
	}
	var addrs []string
	if addrs = values["peer"]; len(addrs) > linkPeersMax {
		return bad("more than %d peers", linkPeersMax)
	}
	for _, text := range addrs { // with an ID, unlike ParsePeers: a link says whom it means
		p, err := peer.AddrInfoFromString(text)
		if err != nil {
			return bad("peer address %q is not a multiaddr like /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…", Escape(text))
		}
		w.Peers = addPeer(w.Peers, *p)
	}
	return w, nil
}
