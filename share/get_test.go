package share

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// metaSaying answers every meta request with the given lines.
func metaSaying(lines ...[]byte) func(context.Context, network.Stream) error {
	return func(_ context.Context, s network.Stream) error {
		in := newLineReader(s)
		for {
			if _, err := readLine(in); err != nil {
				return err
			}
			if _, err := s.Write(bytes.Join(lines, nil)); err != nil {
				return err
			}
		}
	}
}

func line(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestGetRefusesEveryLieAboutNames(t *testing.T) {
	net := startNetwork(t, 2)
	honest, getter := net[1], net[2]
	boot := []peer.AddrInfo{net[0].AddrInfo()}
	end := line(t, metaAnswer{End: true})
	data := randomBytes(1000, "talk")

	for _, test := range []struct {
		name string
		// twist changes a manifest before it is signed, and what is said of it.
		twist func(m *Manifest) func(answer []byte) []byte
	}{
		{"manifest of another name", func(m *Manifest) func([]byte) []byte { m.Name = "other.txt"; return nil }},
		{"expired", func(m *Manifest) func([]byte) []byte {
			m.Issued, m.Expires = m.Issued.AddDate(-1, 0, 0), m.Expires.AddDate(-1, 0, 0)
			return nil
		}},
		{"sequence number from the future", func(m *Manifest) func([]byte) []byte { m.Seq += 1 << 40; return nil }},
		{"another publisher's", func(m *Manifest) func([]byte) []byte { m.Publisher = honest.ID(); return nil }},
		{"bad signature", func(*Manifest) func([]byte) []byte {
			return func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"signature":"`), []byte(`"signature":"AAAA`), 1)
			}
		}},
		{"a key twice", func(*Manifest) func([]byte) []byte {
			return func(b []byte) []byte {
				return bytes.Replace(b, []byte(`{"manifest"`), []byte(`{"manifest":null,"manifest"`), 1)
			}
		}},
		{"no JSON", func(*Manifest) func([]byte) []byte { return func([]byte) []byte { return []byte("<html>\n") } }},
		{"a line without end", func(*Manifest) func([]byte) []byte {
			return func([]byte) []byte { return bytes.Repeat([]byte("x"), 1<<20) }
		}},
		{"an answer without end", func(*Manifest) func([]byte) []byte {
			return func(b []byte) []byte { return bytes.Repeat(b, 1000) }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := strings.ReplaceAll(test.name, " ", "-") + ".txt"
			var lines [][]byte
			liar := startRaw(t, boot, handlers{
				metaProtocol: func(ctx context.Context, s network.Stream) error { return metaSaying(lines...)(ctx, s) },
			})
			m := newManifest(Share{Name: Name(name), ID: content.Root(data), Kind: KindFile, Size: 1000}, liar.ID(), 0, time.Now())
			said := test.twist(&m)
			e, err := m.sign(liar.Key())
			if err != nil {
				t.Fatal(err)
			}
			answer := line(t, metaAnswer{Manifest: e.Encode()})
			if said != nil {
				answer = said(answer)
			}
			lines = [][]byte{answer, end}
			if _, err := liar.Provide(t.Context(), Name(name).Key(), node.ReachAll); err != nil {
				t.Fatal(err)
			}
			_, err = getter.get(t, name, GetOptions{})
			wantCorrupt(t, err, liar.ID())

			honest.add(t, honest.write(t, name, data), AddOptions{})
			if _, err := getter.get(t, name, GetOptions{}); err != nil {
				t.Fatalf("Get with an honest peer: %v", err)
			}
			mustBe(t, filepath.Join(getter.dir, name), data)
		})
	}
}

func TestGetWritesNothingOutsideItsTarget(t *testing.T) {
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	file := content.Root([]byte("x"))
	entry := func(path string) string {
		return fmt.Sprintf(`{"path":%q,"kind":"file","id":"%s","size":1}`+"\n", path, file)
	}
	for name, listing := range map[string]string{
		"dot-dot":            entry("../../etc/passwd"),
		"dot-dot inside":     entry("a/../../x"),
		"absolute":           entry("/etc/passwd"),
		"backslash":          `{"path":"..\\x","kind":"file","id":"` + file.String() + `","size":1}` + "\n",
		"escape":             `{"path":"\u001b[2J","kind":"file","id":"` + file.String() + `","size":1}` + "\n",
		"unsorted":           entry("b") + entry("a"),
		"twice":              entry("a") + entry("a"),
		"file and directory": entry("a") + entry("a/b"),
		"spaces":             strings.Replace(entry("a"), ",", ", ", 1),
		"no listing at all":  "just text\n",
		"cut short":          strings.TrimSuffix(entry("a"), "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			liar := newDataLiar(t, []byte(listing), func(*dataLiar, uint32, dataRequest) []byte { return nil })
			n := startRaw(t, nil, handlers{dataProtocol: liar.serve})
			outer := t.TempDir()
			dir := filepath.Join(outer, "in", "here")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			link := Link{ID: liar.id, Name: "album", Kind: KindDir, Peers: []peer.AddrInfo{n.AddrInfo()}}.String()
			if _, err := getter.get(t, link, GetOptions{Dir: dir}); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Get = %v, want ErrCorrupt", err)
			}
			if tree := readTree(t, outer); len(tree) != 1 || tree["in/here"] != "/" {
				t.Errorf("Get left %v", tree)
			}
		})
	}
}

func TestGetFollowsNoLinkInItsTarget(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	sharer.write(t, "album/sub/a.txt", []byte("new"))
	s := sharer.add(t, filepath.Join(sharer.dir, "album"), AddOptions{})
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "a.txt"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(getter.dir, "album"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(getter.dir, "album", "sub")); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if _, err := getter.get(t, sharer.lib.Link(s).String(), GetOptions{Force: true}); err == nil {
		t.Error("Get wrote through a symbolic link that leads out of its target")
	}
	mustBe(t, filepath.Join(outside, "a.txt"), []byte("old"))
	if left, _ := os.ReadDir(outside); len(left) != 1 {
		t.Errorf("outside the target there is %v", left)
	}
}

func TestNameOfTwoContentsIsNeverPicked(t *testing.T) {
	net := startNetwork(t, 3)
	ann, bob, getter := net[1], net[2], net[3]
	first := ann.add(t, ann.write(t, "report.pdf", []byte("ann's")), AddOptions{})
	bob.add(t, bob.write(t, "Report.PDF", []byte("bob's")), AddOptions{})
	_, err := getter.get(t, "report.pdf", GetOptions{})
	var ambiguous *AmbiguousError
	if !errors.As(err, &ambiguous) || len(ambiguous.Candidates) != 2 {
		t.Fatalf("Get = %v, want ErrAmbiguous with two candidates", err)
	}
	if left := readTree(t, getter.dir); len(left) != 1 || left["."] != "/" {
		t.Errorf("Get left %v", left)
	}
	for name, test := range map[string]struct {
		what string
		o    GetOptions
	}{
		"by prefix":    {"report.pdf#" + first.ID.Short(), GetOptions{}},
		"by publisher": {ann.ID().String() + "/report.pdf", GetOptions{}},
		"by From":      {"report.pdf", GetOptions{From: ann.ID()}},
	} {
		test.o.Dir = t.TempDir()
		if got, err := getter.get(t, test.what, test.o); err != nil || got.ID != first.ID {
			t.Errorf("Get %s = %v, %v, want ann's", name, got.ID, err)
		}
	}
	if _, err := getter.get(t, "report.pdf#00000000", GetOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get by another prefix = %v, want ErrNotFound", err)
	}
	if _, err := getter.get(t, "report.pdf#"+first.ID.Short(), GetOptions{Strict: true, Dir: t.TempDir()}); !errors.Is(err, ErrRefused) {
		t.Errorf("Strict Get = %v, want ErrRefused", err)
	}
}

func TestClaimThatCantBeHadDoesNotCount(t *testing.T) {
	net := startNetwork(t, 2)
	ann, getter := net[1], net[2]
	s := ann.add(t, ann.write(t, "report.pdf", []byte("ann's")), AddOptions{})
	var answer []byte
	liar := startRaw(t, []peer.AddrInfo{net[0].AddrInfo()}, handlers{
		metaProtocol: func(ctx context.Context, s network.Stream) error {
			return metaSaying(answer, line(t, metaAnswer{End: true}))(ctx, s)
		},
	})
	e, err := newManifest(Share{Name: "report.pdf", ID: content.ID{1}, Kind: KindFile, Size: 5}, liar.ID(), 0, time.Now()).sign(liar.Key())
	if err != nil {
		t.Fatal(err)
	}
	answer = line(t, metaAnswer{Manifest: e.Encode()})
	if _, err := liar.Provide(t.Context(), Name("report.pdf").Key(), node.ReachAll); err != nil {
		t.Fatal(err)
	}
	var notes []string
	got, err := getter.get(t, "report.pdf", GetOptions{Note: func(s string) { notes = append(notes, s) }})
	if err != nil || got.ID != s.ID {
		t.Fatalf("Get = %v, %v, want ann's", got.ID, err)
	}
	if !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "can't be had") }) {
		t.Errorf("notes %q don't tell of the other claim", notes)
	}
}

func TestGetTellsWhyThereIsNothing(t *testing.T) {
	net := startNetwork(t, 1)
	getter := net[1]
	ann, stop := startPeer(t, node.Config{Bootstrap: []peer.AddrInfo{net[0].AddrInfo()}})
	if !ann.WaitDHT(t.Context()) {
		t.Fatal("ann did not enter the DHT")
	}
	ann.add(t, ann.write(t, "gone.txt", []byte("x")), AddOptions{})
	if _, err := getter.get(t, "gone.txt", GetOptions{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	stop()
	start := time.Now()
	if _, err := getter.get(t, "gone.txt", GetOptions{Dir: t.TempDir()}); !errors.Is(err, ErrUnreachable) && err != nil {
		t.Errorf("Get from a dead provider = %v, want ErrUnreachable", err)
	}
	if _, err := getter.get(t, "never-was.txt", GetOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of what nobody has = %v, want ErrNotFound", err)
	}
	if _, err := getter.get(t, "b3:"+strings.Repeat("ab", 32), GetOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of an ID nobody has = %v, want ErrNotFound", err)
	}
	if _, err := getter.get(t, "@office/report.pdf", GetOptions{}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `no group called "office"`) {
		t.Errorf("Get from a group = %v", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("four vain searches took %s", took)
	}
	alone, _ := startPeer(t, node.Config{})
	if _, err := alone.get(t, "x", GetOptions{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get with no network = %v, want ErrNotFound", err)
	}
}

func TestChangedFileBringsNoWrongByte(t *testing.T) {
	const size = 3*content.GroupSize + 5
	old, edited := randomBytes(size, "old"), randomBytes(size, "edited")
	for name, change := range map[string]func(path string) error{
		"edited in place": func(p string) error { return os.WriteFile(p, edited, 0o644) },
		"truncated":       func(p string) error { return os.Truncate(p, 100) },
		"grown":           func(p string) error { return os.Truncate(p, size+1) },
		"deleted":         os.Remove,
		"another in its place": func(p string) error {
			return errors.Join(os.WriteFile(p+".new", edited, 0o644), os.Rename(p+".new", p))
		},
		"edited, its time put back": func(p string) error {
			info, err := os.Stat(p)
			return errors.Join(err, os.WriteFile(p, edited, 0o644), os.Chtimes(p, info.ModTime(), info.ModTime()))
		},
		"a link to a secret": func(p string) error {
			secret := p + ".secret"
			return errors.Join(os.WriteFile(secret, edited, 0o600), os.Remove(p), os.Symlink(secret, p))
		},
	} {
		t.Run(name, func(t *testing.T) {
			sharer, _ := startPeer(t, node.Config{NoDHT: true})
			getter, _ := startPeer(t, node.Config{NoDHT: true})
			path := sharer.write(t, "film.mkv", old)
			link := sharer.lib.Link(sharer.add(t, path, AddOptions{})).String()
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			_, err := getter.get(t, link, GetOptions{})
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound) {
				t.Errorf("Get = %v, want ErrCorrupt or ErrNotFound", err)
			}
			if _, err := os.Lstat(filepath.Join(getter.dir, "film.mkv")); err == nil {
				t.Error("a file was saved")
			}
			// The same bytes again, whatever their inode and times: shared again.
			os.Remove(path)
			if err := os.WriteFile(path, old, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := getter.get(t, link, GetOptions{}); err != nil {
				t.Errorf("Get once the bytes are back: %v", err)
			}
		})
	}
}

// cancelAt returns options that cancel a Get when that many bytes have come.
func cancelAt(bytes int64, cancel func()) GetOptions {
	return GetOptions{NoServe: true, Progress: func(p Progress) {
		if p.Phase == PhaseFetching && p.Done >= bytes {
			cancel()
		}
	}}
}

func TestCancelledGetGoesOnWhereItWas(t *testing.T) {
	const size = 64 << 20
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(size, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	w, err := ParseWhat(sharer.lib.Link(s).String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := cancelAt(1<<20, cancel)
	o.Dir = getter.dir
	first, err := getter.lib.Get(ctx, w, o)
	if err == nil {
		t.Skip("it was over before it could be cancelled")
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled Get = %v, want context.Canceled", err)
	}
	part := filepath.Join(getter.dir, ".film.mkv.p2p-part")
	if info, err := os.Stat(part); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("partial file: %v, %v, want mode 0600", info, err)
	}
	// Damage the first group of what is there: it, and only it, comes again.
	f, err := os.OpenFile(part, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 1000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	second, err := getter.get(t, sharer.lib.Link(s).String(), GetOptions{NoServe: true})
	if err != nil {
		t.Fatal(err)
	}
	mustBe(t, second.Path, data)
	if again := first.BytesFetched + second.BytesFetched - size; again > 8<<20 || again < 0 {
		t.Errorf("%d bytes and then %d came, of %d", first.BytesFetched, second.BytesFetched, size)
	}
	if left := partials(t, getter.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestTwoGetsOfOneThingMakeOneFile(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	one, _ := startPeer(t, node.Config{NoDHT: true})
	two, _ := startPeer(t, node.Config{NoDHT: true})
	dir := t.TempDir()
	data := randomBytes(16<<20, "film")
	file := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	tree := sharer.add(t, sharer.makeTree(t, "album", 50), AddOptions{})
	for _, s := range []Share{file, tree} {
		link := sharer.lib.Link(s).String()
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i, p := range []*testPeer{one, one, two, two} {
			wg.Go(func() { _, errs[i] = p.get(t, link, GetOptions{Dir: dir}) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Errorf("four Gets of %s at once: %v", s.Name, err)
		}
	}
	mustBe(t, filepath.Join(dir, "film.mkv"), data)
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("the directory holds %v, want the file and the directory", entries)
	}
}

func TestGetReplacesNothingUnasked(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	s := sharer.add(t, sharer.write(t, "a.txt", []byte("new")), AddOptions{})
	link := sharer.lib.Link(s).String()
	mine := getter.write(t, "a.txt", []byte("mine"))
	if _, err := getter.get(t, link, GetOptions{}); !errors.Is(err, ErrExists) {
		t.Errorf("Get = %v, want ErrExists", err)
	}
	mustBe(t, mine, []byte("mine"))
	if _, err := getter.get(t, link, GetOptions{Force: true}); err != nil {
		t.Errorf("Get with Force: %v", err)
	}
	mustBe(t, mine, []byte("new"))
	if got, err := getter.get(t, link, GetOptions{}); err != nil || !got.Already {
		t.Errorf("Get of what is there = %+v, %v, want Already", got, err)
	}

	// Something that comes to the target while the content is on its way stays.
	big := sharer.add(t, sharer.write(t, "big.bin", randomBytes(8<<20, "big")), AddOptions{})
	target := filepath.Join(getter.dir, "big.bin")
	var once sync.Once
	_, err := getter.get(t, sharer.lib.Link(big).String(), GetOptions{NoServe: true, Progress: func(p Progress) {
		if p.Phase == PhaseFetching {
			once.Do(func() { os.WriteFile(target, []byte("mine"), 0o644) })
		}
	}})
	if !errors.Is(err, ErrExists) {
		t.Errorf("Get = %v, want ErrExists", err)
	}
	mustBe(t, target, []byte("mine"))

	for name, plant := range map[string]func(path string) error{
		"link": func(p string) error { return os.Symlink(mine, p) },
		"dir":  func(p string) error { return os.Mkdir(p, 0o755) },
	} {
		getter.dir = t.TempDir()
		if err := plant(filepath.Join(getter.dir, ".a.txt.p2p-part")); err != nil {
			t.Fatal(err)
		}
		if _, err := getter.get(t, link, GetOptions{NoServe: true}); err == nil && name == "dir" {
			t.Error("Get went through a directory in the place of its partial file")
		}
		mustBe(t, mine, []byte("new"))
	}
}

func TestFullDiskKeepsWhatHasCome(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a small file system of its own needs root")
	}
	small := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small).CombinedOutput(); err != nil {
		t.Skipf("mounting is not allowed here: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", small).Run() })
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(6<<20, "film")
	link := sharer.lib.Link(sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})).String()

	ballast := filepath.Join(small, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := getter.get(t, link, GetOptions{Dir: small, NoServe: true}); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("Get onto a disk too full = %v, want ErrNoSpace", err)
	}
	// The disk fills up in the middle: what has come stays.
	os.Truncate(ballast, 0)
	var once sync.Once
	_, err := getter.get(t, link, GetOptions{Dir: small, NoServe: true, Progress: func(p Progress) {
		if p.Phase == PhaseFetching {
			once.Do(func() { os.WriteFile(ballast, make([]byte, 4<<20), 0o644) })
		}
	}})
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("Get while the disk fills up = %v, want ErrNoSpace", err)
	}
	if len(partials(t, small)) == 0 {
		t.Error("no partial file is left")
	}
	os.Remove(ballast)
	if _, err := getter.get(t, link, GetOptions{Dir: small, NoServe: true}); err != nil {
		t.Fatalf("Get after there is room again: %v", err)
	}
	mustBe(t, filepath.Join(small, "film.mkv"), data)
}

func TestGetStreamsInOrderFromSeveralSources(t *testing.T) {
	net := startNetwork(t, 3)
	data := randomBytes(20<<20+3, "film")
	for _, p := range net[1:3] {
		p.add(t, p.write(t, "film.mkv", data), AddOptions{})
	}
	var out bytes.Buffer
	got, err := net[3].get(t, "film.mkv", GetOptions{Output: &out})
	if err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("Get streamed %d bytes, %v, want the %d shared", out.Len(), err, len(data))
	}
	if len(got.Sources) != 2 {
		t.Errorf("sources %v, want both sharers", got.Sources)
	}
	broken := errors.New("broken pipe")
	if _, err := net[3].get(t, "film.mkv", GetOptions{Output: failAfter(1<<20, broken)}); !errors.Is(err, broken) {
		t.Errorf("Get into a broken pipe = %v", err)
	}
}

type limitedWriter struct {
	left int
	err  error
}

func failAfter(n int, err error) io.Writer { return &limitedWriter{n, err} }

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, w.err
	}
	return len(p), nil
}

func TestServerSurvivesHostileGetters(t *testing.T) {
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	honest, _ := startPeer(t, node.Config{NoDHT: true})
	data := randomBytes(5*content.GroupSize, "film")
	s := sharer.add(t, sharer.write(t, "film.mkv", data), AddOptions{})
	one := sharer.add(t, sharer.write(t, "one.txt", []byte("one group")), AddOptions{})
	hostile, _ := startPeer(t, node.Config{NoDHT: true})
	if err := hostile.Connect(t.Context(), sharer.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	open := func() network.Stream {
		st, err := hostile.Open(t.Context(), sharer.ID(), dataProtocol, node.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	send := func(b []byte) {
		st := open()
		defer st.Reset()
		st.SetDeadline(time.Now().Add(5 * time.Second))
		st.Write(b)
		st.CloseWrite()
		io.Copy(io.Discard, st) // until the server has had enough
	}
	span := func(id content.ID, first, count int64) []byte {
		return dataRequest{kind: frameSpan, id: id, first: first, count: count}.append(nil, 7)
	}
	send(randomBytes(10_000, "noise"))
	send([]byte("GET / HTTP/1.1\r\n\r\n"))
	send(appendHeader(nil, frameSpan, 1, 1<<30))
	send(span(s.ID, 1<<40, 1))
	send(span(s.ID, 4, 2))
	send(append(span(s.ID, 0, 1), span(s.ID, 0, 1)...)) // one tag twice
	for _, id := range []content.ID{s.ID, one.ID, {}} {
		send(dataRequest{kind: frameOutboard, id: id, level: 1, first: 0, count: 1}.append(nil, 1))
		send(dataRequest{kind: frameOutboard, id: id, level: 0, first: 0, count: 1 << 16}.append(nil, 1))
	}
	// Many requests, and nobody reads the answers.
	flood := open()
	defer flood.Reset()
	flood.SetWriteDeadline(time.Now().Add(time.Second))
	for tag := range uint32(100_000) {
		if _, err := flood.Write(dataRequest{kind: frameSpan, id: s.ID, first: 0, count: 5}.append(nil, tag)); err != nil {
			break // the server has stopped reading
		}
	}
	// More streams than are allowed.
	for range 100 {
		st := open()
		defer st.Reset()
		st.Write([]byte{1})
	}
	if _, err := honest.get(t, sharer.lib.Link(s).String(), GetOptions{}); err != nil {
		t.Fatalf("an honest Get beside hostile ones: %v", err)
	}
	mustBe(t, filepath.Join(honest.dir, "film.mkv"), data)
}
