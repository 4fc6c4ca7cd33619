package node

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// ErrBadJSON is matched by every error that DecodeStrict returns because of its
// data. The bytes are wrong or hostile: drop them, and blame who sent them.
var ErrBadJSON = errors.New("bad JSON")

// jsonDepthMax is how many arrays and objects may lie inside each other. Our
// deepest message uses four; the rest is room for fields that come later.
const jsonDepthMax = 16

// DecodeStrict decodes data, exactly one JSON value, into the pointer v as
// json.Unmarshal does, after refusing whatever two readers could take for
// different things:
//   - invalid UTF-8, and an escaped surrogate without its other half, both of
//     which encoding/json silently replaces;
//   - in one object, at any depth, two keys that are equal or differ only by
//     case, compared after unescaping (so "a" and "\u0061" are equal);
//   - a key that names a field of the struct it is decoded into by another case
//     ("NAME" for `json:"name"`), which encoding/json would take for the field;
//   - bytes after the value, other than white space;
//   - more than 16 arrays and objects inside each other.
//
// Keys that name no field are ignored. Keys are compared as text: a map with keys
// of another type than string, such as peer.ID, may take two texts for one key,
// so decode into a map[string] and convert. The third rule follows the Go types of v
// through structs, pointers, slices, arrays and maps. It stops at an interface
// and at a type with its own UnmarshalJSON or UnmarshalText, which has to call
// DecodeStrict itself if it decodes objects; the other rules hold there too.
//
// The caller limits len(data). Time and memory are linear in it, and nothing is
// allocated because a number in data says so.
//
// Errors match ErrBadJSON and name the offset of the offending byte, except
// those of a type's own unmarshal method; v may then hold a part of the values.
// It panics if a struct in v's type has two JSON fields whose names are equal or
// differ only by case: no reader could tell them apart.
func DecodeStrict(data []byte, v any) error {
	if err := checkStrict(data, reflect.TypeOf(v)); err != nil {
		return err
	}
	err := json.Unmarshal(data, v)
	var (
		wrongType *json.UnmarshalTypeError
		wrongUse  *json.InvalidUnmarshalError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongUse):
		return err // v is not a pointer: the caller's mistake, not the data's
	case errors.As(err, &wrongType):
		// Not the error's own text: it repeats a number of any length.
		what, _, _ := strings.Cut(wrongType.Value, " ")
		where := ""
		if wrongType.Field != "" {
			where = " for " + strconv.Quote(wrongType.Field)
		}
		return fmt.Errorf("%w at byte %d: %s%s does not fit %s", ErrBadJSON, wrongType.Offset, what, where, wrongType.Type)
	}
	return fmt.Errorf("%w: %w", ErrBadJSON, err)
}

// checkStrict applies DecodeStrict's rules to data, which is meant for a value
// of type t; t is nil when that is not known.
func checkStrict(data []byte, t reflect.Type) error {
	s := jsonScan{data: data}
	if !utf8.Valid(data) {
		return s.errorf(validPrefix(data), "invalid UTF-8")
	}
	// The grammar is the library's business, so that what passes here is what
	// json.Unmarshal takes; the walk then need not look for broken syntax.
	if !json.Valid(data) {
		var syntax *json.SyntaxError
		var raw json.RawMessage
		err := json.Unmarshal(data, &raw) // says where
		if errors.As(err, &syntax) {
			return s.errorf(int(max(syntax.Offset-1, 0)), "%s", syntax)
		}
		return fmt.Errorf("%w: %w", ErrBadJSON, err)
	}
	return s.value(t, 0)
}

// validPrefix returns the length of data's longest prefix that is valid UTF-8.
func validPrefix(data []byte) int {
	n := 0
	for n < len(data) {
		r, size := utf8.DecodeRune(data[n:])
		if r == utf8.RuneError && size <= 1 {
			break
		}
		n += size
	}
	return n
}

// jsonScan walks once over data, which is valid JSON and valid UTF-8.
type jsonScan struct {
	data []byte
	pos  int
}

func (s *jsonScan) errorf(pos int, format string, args ...any) error {
	return fmt.Errorf("%w at byte %d: %s", ErrBadJSON, pos, fmt.Sprintf(format, args...))
}

// next skips white space and returns the byte after it, which it does not consume.
func (s *jsonScan) next() byte {
	for {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return c
		}
	}
}

// value consumes one value that lies inside depth arrays and objects.
func (s *jsonScan) value(t reflect.Type, depth int) error {
	switch c := s.next(); c {
	case '{', '[':
		if depth == jsonDepthMax {
			return s.errorf(s.pos, "more than %d arrays and objects inside each other", jsonDepthMax)
		}
		if c == '{' {
			return s.object(transparent(t), depth+1)
		}
		return s.array(transparent(t), depth+1)
	case '"':
		_, err := s.quoted()
		return err
	}
	for s.pos < len(s.data) && !strings.ContainsRune(" \t\r\n,]}", rune(s.data[s.pos])) {
		s.pos++
	}
	return nil
}

func (s *jsonScan) array(t reflect.Type, depth int) error {
	var elem reflect.Type
	if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
		elem = t.Elem()
	}
	s.pos++ // [
	for s.next() != ']' {
		if err := s.value(elem, depth); err != nil {
			return err
		}
		if s.next() == ',' {
			s.pos++
		}
	}
	s.pos++
	return nil
}

func (s *jsonScan) object(t reflect.Type, depth int) error {
	var (
		elem   reflect.Type
		fields map[string]jsonField
	)
	if t != nil && t.Kind() == reflect.Map {
		elem = t.Elem()
	} else if t != nil && t.Kind() == reflect.Struct {
		fields = jsonFields(t)
	}
	var seen jsonKeys
	s.pos++ // {
	for s.next() != '}' {
		start := s.pos
		key, err := s.text()
		if err != nil {
			return err
		}
		field, known := fields[key] // the usual case: its folded form is at hand
		folded := field.folded
		if !known {
			folded = jsonFold(key)
			field, known = fields[folded]
		}
		if old, ok := seen.add(folded, key); ok && old == key {
			return s.errorf(start, "second key %s", quoteKey(key))
		} else if ok {
			return s.errorf(start, "keys %s and %s differ only by case", quoteKey(old), quoteKey(key))
		}
		if known && field.name != key {
			return s.errorf(start, "key %s must be written %q", quoteKey(key), field.name)
		}
		if known {
			elem = field.typ
		} else if fields != nil {
			elem = nil
		}
		s.next() // stops at the colon
		s.pos++
		if err := s.value(elem, depth); err != nil {
			return err
		}
		if s.next() == ',' {
			s.pos++
		}
	}
	s.pos++
	return nil
}

// jsonKeys are the keys of one object. The first few are looked through: making a
// map takes longer than decoding most objects.
type jsonKeys struct {
	few  [16]struct{ folded, key string }
	n    int
	many map[string]string // folded key → key; once few is full
}

// add returns the key of the same folded form that is there already; else key is.
func (k *jsonKeys) add(folded, key string) (old string, found bool) {
	for i := range k.n {
		if k.few[i].folded == folded {
			return k.few[i].key, true
		}
	}
	if k.n < len(k.few) {
		k.few[k.n].folded, k.few[k.n].key = folded, key
		k.n++
		return "", false
	}
	if old, found = k.many[folded]; found {
		return old, true
	}
	if k.many == nil {
		k.many = map[string]string{}
	}
	k.many[folded] = key
	return "", false
}

// text consumes one string and returns it unescaped.
func (s *jsonScan) text() (string, error) {
	start := s.pos
	escaped, err := s.quoted()
	if err != nil {
		return "", err
	}
	quoted := s.data[start:s.pos]
	if !escaped {
		return string(quoted[1 : len(quoted)-1]), nil
	}
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return "", s.errorf(start, "%s", err)
	}
	return text, nil
}

// quoted consumes one string and reports whether anything in it is escaped.
func (s *jsonScan) quoted() (escaped bool, err error) {
	for s.pos++; s.data[s.pos] != '"'; s.pos++ {
		if s.data[s.pos] != '\\' {
			continue
		}
		escaped = true
		at := s.pos
		s.pos++
		if s.data[s.pos] != 'u' {
			continue
		}
		unit := s.hex4(s.pos + 1)
		s.pos += 4
		switch {
		case 0xdc00 <= unit && unit < 0xe000:
			return false, s.errorf(at, "half of a surrogate pair")
		case 0xd800 <= unit && unit < 0xdc00:
			if s.data[s.pos+1] != '\\' || s.data[s.pos+2] != 'u' {
				return false, s.errorf(at, "half of a surrogate pair")
			}
			if low := s.hex4(s.pos + 3); low < 0xdc00 || 0xe000 <= low {
				return false, s.errorf(at, "half of a surrogate pair")
			}
			s.pos += 6
		}
	}
	s.pos++
	return escaped, nil
}

// hex4 returns the four hexadecimal digits at pos as a number.
func (s *jsonScan) hex4(pos int) uint64 {
	n, _ := strconv.ParseUint(string(s.data[pos:pos+4]), 16, 16)
	return n
}

// quoteKey quotes a key that a stranger chose: on one line, and short.
func quoteKey(key string) string {
	if runes := []rune(key); len(runes) > 40 {
		key = string(runes[:40]) + "…"
	}
	return strconv.QuoteToASCII(key)
}

// jsonFold maps keys that encoding/json takes for the same field to one string.
// It is that package's own folding: the least rune that differs only by case, so
// that K and the Kelvin sign meet too.
func jsonFold(key string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, key)
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// transparent returns the type below t's pointers, or nil when t, or one of the
// types on the way, decodes itself.
func transparent(t reflect.Type) reflect.Type {
	for t != nil {
		for _, u := range []reflect.Type{jsonUnmarshaler, textUnmarshaler} {
			if t.Implements(u) || reflect.PointerTo(t).Implements(u) {
				return nil
			}
		}
		if t.Kind() != reflect.Pointer {
			return t
		}
		t = t.Elem()
	}
	return nil
}

// jsonField is a struct field as encoding/json sees it.
type jsonField struct {
	name, folded string
	typ          reflect.Type
}

// jsonFieldsCache holds what jsonFields computed: struct type → map[string]jsonField.
// It is as large as the program has struct types.
var jsonFieldsCache sync.Map

// jsonFields returns the fields of struct type t, embedded structs' fields
// included, by their names and by their folded names.
func jsonFields(t reflect.Type) map[string]jsonField {
	if cached, ok := jsonFieldsCache.Load(t); ok {
		return cached.(map[string]jsonField)
	}
	fields := make(map[string]jsonField)
	addJSONFields(fields, t, nil)
	for _, f := range slices.Collect(maps.Values(fields)) {
		fields[f.name] = f
	}
	jsonFieldsCache.Store(t, fields)
	return fields
}

// addJSONFields adds t's fields to fields. outer holds the structs that t is
// embedded in.
func addJSONFields(fields map[string]jsonField, t reflect.Type, outer []reflect.Type) {
	for _, o := range outer {
		if o == t {
			return
		}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		isStruct := f.Anonymous && embedded.Kind() == reflect.Struct
		if tag == "-" || !f.IsExported() && !isStruct {
			continue
		}
		name, _, _ := strings.Cut(tag, ",")
		if name == "" && isStruct {
			addJSONFields(fields, embedded, append(outer, t))
			continue
		}
		if name == "" {
			name = f.Name
		}
		folded := jsonFold(name)
		if old, ok := fields[folded]; ok {
			panic(fmt.Sprintf("node: DecodeStrict into %s: JSON fields %q and %q can't be told apart", t, old.name, name))
		}
		fields[folded] = jsonField{name, folded, f.Type}
	}
}
