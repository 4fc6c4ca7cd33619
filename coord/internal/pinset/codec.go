package pinset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unique"
)

// encoder writes the fields of records: integers as varints, texts after their
// length, IDs and keys as they are.
type encoder struct {
	b []byte

	// numbers are those of shared texts, in the order of their first use: the
	// first time one is 0 and the text, later its number, from 1. When nil, each
	// is written in full, as for a record's hash.
	numbers map[shared]uint64

	slots *slots // of the members
}

func (e *encoder) record(r record) {
	e.b = append(e.b, byte(r.tag()))
	r.encode(e)
}

func (e *encoder) uint(v uint64)  { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)    { e.uint(uint64(v)) } // never negative
func (e *encoder) fixed(v []byte) { e.b = append(e.b, v...) }
func (e *encoder) text(v string)  { e.uint(uint64(len(v))); e.b = append(e.b, v...) }
func (e *encoder) byte(v byte)    { e.b = append(e.b, v) }
func (e *encoder) bool(v bool)    { e.byte(bit(v)) }
func (e *encoder) texts(v []string) {
	e.uint(uint64(len(v)))
	for _, t := range v {
		e.text(t)
	}
}

func (e *encoder) shared(v shared) {
	if e.numbers == nil {
		e.text(v.Value())
		return
	}
	n, known := e.numbers[v]
	e.uint(n)
	if !known {
		e.text(v.Value())
		e.numbers[v] = uint64(len(e.numbers)) + 1
	}
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}

var (
	errEnd       = errors.New("ends within a record")
	errCanonical = errors.New("a record is not in canonical form")
)

// decoder reads the fields of records. After the first error it returns zeros.
type decoder struct {
	b      []byte // what is left of the record
	err    error
	shared []shared        // by number, from 1
	seen   map[shared]bool // the same

	version byte
	slots   *slots // of the members that were read
}

// extended reports whether what only later versions have follows. Then it is not
// empty.
func (d *decoder) extended() bool { return d.version > 1 && d.err == nil && len(d.b) > 0 }

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 { // cut, too long, or longer than needed
		d.fail(errCanonical)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v := d.uint()
	if v > IntMax {
		d.fail(errCanonical)
		return 0
	}
	return int64(v)
}

func (d *decoder) fixed(to []byte) {
	if len(d.b) < len(to) {
		d.fail(errEnd)
		return
	}
	copy(to, d.b)
	d.b = d.b[len(to):]
}

func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail(errEnd)
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) text() string { return string(d.bytes()) }

func (d *decoder) byte() (v byte) {
	if len(d.b) == 0 {
		d.fail(errEnd)
		return 0
	}
	v, d.b = d.b[0], d.b[1:]
	return v
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail(errCanonical)
	}
	return v == 1
}

func (d *decoder) texts() (v []string) {
	for range d.count(AddrsMax) {
		v = append(v, d.text())
	}
	return v
}

func (d *decoder) count(most int) int {
	n := d.uint()
	if n > uint64(most) {
		d.fail(errCanonical)
		return 0
	}
	return int(n)
}

func (d *decoder) sharedPeer() shared {
	v := d.sharedText()
	if d.err == nil {
		d.check(checkPeer("by", Peer(v.Value())))
	}
	return v
}

func (d *decoder) sharedText() shared {
	n := d.uint()
	if n > uint64(len(d.shared)) {
		d.fail(errCanonical)
		return shared{}
	}
	if n > 0 {
		return d.shared[n-1]
	}
	v := unique.Make(d.text())
	if d.seen[v] {
		d.fail(errCanonical)
	}
	d.check(checkSource(splitSource(v))) // a peer is a source without addresses
	d.seen[v] = true
	d.shared = append(d.shared, v)
	return v
}

// sameOr writes a display form, which is not empty, as nothing if it is the
// lookup form too: most are.
func (e *encoder) sameOr(lookup, display string) {
	if display == lookup {
		display = ""
	}
	e.text(display)
}

func (d *decoder) sameOr(lookup []byte) []byte {
	display := d.bytes()
	if len(display) == 0 {
		return lookup
	}
	if bytes.Equal(display, lookup) {
		d.fail(errCanonical)
	}
	return display
}

// check fails with the first reason that is not empty.
func (d *decoder) check(reasons ...string) {
	if reason := first(reasons...); reason != "" {
		d.fail(errors.New(reason))
	}
}
