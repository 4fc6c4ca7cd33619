package pinset

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"slices"
)

// ErrBadState reports bytes that are not an encoded state: damaged, cut, or made
// by something else. Another copy is needed.
var ErrBadState = errors.New("bad pinset")

const (
	stateMagic     = "p2pshare/pinset/"
	recordBytesMax = 256 << 10 // a history of 16 of the longest names is half of it
	bufferBytes    = 64 << 10
)

// Encode writes s: equal states at one log index give equal bytes. It writes 64
// KiB at a time. The error is w's.
func (s *State) Encode(w io.Writer) error {
	b := &blocks{w: w, sum: sha256.New()}
	b.b = append(append(make([]byte, 0, bufferBytes+4096), stateMagic...), stateVersion)
	b.b = binary.AppendUvarint(b.b, s.applied)
	e := &encoder{numbers: map[shared]uint64{}, slots: s.slots}
	for r := range s.records() {
		e.b = e.b[:0]
		e.record(r)
		if err := b.record(e.b); err != nil {
			return err
		}
	}
	h := s.Hash()
	b.b = append(append(b.b, 0), h[:]...)
	if err := b.flush(); err != nil {
		return err
	}
	_, err := w.Write(b.sum.Sum(nil))
	return err
}

// blocks writes in large blocks, and sums them.
type blocks struct {
	w   io.Writer
	b   []byte
	sum hash.Hash
}

func (b *blocks) record(r []byte) error {
	b.b = append(binary.AppendUvarint(b.b, uint64(len(r))), r...)
	if len(b.b) < bufferBytes {
		return nil
	}
	return b.flush()
}

func (b *blocks) flush() error {
	b.sum.Write(b.b)
	_, err := b.w.Write(b.b)
	b.b = b.b[:0]
	return err
}

// records yields all records in the order of an encoded state.
func (s *State) records() iter.Seq[record] {
	return func(yield func(record) bool) {
		_ = (s.group == nil || yield(s.group)) &&
			(s.mark == nil || yield(s.mark)) &&
			yieldAll(&s.members, yield) &&
			yieldAll(&s.grants, yield) &&
			yieldAll(&s.tombstones, yield) &&
			yieldAll(&s.tokens, yield) &&
			yieldAll(&s.pins, yield) &&
			yieldAll(&s.names, yield) &&
			yieldAll(&s.pasts, yield) &&
			yieldAll(&s.changes, yield) &&
			yieldAll(&s.sessions, yield)
	}
}

func yieldAll[T record](t *table[T], yield func(record) bool) bool {
	for r := range t.all() {
		if !yield(r) {
			return false
		}
	}
	return true
}

// Decode reads what Encode wrote, and r to its end: what follows a state makes it
// a bad one. Memory grows with what was read, never with what is declared, and is
// bounded by the limits of a state.
//
// The error wraps [ErrBadState] when the bytes are at fault, or is r's.
func Decode(r io.Reader) (*State, error) {
	in := &input{r: r, sum: sha256.New(), b: make([]byte, 0, bufferBytes)}
	s, err := decode(in)
	if in.err != nil && in.err != io.EOF && in.err != io.ErrUnexpectedEOF {
		return nil, fmt.Errorf("read pinset: %w", in.err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadState, err)
	}
	return s, nil
}

func decode(in *input) (*State, error) {
	head := in.next(len(stateMagic) + 1)
	if len(head) <= len(stateMagic) || string(head[:len(stateMagic)]) != stateMagic {
		return nil, errors.New("it does not begin as one")
	}
	version := head[len(stateMagic)]
	if version < stateVersionLeast || version > stateVersion {
		return nil, fmt.Errorf("version %d, this build knows versions %d to %d", version, stateVersionLeast, stateVersion)
	}
	s := New()
	applied, err := in.uvarint(IntMax)
	if err != nil {
		return nil, err
	}
	s.applied = applied
	if err := s.loadAll(in, version); err != nil {
		return nil, err
	}
	h := s.Hash()
	if !bytes.Equal(in.next(len(h)), h[:]) {
		return nil, errors.New("its records do not have its hash")
	}
	in.count()
	sum := in.sum.Sum(nil)
	if !bytes.Equal(in.next(len(sum)), sum) {
		return nil, errors.New("its checksum differs")
	}
	if len(in.next(1)) > 0 {
		return nil, errors.New("something follows it")
	}
	return s, s.derive()
}

func (s *State) loadAll(in *input, version byte) error {
	d := &decoder{seen: map[shared]bool{}, version: version}
	var before tag
	for {
		n, err := in.uvarint(recordBytesMax)
		if n == 0 || err != nil {
			return err
		}
		d.b = in.next(int(n))
		if len(d.b) < int(n) {
			return io.ErrUnexpectedEOF
		}
		t := tag(d.byte())
		ordered := t >= before && s.load(t, d)
		if d.err != nil {
			return d.err
		}
		if !ordered || len(d.b) > 0 {
			return errCanonical
		}
		before = t
	}
}

// load puts the record in d into its table, and reports whether it may be there.
func (s *State) load(t tag, d *decoder) bool {
	switch t {
	case tagGroup:
		first := s.group == nil
		s.setGroup(d.group())
		return first
	case tagMark:
		first := s.mark == nil
		s.setMarkRecord(d.mark())
		return first
	case tagMember:
		return s.loadMember(d)
	case tagGrant:
		return last(s, d, &s.grants, d.grant(), PeersMax)
	case tagTombstone:
		return last(s, d, &s.tombstones, d.tombstone(), TombstonesMax)
	case tagToken:
		return last(s, d, &s.tokens, d.token(), TokensMax)
	case tagPin:
		d.slots = s.slots
		return last(s, d, &s.pins, d.pin(), PinsMax)
	case tagName:
		return last(s, d, &s.names, d.name(), NamesMax)
	case tagPast:
		return last(s, d, &s.pasts, d.past(), NamesMax+UnboundMax)
	case tagChange:
		return last(s, d, &s.changes, d.change(), ChangesMax)
	case tagSession:
		return last(s, d, &s.sessions, d.session(), SessionsMax)
	}
	return false
}

func (s *State) loadMember(d *decoder) bool {
	m := d.member()
	if !last(s, d, &s.members, m, MembersMax) {
		return false
	}
	s.slots = s.slots.with(m.Peer)
	return true
}

// last puts a record that d has read at the end of its table, and reports whether
// it belongs there.
func last[T record](s *State, d *decoder, t *table[T], r T, most int) bool {
	if d.err != nil {
		return false
	}
	if end, found := t.greatest(); found && t.compare(end, r) >= 0 {
		return false
	}
	put(s, t, r)
	return t.length <= most
}

var errInconsistent = errors.New("its records contradict one another")

// derive makes what follows from the records, and checks that they fit together.
func (s *State) derive() error {
	if s.group == nil && s.members.length+s.grants.length+s.tokens.length+s.pins.length+s.changes.length > 0 {
		return errInconsistent
	}
	for g := range s.grants.all() {
		s.admins += int(bit(g.roles.Has(RoleAdmin)))
	}
	newest, _ := s.sessions.greatest()
	change, _ := s.changes.greatest()
	if s.group != nil && s.admins == 0 ||
		newest != nil && newest.index > s.applied || change != nil && change.Index > s.applied {
		return errInconsistent
	}
	for x := range s.sessions.all() {
		if _, repeated := s.byClient.set(x); repeated {
			return errInconsistent
		}
	}
	if !s.deriveNames() || !s.derivePasts() {
		return errInconsistent
	}
	return nil
}

// deriveNames gives each pin its names. Both are gone through by ID: looking up a
// million would take longer than sorting them.
func (s *State) deriveNames() bool {
	type keyed struct {
		key  uint64 // the beginning of the ID, so that comparing seldom needs the name
		at   int    // in the order of names, which those of one ID keep
		name *name
	}
	names := make([]keyed, 0, s.names.length)
	for n := range s.names.all() {
		names = append(names, keyed{binary.BigEndian.Uint64(n.ref[:]), len(names), n})
	}
	slices.SortFunc(names, func(a, b keyed) int {
		if c := cmp.Compare(a.key, b.key); c != 0 {
			return c
		}
		return cmp.Or(bytes.Compare(a.name.ref[:], b.name.ref[:]), cmp.Compare(a.at, b.at))
	})
	for p := range s.pins.all() {
		for len(names) > 0 && names[0].name.id() == p.id() {
			names[0].name.ref = p.ref // nobody else has them yet
			p.addName(names[0].name)
			names = names[1:]
		}
		if n := p.nameCount(); n > NamesPerPinMax || n == 0 && !p.bare {
			return false
		}
		if p.expires() > 0 {
			s.expiries.set(p)
		}
	}
	return len(names) == 0 // else some have no pin
}

// derivePasts checks that just those histories end whose name is not bound.
func (s *State) derivePasts() bool {
	for p := range s.pasts.all() {
		_, bound := s.nameOf(p.lookup)
		if bound != (p.unbound == 0) || p.unbound > s.applied || bound && len(p.versions) >= HistoryMax {
			return false
		}
		if !bound {
			s.unbound.set(p)
		}
	}
	return s.unbound.length <= UnboundMax
}

// input reads in large blocks, and sums what is taken.
type input struct {
	r       io.Reader
	b       []byte
	taken   int // of b
	counted int // of those, in sum
	sum     hash.Hash
	err     error // of r, once
}

// next returns the next n bytes, fewer at the end, until the next call.
func (in *input) next(n int) []byte {
	if len(in.b)-in.taken < n {
		in.fill(n)
	}
	from := in.taken
	in.taken = min(len(in.b), from+n)
	return in.b[from:in.taken]
}

func (in *input) fill(n int) {
	in.count()
	in.b = in.b[:copy(in.b, in.b[in.taken:])]
	in.taken, in.counted = 0, 0
	if in.err != nil {
		return
	}
	in.b = slices.Grow(in.b, n)
	var got int
	got, in.err = io.ReadAtLeast(in.r, in.b[len(in.b):cap(in.b)], n-len(in.b))
	in.b = in.b[:len(in.b)+got]
}

// count puts what was taken into the sum.
func (in *input) count() {
	in.sum.Write(in.b[in.counted:in.taken])
	in.counted = in.taken
}

// uvarint reads a number of at most most, in its shortest form.
func (in *input) uvarint(most uint64) (v uint64, err error) {
	for shift := 0; shift < 63; shift += 7 {
		b := in.next(1)
		if len(b) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			if v > most || b[0] == 0 && shift > 0 {
				break
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("a number is out of range, or not in its shortest form: want at most %d", most)
}
