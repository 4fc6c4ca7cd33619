package coord

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"iter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord/internal/pinset"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// Errors of Client's methods: an *AnswerError of a member that answered, which
// matches ErrConflict, ErrDenied, ErrNotFound and their like; ErrNoLeader and
// ErrNoQuorum; a *RefusedError of one that does not let this peer in; or that of
// the last connections.

// ReadOptions say how fresh an answer must be.
type ReadOptions struct {
	// Stale takes what the member that is asked has, this peer itself if it is
	// one. It needs no quorum. Otherwise reads are linearizable.
	Stale bool
}

func (o ReadOptions) mode() readMode {
	if o.Stale {
		return readStale
	}
	return readFresh
}

// Freshness says what an answer is worth.
type Freshness struct {
	Index uint64        // the log index that the answering member had applied
	Stale bool          // it is not linearizable
	Age   time.Duration // since that member heard from a leader; negative when it has not
}

func (a answer) freshness() Freshness {
	return Freshness{a.Index, a.Stale, time.Duration(a.Age) * time.Millisecond}
}

// write numbers a write, so that asking again does not do it twice.
func (cl *Client) write(ctx context.Context, r request) (answer, error) {
	r.Client, r.Seq = cl.id, cl.seq.Add(1)
	return cl.call(ctx, r)
}

// read is call, for a follower that has kept the last answers, and waits no longer
// for a stale one.
func (cl *Client) read(ctx context.Context, r request) (answer, error) {
	if cl.follower() != nil && r.Read == readStale {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, followStaleMax)
		defer cancel()
	}
	return cl.call(ctx, r)
}

// Resolve returns what a name means in the group. ErrNotFound if nothing.
func (cl *Client) Resolve(ctx context.Context, name string, o ReadOptions) (Binding, Freshness, error) {
	lookup, err := share.LookupForm(name)
	if err != nil {
		return Binding{}, Freshness{}, err
	}
	f := cl.follower()
	a, err := cl.read(ctx, request{Op: opResolve, Lookup: lookup, Read: o.mode()})
	if f != nil && o.Stale && Unavailable(err) {
		b, fresh, kept := f.resolve(lookup)
		if errors.Is(kept, errNothingKept) {
			kept = err
		}
		return b, fresh, kept
	}
	if err == nil && a.Binding == nil {
		err = errors.New("the member's answer has no binding")
	}
	if f != nil && !a.Stale && (err == nil || errors.Is(err, ErrNotFound)) && !o.Stale {
		f.keepName(lookup, a.Binding, a.Index)
	}
	if err != nil {
		return Binding{}, a.freshness(), err
	}
	return *a.Binding, a.freshness(), nil
}

// PinOptions are what to pin.
type PinOptions struct {
	Name     share.Name // empty pins without a name
	ID       content.ID
	Kind     Kind
	Size     int64
	Replicas int       // 0 is 3
	Expires  time.Time // zero is never
	Source   *Source
	// Expect is what the name (the pin, without one) must be now: ExpectNone, the
	// zero value, that nothing is there. The same binding again is no conflict.
	Expect Expect
}

const replicasDefault = 3

// Pin pins a content, and binds a name to it. It returns the log index.
func (cl *Client) Pin(ctx context.Context, o PinOptions) (index uint64, err error) {
	r := request{Op: opPin, ID: &o.ID, Kind: o.Kind, Size: o.Size, Replicas: int64(o.Replicas), Source: o.Source, Expect: o.Expect}
	if r.Replicas == 0 {
		r.Replicas = replicasDefault
	}
	if !o.Expires.IsZero() {
		r.Expires = o.Expires.UnixMilli()
	}
	if o.Name != "" {
		r.Name, r.Lookup = string(o.Name), o.Name.Lookup()
	}
	a, err := cl.write(ctx, r)
	return a.Index, err
}

// Unpin takes a name away, and the pin with its last name.
func (cl *Client) Unpin(ctx context.Context, name string, expect Expect) (index uint64, err error) {
	lookup, err := share.LookupForm(name)
	if err != nil {
		return 0, err
	}
	a, err := cl.write(ctx, request{Op: opUnpin, Lookup: lookup, Expect: expect})
	return a.Index, err
}

// UnpinContent takes a pin away with all its names.
func (cl *Client) UnpinContent(ctx context.Context, id content.ID, expect Expect) (index uint64, err error) {
	a, err := cl.write(ctx, request{Op: opUnpin, ID: &id, Expect: expect})
	return a.Index, err
}

// PinPage is a part of the list of pins.
type PinPage struct {
	Pins []Pin
	Freshness
	Cut bool // the last page that a follower has kept of a longer list
}

// Pins yields the pins by content ID: see PinPages.
func (cl *Client) Pins(ctx context.Context, o ReadOptions) iter.Seq2[Pin, error] {
	return func(yield func(Pin, error) bool) {
		for page, err := range cl.PinPages(ctx, o) {
			if err != nil {
				yield(Pin{}, err)
				return
			}
			for _, p := range page.Pins {
				if !yield(p, nil) {
					return
				}
			}
		}
	}
}

// PinPages yields the pins by content ID, a page at a time: each is what the group
// had when it was asked for. There is a page at least, if there is no error.
func (cl *Client) PinPages(ctx context.Context, o ReadOptions) iter.Seq2[PinPage, error] {
	return func(yield func(PinPage, error) bool) {
		var after content.ID
		f, collect, index := cl.follower(), pinCollector{room: keptPinBytes}, uint64(0)
		for first := true; ; first = false {
			a, err := cl.read(ctx, request{Op: opPins, ID: &after, Read: o.mode()})
			if f != nil && o.Stale && first && Unavailable(err) {
				if page, kept := f.keptPage(); kept {
					yield(page, nil)
					return
				}
			}
			if err != nil {
				yield(PinPage{}, err)
				return
			}
			if first {
				index = a.Index
			}
			for _, p := range a.Pins {
				if bytes.Compare(p.ID[:], after[:]) <= 0 {
					yield(PinPage{}, errors.New("the member's answer is not in order"))
					return
				}
				after = p.ID
				collect.add(p)
			}
			if !yield(PinPage{Pins: a.Pins, Freshness: a.freshness()}, nil) {
				return
			}
			if a.More && len(a.Pins) > 0 {
				continue
			}
			if f != nil && !o.Stale {
				if err := f.keepPins(&collect.list, index); err != nil {
					cl.c.log.Warn("the pins of a followed group can't be kept", "err", err)
				}
			}
			return
		}
	}
}

// Status asks one member, this peer itself if it is one, how it sees the group. It
// needs no quorum.
func (cl *Client) Status(ctx context.Context) (Status, Freshness, error) {
	f := cl.follower()
	a, err := cl.read(ctx, request{Op: opStatus})
	if f != nil && Unavailable(err) {
		if st, fresh, kept := f.keptStatus(); kept {
			return st, fresh, nil
		}
	}
	if err == nil && a.Status == nil {
		err = errors.New("the member's answer has no status")
	}
	if err != nil {
		return Status{}, Freshness{}, err
	}
	if f != nil && plausibleStatus(*a.Status) && a.Status.Group == cl.group {
		f.keepStatus(*a.Status)
	}
	return *a.Status, a.freshness(), nil
}

// Members returns who is in the group, by peer. A group of more than a page is
// asked for page by page, and the freshness is that of the first.
func (cl *Client) Members(ctx context.Context, o ReadOptions) ([]Member, Freshness, error) {
	var all []Member
	var first Freshness
	var after Peer
	f := cl.follower()
	for {
		a, err := cl.read(ctx, request{Op: opMembers, Peer: after, Read: o.mode()})
		if f != nil && o.Stale && after == "" && Unavailable(err) {
			if kept, fresh, ok := f.keptMembers(); ok {
				return kept, fresh, nil
			}
		}
		if err != nil {
			return nil, a.freshness(), err
		}
		if after == "" {
			first = a.freshness()
		}
		for _, m := range a.Members {
			if m.Peer <= after || len(all) == pinset.MembersMax {
				return nil, first, errors.New("the member's answer is not in order, or too long")
			}
			all, after = append(all, m), m.Peer
		}
		if !a.More || len(a.Members) == 0 {
			if f != nil && !o.Stale {
				f.keepMembers(all)
			}
			return all, first, nil
		}
	}
}

// Log yields the changes after a log index, oldest first, a page at a time. The
// group keeps the last 10,000.
func (cl *Client) Log(ctx context.Context, after uint64, o ReadOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for {
			a, err := cl.call(ctx, request{Op: opLog, After: after, Read: o.mode()})
			if err != nil {
				yield(Change{}, err)
				return
			}
			for _, c := range a.Changes {
				if c.Index <= after {
					yield(Change{}, errors.New("the member's answer is not in order"))
					return
				}
				if after = c.Index; !yield(c, nil) {
					return
				}
			}
			if !a.More || len(a.Changes) == 0 {
				return
			}
		}
	}
}

// Invite makes an invitation, which is in the group when Invite returns. Its secret
// is made here and sent to nobody.
func (cl *Client) Invite(ctx context.Context, as Admission, ttl time.Duration) (Token, error) {
	var t Token
	rand.Read(t.seed[:])
	key := t.public()
	if _, err := cl.write(ctx, request{Op: opInvite, Token: &key, Admit: as, TTL: ttl.Milliseconds()}); err != nil {
		return Token{}, err
	}
	var err error
	t.Link, err = cl.Link(ctx)
	return t, err
}

// Remove takes a member out of the group, dead or alive.
func (cl *Client) Remove(ctx context.Context, p peer.ID) error {
	_, err := cl.write(ctx, request{Op: opRemove, Peer: Peer(p.String())})
	return err
}

// Leave takes this peer out of the group.
func (cl *Client) Leave(ctx context.Context) error {
	_, err := cl.write(ctx, request{Op: opLeave})
	return err
}

// Grant gives a peer a role; it need not be a member.
func (cl *Client) Grant(ctx context.Context, p peer.ID, role Roles) error {
	_, err := cl.write(ctx, request{Op: opGrant, Peer: Peer(p.String()), Role: role})
	return err
}

// Revoke takes a role that was granted.
func (cl *Client) Revoke(ctx context.Context, p peer.ID, role Roles) error {
	_, err := cl.write(ctx, request{Op: opRevoke, Peer: Peer(p.String()), Role: role})
	return err
}

// SetOpen opens reading to every peer that asks, or limits it to those with a role
// again, as it is in a new group.
func (cl *Client) SetOpen(ctx context.Context, open bool) error {
	r := request{Op: opRevoke, Peer: pinset.Everyone, Role: RoleReader}
	if open {
		r.Op = opGrant
	}
	_, err := cl.write(ctx, r)
	return err
}
