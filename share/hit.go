package share

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// Hit is one content that a Search found.
type Hit struct {
	ID   content.ID `json:"id"`
	Name Name       `json:"name"` // as most networks, or the first of those, tell it; hostile: escape it before showing
	Kind Kind       `json:"kind"`
	Size int64      `json:"size"`
	// Note is what the most trusted of its publishers that has one says of it; of those
	// that are alike in that, the first heard. Hostile: escape it before showing.
	Note string `json:"note,omitempty"`
	// Words are those of the query that the name has, sorted.
	Words []string `json:"words"`
	// Publishers are whose signed manifests name it, 16 at most.
	Publishers []peer.ID `json:"publishers"`
	// Networks is in how many networks, /24 of IPv4 and /48 of IPv6, those are that
	// told of it, this machine's being one: a thousand publishers in one are one.
	Networks int `json:"networks"`
	// Tier is how much its publishers are trusted, as that of a Candidate: 0 for this
	// peer's own shares, 1 for a group's names, 2 for publishers that have a petname.
	Tier int `json:"tier"`
	// Where says where it was found: "local", "group NAME", "lan", "dht", and "peer" for
	// one that was named.
	Where []string `json:"where"`
	// Reachable: somebody who has it answered, and nothing has shown since that it can't
	// be had.
	Reachable bool `json:"reachable"`
	// Verified: one chunk group of it was fetched and is right, or it is here.
	Verified bool `json:"verified"`
	// Mixed names the scripts that a word of the name mixes so that it may look like
	// another name; empty: none.
	Mixed string `json:"mixed,omitempty"`
	// Like is another name that was found, or one of the trust book, which this one
	// looks like; set by whoever shows several.
	Like Name `json:"like,omitempty"`

	holders  []peer.AddrInfo
	networks []netip.Prefix
	names    []spelling
	noteTier int         // of who says Note
	failed   bool        // it was tried, and can't be had
	current  bool        // a publisher tells it itself, or it is here
	versions []published // of publishers' names
}

// spelling is one name of a content, and the networks that tell it.
type spelling struct {
	name     Name
	networks []netip.Prefix
}

const (
	// hitPublishersMax is how many publishers of one content are kept.
	hitPublishersMax = 16
	// hitPublishersOfOne is how many publishers of one content a single peer may tell.
	hitPublishersOfOne = 4
	// hitNamesMax is how many names of one content are kept.
	hitNamesMax = 8
	// hitHoldersMax is how many peers that have it are kept.
	hitHoldersMax = 16
	// hitsMax is how many contents one search keeps.
	hitsMax = 2000
)

// told is what one peer says of one content.
type told struct {
	manifest Manifest
	by       peer.AddrInfo
	network  netip.Prefix // that it is seen in
	where    string
	tier     int
}

// take adds what a peer says.
func (h *Hit) take(t told) {
	m := t.manifest
	h.Kind, h.Size = cmp.Or(h.Kind, m.Kind), m.Size
	h.Tier = min(h.Tier, t.tier)
	if m.Note != "" && (h.Note == "" || t.tier < h.noteTier) {
		h.Note, h.noteTier = m.Note, t.tier
	}
	h.addPublisher(m.Publisher)
	if !slices.Contains(h.Where, t.where) {
		h.Where = append(h.Where, t.where)
	}
	if !slices.ContainsFunc(h.holders, func(p peer.AddrInfo) bool { return p.ID == t.by.ID }) && len(h.holders) < hitHoldersMax {
		h.holders = append(h.holders, t.by)
	}
	h.networks = withNetwork(h.networks, t.network)
	h.Networks = len(h.networks)
	h.Reachable = h.Reachable || !h.failed
	h.spell(m.Name, t.network)
}

func (h *Hit) addPublisher(p peer.ID) {
	if !slices.Contains(h.Publishers, p) && len(h.Publishers) < hitPublishersMax {
		h.Publishers = append(h.Publishers, p)
	}
}

func withNetwork(list []netip.Prefix, n netip.Prefix) []netip.Prefix {
	if slices.Contains(list, n) {
		return list
	}
	return append(list, n)
}

// spell counts a network for a name, and shows the name that most tell.
func (h *Hit) spell(n Name, network netip.Prefix) {
	i := slices.IndexFunc(h.names, func(s spelling) bool { return s.name == n })
	if i < 0 {
		if len(h.names) == hitNamesMax {
			return
		}
		i = len(h.names)
		h.names = append(h.names, spelling{name: n})
	}
	h.names[i].networks = withNetwork(h.names[i].networks, network)
	best := 0
	for i, s := range h.names {
		if len(s.networks) > len(h.names[best].networks) {
			best = i
		}
	}
	h.Name = h.names[best].name
	h.Mixed = strings.Join(MixedScripts(string(h.Name)), ", ")
}

// rankHits puts the best first: what is trusted more, what can be had, what is told from
// more networks. Of those that are alike in that, each network has its first before any
// has its second: who publishes five hundred from one takes one place, and not the first
// five hundred. Then what has fewer other words in its name, and then by name.
func rankHits(hits []Hit) {
	words := map[content.ID]int{}
	for _, h := range hits {
		words[h.ID] = len(wordsOf(h.Name.Lookup()))
	}
	like := func(a, b Hit) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), falseLast(a.Reachable, b.Reachable),
			falseLast(a.Verified, b.Verified), cmp.Compare(b.Networks, a.Networks))
	}
	near := func(a, b Hit) int {
		return cmp.Or(cmp.Compare(words[a.ID], words[b.ID]), cmp.Compare(a.Name.Lookup(), b.Name.Lookup()), bytes.Compare(a.ID[:], b.ID[:]))
	}
	slices.SortFunc(hits, func(a, b Hit) int { return cmp.Or(like(a, b), near(a, b)) })
	for start := 0; start < len(hits); {
		end := start + 1
		for end < len(hits) && like(hits[start], hits[end]) == 0 {
			end++
		}
		takeTurns(hits[start:end])
		start = end
	}
}

func falseLast(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// takeTurns orders hits by how many of the same networks stand before each; the order
// stays otherwise.
func takeTurns(hits []Hit) {
	before := map[netip.Prefix]int{}
	turn := make(map[content.ID]int, len(hits))
	for _, h := range hits {
		t := 0
		for _, n := range h.networks {
			t = max(t, before[n])
			before[n]++
		}
		turn[h.ID] = t
	}
	slices.SortStableFunc(hits, func(a, b Hit) int { return turn[a.ID] - turn[b.ID] })
}

// clone is a copy that the one it was made of does not change any more.
func (h *Hit) clone() Hit {
	c := *h
	c.Words, c.Publishers, c.Where = slices.Clone(h.Words), slices.Clone(h.Publishers), slices.Clone(h.Where)
	c.holders, c.networks = slices.Clone(h.holders), slices.Clone(h.networks)
	c.names, c.versions = nil, nil
	return c
}

// whereLocal and its like are what Hit.Where says.
const (
	whereLocal = "local"
	whereGroup = "group "
	whereLAN   = "lan"
	whereDHT   = "dht"
	wherePeer  = "peer"
)
