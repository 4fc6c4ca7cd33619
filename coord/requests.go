package coord

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
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

// Resolve returns what a name means in the group. ErrNotFound if nothing.
func (cl *Client) Resolve(ctx context.Context, name string, o ReadOptions) (Binding, Freshness, error) {
	lookup, err := share.LookupForm(name)
	if err != nil {
		return Binding{}, Freshness{}, err
	}
	a, err := cl.call(ctx, request{Op: opResolve, Lookup: lookup, Read: o.mode()})
	if err != nil {
		return Binding{}, a.freshness(), err
	}
	if a.Binding == nil {
		return Binding{}, a.freshness(), errors.New("the member's answer has no binding")
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

// Pins yields the pins by content ID, a page at a time: each page is what the group
// had when it was asked for.
func (cl *Client) Pins(ctx context.Context, o ReadOptions) iter.Seq2[Pin, error] {
	return func(yield func(Pin, error) bool) {
		var after content.ID
		for {
			a, err := cl.call(ctx, request{Op: opPins, ID: &after, Read: o.mode()})
			if err != nil {
				yield(Pin{}, err)
				return
			}
			for _, p := range a.Pins {
				if !yield(p, nil) {
					return
				}
				after = p.ID
			}
			if !a.More || len(a.Pins) == 0 {
				return
			}
		}
	}
}

// Status asks one member, this peer itself if it is one, how it sees the group. It
// needs no quorum.
func (cl *Client) Status(ctx context.Context) (Status, Freshness, error) {
	a, err := cl.call(ctx, request{Op: opStatus})
	if err == nil && a.Status == nil {
		err = errors.New("the member's answer has no status")
	}
	if err != nil {
		return Status{}, Freshness{}, err
	}
	return *a.Status, a.freshness(), nil
}

// Members returns who is in the group, by peer. A group of more than a page is
// asked for page by page, and the freshness is that of the first.
func (cl *Client) Members(ctx context.Context, o ReadOptions) ([]Member, Freshness, error) {
	var all []Member
	var first Freshness
	var after Peer
	for {
		a, err := cl.call(ctx, request{Op: opMembers, Peer: after, Read: o.mode()})
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
	t := Token{Group: cl.group}
	rand.Read(t.seed[:])
	key := t.public()
	if _, err := cl.write(ctx, request{Op: opInvite, Token: &key, Admit: as, TTL: ttl.Milliseconds()}); err != nil {
		return Token{}, err
	}
	members, _, err := cl.Members(ctx, ReadOptions{})
	if err != nil {
		return Token{}, err
	}
	status, _, err := cl.Status(ctx)
	if err != nil {
		return Token{}, err
	}
	t.Epoch, t.Name = status.Epoch, status.Name
	// Voters first: they are who can let somebody in.
	slices.SortStableFunc(members, func(a, b Member) int { return int(b.Vote) - int(a.Vote) })
	for _, m := range members[:min(len(members), tokenPeers)] {
		info, err := (knownMember{m.Peer, m.Addrs}).info()
		if err != nil {
			return Token{}, fmt.Errorf("member %.80q: %w", string(m.Peer), err)
		}
		t.Members = append(t.Members, info)
	}
	return t, nil
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
