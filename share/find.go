package share

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
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
	// askParallel is how many of each are asked at a time. Whoever is on the local
	// network answers first: with one number for both, it could take all.
	askParallel = 16
	// askMax bounds one peer's dial and answer.
	askMax = 4 * time.Second
)

// FindOptions are the options of one Find.
type FindOptions struct {
	Peers    []peer.AddrInfo // asked first
	From     peer.ID         // believe only manifests signed by it; empty: anybody's
	Any      bool            // do not ask groups
	Progress func(Progress)  // may be nil
}

// Candidate is one content that claims a name.
type Candidate struct {
	ID         content.ID `json:"id"`
	Name       Name       `json:"name"` // as its newest manifest spells it
	Kind       Kind       `json:"kind"`
	Size       int64      `json:"size"`            // as its newest manifest says
	Publishers []peer.ID  `json:"publishers"`      // whose signed manifests name it
	Tier       int        `json:"tier"`            // DESIGN's tiers of trust; 3: strangers
	Reachable  bool       `json:"reachable"`       // somebody who holds it answered
	Group      string     `json:"group,omitempty"` // that names it, by local name, at tier 1

	holders  []peer.AddrInfo // who answered with its manifest
	via      node.Via        // how the first of them is reached
	indexed  *Indexed        // the group's entry, at tier 1
	manifest Manifest        // the newest
	envelope node.Envelope   // that it came in
}

// tierStrangers is DESIGN §4's lowest tier: LAN and DHT together.
const tierStrangers = 3

// searchReport says where a search looked and what went wrong there.
type searchReport struct {
	lan       bool // the local network was asked
	dht       bool // a DHT was asked
	dhtPeers  int
	announced int // providers that were named
	asked     int // peers that answered
	dialErr   error
	corrupt   []*CorruptError
}

// Find collects the contents that claim w's name, from the peers that provide
// its key: each publisher counts with its newest manifest only. It returns
// ErrNotFound, ErrUnreachable or ErrCorrupt when there is none, and any number
// of candidates, ordered by ID, otherwise; it chooses none.
func (l *Library) Find(ctx context.Context, w What, o FindOptions) ([]Candidate, error) {
	found, _, err := l.find(ctx, w, o, newMeter(o.Progress, PhaseLocal))
	return found, err
}

// find is Find, and tells which peers answered with what must not be believed.
func (l *Library) find(ctx context.Context, w What, o FindOptions, m *meter) (found []Candidate, liars []peer.ID, err error) {
	if w.Group != "" || w.Publisher == "" && o.From == "" && !o.Any {
		if found, err = l.findIndexed(ctx, w, m); err != nil || len(found) > 0 || w.Group != "" {
			return found, nil, err
		}
	}
	if w.Publisher != "" {
		o.From = w.Publisher
	}
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, l.cfg.SearchMax)
	defer cancel()
	s := &search{
		library: l, name: w.Name, prefix: w.Prefix, from: o.From, meter: m,
		newest: map[peer.ID]claim{}, seen: map[peer.ID]bool{l.node.ID(): true},
		wide: askers{slots: make(chan struct{}, askParallel)}, near: askers{slots: make(chan struct{}, askParallel)},
	}
	s.first = sync.OnceFunc(func() { time.AfterFunc(searchAfterFirst, cancel) })
	lan, lanEnd := context.WithCancel(ctx)
	defer lanEnd()
	s.lan, s.anyone = lan, sync.OnceFunc(func() { time.AfterFunc(lanAfterFirst, lanEnd) })
	if err := s.askLocal(); err != nil {
		return nil, nil, err
	}
	peers := slices.Concat(o.Peers, w.Peers)
	again := time.After(searchAgain)
	s.askAll(ctx, peers)
	if s.fruitless() {
		select {
		case <-again:
			s.forget()
			s.askAll(ctx, peers)
		case <-ctx.Done():
		}
	}
	if err := whole.Err(); err != nil {
		return nil, nil, err
	}
	for _, e := range s.report.corrupt {
		liars = append(liars, e.Peer)
	}
	if found = s.candidates(w.Prefix); len(found) == 0 {
		err = s.verdict(w)
	}
	return found, liars, err
}

// claim is a publisher's newest manifest for the name, and who told it.
type claim struct {
	manifest Manifest
	envelope node.Envelope
	holders  []peer.AddrInfo
	via      node.Via
}

// search is one Find at work.
type search struct {
	library *Library
	name    Name
	prefix  string // how the ID that is meant begins; empty: any
	from    peer.ID
	meter   *meter
	first   func()          // called at the first claim from a network
	anyone  func()          // called at the first claim of another peer
	lan     context.Context // of the local network's part; ends lanAfterFirst after that

	mu     sync.Mutex        // guards all below
	newest map[peer.ID]claim // by publisher
	seen   map[peer.ID]bool  // asked or being asked
	report searchReport
	wide   askers // of peers that were given or that a DHT names
	near   askers // of the local network's
}

// askers are those of one origin that are asked.
type askers struct {
	slots chan struct{} // capacity askParallel; not guarded
	named int           // guarded by search.mu
}

// askLocal takes up what this peer shares under the name itself.
func (s *search) askLocal() error {
	records, err := s.library.catalog.byName(nameDigest(s.name), metaManifestsMax)
	if err != nil {
		return err
	}
	self := peer.AddrInfo{ID: s.library.node.ID()}
	for _, r := range records {
		if r.Envelope == nil || !s.library.servable(r) {
			continue
		}
		m, err := OpenManifest(*r.Envelope, time.Now())
		if err == nil && (s.from == "" || m.Publisher == s.from) {
			s.claim(claim{m, *r.Envelope, []peer.AddrInfo{self}, ViaLocal})
		}
	}
	return nil
}

// askAll asks the given peers and those that the DHTs name, until all have
// answered or ctx ends.
func (s *search) askAll(ctx context.Context, peers []peer.AddrInfo) {
	var g errgroup.Group
	for _, p := range peers {
		g.Go(func() error {
			s.askNamed(ctx, p)
			return nil
		})
	}
	g.Go(func() error {
		s.askLAN(&g)
		return nil
	})
	g.Go(func() error {
		if !s.library.node.WaitDHT(ctx) {
			return nil
		}
		s.meter.begin(PhaseDHT, 0)
		s.mu.Lock()
		s.report.dht, s.report.dhtPeers = true, s.library.node.DHTPeers()
		s.mu.Unlock()
		for p := range s.library.node.FindProviders(ctx, s.name.Key()) {
			if !s.admit(&s.wide) {
				break
			}
			g.Go(func() error {
				s.ask(ctx, p, true, &s.wide)
				return nil
			})
		}
		return nil
	})
	g.Wait()
}

// askLAN asks the neighbors that have something by the name, in goroutines of
// g, until the time of the local network is over.
func (s *search) askLAN(g *errgroup.Group) {
	if !s.library.node.HasLAN() {
		return
	}
	s.mu.Lock()
	s.report.lan = true
	s.mu.Unlock()
	s.meter.begin(PhaseLAN, 0)
	ctx, cancel := context.WithTimeout(s.lan, lanSearchMax)
	defer cancel()
	for p := range s.library.node.Want(ctx, s.name.Key()) {
		if !s.admit(&s.near) {
			break
		}
		g.Go(func() error {
			s.ask(s.lan, p, true, &s.near)
			return nil
		})
	}
}

// fruitless reports whether a DHT was asked, and all that came of it may be
// due to the moment.
func (s *search) fruitless() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report.dht && len(s.newest) == 0 && len(s.report.corrupt) == 0
}

// forget makes the next askAll begin from nothing.
func (s *search) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report, s.wide.named, s.near.named = searchReport{}, 0, 0
	s.seen = map[peer.ID]bool{s.library.node.ID(): true}
}

// admit counts a provider that was named, and says whether to ask it.
func (s *search) admit(a *askers) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.named++
	s.report.announced++
	s.meter.sources(s.report.announced)
	return a.named <= askedMax
}

// ask asks one peer for manifests of the name, when it is its turn among a's.
// found tells that a network named it.
func (s *search) ask(ctx context.Context, p peer.AddrInfo, found bool, a *askers) {
	s.mu.Lock()
	known := s.seen[p.ID]
	s.seen[p.ID] = true
	s.mu.Unlock()
	if known {
		return
	}
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	request := metaRequest{Op: opName, Key: hex.EncodeToString(s.name.Key())}
	var claims []claim
	_, err := s.library.askMeta(ctx, p, request, func(m Manifest, e node.Envelope, via node.Via) error {
		if m.Name.Lookup() != s.name.Lookup() {
			return &CorruptError{ID: m.ID, Peer: p.ID, Reason: "it answers with a manifest of another name"}
		}
		if s.from == "" || m.Publisher == s.from {
			claims = append(claims, claim{m, e, []peer.AddrInfo{p}, via})
		}
		return nil
	})
	if err == nil { // who lies once is believed nothing
		for _, c := range claims {
			s.claim(c)
		}
		if slices.ContainsFunc(claims, func(c claim) bool { return strings.HasPrefix(c.manifest.ID.Hex(), s.prefix) }) {
			s.anyone()
			if found {
				s.first()
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var bad *CorruptError
	switch {
	case errors.As(err, &bad):
		s.report.corrupt = append(s.report.corrupt, bad)
	case err != nil:
		s.report.dialErr = fmt.Errorf("%s: %w", p.ID, err)
	default:
		s.report.asked++
		s.meter.add(1)
	}
}

// claim keeps the newest manifest of each publisher, and everybody who told it.
func (s *search) claim(c claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := c.manifest
	known, ok := s.newest[m.Publisher]
	switch {
	case !ok || m.Seq > known.manifest.Seq:
		s.newest[m.Publisher] = c
	case m.ID == known.manifest.ID:
		known.holders = append(known.holders, c.holders...)
		s.newest[m.Publisher] = known
	}
}

// candidates groups the claims by content, ordered by ID.
func (s *search) candidates(prefix string) []Candidate {
	s.mu.Lock()
	defer s.mu.Unlock()
	byID := map[content.ID]*Candidate{}
	for publisher, c := range s.newest {
		m := c.manifest
		if len(prefix) > 0 && m.ID.Hex()[:min(len(prefix), 64)] != prefix {
			continue
		}
		k := byID[m.ID]
		if k == nil {
			k = &Candidate{ID: m.ID, Tier: tierStrangers, via: c.via}
			byID[m.ID] = k
		}
		if m.Issued.After(k.manifest.Issued) || k.Name == "" {
			k.Name, k.Kind, k.Size, k.manifest, k.envelope = m.Name, m.Kind, m.Size, m, c.envelope
		}
		k.Publishers = append(k.Publishers, publisher)
		k.holders = append(k.holders, c.holders...)
		k.Reachable = true // whoever holds it has just answered
	}
	found := make([]Candidate, 0, len(byID))
	for _, k := range byID {
		slices.Sort(k.Publishers)
		found = append(found, *k)
	}
	slices.SortFunc(found, func(a, b Candidate) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return found
}

// verdict says why there is no candidate.
func (s *search) verdict(w What) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	what := fmt.Sprintf("%q", Escape(w.String()))
	switch {
	case len(r.corrupt) > 0:
		return fmt.Errorf("%s: %w", what, r.corrupt[0])
	case r.asked == 0 && r.dialErr != nil:
		return fmt.Errorf("%s: %w: %w", what, ErrUnreachable, r.dialErr)
	case w.Prefix != "" && len(s.newest) > 0:
		return fmt.Errorf("%s: %d contents have this name, and no ID begins so: %w", what, len(s.newest), ErrNotFound)
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
	return fmt.Sprintf("asked %s (%s connected), %s named", where, count(r.dhtPeers, "peer"), count(r.announced, "provider"))
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

// askMeta sends one request to p and calls fn with each manifest of the
// answer, after checking it. A manifest that must not be believed, and an
// error of fn, end it. It returns the answer's last line.
func (l *Library) askMeta(ctx context.Context, p peer.AddrInfo, q metaRequest, fn func(Manifest, node.Envelope, node.Via) error) (metaAnswer, error) {
	if err := l.node.Connect(ctx, p); err != nil {
		return metaAnswer{}, err
	}
	s, err := l.node.Open(ctx, p.ID, metaProtocol, node.OpenOptions{Relay: true})
	if err != nil {
		return metaAnswer{}, err
	}
	defer s.Reset()
	via := node.ViaStream(s)
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	end, err := readManifests(s, q, func(m Manifest, e node.Envelope) error { return fn(m, e, via) })
	var bad *CorruptError
	if errors.As(err, &bad) {
		bad.Peer = p.ID
	}
	if ctx.Err() != nil && bad == nil {
		err = ctx.Err()
	}
	return end, err
}

func readManifests(s io.ReadWriter, q metaRequest, fn func(Manifest, node.Envelope) error) (end metaAnswer, err error) {
	if err := writeLine(s, q); err != nil {
		return end, err
	}
	stream := &failing{Reader: s}
	in := newLineReader(stream)
	for count := 0; ; count++ {
		line, err := readLine(in)
		if err != nil && stream.err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return end, err // the network's fault
		}
		var a metaAnswer
		if err == nil {
			a, err = decodeMetaAnswer(line)
		}
		if err != nil {
			return end, &CorruptError{Reason: err.Error()}
		}
		if a.End {
			if a.Error != "" {
				return end, fmt.Errorf("peer answers: %q", Escape(a.Error[:min(len(a.Error), errorTextMax)]))
			}
			return a, nil
		}
		if count == metaManifestsMax {
			return end, &CorruptError{Reason: "its answer does not end"}
		}
		e, err := node.DecodeEnvelope(a.Manifest)
		if err != nil {
			return end, &CorruptError{Reason: err.Error()}
		}
		m, err := OpenManifest(e, time.Now())
		if err != nil {
			return end, &CorruptError{Reason: err.Error()}
		}
		if err := fn(m, e); err != nil {
			return end, err
		}
	}
}

// failing remembers whether its Reader has failed.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(p []byte) (n int, err error) {
	n, err = f.Reader.Read(p)
	if err != nil {
		f.err = err
	}
	return n, err
}
