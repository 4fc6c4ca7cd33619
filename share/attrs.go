package share

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strconv"
	"strings"
	"time"
)

// fileAttrs is one line of a directory's attributes: what its publisher's disk
// says of a file, beside its bytes. One without a path is of no file.
type fileAttrs struct {
	Path  Path        // as the listing has it
	Mtime int64       // Unix nanoseconds, from attrsMtimeMin to attrsMtimeMax
	Mode  fs.FileMode // permission bits, of 0777
}

// A directory's attributes are a second document beside its listing, so that
// trees which differ in times only have one ID. It has the listing's form, one
// line a file, and is content, too, which the manifest names:
//
//	{"path":"a.txt","mtime":1767323045678000000,"mode":420}
//
// A file may be missing from it, and what it says of others means nothing.

// The times that are believed: 1970 up to 2200.
const (
	attrsMtimeMin = 0
	attrsMtimeMax = 7_258_118_400 * int64(time.Second)
)

// errBadAttrs: attributes that are not in canonical form, or out of range.
var errBadAttrs = errors.New("bad attributes")

// fits reports whether a may stand in a document.
func (a fileAttrs) fits() bool {
	return a.Mtime >= attrsMtimeMin && a.Mtime < attrsMtimeMax && a.Mode&^fs.ModePerm == 0
}

func appendAttrs(b []byte, a fileAttrs) []byte {
	b = append(b, `{"path":`...)
	b = appendString(b, string(a.Path))
	b = append(b, `,"mtime":`...)
	b = strconv.AppendInt(b, a.Mtime, 10)
	b = append(b, `,"mode":`...)
	b = strconv.AppendUint(b, uint64(a.Mode), 10)
	return append(b, '}', '\n')
}

// parseAttrs reads one line, with its newline, and accepts nothing that
// appendAttrs would have written differently: so it may look for the keys only.
func parseAttrs(line []byte) (fileAttrs, error) {
	bad := func(reason string) (fileAttrs, error) { return fileAttrs{}, fmt.Errorf("%w: %s", errBadAttrs, reason) }
	rest, ok := strings.CutPrefix(string(line), `{"path":"`)
	keys := strings.LastIndex(rest, `","mtime":`)
	if !ok || keys < 0 {
		return bad("a line is not in canonical form")
	}
	mtime, mode, _ := strings.Cut(rest[keys+len(`","mtime":`):], `,"mode":`)
	p, err := ParsePath(strings.ReplaceAll(rest[:keys], `\"`, `"`))
	if err != nil {
		return fileAttrs{}, fmt.Errorf("%w: %w", errBadAttrs, err)
	}
	ns, err1 := strconv.ParseInt(mtime, 10, 64)
	bits, err2 := strconv.ParseUint(strings.TrimSuffix(mode, "}\n"), 10, 32)
	a := fileAttrs{Path: p, Mtime: ns, Mode: fs.FileMode(bits)}
	if err1 != nil || err2 != nil || !bytes.Equal(appendAttrs(nil, a), line) {
		return bad("a line is not in canonical form")
	}
	if !a.fits() {
		return bad("a time or a mode is out of range")
	}
	return a, nil
}

// readAttrs yields the lines of attributes in order, and stops after an error.
func readAttrs(r io.Reader) iter.Seq2[fileAttrs, error] {
	return func(yield func(fileAttrs, error) bool) {
		lines := bufio.NewReaderSize(r, listingLineMax)
		var previous Path
		for {
			line, err := lines.ReadSlice('\n')
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return
			}
			if errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: a line is too long or cut short", errBadAttrs)
			}
			var a fileAttrs
			if err == nil {
				a, err = parseAttrs(line)
			}
			if err == nil && a.Path <= previous {
				err = fmt.Errorf("%w: lines are out of order", errBadAttrs)
			}
			previous = a.Path
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// mode is what a file is made with, before the umask. Its owner may always read
// and write it, and whether it is executable is the listing's to say.
func (a fileAttrs) mode(executable bool) fs.FileMode {
	switch {
	case a.Path == "" && executable:
		return 0o777
	case a.Path == "":
		return 0o666
	case executable:
		return a.Mode&fs.ModePerm | 0o700
	}
	return a.Mode&0o666 | 0o600
}

// setTime gives the file at name in root its time. A file system that refuses it
// keeps its own: the bytes are what counts.
func (a fileAttrs) setTime(root *os.Root, name string) {
	if a.Path != "" {
		root.Chtimes(name, time.Time{}, time.Unix(0, a.Mtime))
	}
}

// writeAttrs writes a line of attributes, if it is fit for one.
func (f *listingFile) writeAttrs(a fileAttrs) error {
	if !a.fits() {
		return nil
	}
	f.line = appendAttrs(f.line[:0], a)
	return f.writeLine()
}

// attrs reads the attributes from their start.
func (f *listingFile) attrs() iter.Seq2[fileAttrs, error] {
	return readAttrs(io.NewSectionReader(f.file, 0, f.size))
}

// attrsWalk looks up the attributes of files that come in the listing's order.
type attrsWalk struct {
	next func() (fileAttrs, error, bool)
	stop func()
	at   fileAttrs
}

// walkAttrs begins a walk through f, or one that finds nothing when f is nil. It
// ends with stop.
func walkAttrs(f *listingFile) *attrsWalk {
	if f == nil {
		return &attrsWalk{stop: func() {}}
	}
	w := &attrsWalk{}
	w.next, w.stop = iter.Pull2(f.attrs())
	return w
}

// of returns what is known of the file at p, which lies behind all earlier ones.
func (w *attrsWalk) of(p Path) fileAttrs {
	for w.next != nil && w.at.Path < p {
		a, err, ok := w.next()
		if !ok || err != nil {
			w.next = nil
		}
		w.at = a
	}
	if w.at.Path == p {
		return w.at
	}
	return fileAttrs{}
}
