package share

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/share/content"
)

// stallMaxDefault is how long a reader waits for the next byte, unless
// OpenOptions.StallMax says otherwise.
const stallMaxDefault = time.Minute

// ErrIsDir: it is a directory. Open one of its files, or read it with ReadDir.
var ErrIsDir = errors.New("is a directory")

// ErrStalled: nothing came for as long as a reader waits. Sources may be slow, or
// gone.
var ErrStalled = errors.New("no source sends anything")

// OpenOptions are the options of Look, Open and ReadDir.
type OpenOptions struct {
	// Path is a file, or of ReadDir and Look a directory, inside the directory asked for.
	Path Path
	// Peers are asked first. One without an ID is learnt; see node.Node.Learn.
	Peers []peer.AddrInfo
	// From, Any, Strict, AcceptChange and Pick settle what a name means as they do for Get.
	From                      peer.ID
	Any, Strict, AcceptChange bool
	Pick                      content.ID
	// StallMax is how long one Read may wait for its first byte. 0: a minute.
	StallMax time.Duration
}

// Meant is what a What means.
type Meant struct {
	Name Name // as it is published, or the last part of Path; may be empty
	ID   content.ID
	Kind Kind
	Path Path  // inside the directory ID, of a directory only
	Size int64 // as the listing or the manifest says; -1: not known

	hints hints
}

// NewMeant is what somebody says that a content is, to be opened without a Look. The
// peers are asked first; size is -1 when nobody tells.
func NewMeant(n Name, id content.ID, k Kind, size int64, peers ...peer.AddrInfo) Meant {
	return Meant{Name: n, ID: id, Kind: k, Size: size, hints: hints{peers: peers}}
}

// String is the name, safe for a terminal, or the ID of what has none.
func (m Meant) String() string { return cmp.Or(Escape(string(m.Name)), m.ID.String()) }

// Look finds what w means, and what kind it is, without fetching it; but it may read
// the listing of a directory to find Path in. Its errors are Get's.
func (l *Library) Look(ctx context.Context, w What, o OpenOptions) (Meant, error) {
	m, err := l.look(ctx, w, o)
	if err != nil || o.Path == "" {
		return m, err
	}
	return l.LookIn(ctx, m, o.Path, o)
}

// LookIn is Look for a path inside the directory m.
func (l *Library) LookIn(ctx context.Context, m Meant, p Path, o OpenOptions) (Meant, error) {
	if m.Kind != KindDir {
		return m, fmt.Errorf("%s is a file, and has no %q in it: %w", m, Escape(string(p)), ErrNotFound)
	}
	for e, err := range l.readListing(ctx, m, o) {
		if err != nil {
			return m, err
		}
		switch {
		case e.Path == p && e.Kind == KindFile:
			h := m.hints
			h.within = m.ID
			return Meant{Name: Name(path.Base(string(e.Path))), ID: e.ID, Kind: KindFile, Size: e.Size, hints: h}, nil
		case e.Path == p || strings.HasPrefix(string(e.Path), string(p)+"/"):
			m.Name, m.Path, m.Size = Name(path.Base(string(p))), p, -1
			return m, nil
		}
	}
	return m, fmt.Errorf("there is no %q in %s: %w", Escape(string(p)), m, ErrNotFound)
}

// look is Look without the path.
func (l *Library) look(ctx context.Context, w What, o OpenOptions) (Meant, error) {
	if w.ID.IsZero() {
		return l.lookName(ctx, w, o)
	}
	m := Meant{ID: w.ID, Name: w.Name, Kind: w.Kind, Size: -1, hints: hints{peers: append(append([]peer.AddrInfo{}, o.Peers...), w.Peers...)}}
	if l.book.blocked("", w.ID) {
		return m, fmt.Errorf("%s is blocked: %w", w.ID, ErrRefused)
	}
	records, err := l.catalog.byID(w.ID, 1)
	if err != nil {
		return m, err
	}
	for _, r := range records {
		m.Kind, m.Name = cmp.Or(m.Kind, r.Kind), cmp.Or(m.Name, r.Share.Name)
	}
	if m.Kind != "" {
		return m, nil
	}
	if h, ok, err := l.Held(w.ID); err != nil || ok {
		m.Kind = h.Kind
		return m, err
	}
	if _, _, err := l.openHere(ctx, w.ID); err == nil { // a file of a directory
		m.Kind = KindFile
		return m, nil
	}
	e, err := l.cache.enter(w.ID)
	if err != nil {
		return m, err
	}
	defer l.cache.leave(e)
	e.restore()
	e.hint(m.hints)
	err = e.await(ctx, o.stallMax(), func() bool { return e.about.Kind != "" })
	e.mu.Lock()
	defer e.mu.Unlock()
	m.Kind, m.Name = e.about.Kind, cmp.Or(m.Name, e.about.Name)
	return m, err
}

// lookName is look for what a name means, which is remembered as Get does.
func (l *Library) lookName(ctx context.Context, w What, o OpenOptions) (Meant, error) {
	ctx, cancel := context.WithCancel(ctx)
	m := newMeter(nil, PhaseLocal)
	g := &getting{library: l, what: w, meter: m, crowd: l.newCrowd(m),
		options: GetOptions{Peers: o.Peers, From: o.From, Any: o.Any, Strict: o.Strict, AcceptChange: o.AcceptChange, Pick: o.Pick, NoServe: true}}
	defer func() {
		cancel()
		g.finding.end()
		g.crowd.close()
	}()
	c, err := g.resolve(ctx)
	if err != nil {
		return Meant{}, err
	}
	g.remember(c)
	return Meant{Name: c.Name, ID: c.ID, Kind: cmp.Or(c.Kind, KindFile), Size: c.Size,
		hints: hints{mirrors: g.mirrors[c.ID]}.merge(hints{peers: append(c.holders, o.Peers...)})}, nil
}

// Open opens a file that w means, or that o.Path names in the directory that w means,
// for reading at any place. What is not here is fetched as it is read, from the read
// position on and some way ahead; Seek costs nothing, and what was fetched for the
// place that was left is given up. All is verified before it is returned, kept in the
// cache (SetCacheMax), and served to others as what is being got is.
//
// ctx bounds the whole life of the reader. Open returns when the size is known and
// proved. Errors are Get's, ErrIsDir, and ErrStalled; those of Read, too. A Run that
// has ended ends what readers fetch.
func (l *Library) Open(ctx context.Context, w What, o OpenOptions) (*Reader, error) {
	m, err := l.Look(ctx, w, o)
	if err != nil {
		return nil, err
	}
	return l.OpenMeant(ctx, m, o)
}

// OpenMeant is Open for what Look has found.
func (l *Library) OpenMeant(ctx context.Context, m Meant, o OpenOptions) (*Reader, error) {
	if m.Kind == KindDir {
		return nil, fmt.Errorf("%s: %w", m, ErrIsDir)
	}
	return l.openContent(ctx, m, o)
}

// openContent opens a content as it is, a directory as its listing.
func (l *Library) openContent(ctx context.Context, m Meant, o OpenOptions) (*Reader, error) {
	if l.book.blocked("", m.ID) {
		return nil, fmt.Errorf("%s is blocked: %w", m.ID, ErrRefused)
	}
	r := &Reader{library: l, ctx: ctx, name: m.Name, id: m.ID, index: -1, stallMax: o.stallMax(), hints: m.hints, kind: m.Kind}
	h, outboard, err := l.openHere(ctx, m.ID)
	if err == nil {
		r.here, r.size, r.outboard = h, h.identity.size, outboard
	} else if err = r.enter(); err != nil {
		r.Close()
		return nil, err
	}
	if m.Size >= 0 && r.size != m.Size && m.hints.within != (content.ID{}) {
		r.Close()
		return nil, fmt.Errorf("%w: a file's size is not what it says", ErrBadListing)
	}
	return r, nil
}

// openHere opens a content that this library has, with what verifies its groups.
func (l *Library) openHere(ctx context.Context, id content.ID) (*held, *content.Outboard, error) {
	h, err := l.openHeld(ctx, id, anyShare)
	if err != nil {
		return nil, nil, err
	}
	if content.GroupCount(h.identity.size) == 1 {
		return h, nil, nil
	}
	o, err := l.catalog.outboard(id, h.identity.size)
	if err == nil && o == nil {
		err = ErrNotShared
	}
	if err != nil {
		h.close()
		return nil, nil, err
	}
	return h, o, nil
}

func (o OpenOptions) stallMax() time.Duration { return cmp.Or(o.StallMax, stallMaxDefault) }

// ReadDir yields what is inside the directory that w means, or inside o.Path there,
// at any depth, in the listing's order. The listing is read as Open reads a file.
func (l *Library) ReadDir(ctx context.Context, w What, o OpenOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		m, err := l.Look(ctx, w, o)
		if err == nil && m.Kind != KindDir {
			err = fmt.Errorf("%s is a file: %w", Escape(w.String()), ErrNotFound)
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		l.ReadMeant(ctx, m, o)(yield)
	}
}

// ReadMeant is ReadDir for a directory that Look has found.
func (l *Library) ReadMeant(ctx context.Context, m Meant, o OpenOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range l.readListing(ctx, m, o) {
			if err == nil && m.Path != "" && e.Path != m.Path && !strings.HasPrefix(string(e.Path), string(m.Path)+"/") {
				continue
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Within is a file that ReadMeant has yielded of m, to be opened.
func (m Meant) Within(e Entry) Meant {
	h := m.hints
	h.within = m.ID
	return Meant{Name: Name(path.Base(string(e.Path))), ID: e.ID, Kind: e.Kind, Size: e.Size, hints: h}
}

func (l *Library) readListing(ctx context.Context, m Meant, o OpenOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		m.Size = -1
		r, err := l.openContent(ctx, m, o)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		defer r.Close()
		if r.Size() > listingMax {
			yield(Entry{}, fmt.Errorf("%w: it is larger than %d bytes", ErrBadListing, listingMax))
			return
		}
		readListing(r)(yield)
	}
}

// Reader reads one content; see Library.Open. It is for one goroutine.
type Reader struct {
	library  *Library
	ctx      context.Context // of its whole life: io.Reader has none
	name     Name
	id       content.ID
	kind     Kind
	size     int64
	outboard *content.Outboard // nil for one group
	hints    hints
	stallMax time.Duration

	here  *held   // the content in this library; nil: it is not
	entry *cached // in the cache; nil before it is needed

	at      int64 // where the next Read begins
	inOrder int64 // groups read in order since the last Seek; guarded by entry.mu
	index   int64 // of the group in buf; -1: none
	buf     *[content.GroupSize]byte
	closed  bool
}

// Name is what the content is called; it may be empty. ID is its content ID, and Size
// its size in bytes, proved.
func (r *Reader) Name() Name     { return r.name }
func (r *Reader) ID() content.ID { return r.id }
func (r *Reader) Size() int64    { return r.size }

// Seek implements io.Seeker. It fetches nothing.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	default:
		return 0, fmt.Errorf("seek %s: bad whence", r.id)
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek %s: before its start", r.id)
	}
	r.at = offset
	return offset, nil
}

// Read implements io.Reader. It returns what is left of one chunk group at most.
func (r *Reader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, fs.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.at >= r.size {
		return 0, io.EOF
	}
	index := r.at / content.GroupSize
	if index != r.index {
		if err := r.load(index); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.at-index*content.GroupSize:content.GroupLen(r.size, index)])
	r.at += int64(n)
	return n, nil
}

// Close ends what is fetched for r. It may be called twice.
func (r *Reader) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	if r.here != nil {
		r.here.close()
	}
	if r.buf != nil {
		groupBuffers.Put(r.buf)
	}
	if e := r.entry; e != nil {
		e.mu.Lock()
		delete(e.readers, r)
		e.refocus()
		e.mu.Unlock()
		r.library.cache.leave(e)
	}
	return nil
}

// load brings a group into buf.
func (r *Reader) load(index int64) error {
	if r.buf == nil {
		r.buf = groupBuffers.Get().(*[content.GroupSize]byte)
	}
	last := r.index
	r.index = -1
	if r.here != nil && !r.fromHere(index) {
		r.here.close()
		r.here = nil // its file is not what it was: others may have it
	}
	if r.here == nil {
		if err := r.fetch(index, index == last+1); err != nil {
			return err
		}
	}
	r.index = index
	return nil
}

// fromHere reads a group from this library, and verifies it.
func (r *Reader) fromHere(index int64) bool {
	if err := readHeld(r.here, r.size, index, r.buf); err != nil {
		return false
	}
	data := r.buf[:content.GroupLen(r.size, index)]
	if r.outboard == nil {
		return content.VerifyData(r.id, data) == nil
	}
	return r.outboard.VerifyGroup(index, data) == nil
}

// enter makes r a reader of its content's entry in the cache, and waits for the size.
func (r *Reader) enter() error {
	e, err := r.library.cache.enter(r.id)
	if err != nil {
		return err
	}
	r.entry = e
	e.restore()
	e.hint(r.hints)
	e.mu.Lock()
	if e.about.Kind == "" {
		e.about.Kind, e.about.Name = r.kind, r.name
	}
	e.readers[r] = -1
	e.mu.Unlock()
	if err := e.await(r.ctx, r.stallMax, func() bool { return e.live != nil }); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r.size, r.outboard = e.live.size, e.live.outboard
	return nil
}

// fetch brings a group into buf from the cache, from a get under way, or from others.
func (r *Reader) fetch(index int64, next bool) error {
	if r.entry == nil {
		if err := r.enter(); err != nil {
			return err
		}
	}
	e := r.entry
	e.mu.Lock()
	if r.inOrder++; !next {
		r.inOrder = 0
	}
	e.readers[r] = index
	e.refocus()
	e.mu.Unlock()
	for {
		if e.read(index, r.buf) != nil || r.fromGet(index) {
			return nil
		}
		err := e.await(r.ctx, r.stallMax, func() bool { return e.live.holds(index) })
		if err != nil {
			return err
		}
	}
}

// fromGet reads a group from a get of this peer that has it.
func (r *Reader) fromGet(index int64) bool {
	t := r.library.transfers.find(r.id)
	if t == nil {
		return false
	}
	defer t.release()
	if t.onDemand || t.size != r.size || !t.holds(index) {
		return false
	}
	_, err := t.read(index, r.buf)
	return err == nil
}

// hint adds what is known of sources, for the next session.
func (e *cached) hint(h hints) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hints = e.hints.merge(h)
}

// await waits until there, which is called under e.mu, is true, and has a session at
// work meanwhile, whose end by an error is returned.
func (e *cached) await(ctx context.Context, stall time.Duration, there func() bool) error {
	timer := time.NewTimer(stall)
	defer timer.Stop()
	e.mu.Lock()
	e.waiting++
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.waiting--
		e.mu.Unlock()
	}()
	for {
		e.mu.Lock()
		if there() {
			e.mu.Unlock()
			return nil
		}
		s, err := e.fetching()
		change := e.change
		e.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-change:
		case <-s.done:
			if s.err != nil {
				return s.err
			}
		case <-timer.C:
			return fmt.Errorf("%s: nothing has come for %s: %w", e.id, stall, ErrStalled)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
