package share

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// TestGetFetchesOnlyWhatThisMachineLacks gets a file of 12 chunk groups beside
// files that hold some of them.
func TestGetFetchesOnlyWhatThisMachineLacks(t *testing.T) {
	const groups = 12
	data := randomBytes((groups-1)*content.GroupSize+5, "film")
	damaged := func(groups ...int) []byte {
		b := bytes.Clone(data)
		for _, i := range groups {
			b[i*content.GroupSize] ^= 1
		}
		return b
	}
	getter, _ := startPeer(t, node.Config{})
	g := startGate(t, data, openGate)
	type files map[string][]byte
	for name, test := range map[string]struct {
		target []byte
		seeds  files
		want   int
	}{
		"damaged target":              {target: damaged(2, 5), want: 2 * content.GroupSize},
		"damaged where it ends":       {target: damaged(groups - 1), want: 5},
		"shorter target":              {target: data[:3*content.GroupSize], want: len(data) - 3*content.GroupSize},
		"longer target":               {target: append(bytes.Clone(data), "and more"...), want: 0},
		"other target":                {target: randomBytes(len(data), "other"), want: len(data)},
		"whole seed, renamed":         {seeds: files{"deep/in/it.bin": data}, want: 0},
		"older seed of that name":     {seeds: files{"old/film.mp4": damaged(0, 1)[:len(data)-5]}, want: 2*content.GroupSize + 5},
		"two seeds that differ":       {seeds: files{"1/film.mp4": damaged(3, 4), "2/film.mp4": damaged(4, 5)}, want: content.GroupSize},
		"target and seed":             {target: damaged(1, 2), seeds: files{"film.mp4": damaged(2, 3)}, want: content.GroupSize},
		"seed of another content":     {seeds: files{"film.mp4": randomBytes(len(data), "other")}, want: len(data)},
		"seed that nothing points to": {seeds: files{"x": data[:len(data)-1]}, want: len(data)},
	} {
		t.Run(name, func(t *testing.T) {
			getter.dir = t.TempDir()
			seeds := t.TempDir()
			for name, data := range test.seeds {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(seeds, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(seeds, name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if test.target != nil {
				getter.write(t, "film.mp4", test.target)
			}
			got := <-getter.start(t.Context(), g.film(), GetOptions{Force: true, NoServe: true, SeedFrom: []string{seeds}})
			if got.err != nil || got.got.BytesFetched != int64(test.want) {
				t.Errorf("Get fetched %d bytes, %v, want %d", got.got.BytesFetched, got.err, test.want)
			}
			mustBe(t, filepath.Join(getter.dir, "film.mp4"), data)
			for name, data := range test.seeds {
				mustBe(t, filepath.Join(seeds, name), data)
			}
			if left := partials(t, getter.dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("no such directory", func(t *testing.T) {
		getter.dir = t.TempDir()
		got := <-getter.start(t.Context(), g.film(), GetOptions{SeedFrom: []string{filepath.Join(getter.dir, "none")}})
		if !errors.Is(got.err, fs.ErrNotExist) {
			t.Errorf("Get = %v, want the missing directory told", got.err)
		}
	})
}

// TestGetFetchesNothingThatIsShared gets what the getter shares already from
// somewhere else, alone or inside a directory.
func TestGetFetchesNothingThatIsShared(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	data := randomBytes(3*content.GroupSize+1, "film")
	tree := sharer.makeTree(t, "album", 30)
	sharer.write(t, "album/film.mp4", data)
	sharer.add(t, tree, AddOptions{})
	sharer.add(t, sharer.write(t, "film.mp4", data), AddOptions{})
	getter.add(t, getter.makeTree(t, "mine/photos", 20), AddOptions{})
	getter.add(t, getter.write(t, "mine/talk.mp4", data), AddOptions{})

	got, err := getter.get(t, "film.mp4", GetOptions{})
	if err != nil || got.BytesFetched != 0 {
		t.Errorf("Get of a file = %d bytes fetched, %v, want none", got.BytesFetched, err)
	}
	mustBe(t, filepath.Join(getter.dir, "film.mp4"), data)
	got, err = getter.get(t, "album", GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTree(t, tree), readTree(t, got.Path)); diff != "" {
		t.Errorf("the tree differs (-shared +got):\n%s", diff)
	}
	wanted := got.BytesFetched - listingSize(t, sharer, got.ID)
	if most := int64(10 * 30 * 7); wanted > most { // the ten files that mine/photos has not
		t.Errorf("Get of a directory fetched %d bytes beside its listing, want at most %d", wanted, most)
	}
}

// listingSize is the size of a shared directory's listing and attributes.
func listingSize(t *testing.T, p *testPeer, id content.ID) (size int64) {
	t.Helper()
	shares, err := p.lib.catalog.byID(id, 1)
	if err != nil || len(shares) == 0 {
		t.Fatalf("byID(%s) = %v, %v", id, shares, err)
	}
	for _, id := range []content.ID{id, shares[0].Attrs} {
		info, err := os.Stat(p.lib.listingPath(id))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	return size
}

// TestGetDirectoryFetchesEqualFilesOnce has many names for few contents, small
// ones and large ones, and seeds for some.
func TestGetDirectoryFetchesEqualFilesOnce(t *testing.T) {
	net := startNetwork(t, 2)
	sharer, getter := net[1], net[2]
	var once int64
	for i := range 5 {
		data := randomBytes(1000+i*(content.GroupSize+7)/2, fmt.Sprint("equal ", i))
		once += int64(len(data))
		for j := range 8 {
			sharer.write(t, fmt.Sprintf("album/%d/%d.bin", j, i), data)
		}
	}
	seeded := randomBytes(5000, "seeded")
	sharer.write(t, "album/seeded.bin", seeded)
	sharer.add(t, filepath.Join(sharer.dir, "album"), AddOptions{})
	getter.write(t, "seeds/under another name", seeded)

	got, err := getter.get(t, "album", GetOptions{SeedFrom: []string{filepath.Join(getter.dir, "seeds")}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTree(t, filepath.Join(sharer.dir, "album")), readTree(t, got.Path)); diff != "" {
		t.Errorf("the tree differs (-shared +got):\n%s", diff)
	}
	if fetched := got.BytesFetched - listingSize(t, sharer, got.ID); fetched != once {
		t.Errorf("Get fetched %d bytes beside the listing, want each content once: %d", fetched, once)
	}
}

// TestSeedsLieInTheirDirectory has links lead out of a seed directory, in the middle
// of a path and at its end, from the start or by the time that a file is opened.
func TestSeedsLieInTheirDirectory(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "seeds")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(top, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(top, filepath.FromSlash(name))); err != nil {
			t.Skip(err)
		}
	}
	write("outside/film.mp4", "secret")
	write("seeds/true/film.mp4", "inside")
	write("seeds/later/deep/song.mp3", "a song")
	link(filepath.Join(top, "outside"), "seeds/out")
	link("../outside", "seeds/relative")
	link(filepath.Join(top, "outside", "film.mp4"), "seeds/single.mp4")
	link("true", "seeds/in")
	link("seeds", "linked")

	for _, given := range []string{dir, filepath.Join(top, "linked")} { // which a person may name
		s := newSeeds([]string{given})
		defer s.close()
		if err := s.open(); err != nil {
			t.Fatal(err)
		}
		for at, want := range map[Path]string{
			"true/film.mp4": "inside", "in/film.mp4": "inside",
			// Those that are not there: what has that name, or that size, instead.
			"out/film.mp4": "inside", "relative/film.mp4": "inside", "single.mp4": "inside", "../outside/film.mp4": "inside",
		} {
			found, err := s.like(t.Context(), at, int64(len(want)))
			if err != nil || len(found) == 0 {
				t.Fatalf("like(%s) = %v, %v, want a file", at, found, err)
			}
			for _, seed := range found {
				f, _, err := seed.open()
				if err != nil {
					t.Errorf("like(%s): %v", at, err)
					continue
				}
				got, err := io.ReadAll(f)
				f.Close()
				if err != nil || string(got) != want && string(got) != "a song" {
					t.Errorf("like(%s) found %q, %v, want %q", at, got, err, want)
				}
			}
		}
		if _, ok, err := s.whole(t.Context(), content.Root([]byte("secret")), 6); ok || err != nil {
			t.Errorf("a file outside is a seed: %v, %v", ok, err)
		}
	}

	s := newSeeds([]string{dir})
	defer s.close()
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	id := content.Root([]byte("a song"))
	seed, ok, err := s.whole(t.Context(), id, 6)
	if !ok || err != nil {
		t.Fatalf("whole = %v, %v, want the song", ok, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "later")); err != nil {
		t.Fatal(err)
	}
	write("elsewhere/deep/song.mp3", "a song")
	link(filepath.Join(top, "elsewhere"), "seeds/later")
	if f, _, err := seed.open(); err == nil {
		f.Close()
		t.Error("a directory that became a link out of the seeds was followed")
	}
	if s.read(t.Context(), id, 6, new([content.GroupSize]byte)) {
		t.Error("a seed was read that lies outside by now")
	}
}
