package share

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// Trust returns what the trust book says.
func (l *Library) Trust() (Trust, error) { return l.book.view() }

// ParsePublisher reads a peer ID, or a petname of the trust book. Its error matches
// ErrBadWhat.
func (l *Library) ParsePublisher(s string) (peer.ID, error) {
	trust, err := l.book.view()
	if err != nil {
		return "", err
	}
	return trust.ParsePublisher(s)
}

// ParsePublisher reads a peer ID or a petname. Its error matches ErrBadWhat.
func (t Trust) ParsePublisher(s string) (peer.ID, error) {
	p, petname, err := parsePublisher(s)
	if err == nil && petname != "" {
		friend, ok := t.friend(petname)
		p = friend.Peer
		if !ok {
			err = fmt.Errorf("\"%s\" is no peer ID, and no petname of the trust book", escapeCut(s, whatShownMax))
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBadWhat, err)
	}
	return p, nil
}

// Knows returns an error that matches ErrBadWhat for a What whose petname is not in
// the book.
func (t Trust) Knows(w What) error {
	_, err := t.meant(w)
	return err
}

// TrustPeer gives a publisher a petname, in place of any that it has. It returns
// ErrPetnameTaken when another publisher has that, and ErrBadPetname.
func (l *Library) TrustPeer(p peer.ID, name Petname) (Friend, error) {
	if _, err := ParsePetname(string(name)); err != nil {
		return Friend{}, err
	}
	f := Friend{Peer: p, Name: name, Since: now()}
	trust, err := l.book.view()
	if err != nil {
		return f, err
	}
	if other, ok := trust.friend(name); ok && other.Peer != p {
		return f, fmt.Errorf("%w: %q is %s", ErrPetnameTaken, Escape(string(name)), other.Peer)
	}
	_, err = l.book.change(func(e any) bool { k, ok := e.(Friend); return ok && k.Peer == p }, f)
	return f, err
}

// TrustName binds a bare name to a publisher, in place of any choice that was made
// for it. What anybody else says of the name is then not asked for.
func (l *Library) TrustName(n Name, p peer.ID) (Choice, error) {
	c := Choice{Name: n, Publisher: p, Tier: tierBook, Among: 1, Since: now()}
	last, ok, err := l.catalog.lastVersion(p, n)
	if err != nil {
		return c, err
	}
	if ok {
		c.ID = last.ID
	}
	_, err = l.book.change(choiceOf(n), c)
	return c, err
}

// choiceOf accepts the entry that binds a name.
func choiceOf(n Name) func(any) bool {
	lookup := n.Lookup()
	return func(e any) bool { c, ok := e.(Choice); return ok && c.Name.Lookup() == lookup }
}

// Untrust takes a publisher's petname away. Choices that were made stay. It returns
// ErrNotInBook when it has none.
func (l *Library) Untrust(p peer.ID) error {
	return l.drop(func(e any) bool { f, ok := e.(Friend); return ok && f.Peer == p }, fmt.Sprintf("%s has no petname", p))
}

// Forget takes away what was chosen for a bare name. It returns ErrNotInBook when
// nothing was.
func (l *Library) Forget(n Name) error {
	return l.drop(choiceOf(n), fmt.Sprintf("nothing was chosen for %q", Escape(string(n))))
}

// drop takes entries out of the book; none says that there are none.
func (l *Library) drop(which func(any) bool, none string) error {
	dropped, err := l.book.change(which)
	if err == nil && dropped == 0 {
		err = fmt.Errorf("%s: %w", none, ErrNotInBook)
	}
	return err
}

// Block never deals with a peer or a content again: the peer is neither asked nor
// served nor believed, the content neither fetched nor served. One of the two is
// empty. What is under way goes on.
func (l *Library) Block(p peer.ID, id content.ID) error {
	if p == l.node.ID() {
		return fmt.Errorf("it is this peer itself: %w", ErrRefused)
	}
	b := Blocked{Peer: p, ID: id, Since: now()}
	_, err := l.book.change(sameBlock(p, id), b)
	return err
}

// Unblock takes back Block. It returns ErrNotInBook for what is not blocked.
func (l *Library) Unblock(p peer.ID, id content.ID) error {
	what := id.String()
	if p != "" {
		what = p.String()
	}
	return l.drop(sameBlock(p, id), what+" is not blocked")
}

func sameBlock(p peer.ID, id content.ID) func(any) bool {
	return func(e any) bool { b, ok := e.(Blocked); return ok && b.Peer == p && b.ID == id }
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// bindsTo is the publisher that a content is remembered by, when it was chosen for
// a name: one with a petname before others, then one that told it itself.
func (c Candidate) bindsTo(t Trust) peer.ID {
	for _, p := range c.Publishers {
		if t.petname(p) != "" {
			return p
		}
	}
	if len(c.present) > 0 {
		return slices.Min(c.present)
	}
	return c.Publishers[0]
}

// remember writes down what a name was taken to mean, once that was got. It is no
// error of the get that it can't be.
func (g *getting) remember(c Candidate) {
	if g.what.Name == "" || !g.what.ID.IsZero() || g.what.Group != "" ||
		len(c.Publishers) == 1 && c.Publishers[0] == g.library.node.ID() {
		return
	}
	if err := g.rememberIn(c); err != nil {
		g.note("what this name was taken to mean is not remembered: %s", Escape(err.Error()))
	}
}

func (g *getting) rememberIn(c Candidate) error {
	trust, err := g.library.book.view()
	if err != nil {
		return err
	}
	replace := g.options.AcceptChange || !g.options.Pick.IsZero()
	if len(c.Publishers) == 0 { // a group outranks what was chosen, and is asked each time
		if replace {
			_, err = g.library.book.change(choiceOf(g.what.Name))
		}
		return err
	}
	scoped := g.what.Publisher != "" || g.what.Petname != ""
	publisher := g.options.From
	if publisher == "" {
		publisher = c.bindsTo(trust)
	}
	choice, chosen := trust.choice(g.what.Name)
	if g.decided != nil {
		publisher = g.decided.Publisher
	}
	if m, ok := c.signed[publisher]; ok {
		v := version{ID: c.ID, Kind: c.Kind, Size: c.Size, Seq: m.Seq, At: now()}
		if err := g.library.catalog.keepVersion(publisher, g.what.Name, v); err != nil {
			return err
		}
	}
	switch {
	case scoped:
		return nil
	case chosen && g.decided == nil && !replace:
		if choice.ID != c.ID {
			g.note("%s stays what was chosen for this name on %s; --accept-change changes that, or p2pshare forget",
				trust.who(choice.Publisher), choice.Since.Format(time.DateOnly))
		}
		return nil
	case chosen && g.decided != nil && choice.ID == c.ID && choice.Publisher == publisher && !replace:
		return nil // as it was
	}
	next := Choice{Name: g.what.Name, Publisher: publisher, ID: c.ID, Tier: tierOf(trust, publisher), Among: max(1, len(c.Publishers)), Since: now()}
	if chosen && choice.Publisher == publisher {
		next.Tier, next.Since = choice.Tier, choice.Since // a newer version of it
		if choice.ID == c.ID || g.decided != nil && !replace {
			next.Among = choice.Among
		}
	}
	if g.options.From != "" {
		next.Among = 1 // the person named the publisher, and not the content
	}
	_, err = g.library.book.change(choiceOf(g.what.Name), next)
	return err
}

// noteNewVersion tells what a publisher's new version takes the place of.
func (g *getting) noteNewVersion(c Candidate, s *search, trust Trust) error {
	publisher := g.options.From
	switch {
	case g.decided != nil:
		publisher = g.decided.Publisher
	case publisher == "" && len(c.Publishers) > 0:
		publisher = c.bindsTo(trust)
	}
	m, ok := c.signed[publisher]
	if !ok {
		return nil
	}
	last, got, err := g.library.catalog.lastVersion(publisher, m.Name)
	switch {
	case err != nil:
		return err
	case got && last.ID != c.ID && m.Seq > last.Seq:
		g.note("%s published a new version on %s: %s replaces %s, which was got on %s", trust.who(publisher),
			m.Issued.Format(time.DateOnly), c.ID.Short(), last.ID.Short(), last.At.Format(time.DateOnly))
	case !got:
		s.mu.Lock()
		old, ok := s.replaced[publisher]
		s.mu.Unlock()
		if ok && old.ID != c.ID {
			g.note("%s published a new version on %s: %s replaces %s of %s, which others still have", trust.who(publisher),
				m.Issued.Format(time.DateOnly), c.ID.Short(), old.ID.Short(), old.Issued.Format(time.DateOnly))
		}
	}
	return nil
}

// ParseBlocked reads what can be blocked: a peer, by its ID or petname, or a content
// ID. Its error matches ErrBadWhat.
func (l *Library) ParseBlocked(s string) (peer.ID, content.ID, error) {
	trust, err := l.book.view()
	if err != nil {
		return "", zeroID, err
	}
	return trust.ParseBlocked(s)
}

// ParseBlocked reads a peer ID, a petname or a content ID. Its error matches
// ErrBadWhat, or content.ErrInvalidID.
func (t Trust) ParseBlocked(s string) (peer.ID, content.ID, error) {
	if strings.HasPrefix(s, "b3:") || looksLikeID(s) {
		id, err := content.Parse(s)
		return "", id, err
	}
	p, err := t.ParsePublisher(s)
	if errors.Is(err, ErrBadWhat) {
		err = fmt.Errorf("%w, and no content ID", err)
	}
	return p, zeroID, err
}
