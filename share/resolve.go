package share

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// The tiers of DESIGN §4, in which names are trusted. What a lower number says
// outranks what a higher one does.
const (
	tierBook      = 0 // an earlier choice, or an explicit trust
	tierGroups    = 1 // indexes of groups
	tierFriends   = 2 // publishers that have a petname
	tierStrangers = 3 // local network and DHT together
)

var zeroID content.ID

// finding is what a search for a name has come to.
type finding struct {
	candidates []Candidate // of the tier that decided; with a conflict, of others too
	choice     *Choice     // the entry that decided, at tier 0
	conflict   string      // how a tier above contradicts the choice; "" for no conflict
	notes      []string    // what a person should see
	liars      []peer.ID   // who answered with what must not be believed
	partial    bool        // more providers were named than were asked
	silent     int         // of strangers: how many claim the name and have not answered in time

	work *resolving // its lower tiers may still be at work until end
}

// end ends what is still at work. f may be nil, and end may be called twice.
func (f *finding) end() {
	if f != nil && f.work != nil {
		f.work.end()
	}
}

// resolving is one find at work. All tiers are asked at once; decide waits for
// them in their order.
type resolving struct {
	library *Library
	search  *search
	what    What
	options FindOptions
	trust   Trust

	stop      context.CancelFunc
	tasks     sync.WaitGroup
	groups    chan struct{} // closed when indexed and groupErr are set
	known     chan struct{} // closed when the known publishers have been asked
	strangers chan struct{} // closed when strangerErr is set
	indexed   []Candidate
	groupErr  error

	strangerErr error
}

// find settles which contents w may mean. The finding is never nil; its end must be
// called.
func (l *Library) find(ctx context.Context, w What, o FindOptions, m *meter) (*finding, error) {
	trust, err := l.book.view()
	if err != nil {
		return &finding{}, err
	}
	if w, err = trust.meant(w); err != nil {
		return &finding{}, err
	}
	if o.From != "" && (w.Group != "" || w.Publisher != "" && w.Publisher != o.From) {
		return &finding{}, fmt.Errorf("%w: %q says whose word is meant, and that is not %s", ErrBadWhat, Escape(w.String()), trust.who(o.From))
	}
	if w.Publisher != "" {
		o.From = w.Publisher
	}
	if o.From != "" && l.book.blocked(o.From, zeroID) {
		return &finding{}, fmt.Errorf("%s is blocked: %w", trust.who(o.From), ErrRefused)
	}
	s := l.newSearch(w.Name, m, o.trail)
	s.prefix, s.from, s.peers = w.Prefix, o.From, slices.Concat(o.Peers, w.Peers)
	r := &resolving{library: l, search: s, what: w, options: o, trust: trust,
		groups: make(chan struct{}), known: make(chan struct{}), strangers: make(chan struct{})}
	f := &finding{work: r}
	switch {
	case w.Group != "":
		r.trust, s.known = Trust{}, nil
		r.indexed, err = l.findIndexed(ctx, w, m)
		f.work, f.candidates = nil, r.indexed
		s.trail.note("group "+Escape(w.Group), func(e *Tried) { e.Count, e.Error = len(r.indexed), errorText(err) })
		return f, err
	case o.From != "":
		s.known = []peer.ID{o.From}
		r.start(ctx)
		err = r.ofPublisher(ctx, f)
	default:
		choice, chosen := trust.choice(w.Name)
		if chosen && l.book.blocked(choice.Publisher, choice.ID) {
			chosen = false
			f.notes = append(f.notes, fmt.Sprintf("what was chosen for this name on %s is blocked, and does not count", choice.Since.Format(time.DateOnly)))
		}
		for _, friend := range trust.Friends {
			if !l.book.blocked(friend.Peer, zeroID) {
				s.known = append(s.known, friend.Peer)
			}
		}
		if chosen && !slices.Contains(s.known, choice.Publisher) {
			s.known = append(s.known, choice.Publisher)
		}
		r.start(ctx)
		err = r.bare(ctx, f, choice, chosen)
	}
	s.settled.Store(true)
	s.mu.Lock()
	for _, e := range s.report.corrupt {
		f.liars = append(f.liars, e.Peer)
	}
	f.partial = s.report.partial
	s.mu.Unlock()
	if err == nil && len(f.candidates) == 0 {
		err = s.verdict(w)
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return f, err
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return Escape(shortError(err))
}

// meant puts the publisher in the place of a petname.
func (t Trust) meant(w What) (What, error) {
	if w.Petname == "" {
		return w, nil
	}
	friend, ok := t.friend(w.Petname)
	if !ok {
		return w, fmt.Errorf("%w: %q: %q is no peer ID, and no petname of the trust book", ErrBadWhat, Escape(w.String()), Escape(string(w.Petname)))
	}
	w.Publisher, w.Petname = friend.Peer, ""
	return w, nil
}

// start asks everybody. Each part ends by itself, or with end.
func (r *resolving) start(ctx context.Context) {
	ctx, r.stop = context.WithCancel(ctx)
	bounded, free := context.WithTimeout(ctx, r.library.cfg.SearchMax)
	windows, freeWindows := r.search.windows(bounded)
	r.tasks.Go(func() {
		defer close(r.known)
		r.search.askKnown(bounded)
	})
	r.tasks.Go(func() {
		defer func() { freeWindows() }()
		defer close(r.strangers)
		r.strangerErr = r.search.askStrangers(windows)
	})
	r.tasks.Go(func() {
		defer close(r.groups)
		if r.options.From == "" && !r.options.NoGroups {
			r.indexed, r.groupErr = r.library.findIndexed(ctx, r.what, r.search.meter)
			r.trailGroups()
		}
	})
	r.tasks.Go(func() {
		defer free()
		<-r.known
		<-r.strangers
	})
}

func (r *resolving) trailGroups() {
	if r.groupErr != nil {
		r.search.trail.note("groups", func(e *Tried) { e.Error = errorText(r.groupErr) })
	}
	for _, c := range r.indexed {
		r.search.trail.note("group "+Escape(c.Group), func(e *Tried) { e.Count = 1 })
	}
}

func (r *resolving) end() {
	r.stop()
	r.tasks.Wait()
}

// ofPublisher resolves a name as one publisher uses it. When that one has answered,
// nobody can know better.
func (r *resolving) ofPublisher(ctx context.Context, f *finding) error {
	p := r.options.From
	<-r.known
	q := r.search.inquiry(p)
	of := func(id peer.ID) bool { return id == p }
	f.candidates = r.search.candidates(of, tierOf(r.trust, p))
	if !q.answered || len(f.candidates) == 0 {
		<-r.strangers
		if r.strangerErr != nil {
			return r.strangerErr
		}
		f.candidates = r.search.candidates(of, tierOf(r.trust, p))
	}
	if len(f.candidates) > 0 || ctx.Err() != nil {
		return nil
	}
	if r.search.withdrawal(p) > 0 {
		return fmt.Errorf("%q: %w: %s: %w", Escape(r.what.String()), ErrWithdrawn, r.trust.who(p), ErrNotFound)
	}
	if q = r.search.inquiry(p); q.answered {
		return nil // it does not use this name
	}
	held, err := r.remembered(p)
	if err != nil || held != nil {
		return r.hold(f, held, q.err, err)
	}
	if r.corrupted() {
		return nil // the verdict
	}
	return fmt.Errorf("%q: %w: %s can't be asked, and nobody else has its word on this name: %s",
		Escape(r.what.String()), ErrUnreachable, r.trust.who(p), Escape(shortError(orUnknown(q.err))))
}

func (r *resolving) corrupted() bool {
	r.search.mu.Lock()
	defer r.search.mu.Unlock()
	return len(r.search.report.corrupt) > 0
}

var errNoWay = errors.New("it is not known where it is")

func orUnknown(err error) error {
	if err == nil {
		return errNoWay
	}
	return err
}

// hold takes what is remembered of a publisher's word.
func (r *resolving) hold(f *finding, held *Candidate, why, err error) error {
	if err != nil {
		return err
	}
	f.candidates = []Candidate{*held}
	f.notes = append(f.notes, fmt.Sprintf("%s can't be asked: this is what it published when it was got on %s (%s)",
		r.trust.who(held.Publishers[0]), held.held.Format(time.DateOnly), Escape(shortError(orUnknown(why)))))
	return nil
}

// remembered is what was got last of a publisher's name, if it fits what is asked for
// and was not withdrawn since.
func (r *resolving) remembered(p peer.ID) (*Candidate, error) {
	v, ok, err := r.library.catalog.lastVersion(p, r.what.Name)
	if err != nil || !ok || v.Seq < r.search.withdrawal(p) || !strings.HasPrefix(v.ID.Hex(), r.what.Prefix) || r.library.book.blocked("", v.ID) {
		return nil, err
	}
	return &Candidate{ID: v.ID, Name: r.what.Name, Kind: v.Kind, Size: v.Size, Publishers: []peer.ID{p},
		Tier: tierOf(r.trust, p), held: v.At}, nil
}

// tierOf is the tier in which a publisher's word counts.
func tierOf(t Trust, p peer.ID) int {
	if t.petname(p) != "" {
		return tierFriends
	}
	return tierStrangers
}

// bare resolves a bare name in tiers.
func (r *resolving) bare(ctx context.Context, f *finding, choice Choice, chosen bool) error {
	<-r.groups
	if chosen {
		<-r.known
		decided, err := r.byChoice(f, choice)
		if decided || err != nil || ctx.Err() != nil {
			return err
		}
	}
	if len(r.indexed) > 0 {
		f.candidates = r.indexed
		return nil
	}
	if r.groupErr != nil && !r.options.Any {
		return r.groupErr
	}
	<-r.known
	if ctx.Err() != nil {
		return nil
	}
	noted := len(f.notes)
	missing, err := r.byFriends(f)
	if err == nil && len(f.candidates) == 0 && len(missing) > 0 {
		<-r.strangers // who may have their word, or know where they are
		f.notes = f.notes[:noted]
		missing, err = r.byFriends(f)
	}
	if len(f.candidates) > 0 || err != nil || ctx.Err() != nil {
		return err
	}
	if len(missing) > 0 && !r.options.Any {
		return r.mustKnow(missing)
	}
	<-r.strangers
	if r.strangerErr != nil {
		return r.strangerErr
	}
	f.candidates, f.silent = r.search.candidates(anyPublisher, tierStrangers), r.search.silent()
	if len(f.candidates) > 0 {
		return nil
	}
	return r.outdated(f)
}

func anyPublisher(peer.ID) bool { return true }

// ErrMustKnow is returned when a publisher of the trust book can't be asked, whose
// word would outrank what strangers say.
var ErrMustKnow = errors.New("a publisher that should know can't be asked")

// ErrWithdrawn is returned for a name that its publisher has stopped sharing. It comes
// with ErrNotFound.
var ErrWithdrawn = errors.New("its publisher has withdrawn this name")

func (r *resolving) mustKnow(missing []Friend) error {
	names := make([]string, len(missing))
	for i, f := range missing {
		names[i] = Escape(string(f.Name))
	}
	return fmt.Errorf("%q: %w: %s: %w: %s", Escape(r.what.String()), ErrMustKnow, strings.Join(names, ", "),
		ErrUnreachable, Escape(shortError(orUnknown(r.search.inquiry(missing[0].Peer).err))))
}

// byFriends looks what the publishers in the book say, and returns those that
// could not be asked and of whom nothing is held. One that offers only what is older
// than what is held of it, as after its home was restored, has not taken that back.
func (r *resolving) byFriends(f *finding) (missing []Friend, err error) {
	f.candidates = r.search.candidates(func(p peer.ID) bool { return r.trust.petname(p) != "" }, tierFriends)
	for _, friend := range r.trust.Friends {
		says := slices.ContainsFunc(f.candidates, func(c Candidate) bool { return slices.Contains(c.Publishers, friend.Peer) })
		q, refused := r.search.inquiry(friend.Peer), r.search.refused(friend.Peer)
		if says || q.answered && !refused || !slices.Contains(r.search.known, friend.Peer) {
			continue
		}
		held, err := r.remembered(friend.Peer)
		if err != nil {
			return nil, err
		}
		if held == nil {
			if r.search.withdrawal(friend.Peer) == 0 {
				missing = append(missing, friend)
			}
			continue
		}
		why := "can't be asked"
		if refused {
			why = "offers an older version"
		}
		f.notes = append(f.notes, fmt.Sprintf("%s %s: what it published when it was got on %s counts",
			Escape(string(friend.Name)), why, held.held.Format(time.DateOnly)))
		f.add(*held)
	}
	if len(f.candidates) > 0 {
		f.unasked(missing)
	}
	return missing, nil
}

// unasked notes who could not be asked.
func (f *finding) unasked(missing []Friend) {
	for _, m := range missing {
		f.notes = append(f.notes, fmt.Sprintf("%s can't be asked whether it means the same", Escape(string(m.Name))))
	}
}

// add adds a candidate, or its publishers to the one of the same content.
func (f *finding) add(c Candidate) {
	for i := range f.candidates {
		if k := &f.candidates[i]; k.ID == c.ID {
			for _, p := range c.Publishers {
				if !slices.Contains(k.Publishers, p) {
					k.Publishers = append(k.Publishers, p)
				}
			}
			return
		}
	}
	f.candidates = append(f.candidates, c)
}

// outdated finds what was got before, where only older versions are offered now.
func (r *resolving) outdated(f *finding) error {
	r.search.mu.Lock()
	var publishers []peer.ID
	for p := range r.search.outdated {
		publishers = append(publishers, p)
	}
	r.search.mu.Unlock()
	for _, p := range publishers {
		held, err := r.remembered(p)
		if err != nil {
			return err
		}
		if held != nil {
			f.add(*held)
			f.notes = append(f.notes, fmt.Sprintf("older versions of %s are offered, and refused", r.trust.who(p)))
		}
	}
	return nil
}
