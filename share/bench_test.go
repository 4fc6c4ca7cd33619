package share

import (
	"context"
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

// BenchmarkGet moves 256 MiB from one peer to another in this process,
// encrypted and verified: to nowhere, and into a file.
func BenchmarkGet(b *testing.B) {
	const size = 256 << 20
	sharer, getter := benchPair(b)
	path := filepath.Join(b.TempDir(), "film.mkv")
	if err := os.WriteFile(path, randomBytes(size, "film"), 0o644); err != nil {
		b.Fatal(err)
	}
	s, err := sharer.Add(b.Context(), path, AddOptions{})
	if err != nil {
		b.Fatal(err)
	}
	w, err := ParseWhat(sharer.Link(s).String())
	if err != nil {
		b.Fatal(err)
	}
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
