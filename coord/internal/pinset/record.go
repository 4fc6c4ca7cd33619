package pinset

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"unique"

	"github.com/p2pshare/p2pshare/share/content"
)

// shared is a text that many records have: who pinned, and from where. There is
// one copy of it, and records hold a pointer.
type shared = unique.Handle[string]

// A record is what a state consists of; the rest is derived. It is not changed
// once it is in a table.
type record interface {
	tag() tag
	encode(*encoder)
}

// tag begins an encoded record, and is the order of the tables in a state.
type tag uint8

const (
	tagGroup tag = iota + 1
	tagMark
	tagMember
	tagGrant
	tagTombstone
	tagToken
	tagPin
	tagName
	tagPast
	tagChange
	tagSession
)

// pin is one content that is kept. Its size counts: there may be millions.
type pin struct {
	ref      *content.ID // the one copy of the ID, which its names have, too
	size     int64
	index    uint64
	origin   unique.Handle[origin]
	first    *name        // the first of the names that are bound to it: derived, not encoded
	more     *more        // nil for nearly every pin
	few      [fewMax]slot // members that hold a copy, when no more than these do; see copies.go
	replicas uint8
	kind     Kind
	bare     bool // pinned without a name
}

// origin is who pinned, and from where: many pins have the same.
type origin struct {
	by, source shared // source is a joined Source
}

func newOrigin(by, source shared) unique.Handle[origin] {
	return unique.Make(origin{by, source})
}

// more is what few pins have.
type more struct {
	expires  int64
	names    []*name // all but the first, by lookup form
	many     []slot  // members that hold a copy, when they are more than few takes
	unproven []slot
}

func (p *pin) id() content.ID { return *p.ref }

func (p *pin) expires() int64 {
	if p.more == nil {
		return 0
	}
	return p.more.expires
}

// edit changes more. It is for a pin that is in no table yet.
func (p *pin) edit(change func(*more)) {
	m := new(more)
	if p.more != nil {
		*m = *p.more
	}
	change(m)
	p.more = m
	if m.expires == 0 && len(m.names)+len(m.many)+len(m.unproven) == 0 {
		p.more = nil
	}
}

func (p *pin) setExpires(at int64) {
	if at != p.expires() {
		p.edit(func(m *more) { m.expires = at })
	}
}

// names returns the names that are bound to p, by lookup form, in a new slice.
func (p *pin) names() []*name {
	if p.first == nil {
		return nil
	}
	names := []*name{p.first}
	if p.more != nil {
		names = append(names, p.more.names...)
	}
	return names
}

func (p *pin) nameCount() int {
	switch {
	case p.first == nil:
		return 0
	case p.more == nil:
		return 1
	}
	return 1 + len(p.more.names)
}

// setNames is for a pin that is in no table yet. names is kept.
func (p *pin) setNames(names []*name) {
	p.first = nil
	if len(names) > 0 {
		p.first, names = names[0], names[1:]
	}
	if len(names) > 0 || p.more != nil {
		p.edit(func(m *more) { m.names = names })
	}
}

// addName puts n to the names of p, in place of the one of the same lookup form.
func (p *pin) addName(n *name) {
	if p.first == nil {
		p.first = n
		return
	}
	names := p.names()
	i, found := slices.BinarySearchFunc(names, n, compareNames)
	if found {
		names[i] = n
	} else {
		names = slices.Insert(names, i, n)
	}
	p.setNames(names)
}

// keyOfID is the key of a pin in its table: IDs are random, so that it decides
// nearly always.
func keyOfID(id content.ID) uint32 { return binary.BigEndian.Uint32(id[:]) }

// name binds a lookup form to a content. Size and kind are its pin's.
type name struct {
	text  string      // the lookup form; when the display form is another, a NUL and that
	ref   *content.ID // its pin's
	at    int64
	index uint64
	by    shared
}

func newName(lookup, display string) *name {
	if display == lookup {
		return &name{text: lookup}
	}
	return &name{text: lookup + "\x00" + display}
}

func (n *name) id() content.ID { return *n.ref }

func (n *name) lookup() string {
	lookup, _, _ := strings.Cut(n.text, "\x00")
	return lookup
}

func (n *name) display() string {
	lookup, display, differs := strings.Cut(n.text, "\x00")
	if differs {
		return display
	}
	return lookup
}

// version is a binding that was, or, with a zero ID, that one was taken away.
type version struct {
	display string
	id      content.ID
	kind    Kind
	size    int64
	at      int64
	index   uint64
	by      shared
}

// past is the history of a name, oldest first, without what is bound now.
type past struct {
	lookup   string
	versions []version
	unbound  uint64 // the log index since when nothing is bound, 0 if something is
}

// grant is what was granted to a peer: not nothing.
type grant struct {
	peer  Peer
	roles Roles
}

// mark is where states are compared: the hash before the Mark at that index.
type mark struct {
	index uint64
	hash  Digest
}

// session is the result of one command, by the client's number.
type session struct {
	client     Client
	seq, index uint64
	outcome    *outcome // nil is a plain OK
}

func comparePins(a, b *pin) int   { return bytes.Compare(a.ref[:], b.ref[:]) }
func compareNames(a, b *name) int { return strings.Compare(a.lookup(), b.lookup()) }
func compareExpiries(a, b *pin) int {
	return cmp.Or(cmp.Compare(a.expires(), b.expires()), comparePins(a, b))
}
func comparePasts(a, b *past) int { return strings.Compare(a.lookup, b.lookup) }
func compareUnbound(a, b *past) int {
	return cmp.Or(cmp.Compare(a.unbound, b.unbound), comparePasts(a, b))
}
func compareMembers(a, b *Member) int { return cmp.Compare(a.Peer, b.Peer) }
func compareGrants(a, b *grant) int   { return cmp.Compare(a.peer, b.peer) }
func compareTombstones(a, b *Tombstone) int {
	return cmp.Compare(a.Peer, b.Peer)
}
func compareTokens(a, b *Token) int    { return bytes.Compare(a.Token[:], b.Token[:]) }
func compareChanges(a, b *Change) int  { return cmp.Compare(a.Index, b.Index) }
func compareByIndex(a, b *session) int { return cmp.Compare(a.index, b.index) }

// Sessions are in no order that means something: one of keys that are spread, which
// are all that most searches have to look at.
func compareSessions(a, b *session) int { return a.compareTo(&b.client, b.seq) }
func (s *session) key() uint32          { return keyOfSession(&s.client, s.seq) }
func (s *session) compareTo(c *Client, seq uint64) int {
	return cmp.Or(cmp.Compare(s.key(), keyOfSession(c, seq)), bytes.Compare(s.client[:], c[:]), cmp.Compare(s.seq, seq))
}
func keyOfSession(c *Client, seq uint64) uint32 {
	return binary.BigEndian.Uint32(c[:]) ^ uint32(seq)*0x9e3779b9
}

// join and split turn a source into a shared text and back: its peer and its
// addresses, which have no control characters, one a line.
func (s *Source) join() shared {
	if s == nil {
		return unique.Make("")
	}
	return unique.Make(strings.Join(append([]string{string(s.Peer)}, s.Addrs...), "\n"))
}

func splitSource(v shared) *Source {
	if v.Value() == "" {
		return nil
	}
	lines := strings.Split(v.Value(), "\n")
	return &Source{Peer: Peer(lines[0]), Addrs: lines[1:]}
}

func (*Group) tag() tag     { return tagGroup }
func (*mark) tag() tag      { return tagMark }
func (*Member) tag() tag    { return tagMember }
func (*grant) tag() tag     { return tagGrant }
func (*Tombstone) tag() tag { return tagTombstone }
func (*Token) tag() tag     { return tagToken }
func (*pin) tag() tag       { return tagPin }
func (*name) tag() tag      { return tagName }
func (*past) tag() tag      { return tagPast }
func (*Change) tag() tag    { return tagChange }
func (*session) tag() tag   { return tagSession }

func (g *Group) encode(e *encoder) {
	e.fixed(g.ID[:])
	e.text(g.Name)
	e.text(string(g.Founder))
	e.fixed(g.Recovery[:])
	e.int(g.At)
	e.uint(g.Index)
	e.uint(g.Epoch)
	e.text(string(g.EpochBy))
	e.int(g.EpochAt)
	e.uint(g.EpochIndex)
	e.fixed(g.EpochState[:])
	if g.Grace != 0 {
		e.int(g.Grace)
	}
}

func (d *decoder) group() *Group {
	g := new(Group)
	d.fixed(g.ID[:])
	g.Name = d.text()
	g.Founder = Peer(d.text())
	d.fixed(g.Recovery[:])
	g.At = d.int()
	g.Index = d.uint()
	g.Epoch = d.uint()
	g.EpochBy = Peer(d.text())
	g.EpochAt = d.int()
	g.EpochIndex = d.uint()
	d.fixed(g.EpochState[:])
	if d.extended() {
		g.Grace = d.int()
		d.check(checkGrace(g.Grace))
	}
	d.check(checkText("group", g.Name, 1, NameBytesMax), checkPeer("founder", g.Founder),
		checkPeer("by", g.EpochBy), checkRange("epoch", g.Epoch, 1, IntMax))
	return g
}

func (m *mark) encode(e *encoder) {
	e.uint(m.index)
	e.fixed(m.hash[:])
}

func (d *decoder) mark() *mark {
	m := &mark{index: d.uint()}
	d.fixed(m.hash[:])
	return m
}

func (m *Member) encode(e *encoder) {
	e.text(string(m.Peer))
	e.byte(byte(m.Vote))
	e.bool(m.MayVote)
	e.bool(m.NoStore)
	e.int(m.Capacity)
	e.text(m.Zone)
	e.texts(m.Addrs)
	e.text(string(m.By))
	e.int(m.At)
	e.uint(m.Index)
	if m.Away || m.Unproven {
		e.bool(m.Away)
		e.bool(m.Unproven)
	}
}

func (d *decoder) member() *Member {
	m := &Member{Peer: Peer(d.text()), Vote: Vote(d.byte()), MayVote: d.bool(), NoStore: d.bool(),
		Capacity: d.int(), Zone: d.text(), Addrs: d.texts(), By: Peer(d.text()), At: d.int(), Index: d.uint()}
	if d.extended() {
		m.Away, m.Unproven = d.bool(), d.bool()
		d.check(unless(m.Away || m.Unproven, "is neither away nor unproven"))
	}
	d.check(checkPeer("member", m.Peer), unless(voteWords.known(m.Vote), "vote is unknown"),
		checkPlace(m.Capacity, m.Zone, m.Addrs), checkPeer("by", m.By))
	return m
}

func (g *grant) encode(e *encoder) {
	e.text(string(g.peer))
	e.byte(byte(g.roles))
}

func (d *decoder) grant() *grant {
	g := &grant{peer: Peer(d.text()), roles: Roles(d.byte())}
	d.check(checkPeer("peer", g.peer), unless(g.roles > 0 && g.roles < rolesEnd, "roles are unknown"))
	return g
}

func (t *Tombstone) encode(e *encoder) {
	e.text(string(t.Peer))
	e.text(string(t.By))
	e.int(t.At)
	e.uint(t.Index)
}

func (d *decoder) tombstone() *Tombstone {
	t := &Tombstone{Peer: Peer(d.text()), By: Peer(d.text()), At: d.int(), Index: d.uint()}
	d.check(checkPeer("peer", t.Peer), checkPeer("by", t.By))
	return t
}

func (t *Token) encode(e *encoder) {
	e.fixed(t.Token[:])
	e.byte(byte(t.Role))
	e.int(t.Expires)
	e.text(string(t.Issuer))
	e.int(t.At)
	e.uint(t.Index)
	e.text(string(t.UsedBy))
	e.uint(t.UsedIndex)
}

func (d *decoder) token() *Token {
	t := new(Token)
	d.fixed(t.Token[:])
	t.Role = Admission(d.byte())
	t.Expires = d.int()
	t.Issuer = Peer(d.text())
	t.At = d.int()
	t.Index = d.uint()
	t.UsedBy = Peer(d.text())
	t.UsedIndex = d.uint()
	d.check(unless(admissionWords.known(t.Role), "role is unknown"), checkPeer("issuer", t.Issuer),
		unless(t.UsedBy == "" || checkPeer("", t.UsedBy) == "", "used by nobody"))
	return t
}

func (p *pin) encode(e *encoder) {
	e.fixed(p.ref[:])
	e.byte(byte(p.kind))
	e.int(p.size)
	e.byte(p.replicas)
	e.bool(p.bare)
	e.int(p.expires())
	e.uint(p.index)
	o := p.origin.Value()
	e.shared(o.by)
	e.shared(o.source)
	if p.copied() {
		e.members(p.held())
		e.members(p.unproven())
	}
}

func (d *decoder) pin() *pin {
	p := &pin{ref: new(content.ID)}
	d.fixed(p.ref[:])
	p.kind = Kind(d.byte())
	p.size = d.int()
	p.replicas = d.byte()
	p.bare = d.bool()
	p.setExpires(d.int())
	p.index = d.uint()
	by := d.sharedPeer()
	p.origin = newOrigin(by, d.sharedText())
	if d.extended() {
		p.setHeld(d.members())
		p.setUnproven(d.members())
		d.check(unless(p.copied(), "nobody has a copy"))
		for x := range p.unproven() {
			d.check(unless(!contains(p.held(), x), "a copy is unproven and verified"))
		}
	}
	d.check(unless(!p.ref.IsZero(), "id is zero"), unless(kindWords.known(p.kind), "kind is unknown"),
		checkReplicas(int64(p.replicas)))
	return p
}

func (n *name) encode(e *encoder) {
	e.text(n.lookup())
	e.sameOr(n.lookup(), n.display())
	e.fixed(n.ref[:])
	e.int(n.at)
	e.uint(n.index)
	e.shared(n.by)
}

func (d *decoder) name() *name {
	form := d.bytes()
	lookup, display := string(form), string(d.sameOr(form))
	n := newName(lookup, display)
	n.ref = new(content.ID) // until its pin is known
	d.fixed(n.ref[:])
	n.at = d.int()
	n.index = d.uint()
	n.by = d.sharedPeer()
	d.check(unless(len(lookup) > 0, "name is empty"), checkName(display, lookup))
	return n
}

func (p *past) encode(e *encoder) {
	e.text(p.lookup)
	e.uint(p.unbound)
	e.uint(uint64(len(p.versions)))
	for i := range p.versions {
		v := &p.versions[i]
		e.sameOr(p.lookup, v.display)
		e.fixed(v.id[:])
		e.byte(byte(v.kind))
		e.int(v.size)
		e.int(v.at)
		e.uint(v.index)
		e.shared(v.by)
	}
}

func (d *decoder) past() *past {
	p := &past{lookup: d.text(), unbound: d.uint()}
	d.check(checkText("lookup", p.lookup, 1, LookupBytesMax))
	for range d.count(HistoryMax) {
		v := version{display: string(d.sameOr([]byte(p.lookup)))}
		d.fixed(v.id[:])
		v.kind = Kind(d.byte())
		v.size = d.int()
		v.at = d.int()
		v.index = d.uint()
		v.by = d.sharedPeer()
		d.check(checkText("name", v.display, 1, LookupBytesMax),
			unless(v.id.IsZero() == (v.kind == 0) && (v.kind == 0 || kindWords.known(v.kind)), "kind is unknown"))
		p.versions = append(p.versions, v)
	}
	d.check(unless(len(p.versions) > 0, "history is empty"))
	return p
}

func (c *Change) encode(e *encoder) {
	e.uint(c.Index)
	e.int(c.At)
	e.text(string(c.By))
	e.byte(byte(c.Op))
	e.text(c.Subject)
}

func (d *decoder) change() *Change {
	c := &Change{Index: d.uint(), At: d.int(), By: Peer(d.text()), Op: Op(d.byte()), Subject: d.text()}
	d.check(checkPeer("by", c.By), unless(opWords.known(c.Op), "op is unknown"),
		checkText("subject", c.Subject, 0, NameBytesMax))
	return c
}

func (s *session) encode(e *encoder) {
	e.uint(s.index)
	e.fixed(s.client[:])
	e.uint(s.seq)
	o := s.outcome
	e.bool(o != nil)
	if o == nil {
		return
	}
	e.byte(byte(o.code))
	e.byte(byte(o.reason))
	e.uint(o.current)
	e.int(int64(o.dropped))
	e.bool(o.more)
	e.bool(o.binding != nil)
	if b := o.binding; b != nil {
		e.text(b.Name)
		e.fixed(b.ID[:])
		e.byte(byte(b.Kind))
		e.int(b.Size)
		e.text(string(b.By))
		e.int(b.At)
		e.uint(b.Index)
	}
}

func (d *decoder) session() *session {
	s := &session{index: d.uint()}
	d.fixed(s.client[:])
	s.seq = d.uint()
	if !d.bool() {
		return s
	}
	o := &outcome{code: Code(d.byte()), reason: reason(d.byte()), current: d.uint(),
		dropped: int(d.int()), more: d.bool()}
	s.outcome = o
	if d.bool() {
		b := &Binding{Name: d.text()}
		d.fixed(b.ID[:])
		b.Kind = Kind(d.byte())
		b.Size = d.int()
		b.By = Peer(d.text())
		b.At = d.int()
		b.Index = d.uint()
		o.binding = b
		d.check(checkText("name", b.Name, 1, NameBytesMax), checkPeer("by", b.By),
			unless(kindWords.known(b.Kind), "kind is unknown"))
	}
	d.check(unless(codeWords.known(o.code), "code is unknown"),
		unless(int(o.reason) < len(reasonTexts), "reason is unknown"),
		unless(*o != outcome{code: OK}, "a plain result is written out"))
	return s
}
