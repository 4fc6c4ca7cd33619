package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share/content"
)

// holders is a group whose members hold copies, and a writer that holds none. The
// writer and each member are daemons: in namespaces of their own where there are
// any, else on loopback. There is neither DHT nor LAN.
type holders struct {
	t       testing.TB
	members []*member
	writer  *member
	use     *control.Client // of the writer
	made    int
	sizes   *rand.Rand

	mu   sync.Mutex
	pins map[string]pinnedFile // guarded by mu: by name; what is pinned and to stay so
}

type pinnedFile struct {
	id   content.ID
	size int64
	path string
}

// holdersOptions are those of newHolders.
type holdersOptions struct {
	count    int
	grace    time.Duration
	daemon   []string           // flags of the members' daemons
	create   []string           // flags of create and join
	netns    bool               // where that is possible
	homes    map[int]string     // homes of members that have theirs elsewhere
	capacity func(i int) string // "" is the default
}

func newHolders(t testing.TB, o holdersOptions) *holders {
	t.Helper()
	h := &holders{t: t, sizes: rand.New(rand.NewPCG(1, 2)), pins: map[string]pinnedFile{}}
	var nets []string
	if o.netns {
		nets = newLab(t).lanOf(o.count+1, "198.19."+fmt.Sprint(os.Getpid()%256)+".%d/24")
	}
	flags := func(i int) []string {
		if o.netns {
			return []string{"--no-lan", "--no-dht", "--listen", fmt.Sprintf("/ip4/198.19.%d.%d/tcp/4001", os.Getpid()%256, i+1)}
		}
		return append([]string{"--no-dht"}, loopback...)
	}
	begin := func(i int, extra ...string) *member {
		m := &member{peer: newPeer(t, append(flags(i), extra...)...)}
		if o.homes[i] != "" && i < o.count {
			m.home = o.homes[i]
		}
		if o.netns {
			m.netns = nets[i]
		}
		m.start(t)
		listen, _, _ := strings.Cut(m.daemon.addr(t), "/p2p/")
		m.flags = append([]string{"--listen", listen, "--no-lan", "--no-dht"}, extra...)
		return m
	}
	h.writer = begin(o.count)
	for i := range o.count {
		m := begin(i, o.daemon...)
		join := slices.Clone(o.create)
		if o.capacity != nil && o.capacity(i) != "" {
			join = append(join, "--capacity", o.capacity(i))
		}
		if i == 0 {
			m.group(t, append([]string{"create", "office", "--grace", o.grace.String()}, join...)...)
		} else {
			role := "voter"
			if i >= 5 {
				role = "storage"
			}
			token := h.members[0].group(t, "invite", "--role", role).text("token")
			m.group(t, append([]string{"join", token}, join...)...)
		}
		h.members = append(h.members, m)
	}
	h.writer.group(t, "join", h.members[0].group(t, "invite", "--role", "writer").text("token"), "--no-store")
	voters := min(o.count, 5)
	voters -= 1 - voters%2
	awaitGroup(t, h.members[0], "its voters", func(g event) bool { return int(g.number("voters_up")) == voters })
	var err error
	if h.use, err = control.Connect(t.Context(), h.writer.home); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.use.Close)
	return h
}

// size is one of mixed sizes: most are small.
func (h *holders) size() int64 {
	switch n := h.sizes.IntN(100); {
	case n < 70:
		return 1 + h.sizes.Int64N(16<<10)
	case n < 98:
		return 1 + h.sizes.Int64N(300<<10)
	default:
		return 1 + h.sizes.Int64N(3<<20)
	}
}

// pin writes a file of random bytes at the writer and has it pinned. It is to stay so.
func (h *holders) pin(ctx context.Context, size int64) (string, error) {
	name, p, err := h.pinNew(ctx, size)
	if err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.pins[name] = p
	}
	return name, err
}

func (h *holders) pinNew(ctx context.Context, size int64) (string, pinnedFile, error) {
	h.mu.Lock()
	h.made++
	name := fmt.Sprintf("file-%05d", h.made)
	seed := uint64(h.made)
	h.mu.Unlock()
	path := filepath.Join(h.writer.dir, name)
	data := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	rng.Read(data)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return "", pinnedFile{}, err
	}
	done, err := h.use.Pin(ctx, control.PinRequest{What: path}, func(control.Event) {})
	if err != nil {
		return "", pinnedFile{}, err
	}
	return name, pinnedFile{done.ID, size, path}, nil
}

func (h *holders) unpin(ctx context.Context, name string) error {
	h.mu.Lock()
	p := h.pins[name]
	delete(h.pins, name)
	h.mu.Unlock()
	_, err := h.use.Unpin(ctx, control.PinRequest{What: name})
	os.Remove(p.path)
	return err
}

// pinMany pins count files, some at a time.
func (h *holders) pinMany(count int, size func() int64) {
	h.t.Helper()
	work := make(chan int64)
	var pinning sync.WaitGroup
	for range 8 {
		pinning.Go(func() {
			for s := range work {
				if _, err := h.pin(h.t.Context(), s); err != nil {
					h.t.Errorf("pin: %v", err)
				}
			}
		})
	}
	for range count {
		work <- size()
	}
	close(work)
	pinning.Wait()
}

// standing is how all pins are, as the group tells.
type standing struct {
	ok, all int
	least   int // verified copies of the pin that has the fewest
	worst   control.PinLine
	lines   map[content.ID]control.PinLine
}

// look lists the pins of the test by the writer's daemon.
func (h *holders) look() (s standing, err error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	h.mu.Lock()
	mine := map[content.ID]bool{}
	for _, p := range h.pins {
		mine[p.id] = true
	}
	h.mu.Unlock()
	s.least, s.lines = 1<<30, map[content.ID]control.PinLine{}
	for p, err := range h.use.Pins(ctx, url.Values{"fresh": {"true"}}) {
		if err != nil {
			return s, err
		}
		s.lines[p.ID] = p
		if !mine[p.ID] {
			continue
		}
		if s.all++; p.Health == "ok" {
			s.ok++
		} else {
			s.worst = p
		}
		s.least = min(s.least, len(p.Copies))
	}
	return s, nil
}

// await looks until all pins are as they should be, and returns how long that took.
// The least is that of all looks.
func (h *holders) await(what string, atMost time.Duration, done func(standing) bool) (took time.Duration, least int) {
	h.t.Helper()
	start := time.Now()
	least = 1 << 30
	var last standing
	var failed error
	for time.Since(start) < atMost {
		s, err := h.look()
		if failed = err; err == nil {
			last, least = s, min(least, s.least)
			if done(s) {
				return time.Since(start), least
			}
		}
		select {
		case <-time.After(200 * time.Millisecond): // nothing tells
		case <-h.t.Context().Done():
			h.t.Fatal(h.t.Context().Err())
		}
	}
	h.t.Fatalf("waited %s in vain until %s: %d of %d are ok, as %+v (%v)%s", atMost, what, last.ok, last.all, last.worst, failed, h.logs())
	return 0, 0
}

func (h *holders) logs() (text string) {
	for i, m := range h.members {
		log := m.daemon.stderr.String()
		text += fmt.Sprintf("\nmember %d %s:\n%s", i, m.id, log[max(0, len(log)-2000):])
	}
	return text
}

func allOK(s standing) bool { return s.ok == s.all }

// checkStores compares what the group says with what is on the members' disks, and
// checks that there is nothing more. Members that are down are left out.
func (h *holders) checkStores(copies int) {
	h.t.Helper()
	s, err := h.look()
	if err != nil {
		h.t.Fatal(err)
	}
	onDisk := map[content.ID]int{}
	for _, m := range h.members {
		for name, path := range storedFiles(h.t, m) {
			data, err := os.ReadFile(path)
			if err != nil {
				h.t.Fatal(err)
			}
			id := idOf(data)
			if id.Hex() != name {
				h.t.Errorf("%s has %s at %s", m.id, id, path)
			}
			onDisk[id]++
			says := slices.ContainsFunc(s.lines[id].Copies, func(c control.PinCopy) bool { return string(c.Peer) == m.id })
			if !says {
				h.t.Errorf("%s has a copy of %s that the group does not count: %+v", m.id, id.Short(), s.lines[id])
			}
		}
	}
	for id, p := range s.lines {
		if onDisk[id] != copies {
			h.t.Errorf("%s has %d copies on disks, want %d; the group says %d", p.Name, onDisk[id], copies, len(p.Copies))
		}
	}
}

// idOf is the content ID of data.
func idOf(data []byte) content.ID {
	if len(data) <= content.GroupSize {
		return content.Root(data)
	}
	o := content.NewOutboard(int64(len(data)))
	for i := range o.Groups() {
		at := i * content.GroupSize
		o.SetGroup(i, data[at:min(int64(len(data)), at+content.GroupSize)])
	}
	return o.ID()
}

// storedFiles are the whole files in a member's store, by name.
func storedFiles(t testing.TB, m *member) map[string]string {
	t.Helper()
	files := map[string]string{}
	root := filepath.Join(m.home, "store")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == "new" {
				return fs.SkipDir
			}
			return err
		}
		files[d.Name()] = path
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return files
}

// storeBytes is what a member's store takes of the disk, with what is unfinished.
func storeBytes(m *member) (n int64) {
	filepath.WalkDir(filepath.Join(m.home, "store"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// leader is the member that leads.
func (h *holders) leader() *member {
	h.t.Helper()
	id := awaitGroup(h.t, h.writer, "a leader", func(g event) bool { return g.text("leader") != "" }).text("leader")
	for _, m := range h.members {
		if m.id == id {
			return m
		}
	}
	h.t.Fatalf("%s leads, and is no member of the test", id)
	return nil
}

// churn pins and unpins until stop is called, which returns how often.
func (h *holders) churn() (stop func() (pins, unpins int)) {
	ctx, cancel := context.WithCancel(h.t.Context())
	var pins, unpins int
	var working sync.WaitGroup
	working.Go(func() {
		var mine []string
		rng := rand.New(rand.NewPCG(7, 7))
		for ctx.Err() == nil {
			if len(mine) > 20 || len(mine) > 0 && rng.IntN(3) == 0 {
				i := rng.IntN(len(mine))
				if h.unpin(ctx, mine[i]) == nil {
					unpins++
				}
				mine = slices.Delete(mine, i, i+1)
				continue
			}
			short, done := context.WithTimeout(ctx, 10*time.Second)
			name, _, err := h.pinNew(short, 1+rng.Int64N(50<<10))
			done()
			if err == nil {
				pins++
				mine = append(mine, name)
			}
			select {
			case <-time.After(50 * time.Millisecond): // a client, not a flood
			case <-ctx.Done():
			}
		}
	})
	return func() (int, int) {
		cancel()
		working.Wait()
		return pins, unpins
	}
}

// awaitStores waits until the disks have no more than what the group counts: a copy
// is dropped after the group has stopped to count it.
func (h *holders) awaitStores(copies int) {
	h.t.Helper()
	h.await("dropped copies have left the disks", 30*time.Second, func(s standing) bool {
		n := 0
		for _, m := range h.members {
			n += len(storedFiles(h.t, m))
		}
		return n == copies*len(s.lines)
	})
}

// besideOthers has a test run at the same time as others that mostly wait, for grace
// times and scrubs; but alone as it is judged.
func besideOthers(t *testing.T) {
	if !*long {
		t.Parallel()
	}
}
