package share

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// byChoice resolves a name that was chosen before. It decides nothing when the
// choice does not fit the prefix that is asked for.
func (r *resolving) byChoice(f *finding, choice Choice) (decided bool, err error) {
	r.search.trail.note("trust book", func(e *Tried) { e.Count, e.Issued = 1, choice.Since })
	of := func(p peer.ID) bool { return p == choice.Publisher }
	now := r.search.candidates(of, tierBook)
	q := r.search.inquiry(choice.Publisher)
	if len(now) == 0 && !q.answered {
		<-r.strangers // somebody else may have its word
		now, q = r.search.candidates(of, tierBook), r.search.inquiry(choice.Publisher)
	}
	f.choice = &choice
	if len(now) == 0 {
		if now, err = r.heldChoice(f, choice, q); err != nil {
			return false, err
		}
	}
	if len(now) == 0 && r.what.Prefix != "" {
		f.choice = nil
		return false, nil
	}
	if len(now) == 0 {
		return true, fmt.Errorf("%q stands for what %s publishes under it, and nothing is known of that: %w: %s",
			Escape(r.what.String()), r.trust.who(choice.Publisher), ErrUnreachable, Escape(shortError(orUnknown(q.err))))
	}
	f.candidates = now
	if choice.Among > 1 && (len(now) > 1 || now[0].ID != choice.ID) && r.what.Prefix == "" {
		r.changed(f, choice)
		return true, nil
	}
	return true, r.contradict(f, choice)
}

// heldChoice is what a choice meant last, for when nobody says what it means now.
func (r *resolving) heldChoice(f *finding, choice Choice, q inquiry) ([]Candidate, error) {
	held, err := r.remembered(choice.Publisher)
	if err != nil {
		return nil, err
	}
	if held == nil && !choice.ID.IsZero() && strings.HasPrefix(choice.ID.Hex(), r.what.Prefix) && !r.library.book.blocked("", choice.ID) {
		held = &Candidate{ID: choice.ID, Name: choice.Name, Size: -1, Publishers: []peer.ID{choice.Publisher}, held: choice.Since}
	}
	if held == nil {
		return nil, nil
	}
	held.Tier = tierBook
	why := "does not publish it any more"
	switch {
	case r.search.withdrawal(choice.Publisher) > 0:
		why = "has withdrawn it"
	case !q.answered:
		why = "can't be asked"
	}
	f.notes = append(f.notes, fmt.Sprintf("%s %s: this is what the name meant on %s", r.trust.who(choice.Publisher), why, held.held.Format(time.DateOnly)))
	return []Candidate{*held}, nil
}

// changed puts the content that was chosen, when several publishers claimed it,
// beside the new one of the publisher that was noted: whoever claims the same as
// others may have done it for this moment.
func (r *resolving) changed(f *finding, choice Choice) {
	if r.options.AcceptChange {
		return
	}
	f.conflict = fmt.Sprintf("%s publishes something else now; what was chosen on %s was claimed by %d publishers",
		r.trust.who(choice.Publisher), choice.Since.Format(time.DateOnly), choice.Among)
	f.add(r.chosenContent(choice))
}

// chosenContent is what a choice meant, with whoever claims it now.
func (r *resolving) chosenContent(choice Choice) Candidate {
	for _, c := range r.search.candidates(anyPublisher, tierBook) {
		if c.ID == choice.ID {
			return c
		}
	}
	return Candidate{ID: choice.ID, Name: choice.Name, Size: -1, Publishers: []peer.ID{choice.Publisher}, Tier: tierBook, held: choice.Since}
}

// contradict looks whether a tier above the one that the choice was made in says
// otherwise now.
func (r *resolving) contradict(f *finding, choice Choice) error {
	made := choice.Tier
	if made == tierStrangers && r.trust.petname(choice.Publisher) != "" {
		made = tierFriends // it has got a petname since
	}
	var above []Candidate
	if made > tierGroups {
		above = r.indexed
		if r.groupErr != nil {
			f.notes = append(f.notes, "a group can't be asked whether it means the same")
		}
	}
	if made > tierFriends && len(above) == 0 {
		known := &finding{}
		missing, err := r.byFriends(known)
		if err != nil {
			return err
		}
		above = known.candidates
		if len(above) == 0 {
			known.unasked(missing)
		}
		f.notes = append(f.notes, known.notes...)
	}
	differ := slices.ContainsFunc(above, func(c Candidate) bool {
		return !slices.ContainsFunc(f.candidates, func(k Candidate) bool { return k.ID == c.ID })
	})
	switch {
	case !differ:
	case r.options.AcceptChange:
		f.candidates, f.choice = above, nil
	default:
		f.conflict = fmt.Sprintf("chosen on %s from %s, and %s says otherwise now",
			choice.Since.Format(time.DateOnly), r.trust.who(choice.Publisher), r.saidBy(above[0]))
		for _, c := range above {
			f.add(c)
		}
	}
	return nil
}

// saidBy names who stands for a candidate.
func (r *resolving) saidBy(c Candidate) string {
	if c.Group != "" {
		return "group " + Escape(c.Group)
	}
	for _, p := range c.Publishers {
		if n := r.trust.petname(p); n != "" {
			return Escape(string(n))
		}
	}
	return count(len(c.Publishers), "publisher")
}
