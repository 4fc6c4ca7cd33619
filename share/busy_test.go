package share

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

// TestGetComesAgainToABusySharer has others hold all places when a get begins, and
// then ask for nothing: the sharer turns the getter away, which must be served when
// it comes again.
func TestGetComesAgainToABusySharer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	file := sharer.add(t, sharer.write(t, "film.mkv", randomBytes(3*content.GroupSize, "film")), AddOptions{})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	sharer.lib.SetLimits(2<<20, 0)
	for i := 0; sharer.lib.up.admit(peer.ID(fmt.Sprint("other", i)), 1<<20); i++ {
	}
	got, err := getter.get(t, sharer.lib.Link(file).String(), GetOptions{Output: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if got.Took < busyRetry {
		t.Errorf("it took %s: the sharer was not busy", got.Took)
	}
}

// TestSmallFilesComeFromABusySharer is the same for a directory of files of one
// chunk group, which go another way.
func TestSmallFilesComeFromABusySharer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	sharer, _ := startPeer(t, node.Config{NoDHT: true})
	for i := range 6 {
		name := fmt.Sprintf("album/%d.jpg", i)
		sharer.write(t, name, randomBytes(content.GroupSize/2, name))
	}
	album := sharer.add(t, filepath.Join(sharer.dir, "album"), AddOptions{})
	getter, _ := startPeer(t, node.Config{NoDHT: true})
	sharer.lib.SetLimits(2<<20, 0)
	for i := 0; sharer.lib.up.admit(peer.ID(fmt.Sprint("other", i)), 1<<20); i++ {
	}
	got, err := getter.get(t, sharer.lib.Link(album).String(), GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Took < busyRetry {
		t.Errorf("it took %s: the sharer was not busy", got.Took)
	}
	for i := range 6 {
		name := fmt.Sprintf("album/%d.jpg", i)
		mustBe(t, filepath.Join(getter.dir, filepath.FromSlash(name)), randomBytes(content.GroupSize/2, name))
	}
}
