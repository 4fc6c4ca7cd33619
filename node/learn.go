package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"
)

const (
	// learnMax bounds one Learn: name look-up, dial, negotiation and handshake, a
	// round trip each. It is dialTimeout, for the same reason.
	learnMax = dialTimeout
	// learnBytesMax is the most that is read from whoever answers. A peer of
	// ours sends less than 1 KiB: a header, and a certificate.
	learnBytesMax = 16 << 10
	// learntFor is how long an answer is remembered: for the searches and dials
	// of one command. A peer that changes its identity is taken for the old one
	// no longer than this, and can't be dialled as such.
	learntFor = time.Minute
	// learntMax is how many answers are remembered; then the oldest gives way.
	learntMax = 64
)

// ErrNotPeer is returned by Learn when something answered at the address, and
// not as a peer of ours does. Another address is needed.
var ErrNotPeer = errors.New("something other than p2pshare listens there")

// Learn finds out who listens at p's first address, when p has no ID: libp2p
// dials nobody without knowing whom to expect. The address must be /ip4, /ip6,
// /dns, /dns4 or /dns6, then /tcp, and nothing else. p with an ID is returned
// as it is.
//
// The answer proves that whoever is at the address holds the key of that ID,
// and not that it is the machine that was meant: show it to the person. It is
// remembered for a minute. Learn dials beside libp2p, over plain TCP, and is
// bounded by ctx and by five seconds.
//
// Errors: ErrNotPeer, context.DeadlineExceeded when nothing answered in time,
// context.Canceled, and the system's, such as syscall.ECONNREFUSED when nothing
// listens there.
func (n *Node) Learn(ctx context.Context, p peer.AddrInfo) (peer.AddrInfo, error) {
	if p.ID != "" {
		return p, nil
	}
	if len(p.Addrs) == 0 {
		return p, errors.New("a peer without ID and address can't be learnt")
	}
	addr := p.Addrs[0]
	network, address, err := learnableAt(addr)
	if err != nil {
		return p, err
	}
	if n.cfg.Offline {
		return p, fmt.Errorf("learn who is at %s: this peer is offline", address)
	}
	ctx, cancel := context.WithTimeout(ctx, learnMax)
	defer cancel()
	id, err := n.learnt.who(ctx, addr.String(), func() (peer.ID, error) {
		id, err := n.handshake(ctx, network, address)
		if err == nil {
			n.log.Info("learnt who is at an address", "addr", address, "peer", id)
		}
		return id, err
	})
	if err == nil && id == n.ID() {
		err = errors.New("it is this peer itself")
	}
	if err != nil {
		return p, fmt.Errorf("learn who is at %s: %w", address, learnCause(ctx, err))
	}
	return peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{addr}}, nil
}

// learnableAt turns a multiaddr into the arguments of a dial.
func learnableAt(a ma.Multiaddr) (network, address string, err error) {
	if len(a) == 2 && a[1].Protocol().Code == ma.P_TCP {
		switch a[0].Protocol().Code {
		case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			return manet.DialArgs(a)
		}
	}
	return "", "", fmt.Errorf("learn who is at %s: not an address like /ip4/192.0.2.7/tcp/4001", a)
}

// timedOut is context.DeadlineExceeded in words that fit a peer.
type timedOut struct{}

func (timedOut) Error() string        { return "timed out" }
func (timedOut) Is(target error) bool { return target == context.DeadlineExceeded }

// learnCause is why a Learn has failed. An error that came of the end of ctx
// does not say so itself: it is of a connection that was closed.
func learnCause(ctx context.Context, err error) error {
	var network net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case ctx.Err() != nil, errors.As(err, &network) && network.Timeout():
		return timedOut{}
	}
	return err
}

// handshake dials address and returns the identity that the TLS handshake of
// libp2p proves. Nobody is expected there, and so everybody accepted.
//
// Source: libp2p specs, connections/README.md and tls/tls.md.
func (n *Node) handshake(ctx context.Context, network, address string) (peer.ID, error) {
	security, err := libp2ptls.New(libp2ptls.ID, n.key, nil)
	if err != nil {
		return "", err
	}
	var d net.Dialer
	plain, err := d.DialContext(ctx, network, address)
	if err != nil {
		return "", systemCause(err)
	}
	defer plain.Close()
	stop := context.AfterFunc(ctx, func() { plain.Close() })
	defer stop()
	c := &waryConn{Conn: plain, left: learnBytesMax}
	if err := multistream.SelectProtoOrFail[protocol.ID](libp2ptls.ID, c); err != nil {
		return "", c.blame("it does not offer libp2p's " + libp2ptls.ID)
	}
	secure, err := security.SecureOutbound(ctx, c, "")
	if err != nil {
		return "", c.blame("no libp2p handshake: " + err.Error())
	}
	id := secure.RemotePeer()
	if _, err := ed25519Key(id); err != nil {
		return "", c.blame("its identity is not an Ed25519 key")
	}
	return id, nil
}

// systemCause is what the system says in an error of package net, without the
// addresses, which the caller names.
func systemCause(err error) error {
	var system *os.SyscallError
	var dns *net.DNSError
	switch {
	case errors.As(err, &system):
		return system.Err
	case errors.As(err, &dns) && !dns.IsTimeout:
		return errors.New(dns.Err)
	}
	return err
}

// multistreamHeader is what the other side of a libp2p connection says first:
// its length and the protocol.
const multistreamHeader = "\x13" + multistream.ProtocolID + "\n"

// waryConn reads no more than it must from somebody who may be anybody. It
// fails as soon as the answer does not begin as libp2p's does: a mail server
// that greets us would otherwise be waited for until the deadline.
type waryConn struct {
	net.Conn
	read int   // bytes so far
	left int   // bytes that may still be read
	err  error // of the first Read that failed, and of all after it
}

func (c *waryConn) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.left == 0 {
		c.err = fmt.Errorf("%w: it sends more than %d bytes", ErrNotPeer, c.read)
		return 0, c.err
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	if err != nil {
		c.err = fmt.Errorf("whoever listens there hung up: %w", systemCause(err))
	}
	for _, b := range p[:n] {
		if c.read < len(multistreamHeader) && b != multistreamHeader[c.read] {
			c.err = fmt.Errorf("%w: it does not speak libp2p", ErrNotPeer)
			return 0, c.err
		}
		c.read++
		c.left--
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.err
}

// blame is the error for a peer that did what reason says, unless it was the
// connection that failed.
func (c *waryConn) blame(reason string) error {
	if c.err != nil {
		return c.err
	}
	return fmt.Errorf("%w: %s", ErrNotPeer, reason)
}

// learnt remembers who was where. The zero value is ready.
type learnt struct {
	mu      sync.Mutex
	answers map[string]learntAnswer  // guarded by mu; by address, at most learntMax
	asking  map[string]chan struct{} // guarded by mu; closed when the one who asks has done
}

type learntAnswer struct {
	id peer.ID
	at time.Time
}

// who returns the answer for an address: the one that is remembered, or ask's.
// One caller at a time asks at an address, and the others wait for it, as long
// as their ctx lasts. They share its answer, and not its error, which may come
// of its ctx: then the next one asks.
func (l *learnt) who(ctx context.Context, address string, ask func() (peer.ID, error)) (id peer.ID, err error) {
	for {
		id, busy := l.begin(address)
		if id != "" {
			return id, nil
		}
		if busy == nil {
			break
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	defer func() { l.end(address, id) }()
	return ask()
}

// begin returns the answer if there is one, else the channel to wait on if
// somebody asks, else nothing: then the caller asks, and calls end.
func (l *learnt) begin(address string) (id peer.ID, busy <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.answers[address]; ok && time.Since(a.at) < learntFor {
		return a.id, nil
	}
	if busy, ok := l.asking[address]; ok {
		return "", busy
	}
	if l.asking == nil {
		l.answers, l.asking = map[string]learntAnswer{}, map[string]chan struct{}{}
	}
	l.asking[address] = make(chan struct{})
	return "", nil
}

// end keeps the answer, if id is one, and wakes those who wait.
func (l *learnt) end(address string, id peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.asking[address])
	delete(l.asking, address)
	if id == "" {
		return
	}
	l.answers[address] = learntAnswer{id, time.Now()}
	if len(l.answers) <= learntMax {
		return
	}
	oldest := address
	for other, a := range l.answers {
		if a.at.Before(l.answers[oldest].at) {
			oldest = other
		}
	}
	delete(l.answers, oldest)
}
