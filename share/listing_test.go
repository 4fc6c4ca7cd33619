package share

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/share/content"
)

func readAll(data []byte) (entries []Entry, err error) {
	for e, err := range readListing(bytes.NewReader(data)) {
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func encodeListing(entries []Entry) []byte {
	var b []byte
	for _, e := range entries {
		b = appendEntry(b, e)
	}
	return b
}

// fileLine is the line of a good file entry.
func fileLine(path string) string {
	return string(appendEntry(nil, Entry{Path: Path(path), Kind: KindFile, ID: content.Root([]byte(path)), Size: int64(len(path))}))
}

func dirLine(path string) string {
	return string(appendEntry(nil, Entry{Path: Path(path), Kind: KindDir}))
}

func TestListingVector(t *testing.T) {
	const file = "testdata/listing.txt"
	file1 := func(path, data string) Entry {
		return Entry{Path: Path(path), Kind: KindFile, ID: content.Root([]byte(data)), Size: int64(len(data))}
	}
	run := file1("bin/run", "#!/bin/sh\n")
	run.Executable = true
	entries := []Entry{
		file1(`"quoted"`, "q"),
		file1("<&>\u00a0", "html"),
		{Path: "a!", Kind: KindDir},
		file1("a-b", "b"),
		file1("a.txt", ""),
		file1("a/b.txt", "inside"),
		file1("a0", "0"),
		run,
		{Path: "empty/inner", Kind: KindDir},
		file1("é/日本.txt", "unicode"),
	}
	listing := encodeListing(entries)
	made := fmt.Sprintf(`# A directory's listing, between the marks, and its content ID: the BLAKE3 of its
# bytes, from the first brace to the last line break.

id %s
size %d
-----
%s-----
`, content.Root(listing), len(listing), listing)
	if *update {
		if err := os.WriteFile(file, []byte(made), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), made); diff != "" {
		t.Errorf("%s made anew differs (-file +made):\n%s", file, diff)
	}
	parts := strings.Split(string(want), "-----\n")
	got, err := readAll([]byte(parts[1]))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entries, got); diff != "" {
		t.Errorf("the listing reads differently (-want +got):\n%s", diff)
	}
	if id := content.Root([]byte(parts[1])); !strings.Contains(parts[0], "\nid "+id.String()+"\n") {
		t.Errorf("the listing's ID is %s", id)
	}
}

func TestEmptyListing(t *testing.T) {
	if got, err := readAll(nil); err != nil || len(got) != 0 {
		t.Errorf("the empty listing = %v, %v", got, err)
	}
}

func TestListingLongestPath(t *testing.T) {
	// Quotation marks are the only characters that take two bytes.
	path := strings.Repeat(strings.Repeat(`"`, 255)+"/", 15) + strings.Repeat(`"`, 254) + `/"`
	if len(path) != pathBytesMax {
		t.Fatalf("a path of %d bytes is not the longest", len(path))
	}
	e := Entry{Path: Path(path), Kind: KindFile, ID: content.Root(nil), Size: content.SizeMax, Executable: true}
	line := appendEntry(nil, e)
	if len(line) > listingLineMax {
		t.Fatalf("a line of %d bytes, and listingLineMax is %d", len(line), listingLineMax)
	}
	if got, err := readAll(line); err != nil || !cmp.Equal(got, []Entry{e}) {
		t.Errorf("the longest line reads as %.100v, %v", got, err)
	}
}

func TestReadListingRefuses(t *testing.T) {
	id := content.Root(nil).String()
	entry := func(path string) string {
		return `{"path":"` + path + `","kind":"file","id":"` + id + `","size":1}` + "\n"
	}
	good := entry("a")
	for _, tt := range []struct{ what, in, reason string }{
		{"parent", entry("../../etc/passwd"), "reference to a directory"},
		{"parent inside", entry("a/../b"), "reference to a directory"},
		{"here", entry("./a"), "reference to a directory"},
		{"absolute", entry("/etc/passwd"), "begins with '/'"},
		{"trailing slash", entry("a/"), "is empty"},
		{"double slash", entry("a//b"), "is empty"},
		{"empty path", entry(""), "is empty"},
		{"backslash", entry(`..\\..\\etc`), "backslash"},
		{"drive", entry(`c:\\x`), "backslash"},
		{"ESC", entry(`a\u001b[2J`), "control character"},
		{"NUL", entry(`a\u0000`), "control character"},
		{"newline", entry(`a\nb`), "control character"},
		{"bidi", entry("a\u202egnp.exe"), "direction of text"},
		{"NFD", entry("e\u0301"), "canonical form"},
		{"invalid UTF-8", entry("a\xff"), "canonical form"},
		{"lone surrogate", entry(`a\ud800`), "canonical form"},
		{"long component", entry(strings.Repeat("a", 256)), "longer than 255"},
		{"long path", entry(strings.Repeat("a/", 2048) + "b"), "longer than 4096"},
		{"escape for a letter", entry(`\u0061`), "canonical form"},
		{"escaped slash", entry(`a\/b`), "canonical form"},
		{"twice", good + good, "out of order"},
		{"order", entry("b") + entry("a"), "out of order"},
		{"order of case", entry("a") + entry("B"), "out of order"},
		{"order around the slash", entry("a/b") + entry("a.txt"), "out of order"},
		{"file as directory", entry("a") + entry("a/b"), "inside a file"},
		{"file as directory, siblings between", entry("a") + entry("a!") + entry("a.txt") + entry("a/b"), "inside a file"},
		{"file as directory, subtree between", entry("a") + entry("a-/x") + entry("a-/y") + entry("a.txt") + entry("a/b/c"), "inside a file"},
		{"deeper file as directory", entry("x/a") + entry("x/a.txt") + entry("x/a/b"), "inside a file"},
		{"empty directory as directory", dirLine("a") + entry("a.txt") + entry("a/b"), "inside a file or an empty directory"},
		{"file and empty directory", entry("a") + dirLine("a"), "out of order"},
		{"kind link", strings.Replace(good, `"file"`, `"link"`, 1), "neither file nor directory"},
		{"no kind", `{"path":"a"}` + "\n", "neither file nor directory"},
		{"no ID", `{"path":"a","kind":"file","size":1}` + "\n", "no content ID"},
		{"bare hex ID", strings.Replace(good, "b3:", "", 1), "canonical form"},
		{"ID in upper case", strings.Replace(good, id, "b3:"+strings.ToUpper(id[3:]), 1), "canonical form"},
		{"no size", strings.Replace(good, `,"size":1`, "", 1), "canonical form"},
		{"negative size", strings.Replace(good, `"size":1`, `"size":-1`, 1), "impossible size"},
		{"too large", strings.Replace(good, `"size":1`, fmt.Sprintf(`"size":%d`, int64(content.SizeMax)+1), 1), "impossible size"},
		{"size beyond int64", strings.Replace(good, `"size":1`, `"size":9223372036854775808`, 1), "not JSON"},
		{"size with a point", strings.Replace(good, `"size":1`, `"size":1.0`, 1), "not JSON"},
		{"size with an exponent", strings.Replace(good, `"size":1`, `"size":1e1`, 1), "not JSON"},
		{"leading zero", strings.Replace(good, `"size":1`, `"size":01`, 1), "not JSON"},
		{"x false", strings.Replace(good, `}`, `,"x":false}`, 1), "canonical form"},
		{"directory with a size", `{"path":"a","kind":"dir","size":0}` + "\n", "canonical form"},
		{"directory with an ID", `{"path":"a","kind":"dir","id":"` + id + `"}` + "\n", "canonical form"},
		{"executable directory", `{"path":"a","kind":"dir","x":true}` + "\n", "canonical form"},
		{"other order of keys", `{"kind":"dir","path":"a"}` + "\n", "canonical form"},
		{"key twice", `{"path":"a","path":"a","kind":"dir"}` + "\n", "canonical form"},
		{"key in another case", `{"Path":"a","kind":"dir"}` + "\n", "canonical form"},
		{"unknown key", `{"path":"a","kind":"dir","mode":7}` + "\n", "canonical form"},
		{"white space", `{"path": "a","kind":"dir"}` + "\n", "canonical form"},
		{"space at the end", `{"path":"a","kind":"dir"} ` + "\n", "canonical form"},
		{"carriage return", strings.Replace(good, "\n", "\r\n", 1), "canonical form"},
		{"two in a line", strings.TrimSuffix(good, "\n") + entry("b"), "not JSON"},
		{"an array", "[]\n", "not JSON"},
		{"null", "null\n", "is empty"},
		{"empty line", "\n", "not JSON"},
		{"empty line at the end", good + "\n", "not JSON"},
		{"no newline at the end", strings.TrimSuffix(good, "\n"), "cut short"},
		{"cut short", good[:20], "cut short"},
		{"endless line", `{"path":"` + strings.Repeat("a", 3*listingLineMax), "too long"},
		{"byte order mark", "\ufeff" + good, "not JSON"},
	} {
		got, err := readAll([]byte(tt.in))
		if !errors.Is(err, ErrBadListing) || !strings.Contains(fmt.Sprint(err), tt.reason) {
			t.Errorf("%s: %d entries, %v, want ErrBadListing that says %q", tt.what, len(got), err, tt.reason)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00\n") {
			t.Errorf("%s: the error %q could drive a terminal", tt.what, err)
		}
	}
}

func TestReadListingAcceptsNamesAroundTheSlash(t *testing.T) {
	for _, in := range []string{
		fileLine("a") + fileLine("a!") + fileLine("a.txt") + fileLine("a0/b"),
		fileLine("a!") + fileLine("a.txt") + fileLine("a/b") + fileLine("a/c") + fileLine("a0"),
		dirLine("a-/b") + fileLine("a.") + fileLine("ab/a") + fileLine("ab/ab/a"),
		fileLine("A") + fileLine("a"),
		fileLine("x/aa") + fileLine("x/aab/c"),
		fileLine("CON") + fileLine("trailing."),
	} {
		got, err := readAll([]byte(in))
		if err != nil || !bytes.Equal(encodeListing(got), []byte(in)) {
			t.Errorf("%q reads as %v, %v", in, got, err)
		}
	}
}

func TestReadListingStopsAtTheReadersError(t *testing.T) {
	r := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(fileLine("a") + fileLine("b"))))
	var last error
	calls := 0
	for _, err := range readListing(r) {
		last = err
		calls++
	}
	if !errors.Is(last, iotest.ErrTimeout) || errors.Is(last, ErrBadListing) || calls != 1 {
		t.Errorf("%d results, the last with %v, want one with the reader's error", calls, last)
	}
}

// TestReadListingDeepPrefixes has entries that all begin with one another, which
// is what the stack of prefixes is slowest at.
func TestReadListingDeepPrefixes(t *testing.T) {
	var b strings.Builder
	base := ""
	for range 15 {
		for n := 1; n < 250; n++ {
			b.WriteString(fileLine(base + strings.Repeat("a", n)))
		}
		base += strings.Repeat("a", 250) + "/"
	}
	got, err := readAll([]byte(b.String()))
	if err != nil || len(got) != 15*249 {
		t.Errorf("%d entries, %v", len(got), err)
	}
}

func FuzzReadListing(f *testing.F) {
	f.Add([]byte(fileLine("a") + fileLine("a.txt") + fileLine("b/c")))
	f.Add([]byte(dirLine("d") + fileLine(`e "q"`)))
	f.Add([]byte(fileLine("a") + fileLine("a!") + fileLine("a/b")))
	f.Add([]byte(`{"path":"../../etc/passwd","kind":"dir"}` + "\n"))
	f.Add(bytes.Replace([]byte(fileLine("x")), []byte("}"), []byte(`,"x":true}`), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := readAll(data)
		if err != nil {
			if !errors.Is(err, ErrBadListing) {
				t.Fatalf("%q: %v, want ErrBadListing", data, err)
			}
			return
		}
		if again := encodeListing(entries); !bytes.Equal(again, data) {
			t.Fatalf("%q was accepted, and encodes to %q", data, again)
		}
		files := map[Path]bool{}
		for i, e := range entries {
			if i > 0 && e.Path <= entries[i-1].Path {
				t.Fatalf("%q comes after %q", e.Path, entries[i-1].Path)
			}
			if p, err := ParsePath(string(e.Path)); err != nil || p != e.Path {
				t.Fatalf("%q is no path: %v", e.Path, err)
			}
			if filepath.Separator == '/' && !filepath.IsLocal(string(e.Path)) {
				t.Fatalf("%q leads elsewhere", e.Path)
			}
			for j := range e.Path {
				if e.Path[j] == '/' && files[e.Path[:j]] {
					t.Fatalf("%q lies inside %q", e.Path, e.Path[:j])
				}
			}
			files[e.Path] = true
		}
	})
}
