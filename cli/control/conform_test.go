package control

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What a server answers is what openapi.json says: tests look at it on its way to their
// clients, line by line.

// operation is one of openapi.json.
type operation struct {
	ID         string `json:"operationId"`
	Parameters []struct {
		Name, In string
		Schema   object
	} `json:"parameters"`
	RequestBody struct {
		Content map[string]media `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Ref     string           `json:"$ref"`
		Content map[string]media `json:"content"`
	} `json:"responses"`
}

type media struct {
	Schema   object            `json:"schema"`
	EachLine bool              `json:"x-each-line"`
	Events   map[string]object `json:"x-events"`
}

// described is openapi.json.
var described = sync.OnceValue(func() (d struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Schemas   map[string]any `json:"schemas"`
		Responses map[string]struct {
			Content map[string]media `json:"content"`
		} `json:"responses"`
	} `json:"components"`
}) {
	if err := json.Unmarshal(openAPIFile, &d); err != nil {
		panic(err)
	}
	return d
})

// operationOf finds the operation that a request is of.
func operationOf(r *http.Request) (operation, bool) {
	paths, method := described().Paths, strings.ToLower(r.Method)
	if op, ok := paths[r.URL.Path][method]; ok {
		return op, true
	}
	op, ok := paths[r.URL.Path[:strings.LastIndexByte(r.URL.Path, '/')+1]+"{op}"][method]
	return op, ok
}

// conformer is a client's transport that compares answers with openapi.json.
type conformer struct {
	http.RoundTripper
	t testing.TB
	// requests are compared, too: those of a test that asks for nothing wrong.
	requests bool
	seen     *sightings
}

// sightings are the answers that were seen. They are safe for concurrent use.
type sightings struct {
	mu sync.Mutex
	n  map[string]map[string]int // guarded by mu: by operation and schema
}

func (s *sightings) add(op, schema string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[string]map[string]int{}
	}
	if s.n[op] == nil {
		s.n[op] = map[string]int{}
	}
	s.n[op][schema]++
}

func conforming(t testing.TB, next http.RoundTripper) *conformer {
	return &conformer{RoundTripper: next, t: t, seen: new(sightings)}
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (c *conformer) CloseIdleConnections() { c.RoundTripper.(*http.Transport).CloseIdleConnections() }

func (c *conformer) RoundTrip(r *http.Request) (*http.Response, error) {
	op, ok := operationOf(r)
	var body []byte
	if ok && c.requests && r.Body != nil && r.Header.Get("Content-Type") == "application/json" {
		body, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	answer, err := c.RoundTripper.RoundTrip(r)
	if err != nil || !ok {
		return answer, err
	}
	if c.requests && answer.StatusCode == http.StatusOK {
		c.compareRequest(op, r, body)
	}
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	content := described().Components.Responses["Refused"].Content
	if answer.StatusCode == http.StatusOK {
		content = op.Responses["200"].Content
	}
	as, known := content[kind]
	if err != nil || !known {
		c.t.Errorf("%s answered %s with the type %q, which is not described", op.ID, answer.Status, kind)
		return answer, nil
	}
	answer.Body = &conformingBody{ReadCloser: answer.Body, c: c, op: op.ID, kind: kind, as: as}
	return answer, nil
}

func (c *conformer) compareRequest(op operation, r *http.Request, body []byte) {
	for name := range r.URL.Query() {
		if !slices.ContainsFunc(op.Parameters, func(p struct {
			Name, In string
			Schema   object
		}) bool {
			return p.Name == name && p.In == "query"
		}) {
			c.t.Errorf("%s was asked with %s, which is not described", op.ID, name)
		}
	}
	as, ok := op.RequestBody.Content["application/json"]
	if (len(body) > 0) != ok {
		c.t.Errorf("%s was asked with a body of %d bytes; one is described: %v", op.ID, len(body), ok)
		return
	}
	if ok {
		if _, err := fits(body, as.Schema); err != nil {
			c.t.Errorf("%s was asked with what is not described: %v\n%s", op.ID, err, body)
		}
	}
}

func (c *conformer) compare(op string, text []byte, schema object) {
	what, err := fits(text, schema)
	if err != nil {
		c.t.Errorf("%s answered what is not described: %v\n%s", op, err, text)
	}
	c.seen.add(op, what)
}

// conformingBody compares what is read of an answer.
type conformingBody struct {
	io.ReadCloser
	c     *conformer
	op    string
	kind  string
	as    media
	rest  []byte // of a line, or of the whole
	raw   int    // bytes to come after a data line
	event string // of server-sent events
}

func (b *conformingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.rest = append(b.rest, p[:n]...)
	if b.as.EachLine || b.as.Events != nil {
		b.lines()
	}
	if err == io.EOF {
		b.end()
	}
	return n, err
}

func (b *conformingBody) lines() {
	for {
		skip := min(b.raw, len(b.rest))
		b.rest, b.raw = b.rest[skip:], b.raw-skip
		line, rest, ok := bytes.Cut(b.rest, []byte("\n"))
		if b.raw > 0 || !ok {
			return
		}
		b.rest = rest
		if b.as.Events != nil {
			b.eventLine(string(line))
			continue
		}
		b.c.compare(b.op, line, b.as.Schema)
		var data struct {
			Event string `json:"event"`
			Bytes int    `json:"bytes"`
		}
		if b.kind == contentTypeFrames && json.Unmarshal(line, &data) == nil && data.Event == "data" {
			b.raw = data.Bytes
		}
	}
}

// eventLine reads a line of server-sent events as the HTML standard has it.
func (b *conformingBody) eventLine(line string) {
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	schema := b.as.Events[b.event]
	switch {
	case line == "":
		b.event = ""
	case field == "": // a comment
	case field == "event":
		b.event = value
	case field != "data" || schema == nil:
		b.c.t.Errorf("%s: the line %q of the event %q is not described", b.op, line, b.event)
	default:
		b.c.compare(b.op, []byte(value), schema)
	}
}

func (b *conformingBody) end() {
	switch {
	case b.as.EachLine || b.as.Events != nil:
		if len(b.rest) > 0 || b.raw > 0 {
			b.c.t.Errorf("%s: the answer ended inside of a line or of data: %q", b.op, b.rest)
		}
	case b.kind == "application/json":
		b.c.compare(b.op, b.rest, b.as.Schema)
	default: // an image
		b.c.compare(b.op, strconv.AppendQuote(nil, string(b.rest)), b.as.Schema)
	}
	b.as, b.rest = media{EachLine: true}, nil
}

// fits compares a JSON text with a schema. It returns the name of the schema that it is of,
// where the schema names one or several.
func fits(text []byte, schema object) (name string, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	if d.More() {
		return "", fmt.Errorf("more than one value")
	}
	if all, ok := schema["oneOf"].([]any); ok {
		var of []string
		var problems []string
		for _, one := range all {
			name := refOf(one.(object))
			if err := conforms(v, one.(object)); err != nil {
				problems = append(problems, name+": "+err.Error())
			} else {
				of = append(of, name)
			}
		}
		if len(of) != 1 {
			return "", fmt.Errorf("it is of %d of the kinds, not of one: %v %s", len(of), of, strings.Join(problems, "; "))
		}
		return of[0], nil
	}
	return refOf(schema), conforms(v, schema)
}

func refOf(schema object) string {
	ref, _ := schema["$ref"].(string)
	return strings.TrimPrefix(ref, "#/components/schemas/")
}

// conforms compares a value, its numbers json.Number, with a schema of those keywords that
// openapi.json uses; another keyword is an error.
//
// Source: JSON Schema draft 2020-12.
func conforms(v any, schema object) error {
	for _, keyword := range slices.Sorted(maps.Keys(schema)) {
		want := schema[keyword]
		var err error
		switch keyword {
		case "description":
		case "$ref":
			of, ok := described().Components.Schemas[refOf(schema)].(object)
			if !ok {
				return fmt.Errorf("there is no schema %v", want)
			}
			err = conforms(v, of)
		case "type":
			err = hasType(v, want)
		case "const":
			if !reflect.DeepEqual(v, want) {
				err = fmt.Errorf("%v is not %v", v, want)
			}
		case "format":
			err = hasFormat(v, want)
		case "contentEncoding":
			if s, ok := v.(string); ok {
				_, err = base64.StdEncoding.DecodeString(s)
			}
		case "items":
			all, _ := v.([]any)
			for i, item := range all {
				if e := conforms(item, want.(object)); e != nil {
					err = fmt.Errorf("[%d]: %w", i, e)
				}
			}
		case "properties", "additionalProperties":
			err = hasProperties(v, schema)
		case "required":
			for _, name := range want.([]any) {
				if o, ok := v.(object); ok && !has(o, name.(string)) {
					err = fmt.Errorf("%v is missing", name)
				}
			}
		case "anyOf":
			err = fmt.Errorf("it is none of %v", want)
			for _, one := range want.([]any) {
				if conforms(v, one.(object)) == nil {
					err = nil
				}
			}
		default:
			err = fmt.Errorf("the keyword %s is not known here", keyword)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func has(o object, name string) bool { _, ok := o[name]; return ok }

func hasType(v, want any) error {
	all, ok := want.([]any)
	if !ok {
		all = []any{want}
	}
	is := map[string]bool{}
	switch v := v.(type) {
	case nil:
		is["null"] = true
	case bool:
		is["boolean"] = true
	case string:
		is["string"] = true
	case []any:
		is["array"] = true
	case object:
		is["object"] = true
	case json.Number:
		is["number"] = true
		f, err := v.Float64()
		is["integer"] = err == nil && f == math.Trunc(f)
	}
	for _, kind := range all {
		if is[kind.(string)] {
			return nil
		}
	}
	return fmt.Errorf("%.80v is no %v", v, want)
}

func hasFormat(v, want any) error {
	s, ok := v.(string)
	switch {
	case !ok || want == "binary":
		return nil
	case want == "date-time":
		_, err := time.Parse(time.RFC3339Nano, s)
		return err
	}
	return fmt.Errorf("the format %v is not known here", want)
}

func hasProperties(v any, schema object) error {
	o, ok := v.(object)
	if !ok {
		return nil
	}
	properties, _ := schema["properties"].(object)
	for name, value := range o {
		of, ok := properties[name].(object)
		if !ok {
			switch more := schema["additionalProperties"].(type) {
			case bool:
				if !more {
					return fmt.Errorf("%s is not described", name)
				}
				continue
			case object:
				of = more
			}
		}
		if err := conforms(value, of); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// TestConformsTellsWhatDoesNot: the comparison itself finds what is wrong.
func TestConformsTellsWhatDoesNot(t *testing.T) {
	moved := object{"oneOf": []any{object{"$ref": "#/components/schemas/Removed"}, object{"$ref": "#/components/schemas/Error"}}}
	for text, want := range map[string]bool{
		`{"event":"removed","name":"a","id":"","path":"/a"}`:          true,
		`{"event":"removed","name":"a","id":"","path":"/a","more":1}`: false,
		`{"event":"removed","name":"a","id":""}`:                      false,
		`{"event":"removed","name":1,"id":"","path":"/a"}`:            false,
		`{"event":"gone","name":"a","id":"","path":"/a"}`:             false,
		`{"name":"a","id":"","path":"/a"}`:                            false,
		`{"event":"error","code":1,"reason":"r","message":"m"}`:       true,
		`{"event":"error","code":1.5,"reason":"r","message":"m"}`:     false,
		`{"event":"error","code":"1","reason":"r","message":"m"}`:     false,
		`null`: false,
		``:     false,
		`{"event":"error","code":1,"reason":"r","message":"m"}{}`: false,
	} {
		if _, err := fits([]byte(text), moved); (err == nil) != want {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
	for text, want := range map[string]bool{`"2026-01-02T03:04:05Z"`: true, `"yesterday"`: false, `7`: false} {
		if _, err := fits([]byte(text), object{"type": "string", "format": "date-time"}); (err == nil) != want {
			t.Errorf("date %s: %v, want %v", text, err, want)
		}
	}
}
