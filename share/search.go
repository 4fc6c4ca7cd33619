package share

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"golang.org/x/sync/errgroup"
)

// search is one search for a name at work: it collects manifests from everywhere,
// and decides nothing.
type search struct {
	library *Library
	trail   *trail
	name    Name
	prefix  string // how the ID that is meant begins; empty: any
	from    peer.ID
	peers   []peer.AddrInfo // asked first
	known   []peer.ID       // publishers to be asked themselves
	meter   *meter
	settled atomic.Bool     // a tier has decided: what comes now is no progress any more
	first   func()          // called at the first claim from a network
	anyone  func()          // called at the first claim of another peer
	lan     context.Context // of the local network's part; ends lanAfterFirst after that

	mu        sync.Mutex            // guards all below
	newest    map[peer.ID][]claim   // by publisher, all of one seq
	replaced  map[peer.ID]Manifest  // an older one of a publisher, of another content
	outdated  map[peer.ID]int       // manifests refused, because a newer one was got before
	withdrawn map[peer.ID]int64     // before which seq a publisher has withdrawn the name
	itself    map[peer.ID][]claim   // by publisher, of one seq, the newest that it told itself
	asked     map[peer.ID]*question // or being asked
	inquiries map[peer.ID]*inquiry  // of the known publishers
	report    searchReport
	wide      askers // of peers that were given or that a DHT names
	near      askers // of the local network's
}

// askers are those of one origin that are asked.
type askers struct {
	slots chan struct{} // capacity: how many are asked at a time; not guarded
	named int           // guarded by search.mu
}

// question is one peer that is asked.
type question struct {
	located bool          // it was asked at addresses that came with it
	found   bool          // a network named it
	done    chan struct{} // closed when it has answered or failed
	err     error         // then
}

func (l *Library) newSearch(name Name, m *meter, t *trail) *search {
	return &search{
		library: l, trail: t, name: name, meter: m, first: func() {}, anyone: func() {},
		newest: map[peer.ID][]claim{}, replaced: map[peer.ID]Manifest{}, outdated: map[peer.ID]int{}, withdrawn: map[peer.ID]int64{}, itself: map[peer.ID][]claim{},
		asked: map[peer.ID]*question{}, inquiries: map[peer.ID]*inquiry{},
		wide: askers{slots: make(chan struct{}, askParallel)}, near: askers{slots: make(chan struct{}, askedMax)},
	}
}

// windows prepares the time that askStrangers has: what of ctx, which ends
// SearchMax after the start, the first answers leave. end releases them.
func (s *search) windows(ctx context.Context) (strangers context.Context, end func()) {
	strangers, cancel := context.WithCancel(ctx)
	lan, lanEnd := context.WithCancel(strangers)
	s.lan = lan
	s.first = sync.OnceFunc(func() { time.AfterFunc(searchAfterFirst, cancel) })
	s.anyone = sync.OnceFunc(func() { time.AfterFunc(lanAfterFirst, lanEnd) })
	return strangers, func() { lanEnd(); cancel() }
}

// askStrangers asks this library, the peers that were given, the local network
// and the DHTs, until all have answered or ctx ends, which is of windows.
func (s *search) askStrangers(ctx context.Context) error {
	if err := s.askLocal(); err != nil {
		return err
	}
	again := time.After(searchAgain)
	s.askAll(ctx, s.peers)
	if s.fruitless() {
		select {
		case <-again:
			before := s.forget()
			s.askAll(ctx, s.peers)
			if ctx.Err() != nil {
				s.recall(before)
			}
		case <-ctx.Done():
		}
	}
	return nil
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
			s.trail.note("this machine", func(e *Tried) { e.Count, e.Issued, e.Via = e.Count+1, m.Issued, ViaLocal })
			s.claim(claim{manifest: m, envelope: *r.Envelope, holders: []peer.AddrInfo{self}, via: ViaLocal, itself: m.Publisher == self.ID})
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
		s.askDHT(ctx, &g)
		return nil
	})
	g.Wait()
}

// begin tells of a phase, while nothing is decided.
func (s *search) begin(p Phase) {
	if !s.settled.Load() {
		s.meter.begin(p, 0)
	}
}

// askDHT asks the providers that the DHTs name, in goroutines of g.
func (s *search) askDHT(ctx context.Context, g *errgroup.Group) {
	if !s.library.node.WaitDHT(ctx) {
		return
	}
	s.begin(PhaseDHT)
	s.mu.Lock()
	s.report.dht, s.report.dhtPeers = true, s.library.node.DHTPeers()
	s.mu.Unlock()
	for p := range s.library.node.FindProviders(ctx, s.name.Key()) {
		s.trail.note("DHT", func(e *Tried) { e.Count++ })
		if !s.admit(&s.wide) {
			break
		}
		s.trail.found(p, foundDHT)
		g.Go(func() error {
			s.ask(ctx, p, true, &s.wide)
			return nil
		})
	}
	s.trail.note("DHT", func(*Tried) {})
}

// How a source came to be asked, for Tried.
const (
	foundNamed     = "named"
	foundPublisher = "publisher"
	foundLAN       = "lan"
	foundDHT       = "dht"
	foundTold      = "told"
)

// askLAN asks the neighbors that have something by the name, in goroutines of
// g, until the time of the local network is over.
func (s *search) askLAN(g *errgroup.Group) {
	if !s.library.node.HasLAN() {
		return
	}
	s.mu.Lock()
	s.report.lan = true
	s.mu.Unlock()
	s.begin(PhaseLAN)
	s.trail.note("local network", func(*Tried) {})
	ctx, cancel := context.WithTimeout(s.lan, lanSearchMax)
	defer cancel()
	for p := range s.library.node.Want(ctx, s.name.Key()) {
		s.trail.note("local network", func(e *Tried) { e.Count++ })
		if !s.admit(&s.near) {
			break
		}
		s.trail.found(p, foundLAN)
		g.Go(func() error {
			s.ask(s.lan, p, true, &s.near)
			return nil
		})
	}
}

// fruitless reports whether a DHT was asked, and all that came of it may be
// due to the moment. Silence is not: a second dial would not outlast it.
func (s *search) fruitless() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report.dht && len(s.newest) == 0 && len(s.report.corrupt) == 0 && !errors.Is(s.report.dialErr, node.ErrNoAnswer)
}

// forget makes the next askAll begin from nothing, and returns what came of the last.
func (s *search) forget() (before searchReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.report
	s.report, s.wide.named, s.near.named = searchReport{}, 0, 0
	s.asked = map[peer.ID]*question{}
	return before
}

// recall takes what came of the askAll before for what counts, if it was told of somebody,
// and the last one, for want of time, of nobody.
func (s *search) recall(before searchReport) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.report; before.announced > 0 && r.announced == 0 && r.asked == 0 && len(r.corrupt) == 0 {
		s.report = before
	}
}

// silent counts the peers that a network named as having the name, and that have not
// answered, or were not asked, when time was up. Call it when askStrangers has returned.
func (s *search) silent() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.asked {
		select {
		case <-q.done:
			if q.found && (errors.Is(q.err, context.Canceled) || errors.Is(q.err, context.DeadlineExceeded)) {
				n++
			}
		default: // a publisher that is asked by itself
		}
	}
	return n
}

// admit counts a provider that was named, and says whether to ask it.
func (s *search) admit(a *askers) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.named++
	s.report.announced++
	s.report.partial = s.report.partial || a.named > askedMax
	if !s.settled.Load() {
		s.meter.sources(s.report.announced)
	}
	return a.named <= askedMax
}

// ask asks one peer for manifests of the name, when it is its turn among a's; nil
// is at once. found tells that a network named it. A peer that is being asked
// already is not asked again, but its answer is awaited; unless that fails, and only
// now it comes with addresses.
func (s *search) ask(ctx context.Context, p peer.AddrInfo, found bool, a *askers) error {
	q, other := s.enter(p, found, nil)
	for other != nil {
		select {
		case <-other.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if other.err == nil || other.located || len(p.Addrs) == 0 {
			return other.err
		}
		q, other = s.enter(p, found, other)
	}
	defer close(q.done)
	if p.ID == s.library.node.ID() {
		return nil
	}
	if s.library.book.blocked(p.ID, zeroID) {
		s.trail.peer(p.ID, func(e *Tried) { e.Error = "it is blocked" })
		q.err = errBlocked
		return q.err
	}
	if a != nil {
		select {
		case a.slots <- struct{}{}:
			defer func() { <-a.slots }()
		case <-ctx.Done():
			q.err = ctx.Err()
			s.trail.reached(s.library.node, p.ID, "", errors.New("not asked: time was up"))
			return q.err
		}
	}
	q.err = s.askNow(ctx, p, found)
	return q.err
}

// enter begins a question to p, in the place of one that failed; or returns the one
// that there is.
func (s *search) enter(p peer.AddrInfo, found bool, failed *question) (mine, other *question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.asked[p.ID]; q != failed {
		return nil, q
	}
	q := &question{located: len(p.Addrs) > 0, found: found, done: make(chan struct{})}
	s.asked[p.ID] = q
	return q, nil
}

var errBlocked = fmt.Errorf("it is blocked: %w", ErrRefused)

// askNow asks p, and takes up what it answers.
func (s *search) askNow(ctx context.Context, p peer.AddrInfo, found bool) error {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	request := metaRequest{Op: opName, Key: hex.EncodeToString(s.name.Key())}
	var claims []claim
	var reached node.Via
	_, err := s.library.askMeta(ctx, p, request, func(m Manifest, e node.Envelope, via node.Via) error {
		reached = via
		if m.Name.Lookup() != s.name.Lookup() {
			return &CorruptError{ID: m.ID, Peer: p.ID, Reason: "it answers with a manifest of another name"}
		}
		s.trail.told(p.ID, m)
		if s.from == "" || m.Publisher == s.from {
			claims = append(claims, claim{manifest: m, envelope: e, holders: []peer.AddrInfo{p}, via: via, itself: m.Publisher == p.ID})
		}
		return nil
	})
	s.trail.reached(s.library.node, p.ID, reached, err)
	if err == nil { // who lies once is believed nothing
		claims = s.most(claims)
		network := networkOf(s.library.node.AddrOf(p.ID))
		counts := false
		for _, c := range claims {
			c.networks = []netip.Prefix{network}
			counts = s.claim(c) && strings.HasPrefix(c.manifest.ID.Hex(), s.prefix) || counts
		}
		if counts {
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
		s.report.dialErr = worse(s.report.dialErr, fmt.Errorf("%s: %w", p.ID, err))
	default:
		s.report.asked++
		if !s.settled.Load() {
			s.meter.add(1)
		}
	}
	return err
}

// worse chooses of two errors of dials the one that tells of more than silence;
// old may be nil.
func worse(old, err error) error {
	if old != nil && errors.Is(err, node.ErrNoAnswer) {
		return old
	}
	return err
}
