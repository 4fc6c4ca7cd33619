package share

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// Tried is one source that a Get tried, and what came of it.
type Tried struct {
	Source string    // "trust book", "group NAME", "record of PUBLISHER", "local network", "DHT", "peer" or "mirror"; escaped
	Peer   peer.ID   // of a peer
	Found  string    // how it came to be asked: "named", "publisher", "lan", "dht", "told" by a peer; empty: it always is
	Addr   string    // where it was dialled, or last known: a multiaddr, or a mirror's URL
	Via    node.Via  // how it was reached; empty: it was not
	Issued time.Time // of the newest manifest that it told, or of what is remembered; zero: none
	Bytes  int64     // of the content that it gave
	Count  int       // what it named: providers of the DHT, neighbors of the local network, publishers of a peer
	Error  string    // what went wrong, escaped; empty: nothing
}

// triedSourcesMax bounds the trail of one Get.
const triedSourcesMax = 512

// trail collects what a Get tries. A nil trail collects nothing. Its methods are
// safe for concurrent use.
type trail struct {
	mu    sync.Mutex // guards all below
	order []string
	by    map[string]*Tried
}

func newTrail() *trail { return &trail{by: map[string]*Tried{}} }

// note changes the entry with that key, made when there is none.
func (t *trail) note(key string, change func(*Tried)) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.by[key]
	if e == nil {
		if len(t.order) >= triedSourcesMax {
			return
		}
		e = &Tried{Source: key}
		t.by[key] = e
		t.order = append(t.order, key)
	}
	change(e)
}

// peer is note for a peer.
func (t *trail) peer(p peer.ID, change func(*Tried)) {
	t.note("\x00"+string(p), func(e *Tried) {
		e.Source, e.Peer = "peer", p
		change(e)
	})
}

// found tells where a peer was found, the first time.
func (t *trail) found(p peer.AddrInfo, where string) {
	t.peer(p.ID, func(e *Tried) {
		if e.Found == "" {
			e.Found = where
		}
		if e.Addr == "" && len(p.Addrs) > 0 {
			e.Addr = p.Addrs[0].String()
		}
	})
}

// reached tells what came of dialling a peer.
func (t *trail) reached(n *node.Node, p peer.ID, via node.Via, err error) {
	t.peer(p, func(e *Tried) {
		if err != nil {
			if e.Error == "" {
				e.Error = Escape(shortError(err))
			}
			return
		}
		e.Error, e.Via = "", via
		if a := n.AddrOf(p); a != nil {
			e.Addr = a.String()
		}
	})
}

// failed tells why a peer that was reached is not asked any more.
func (t *trail) failed(p peer.ID, err error) {
	t.peer(p, func(e *Tried) { e.Error = errorText(err) })
}

// told tells of a manifest that a peer told.
func (t *trail) told(p peer.ID, m Manifest) {
	t.peer(p, func(e *Tried) {
		e.Count++
		if m.Issued.After(e.Issued) {
			e.Issued = m.Issued
		}
	})
}

// gave adds what each source gave in the end, and what lies were found.
func (t *trail) gave(stats []SourceStat, corrupt []*CorruptError) {
	for _, s := range stats {
		switch {
		case s.Mirror != "":
			t.note("\x01"+s.Mirror, func(e *Tried) { e.Source, e.Addr, e.Via, e.Bytes = "mirror", s.Mirror, s.Via, s.Bytes })
		case s.Via == ViaLocal:
			t.note("this machine", func(e *Tried) { e.Via, e.Bytes = s.Via, s.Bytes })
		default:
			t.peer(s.Peer, func(e *Tried) { e.Bytes = s.Bytes })
		}
	}
	for _, bad := range corrupt {
		why := Escape(bad.Reason)
		if bad.Mirror != "" {
			t.note("\x01"+bad.Mirror, func(e *Tried) { e.Source, e.Addr, e.Error = "mirror", bad.Mirror, why })
		} else {
			t.peer(bad.Peer, func(e *Tried) { e.Error = why })
		}
	}
}

// all returns the entries in the order in which they were made.
func (t *trail) all() []Tried {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Tried
	for _, key := range t.order {
		all = append(all, *t.by[key])
	}
	return all
}

// shortError is the innermost of what libp2p wraps many times.
func shortError(err error) string {
	if errors.Is(err, node.ErrNoAnswer) {
		return node.ErrNoAnswer.Error()
	}
	var bad *CorruptError
	if errors.As(err, &bad) {
		return bad.Reason
	}
	s := err.Error()
	if runes := []rune(s); len(runes) > 200 {
		s = string(slices.Concat(runes[:200], []rune("…")))
	}
	return s
}
