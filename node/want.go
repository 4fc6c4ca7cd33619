package node

import (
	"context"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
)

// wantAt are the moments at which a want is asked, from its start.
var wantAt = []time.Duration{0, 100 * time.Millisecond, 400 * time.Millisecond}

// foundMax bounds the answers to one want that its caller has not taken yet,
// and the neighbors that are asked by unicast at once.
const foundMax = 64

// want is one Want that waits for answers.
type want struct {
	prefixes []keyPrefix
	found    chan peer.AddrInfo // capacity foundMax
}

// HandleWant sets what answers the questions of the local network for keys:
// whether this peer has one for asker whose digest begins with prefix, 8 bytes.
// fn must be quick and safe for concurrent use. Call it before Run.
func (n *Node) HandleWant(fn func(asker peer.ID, prefix []byte) bool) { n.match = fn }

// Want asks the local networks who has one of keys (at most 16; further ones
// are not asked for), and yields those who answer, each once, until ctx ends or
// the caller breaks off. Neighbors that come later, or have something new, are
// asked then. Without a local network it yields nothing. Anybody can say to have
// anything: what is yielded are hints.
func (n *Node) Want(ctx context.Context, keys ...mh.Multihash) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		l := n.lanNow()
		w := &want{prefixes: prefixesOf(keys), found: make(chan peer.AddrInfo, foundMax)}
		if l == nil || len(w.prefixes) == 0 {
			return
		}
		l.mu.Lock()
		l.wants[w] = struct{}{}
		asked := l.revs()
		l.mu.Unlock()
		defer func() {
			l.mu.Lock()
			delete(l.wants, w)
			l.mu.Unlock()
		}()
		seen := map[peer.ID]bool{}
		times := 0
		next := time.NewTimer(0)
		defer next.Stop()
		for {
			l.mu.Lock()
			change := l.change
			l.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case p := <-w.found:
				if seen[p.ID] {
					continue
				}
				seen[p.ID] = true
				if !yield(p) {
					return
				}
			case <-next.C:
				l.say(presence{Type: presenceWant, Want: w.prefixes, Ask: l.nonce("", time.Now())})
				if times++; times < len(wantAt) {
					next.Reset(wantAt[times] - wantAt[times-1])
				}
				if times == 2 && len(seen) == 0 {
					l.askKnown(w, nil) // multicast may be blocked, or slow on the air
				}
			case <-change:
				asked = l.askKnown(w, asked)
			}
		}
	}
}

// HasLAN reports whether there is a local network to ask.
func (n *Node) HasLAN() bool { return n.lanNow() != nil }

// prefixesOf are the prefixes of the keys' digests.
func prefixesOf(keys []mh.Multihash) []keyPrefix {
	var prefixes []keyPrefix
	for _, k := range keys[:min(len(keys), wantMax)] {
		d, err := mh.Decode(k)
		if err != nil || len(d.Digest) < len(keyPrefix{}) {
			continue
		}
		if p := keyPrefix(d.Digest); !slices.Contains(prefixes, p) {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

// neighborRev is the state of a neighbor in which it was asked.
type neighborRev struct{ boot, rev int64 }

// revs are the states of all neighbors. The caller holds l.mu.
func (l *localNet) revs() map[peer.ID]neighborRev {
	revs := map[peer.ID]neighborRev{}
	for id, k := range l.neighbors.byID {
		revs[id] = neighborRev{k.boot, k.Rev}
	}
	return revs
}

// askKnown asks by unicast those neighbors that are not in the state of asked,
// and returns in which state those that were ever asked were then. One address
// is asked no oftener than strangers are answered, for it may be a forged one;
// the others' turn is at the next change.
func (l *localNet) askKnown(w *want, asked map[peer.ID]neighborRev) map[peer.ID]neighborRev {
	var to []netip.AddrPort
	now := time.Now()
	l.mu.Lock()
	revs := l.revs()
	for id, r := range revs {
		if before, ok := asked[id]; ok && before == r {
			continue
		}
		from := l.neighbors.byID[id].from
		if len(to) == foundMax || !l.limits.admitAnswer(from.Addr(), now) {
			delete(revs, id)
			continue
		}
		to = append(to, from)
	}
	l.mu.Unlock()
	for _, a := range to {
		l.tell(presence{Type: presenceWant, Want: w.prefixes, Ask: l.nonce("", time.Now())}, a, l.beacon.LinkTo(a.Addr()))
	}
	return revs
}

// deliver hands an answer to the wants that it answers.
func (l *localNet) deliver(h heard, now time.Time) {
	if len(h.addrs) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.wants {
		if slices.ContainsFunc(h.Want, func(p keyPrefix) bool { return slices.Contains(w.prefixes, p) }) {
			select {
			case w.found <- peer.AddrInfo{ID: h.sender, Addrs: h.addrs}:
				if k := l.neighbors.byID[h.sender]; k != nil {
					k.useful = now
				}
			default: // its caller has plenty
			}
		}
	}
}

// matches are those of the key prefixes asked for that this peer has.
func (l *localNet) matches(h heard) []keyPrefix {
	match := l.node.match
	if match == nil || !l.announces() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(h.Want), func(p keyPrefix) bool { return !match(h.sender, p[:]) })
}
