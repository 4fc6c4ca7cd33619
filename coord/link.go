package coord

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/node"
)

const (
	linkPrefix = "p2pshare-group-"
	linkFormat = 1
	linkPeers  = 5       // members named in a link
	wordMax    = 8 << 10 // bytes of a link or token
)

// Link tells where a group is. It is no secret, and lets nobody in.
type Link struct {
	Group   GroupID
	Epoch   uint64
	Name    string // the group's, for people: hostile text
	Members []peer.AddrInfo
}

// linkJSON is a Link on the wire: linkPrefix and this in unpadded URL base64.
type linkJSON struct {
	V       int           `json:"v"`
	Group   GroupID       `json:"group"`
	Epoch   uint64        `json:"epoch"`
	Name    string        `json:"name"`
	Members []knownMember `json:"members"`
}

// String returns the link as one word.
func (l Link) String() string { return wordOf(linkPrefix, l.json()) }

// ParseLink reads what Link.String returns.
func ParseLink(s string) (Link, error) {
	var w linkJSON
	if err := parseWord(s, linkPrefix, "link of a group", &w, &w); err != nil {
		return Link{}, err
	}
	return w.link("link of a group")
}

func (l Link) json() linkJSON {
	w := linkJSON{V: linkFormat, Group: l.Group, Epoch: l.Epoch, Name: l.Name}
	for _, m := range l.Members {
		k := knownMember{Peer: pinset.Peer(m.ID.String())}
		for _, a := range m.Addrs {
			k.Addrs = append(k.Addrs, a.String())
		}
		w.Members = append(w.Members, k)
	}
	return w
}

// link checks what was read of a stranger's word.
func (w linkJSON) link(what string) (Link, error) {
	l := Link{Group: w.Group, Epoch: w.Epoch, Name: w.Name}
	if len(w.Name) > pinset.NameBytesMax || !utf8.ValidString(w.Name) || len(w.Members) > linkPeers ||
		w.Epoch < 1 || w.Epoch > pinset.IntMax {
		return Link{}, fmt.Errorf("the %s is cut or changed: a field is beyond its limit", what)
	}
	for _, k := range w.Members {
		info, err := k.info()
		if err != nil || len(k.Addrs) > pinset.AddrsMax {
			return Link{}, fmt.Errorf("the %s is cut or changed: a member in it is no peer", what)
		}
		l.Members = append(l.Members, info)
	}
	return l, nil
}

func wordOf(prefix string, v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // there is nothing in it that JSON can't hold
	}
	return prefix + base64.RawURLEncoding.EncodeToString(data)
}

// parseWord reads a word into v, whose linkJSON is head.
func parseWord(s, prefix, what string, v any, head *linkJSON) error {
	text, ok := strings.CutPrefix(s, prefix)
	if !ok || len(s) > wordMax {
		return fmt.Errorf("%.40q is no %s: one begins with %s and has at most %d bytes", s, what, prefix, wordMax)
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = node.DecodeStrict(data, v)
	}
	switch {
	case err != nil:
		return fmt.Errorf("the %s is cut or changed: %w", what, err)
	case head.V != linkFormat:
		return fmt.Errorf("the %s is of version %d, this program reads %d: use a newer p2pshare", what, head.V, linkFormat)
	}
	return nil
}

func (k knownMember) info() (peer.AddrInfo, error) {
	id, err := peer.Decode(string(k.Peer))
	if err != nil {
		return peer.AddrInfo{}, err
	}
	info := peer.AddrInfo{ID: id}
	for _, a := range k.Addrs {
		if m, err := ma.NewMultiaddr(a); err == nil {
			info.Addrs = append(info.Addrs, m)
		}
	}
	return info, nil
}

// Link returns where the group is, for a peer that would follow or join it.
func (cl *Client) Link(ctx context.Context) (Link, error) {
	members, _, err := cl.Members(ctx, ReadOptions{})
	if err != nil {
		return Link{}, err
	}
	status, _, err := cl.Status(ctx)
	if err != nil {
		return Link{}, err
	}
	l := Link{Group: cl.group, Epoch: status.Epoch, Name: status.Name}
	// Voters first: they are who can let somebody in.
	slices.SortStableFunc(members, func(a, b Member) int { return int(b.Vote) - int(a.Vote) })
	for _, m := range members[:min(len(members), linkPeers)] {
		info, err := (knownMember{m.Peer, m.Addrs}).info()
		if err != nil {
			return Link{}, fmt.Errorf("member %.80q: %w", string(m.Peer), err)
		}
		l.Members = append(l.Members, info)
	}
	return l, nil
}
