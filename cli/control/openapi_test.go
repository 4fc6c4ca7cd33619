package control

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share"
)

var update = flag.Bool("update", false, "write the schemas of openapi.json anew")

// roots are the types that the API's answers and requests are made of.
var roots = []any{
	AddRequest{}, RemoveRequest{}, GetRequest{}, TransferRequest{}, LimitsRequest{}, VerifyRequest{}, CollectRequest{},
	GroupRequest{}, PlanRequest{}, PinRequest{}, NamesRequest{}, SessionRequest{},
	Progress{}, Note{}, Warning{}, Added{}, Removed{}, Data{}, Done{}, Accepted{}, TransferChanged{}, Limits{}, Kept{}, GroupDone{},
	PlanDone{}, Pinned{}, Unpinned{}, Drained{}, Copied{}, Source{}, NamesChanged{}, Verified{}, VerifyDone{}, Collected{},
	Session{}, LoggedIn{}, Uploaded{}, Error{}, Neighbor{},
	Transfer{}, Listed{}, Conn{}, Finding{}, GroupStatus{}, GroupSurvey{}, MemberLine{}, ChangeLine{}, PinLine{}, TrustEntry{},
	ProbeRequest{}, ServeLinkRequest{}, ServingLink{}, Received{}, LinkExpired{}, Found{}, Searched{}, share.Hit{}, Status{}, Hello{}, Linked{}, Moving{}, SharesChanged{}, GroupsNow{}, PinsNow{}, LinksNow{}, StopLinkRequest{},
}

// TestOpenAPIHasEveryRoute: and no other.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	var inFile, served []string
	ids := map[string]bool{}
	for path, methods := range described().Paths {
		for method, op := range methods {
			inFile = append(inFile, strings.ToUpper(method)+" "+path)
			if op.ID == "" || ids[op.ID] {
				t.Errorf("%s %s: the operation ID %q is empty or not the only one", method, path, op.ID)
			}
			ids[op.ID] = true
		}
	}
	for _, r := range new(Server).table(t.Context(), nil) {
		served = append(served, r.method+" "+r.path)
	}
	slices.Sort(inFile)
	slices.Sort(served)
	if diff := cmp.Diff(served, inFile); diff != "" {
		t.Errorf("openapi.json describes other operations than there are (-served +described):\n%s", diff)
	}
}

// TestOpenAPIHasTheTypes: its schemas are those that follow from the Go types, comments
// included.
func TestOpenAPIHasTheTypes(t *testing.T) {
	s := schemas{docs: fieldDocs(t), all: map[string]any{}}
	for _, root := range roots {
		s.of(reflect.TypeOf(root))
	}
	var whole map[string]any
	if err := json.Unmarshal(openAPIFile, &whole); err != nil {
		t.Fatal(err)
	}
	components := whole["components"].(map[string]any)
	want := roundTrip(t, s.all)
	if diff := cmp.Diff(want, components["schemas"]); diff != "" && !*update {
		t.Errorf("openapi.json differs from the types (-types +file); go test ./cli/control -run OpenAPI -update\n%s", diff)
	}
	if *update {
		components["schemas"] = want
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(whole); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("openapi.json", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range references(string(openAPIFile)) {
		if s.all[name] == nil && name != "Refused" {
			t.Errorf("openapi.json refers to %s, which is not among the types", name)
		}
	}
}

func references(text string) (names []string) {
	for _, part := range strings.Split(text, `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		names = append(names, name)
	}
	return names
}

func roundTrip(t *testing.T, v any) (back any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, &back)
	}
	if err != nil {
		t.Fatal(err)
	}
	return back
}

// schemas makes JSON schemas of Go types as encoding/json writes them.
type schemas struct {
	docs map[string]string // comments of fields, by "Type.Field"
	all  map[string]any
}

// alsoPlain are events that occur without their field event, too: in a listing, or
// inside another object.
var alsoPlain = []string{"Neighbor", "ServingLink", "Error", "Drained"}

type object = map[string]any

func (s *schemas) of(typ reflect.Type) object {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	_, isText := reflect.New(typ).Interface().(encoding.TextMarshaler)
	_, isJSON := reflect.New(typ).Interface().(json.Marshaler)
	switch {
	case typ == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case isText || isJSON && typ.Kind() == reflect.String:
		return object{"type": "string"}
	}
	switch typ.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint64, reflect.Int32, reflect.Uint32:
		return object{"type": "integer"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		// encoding/json writes null for one without any.
		return object{"type": []string{"array", "null"}, "items": s.of(typ.Elem())}
	case reflect.Map:
		return object{"type": []string{"object", "null"}, "additionalProperties": s.of(typ.Elem())}
	case reflect.Struct:
		return s.structure(typ)
	}
	return object{} // anything
}

func (s *schemas) structure(typ reflect.Type) object {
	ref := object{"$ref": "#/components/schemas/" + typ.Name()}
	if s.all[typ.Name()] != nil {
		return ref
	}
	properties, required := object{}, []string{}
	s.all[typ.Name()] = object{} // for types that hold their own kind
	if e, ok := reflect.New(typ).Interface().(Event); ok {
		properties["event"] = object{"const": e.event()}
		if !slices.Contains(alsoPlain, typ.Name()) {
			required = append(required, "event")
		}
	}
	s.fields(typ, properties, &required)
	slices.Sort(required)
	s.all[typ.Name()] = object{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
	return ref
}

func (s *schemas) fields(typ reflect.Type, properties object, required *[]string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			s.fields(f.Type, properties, required)
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		schema := s.of(f.Type)
		if doc := s.docs[typ.Name()+"."+f.Name]; doc != "" {
			schema["description"] = doc
		}
		if f.Type.Kind() == reflect.Pointer && options == "" {
			schema = object{"anyOf": []any{schema, object{"type": "null"}}}
		}
		properties[name] = schema
		if options == "" && !strings.HasSuffix(typ.Name(), "Request") {
			*required = append(*required, name)
		}
	}
}

// fieldDocs reads the comments of the fields of all types that may be in the API.
func fieldDocs(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	for _, dir := range []string{".", "../../share", "../../coord", "../../coord/internal/pinset", "../../share/content", "../../node"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if typ, ok := spec.Type.(*ast.StructType); ok {
					for _, f := range typ.Fields.List {
						text := strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
						for _, name := range f.Names {
							if key := spec.Name.Name + "." + name.Name; docs[key] == "" {
								docs[key] = text
							}
						}
					}
				}
				return true
			})
		}
	}
	return docs
}
