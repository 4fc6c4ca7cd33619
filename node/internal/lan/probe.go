package lan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// probeSockets is how many sockets a probe sends from. A datagram to an
	// address where nobody is waits three seconds for ARP to give up, and what
	// waits fills its socket's buffer: one socket gets rid of some 60 a second.
	probeSockets = 8
	// probeEvery paces each: a thousand a second in all, half a megabyte, are
	// little for a network.
	probeEvery = probeSockets * time.Millisecond
)

// ErrNoRoute is returned by Probe when nothing could be sent.
var ErrNoRoute = errors.New("no route leads there")

// Probe sends a datagram to the group's port of every address of a range, and
// calls handle with what comes back, until linger after the last was sent or ctx
// ends. build makes the datagram for the link that leads there.
func (b *Beacon) Probe(ctx context.Context, r netip.Prefix, linger time.Duration, build func(Link) []byte, handle func(Datagram)) error {
	f := b.family(r.Addr())
	if f == nil {
		return fmt.Errorf("probe %s: %w", r, errors.ErrUnsupported)
	}
	var sockets []socket
	reading, end := context.WithCancel(ctx)
	var readers errgroup.Group
	var sent atomic.Int64
	defer func() {
		end()
		for _, s := range sockets {
			s.close() // which ends its reader
		}
		readers.Wait()
	}()
	senders, sending := errgroup.WithContext(ctx)
	targets := make(chan netip.Addr)
	for range probeSockets {
		s, err := f.open(0)
		if err != nil {
			return err
		}
		sockets = append(sockets, s)
		readers.Go(func() error {
			b.read(reading, f, s, handle)
			return nil
		})
		senders.Go(func() error { return b.probeFrom(sending, s, targets, build, &sent) })
	}
	senders.Go(func() error {
		defer close(targets)
		for a := r.Masked().Addr(); r.Contains(a); a = a.Next() {
			select {
			case targets <- a:
			case <-sending.Done():
				return sending.Err()
			}
		}
		return nil
	})
	if err := senders.Wait(); err != nil {
		return err
	}
	if sent.Load() == 0 {
		return fmt.Errorf("probe %s: %w", r, ErrNoRoute)
	}
	select {
	case <-time.After(linger):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// probeFrom sends to its share of the targets.
func (b *Beacon) probeFrom(ctx context.Context, s socket, targets <-chan netip.Addr, build func(Link) []byte, sent *atomic.Int64) error {
	pace := time.NewTicker(probeEvery)
	defer pace.Stop()
	for a := range targets {
		// That nobody is there is the rule, and no error.
		if s.write(build(b.LinkTo(a)), netip.AddrPortFrom(a, uint16(b.port)), nil) == nil {
			sent.Add(1)
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// family is the open family of an address, nil when there is none.
func (b *Beacon) family(a netip.Addr) *family {
	for _, f := range b.families {
		if f.address.Is4() == a.Is4() {
			return f
		}
	}
	return nil
}

// LinkTo is the link that leads to a host, by the longest prefix; the zero Link
// when none does.
func (b *Beacon) LinkTo(a netip.Addr) (best Link) {
	longest := -1
	for _, l := range b.Links() {
		if a.Zone() != "" && a.Zone() == l.Name {
			return l
		}
		for _, p := range l.Prefixes {
			if p.Contains(a) && p.Bits() > longest {
				best, longest = l, p.Bits()
			}
		}
	}
	return best
}
