package share

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// resolve settles which content is meant, and offers its holders as sources.
func (g *getting) resolve(ctx context.Context) (Candidate, error) {
	if !g.what.ID.IsZero() {
		if g.library.book.blocked("", g.what.ID) {
			return Candidate{}, fmt.Errorf("%s is blocked: %w", g.what.ID, ErrRefused)
		}
		return g.resolveID(ctx)
	}
	c, err := g.settle(ctx)
	if err != nil {
		return c, err
	}
	if c.Size < 0 || c.Size > content.GroupSize || len(c.holders) == 0 {
		g.crowd.listen(ctx, c.ID)
	}
	g.hear(c.manifest)
	for _, p := range c.holders {
		g.crowd.offer(ctx, p)
	}
	if c.Size < 0 || c.Size > content.GroupSize || len(c.holders) == 0 {
		g.crowd.search(ctx, c.ID) // more hands; a small content is here before they are
	}
	if c.Kind == "" {
		return c, g.askKind(ctx, &c)
	}
	return c, nil
}

// settle finds what a name means, and who stands for that. It picks none of
// several contents.
func (g *getting) settle(ctx context.Context) (Candidate, error) {
	o := g.options
	f, err := g.library.find(ctx, g.what, FindOptions{Peers: o.Peers, From: o.From, Any: o.Any,
		AcceptChange: o.AcceptChange, trail: g.trail}, g.meter)
	g.finding, g.liars = f, f.liars
	trust, bookErr := g.library.book.view()
	if err = errors.Join(err, bookErr); err != nil {
		return Candidate{}, err
	}
	if f.work != nil {
		g.options.From = f.work.options.From // a petname's, too
	}
	for _, path := range trust.Damaged {
		g.note("a damaged trust book is kept as %s, and what it says does not count: mend it and put it in its place, or remove it", Escape(path))
	}
	for _, text := range f.notes {
		g.note("%s", text)
	}
	if f.partial {
		g.note("partial: more claim to have this name, or to mean something by it, than are asked and kept")
	}
	if f.silent > 0 {
		g.note("%d more claim to have this name, and did not answer in time", f.silent)
	}
	found, err := g.narrow(ctx, f)
	if err != nil {
		return Candidate{}, err
	}
	known := trust.Lookalikes()
	for i := range found {
		found[i].Like = Name(known.Like(string(found[i].Name)))
	}
	if len(found) > 1 {
		return Candidate{}, g.ambiguous(f, found)
	}
	c := found[0]
	if g.decided = f.choice; f.conflict != "" { // and one of several was picked
		g.decided = nil
	}
	return c, g.vouch(c, trust)
}

// narrow takes the one that was picked, or what of strangers' claims can be had.
func (g *getting) narrow(ctx context.Context, f *finding) ([]Candidate, error) {
	found := f.candidates
	if pick := g.options.Pick; !pick.IsZero() {
		i := slices.IndexFunc(found, func(c Candidate) bool { return c.ID == pick })
		if i < 0 {
			return nil, fmt.Errorf("%q: it does not mean %s now: %w", Escape(g.what.String()), pick, ErrNotFound)
		}
		return found[i : i+1], nil
	}
	if len(found) == 1 {
		return found, nil
	}
	alive, err := g.probe(ctx, found)
	if strangers := found[0].Tier == tierStrangers && f.conflict == ""; strangers || ctx.Err() != nil {
		return alive, err
	}
	// What is trusted counts, whoever has it just now.
	for i := range found {
		found[i].Reachable = slices.ContainsFunc(alive, func(c Candidate) bool { return c.ID == found[i].ID })
	}
	return found, nil
}

// ambiguous is the error that leaves the choice to the person.
func (g *getting) ambiguous(f *finding, found []Candidate) error {
	slices.SortStableFunc(found, compareCandidates)
	var ids []content.ID
	for _, c := range found[:min(len(found), seenMax)] {
		ids = append(ids, c.ID)
	}
	seen, err := g.library.catalog.firstSeen(g.what.Name, ids, time.Now())
	if err != nil {
		g.library.log.Warn("remember what was seen", "err", err)
	}
	for i := range found {
		found[i].FirstSeen = seen[found[i].ID]
	}
	return &AmbiguousError{Name: g.what.Name, Candidates: found, Conflict: f.conflict, Partial: f.partial}
}

// seenMax is how many contents of a name are remembered as seen, of one search: a flood
// must not make room for itself.
const seenMax = 64

// strictDigits is how many digits of an ID name a content as well as all of them:
// 128 bits are more than anybody can match on purpose.
const strictDigits = 32

// vouch says who stands for a name, when it is nobody the person named.
func (g *getting) vouch(c Candidate, trust Trust) error {
	if c.Mixed != "" {
		g.note("warning: the name %s mixes %s letters, and may be made to look like another", Escape(string(c.Name)), c.Mixed)
	}
	if c.Like != "" {
		g.note("warning: the name %s looks like %s (%s), which is in the trust book and another name", Escape(string(c.Name)),
			Escape(string(c.Like)), strings.Join(Scripts(string(c.Like)), ", "))
	}
	if g.finding.work != nil {
		if err := g.noteNewVersion(c, g.finding.work.search, trust); err != nil {
			return err
		}
	}
	strange := c.Tier == tierStrangers || g.decided != nil && trust.strange(*g.decided)
	switch {
	case c.indexed != nil:
		g.note("%s", c.indexed.said())
		return nil
	case g.options.From != "" || len(c.Publishers) == 1 && c.Publishers[0] == g.library.node.ID():
		return nil
	case !strange:
		if g.decided == nil {
			g.note("named by %s (%s)", trust.who(c.bindsTo(trust)), shortPeer(c.bindsTo(trust)))
		}
		return nil
	}
	if n := len(g.what.Prefix); n > 0 {
		if n >= strictDigits {
			return nil // the person has named the content
		}
		g.note("#%s is a short prefix, %d of 64 digits: it selects, and proves nothing", g.what.Prefix, n)
	}
	if g.options.Strict {
		return fmt.Errorf("%q: only strangers vouch for this name (%s): %w", Escape(string(c.Name)), count(len(c.Publishers), "publisher"), ErrRefused)
	}
	how := string(c.via)
	switch c.via {
	case node.ViaLAN:
		how = "LAN"
	case "":
		how = "not reached yet"
	}
	since := ""
	if g.decided != nil {
		since = ", as chosen on " + g.decided.Since.Format(time.DateOnly)
	}
	g.note("unverified name: claimed by %s (%s, %s)%s", claimants(c), shortPeer(c.bindsTo(trust)), how, since)
	return nil
}

// Unverified says who claims a content's name, when that is strangers only, or one of
// them that was chosen before; else "".
func (c Candidate) Unverified() string {
	if c.Tier != tierStrangers && !c.strange || len(c.Publishers) == 0 {
		return ""
	}
	return fmt.Sprintf("claimed by %s (%s)", claimants(c), claimant(c))
}

// claimants counts the publishers of a candidate, and how many networks those are
// in who tell of it, when that is less.
func claimants(c Candidate) string {
	s := count(len(c.Publishers), "publisher")
	if c.Networks > 0 && c.Networks < len(c.Publishers) {
		s += " in " + count(c.Networks, "network")
	}
	return s
}

// claimant names one who stands for a candidate.
func claimant(c Candidate) string {
	if c.Group != "" || len(c.Publishers) == 0 {
		return "group " + Escape(c.Group)
	}
	return shortPeer(c.Publishers[0])
}

// shortPeer is how a peer is shown where a line must stay short.
func shortPeer(p peer.ID) string {
	s := p.String()
	return s[:min(12, len(s))] + "…"
}

const (
	// probeParallel is how many candidates are probed at a time.
	probeParallel = 8
	// probeMax bounds the probes of all candidates: with searchMax it leaves a
	// person less than ten seconds in the dark.
	probeMax = 4 * time.Second
)

// probe tries one chunk group of each candidate, those of most networks first, and
// returns those of which one came: claims that lead nowhere don't count.
func (g *getting) probe(ctx context.Context, found []Candidate) ([]Candidate, error) {
	g.meter.begin(PhaseDialling, int64(len(found)))
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, probeMax)
	defer cancel()
	errs := make([]error, len(found))
	untried := make([]bool, len(found))
	var group errgroup.Group
	group.SetLimit(probeParallel)
	for i := range found {
		group.Go(func() error {
			// One that never had its turn counts: else a flood of claims that
			// lead nowhere would leave one of those that do as the only one.
			if untried[i] = ctx.Err() != nil; !untried[i] {
				errs[i] = g.library.probeContent(ctx, found[i].ID, found[i].holders, g.trail)
			}
			g.meter.add(1)
			return nil
		})
	}
	group.Wait()
	if err := whole.Err(); err != nil {
		return nil, err
	}
	var alive []Candidate
	dead := 0
	for i, c := range found {
		c.Reachable = errs[i] == nil && !untried[i]
		if errs[i] == nil {
			alive = append(alive, c)
			continue
		}
		if dead++; dead <= probeNotesMax {
			g.note("%s claims %s too, and can't be had: %s", claimant(c), c.ID.Short(), Escape(shortError(errs[i])))
		}
	}
	if dead > probeNotesMax {
		g.note("%d more claims can't be had", dead-probeNotesMax)
	}
	if len(alive) == 0 && len(errs) > 0 {
		return nil, errs[0]
	}
	return alive, nil
}

// probeNotesMax is how many claims that lead nowhere are told one by one.
const probeNotesMax = 8

// probeContent fetches one chunk group of a content from holders, or without any from
// whoever provides it, and verifies that.
func (l *Library) probeContent(ctx context.Context, id content.ID, holders []peer.AddrInfo, t *trail) error {
	ctx, cancel := context.WithCancel(ctx)
	crowd := l.newCrowd(newMeter(nil, PhaseDialling))
	crowd.trail = t
	for _, p := range holders {
		crowd.offer(ctx, p)
	}
	if len(holders) == 0 {
		crowd.search(ctx, id)
	}
	f := &fetch{crowd: crowd, meter: crowd.meter, id: id, size: -1}
	_, _, err := f.open(ctx)
	cancel()
	crowd.close()
	return err
}

// tellDissent tells who gives a name another meaning than the tier that decided,
// as far as that is known lanAfterFirst after the content is here.
func (g *getting) tellDissent(ctx context.Context) {
	f := g.finding
	if f == nil || f.work == nil || len(f.candidates) == 0 || g.options.From != "" || f.conflict != "" ||
		f.candidates[0].Tier == tierStrangers || g.options.Note == nil {
		return
	}
	select {
	case <-f.work.strangers:
	case <-time.After(lanAfterFirst):
	case <-ctx.Done():
		return
	}
	told := 0
	for _, c := range f.work.search.candidates(anyPublisher, tierStrangers) {
		if slices.ContainsFunc(f.candidates, func(k Candidate) bool { return k.ID == c.ID }) {
			continue
		}
		if told++; told > dissentMax {
			g.note("and others")
			return
		}
		verb := "say"
		if len(c.Publishers) == 1 {
			verb = "says"
		}
		g.note("%s %s otherwise: %s#%s (%s)", claimants(c), verb, Escape(string(c.Name)), c.ID.Short(), claimant(c))
	}
}

// dissentMax is how many other contents of a name are told.
const dissentMax = 3

// tellTried hands over what was tried.
func (g *getting) tellTried(stats []SourceStat) {
	if g.options.Tried == nil {
		return
	}
	g.trail.gave(stats, g.crowd.lies())
	for _, t := range g.trail.all() {
		g.options.Tried(t)
	}
}
