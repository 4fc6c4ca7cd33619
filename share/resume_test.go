package share

import (
	"bytes"
	"context"
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

// gate is a peer that serves one content, stops before the answer to its span
// number after, and goes on when it is passed.
type gate struct {
	*node.Node
	id      content.ID
	reached chan struct{} // closed when it stops
	open    chan struct{} // closed by pass
}

// openGate never stops.
const openGate = 1 << 30

func startGate(t *testing.T, data []byte, after int) *gate {
	t.Helper()
	g := &gate{reached: make(chan struct{}), open: make(chan struct{})}
	var mu sync.Mutex
	spans := 0
	l := newDataLiar(t, data, inSpans(func(*dataLiar, uint32, dataRequest) []byte {
		mu.Lock()
		spans++
		n := spans
		mu.Unlock()
		if n == after {
			close(g.reached)
		}
		if n >= after {
			<-g.open
		}
		return nil
	}))
	g.id = l.id
	g.Node = startRaw(t, nil, handlers{dataProtocol: l.serve})
	t.Cleanup(g.pass)
	return g
}

func (g *gate) pass() {
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// wait returns when the gate has stopped, and get with it.
func (g *gate) wait(t *testing.T, get <-chan running) {
	t.Helper()
	select {
	case <-g.reached:
	case r := <-get:
		t.Fatalf("Get has ended before the gate was reached: %+v, %v", r.got, r.err)
	}
}

// film is the gate's content, under the name film.mp4.
func (g *gate) film() What {
	return What{ID: g.id, Name: "film.mp4", Kind: KindFile, Peers: []peer.AddrInfo{g.AddrInfo()}}
}

// running is what a Get beside the test comes to.
type running struct {
	got Got
	err error
}

func (p *testPeer) start(ctx context.Context, w What, o GetOptions) <-chan running {
	if o.Dir == "" && o.Target == "" {
		o.Dir = p.dir
	}
	o.NoServe = true
	c := make(chan running, 1)
	go func() {
		got, err := p.lib.Get(ctx, w, o)
		c <- running{got, err}
	}()
	return c
}

func TestGetGoesOnWhereItWasBrokenOff(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	data := randomBytes(8<<20+7, "resume")
	g := startGate(t, data, 4)
	ctx, cancel := context.WithCancel(t.Context())
	get := getter.start(ctx, g.film(), GetOptions{})
	g.wait(t, get)
	cancel()
	first := <-get
	if !errors.Is(first.err, context.Canceled) {
		t.Fatalf("Get = %v, want it cancelled", first.err)
	}
	info, err := os.Lstat(filepath.Join(getter.dir, ".film.mp4.p2p-part"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the partial file has mode %v, want 0600", info.Mode())
	}
	mustHoldOnlyTrueBytes(t, getter.dir, data)
	if first.got.BytesFetched == 0 || first.got.BytesFetched >= int64(len(data)) {
		t.Errorf("the first Get fetched %d bytes of %d", first.got.BytesFetched, len(data))
	}

	g.pass()
	second := <-getter.start(t.Context(), g.film(), GetOptions{})
	if second.err != nil {
		t.Fatal(second.err)
	}
	if sum := first.got.BytesFetched + second.got.BytesFetched; sum != int64(len(data)) {
		t.Errorf("fetched %d + %d bytes, want %d in all", first.got.BytesFetched, second.got.BytesFetched, len(data))
	}
	mustBe(t, filepath.Join(getter.dir, "film.mp4"), data)
	if left := partials(t, getter.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestGetFetchesOnlyWhatAPartialFileLacks(t *testing.T) {
	const groups = 12
	data := randomBytes((groups-1)*content.GroupSize+5, "partial")
	damage := func(groups ...int) []byte {
		b := bytes.Clone(data)
		for _, i := range groups {
			b[i*content.GroupSize] ^= 1
		}
		return b
	}
	getter, _ := startPeer(t, node.Config{})
	g := startGate(t, data, openGate)
	for name, test := range map[string]struct {
		part []byte
		want int
	}{
		"whole":                {data, 0},
		"two damaged groups":   {damage(3, 7), 2 * content.GroupSize},
		"first damaged":        {damage(0), content.GroupSize},
		"last damaged":         {damage(groups - 1), 5},
		"half":                 {data[:len(data)/2], len(data) - len(data)/2/content.GroupSize*content.GroupSize},
		"longer than it":       {append(bytes.Clone(data), "and more"...), 0},
		"of another content":   {randomBytes(len(data), "another"), len(data)},
		"zeros":                {make([]byte, len(data)), len(data)},
		"one byte":             {data[:1], len(data)},
		"groups that moved up": {data[1:], len(data)},
	} {
		t.Run(name, func(t *testing.T) {
			getter.dir = t.TempDir()
			getter.write(t, ".film.mp4.p2p-part", test.part)
			got := <-getter.start(t.Context(), g.film(), GetOptions{})
			if got.err != nil || got.got.BytesFetched != int64(test.want) {
				t.Errorf("Get fetched %d bytes, %v, want %d", got.got.BytesFetched, got.err, test.want)
			}
			mustBe(t, filepath.Join(getter.dir, "film.mp4"), data)
			if left := partials(t, getter.dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// partialPlants are what somebody may have put where a partial file goes.
var partialPlants = map[string]func(dir, part string) error{
	"link to a file beside it": func(_, part string) error { return os.Symlink("victim", part) },
	"link to a file outside":   func(dir, part string) error { return os.Symlink(filepath.Join(dir, "../outside"), part) },
	"link to nothing":          func(_, part string) error { return os.Symlink("new", part) },
	"directory":                func(_, part string) error { return os.Mkdir(part, 0o755) },
	"FIFO":                     func(_, part string) error { return makeFIFO(part) },
}

func TestGetRefusesAPlantedPartialFile(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	g := startGate(t, randomBytes(1<<20, "plant"), openGate)
	for name, plant := range partialPlants {
		t.Run(name, func(t *testing.T) {
			getter.dir = filepath.Join(t.TempDir(), "target")
			getter.write(t, "victim", []byte("precious"))
			getter.write(t, "../outside", []byte("precious"))
			part := filepath.Join(getter.dir, ".film.mp4.p2p-part")
			if err := plant(getter.dir, part); errors.Is(err, errors.ErrUnsupported) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(part)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for _, force := range []bool{false, true} {
				if got := <-getter.start(ctx, g.film(), GetOptions{Force: force}); !errors.Is(got.err, ErrRefused) {
					t.Errorf("Get = %v, want ErrRefused", got.err)
				}
			}
			mustBe(t, filepath.Join(getter.dir, "victim"), []byte("precious"))
			mustBe(t, filepath.Join(getter.dir, "../outside"), []byte("precious"))
			after, err := os.Lstat(part)
			if err != nil || after.Mode() != before.Mode() {
				t.Errorf("what was planted is now %v, %v", after, err)
			}
			for _, made := range []string{"new", "film.mp4"} {
				if _, err := os.Lstat(filepath.Join(getter.dir, made)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s was made", made)
				}
			}
		})
	}
}

// A crash between the two steps of a rename that replaces nothing leaves the
// target and the partial file as two names of one file.
func TestGetDoesNotWriteIntoTheTargetThroughItsPartialFile(t *testing.T) {
	getter, _ := startPeer(t, node.Config{})
	data, old := randomBytes(1<<20, "new"), randomBytes(1<<20, "old")
	g := startGate(t, data, openGate)
	target := getter.write(t, "film.mp4", old)
	backup := filepath.Join(getter.dir, "backup")
	if err := errors.Join(os.Link(target, backup), os.Link(target, filepath.Join(getter.dir, ".film.mp4.p2p-part"))); err != nil {
		t.Skipf("no links here: %v", err)
	}
	if got := <-getter.start(t.Context(), g.film(), GetOptions{Force: true}); got.err != nil {
		t.Fatal(got.err)
	}
	mustBe(t, target, data)
	mustBe(t, backup, old)
	if left := partials(t, getter.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
