package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// ErrNoAnswer is returned by Connect when nothing at all came back from any
// address of a peer, not even that nobody listens there: a firewall drops what is
// sent to it, or its network is gone. A machine whose p2pshare has ended says so.
var ErrNoAnswer = errors.New("none of its addresses answers in any way: a firewall may drop what is sent there")

const (
	// silenceAfter is when a dial that has brought nothing is looked into: long
	// after an answer comes from anywhere on earth.
	silenceAfter = time.Second
	// silenceAddrsMax is at how many addresses of a peer.
	silenceAddrsMax = 8
	// silentFor is how long it is remembered that a peer was silent: libp2p does
	// not dial it again so soon.
	silentFor = time.Minute
	silentMax = 1024
)

// silence finds out whether anything answers at a peer's addresses, beside libp2p's
// dial, whose error does not tell: a QUIC dial hears nothing of a port that is
// closed, and the whole dial waits for it.
type silence struct {
	stop  context.CancelFunc
	ended sync.WaitGroup
	tried atomic.Bool // an address was dialled
	heard atomic.Bool // something came back
}

// listenFor begins to find out when silenceAfter is over. end must be called.
func listenFor(ctx context.Context, addrs []ma.Multiaddr) *silence {
	ctx, stop := context.WithCancel(ctx)
	s := &silence{stop: stop}
	s.ended.Go(func() {
		wait := time.NewTimer(silenceAfter)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		for _, a := range addrs[:min(len(addrs), silenceAddrsMax)] {
			s.ended.Go(func() { s.try(ctx, a) })
		}
	})
	return s
}

func (s *silence) try(ctx context.Context, a ma.Multiaddr) {
	if !isPlainTCP(a) {
		return
	}
	network, address, err := manet.DialArgs(a)
	if err != nil {
		return
	}
	s.tried.Store(true)
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		c.Close()
	}
	if err == nil || answered(err) {
		s.heard.Store(true)
	}
}

// answered tells that a dial failed because of what came back.
func answered(err error) bool {
	for _, e := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isPlainTCP reports whether a is /ip…/tcp/PORT.
func isPlainTCP(a ma.Multiaddr) bool {
	p := a.Protocols()
	return len(p) == 2 && (p[0].Code == ma.P_IP4 || p[0].Code == ma.P_IP6) && p[1].Code == ma.P_TCP
}

// end stops and waits, and reports whether addresses were dialled and silent.
func (s *silence) end() (silent bool) {
	silent = s.tried.Load() && !s.heard.Load()
	s.stop()
	s.ended.Wait()
	return silent
}

// silences remembers who was silent.
type silences struct {
	mu   sync.Mutex
	last map[peer.ID]time.Time // guarded by mu; at most silentMax
}

func (s *silences) note(p peer.ID, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !silent {
		delete(s.last, p)
		return
	}
	if s.last == nil {
		s.last = map[peer.ID]time.Time{}
	}
	if len(s.last) >= silentMax {
		for q := range s.last { // any: it only costs a better error
			delete(s.last, q)
			break
		}
	}
	s.last[p] = time.Now()
}

func (s *silences) lately(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.last[p]
	return ok && time.Since(at) < silentFor
}

// explainDial says of a failed dial whether p was silent. cancelled is that the
// caller has lost interest: then nothing is known.
func (n *Node) explainDial(p peer.ID, err error, silent, cancelled bool) error {
	switch {
	case err == nil:
		n.silences.note(p, false)
		return nil
	case cancelled:
		return err
	case silent:
		n.silences.note(p, true)
	case errors.Is(err, swarm.ErrDialBackoff) && n.silences.lately(p):
	default:
		return err
	}
	return fmt.Errorf("%w: %w", ErrNoAnswer, err)
}
