package share

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// lanPort draws a port for the local network of one test.
func lanPort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// neighbor runs a peer that shares one file, and knows no DHT.
func neighbor(t *testing.T, port int, name string, data []byte, o AddOptions) (*testPeer, Share) {
	t.Helper()
	p, _ := startPeer(t, node.Config{LANPort: port, NoDHT: true})
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := p.lib.Add(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return p, s
}

func TestNeighborsAreAskedForANameAndAContent(t *testing.T) {
	port := lanPort(t)
	ann, s := neighbor(t, port, "talk.mp4", []byte("talk"), AddOptions{})
	neighbor(t, port, "other.txt", []byte("other"), AddOptions{})
	getter, _ := startPeer(t, node.Config{LANPort: port, NoDHT: true, Role: node.RoleVisitor})
	for _, what := range []What{{Name: "Talk.MP4"}, {ID: s.ID}} {
		got, err := getter.lib.Get(t.Context(), what, GetOptions{Dir: t.TempDir()})
		if err != nil || got.ID != s.ID || len(got.Sources) != 1 || got.Sources[0].Peer != ann.ID() || got.Sources[0].Via != node.ViaLAN {
			t.Errorf("Get(%s) = %+v, %v, want %s from %s", what, got, err, s.ID, ann.ID())
		}
	}
	if _, err := getter.lib.Get(t.Context(), What{Name: "nobody.has"}, GetOptions{Dir: t.TempDir()}); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get of what nobody has: %v, want ErrNotFound", err)
	}
}

func TestNeighborsThatDisagreeAreAmbiguous(t *testing.T) {
	port := lanPort(t)
	neighbor(t, port, "talk.mp4", []byte("one"), AddOptions{})
	neighbor(t, port, "talk.mp4", []byte("another"), AddOptions{})
	getter, _ := startPeer(t, node.Config{LANPort: port, NoDHT: true})
	if _, err := getter.lib.Get(t.Context(), What{Name: "talk.mp4"}, GetOptions{Dir: t.TempDir()}); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("Get: %v, want ErrAmbiguous", err)
	}
}

// TestScopesHoldOnTheLocalNetwork asks as a neighbor would, by the beginning of
// a digest.
func TestScopesHoldOnTheLocalNetwork(t *testing.T) {
	port := lanPort(t)
	stranger := newPublisher(t).id
	friend := newPublisher(t).id
	for name, test := range map[string]struct {
		scope            Scope
		stranger, friend bool
	}{
		"public":   {Scope{}, true, true},
		"lan only": {Scope{LANOnly: true}, true, true},
		"unlisted": {Scope{Unlisted: true}, true, true},
		"to one":   {Scope{To: friend}, false, true},
	} {
		p, s := neighbor(t, port, "talk.mp4", []byte("talk"), AddOptions{Scope: test.scope})
		digest := nameDigest(s.Name)
		for _, prefix := range [][]byte{digest[:8], s.ID[:8]} {
			if got := p.lib.matches(stranger, prefix); got != test.stranger {
				t.Errorf("%s: a stranger is told %v, want %v", name, got, test.stranger)
			}
			if got := p.lib.matches(friend, prefix); got != test.friend {
				t.Errorf("%s: the one it is for is told %v, want %v", name, got, test.friend)
			}
		}
		if p.lib.matches(friend, []byte("nothing ")) {
			t.Errorf("%s: it matches what is not there", name)
		}
	}
}

// TestTransferUnderWayTakesUpANeighbor has a source that stops in the middle,
// and a neighbor that comes with the content then.
func TestTransferUnderWayTakesUpANeighbor(t *testing.T) {
	t.Parallel() // it mostly waits
	port := lanPort(t)
	data := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{7}).Read(data)
	two := make(chan struct{}) // closed once there are two sources
	spans := 0
	slow := newDataLiar(t, data, inSpans(func(l *dataLiar, tag uint32, q dataRequest) []byte {
		if spans++; spans > 1 {
			<-two
		}
		return nil
	}))
	source := startRaw(t, nil, handlers{dataProtocol: slow.serve})
	getter, _ := startPeer(t, node.Config{LANPort: port, NoDHT: true, Role: node.RoleVisitor})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := make(chan struct{})
	var got Got
	ended := make(chan error, 1)
	go func() {
		moving, both := false, false
		var err error
		got, err = getter.lib.Get(ctx, What{ID: slow.id, Kind: KindFile}, GetOptions{
			Dir: t.TempDir(), Peers: []peer.AddrInfo{source.AddrInfo()},
			Progress: func(p Progress) {
				if !moving && p.Phase == PhaseFetching && p.Done > 0 {
					moving = true
					close(begun)
				}
				if !both && p.Sources >= 2 {
					both = true
					close(two)
				}
			},
		})
		ended <- err
	}()
	select {
	case <-begun:
	case err := <-ended:
		t.Fatalf("Get ended before the neighbor came: %+v, %v", got, err)
	}
	late, _ := neighbor(t, port, "late.bin", data, AddOptions{})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(got.Sources) != 2 || got.Sources[0].Peer != late.ID() && got.Sources[1].Peer != late.ID() {
		t.Errorf("sources = %+v, want the first one and the neighbor %s", got.Sources, late.ID())
	}
}
