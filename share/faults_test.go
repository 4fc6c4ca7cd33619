package share

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// What goes wrong without anybody's malice: peers that are gone, files that
// change, gets that are broken off, targets that are in the way.

func TestGetSaysWhyNobodyAnswers(t *testing.T) {
	t.Parallel() // it mostly waits
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	// Connected before, so that no back-off of an earlier dial is in the way.
	if err := getter.Connect(t.Context(), sharer.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	nobody := content.Root([]byte("nobody has this"))
	alone, _ := startPeer(t, node.Config{})

	// Records outlive the peer that made them.
	dead, stopDead := startPeer(t, node.Config{Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	if !dead.WaitDHT(t.Context()) {
		t.Fatal("a peer did not enter the DHT")
	}
	gone := dead.add(t, dead.write(t, "gone.bin", randomBytes(1000, "gone")), AddOptions{})
	goneLink := dead.lib.Link(gone).String()
	stopDead()

	for _, test := range []struct {
		peer *testPeer
		what string
		want error
		max  time.Duration
	}{
		{getter, "nobody has this", ErrNotFound, 5 * time.Second},
		{getter, nobody.String(), ErrNotFound, 5 * time.Second},
		{getter, Link{ID: nobody, Peers: []peer.AddrInfo{sharer.AddrInfo()}}.String(), ErrNotFound, 5 * time.Second},
		{getter, "gone.bin", ErrUnreachable, 10 * time.Second},
		{getter, gone.ID.String(), ErrUnreachable, 10 * time.Second},
		{getter, goneLink, ErrUnreachable, 10 * time.Second},
		{alone, "gone.bin", ErrNotFound, 2 * time.Second},
		{alone, gone.ID.String(), ErrNotFound, 2 * time.Second},
		{alone, goneLink, ErrUnreachable, 10 * time.Second},
	} {
		start := time.Now()
		_, err := test.peer.get(t, test.what, GetOptions{})
		if !errors.Is(err, test.want) {
			t.Errorf("Get(%s) = %v, want %v", test.what, err, test.want)
		}
		if took := time.Since(start); took > test.max {
			t.Errorf("Get(%s) took %s, want at most %s", test.what, took, test.max)
		}
		if left := readTree(t, test.peer.dir); left["."] != "/" {
			t.Errorf("Get(%s) left %d files behind", test.what, len(left))
		}
	}
}

// changes are what can happen to a shared file between add and get. Each leaves
// something that must not be served as what was shared.
var changes = map[string]func(path string, data []byte) error{
	"edited": func(path string, data []byte) error { return os.WriteFile(path, flipped(data, 300_000), 0o644) },
	"edited, and the time set back": func(path string, data []byte) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(path, flipped(data, 5), 0o644), os.Chtimes(path, info.ModTime(), info.ModTime()))
	},
	"truncated": func(path string, data []byte) error { return os.Truncate(path, int64(len(data)-1)) },
	"emptied":   func(path string, _ []byte) error { return os.Truncate(path, 0) },
	"grown":     func(path string, data []byte) error { return os.WriteFile(path, append(bytes.Clone(data), 1), 0o644) },
	"replaced": func(path string, data []byte) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(path+".new", flipped(data, 7), 0o644),
			os.Chtimes(path+".new", info.ModTime(), info.ModTime()), os.Rename(path+".new", path))
	},
	"deleted": func(path string, _ []byte) error { return os.Remove(path) },
	"swapped for a link": func(path string, data []byte) error {
		return errors.Join(os.WriteFile(path+".other", flipped(data, 0), 0o644), os.Remove(path), os.Symlink(path+".other", path))
	},
	"swapped for a link to nothing": func(path string, _ []byte) error {
		return errors.Join(os.Remove(path), os.Symlink("nothing", path))
	},
	"swapped for a directory": func(path string, _ []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o755)) },
	"swapped for a FIFO":      func(path string, _ []byte) error { return errors.Join(os.Remove(path), makeFIFO(path)) },
}

func flipped(data []byte, at int) []byte {
	b := bytes.Clone(data)
	b[at] ^= 1
	return b
}

func TestGetOfAChangedFileBringsNoWrongByte(t *testing.T) {
	net := startNetwork(t, 2)
	sharer := net[1]
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			getter := net[2].fresh(t)
			data := randomBytes(700_000, name)
			path := sharer.write(t, name, data)
			s := sharer.add(t, path, AddOptions{})
			if err := change(path, data); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			for _, what := range []string{s.ID.String(), name, sharer.lib.Link(s).String()} {
				getter.dir = t.TempDir()
				got, err := getter.get(t, what, GetOptions{NoServe: true})
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound) {
					t.Errorf("Get(%s) = %+v, %v, want ErrCorrupt or ErrNotFound", what, got, err)
				}
				mustHoldOnlyTrueBytes(t, getter.dir, data)
			}

			// The same bytes again, at another time: it is the same content.
			if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, data, 0o600)); err != nil {
				t.Fatal(err)
			}
			for i, what := range []string{name, s.ID.String(), name} {
				later := time.Now().Add(time.Duration(i+1) * time.Hour)
				if err := os.Chtimes(path, later, later); err != nil {
					t.Fatal(err)
				}
				getter.dir = t.TempDir()
				if _, err := getter.get(t, what, GetOptions{NoServe: true}); err != nil {
					t.Fatalf("Get(%s) of the restored file: %v", what, err)
				}
				mustBe(t, filepath.Join(getter.dir, name), data)
			}
		})
	}
}

func TestGetWhileTheFileChangesBringsNoWrongByte(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			data := randomBytes(8<<20, name)
			path := sharer.write(t, name, data)
			s := sharer.add(t, path, AddOptions{})
			var once sync.Once
			var changeErr error
			getter.dir = t.TempDir()
			got, err := getter.get(t, s.ID.String(), GetOptions{NoServe: true, Peers: []peer.AddrInfo{sharer.AddrInfo()},
				Progress: func(p Progress) {
					if p.Phase == PhaseFetching { // size and outboard are here
						once.Do(func() { changeErr = change(path, data) })
					}
				}})
			if errors.Is(changeErr, errors.ErrUnsupported) {
				t.Skip(changeErr)
			} else if changeErr != nil {
				t.Fatal(changeErr)
			}
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("Get = %+v, %v, want ErrCorrupt", got, err)
			}
			mustHoldOnlyTrueBytes(t, getter.dir, data)
		})
	}
}

func TestTwoGetsOfOneThingFetchItOnce(t *testing.T) {
	net := startNetwork(t, 3)
	sharer, a, b := net[1], net[2], net[3]
	data := randomBytes(4<<20+1, "twice")
	s := sharer.add(t, sharer.write(t, "film.mp4", data), AddOptions{})
	root := sharer.makeTree(t, "album", 30)
	sharer.add(t, root, AddOptions{})
	for name, second := range map[string]*testPeer{"one peer": a, "two peers": b} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			both := func(name Name) (got [2]Got) {
				gets := [2]<-chan running{}
				for i, p := range []*testPeer{a, second} {
					gets[i] = p.start(t.Context(), What{Name: name}, GetOptions{Dir: dir})
				}
				for i, get := range gets {
					r := <-get
					if r.err != nil {
						t.Fatal(r.err)
					}
					got[i] = r.got
				}
				return got
			}
			got := both("film.mp4")
			if sum := got[0].BytesFetched + got[1].BytesFetched; sum != s.Size || got[0].Already == got[1].Already {
				t.Errorf("fetched %d bytes of %d, Already is %t and %t", sum, s.Size, got[0].Already, got[1].Already)
			}
			mustBe(t, filepath.Join(dir, "film.mp4"), data)

			both("album")
			want, tree := readTree(t, root), readTree(t, filepath.Join(dir, "album"))
			if len(tree) != len(want) {
				t.Errorf("the directory has %d entries, want %d", len(tree), len(want))
			}
			if left := partials(t, dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestGetReplacesNothingUnasked(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	data := randomBytes(1<<20, "wanted")
	g := startGate(t, data, openGate)
	target := getter.write(t, "film.mp4", []byte("mine"))
	get := func(o GetOptions) running { return <-getter.start(t.Context(), g.film(), o) }

	if got := get(GetOptions{}); !errors.Is(got.err, ErrExists) || got.got.BytesFetched > 0 {
		t.Errorf("Get over another file = %+v, %v, want ErrExists", got.got, got.err)
	}
	mustBe(t, target, []byte("mine"))
	if left := partials(t, getter.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if got := get(GetOptions{Force: true}); got.err != nil {
		t.Errorf("Get with Force: %v", got.err)
	}
	mustBe(t, target, data)
	if got := get(GetOptions{}); got.err != nil || !got.got.Already || got.got.BytesFetched != 0 {
		t.Errorf("Get of what is there = %+v, %v, want Already", got.got, got.err)
	}
	if got := get(GetOptions{Target: filepath.Join(getter.dir, "no/such/directory/f")}); !errors.Is(got.err, fs.ErrNotExist) {
		t.Errorf("Get into no directory = %v, want fs.ErrNotExist", got.err)
	}
	if err := errors.Join(os.Remove(target), os.Mkdir(target, 0o755)); err != nil {
		t.Fatal(err)
	}
	if got := get(GetOptions{Force: true}); !errors.Is(got.err, ErrExists) {
		t.Errorf("Get over a directory = %v, want ErrExists", got.err)
	}
}

func TestGetKeepsWhatAppearsMeanwhile(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	data := randomBytes(4<<20, "meanwhile")
	for name, test := range map[string]struct {
		appears []byte
		force   bool
		want    error
		left    int // partial files
	}{
		"another file":             {[]byte("mine"), false, ErrExists, 1},
		"another file, with Force": {[]byte("mine"), true, nil, 0},
		"the same file":            {data, false, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			getter.dir = t.TempDir()
			g := startGate(t, data, 3)
			get := getter.start(t.Context(), g.film(), GetOptions{Force: test.force})
			g.wait(t, get)
			target := getter.write(t, "film.mp4", test.appears)
			g.pass()
			if got := <-get; !errors.Is(got.err, test.want) {
				t.Errorf("Get = %v, want %v", got.err, test.want)
			}
			want := test.appears
			if test.force {
				want = data
			}
			mustBe(t, target, want)
			left := partials(t, getter.dir)
			if len(left) != test.left {
				t.Errorf("partial files: %v, want %d", left, test.left)
			}
			for _, part := range left {
				if info, err := os.Stat(part); err != nil || info.Mode() != 0o600 {
					t.Errorf("the partial file is %v, %v, want mode 0600", info, err)
				}
			}
		})
	}
}

func TestGetToAnOutputWritesInOrder(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	data := randomBytes(8<<20+3, "stream")
	// Neither source answers for data before the other is asked for some, but
	// for the group that proves the size.
	var both sync.WaitGroup
	both.Add(2)
	var sources []peer.AddrInfo
	for range 2 {
		asked := sync.OnceFunc(both.Done)
		l := newDataLiar(t, data, inSpans(func(l *dataLiar, _ uint32, q dataRequest) []byte {
			if q.first+q.count < content.GroupCount(int64(len(l.data))) {
				asked()
				both.Wait()
			}
			return nil
		}))
		sources = append(sources, startRaw(t, nil, handlers{dataProtocol: l.serve}).AddrInfo())
	}
	id, _ := nameContent(t, data)
	w := What{ID: id, Kind: KindFile, Peers: sources}
	var out bytes.Buffer
	got, err := getter.lib.Get(t.Context(), w, GetOptions{Output: &out})
	if err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Fatalf("Get wrote %d bytes, %v, want the %d of the content", out.Len(), err, len(data))
	}
	if len(got.Sources) != 2 || got.Path != "" || got.Size != int64(len(data)) {
		t.Errorf("Get = %+v, want two sources and no path", got)
	}

	broken := &brokenWriter{left: 1 << 20}
	if _, err := getter.lib.Get(t.Context(), w, GetOptions{Output: broken}); !errors.Is(err, errBroken) {
		t.Errorf("Get into a broken pipe = %v, want %v", err, errBroken)
	}
	if !bytes.Equal(broken.took, data[:1<<20]) {
		t.Errorf("before it broke %d bytes were written that are not the content's first", len(broken.took))
	}
}

var errBroken = errors.New("broken pipe")

// brokenWriter takes some bytes and then fails.
type brokenWriter struct {
	left int
	took []byte
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	w.took = append(w.took, p[:n]...)
	if n < len(p) {
		return n, errBroken
	}
	return n, nil
}

// This peer's own copy is a source like others, but what happens to it is no
// lie: it is not held any more.
func TestOwnCopyThatChangesIsNotHeld(t *testing.T) {
	p, _ := startPeer(t, node.Config{})
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			data := randomBytes(2*content.GroupSize, name)
			path := p.write(t, name, data)
			s := p.add(t, path, AddOptions{})
			took := 0
			err := local{library: p.lib}.span(t.Context(), s.ID, s.Size, content.Span{Count: 2}, func(index int64, got []byte) error {
				if took++; index > 0 || !bytes.Equal(got, data[:content.GroupSize]) {
					t.Errorf("group %d came, %d bytes", index, len(got))
				}
				return change(path, data)
			})
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			}
			if !errors.Is(err, errNotHeld) || took != 1 {
				t.Errorf("span = %v after %d groups, want %v after one", err, took, errNotHeld)
			}
		})
	}
}
