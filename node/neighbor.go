package node

import (
	"context"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Neighbor is a peer heard on the local network that has proved to be there.
type Neighbor struct {
	ID    peer.ID
	Alias string // what it calls itself: hostile text, at most 64 bytes
	// Addrs are where it can be dialled on the networks on which it was heard.
	Addrs []ma.Multiaddr
	Links []string // the interfaces of this host that it was heard on
	// Rev changes when what it offers does.
	Rev         int64
	First, Seen time.Time
	// Clock is how far its clock is ahead of ours, to the second.
	Clock time.Duration
}

const (
	// neighborsMax bounds the table.
	neighborsMax = 512
	// neighborsPerHost bounds how many identities one IPv4 address can fill it
	// with, and neighborsPerNetwork those of one IPv6 network; see sourceOf.
	neighborsPerHost    = 64
	neighborsPerNetwork = 256
	// neighborAge is after what silence a neighbor is gone: three times it was
	// not heard.
	neighborAge = 3*hereEvery + hereEvery/3
	// neighborAddrsMax bounds the addresses of one.
	neighborAddrsMax = 16
)

// Neighbors are the peers on the local networks, ordered by ID. A visitor knows
// those that have answered it.
func (n *Node) Neighbors() []Neighbor {
	l := n.lanNow()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(l.neighbors.all())
}

// neighborAddrs are the addresses of a neighbor. They are kept in the table only,
// which is bounded: in the host's peerstore, identities that come and go would
// leave theirs behind.
func (n *Node) neighborAddrs(p peer.ID) []ma.Multiaddr {
	l := n.lanNow()
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.neighbors.byID[p]; k != nil {
		return k.snapshot().Addrs
	}
	return nil
}

// WatchNeighbors yields Neighbors now and after each change, until ctx ends or
// the caller breaks off. Changes that come while the caller is busy are merged.
// Without a local network it yields nothing.
func (n *Node) WatchNeighbors(ctx context.Context) iter.Seq[[]Neighbor] {
	return func(yield func([]Neighbor) bool) {
		l := n.lanNow()
		for l != nil {
			l.mu.Lock()
			all, change := slices.Collect(l.neighbors.all()), l.change
			l.mu.Unlock()
			if !yield(all) {
				return
			}
			select {
			case <-change:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Greet says hello to the local networks, so that whoever is there answers, and
// those who have answered are Neighbors: within milliseconds, mostly. A peer
// that stays has done so at its start.
func (n *Node) Greet() {
	if l := n.lanNow(); l != nil {
		l.prod(pokeHello)
	}
}

// neighbors is the table of who is on the local network. It decides, and does
// nothing: whoever uses it holds a lock.
type neighbors struct {
	byID map[peer.ID]*neighbor
	// How many are heard from an address, and from a source; no zero entries.
	byIP     map[netip.Addr]int
	bySource map[netip.Prefix]int
	// gone remembers what was heard of those who left, for as long as an echo of
	// theirs is fresh: a recorded one must not bring them back.
	gone map[peer.ID]departed
}

type departed struct {
	boot   int64
	window window
	at     time.Time
}

type neighbor struct {
	Neighbor
	boot   int64
	window window
	from   netip.AddrPort       // where it was last heard from: its own socket
	addrs  map[string]heardAddr // by multiaddr
	links  map[string]time.Time // when last heard on each
	useful time.Time            // when it last said to have what was asked for
	group  time.Time            // when it was last heard by multicast
}

type heardAddr struct {
	addr ma.Multiaddr
	seen time.Time
}

// heard is a datagram as the table takes it.
type heard struct {
	sender peer.ID
	presence
	from  netip.AddrPort
	link  string
	group bool           // it came by multicast
	addrs []ma.Multiaddr // of presence's those that are on the link
	// It echoes a fresh nonce of ours: one that it alone was asked for, or one
	// that all were.
	proven, answers bool
}

// hearing is what the table makes of a datagram.
type hearing int

const (
	heardNothing hearing = iota // it counts for nothing: stale, or seen before
	heardUnknown                // its sender must prove that it is there
	heardAgain                  // a neighbor, as it was
	heardChange                 // a neighbor that has changed
	heardNew                    // a new neighbor
	heardLeft                   // a neighbor that has left
)

func newNeighbors() *neighbors {
	return &neighbors{byID: map[peer.ID]*neighbor{}, byIP: map[netip.Addr]int{}, bySource: map[netip.Prefix]int{}, gone: map[peer.ID]departed{}}
}

// hear takes a datagram whose signature is good, and changes the table only for
// one that is new and of a sender known to be there.
func (t *neighbors) hear(h heard, now time.Time) hearing {
	k := t.byID[h.sender]
	known := k != nil && k.boot == h.Boot
	switch {
	case known && !k.window.accept(h.N):
		return heardNothing
	case !known && (h.Type == presenceBye || t.recorded(h)):
		return heardNothing
	case h.Type == presenceBye:
		t.remove(k, now)
		return heardLeft
	case !known && !h.proven:
		return heardUnknown
	case len(h.Addrs) == 0:
		return heardAgain // it only asks, or answers
	}
	change := heardAgain
	if !known {
		if k != nil {
			t.remove(k, now)
		}
		t.makeRoom(h.from.Addr(), now)
		k = &neighbor{Neighbor: Neighbor{ID: h.sender, First: now}, boot: h.Boot,
			addrs: map[string]heardAddr{}, links: map[string]time.Time{}}
		k.window = window{h.N, ^uint64(0)} // what was sent before may be a recording
		t.byID[h.sender] = k
		t.enter(h.from.Addr())
		change = heardNew
		k.from = h.from
	} else {
		t.move(k, h)
	}
	if k.update(h, now) && change == heardAgain {
		change = heardChange
	}
	return change
}

// update takes over what a datagram says, and reports whether it is news.
func (k *neighbor) update(h heard, now time.Time) (news bool) {
	news = k.Alias != h.Alias || k.Rev != h.Rev
	k.Alias, k.Rev, k.Seen = h.Alias, h.Rev, now
	if !h.Time.IsZero() {
		k.Clock = h.Time.Sub(now).Round(time.Second)
	}
	if h.group {
		k.group = now
	}
	for _, a := range h.addrs {
		_, had := k.addrs[a.String()]
		if !had && len(k.addrs) >= neighborAddrsMax {
			continue
		}
		k.addrs[a.String()] = heardAddr{a, now}
		news = news || !had
	}
	if _, had := k.links[h.link]; !had {
		news = true
	}
	k.links[h.link] = now
	return k.forgetOld(now) || news
}

// forgetOld drops addresses and links on which it was not heard for long.
func (k *neighbor) forgetOld(now time.Time) bool {
	before := len(k.addrs) + len(k.links)
	maps.DeleteFunc(k.addrs, func(_ string, a heardAddr) bool { return now.Sub(a.seen) >= neighborAge })
	maps.DeleteFunc(k.links, func(_ string, seen time.Time) bool { return now.Sub(seen) >= neighborAge })
	return len(k.addrs)+len(k.links) < before
}

// deaf are where those neighbors are heard from that were not heard by
// multicast for two rounds.
func (t *neighbors) deaf(now time.Time) []netip.AddrPort {
	var to []netip.AddrPort
	for _, k := range t.byID {
		if now.Sub(k.group) > 2*hereEvery && now.Sub(k.First) > hereEvery {
			to = append(to, k.from)
		}
	}
	return to
}

// snapshot is k for others to keep.
func (k *neighbor) snapshot() Neighbor {
	n := k.Neighbor
	n.Links = slices.Sorted(maps.Keys(k.links))
	for _, key := range slices.Sorted(maps.Keys(k.addrs)) {
		n.Addrs = append(n.Addrs, k.addrs[key].addr)
	}
	slices.SortStableFunc(n.Addrs, func(a, b ma.Multiaddr) int { return dialClass(a) - dialClass(b) })
	return n
}

// move counts k for the address that it is heard from now, if it is one of
// those that it has signed. Anybody can have a datagram sent to himself and pass
// it on from his own: then k's would be a stranger's, and what is for k go to him.
func (t *neighbors) move(k *neighbor, h heard) {
	if from := h.from.Addr(); from != k.from.Addr() {
		if !slices.ContainsFunc(h.Addrs, func(a ma.Multiaddr) bool { ip, ok := IPOf(a); return ok && ip == from }) {
			return
		}
		t.leave(k.from.Addr())
		t.enter(from)
	}
	k.from = h.from
}

// enter and leave count one that is heard from a.
func (t *neighbors) enter(a netip.Addr) {
	t.byIP[a]++
	t.bySource[sourceOf(a)]++
}

func (t *neighbors) leave(a netip.Addr) {
	if t.byIP[a]--; t.byIP[a] == 0 {
		delete(t.byIP, a)
	}
	if t.bySource[sourceOf(a)]--; t.bySource[sourceOf(a)] == 0 {
		delete(t.bySource, sourceOf(a))
	}
}

func (t *neighbors) remove(k *neighbor, now time.Time) {
	delete(t.byID, k.ID)
	t.leave(k.from.Addr())
	if len(t.gone) >= neighborsMax {
		maps.DeleteFunc(t.gone, func(_ peer.ID, d departed) bool { return now.Sub(d.at) > 2*nonceBucket })
	}
	if len(t.gone) < 2*neighborsMax {
		t.gone[k.ID] = departed{k.boot, k.window, now}
	}
}

// recorded reports whether a datagram was heard before its sender left.
func (t *neighbors) recorded(h heard) bool {
	d, ok := t.gone[h.sender]
	return ok && (h.Boot < d.boot && h.proven || h.Boot == d.boot && !d.window.accept(h.N))
}

// makeRoom makes room for one more that is heard from ip. It evicts from the
// sources that have most: there the least useful, which of those that had what
// was asked for longest ago or never is the one that came last. Whoever makes up
// identities or addresses by the hundred evicts his own.
func (t *neighbors) makeRoom(ip netip.Addr, now time.Time) {
	source, sourceMax := sourceOf(ip), neighborsPerHost
	if ip.Is6() {
		sourceMax = neighborsPerNetwork
	}
	full := t.bySource[source] >= sourceMax
	if !full && len(t.byID) < neighborsMax {
		return
	}
	most := 0
	for _, count := range t.bySource {
		most = max(most, count)
	}
	var least *neighbor
	for _, k := range t.byID {
		s := sourceOf(k.from.Addr())
		if full && s != source || !full && t.bySource[s] < most {
			continue
		}
		if least == nil || k.useful.Before(least.useful) || k.useful.Equal(least.useful) && k.First.After(least.First) {
			least = k
		}
	}
	t.remove(least, now)
}

// sourceOf is what one host has one of: an IPv4 address. IPv6 addresses it can
// make up, so all those of one network are one source.
func sourceOf(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, 32)
	}
	p, _ := a.WithZone("").Prefix(64)
	return p
}

// expire removes those that were not heard for long, and returns them.
func (t *neighbors) expire(now time.Time) (gone []peer.ID) {
	for id, k := range t.byID {
		if now.Sub(k.Seen) >= neighborAge {
			t.remove(k, now)
			gone = append(gone, id)
		}
	}
	maps.DeleteFunc(t.gone, func(_ peer.ID, d departed) bool { return now.Sub(d.at) > 2*nonceBucket })
	return gone
}

// all yields snapshots, in the order of their IDs.
func (t *neighbors) all() iter.Seq[Neighbor] {
	return func(yield func(Neighbor) bool) {
		for _, id := range slices.Sorted(maps.Keys(t.byID)) {
			if !yield(t.byID[id].snapshot()) {
				return
			}
		}
	}
}

// window tells which of a growing sequence of numbers were seen, for the last
// 64 of them: datagrams of two families overtake each other. Source: RFC 4303,
// section 3.4.3.
type window struct {
	top  int64  // the largest number seen; 0: none
	seen uint64 // bit i: top-i was seen
}

// accept reports whether n is new, and remembers it.
func (w *window) accept(n int64) bool {
	switch ahead := n - w.top; {
	case ahead > 0:
		if ahead < 64 {
			w.seen <<= uint(ahead)
		} else {
			w.seen = 0
		}
		w.seen |= 1
		w.top = n
		return true
	case ahead > -64:
		bit := uint64(1) << uint(-ahead)
		fresh := w.seen&bit == 0
		w.seen |= bit
		return fresh
	}
	return false
}
