package share

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// The trust book is a text file in the home, made to be read and edited. A line is
// an entry, empty, or a comment that begins with #; comments stay where they are.
//
//	version 1
//	peer 12D3KooW… as "ann" since 2026-11-29T15:04:05Z
//	name "report.pdf" of 12D3KooW… is b3:9f3c… tier 3 among 1 since 2026-11-29T15:04:05Z
//	block 12D3KooW… since 2026-11-29T15:04:05Z
//	block b3:9f3c… since 2026-11-29T15:04:05Z
//
// Names stand in quotes with the escapes of Go's string literals, so that none is
// more than a word of its line. A file with any other line is not believed at all:
// half a book could trust whom the whole one blocks.

// bookError says what a book can't say.
type bookError struct {
	line   int
	reason string
}

func (e *bookError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.reason) }

// ReadTrust reads the trust book of a home without opening a Library on it. There
// is none in a home that does not exist. It is no error that the book is damaged,
// or can't be read: then nothing of it is returned, and Open sees to it.
func ReadTrust(dir string) Trust {
	lines, err := readBook(filepath.Join(dir, bookName))
	if err != nil {
		return Trust{}
	}
	return entriesOf(lines)
}

func readBook(path string) ([]bookLine, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", Escape(path))
	}
	if info.Size() > bookMax {
		return nil, &bookError{1, fmt.Sprintf("the file has %d bytes, more than %d", info.Size(), bookMax)}
	}
	data := make([]byte, info.Size())
	if _, err := f.ReadAt(data, 0); err != nil && len(data) > 0 {
		return nil, err
	}
	return parseBook(data)
}

// parseBook reads a whole book. Its error is a *bookError.
func parseBook(data []byte) ([]bookLine, error) {
	var lines []bookLine
	versioned := false
	entries := 0
	in := bufio.NewScanner(bytes.NewReader(data))
	in.Buffer(nil, 8<<10)
	for in.Scan() {
		bad := func(format string, args ...any) ([]bookLine, error) {
			return nil, &bookError{len(lines) + 1, fmt.Sprintf(format, args...)}
		}
		text := in.Text()
		trimmed := strings.TrimSpace(text)
		l := bookLine{text: text}
		switch {
		case trimmed == "" || trimmed[0] == '#':
		case !versioned && trimmed == bookVersion:
			versioned = true
		case !versioned:
			return bad("%q is not %q: a newer p2pshare may have written it", Escape(cut(trimmed)), bookVersion)
		default:
			entry, err := parseBookEntry(trimmed)
			if err != nil {
				return bad("%s", err)
			}
			if entries++; entries > bookEntriesMax {
				return bad("more than %d entries", bookEntriesMax)
			}
			l.entry = entry
		}
		lines = append(lines, l)
	}
	if err := in.Err(); err != nil {
		return nil, &bookError{len(lines) + 1, "it is too long"}
	}
	if !versioned && len(data) > 0 {
		return nil, &bookError{len(lines), "there is no version in it"}
	}
	if at, what := twice(lines); what != "" {
		return nil, &bookError{at, what}
	}
	return lines, nil
}

func cut(s string) string { return s[:min(len(s), 80)] }

// twice finds an entry that says again, or otherwise, what one above it says.
func twice(lines []bookLine) (line int, what string) {
	seen := map[string]bool{}
	for i, l := range lines {
		for _, key := range entryKeys(l.entry) {
			if seen[key] {
				return i + 1, "an entry above is about the same"
			}
			seen[key] = true
		}
	}
	return 0, ""
}

// entryKeys are what no two entries may share.
func entryKeys(entry any) []string {
	switch e := entry.(type) {
	case Friend:
		return []string{"peer " + string(e.Peer), "petname " + Name(e.Name).Lookup()}
	case Choice:
		return []string{"name " + e.Name.Lookup()}
	case Blocked:
		return []string{"block " + string(e.Peer) + e.ID.Hex()}
	}
	return nil
}

// ParsePetname reads a petname. Its error matches ErrBadPetname.
func ParsePetname(s string) (Petname, error) {
	n, err := ParseName(s)
	if err != nil {
		var bad *NameError
		errors.As(err, &bad)
		return "", fmt.Errorf("%w \"%s\": it %s", ErrBadPetname, escapeCut(s, 80), bad.Reason)
	}
	_, peerErr := decodePeer(string(n))
	switch {
	case strings.ContainsAny(string(n), "#@"):
		return "", fmt.Errorf("%w %q: it contains '#' or '@'", ErrBadPetname, Escape(s))
	case peerErr == nil || looksLikeID(string(n)) || strings.Contains(string(n), ":"):
		return "", fmt.Errorf("%w %q: it looks like an ID", ErrBadPetname, Escape(s))
	}
	return Petname(n), nil
}

// words splits a line; what stands in quotes is one word, with its quotes.
func words(line string) ([]string, error) {
	var all []string
	for line = strings.TrimLeft(line, " \t"); line != ""; line = strings.TrimLeft(line, " \t") {
		word := line
		if line[0] == '"' {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, errors.New("a quote does not end")
			}
			word = quoted
		} else if i := strings.IndexAny(line, " \t"); i >= 0 {
			word = line[:i]
		}
		all = append(all, word)
		line = line[len(word):]
		if line != "" && line[0] != ' ' && line[0] != '\t' {
			return nil, errors.New("something follows a quote")
		}
	}
	return all, nil
}

// parseBookEntry reads what formatEntry writes.
func parseBookEntry(line string) (any, error) {
	w, err := words(line)
	if err != nil {
		return nil, err
	}
	p := &entryParser{words: w}
	var entry any
	switch kind := p.next(); kind {
	case "peer":
		f := Friend{Peer: p.peer()}
		p.word("as")
		f.Name = p.petname()
		f.Since = p.since()
		entry = f
	case "name":
		c := Choice{Name: p.name()}
		p.word("of")
		c.Publisher = p.peer()
		p.word("is")
		c.ID = p.id()
		p.word("tier")
		c.Tier = p.number(0, tierStrangers)
		p.word("among")
		c.Among = p.number(1, 1<<20)
		c.Since = p.since()
		entry = c
	case "block":
		var b Blocked
		if strings.HasPrefix(p.peek(), "b3:") {
			b.ID = p.id()
		} else {
			b.Peer = p.peer()
		}
		b.Since = p.since()
		entry = b
	default:
		return nil, fmt.Errorf("%q is no kind of entry", Escape(cut(kind)))
	}
	if p.err == nil && len(p.words) > 0 {
		p.fail("%q is too much", p.peek())
	}
	return entry, p.err
}

// entryParser takes the words of a line one by one, and keeps the first error.
type entryParser struct {
	words []string
	err   error
}

func (p *entryParser) fail(format string, word string) {
	if p.err == nil {
		p.err = fmt.Errorf(format, Escape(cut(word)))
	}
}

func (p *entryParser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *entryParser) next() string {
	w := p.peek()
	if len(p.words) > 0 {
		p.words = p.words[1:]
	}
	return w
}

func (p *entryParser) word(want string) {
	if w := p.next(); w != want && p.err == nil {
		p.err = fmt.Errorf("%q stands where %q should", Escape(cut(w)), want)
	}
}

func (p *entryParser) quoted() string {
	w := p.next()
	s, err := strconv.Unquote(w)
	if err != nil || w[0] != '"' {
		p.fail("%q is no name in quotes", w)
	}
	return s
}

func (p *entryParser) name() Name {
	s := p.quoted()
	n, err := ParseName(s)
	if err != nil || string(n) != s {
		p.fail("%q is no name", s)
	}
	return n
}

func (p *entryParser) petname() Petname {
	s := p.quoted()
	n, err := ParsePetname(s)
	if err != nil || string(n) != s {
		p.fail("%q is no petname", s)
	}
	return n
}

func (p *entryParser) peer() peer.ID {
	w := p.next()
	id, err := decodePeer(w)
	if err != nil || id.String() != w {
		p.fail("%q is no peer ID", w)
	}
	return id
}

// id reads a content ID, or "-" for none.
func (p *entryParser) id() content.ID {
	w := p.next()
	if w == "-" {
		return content.ID{}
	}
	id, err := content.Parse(w)
	if err != nil || id.String() != w || id.IsZero() {
		p.fail("%q is no content ID", w)
	}
	return id
}

func (p *entryParser) number(low, high int) int {
	w := p.next()
	n, err := strconv.Atoi(w)
	if err != nil || n < low || n > high {
		p.fail("%q is no number that can stand there", w)
	}
	return n
}

func (p *entryParser) since() time.Time {
	p.word("since")
	w := p.next()
	t, err := time.Parse(time.RFC3339, w)
	if err != nil {
		p.fail("%q is no time", w)
	}
	return t.UTC()
}

func formatEntry(entry any) string {
	at := func(t time.Time) string { return " since " + t.UTC().Format(time.RFC3339) }
	switch e := entry.(type) {
	case Friend:
		return fmt.Sprintf("peer %s as %s", e.Peer, strconv.Quote(string(e.Name))) + at(e.Since)
	case Choice:
		id := "-"
		if !e.ID.IsZero() {
			id = e.ID.String()
		}
		return fmt.Sprintf("name %s of %s is %s tier %d among %d", strconv.Quote(string(e.Name)), e.Publisher, id, e.Tier, e.Among) + at(e.Since)
	case Blocked:
		if !e.ID.IsZero() {
			return "block " + e.ID.String() + at(e.Since)
		}
		return "block " + e.Peer.String() + at(e.Since)
	}
	panic("share: no entry of the trust book") // a type of ours
}

func writeBook(path string, lines []bookLine) (_ fs.FileInfo, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), bookName+".new-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriter(f)
	for _, l := range lines {
		w.WriteString(l.text + "\n") // its error is Flush's
	}
	err = errors.Join(w.Flush(), f.Chmod(0o600), f.Sync())
	info, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		return nil, err
	}
	return info, os.Rename(f.Name(), path)
}
