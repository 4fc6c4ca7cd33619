package share

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// manifestOf opens the manifest of what is shared from path.
func manifestOf(t *testing.T, l *Library, path string) Manifest {
	t.Helper()
	m, err := OpenManifest(*sharedAt(t, l, path).Envelope, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAddNamesMirrors(t *testing.T) {
	l := openLibrary(t, Config{})
	dir := t.TempDir()
	path := writeFile(t, dir, "a.txt", "a")
	urls := []string{"https://example.org/a.txt", "http://[2001:db8::1]/a.txt?b&c"}
	s := addTo(t, l, path, AddOptions{Mirrors: urls})
	if m := manifestOf(t, l, path); !slices.Equal(m.Mirrors, urls) || !slices.Equal(s.Mirrors, urls) {
		t.Errorf("the manifest names %q and the share %q, want %q", m.Mirrors, s.Mirrors, urls)
	}
	// Signed again, long after, it still does.
	r := sharedAt(t, l, path)
	if err := l.signShare(&r, 0); err != nil {
		t.Fatal(err)
	}
	if m, err := OpenManifest(*r.Envelope, time.Now()); err != nil || !slices.Equal(m.Mirrors, urls) {
		t.Errorf("signed again the manifest names %q, %v", m.Mirrors, err)
	}
	// Added again, it says what is said now.
	addTo(t, l, path, AddOptions{})
	if m := manifestOf(t, l, path); m.Mirrors != nil {
		t.Errorf("added without mirrors the manifest names %q", m.Mirrors)
	}
	for what, o := range map[string]AddOptions{
		"no URL":    {Mirrors: []string{"a.txt"}},
		"too many":  {Mirrors: slices.Repeat(urls[:1], MirrorsMax+1)},
		"directory": {Mirrors: urls},
	} {
		target := path
		if what == "directory" {
			target = dir
		}
		if _, err := l.Add(t.Context(), target, o); !errors.Is(err, ErrBadMirror) {
			t.Errorf("%s: Add = %v, want ErrBadMirror", what, err)
		}
	}
}

// A manifest's mirrors are asked when its publisher is this peer or one that
// the person named, and with AnyMirrors: here they are at loopback, so that
// who is asked is not reached, and said to be.
func TestGetAsksMirrorsOfNamedPublishersOnly(t *testing.T) {
	data := randomBytes(3*content.GroupSize, "published")
	s, conns := countedServer(t, honestMirror(data))
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	film := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{Mirrors: []string{s.URL + "/film.mkv"}})
	peers := []peer.AddrInfo{sharer.AddrInfo()}
	const refused, stranger = "its address is not a public one", "mirrors that a stranger names are not asked"
	for _, tt := range []struct {
		what    string
		options GetOptions
		note    string
	}{
		{"film.mkv", GetOptions{}, stranger},
		{film.ID.String(), GetOptions{}, stranger},
		{sharer.lib.Link(film).String(), GetOptions{}, stranger},
		{"film.mkv", GetOptions{From: sharer.ID()}, refused},
		{sharer.ID().String() + "/film.mkv", GetOptions{}, refused},
		{film.ID.String(), GetOptions{From: sharer.ID()}, refused},
		{"film.mkv", GetOptions{AnyMirrors: true}, refused},
		{film.ID.String(), GetOptions{AnyMirrors: true}, refused},
	} {
		getter, stop := startPeer(t, node.Config{NoDHT: true})
		var notes []string
		tt.options.Peers, tt.options.NoServe = peers, true
		tt.options.Dir = t.TempDir()
		// A mirror is told of when it has been tried, which no get waits for:
		// this one writes nothing before.
		held := make(chan struct{})
		release := sync.OnceFunc(func() { close(held) })
		tt.options.Note = func(line string) {
			if notes = append(notes, line); strings.Contains(line, tt.note) {
				release()
			}
		}
		tt.options.Output = writerFunc(func(p []byte) (int, error) { <-held; return len(p), nil })
		timer := time.AfterFunc(10*time.Second, release)
		got, err := getter.get(t, tt.what, tt.options)
		timer.Stop()
		if err != nil || got.BytesFetched != int64(len(data)) || len(got.CorruptMirrors) != 0 {
			t.Errorf("%s %+v: Get = %+v, %v", tt.what, tt.options, got, err)
		}
		if all := strings.Join(notes, "\n"); !strings.Contains(all, tt.note) || strings.Contains(all, stranger) && strings.Contains(all, refused) {
			t.Errorf("%s from %q, any %v: notes %q, want one that says %q", tt.what, tt.options.From, tt.options.AnyMirrors, notes, tt.note)
		}
		stop()
	}
	if n := conns.Load(); n != 0 {
		t.Errorf("the mirror had %d connections", n)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// What a person names is asked wherever it is, and what it gives is told; a
// liar among them spoils nothing.
func TestGetFromMirrorsThatAPersonNames(t *testing.T) {
	data := randomBytes(2000, "named")
	id, _ := nameContent(t, data)
	good, _ := countedServer(t, honestMirror(data))
	wrong := slices.Clone(data)
	wrong[7] ^= 1
	bad, _ := countedServer(t, honestMirror(wrong))
	getter, _ := startPeer(t, node.Config{NoDHT: true})

	// The liar alone.
	got, err := getter.get(t, id.String(), GetOptions{Mirrors: []string{bad.URL}})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), bad.URL) || !cmp.Equal(got.CorruptMirrors, []string{bad.URL}) {
		t.Errorf("Get from the liar = %+v, %v, want ErrCorrupt that names it", got, err)
	}
	mustHoldOnlyTrueBytes(t, getter.dir, data)

	// Both: the honest one answers when the liar was found out.
	caught := make(chan struct{})
	late, _ := countedServer(t, func(w http.ResponseWriter, r *http.Request) {
		<-caught
		honestMirror(data)(w, r)
	})
	got, err = getter.get(t, id.String(), GetOptions{Mirrors: []string{bad.URL, late.URL}, Note: func(line string) {
		if strings.Contains(line, bad.URL) {
			close(caught)
		}
	}})
	want := []SourceStat{{Mirror: late.URL, Bytes: 2000, Via: ViaMirror}}
	if err != nil || !cmp.Equal(got.CorruptMirrors, []string{bad.URL}) || !cmp.Equal(got.Sources, want) || got.BytesFetched != 2000 {
		t.Errorf("Get = %+v, %v, want all from %s", got, err, late.URL)
	}
	mustBe(t, filepath.Join(getter.dir, id.Hex()), data)

	for what, o := range map[string]GetOptions{
		"no URL":   {Mirrors: []string{"x"}},
		"too many": {Mirrors: slices.Repeat([]string{good.URL}, MirrorsMax+1)},
	} {
		if _, err := getter.get(t, id.String(), o); !errors.Is(err, ErrBadMirror) {
			t.Errorf("%s: Get = %v, want ErrBadMirror", what, err)
		}
	}
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	tree := sharer.add(t, sharer.makeTree(t, "tree", 3), AddOptions{})
	if _, err := getter.get(t, sharer.lib.Link(tree).String(), GetOptions{Mirrors: []string{good.URL}}); !errors.Is(err, ErrBadMirror) {
		t.Errorf("Get of a directory with a mirror = %v, want ErrBadMirror", err)
	}
}

// A get that ends does not wait for a mirror that is silent.
func TestGetDoesNotWaitForASilentMirror(t *testing.T) {
	data := randomBytes(100, "silent")
	id, _ := nameContent(t, data)
	asked := make(chan struct{})
	s, _ := countedServer(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	start := time.Now()
	if _, err := getter.lib.Get(ctx, What{ID: id}, GetOptions{Dir: getter.dir, Mirrors: []string{s.URL}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Get = %v, want that it was cancelled", err)
	}
	if took := time.Since(start); took > dialMax/2 {
		t.Errorf("it took %v to end", took)
	}
}
