package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// silentAddr is an address at which nothing comes back: the queue of connections
// that wait to be accepted is full, so that the kernel drops what comes.
func silentAddr(t *testing.T) ma.Multiaddr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := at.(*syscall.SockaddrInet4).Port
	for range 64 {
		c, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), 200*time.Millisecond)
		if err != nil {
			return ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port))
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("a queue of length 0 takes 64 connections")
	return nil
}

func TestConnectTellsSilenceFromRefusal(t *testing.T) {
	n, _ := start(t, Config{NoDHT: true})
	gone, stop := start(t, Config{NoDHT: true})
	dead := gone.AddrInfo()
	stop()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Connect(t.Context(), dead); err == nil || errors.Is(err, ErrNoAnswer) {
		t.Errorf("Connect to a closed port = %v, want an error that is not ErrNoAnswer", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	silent := peer.AddrInfo{ID: dead.ID, Addrs: []ma.Multiaddr{silentAddr(t)}}
	n.host.Peerstore().ClearAddrs(dead.ID)
	n.host.Network().(*swarm.Swarm).Backoff().Clear(dead.ID)
	if err := n.Connect(ctx, silent); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("Connect to where nothing answers = %v, want ErrNoAnswer", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Connect(canceled, silent); errors.Is(err, ErrNoAnswer) {
		t.Errorf("Connect after Ctrl-C = %v, want no word about the peer", err)
	}
}

func TestSilenceIsRememberedForAWhile(t *testing.T) {
	var s silences
	s.note("a", true)
	if !s.lately("a") || s.lately("b") {
		t.Error("who was silent is not who is remembered")
	}
	s.note("a", false)
	if s.lately("a") {
		t.Error("who has answered counts as silent")
	}
	for i := range 2 * silentMax {
		s.note(peer.ID([]byte{byte(i), byte(i >> 8)}), true)
	}
	if len(s.last) != silentMax {
		t.Errorf("%d are remembered, want at most %d", len(s.last), silentMax)
	}
}
