package share

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/p2pshare/p2pshare/share/content"
)

// Entry is one line of a directory's listing.
type Entry struct {
	Path       Path       `json:"path"`
	Kind       Kind       `json:"kind"` // KindDir only for empty directories
	ID         content.ID `json:"id"`   // zero for a directory
	Size       int64      `json:"size"` // bytes; 0 for a directory
	Executable bool       `json:"x"`
}

// A directory's listing is content like any other, so equal trees have one ID
// and one swarm. It is canonical JSON Lines, sorted by the bytes of the path,
// one line an entry, keys in this order and no white space:
//
//	{"path":"a.txt","kind":"file","id":"b3:…","size":12}
//	{"path":"bin/run","kind":"file","id":"b3:…","size":4096,"x":true}
//	{"path":"empty","kind":"dir"}
//
// In strings only the quotation mark is escaped (paths can hold neither
// backslashes nor controls). A line ends in \n, the last one too; the empty
// directory's listing is empty.

// listingLineMax bounds a line: a path of 4,096 bytes, each perhaps escaped.
const listingLineMax = 2*4096 + 256

// ErrBadListing is returned for a listing that is not in canonical form, or
// that names what it must not.
var ErrBadListing = errors.New("bad listing")

// appendEntry appends e's line.
func appendEntry(b []byte, e Entry) []byte {
	b = append(b, `{"path":`...)
	b = appendString(b, string(e.Path))
	b = append(b, `,"kind":"`...)
	b = append(b, e.Kind...)
	b = append(b, '"')
	if e.Kind == KindFile {
		b = append(b, `,"id":"`...)
		b = append(b, e.ID.String()...)
		b = append(b, '"')
		b = fmt.Appendf(b, `,"size":%d`, e.Size)
		if e.Executable {
			b = append(b, `,"x":true`...)
		}
	}
	return append(b, '}', '\n')
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	b = append(b, strings.ReplaceAll(s, `"`, `\"`)...)
	return append(b, '"')
}

// parseEntry reads one line, with its newline, and accepts nothing that
// appendEntry would have written differently.
func parseEntry(line []byte) (Entry, error) {
	var raw struct {
		Path string `json:"path"`
		Kind Kind   `json:"kind"`
		ID   string `json:"id"`
		Size int64  `json:"size"`
		X    bool   `json:"x"`
	}
	bad := func(reason string) (Entry, error) { return Entry{}, fmt.Errorf("%w: %s", ErrBadListing, reason) }
	if err := json.Unmarshal(line, &raw); err != nil {
		return bad("a line is not JSON")
	}
	p, err := ParsePath(raw.Path)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrBadListing, err)
	}
	e := Entry{Path: p, Kind: raw.Kind, Size: raw.Size, Executable: raw.X}
	switch raw.Kind {
	case KindFile:
		if e.ID, err = content.Parse(raw.ID); err != nil {
			return bad("an entry has no content ID")
		}
		if e.Size < 0 || e.Size > content.SizeMax {
			return bad("an entry has an impossible size")
		}
	case KindDir:
	default:
		return bad("an entry is neither file nor directory")
	}
	if !bytes.Equal(appendEntry(nil, e), line) {
		return bad("a line is not in canonical form")
	}
	return e, nil
}

// readListing yields the entries of a listing in order. It checks each line,
// that the order is strict, and that no file is also a directory on the way to
// another entry; after an error it stops. Memory: one line, and the chain of
// entries whose path is a prefix of the present one.
func readListing(r io.Reader) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		lines := bufio.NewReaderSize(r, listingLineMax)
		var previous Path
		var prefixes []Path // entries that the present path begins with, as bytes
		for {
			line, err := lines.ReadSlice('\n')
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return
			}
			if err != nil {
				if errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF) {
					err = fmt.Errorf("%w: a line is too long or cut short", ErrBadListing)
				}
				yield(Entry{}, err)
				return
			}
			e, err := parseEntry(line)
			if err == nil && e.Path <= previous {
				err = fmt.Errorf("%w: entries are out of order", ErrBadListing)
			}
			// All paths between "a" and "a/…" begin with "a", so a stack finds
			// every entry that could be this one's directory.
			for len(prefixes) > 0 && !strings.HasPrefix(string(e.Path), string(prefixes[len(prefixes)-1])) {
				prefixes = prefixes[:len(prefixes)-1]
			}
			for _, p := range prefixes {
				if err == nil && e.Path[len(p)] == '/' {
					err = fmt.Errorf("%w: an entry lies inside a file or an empty directory", ErrBadListing)
				}
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			previous = e.Path
			prefixes = append(prefixes, e.Path)
			if !yield(e, nil) {
				return
			}
		}
	}
}
