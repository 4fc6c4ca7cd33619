// Package lan carries datagrams between the hosts of a local network by UDP
// multicast: bytes in, bytes out. What they mean is the business of package
// node.
//
// A Beacon has two sockets in each family. One is bound to the group's port,
// which several processes of a host share, and gets what is sent to the group
// (and what a stranger who knows no better sends to the port). The other is
// this process's own: everything is sent from it, so that answers come back to
// it. Its port is one of a short range where that is free, which makes it
// possible to let it through a firewall.
//
// Groups are joined on each interface by itself, and datagrams are sent on each
// by its index: a system's default would pick one interface, and none where
// there is no default route. The interfaces are looked at again every two
// seconds, so that one that comes later is joined.
//
// Nothing is received from a source that is not on the link: see Link.
package lan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// DefaultPort is the UDP port of both groups.
	DefaultPort = 42042
	// DatagramMax is the length of the longest datagram: what the smallest MTU
	// of IPv6 (1,280) holds beside its headers, so that none is fragmented.
	DatagramMax = 1200

	// rescanEvery is how often the interfaces are looked at: three system calls
	// for each, some 100 µs in all.
	rescanEvery = 2 * time.Second
	// readPause is how long a socket rests after an error of its own.
	readPause = 100 * time.Millisecond
	// socketBuffer is what is asked of the system for a socket's queue. Two
	// hundred neighbours may answer one question at once.
	socketBuffer = 1 << 20
	// ownPorts is how many ports after the group's are tried for own sockets.
	ownPorts = 16
)

// The groups. 239.192/14 is the organisation-local scope of RFC 2365, ff02 the
// link-local scope of RFC 4291.
var (
	group4 = netip.MustParseAddr("239.192.42.42")
	group6 = netip.MustParseAddr("ff02::4242")
)

// Config configures a Beacon. The zero value works.
type Config struct {
	// Port is the UDP port of the groups. 0: DefaultPort.
	Port int
	// Usable tells which addresses of this host others may send to: only the
	// interfaces that have one are used. Nil: all.
	Usable func(netip.Addr) bool
}

// Datagram is one that came in.
type Datagram struct {
	Data []byte         // valid until the handler returns
	From netip.AddrPort // with the zone, where it is link-local
	// Link is where it came from. Of a datagram that this host sent to itself
	// it is the link that has the source's address.
	Link Link
	// Group tells that it was sent to the group, not to this process.
	Group bool
	// Own tells that this Beacon has sent it.
	Own bool

	answerFrom socket
}

// Beacon is a host's place on its local networks. Its methods are safe for
// concurrent use.
type Beacon struct {
	port     int
	usable   func(netip.Addr) bool
	families []*family
	missing  map[bool]error // why there is no IPv4 (false) or IPv6 (true)
	changed  chan struct{}  // capacity 1: coalesced "there are new links"

	mu     sync.Mutex        // guards all below
	links  []Link            // replaced, never changed in place
	failed map[sendKey]error // the last send's, on each link and in each family
}

type sendKey struct {
	link int // its index
	v6   bool
}

// Open opens the sockets and joins the groups on the interfaces that there are.
// Not to have any is no error: they may come. It returns an error when no
// socket can be had, in either family.
func Open(c Config) (*Beacon, error) {
	b := &Beacon{port: c.Port, usable: c.Usable, changed: make(chan struct{}, 1), failed: map[sendKey]error{}, missing: map[bool]error{}}
	if b.port == 0 {
		b.port = DefaultPort
	}
	if b.usable == nil {
		b.usable = func(netip.Addr) bool { return true }
	}
	var errs []error
	for i, open := range []func(int) (*family, error){openFamily4, openFamily6} {
		f, err := open(b.port)
		if err != nil {
			b.missing[i == 1] = err
			errs = append(errs, err)
			continue
		}
		b.families = append(b.families, f)
	}
	if len(b.families) == 0 {
		return nil, errors.Join(errs...)
	}
	b.rescan()
	select {
	case <-b.changed: // the first links are no news
	default:
	}
	return b, nil
}

// Port is the UDP port of the groups.
func (b *Beacon) Port() int { return b.port }

// Links are the interfaces that are used now. The caller must not change them.
func (b *Beacon) Links() []Link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.links
}

// Changed signals that a link has come or has other addresses. Signals that
// come while one waits are merged into it. It has one reader.
func (b *Beacon) Changed() <-chan struct{} { return b.changed }

// Run calls handle with each datagram until ctx ends, from one goroutine for
// each socket, and keeps the links up to date. The sockets stay open for a last
// word; Close closes them.
func (b *Beacon) Run(ctx context.Context, handle func(Datagram)) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range b.families {
		for _, s := range []socket{f.group, f.own} {
			g.Go(func() error {
				b.read(ctx, f, s, handle)
				return nil
			})
		}
	}
	g.Go(func() error {
		<-ctx.Done()
		for _, f := range b.families {
			f.group.interrupt()
			f.own.interrupt()
		}
		return nil
	})
	g.Go(func() error {
		tick := time.NewTicker(rescanEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				b.rescan()
			}
		}
	})
	return g.Wait()
}

// read hands over what arrives at one socket.
func (b *Beacon) read(ctx context.Context, f *family, s socket, handle func(Datagram)) {
	buf := make([]byte, DatagramMax+1)
	for ctx.Err() == nil {
		p, err := s.read(buf)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(readPause):
			}
			continue
		}
		if p.n > DatagramMax {
			continue // it was cut to the buffer's length
		}
		group := p.dst == f.address
		if p.dst.IsMulticast() && !group {
			continue // of another group, which somebody else on this host has joined
		}
		link, ok := b.linkOf(p)
		if !ok {
			continue
		}
		from := s
		if group {
			from = f.own
		}
		handle(Datagram{Data: buf[:p.n], From: p.src, Link: link, Group: group, answerFrom: from,
			Own: p.src.Port() == f.port && link.has(p.src.Addr())})
	}
}

// linkOf finds the link that a datagram came over, and reports whether its
// source is on it.
func (b *Beacon) linkOf(p packet) (Link, bool) {
	for _, l := range b.Links() {
		if (p.ifIndex == 0 || l.Index == p.ifIndex) && l.OnLink(p.src.Addr()) {
			return l, true
		}
	}
	// What this host sends to one of its own addresses arrives over loopback.
	for _, l := range b.Links() {
		if l.has(p.src.Addr()) {
			return l, true
		}
	}
	return Link{}, false
}

// Multicast sends a datagram on every link, once in each family that the link
// has. build makes it for the link; nil sends none. The error is that of the
// links that failed: others may have been reached.
func (b *Beacon) Multicast(build func(Link) []byte) error {
	var errs []error
	for _, l := range b.Links() {
		for _, f := range b.families {
			if l.Joined(f.v6()) != nil {
				continue
			}
			data := build(l)
			if data == nil {
				continue
			}
			err := f.own.write(data, netip.AddrPortFrom(f.address, uint16(b.port)), &l)
			b.mu.Lock()
			b.failed[sendKey{l.Index, f.address.Is6()}] = err
			b.mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("send to %s on %s: %w", f.address, l.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// SendError is why the last datagram to a link's IPv4 group (IPv6 when v6 is
// true) could not be sent; nil when it could, or none was.
func (b *Beacon) SendError(l Link, v6 bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed[sendKey{l.Index, v6}]
}

// Send sends a datagram to one address.
func (b *Beacon) Send(data []byte, to netip.AddrPort) error {
	for _, f := range b.families {
		if f.address.Is4() == to.Addr().Is4() {
			return f.own.write(data, to, nil)
		}
	}
	return fmt.Errorf("send to %s: %w", to, errors.ErrUnsupported)
}

// Answer sends a datagram to where d came from. It comes from where d was sent
// to, so that a firewall there that has seen d go out lets it in; an answer to the
// group comes from this process's own socket.
func (b *Beacon) Answer(d Datagram, data []byte) error { return d.answerFrom.write(data, d.From, nil) }

// Close closes the sockets: what is sent from then on fails. Run must have
// returned. It may be called twice.
func (b *Beacon) Close() error {
	var errs []error
	for _, f := range b.families {
		for _, s := range []socket{f.group, f.own} {
			if err := s.close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// rescan looks at the interfaces, joins the groups on new ones, and forgets
// those that are gone.
func (b *Beacon) rescan() {
	before := map[linkKey]Link{}
	for _, l := range b.Links() {
		before[l.key()] = l
	}
	found, err := usableLinks(b.usable)
	if err != nil {
		return // the next look may do better
	}
	news := false
	for i := range found {
		l := &found[i]
		old, known := before[l.key()]
		delete(before, l.key())
		l.join4, l.join6 = cmp.Or(b.missing[false], errNotTried), cmp.Or(b.missing[true], errNotTried)
		if known {
			l.join4, l.join6 = old.join4, old.join6
		}
		for _, f := range b.families {
			b.settle(l, f)
		}
		news = news || !known || !old.equal(*l)
	}
	for _, gone := range before {
		for _, f := range b.families {
			if gone.Joined(f.v6()) == nil {
				f.group.leave(&net.Interface{Index: gone.Index, Name: gone.Name}) // it may be gone altogether
			}
		}
	}
	b.mu.Lock()
	b.links = found
	for _, gone := range before {
		delete(b.failed, sendKey{gone.Index, false})
		delete(b.failed, sendKey{gone.Index, true})
	}
	b.mu.Unlock()
	if news {
		select {
		case b.changed <- struct{}{}:
		default:
		}
	}
}

// settle joins f's group on l, or leaves it, as l's addresses have it. A join
// that failed is tried again at the next look.
func (b *Beacon) settle(l *Link, f *family) {
	state := l.joinState(f.v6())
	switch {
	case !l.source(f.v6()).IsValid():
		if *state == nil {
			f.group.leave(&net.Interface{Index: l.Index, Name: l.Name})
		}
		*state = ErrNoAddress
	case *state != nil:
		*state = f.group.join(&net.Interface{Index: l.Index, Name: l.Name})
	}
}
