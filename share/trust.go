package share

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// Petname is what a person calls a publisher: a Name without '#' and '@', which
// does not read as a peer ID or a content ID. Petnames with one lookup form are one.
type Petname string

// Friend is a publisher that has a petname.
type Friend struct {
	Peer  peer.ID   `json:"peer"`
	Name  Petname   `json:"petname"`
	Since time.Time `json:"since"`
}

// Choice binds a bare name to the publisher whose word on it is taken.
type Choice struct {
	Name      Name       `json:"name"` // as it was asked for
	Publisher peer.ID    `json:"publisher"`
	ID        content.ID `json:"id,omitzero"` // what it meant last; zero: nothing was got yet
	// Tier is that in which the choice was made, 2 or 3, and 0 for an explicit trust.
	Tier int `json:"tier"`
	// Among is how many publishers claimed that content then. With more than one it
	// is the content that was chosen, and a new version is not taken silently.
	Among int       `json:"among"`
	Since time.Time `json:"since"`
}

// Blocked is a peer or a content that is never dealt with.
type Blocked struct {
	Peer  peer.ID    `json:"peer,omitempty"`
	ID    content.ID `json:"id,omitzero"`
	Since time.Time  `json:"since"`
}

// Trust is what the trust book says, in the order of its entries.
type Trust struct {
	Friends []Friend
	Choices []Choice
	Blocks  []Blocked
	// Damaged are files of earlier books that could not be read and were put aside.
	Damaged []string
}

// Errors of the trust book's methods.
var (
	// ErrBadPetname: another petname is needed.
	ErrBadPetname = errors.New("bad petname")
	// ErrPetnameTaken: another peer has it: untrust that one first.
	ErrPetnameTaken = errors.New("petname is taken")
	// ErrNotInBook: the trust book has no such entry.
	ErrNotInBook = errors.New("not in the trust book")
	// ErrBookFull: something must be taken out first.
	ErrBookFull = errors.New("the trust book is full")
)

const (
	bookName    = "trust.txt"
	bookVersion = "version 1"
	// bookMax is the largest file that is read, in bytes.
	bookMax = 8 << 20
	// bookEntriesMax keeps a book below bookMax: an entry has at most some 700
	// bytes, as a name has 255, quoted.
	bookEntriesMax = 10_000
	// asideMax is how many damaged books are kept aside, at most.
	asideMax = 100
)

const bookHead = `# The trust book of p2pshare: whom you trust as what, which publisher each bare
# name stands for, and what is blocked. "p2pshare trust" lists it. You can edit it.
` + bookVersion + "\n"

// book is the trust book. It is read again whenever its file has changed. Its
// methods are safe for concurrent use.
type book struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex // guards all below
	lines  []bookLine
	file   fs.FileInfo     // what lines were read from or written to; nil: there was none
	blocks map[string]bool // by blockKey
	looked time.Time       // when the file was looked at last
}

// bookLine is one line: text as it stands in the file, and its entry, if any.
type bookLine struct {
	text  string
	entry any // Friend, Choice, Blocked, or nil
}

func openBook(dir string, log *slog.Logger) (*book, error) {
	b := &book{dir: dir, log: log}
	if unfinished, err := filepath.Glob(escapeGlob(b.path()) + ".new-*"); err == nil {
		for _, path := range unfinished { // a crash came before the rename
			os.Remove(path)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b, b.refresh()
}

func (b *book) path() string { return filepath.Join(b.dir, bookName) }

// refresh reads the file if it is not the one that was read last. The caller holds
// b.mu.
func (b *book) refresh() error {
	b.looked = time.Now()
	info, err := os.Stat(b.path())
	if errors.Is(err, fs.ErrNotExist) {
		if b.file != nil {
			b.take(nil, nil)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the trust book: %w", err)
	}
	if b.file != nil && os.SameFile(info, b.file) && info.Size() == b.file.Size() && info.ModTime().Equal(b.file.ModTime()) {
		return nil
	}
	lines, err := readBook(b.path())
	var bad *bookError
	switch {
	case errors.As(err, &bad):
		aside, err := b.putAside()
		if err != nil {
			return fmt.Errorf("the trust book %s is damaged (%w), and can't be put aside: %w", Escape(b.path()), bad, err)
		}
		b.take(nil, nil)
		b.log.Warn("the trust book is damaged, and was put aside", "path", b.path(), "aside", aside, "err", bad)
	case err != nil:
		return fmt.Errorf("read the trust book: %w", err)
	default:
		b.take(lines, info)
	}
	return nil
}

// take makes lines what the book says. The caller holds b.mu.
func (b *book) take(lines []bookLine, file fs.FileInfo) {
	b.lines, b.file = lines, file
	b.blocks = map[string]bool{}
	for _, l := range lines {
		if e, ok := l.entry.(Blocked); ok {
			b.blocks[blockKey(e.Peer, e.ID)] = true
		}
	}
}

func blockKey(p peer.ID, id content.ID) string { return string(p) + "/" + string(id[:]) }

// bookLookEvery is how often the file is looked at for what is blocked, where that
// is asked for each request of another peer.
const bookLookEvery = time.Second

// blocks reports whether a peer or a content is blocked; either may be empty. While
// the file can't be read it is as it was last.
func (b *book) blocked(p peer.ID, id content.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.looked) > bookLookEvery {
		if err := b.refresh(); err != nil {
			b.log.Warn("look what is blocked", "err", err)
		}
	}
	return p != "" && b.blocks[blockKey(p, content.ID{})] || !id.IsZero() && b.blocks[blockKey("", id)]
}

// putAside renames the file to a name that no other has.
func (b *book) putAside() (string, error) {
	for i := 1; i <= asideMax; i++ {
		aside := fmt.Sprintf("%s.damaged-%d", b.path(), i)
		// A link fails where a rename would replace.
		err := os.Link(b.path(), aside)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil { // a file system without links
			if _, err := os.Lstat(aside); err == nil {
				continue
			}
			return aside, os.Rename(b.path(), aside)
		}
		return aside, os.Remove(b.path())
	}
	return "", fmt.Errorf("%d damaged ones are there already", asideMax)
}

// damaged are the files that putAside made.
func (b *book) damaged() []string {
	paths, err := filepath.Glob(escapeGlob(b.path()) + ".damaged-*")
	if err != nil { // a pattern of ours
		panic(err)
	}
	return paths
}

// escapeGlob has a path match itself.
func escapeGlob(path string) string {
	if filepath.Separator == '\\' {
		return path // no escapes on Windows, where no path has a '*' or a '?'
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// view returns the entries as they are now.
func (b *book) view() (Trust, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refresh(); err != nil {
		return Trust{}, err
	}
	t := entriesOf(b.lines)
	t.Damaged = b.damaged()
	return t, nil
}

func entriesOf(lines []bookLine) (t Trust) {
	for _, l := range lines {
		switch e := l.entry.(type) {
		case Friend:
			t.Friends = append(t.Friends, e)
		case Choice:
			t.Choices = append(t.Choices, e)
		case Blocked:
			t.Blocks = append(t.Blocks, e)
		}
	}
	return t
}

// change replaces the entries that drop names by add, and writes the book. A crash
// leaves the old book or the new one.
func (b *book) change(drop func(entry any) bool, add ...any) (dropped int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.refresh(); err != nil {
		return 0, err
	}
	lines := slices.Clone(b.lines)
	if len(lines) == 0 {
		for text := range strings.Lines(bookHead) {
			lines = append(lines, bookLine{text: strings.TrimSuffix(text, "\n")})
		}
	}
	entries := 0
	lines = slices.DeleteFunc(lines, func(l bookLine) bool {
		if l.entry != nil && drop(l.entry) {
			dropped++
			return true
		}
		if l.entry != nil {
			entries++
		}
		return false
	})
	if dropped == 0 && len(add) == 0 {
		return 0, nil
	}
	if entries+len(add) > bookEntriesMax {
		return 0, fmt.Errorf("%w: it has %d entries", ErrBookFull, entries)
	}
	for _, e := range add {
		lines = append(lines, bookLine{formatEntry(e), e})
	}
	info, err := writeBook(b.path(), lines)
	if err != nil {
		return 0, fmt.Errorf("write the trust book: %w", err)
	}
	b.take(lines, info)
	return dropped, nil
}

// friend returns whom a petname means.
func (t Trust) friend(name Petname) (Friend, bool) {
	i := slices.IndexFunc(t.Friends, func(f Friend) bool { return Name(f.Name).Lookup() == Name(name).Lookup() })
	if i < 0 {
		return Friend{}, false
	}
	return t.Friends[i], true
}

// petname returns what p is called, or "".
func (t Trust) petname(p peer.ID) Petname {
	for _, f := range t.Friends {
		if f.Peer == p {
			return f.Name
		}
	}
	return ""
}

// strange reports whether a choice was made among strangers, of whom the one that was
// chosen has got no petname since.
func (t Trust) strange(c Choice) bool { return c.Tier == tierStrangers && t.petname(c.Publisher) == "" }

// choice returns what a bare name stands for.
func (t Trust) choice(name Name) (Choice, bool) {
	lookup := name.Lookup()
	i := slices.IndexFunc(t.Choices, func(c Choice) bool { return c.Name.Lookup() == lookup })
	if i < 0 {
		return Choice{}, false
	}
	return t.Choices[i], true
}

// Lookalikes knows the bare names that something was chosen for.
func (t Trust) Lookalikes() *Lookalikes {
	l := &Lookalikes{}
	for _, c := range t.Choices {
		l.Add(string(c.Name))
	}
	return l
}

// who is how a publisher is shown: by petname, else by the beginning of its ID.
func (t Trust) who(p peer.ID) string {
	if n := t.petname(p); n != "" {
		return Escape(string(n))
	}
	return shortPeer(p)
}
