// Package share moves content between peers: it names files, tells who has
// them, fetches and verifies them, and serves what this peer shares. It knows
// nothing of groups, leaders or commands.
//
// # Two flows
//
// Add (add.go) walks a file or directory, hashes it in place (hash.go), writes
// it into the catalog (catalog.go), signs a manifest for it (manifest.go) and
// announces the name's key and the content's key (announce.go). The bytes stay
// where they are; serve.go reads them from there, after checking that the file
// is still the one that was hashed.
//
// Get (get.go) finds out which content is meant (find.go: signed manifests
// from the peers that provide the name's key), opens sources (source.go: peers
// and this library; mirror.go: plain HTTP servers), drives the decisions of
// internal/swarm, verifies each chunk group against the content ID, writes it
// into a partial file (partial.go), and renames that to its target.
//
// # Protocols
//
// /p2pshare/meta/1 carries JSON lines and /p2pshare/data/1 binary frames; both
// are described in wire.go, well enough for another implementation.
//
// # The usual sequence
//
//	lib, err := share.Open(n, share.Config{})
//	go lib.Run(ctx)                            // serves and keeps announcing
//	s, err := lib.Add(ctx, "talk.mp4", share.AddOptions{})
//	lib.Announce(ctx, s)
//	got, err := lib.Get(ctx, what, share.GetOptions{Dir: "."})
//	lib.Close()
package share

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
	"golang.org/x/sync/errgroup"
)

// Errors that a caller decides by. Each is matched with errors.Is; the structs
// named beside some of them carry values.
var (
	// ErrNotFound: searched, and nobody asked has it. Wait, or ask other peers.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous: one name, several contents (*AmbiguousError). Ask the person.
	ErrAmbiguous = errors.New("ambiguous name")
	// ErrChanged: what was chosen for a name is contradicted now (*AmbiguousError).
	ErrChanged = errors.New("not what was chosen before")
	// ErrCorrupt: what came does not match its ID, or is not what it says it
	// is (*CorruptError). Blame the peer; nothing of it was kept.
	ErrCorrupt = errors.New("integrity failure")
	// ErrUnreachable: somebody announced it, and nobody who did can be reached.
	ErrUnreachable = errors.New("no provider can be reached")
	// ErrModified: a file changed while it was hashed or since.
	ErrModified = errors.New("file was modified")
	// ErrRefused: this peer or the other one declined.
	ErrRefused = errors.New("refused")
	// ErrExists: the target holds something else, and Force was not given.
	ErrExists = errors.New("target exists with other content")
	// ErrNoSpace: the disk or the quota is full.
	ErrNoSpace = errors.New("no space left")
	// ErrNotShared: the local library has nothing by that name, ID or path.
	ErrNotShared = errors.New("not shared from here")
	// ErrNotShareable: a path that can't be shared: a device, socket, FIFO, or
	// the home itself.
	ErrNotShareable = errors.New("can't be shared")
)

// AmbiguousError tells which contents claim a name. It matches ErrAmbiguous.
type AmbiguousError struct {
	Name       Name
	Candidates []Candidate // at least two, what is trusted more first
	// Conflict says how a tier above contradicts what was chosen for the name before;
	// empty when nothing was. Then it matches ErrChanged, too.
	Conflict string
	Partial  bool // more peers claim to have the name than were asked
}

func (e *AmbiguousError) Error() string {
	s := fmt.Sprintf("%q is %d different contents", Escape(string(e.Name)), len(e.Candidates))
	if e.Conflict != "" {
		s += ": " + e.Conflict
	}
	if e.Partial {
		s += " (partial: not all were asked)"
	}
	return s
}

func (e *AmbiguousError) Is(target error) bool {
	return target == ErrAmbiguous || target == ErrChanged && e.Conflict != ""
}

// CorruptError says who sent what does not verify. It matches ErrCorrupt.
type CorruptError struct {
	ID     content.ID // zero when the fault is in no one content
	Peer   peer.ID    // empty when the fault is not one peer's
	Mirror string     // the URL of the mirror whose fault it is, or empty
	Reason string     // as "chunk group 7 does not match", without names from outside

	modified bool // the peer has said itself that its file has changed
}

func (e *CorruptError) Error() string {
	what := e.Reason
	if e.Peer != "" {
		what = fmt.Sprintf("from %s: %s", e.Peer, what)
	}
	if e.Mirror != "" {
		what = fmt.Sprintf("from mirror %s: %s", Escape(e.Mirror), what)
	}
	if !e.ID.IsZero() {
		what = fmt.Sprintf("%s %s", e.ID, what)
	}
	return what
}

func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Kind is what a content is.
type Kind string

const (
	KindFile Kind = "file"
	KindDir  Kind = "dir" // the content is the directory's listing; see listing.go
)

// Scope says who may learn of a share. The zero value is public.
type Scope struct {
	LANOnly  bool    `json:"lan_only,omitempty"` // announced and served on private and loopback addresses only
	Unlisted bool    `json:"unlisted,omitempty"` // got by exact name or ID, never listed or searched
	To       peer.ID `json:"to,omitempty"`       // served to this identity only; empty: anybody
}

// State is how a share stands against the disk.
type State string

const (
	StateShared   State = "shared"   // as it was hashed
	StateModified State = "modified" // changed since: not served until added again
	StateMissing  State = "missing"  // gone from its path: not served
)

// Share is one file or directory that this peer shares in place.
type Share struct {
	Name  Name       `json:"name"`
	ID    content.ID `json:"id"`
	Kind  Kind       `json:"kind"`
	Size  int64      `json:"size"`  // bytes; of a directory: of all its files
	Files int64      `json:"files"` // 1 for a file
	Path  string     `json:"path"`  // absolute
	State State      `json:"state"`
	Scope Scope      `json:"scope"`
	Added time.Time  `json:"added"`
	// Mirrors are the URLs that this peer's manifest of it names.
	Mirrors []string `json:"mirrors,omitempty"`
	// Note is what this peer's manifest says of it, as ParseNote returns it.
	Note string `json:"note,omitempty"`
	// Attrs is the document of a directory's times and modes, as a content; zero:
	// none is known.
	Attrs content.ID `json:"attrs,omitzero"`
	// Watched: it follows what becomes of Path, while Run runs; see Library.Watch.
	Watched bool `json:"watched,omitempty"`
}

// Phase is what a long operation is doing.
type Phase string

const (
	PhaseHashing   Phase = "hashing"
	PhaseLocal     Phase = "local" // looking at what is here already
	PhaseGroup     Phase = "group"
	PhaseLAN       Phase = "lan"
	PhaseDHT       Phase = "dht"
	PhaseDialling  Phase = "dialling"
	PhaseFetching  Phase = "fetching"
	PhaseVerifying Phase = "verifying"
	PhaseWriting   Phase = "writing"
)

// Progress is a snapshot of a long operation, given at most ten times a
// second and at each change of phase.
type Progress struct {
	Phase   Phase         `json:"phase"`
	Done    int64         `json:"done"`    // bytes; while searching: peers asked
	Total   int64         `json:"total"`   // bytes; 0 when not known
	Rate    int64         `json:"rate"`    // bytes a second, lately; 0 when not moving bytes
	ETA     time.Duration `json:"-"`       // 0 when not known
	Sources int           `json:"sources"` // peers that take part, or providers found
	// Peers are what the sources gave, most bytes first, peers and this machine.
	Peers []SourceProgress `json:"peers"`
	Files int64            `json:"files"` // of a directory: files done
	Name  string           `json:"name"`  // the file at hand, as on disk or in the listing: escape it before showing
}

// SourceStat is what one source gave to a Get.
type SourceStat struct {
	Peer   peer.ID  `json:"peer,omitempty"`   // empty for a mirror
	Mirror string   `json:"mirror,omitempty"` // its URL; empty for a peer
	Bytes  int64    `json:"bytes"`
	Via    node.Via `json:"via"` // or "local", or "mirror"
}

// ViaLocal marks bytes that were on this machine already.
const ViaLocal node.Via = "local"

// Config configures a Library. The zero value works.
type Config struct {
	// Dir is where the catalog is kept. Empty: the node's home, and a temporary
	// directory, removed by Close, when the node has none.
	Dir string

	// SearchMax bounds one search for a name. 0: 5 s; see find.go for why.
	SearchMax time.Duration

	// UpMax and DownMax limit what of contents goes to other peers and comes from
	// them, in bytes a second, shared fairly among them. 0: no limit; with less than
	// LimitMin others may take this peer for dead. See Library.SetLimits.
	UpMax, DownMax int64

	// NoWatch leaves shares that are watched as they are: for a library that is
	// open for a moment.
	NoWatch bool

	// CacheMax bounds what is kept of what readers have fetched, in bytes; see
	// Library.SetCacheMax.
	CacheMax int64

	// Log receives what an operator would want to know. Nil: silent.
	Log *slog.Logger
}

// Library is what this peer shares, and its means to get what others share.
// Its methods are safe for concurrent use.
type Library struct {
	node     *node.Node
	cfg      Config
	log      *slog.Logger
	dir      string
	tempDir  bool        // dir is ours to remove
	system   localSystem // whose rules the names of what is saved follow
	book     *book       // of trust
	visitor  bool        // serves nothing but what it is getting, while it does
	catalog  *catalog
	home     fileIdentity  // of the node's home, which is never shared
	announce chan shareKey // shares whose announcement was put off; capacity 64

	up, down limiter // of content bytes
	uploads  uploads
	revision atomic.Int64 // counts changes of what is shared

	index        IndexFunc       // may be nil
	searchIndex  SearchIndexFunc // may be nil
	indexed      func() bool
	listingsKept keptListings
	lister       lister
	searches     turns         // of answering searches
	overWords    chan struct{} // capacity 1: there are more words than are announced
	withdrawn    chan struct{} // capacity 1: names were withdrawn
	wordCount    atomic.Int64  // given to the sweep, about
	pairCount    atomic.Int64  // likewise, of pairs of words
	// signing is held from the look at the sequence numbers in use until the
	// next one is recorded, so that they grow whatever runs at once.
	signing sync.Mutex
	// rehashing lets one file be hashed again at a time: a request for it must
	// not cost this machine all its processors.
	rehashing sync.Mutex

	store    *store
	holdRate limiter // of what Hold and Scrub fetch

	watcher   watcher
	cache     *cache // of readers
	counts    counts
	transfers transfers
	asking    lately
	liars     liars

	closeOnce sync.Once
	closeErr  error
}

// Open opens the catalog and registers the protocols' handlers on n, which
// must not run yet. Nothing is served before n runs.
func Open(n *node.Node, cfg Config) (*Library, error) {
	l := &Library{node: n, cfg: cfg, log: cfg.Log, dir: cfg.Dir, system: systemOf(runtime.GOOS)}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.cfg.SearchMax == 0 {
		l.cfg.SearchMax = searchMax
	}
	if l.dir == "" {
		l.dir = n.Dir()
	}
	if l.dir == "" {
		dir, err := os.MkdirTemp("", "p2pshare-")
		if err != nil {
			return nil, err
		}
		l.dir, l.tempDir = dir, true
	}
	var err error
	if l.dir, err = filepath.Abs(l.dir); err != nil {
		return nil, err
	}
	if l.home, err = identifyPath(l.dir); err != nil {
		return nil, err
	}
	if l.catalog, err = openCatalog(filepath.Join(l.dir, "catalog.db")); err != nil {
		return nil, err
	}
	if l.book, err = openBook(l.dir, l.log); err != nil {
		return nil, errors.Join(err, l.catalog.close())
	}
	l.up.slots = true // before its rate is set
	if l.store, err = openStore(l); err != nil {
		return nil, errors.Join(err, l.catalog.close())
	}
	l.SetLimits(cfg.UpMax, cfg.DownMax)
	l.announce = make(chan shareKey, 64)
	l.watcher = newWatcher(l)
	l.lister = newLister()
	l.searches, l.overWords = newTurns(), make(chan struct{}, 1)
	l.withdrawn = make(chan struct{}, 1)
	l.visitor = n.Role() == node.RoleVisitor
	l.transfers.byID = map[content.ID]*transfer{}
	l.asking.byID = map[content.ID][]askedAt{}
	l.liars.byPeer = map[peer.ID]*CorruptError{}
	l.cache = openCache(l, cfg.CacheMax)
	l.serve()
	return l, nil
}

// SetLimits limits what of contents goes to other peers and comes from them, in
// bytes a second; 0: no limit. It counts the bytes of data streams, and not what
// encryption and the network add. Transfers under way follow it at once.
func (l *Library) SetLimits(up, down int64) {
	l.up.setRate(up)
	l.down.setRate(down)
}

// Limits are what SetLimits, or Config, has set, in bytes a second; 0: no limit.
func (l *Library) Limits() (up, down int64) { return l.up.rate.Load(), l.down.rate.Load() }

// Run keeps what is shared announced, and what is watched as its files are, until
// ctx ends, and returns nil then. Readers get nothing more then. Streams are served
// by the node's Run.
func (l *Library) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if l.node.Role() != node.RoleVisitor {
		g.Go(func() error { return l.keepAnnounced(ctx) })
		if !l.cfg.NoWatch {
			g.Go(func() error { return l.watcher.run(ctx) })
		}
	}
	err := g.Wait()
	if l.node.Role() != node.RoleVisitor { // whose Run has nothing to do, and returns at once
		l.cache.close()
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Close releases the catalog. Run must have returned. It may be called twice.
func (l *Library) Close() error {
	l.closeOnce.Do(func() {
		l.cache.close()
		l.closeErr = l.catalog.close()
		if l.tempDir {
			l.closeErr = errors.Join(l.closeErr, os.RemoveAll(l.dir))
		}
	})
	return l.closeErr
}
