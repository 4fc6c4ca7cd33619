package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"golang.org/x/sync/errgroup"
)

// benchPair runs two peers on loopback for a benchmark.
func benchPair(b *testing.B) (sharer, getter *Library) {
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	var g errgroup.Group
	var libs []*Library
	for range 2 {
		n, err := node.New(ctx, node.Config{
			Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, NoDHT: true, NoMulticast: true,
		})
		if err != nil {
			b.Fatal(err)
		}
		lib, err := Open(n, Config{})
		if err != nil {
			b.Fatal(err)
		}
		g.Go(func() error { return n.Run(ctx) })
		g.Go(func() error { return lib.Run(ctx) })
		<-n.Listening()
		libs = append(libs, lib)
		b.Cleanup(func() {
			cancel()
			g.Wait()
			lib.Close()
			n.Close()
		})
	}
	return libs[0], libs[1]
}

// benchFilm has a pair share a film of so many bytes.
func benchFilm(b *testing.B, size int) (sharer, getter *Library, s Share, w What) {
	b.Helper()
	sharer, getter = benchPair(b)
	path := filepath.Join(b.TempDir(), "film.mkv")
	if err := os.WriteFile(path, randomBytes(size, "film"), 0o644); err != nil {
		b.Fatal(err)
	}
	s, err := sharer.Add(b.Context(), path, AddOptions{})
	if err != nil {
		b.Fatal(err)
	}
	if w, err = ParseWhat(sharer.Link(s).String()); err != nil {
		b.Fatal(err)
	}
	return sharer, getter, s, w
}

// BenchmarkGet moves 256 MiB from one peer to another in this process,
// encrypted and verified: to nowhere, and into a file.
func BenchmarkGet(b *testing.B) {
	const size = 256 << 20
	_, getter, _, w := benchFilm(b, size)
	b.Run("discard", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if _, err := getter.Get(b.Context(), w, GetOptions{Output: io.Discard, NoServe: true}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("file", func(b *testing.B) {
		b.SetBytes(size)
		target := filepath.Join(b.TempDir(), "copy.mkv")
		for b.Loop() {
			if _, err := getter.Get(b.Context(), w, GetOptions{Target: target, NoServe: true}); err != nil {
				b.Fatal(err)
			}
			os.Remove(target)
		}
	})
}

// BenchmarkGetHeld moves 256 MiB out of a store, which verifies each chunk group
// before it sends it, and beside it the same from a share.
func BenchmarkGetHeld(b *testing.B) {
	const size = 256 << 20
	sharer, getter, s, w := benchFilm(b, size)
	get := func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if _, err := getter.Get(b.Context(), w, GetOptions{Output: io.Discard, NoServe: true}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("shared", get)
	if _, err := sharer.Hold(b.Context(), s.ID, HoldOptions{Size: s.Size}); err != nil {
		b.Fatal(err)
	}
	if _, err := sharer.Remove(b.Context(), s.Path); err != nil {
		b.Fatal(err)
	}
	b.Run("held", get)
	b.Run("scrub", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			if _, err := sharer.Scrub(b.Context(), s.ID, ScrubOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkHold holds and releases contents, in a home on disk, that lie on this
// machine: what a hold costs beside the network. One file of 64 MiB; one of 16 KiB; a
// directory of 1,000.
func BenchmarkHold(b *testing.B) {
	holder, _ := benchPair(b)
	dir := b.TempDir()
	write := func(path string, n int) string {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, randomBytes(n, path), 0o644)); err != nil {
			b.Fatal(err)
		}
		return path
	}
	for i := range 1000 {
		write(fmt.Sprintf("tree/%03d", i), 16<<10)
	}
	for _, c := range []struct{ name, path string }{
		{"large", write("large", 64<<20)}, {"small", write("small", 16<<10)}, {"files", filepath.Join(dir, "tree")},
	} {
		s, err := holder.Add(b.Context(), c.path, AddOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(s.Size)
			for b.Loop() {
				if _, err := holder.Hold(b.Context(), s.ID, HoldOptions{Kind: s.Kind, Size: s.Size}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := holder.Release(b.Context(), s.ID); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkAdd hashes and records, in a home on disk: one file of 256 MiB, 1,000
// files of 1 to 64 KiB, and both again when nothing has changed.
func BenchmarkAdd(b *testing.B) {
	dir := b.TempDir()
	big := filepath.Join(dir, "film.mkv")
	small := filepath.Join(dir, "small")
	if err := os.WriteFile(big, randomBytes(256<<20, "film"), 0o644); err != nil {
		b.Fatal(err)
	}
	data := randomBytes(64<<10, "small")
	total := 0
	for i := range 1000 {
		path := filepath.Join(small, fmt.Sprintf("%02d", i/100), fmt.Sprintf("%03d", i))
		n := 1<<10 + i*63 // each another content
		total += n
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data[:n], 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	open := func(b *testing.B) *Library {
		n, err := node.New(b.Context(), node.Config{Dir: b.TempDir(), Offline: true, NoMulticast: true})
		if err != nil {
			b.Fatal(err)
		}
		lib, err := Open(n, Config{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			lib.Close()
			n.Close()
		})
		return lib
	}
	for _, c := range []struct {
		name, path string
		size       int
	}{{"file", big, 256 << 20}, {"files", small, total}} {
		b.Run(c.name, func(b *testing.B) {
			lib := open(b)
			b.SetBytes(int64(c.size))
			for b.Loop() {
				if _, err := lib.Add(b.Context(), c.path, AddOptions{}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if _, err := lib.Remove(b.Context(), c.path); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
		b.Run(c.name+"/again", func(b *testing.B) {
			lib := open(b)
			if _, err := lib.Add(b.Context(), c.path, AddOptions{}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := lib.Add(b.Context(), c.path, AddOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
