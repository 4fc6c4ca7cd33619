package share

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"container/list"

	"github.com/p2pshare/p2pshare/share/content"
	"github.com/p2pshare/p2pshare/share/internal/swarm"
)

// cached is one content in the cache, or on its way there.
type cached struct {
	cache *cache
	id    content.ID

	groups     map[int64]*list.Element // guarded by cache.mu: what is on the disk
	aboutBytes int64                   // guarded by cache.mu
	users      atomic.Int64            // readers, who is about to be one, and the session; from 0 it rises under cache.mu
	used       time.Time               // guarded by cache.mu: when the last one left

	mu      sync.Mutex // guards all below; never waits for cache.mu
	about   aboutCached
	live    *transfer // what is here, for readers and for other peers; nil before the size is proved
	session *session  // that fetches; nil: none
	waiting int       // readers, and who will be one, that wait for it
	readers map[*Reader]int64
	hints   hints
	change  chan struct{} // closed and replaced when any of this changes, or a group comes
}

// aboutCached is what is known of a cached content.
type aboutCached struct {
	V    int   `json:"v"` // 1
	Size int64 `json:"size"`
	Kind Kind  `json:"kind"` // empty: not known
	Name Name  `json:"name"` // as somebody calls it; may be empty
}

const (
	aboutName = "about"
	// aboutLineMax bounds the first line of the about file, which the outboard follows.
	aboutLineMax = 4096
)

func newCached(c *cache, id content.ID) *cached {
	return &cached{cache: c, id: id, groups: map[int64]*list.Element{}, readers: map[*Reader]int64{}, change: make(chan struct{})}
}

func (e *cached) dir() string { return filepath.Join(e.cache.dir, e.id.Hex()) }

func (e *cached) path(index int64) string {
	return filepath.Join(e.dir(), strconv.FormatInt(index, 10))
}

// changed wakes who waits. The caller holds e.mu.
func (e *cached) changed() {
	close(e.change)
	e.change = make(chan struct{})
}

// restore reads what the disk knows of e, unless that was done. What does not verify
// is as if it were not there.
func (e *cached) restore() {
	e.mu.Lock()
	known := e.live != nil
	e.mu.Unlock()
	if known {
		return
	}
	about, o, err := e.readAbout()
	if err != nil {
		return
	}
	e.adopt(about, about.Size, o)
}

// adopt makes size and outboard known, which are proved, and e served.
func (e *cached) adopt(about aboutCached, size int64, o *content.Outboard) *transfer {
	have := swarm.NewBitfield(content.GroupCount(size))
	e.cache.mu.Lock()
	for i := range e.groups {
		if i < have.Len() {
			have.Set(i)
		}
	}
	e.cache.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.live == nil {
		if e.about.Kind == "" {
			e.about.Kind, e.about.Name = about.Kind, about.Name
		}
		e.about.V, e.about.Size = 1, size
		e.live = &transfer{id: e.id, onDemand: true, public: true, size: size, outboard: o,
			file: cachedFile{e}, have: have, users: 1, change: make(chan struct{})}
		if o != nil {
			e.live.segments = sync.OnceValue(o.Segments)
		}
		e.changed()
	}
	e.cache.library.transfers.offer(e.live)
	return e.live
}

// unload forgets what restore can find again. Nobody uses e.
func (e *cached) unload() {
	e.mu.Lock()
	live := e.live
	e.live = nil
	e.mu.Unlock()
	if live != nil {
		e.cache.library.exit(live)
	}
}

func (e *cached) readAbout() (a aboutCached, o *content.Outboard, err error) {
	data, err := os.ReadFile(filepath.Join(e.dir(), aboutName))
	if err != nil {
		return a, nil, err
	}
	line, rest, ok := bytes.Cut(data, []byte{'\n'})
	if !ok || len(line) > aboutLineMax {
		return a, nil, errors.New("cache: no about line")
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, nil, err
	}
	if a.V != 1 || content.CheckSize(a.Size) != nil || a.Kind != "" && a.Kind != KindFile && a.Kind != KindDir {
		return a, nil, errors.New("cache: the about line makes no sense")
	}
	if content.GroupCount(a.Size) == 1 {
		return a, nil, nil
	}
	if o, err = content.ParseOutboard(a.Size, rest); err == nil {
		err = o.Verify(e.id)
	}
	return a, o, err
}

func (e *cached) writeAbout(a aboutCached, o *content.Outboard) error {
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if o != nil {
		line = append(line, o.Bytes()...)
	}
	if err := os.MkdirAll(e.dir(), 0o700); err != nil {
		return noSpace(err)
	}
	if err := os.WriteFile(filepath.Join(e.dir(), aboutName), line, 0o600); err != nil {
		return noSpace(err)
	}
	e.cache.mu.Lock()
	defer e.cache.mu.Unlock()
	e.cache.used += int64(len(line)) - e.aboutBytes
	e.aboutBytes = int64(len(line))
	return nil
}

// admit implements sink.
func (e *cached) admit(int64) error { return nil }

// prepare implements sink.
func (e *cached) prepare(size int64, o *content.Outboard) (*swarm.Bitfield, error) {
	e.mu.Lock()
	about := e.about
	e.mu.Unlock()
	about.V, about.Size = 1, size
	if err := e.writeAbout(about, o); err != nil {
		return nil, err
	}
	live := e.adopt(about, size, o)
	live.mu.Lock()
	defer live.mu.Unlock()
	return live.have.Clone(), nil
}

// write implements sink. On a full disk the cache makes room for itself.
func (e *cached) write(index int64, data []byte) error {
	err := os.WriteFile(e.path(index), data, 0o600)
	if errors.Is(noSpace(err), ErrNoSpace) && e.cache.relieve() {
		err = os.WriteFile(e.path(index), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what is read: %w", noSpace(err))
	}
	e.mu.Lock()
	e.live.wrote(index)
	e.changed()
	e.mu.Unlock()
	e.cache.added(cachedGroup{e, index, int64(len(data))})
	return nil
}

// lost notes that a group is not here any more.
func (e *cached) lost(index int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.live != nil {
		e.live.lost(index)
	}
	if e.session != nil && e.session.fetch != nil {
		e.session.fetch.lost(index)
	}
}

// read reads a group that is here into buf, and verifies it. It returns nil for one
// that is not.
func (e *cached) read(index int64, buf *[content.GroupSize]byte) []byte {
	e.mu.Lock()
	live := e.live
	e.mu.Unlock()
	if live == nil || !live.holds(index) {
		return nil
	}
	data, err := live.read(index, buf)
	if err != nil {
		e.cache.forget(e, index)
		e.lost(index)
		return nil
	}
	e.cache.touched(e, index)
	return data
}

// cachedFile is the groups of a cached content as one file. It is read by whole
// groups.
type cachedFile struct{ entry *cached }

func (f cachedFile) ReadAt(b []byte, at int64) (int, error) {
	file, err := os.Open(f.entry.path(at / content.GroupSize))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	n, err := io.ReadFull(file, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (f cachedFile) Close() error { return nil }
