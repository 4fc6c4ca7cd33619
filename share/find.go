package share

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

const (
	// searchMax bounds a search for a name. A DHT lookup over live peers takes
	// well under a second even at 160 ms round trips; five seconds leave room
	// for one dial that is never answered, and are about as long as a person
	// waits before asking why nothing happens.
	searchMax = 5 * time.Second
	// searchAfterFirst is how long others may still contradict the first
	// answer from the DHT.
	searchAfterFirst = time.Second
	// lanAfterFirst is how long other neighbors may still contradict the first
	// that answers, and the least time that the local network has when another
	// source has answered: an answer takes a millisecond or two, and a tenth of a
	// second to a radio that sleeps.
	lanAfterFirst = 150 * time.Millisecond
	// lanSearchMax is how long the local network is listened to when nobody there
	// answers.
	lanSearchMax = time.Second
	// searchAgain is when a search that has found nothing asks once more: after
	// a bootstrap peer's restart its peers, and their records, are back within
	// this time.
	searchAgain = time.Second
	// askedMax is how many peers one search asks that the DHTs name, and how many
	// that the local network does: a name can be flooded.
	askedMax = 64
	// askParallel is how many are asked at a time that the DHTs name. Neighbors are all
	// asked at once: each is near, the time for their answers is short, and those that
	// say nothing would keep others from their turn.
	askParallel = 16
	// askMax bounds one peer's dial and answer.
	askMax = 4 * time.Second
)

// FindOptions are the options of one Find.
type FindOptions struct {
	Peers    []peer.AddrInfo // asked first
	From     peer.ID         // believe only manifests signed by it; empty: anybody's
	Any      bool            // groups and publishers that can't be asked don't matter
	NoGroups bool            // do not ask groups
	// AcceptChange takes what a tier above an earlier choice says now, instead of
	// returning both.
	AcceptChange bool
	Progress     func(Progress) // may be nil

	trail *trail
}

// Candidate is one content that claims a name.
type Candidate struct {
	ID         content.ID `json:"id"`
	Name       Name       `json:"name"` // as its newest manifest spells it
	Kind       Kind       `json:"kind"`
	Size       int64      `json:"size"`            // as its newest manifest says
	Note       string     `json:"note,omitempty"`  // as its newest manifest says: hostile, escape it before showing
	Publishers []peer.ID  `json:"publishers"`      // whose signed manifests name it
	Tier       int        `json:"tier"`            // DESIGN's tiers of trust; 3: strangers
	Reachable  bool       `json:"reachable"`       // somebody who holds it answered
	Group      string     `json:"group,omitempty"` // that names it, by local name, at tier 1
	// Networks is in how many networks, /24 of IPv4 and /48 of IPv6, those are that
	// told of it: a thousand publishers on one machine are one.
	Networks int `json:"networks"`
	// FirstSeen is when this peer first met this content under this name; set where a
	// person has to choose.
	FirstSeen time.Time `json:"first_seen,omitzero"`
	// Mixed names the scripts that a word of the name mixes so that it may look like
	// another name; empty: none.
	Mixed string `json:"mixed,omitempty"`
	// Like is a name of the trust book that this one looks like, and is not; set where
	// it was looked for.
	Like Name `json:"like,omitempty"`

	holders  []peer.AddrInfo // who answered with its manifest
	via      node.Via        // how the first of them is reached
	networks []netip.Prefix  // that they are in
	present  []peer.ID       // publishers that told it themselves
	signed   map[peer.ID]Manifest
	indexed  *Indexed      // the group's entry, at tier 1
	strange  bool          // a choice among strangers decided, at tier 0
	held     time.Time     // when it was got: it is what is remembered, and nobody told it now
	manifest Manifest      // the newest
	envelope node.Envelope // that it came in
}

// searchReport says where a search looked and what went wrong there.
type searchReport struct {
	lan       bool // the local network was asked
	dht       bool // a DHT was asked
	dhtPeers  int
	announced int  // providers that were named
	asked     int  // peers that answered
	partial   bool // more were named than are asked
	dialErr   error
	corrupt   []*CorruptError
}

// Find settles which contents a name may mean: those of the highest tier of DESIGN
// §4 that answers, or where an earlier choice is contradicted by a tier above it,
// the contents of both. Each publisher counts with its newest manifest only. It
// returns ErrNotFound, ErrUnreachable or ErrCorrupt when there is none, and any
// number of candidates otherwise; it chooses none.
func (l *Library) Find(ctx context.Context, w What, o FindOptions) ([]Candidate, error) {
	f, err := l.find(ctx, w, o, newMeter(o.Progress, PhaseLocal))
	defer f.end()
	if f.choice != nil && f.work != nil && f.work.trust.strange(*f.choice) {
		for i := range f.candidates {
			f.candidates[i].strange = true
		}
	}
	return f.candidates, err
}

// candidates groups the claims of those publishers that which accepts by content.
// A content's holders are all that told of it, whoever signed that.
func (s *search) candidates(which func(peer.ID) bool, tier int) []Candidate {
	s.mu.Lock()
	defer s.mu.Unlock()
	byID := map[content.ID]*Candidate{}
	for publisher, claims := range s.newest {
		for _, c := range claims {
			if !which(publisher) || !strings.HasPrefix(c.manifest.ID.Hex(), s.prefix) {
				continue
			}
			k := byID[c.manifest.ID]
			if k == nil {
				k = &Candidate{ID: c.manifest.ID, Tier: tier, via: c.via}
				byID[c.manifest.ID] = k
			}
			k.take(publisher, c)
		}
	}
	for _, claims := range s.newest {
		for _, c := range claims {
			if k := byID[c.manifest.ID]; k != nil {
				k.holdersOf(c)
			}
		}
	}
	found := make([]Candidate, 0, len(byID))
	for _, k := range byID {
		slices.Sort(k.Publishers)
		k.Networks = len(k.networks)
		k.Reachable = len(k.holders) > 0 // whoever holds it has just answered
		found = append(found, *k)
	}
	slices.SortFunc(found, compareCandidates)
	return found
}

// take adds what one publisher says.
func (k *Candidate) take(publisher peer.ID, c claim) {
	if m := c.manifest; m.Issued.After(k.manifest.Issued) || k.Name == "" {
		k.Name, k.Kind, k.Size, k.Note, k.manifest, k.envelope = m.Name, m.Kind, m.Size, m.Note, m, c.envelope
		k.Mixed = strings.Join(MixedScripts(string(m.Name)), ", ")
	}
	k.Publishers = append(k.Publishers, publisher)
	if c.itself {
		k.present = append(k.present, publisher)
	}
	if k.signed == nil {
		k.signed = map[peer.ID]Manifest{}
	}
	k.signed[publisher] = c.manifest
}

// holdersOf adds who told a claim.
func (k *Candidate) holdersOf(c claim) {
	all := claim{holders: k.holders, via: k.via, networks: k.networks}
	all.join(c)
	k.holders, k.via, k.networks = all.holders, all.via, all.networks
}

// compareCandidates puts first what is trusted more, what can be had, and what is
// claimed from more networks.
func compareCandidates(a, b Candidate) int {
	reach := func(c Candidate) int {
		if c.Reachable {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(reach(a), reach(b)),
		cmp.Compare(b.Networks, a.Networks), bytes.Compare(a.ID[:], b.ID[:]))
}

// verdict says why there is no candidate.
func (s *search) verdict(w What) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	what := fmt.Sprintf("%q", Escape(w.String()))
	refused := 0
	for _, n := range s.outdated {
		refused += n
	}
	switch {
	case len(r.corrupt) > 0:
		return fmt.Errorf("%s: %w", what, r.corrupt[0])
	case refused > 0:
		return fmt.Errorf("%s: only versions older than the one that was got here before are offered: %w", what, ErrRefused)
	case r.asked == 0 && r.dialErr != nil:
		return fmt.Errorf("%s: %w: %w", what, ErrUnreachable, r.dialErr)
	case w.Prefix != "" && len(s.newest) > 0:
		return fmt.Errorf("%s: %d publishers use this name, and no ID begins so: %w", what, len(s.newest), ErrNotFound)
	}
	return fmt.Errorf("%s: %s: %w", what, s.library.searched(r), ErrNotFound)
}

// searched says where nobody was found.
func (l *Library) searched(r searchReport) string {
	switch {
	case !r.dht && r.asked == 0 && r.lan:
		return "nobody on the local network has it, and " + l.noDHT()
	case !r.dht && r.asked == 0:
		return "nobody to ask, " + l.noDHT()
	case !r.dht:
		return "asked " + count(r.asked, "peer") + ", and no DHT"
	}
	where := "the DHT"
	if r.lan {
		where = "the local network and the DHT"
	}
	partial := ""
	if r.partial {
		partial = fmt.Sprintf("; partial: %d of them are asked", askedMax)
	}
	return fmt.Sprintf("asked %s (%s connected), %s named%s", where, count(r.dhtPeers, "peer"), count(r.announced, "provider"), partial)
}

// noDHT says why no DHT was asked.
func (l *Library) noDHT() string {
	switch n := l.node.BootstrapPeers(); n {
	case 0:
		return "no bootstrap peer is known"
	case 1:
		return "the bootstrap peer does not answer"
	default:
		return fmt.Sprintf("none of %d bootstrap peers answers", n)
	}
}

// count is a number of things in words.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
