package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// GetOptions are the options of one Get. The zero value saves in the working
// directory under the content's name.
type GetOptions struct {
	// Dir is the absolute directory to save in; empty: the working directory.
	Dir string
	// Target is the absolute path to save as, and wins over Dir. When it is a
	// directory that exists, the content is saved inside it under its name.
	Target string
	// Output, if set, gets a file's bytes in order, instead of a file.
	Output io.Writer
	// Force replaces a file that holds something else.
	Force bool
	// SeedFrom are absolute directories whose files may hold what is wanted: what
	// is found there, under whatever name, is copied and not fetched.
	SeedFrom []string
	// From believes only manifests signed by this peer; empty: anybody's.
	From peer.ID
	// Path takes one file or subdirectory of the directory asked for.
	Path Path
	// Include takes only what one of these patterns matches of a directory, which is
	// then not shared on; see CheckIncludes. Empty: all.
	Include []string
	// Peers are asked first. One without an ID is learnt; see node.Node.Learn.
	Peers []peer.AddrInfo
	// Mirrors are URLs of the raw file, at most MirrorsMax, which are asked
	// whatever addresses they have. They are for a file, not for a directory.
	Mirrors []string
	// AnyMirrors asks those mirrors, too, that only strangers name.
	AnyMirrors bool
	// Any has strangers answer for a name when a group or a publisher can't be asked
	// that should know.
	Any bool
	// Strict refuses a name that only strangers vouch for.
	Strict bool
	// AcceptChange takes what a group or a publisher of the trust book says now of a
	// name for which something else was chosen before.
	AcceptChange bool
	// Pick takes, of the contents that a name may mean, this one; zero: only one may
	// be meant.
	Pick content.ID
	// NoServe does not share what was got. A visitor never does.
	NoServe bool
	// Progress, if set, is called from one goroutine at a time.
	Progress func(Progress)
	// Resolved, if set, is called once it is known which content is meant.
	Resolved func(Name, content.ID)
	// Note, if set, gets lines a person should see, safe for a terminal.
	Note func(string)
	// Tried, if set, gets every source that was tried, before Get returns.
	Tried func(Tried)
}

// Got tells what a Get has brought.
type Got struct {
	Name         Name
	ID           content.ID
	Kind         Kind
	Path         string // absolute; empty when it was written to Output
	Size         int64  // bytes; of a directory: of all its files
	Files        int64  // 1 for a file
	BytesFetched int64  // from other peers
	Took         time.Duration
	Already      bool         // the same bytes were there: nothing was written
	Sources      []SourceStat // most bytes first
	Corrupt      []peer.ID    // peers not asked, or not any more, because of what they sent, in this get or an earlier one

	CorruptMirrors []string // URLs of mirrors dropped because of what they sent
}

// tickEvery is how often progress is reported while nothing moves.
const tickEvery = 500 * time.Millisecond

// Get finds what w means, fetches it from whoever has it, verifies every chunk
// group, and saves it. It never picks one of several contents (ErrAmbiguous),
// and replaces nothing without Force (ErrExists). When it ends early, by an
// error or by ctx, what was fetched stays in a partial file beside the target,
// and the next Get goes on from there.
//
// Other errors: ErrNotFound, ErrUnreachable, ErrCorrupt, ErrRefused,
// ErrNoSpace, and the system's for a target that can't be written.
func (l *Library) Get(ctx context.Context, w What, o GetOptions) (Got, error) {
	start := time.Now()
	whole := ctx
	ctx, cancel := context.WithCancel(ctx)
	m := newMeter(o.Progress, PhaseLocal)
	m.notes = o.Note
	g := &getting{library: l, options: o, what: w, meter: m, crowd: l.newCrowd(m), seeds: newSeeds(o.SeedFrom)}
	if o.Tried != nil {
		g.trail = newTrail()
		g.crowd.trail = g.trail
	}
	var ticking sync.WaitGroup
	ticking.Go(func() { tickUntil(ctx, m) })
	got, err := g.run(ctx)
	g.stopServing()
	if err == nil {
		g.tellDissent(ctx)
	}
	cancel()
	g.finding.end()
	g.crowd.close()
	g.seeds.close()
	if err != nil && whole.Err() != nil {
		err = whole.Err() // whatever failed, failed because of it
	}
	if errors.Is(err, ErrCorrupt) && got.Name != "" {
		err = fmt.Errorf("%s: %w", Escape(string(got.Name)), err)
	}
	ticking.Wait()
	m.flush()

	if err == nil {
		l.counts.done.Add(1)
	} else {
		l.counts.failed.Add(1)
	}
	got.Took = time.Since(start)
	got.Sources, got.Corrupt, got.CorruptMirrors = g.crowd.report()
	for _, p := range g.liars {
		if !slices.Contains(got.Corrupt, p) {
			got.Corrupt = append(got.Corrupt, p)
		}
	}
	for _, s := range got.Sources {
		if s.Via != ViaLocal {
			got.BytesFetched += s.Bytes
		}
	}
	g.tellTried(got.Sources)
	return got, err
}

func tickUntil(ctx context.Context, m *meter) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			m.tick()
		}
	}
}

// getting is one Get at work.
type getting struct {
	library *Library
	options GetOptions
	what    What
	holding bool // for the store, and not for the user
	meter   *meter
	crowd   *crowd
	seeds   *seeds
	liars   []peer.ID               // who answered the search with what must not be believed
	mirrors map[content.ID][]string // that may be asked, as manifests name them
	trail   *trail                  // of what is tried; nil: nobody asked for it
	finding *finding                // of the name; nil before it was searched for
	decided *Choice                 // the entry of the trust book that said what is meant, or nil

	mu      sync.Mutex
	serving []*transfer // guarded by mu: complete, and served until the end
}

func (g *getting) run(ctx context.Context) (Got, error) {
	if err := g.seeds.open(); err != nil {
		return Got{}, err
	}
	if err := checkMirrors(KindFile, g.options.Mirrors); err != nil {
		return Got{}, err
	}
	c, err := g.resolve(ctx)
	if err != nil {
		return Got{}, err
	}
	got, err := g.fetchMeant(ctx, c)
	if err == nil {
		g.remember(c)
	}
	return got, err
}

// fetchMeant gets the content that is meant.
func (g *getting) fetchMeant(ctx context.Context, c Candidate) (Got, error) {
	if err := g.keepScope(c); err != nil {
		return Got{}, err
	}
	if g.options.Path == "" {
		if err := checkMirrors(c.Kind, g.options.Mirrors); err != nil {
			return Got{}, err
		}
	}
	if g.options.Resolved != nil {
		g.options.Resolved(c.Name, c.ID)
	}
	guessed := g.what.Kind == "" && g.what.Name == "" // only strangers say what it is
	if c.Kind != KindDir {
		if g.options.Path != "" {
			return Got{}, fmt.Errorf("%s is a file, and has no %q in it: %w", Escape(g.what.String()), Escape(string(g.options.Path)), ErrNotFound)
		}
		if len(g.options.Include) > 0 {
			return Got{}, fmt.Errorf("%s is a file, and patterns choose in a directory: %w", Escape(g.what.String()), ErrNotFound)
		}
		return g.file(ctx, c)
	}
	got, err := g.dir(ctx, c)
	if errors.Is(err, ErrBadListing) {
		if guessed {
			c.Kind = KindFile // whoever said it was a directory lied
			return g.file(ctx, c)
		}
		// Its ID is right: the fault is of whoever signed that it is a directory.
		err = &CorruptError{ID: c.ID, Peer: c.envelope.Sender, Reason: err.Error()}
	}
	return got, err
}

// keepScope sees to it that what this peer shares with some only does not become
// everybody's by being got, alone or as a part of somebody's directory.
func (g *getting) keepScope(c Candidate) error {
	if !g.serves() {
		return nil
	}
	_, shares, err := g.library.catalog.files(c.ID)
	if err != nil {
		return err
	}
	if len(shares) > 0 && !slices.ContainsFunc(shares, ownShares(true)) {
		g.options.NoServe = true
		g.note("it is shared from here already, not with everybody: this copy is not shared")
		return nil
	}
	g.crowd.leaveOutScoped()
	return nil
}

func (g *getting) note(format string, args ...any) {
	if g.options.Note != nil {
		g.meter.exclusive(func() { g.options.Note(fmt.Sprintf(format, args...)) })
	}
}

// resolveID asks what an ID is, unless that was told: its name and whether it
// is a directory, from this library or from the first source that knows.
func (g *getting) resolveID(ctx context.Context) (Candidate, error) {
	c := Candidate{ID: g.what.ID, Name: g.what.Name, Kind: g.what.Kind, Size: -1}
	records, err := g.library.catalog.byID(c.ID, 1)
	if err != nil {
		return c, err
	}
	for _, r := range records {
		g.adopt(&c, r.Share.Name, r.Kind, r.Envelope)
	}
	if len(records) == 0 {
		if h, ok, err := g.library.Held(c.ID); err != nil {
			return c, err
		} else if ok && !h.Damaged { // all of it is here
			if c.Kind == "" {
				c.Kind = h.Kind
			}
			return c, nil
		}
		g.meter.begin(PhaseLAN, 0)
	}
	g.crowd.listen(ctx, c.ID)
	peers := append(append([]peer.AddrInfo{}, g.options.Peers...), g.what.Peers...)
	for _, p := range peers {
		g.crowd.offer(ctx, p)
	}
	if len(records) > 0 {
		return c, nil
	}
	if len(peers) == 0 {
		g.meter.begin(PhaseDHT, 0)
		g.crowd.search(ctx, c.ID)
	}
	return c, g.askKind(ctx, &c)
}

// adopt fills in what c does not know yet.
func (g *getting) adopt(c *Candidate, name Name, kind Kind, e *node.Envelope) {
	if c.Kind == "" {
		c.Kind = kind
	}
	if e != nil && (c.Name == "" || c.Name.Lookup() == name.Lookup()) {
		c.envelope = *e
	}
	if c.Name == "" {
		c.Name = name
	}
}

// askKind asks sources for a manifest of c, one after the other as they come,
// until one has it. That none has is no fault: then c is a file without a name, or
// a directory, when one says so who holds it for others.
func (g *getting) askKind(ctx context.Context, c *Candidate) error {
	asked := map[peer.ID]bool{}
	for {
		live, more, change := g.crowd.members()
		held := Kind("")
		for _, s := range live {
			if s.via() == ViaLocal || s.via() == ViaMirror || asked[s.peer()] {
				continue
			}
			asked[s.peer()] = true
			known, kind := g.askKindOf(ctx, c, s)
			if known {
				return nil
			}
			if kind == KindDir || kind == KindFile && held == "" {
				held = kind
			}
		}
		if held != "" {
			c.Kind = held
			return nil
		}
		if !more || len(asked) >= probeParallel {
			return ctx.Err()
		}
		g.meter.phase(PhaseDialling)
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *getting) askKindOf(ctx context.Context, c *Candidate, s source) (known bool, held Kind) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	end, err := g.library.askMeta(ctx, peer.AddrInfo{ID: s.peer()}, metaRequest{Op: opID, ID: c.ID.String()},
		func(m Manifest, e node.Envelope, _ node.Via) error {
			if m.ID != c.ID {
				return &CorruptError{ID: c.ID, Reason: "it answers with a manifest of another content"}
			}
			g.hear(m)
			if !known || m.Name.Lookup() == g.what.Name.Lookup() {
				g.adopt(c, m.Name, m.Kind, &e)
				known = true
			}
			return nil
		})
	var bad *CorruptError
	if errors.As(err, &bad) {
		g.crowd.drop(s, bad)
	}
	return known, end.Kind
}

// place says where to save: the directory, opened, and the name in it.
func (g *getting) place(name Name, id content.ID) (root *os.Root, base, target string, err error) {
	if name == "" {
		name = Name(id.Hex())
	}
	spelled := name
	if g.what.ID.IsZero() && g.options.Path == "" && Escape(string(name)) != string(name) {
		name = g.what.Name // as the person typed it: what its publisher hides in it is not kept
	}
	base, renamed := g.library.system.name(name)
	renamed = renamed || name != spelled
	if g.what.Name == "" && strings.HasPrefix(base, ".") {
		// Strangers name it: nobody asked for a .profile.
		base, renamed = "_"+base[1:], true
	}
	dir := g.options.Dir
	if t := g.options.Target; t != "" {
		dir = t
		if info, err := os.Stat(t); err != nil || !info.IsDir() {
			dir, base, renamed = filepath.Dir(t), filepath.Base(t), false
		}
	}
	if dir == "" {
		dir = "."
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, "", "", err
	}
	if renamed {
		g.note("%s is called %s here", Escape(string(spelled)), Escape(base))
	}
	root, err = os.OpenRoot(dir)
	if err != nil {
		return nil, "", "", fmt.Errorf("save in %s: %w", Escape(dir), err)
	}
	if inside, err := insideHome(dir, g.library.home.sameFile); err == nil && inside {
		root.Close()
		return nil, "", "", fmt.Errorf("%s: nothing is saved in a home of p2pshare: %w", Escape(dir), ErrRefused)
	}
	return root, base, filepath.Join(dir, base), nil
}

// file gets a file.
func (g *getting) file(ctx context.Context, c Candidate) (got Got, err error) {
	got = Got{Name: c.Name, ID: c.ID, Kind: KindFile, Files: 1}
	if err := g.offerMirrors(ctx, c.ID); err != nil {
		return got, err
	}
	if g.options.Output == nil {
		device, err := openDevice(g.options.Target)
		if err != nil {
			return got, err
		}
		if device != nil {
			defer device.Close()
			g.options.Output = device
		}
	}
	if g.options.Output != nil {
		f := &fetch{crowd: g.crowd, meter: g.meter, id: c.ID, size: -1, sink: &ordered{out: g.options.Output}, window: orderedWindow}
		if keepsNothing(g.options.Output) {
			f.sink, f.window = nowhere{}, 0
		}
		got.Size, err = f.run(ctx)
		return got, err
	}
	root, base, target, err := g.place(c.Name, c.ID)
	if err != nil {
		return got, err
	}
	defer root.Close()
	got.Path = target
	s := &saving{getting: g, root: root, name: base, id: c.ID, size: -1, meter: g.meter, sync: true, replace: g.options.Force, path: Path(base), hint: c.Size}
	err = s.run(ctx)
	defer func() { err = errors.Join(err, s.settle()) }()
	if err != nil {
		return got, err
	}
	got.Size, got.Already = s.size, s.already
	if c.Size >= 0 && c.Name != "" && c.Size != s.size {
		g.note("the manifest says %d bytes, and the content has %d", c.Size, s.size)
	}
	if g.serves() {
		share := Share{Name: c.Name, ID: c.ID, Kind: KindFile, Size: s.size, Files: 1, Path: target}
		return got, g.keep(c, share, 0, []hashedFile{s.hashed(target)})
	}
	return got, nil
}

// openDevice opens a target that is no place for a file, but takes bytes: a
// device or a FIFO. For any other it returns nil.
func openDevice(target string) (*os.File, error) {
	if target == "" {
		return nil, nil
	}
	info, err := os.Stat(target)
	if err != nil || info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe) == 0 {
		return nil, nil
	}
	return os.OpenFile(target, os.O_WRONLY, 0)
}

// joinLocal joins a directory's absolute path and a local path below it.
func joinLocal(dir, local string) string {
	return filepath.Join(dir, filepath.FromSlash(path.Clean(local)))
}
