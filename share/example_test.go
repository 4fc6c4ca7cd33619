package share_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"golang.org/x/sync/errgroup"
)

// A program that embeds two peers: one shares a file, the other gets it by its
// name. The first is also the bootstrap peer through which the other enters
// the network.
func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(context.Background())
	var g errgroup.Group

	ann, annLib, err := open(ctx, &g, node.Config{Role: node.RoleHelper})
	if err != nil {
		log.Fatal(err)
	}
	bob, bobLib, err := open(ctx, &g, node.Config{Bootstrap: []peer.AddrInfo{ann.AddrInfo()}})
	if err != nil {
		log.Fatal(err)
	}

	path := filepath.Join(dir, "greeting.txt")
	if err := os.WriteFile(path, []byte("hello from ann\n"), 0o644); err != nil {
		log.Fatal(err)
	}
	shared, err := annLib.Add(ctx, path, share.AddOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("shared", shared.Name, shared.ID)

	link, err := share.ParseWhat(annLib.Link(shared).String())
	if err != nil {
		log.Fatal(err)
	}
	got, err := bobLib.Get(ctx, link, share.GetOptions{Target: filepath.Join(dir, "copy.txt")})
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(got.Path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("got %d bytes: %s", got.Size, text)

	stop()
	if err := g.Wait(); err != nil {
		log.Fatal(err)
	}
	annLib.Close()
	bobLib.Close()
	ann.Close()
	bob.Close()
	// Output:
	// shared greeting.txt b3:ccb34588c58e0bd76370542b44b943b9c82973774cb72be537d8968ec7a931bc
	// got 15 bytes: hello from ann
}

// open starts a peer on loopback and the library on it, both run by g.
func open(ctx context.Context, g *errgroup.Group, c node.Config) (*node.Node, *share.Library, error) {
	c.Listen, c.NoMulticast = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, true
	n, err := node.New(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	lib, err := share.Open(n, share.Config{})
	if err != nil {
		return nil, nil, err
	}
	g.Go(func() error { return n.Run(ctx) })
	g.Go(func() error { return lib.Run(ctx) })
	<-n.Listening()
	return n, lib, nil
}
