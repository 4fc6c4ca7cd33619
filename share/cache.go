package share

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

const (
	// CacheMaxDefault is how much of what readers have fetched is kept, in bytes,
	// unless Config.CacheMax says otherwise: an evening of videos.
	CacheMaxDefault = 2 << 30
	// CacheMaxMin is the least quota of the cache: the read-ahead of a few readers.
	CacheMaxMin = 64 << 20
	// cacheIdleMax is how many contents that nobody reads keep their outboards in
	// memory, and are served on: 128 KiB each per GiB of content.
	cacheIdleMax = 16
)

// cache keeps what readers have fetched (stream.go), part by part, under one quota.
// The groups that were not read for the longest go first, whose ever they are.
//
//	<home>/cache/HEX/about   what the content is, and its outboard (cached.go)
//	<home>/cache/HEX/7       chunk group 7
//
// A group is verified whenever it is read, so nothing is synced: what a crash has
// damaged is fetched again. The disk's state is looked at when the cache is first used.
type cache struct {
	library *Library
	dir     string
	ctx     context.Context // of the sessions; ends with Run or Close
	stop    context.CancelFunc
	running sync.WaitGroup // the sessions; begun under mu and before closed
	slots   chan struct{}  // a token for each session that runs; capacity sessionsMax
	once    sync.Once
	loadErr error
	quota   atomic.Int64 // in bytes

	mu      sync.Mutex // guards all below
	closed  bool
	used    int64
	order   list.List // of cachedGroup, the one not read for the longest first
	entries map[content.ID]*cached
}

// cachedGroup is a group on the disk.
type cachedGroup struct {
	entry *cached
	index int64
	bytes int64
}

func openCache(l *Library, quota int64) *cache {
	c := &cache{library: l, dir: filepath.Join(l.dir, "cache"), entries: map[content.ID]*cached{}, slots: make(chan struct{}, sessionsMax)}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.setMax(quota)
	return c
}

// close ends the sessions and waits for them. It may be called twice.
func (c *cache) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.running.Wait()
}

func (c *cache) setMax(bytes int64) {
	if bytes == 0 {
		bytes = CacheMaxDefault
	}
	c.mu.Lock()
	c.quota.Store(max(bytes, CacheMaxMin))
	victims := c.overflow()
	c.mu.Unlock()
	c.drop(victims)
}

// load looks at what is on the disk, once.
func (c *cache) load() error {
	c.once.Do(func() {
		found, err := c.scan()
		if err != nil {
			c.loadErr = err
			return
		}
		slices.SortFunc(found, func(a, b foundGroup) int { return a.at.Compare(b.at) })
		c.mu.Lock()
		for _, f := range found {
			c.insert(f.cachedGroup)
		}
		victims := c.overflow()
		c.mu.Unlock()
		c.drop(victims)
	})
	return c.loadErr
}

type foundGroup struct {
	cachedGroup
	at time.Time // when it was written
}

func (c *cache) scan() (found []foundGroup, err error) {
	dirs, err := readDir(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, d := range dirs {
		id, parseErr := content.Parse(d.Name())
		dir := filepath.Join(c.dir, d.Name())
		if parseErr != nil || id.Hex() != d.Name() {
			os.RemoveAll(dir) // nothing of ours, or half a directory
			continue
		}
		files, err := readDir(dir)
		if err != nil {
			return nil, err
		}
		e := newCached(c, id)
		for _, f := range files {
			info, err := f.Info()
			index, numErr := strconv.ParseInt(f.Name(), 10, 64)
			switch {
			case err != nil:
			case f.Name() == aboutName:
				e.aboutBytes = info.Size()
			case numErr != nil || index < 0 || info.Size() > content.GroupSize || !info.Mode().IsRegular():
				os.RemoveAll(filepath.Join(dir, f.Name()))
			default:
				found = append(found, foundGroup{cachedGroup{e, index, info.Size()}, info.ModTime()})
			}
		}
		if len(found) == 0 || found[len(found)-1].entry != e {
			os.RemoveAll(dir)
			continue
		}
		c.mu.Lock()
		c.entries[id], c.used = e, c.used+e.aboutBytes
		c.mu.Unlock()
	}
	return found, err
}

// insert enters a group as the one that was read last. The caller holds c.mu.
func (c *cache) insert(g cachedGroup) {
	if g.entry.groups[g.index] == nil {
		g.entry.groups[g.index] = c.order.PushBack(g)
		c.used += g.bytes
	}
}

// added notes that a group was written, and makes room for it.
func (c *cache) added(g cachedGroup) {
	c.mu.Lock()
	c.insert(g)
	victims := c.overflow()
	c.mu.Unlock()
	c.drop(victims)
}

// touched notes that a group was read.
func (c *cache) touched(e *cached, index int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := e.groups[index]; at != nil {
		c.order.MoveToBack(at)
	}
}

// forget takes a group out that is not on the disk, or is wrong.
func (c *cache) forget(e *cached, index int64) {
	c.mu.Lock()
	at := e.groups[index]
	if at != nil {
		c.remove(at)
	}
	c.mu.Unlock()
	if at != nil {
		c.drop([]cachedGroup{at.Value.(cachedGroup)})
	}
}

// remove takes a group out of the accounts. The caller holds c.mu.
func (c *cache) remove(at *list.Element) {
	g := c.order.Remove(at).(cachedGroup)
	delete(g.entry.groups, g.index)
	c.used -= g.bytes
}

// overflow takes out of the accounts what is beyond the quota. The caller holds c.mu.
func (c *cache) overflow() []cachedGroup { return c.shrink(c.quota.Load()) }

func (c *cache) shrink(to int64) (victims []cachedGroup) {
	for c.used > to && c.order.Len() > 0 {
		g := c.order.Front().Value.(cachedGroup)
		c.remove(c.order.Front())
		victims = append(victims, g)
	}
	return victims
}

// drop removes groups from the disk that are out of the accounts, and of contents
// that nobody uses the rest.
func (c *cache) drop(victims []cachedGroup) {
	for _, g := range victims {
		g.entry.lost(g.index)
		os.Remove(g.entry.path(g.index))
	}
	for _, g := range victims {
		c.dropEmpty(g.entry)
	}
}

// dropEmpty removes a content of which nothing is left, and that nobody uses.
func (c *cache) dropEmpty(e *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(e.groups) > 0 || e.users.Load() > 0 || c.entries[e.id] != e {
		return
	}
	delete(c.entries, e.id)
	c.used -= e.aboutBytes
	e.unload()
	os.RemoveAll(e.dir()) // under the lock: a new entry has the same directory
}

// relieve frees a part of the cache, for a disk that is full, and reports whether it
// could.
func (c *cache) relieve() bool {
	c.mu.Lock()
	victims := c.shrink(c.used - min(c.used, max(c.used/4, CacheMaxMin/8)))
	c.mu.Unlock()
	c.drop(victims)
	return len(victims) > 0
}

// enter returns the entry of a content, to be left.
func (c *cache) enter(id content.ID) (*cached, error) {
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("look at the cache: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("the library is closed: %w", ErrRefused)
	}
	e := c.entries[id]
	if e == nil {
		e = newCached(c, id)
		c.entries[id] = e
	}
	e.users.Add(1)
	return e, nil
}

// leave ends what enter began.
func (c *cache) leave(e *cached) {
	c.mu.Lock()
	e.users.Add(-1)
	e.used = time.Now()
	idle := c.idle()
	c.mu.Unlock()
	for _, e := range idle {
		c.dropEmpty(e)
	}
}

// idle unloads the contents that were not used for the longest, beyond cacheIdleMax,
// and returns those that are empty. The caller holds c.mu.
func (c *cache) idle() (empty []*cached) {
	var idle []*cached
	for _, e := range c.entries {
		if e.users.Load() > 0 {
			continue
		}
		if len(e.groups) == 0 {
			empty = append(empty, e)
		} else {
			idle = append(idle, e)
		}
	}
	if len(idle) <= cacheIdleMax {
		return empty
	}
	slices.SortFunc(idle, func(a, b *cached) int { return cmp.Compare(b.used.UnixNano(), a.used.UnixNano()) })
	for _, e := range idle[cacheIdleMax:] {
		e.unload()
	}
	return empty
}

// CacheUsage is what the cache of readers takes, in bytes.
type CacheUsage struct {
	Used int64 // on the disk
	Max  int64 // the quota
}

// CacheUsage tells what the cache of readers takes.
func (l *Library) CacheUsage() (CacheUsage, error) {
	err := l.cache.load()
	l.cache.mu.Lock()
	defer l.cache.mu.Unlock()
	return CacheUsage{l.cache.used, l.cache.quota.Load()}, err
}

// SetCacheMax bounds the cache of readers, in bytes, and removes at once what is
// beyond; 0: CacheMaxDefault. Less than CacheMaxMin is CacheMaxMin.
func (l *Library) SetCacheMax(bytes int64) { l.cache.setMax(bytes) }

// clear removes what nobody reads, and returns how many bytes.
func (c *cache) clear() (freed int64, err error) {
	if err := c.load(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	before := c.used
	var victims []cachedGroup
	for _, e := range c.entries {
		if e.users.Load() > 0 {
			continue
		}
		for _, at := range e.groups {
			victims = append(victims, at.Value.(cachedGroup))
			c.remove(at)
		}
	}
	c.mu.Unlock()
	c.drop(victims)
	c.mu.Lock()
	defer c.mu.Unlock()
	return before - c.used, nil
}
