package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

type strictBase struct {
	Kelvin string `json:"kind"`
}

type strictMessage struct {
	strictBase
	Name   string                   `json:"name"`
	Size   int64                    `json:"size"`
	Inner  *strictInner             `json:"inner"`
	List   []strictInner            `json:"list"`
	ByName map[string]strictInner   `json:"by_name"`
	Attrs  map[string]string        `json:"attrs"`
	Raw    json.RawMessage          `json:"raw"`
	Any    any                      `json:"any"`
	Peer   peer.ID                  `json:"peer,omitempty"`
	Next   *strictMessage           `json:"next"`
	Plain  int                      // by its Go name
	Hidden string                   `json:"-"`
	Deep   [2]map[int][]strictInner `json:"deep"`
}

type strictInner struct {
	Path string `json:"path"`
}

func TestDecodeStrictRefuses(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, test := range []struct{ name, data, want string }{
		{"nothing", ``, "at byte 0: unexpected end"},
		{"only white space", "  ", "unexpected end"},
		{"two values", `{} {}`, "at byte 3:"},
		{"trailing bytes", `{"name":"a"}x`, "at byte 12:"},
		{"trailing NUL", "{}\x00", "at byte 2:"},
		{"a byte order mark", "\ufeff{}", "at byte 0:"},
		{"a cut value", `{"name":"a`, "unexpected end"},
		{"a trailing comma", `{"name":"a",}`, "at byte 12:"},
		{"a comment", `{/**/}`, "at byte 1:"},
		{"single quotes", `{'a':1}`, "at byte 1:"},
		{"NaN", `{"any":NaN}`, "at byte 7:"},
		{"equal keys", `{"name":"a","name":"b"}`, `at byte 12: second key "name"`},
		{"equal unknown keys", `{"x":1,"x":1}`, `at byte 7: second key "x"`},
		{"keys equal after unescaping", `{"x":1,"\u0078":2}`, `second key "x"`},
		{"keys differing by case", `{"x":1,"X":2}`, `keys "x" and "X" differ only by case`},
		{"keys differing by Unicode case", `{"é":1,"É":2}`, "differ only by case"},
		{"keys differing by the Kelvin sign", `{"k":1,"\u212a":2}`, `keys "k" and "\u212a" differ`},
		{"equal empty keys", `{"":1,"":2}`, `second key ""`},
		{"equal keys inside an unknown field", `{"x":[1,{"y":{"a":1,"a":2}}]}`, `second key "a"`},
		{"equal keys inside RawMessage", `{"raw":{"a":1,"a":2}}`, `second key "a"`},
		{"equal keys inside any", `{"any":[{"a":1,"A":2}]}`, "differ only by case"},
		{"a field in upper case", `{"NAME":"a"}`, `at byte 1: key "NAME" must be written "name"`},
		{"a field with one letter in upper case", `{"sizE":1}`, `must be written "size"`},
		{"a field with long s", `{"\u017fize":1}`, `key "\u017fize" must be written "size"`},
		{"an embedded struct's field in upper case", `{"Kind":"x"}`, `must be written "kind"`},
		{"an untagged field in lower case", `{"plain":1}`, `must be written "Plain"`},
		{"a field behind a pointer", `{"inner":{"Path":"x"}}`, `at byte 10: key "Path" must be written "path"`},
		{"a field in a slice", `{"list":[{},{"Path":"x"}]}`, `must be written "path"`},
		{"a field in a map's values", `{"by_name":{"NAME":{"Path":"x"}}}`, `must be written "path"`},
		{"a field in an array of maps of slices", `{"deep":[{"7":[{"PATH":""}]}]}`, `must be written "path"`},
		{"a field in a recursive type", `{"next":{"next":{"Name":"x"}}}`, `must be written "name"`},
		{"invalid UTF-8 in a value", "{\"name\":\"a\xff\"}", "at byte 10: invalid UTF-8"},
		{"invalid UTF-8 in a key", "{\"\xc0\x80\":1}", "at byte 2: invalid UTF-8"},
		{"an encoded surrogate", "\"\xed\xa0\x80\"", "at byte 1: invalid UTF-8"},
		{"a high surrogate alone", `{"name":"\ud800"}`, "at byte 9: half of a surrogate pair"},
		{"a high surrogate before text", `{"name":"\ud800abcdefgh"}`, "half of a surrogate pair"},
		{"a high surrogate before another escape", `{"name":"\ud800\n"}`, "half of a surrogate pair"},
		{"two high surrogates", `{"name":"\ud800\ud800"}`, "half of a surrogate pair"},
		{"a low surrogate alone", `{"\udc00":1}`, "at byte 2: half of a surrogate pair"},
		{"depth 17", `{"any":` + nested(16) + `}`, "at byte 22: more than 16"},
		{"a very deep value", nested(9000), "at byte 16: more than 16"},
		{"a depth that the library refuses", nested(20000), "exceeded max depth"},
		{"a wrong type", `{"name":1}`, `number for "name" does not fit string`},
		{"a wrong type, inside", `{"list":[{"path":[]}]}`, `array for "list.path" does not fit string`},
		{"a number that does not fit", `{"size":9223372036854775808}`, `number for "size" does not fit int64`},
		{"a fraction for an integer", `{"size":1.0}`, `number for "size" does not fit int64`},
		{"a field's own error", `{"peer":"x"}`, "bad JSON: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m strictMessage
			var v any = &m
			err := DecodeStrict([]byte(test.data), v)
			if !errors.Is(err, ErrBadJSON) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("DecodeStrict(%.60q) = %v, want ErrBadJSON with %q", test.data, err, test.want)
			}
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("error has more than one line: %q", err)
			}
		})
	}
}

func TestDecodeStrictAccepts(t *testing.T) {
	for _, test := range []struct{ name, data string }{
		{"an empty object", `{}`},
		{"white space around", " \r\n\t{ \"name\" : \"a\" , \"size\" : 1 } \n"},
		{"null", `null`},
		{"unknown fields", `{"name":"a","later":{"Name":1,"NAMES":[true,false,null,-1.5e3]}}`},
		{"one key in several objects", `{"list":[{"path":"a"},{"path":"b"}],"any":{"path":"c"}}`},
		{"a map's keys that look like fields", `{"attrs":{"Name":"a","SIZE":"b"},"by_name":{"Path":{"path":"x"}}}`},
		{"what decodes itself", `{"raw":{"Name":1},"any":{"Name":1}}`},
		{"the Go name of a tagged field", `{"ByName":1}`},
		{"a hidden field", `{"hidden":1,"embedded":2}`},
		{"escapes", `{"name":"\"\\\/\b\f\n\r\t\u0000\u00e9\ud83d\ude00"}`},
		{"an escaped key", `{"n\u0061me":"a"}`},
		{"depth 16", `{"any":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`},
		{"siblings at depth 16", `{"any":[` + strings.Repeat("[],", 100) + `{}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got, want strictMessage
			if err := DecodeStrict([]byte(test.data), &got); err != nil {
				t.Fatalf("DecodeStrict(%q) = %v, want nil", test.data, err)
			}
			if err := json.Unmarshal([]byte(test.data), &want); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("DecodeStrict(%q) gives %+v, want %+v", test.data, got, want)
			}
		})
	}
}

func TestDecodeStrictErrorsAreShort(t *testing.T) {
	long := strings.Repeat("9", 50_000)
	for _, data := range []string{`{"size":` + long + `}`, `{"` + long + `":1,"` + long + `":1}`} {
		var m strictMessage
		if err := DecodeStrict([]byte(data), &m); err == nil || len(err.Error()) > 300 {
			t.Errorf("error of a long document has %d bytes, want a short one", len(fmt.Sprint(err)))
		}
	}
}

func TestDecodeStrictTellsTheCallersMistakeApart(t *testing.T) {
	for _, v := range []any{nil, strictMessage{}} {
		if err := DecodeStrict([]byte(`{}`), v); err == nil || errors.Is(err, ErrBadJSON) {
			t.Errorf("DecodeStrict into %T = %v, want an error that is not ErrBadJSON", v, err)
		}
	}
}

func TestDecodeStrictPanicsOnFieldsThatDifferByCase(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("DecodeStrict accepted a struct with fields \"a\" and \"A\"")
		}
	}()
	var v struct {
		Lower int `json:"a"`
		Upper int `json:"A"`
	}
	DecodeStrict([]byte(`{}`), &v)
}

// TestDecodeStrictIsLinear feeds 8 MiB of what is dear to a careless decoder. The
// bound is loose: a quadratic step would take hours.
func TestDecodeStrictIsLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("decodes 32 MiB")
	}
	const size = 8 << 20
	var keys strings.Builder
	keys.WriteByte('{')
	for i := 0; keys.Len() < size; i++ {
		fmt.Fprintf(&keys, "%q:0,", fmt.Sprint("k", i))
	}
	for name, data := range map[string]string{
		"keys":    keys.String() + `"z":0}`,
		"arrays":  "[" + strings.Repeat("[],", size/3) + "0]",
		"escapes": `"` + strings.Repeat(`\ud83d\ude00`, size/12) + `"`,
		"spaces":  strings.Repeat(" ", size) + "0",
	} {
		start := time.Now()
		var v any
		if err := DecodeStrict([]byte(data), &v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("%s: took %v", name, took)
		}
	}
}

func FuzzDecodeStrict(f *testing.F) {
	for _, seed := range []string{
		`{"name":"a","size":1,"list":[{"path":"b"}],"attrs":{"K":"v"}}`, `{"NAME":1}`, `{"a":1,"\u0061":2}`,
		`[{"x":{"y":[null,true,-1e9,"\ud83d\ude00"]}}]`, `"\ud800"`, `{"k":1,"K":2}`, " 0 ", "\xff", `{"":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var m strictMessage
		if err := DecodeStrict(data, &m); err == nil {
			var lax strictMessage
			if err := json.Unmarshal(data, &lax); err != nil || !reflect.DeepEqual(m, lax) {
				t.Fatalf("into a struct: strict %+v, encoding/json %+v, %v", m, lax, err)
			}
		} else if !errors.Is(err, ErrBadJSON) || strings.ContainsAny(err.Error(), "\r\n") {
			t.Fatalf("error %q", err)
		}
		var v any
		if DecodeStrict(data, &v) != nil {
			return
		}
		var lax any
		if err := json.Unmarshal(data, &lax); err != nil || !reflect.DeepEqual(v, lax) {
			t.Fatalf("into any: strict %v, encoding/json %v, %v", v, lax, err)
		}
		// With equal keys some would have been lost in the maps. Counted by the
		// library's tokens, which owe nothing to the walk under test.
		if got, want := countKeys(v, t), countTokens(data, t); got != want {
			t.Fatalf("%d keys in the value, %d in the text", got, want)
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := DecodeStrict(again, &v); err != nil {
			t.Fatalf("encoded again, %q: %v", again, err)
		}
	})
}

// countKeys counts the keys in all objects of v, none of which may differ from
// another of its object only by case.
func countKeys(v any, t *testing.T) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		var keys []string
		for key, inner := range v {
			if len(v) <= 30 {
				for _, other := range keys {
					if strings.EqualFold(key, other) {
						t.Fatalf("keys %q and %q in one object", key, other)
					}
				}
				keys = append(keys, key)
			}
			n += 1 + countKeys(inner, t)
		}
	case []any:
		for _, inner := range v {
			n += countKeys(inner, t)
		}
	}
	return n
}

// countTokens counts the keys in data.
func countTokens(data []byte, t *testing.T) int {
	d := json.NewDecoder(strings.NewReader(string(data)))
	type level struct{ object, key bool }
	stack := []level{{}}
	n := 0
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		token, err := d.Token()
		if err != nil {
			break
		}
		delim, isDelim := token.(json.Delim)
		if isDelim && (delim == '}' || delim == ']') {
			stack = stack[:len(stack)-1]
			continue
		}
		if top.object {
			if top.key {
				n++
				top.key = false
				continue
			}
			top.key = true
		}
		if isDelim {
			stack = append(stack, level{delim == '{', delim == '{'})
		}
	}
	return n
}
