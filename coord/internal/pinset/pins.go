package pinset

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/p2pshare/p2pshare/share/content"
)

func (s *State) pinOf(id content.ID) (*pin, bool) {
	return s.pins.get(keyOfID(id), func(p *pin) int { return bytes.Compare(p.ref[:], id[:]) })
}

func (s *State) nameOf(lookup string) (*name, bool) {
	return s.names.get(0, func(n *name) int { return strings.Compare(n.lookup(), lookup) })
}

func (s *State) pastOf(lookup string) *past {
	p, _ := s.pasts.get(0, func(p *past) int { return strings.Compare(p.lookup, lookup) })
	return p
}

// met reports whether what was made at that log index, 0 for nothing, is what is
// expected.
func (e Expect) met(current uint64) bool {
	return e == ExpectAny || e >= 0 && uint64(e) == current
}

func (s *State) setPin(c *SetPin) (outcome, string) {
	if !s.Roles(c.By).Has(RoleWriter) {
		return refuse(Denied, needsWriter), ""
	}
	old, pinned := s.pinOf(c.ID)
	var bound *name
	if c.Name != "" {
		bound, _ = s.nameOf(c.Lookup)
	}
	if o := s.mayPin(c, old, bound); o.code != OK {
		return o, ""
	}

	p := &pin{kind: c.Kind, size: c.Size, replicas: uint8(c.Replicas), index: s.applied,
		origin: newOrigin(sharedPeer(c.By), c.Source.join()), bare: c.Name == ""}
	p.setExpires(c.Expires)
	if pinned {
		p.renew(old, bound != nil && bound.id() == c.ID, c.Source != nil)
	} else {
		id := c.ID // alone: c is not to be kept
		p.ref = &id
	}
	if c.Name == "" {
		s.putPin(p, old)
		return done, c.ID.String()
	}
	if bound != nil {
		s.keep(bound, nil)
	} else if past := s.pastOf(c.Lookup); past != nil {
		s.putPast(past, past.versions, 0)
	}
	n := newName(c.Lookup, c.Name)
	n.ref, n.at, n.index, n.by = p.ref, c.At, s.applied, p.origin.Value().by
	put(s, &s.names, n)
	p.addName(n)
	s.putPin(p, old)
	if bound != nil && bound.id() != c.ID {
		s.release(bound)
	}
	return done, c.Name
}

// mayPin answers whether a writer's pin can be done. old and bound are nil when
// there is none.
func (s *State) mayPin(c *SetPin, old *pin, bound *name) outcome {
	switch {
	case c.Name != "" && bound == nil && !c.Expect.met(0):
		return refuse(Conflict, boundOtherwise)
	case bound != nil && !c.Expect.met(bound.index):
		o := refuse(Conflict, boundOtherwise)
		b := s.binding(bound)
		o.current, o.binding = b.Index, &b
		return o
	case c.Name == "" && old == nil && !c.Expect.met(0):
		return refuse(Conflict, pinnedOtherwise)
	case c.Name == "" && old != nil && !c.Expect.met(old.index):
		o := refuse(Conflict, pinnedOtherwise)
		o.current = old.index
		return o
	case old != nil && (old.kind != c.Kind || old.size != c.Size):
		return refuse(Invalid, contentDiffers)
	case old == nil && s.pins.length >= PinsMax:
		return refuse(Invalid, tooManyPins)
	case c.Name != "" && bound == nil && s.names.length >= NamesMax:
		return refuse(Invalid, tooManyNames)
	case c.Name != "" && old != nil && old.nameCount() >= NamesPerPinMax && (bound == nil || bound.id() != c.ID):
		return refuse(Invalid, tooManyNamesOfPin)
	}
	return done
}

// renew makes p what old becomes, which keeps its copies. rebound: it is pinned by a name it has.
func (p *pin) renew(old *pin, rebound, sourced bool) {
	others := old.nameCount() + int(bit(old.bare && !p.bare))
	if rebound {
		others--
	}
	expires := p.expires()
	if others > 0 {
		p.replicas = max(p.replicas, old.replicas)
		if old.expires() == 0 || expires != 0 && old.expires() > expires {
			expires = old.expires()
		}
	}
	if !sourced {
		p.origin = newOrigin(p.origin.Value().by, old.origin.Value().source)
	}
	p.ref, p.first, p.few, p.more = old.ref, old.first, old.few, old.more
	p.setExpires(expires)
	p.bare = p.bare || old.bare
}

// putPin puts p in place of old, the pin of that content, nil if there is none.
func (s *State) putPin(p, old *pin) {
	if old != nil {
		s.forgetExpiry(old)
	}
	put(s, &s.pins, p)
	if p.expires() > 0 {
		s.expiries.set(p)
	}
}

func (s *State) dropPin(p *pin) {
	s.forgetExpiry(p)
	drop(s, &s.pins, p)
}

func (s *State) forgetExpiry(p *pin) {
	if p.expires() > 0 {
		s.expiries.remove(0, func(x *pin) int { return compareExpiries(x, p) })
	}
}

// release takes a name off its pin, which goes when that was the last reason.
func (s *State) release(n *name) {
	old, _ := s.pinOf(n.id())
	if old.nameCount() == 1 && !old.bare {
		s.dropPin(old)
		return
	}
	p := *old
	p.setNames(slices.DeleteFunc(old.names(), func(x *name) bool { return compareNames(x, n) == 0 }))
	s.putPin(&p, old)
}

// unbind takes a name away. Its pin is the caller's to release or drop, after.
func (s *State) unbind(n *name, h *Header) {
	s.keep(n, &version{display: n.display(), at: h.At, index: s.applied, by: sharedPeer(h.By)})
	drop(s, &s.names, n)
	if s.unbound.length > UnboundMax {
		oldest, _ := s.unbound.least()
		drop(s, &s.pasts, oldest)
		s.unbound.remove(0, func(x *past) int { return compareUnbound(x, oldest) })
	}
}

// keep puts a binding into the history of its name, and the end of it, nil when
// another follows.
func (s *State) keep(n *name, end *version) {
	p := s.pastOf(n.lookup())
	if p == nil {
		p = &past{lookup: n.lookup()}
	}
	b := s.binding(n)
	versions := append(slices.Clone(p.versions), version{display: n.display(),
		id: n.id(), kind: b.Kind, size: b.Size, at: n.at, index: n.index, by: n.by})
	if end == nil {
		s.putPast(p, versions, 0)
		return
	}
	s.putPast(p, append(versions, *end), s.applied)
}

// putPast replaces old by the newest of versions. What is bound, when something
// is, counts as one of them.
func (s *State) putPast(old *past, versions []version, unbound uint64) {
	if old.unbound > 0 {
		s.unbound.remove(0, func(x *past) int { return compareUnbound(x, old) })
	}
	most := HistoryMax
	if unbound == 0 {
		most--
	}
	p := &past{lookup: old.lookup, versions: versions[max(0, len(versions)-most):], unbound: unbound}
	put(s, &s.pasts, p)
	if unbound > 0 {
		s.unbound.set(p)
	}
}

func (s *State) unpin(c *Unpin) (outcome, string) {
	if !s.Roles(c.By).Has(RoleWriter) {
		return refuse(Denied, needsWriter), ""
	}
	if c.ID != nil {
		return s.unpinID(c)
	}
	n, bound := s.nameOf(c.Lookup)
	if !bound {
		return refuse(NotFound, nameUnbound), ""
	}
	if !c.Expect.met(n.index) {
		o := refuse(Conflict, boundOtherwise)
		b := s.binding(n)
		o.current, o.binding = b.Index, &b
		return o, ""
	}
	s.unbind(n, &c.Header)
	s.release(n)
	return done, n.display()
}

func (s *State) unpinID(c *Unpin) (outcome, string) {
	p, pinned := s.pinOf(*c.ID)
	if !pinned {
		return refuse(NotFound, notPinned), ""
	}
	if !c.Expect.met(p.index) {
		o := refuse(Conflict, pinnedOtherwise)
		o.current = p.index
		return o, ""
	}
	s.dropWhole(p, &c.Header)
	return done, p.id().String()
}

// dropWhole drops a pin and every name of it.
func (s *State) dropWhole(p *pin, h *Header) {
	for _, n := range p.names() {
		s.unbind(n, h)
	}
	s.dropPin(p)
}

func (s *State) expire(c *Expire) (outcome, string) {
	if !s.isVoter(c.By) {
		return refuse(Denied, needsVoter), ""
	}
	o := done
	for work := 0; ; {
		p, found := s.expiries.least()
		if !found || p.expires() > c.At {
			break
		}
		if work >= DropsMax {
			o.more = true
			break
		}
		work += 1 + p.nameCount()
		s.dropWhole(p, &c.Header)
		o.dropped++
	}
	o.dropped += s.expireTokens(c.At)
	if o.dropped == 0 {
		return o, ""
	}
	return o, strconv.Itoa(o.dropped)
}

// binding returns what n is bound to. Its pin is there as long as n is.
func (s *State) binding(n *name) Binding {
	p, _ := s.pinOf(n.id())
	return Binding{Name: n.display(), ID: n.id(), Kind: p.kind, Size: p.size,
		By: Peer(n.by.Value()), At: n.at, Index: n.index}
}

func (v *version) binding() Binding {
	return Binding{Name: v.display, ID: v.id, Kind: v.kind, Size: v.size,
		By: Peer(v.by.Value()), At: v.at, Index: v.index}
}
