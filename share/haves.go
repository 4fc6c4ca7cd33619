package share

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share/content"
)

const (
	// havesEvery is how often a partial holder is asked what it holds by now, and
	// who else is there: a crowd feeds itself as fast as its members know.
	havesEvery = 250 * time.Millisecond
	// havesSeldom is how often who holds all is asked for other getters. The first
	// time it is after havesEvery: those that started with us have come by then.
	havesSeldom = time.Second
	// havesAnswerMax bounds one answer.
	havesAnswerMax = 5 * time.Second
	// havesFailsMax is how often in a row a peer may hold nothing and be asked
	// again, each time after twice as long: who is told of may not have begun.
	havesFailsMax = 6
	// attendsMin is the least number of chunk groups for which it is asked what
	// a source holds: a small content is here before there is an answer.
	attendsMin = 9
)

// attends tells whether sources are asked what they hold, and for whom.
func (f *fetch) attends() bool {
	return f.crowd.library != nil && content.GroupCount(f.size) >= attendsMin
}

// attend asks the source what it holds until its part ends. A source that does
// not know the question is taken to hold everything.
func (a *attended) attend(ctx context.Context) {
	ask := &havesStream{library: a.fetch.crowd.library, peer: a.remote.id}
	defer ask.close()
	for asked, empty := 0, 0; ; asked++ {
		h, err := ask.haves(ctx, a.fetch.id, a.fetch.size)
		var wait time.Duration
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errNotHeld):
			if empty++; empty > havesFailsMax {
				a.cancel()
				return
			}
			a.holds(havesAnswer{})
			wait = havesEvery << (empty - 1)
		case errors.Is(err, errMalformed):
			a.fetch.crowd.drop(a.source, a.remote.corrupt(a.fetch.id, "what it says to hold can't be"))
			a.cancel()
			return
		case err != nil:
			a.holds(havesAnswer{all: true, size: a.fetch.size})
			return // it may know data only: its answers will tell
		default:
			empty = 0
			a.holds(h)
			a.fetch.crowd.told(a.fetch.get, h.peers, a.remote)
			if wait = havesEvery; h.all && asked > 0 {
				wait = havesSeldom
			}
		}
		select {
		case <-time.After(wait):
		case <-a.lacks: // rarely: what it told was wrong, or is no more
			select {
			case <-time.After(havesEvery):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// holds notes what the source has told.
func (a *attended) holds(h havesAnswer) {
	f := a.fetch
	f.mu.Lock()
	defer f.mu.Unlock()
	a.told = true
	before := f.download.Held(a.number)
	switch {
	case h.size != f.size: // of another content, or of none
		f.download.Lacks(a.number, content.Span{Count: content.GroupCount(f.size)})
	case h.all:
		f.download.HoldsAll(a.number)
	default:
		if before == content.GroupCount(f.size) {
			f.download.Lacks(a.number, content.Span{Count: before})
		}
		for _, s := range h.spans {
			f.download.Holds(a.number, s)
		}
	}
	if after := f.download.Held(a.number); after != before {
		if after > before {
			f.news = f.now()
		}
		f.settled()
	}
}

// havesAnswer is what a peer holds of a content.
type havesAnswer struct {
	size  int64
	all   bool
	spans []content.Span // ascending
	peers []peer.AddrInfo
}

// havesStream asks one peer, over one stream.
type havesStream struct {
	library *Library
	peer    peer.ID
	stream  network.Stream // nil at first
	in      *bufio.Reader
}

func (s *havesStream) close() {
	if s.stream != nil {
		s.stream.Reset()
	}
}

// haves asks what the peer holds of id, which has size bytes, all of it: of another
// size it is told what the size is, and no more. Errors: errNotHeld, and
// errMalformed for an answer that can't be.
func (s *havesStream) haves(ctx context.Context, id content.ID, size int64) (h havesAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, havesAnswerMax)
	defer cancel()
	if s.stream == nil {
		if s.stream, err = s.library.node.Open(ctx, s.peer, metaProtocol, node.OpenOptions{}); err != nil {
			s.stream = nil
			return h, err
		}
		s.in = newLineReader(s.stream)
	}
	stop := context.AfterFunc(ctx, func() { s.stream.Reset() })
	defer stop()
	for first := int64(0); ; {
		a, err := s.ask(metaRequest{Op: opHaves, ID: id.String(), First: first})
		if err != nil {
			return h, err
		}
		more, err := h.take(a, first)
		if err != nil || more == 0 {
			return h, err
		}
		if h.size != size {
			h.spans = nil
			return h, nil
		}
		first = more
	}
}

func (s *havesStream) ask(q metaRequest) (metaAnswer, error) {
	if err := writeLine(s.stream, q); err != nil {
		return metaAnswer{}, err
	}
	line, err := readLine(s.in)
	if err != nil {
		return metaAnswer{}, err
	}
	a, err := decodeMetaAnswer(line)
	switch {
	case err != nil || !a.End:
		return a, errMalformed
	case a.Error == notHeldText:
		return a, errNotHeld
	case a.Error != "":
		return a, fmt.Errorf("peer answers: %q", Escape(a.Error[:min(len(a.Error), errorTextMax)]))
	}
	return a, nil
}

// notHeldText is the error of an answer to opHaves for what is not held.
const notHeldText = "not held here"

// take adds one answer, to a request from group first on, and returns where the
// next has to begin, or 0.
func (h *havesAnswer) take(a metaAnswer, first int64) (more int64, err error) {
	if a.Size < 0 || a.Size > content.SizeMax || len(a.Haves) > havesMax || len(a.Peers) > toldMax {
		return 0, errMalformed
	}
	groups := content.GroupCount(a.Size)
	h.size, h.all = a.Size, a.All
	next := first
	for _, r := range a.Haves {
		if r[0] < next || r[1] < 1 || r[0] >= groups || r[1] > groups-r[0] {
			return 0, errMalformed
		}
		h.spans = append(h.spans, content.Span{First: r[0], Count: r[1]})
		next = r[0] + r[1] + 1
	}
	if h.peers == nil {
		h.peers = parseTold(a.Peers)
	}
	if a.More != 0 && (len(a.Haves) == 0 || a.More < next || a.More >= groups) {
		return 0, errMalformed
	}
	return a.More, nil
}

// parseTold keeps of the peers that were told what has the right form.
func parseTold(told []toldPeer) (peers []peer.AddrInfo) {
	for _, t := range told {
		id, err := peer.Decode(t.ID)
		if err != nil {
			continue
		}
		p := peer.AddrInfo{ID: id}
		for _, text := range t.Addrs[:min(len(t.Addrs), toldAddrsMax)] {
			if a, err := ma.NewMultiaddr(text); err == nil {
				p.Addrs = append(p.Addrs, a)
			}
		}
		peers = append(peers, p)
	}
	return peers
}

// answerHaves tells what of a content is held, and who else asks for it.
func (l *Library) answerHaves(ctx context.Context, w io.Writer, q metaRequest, from asker) error {
	id, err := content.Parse(q.ID)
	if err != nil || q.First < 0 {
		return writeLine(w, metaAnswer{End: true, Error: "malformed content ID or first"})
	}
	a := metaAnswer{End: true}
	if t := l.serving(id, from.allows); t != nil {
		defer t.release()
		a.Size, a.All = t.size, t.whole()
		if !a.All {
			a.Haves, a.More = t.ranges(q.First, havesMax)
		}
		if t.crowd != nil {
			t.crowd.offerAsker(t.ctx, from.id) // who asks has something soon
		}
	} else {
		size, damaged, err := l.heldOf(ctx, id, from)
		if err != nil {
			return writeLine(w, metaAnswer{End: true, Error: notHeldText})
		}
		a.Size, a.All = size, len(damaged) == 0
		if !a.All {
			a.Haves, a.More = undamaged(size, damaged, q.First, havesMax)
		}
	}
	for _, p := range l.asking.note(id, from.id, time.Now()) {
		addrs := l.node.AddrsFor(from.id, p)
		if len(addrs) == 0 {
			continue
		}
		t := toldPeer{ID: p.String()}
		for _, addr := range addrs[:min(len(addrs), toldAddrsMax)] {
			t.Addrs = append(t.Addrs, addr.String())
		}
		if a.Peers = append(a.Peers, t); len(a.Peers) == toldMax {
			break
		}
	}
	return writeLine(w, a)
}

// heldOf is the size of a content that the asker may get, and that is as it was
// hashed, but for the damaged groups, ascending.
func (l *Library) heldOf(ctx context.Context, id content.ID, from asker) (size int64, damaged []int64, err error) {
	if l.visitor {
		return 0, nil, ErrNotShared
	}
	h, err := l.openHeld(ctx, id, from.allows)
	if err != nil {
		return 0, nil, err
	}
	defer h.close()
	if h.stored != nil {
		damaged, err = l.catalog.damageOf(id)
	}
	return h.identity.size, damaged, err
}

// undamaged returns the runs of a content's groups from first on that are not
// damaged, at most n, and where the next would begin, or 0 when there is none.
func undamaged(size int64, damaged []int64, first int64, n int) (runs [][2]int64, more int64) {
	add := func(end int64) {
		if first < end && len(runs) == n && more == 0 {
			more = first
		}
		if first < end && len(runs) < n {
			runs = append(runs, [2]int64{first, end - first})
		}
	}
	for _, g := range damaged {
		add(g)
		first = max(first, g+1)
	}
	add(content.GroupCount(size))
	return runs, more
}

// offerAsker is offer of a peer that asks for haves: anybody may, and must not use
// up all dials.
func (c *crowd) offerAsker(ctx context.Context, p peer.ID) {
	c.mu.Lock()
	admit := !c.seen[p] && c.askerCount < askersMax
	if admit {
		c.askerCount++
	}
	c.mu.Unlock()
	if admit {
		c.offer(ctx, peer.AddrInfo{ID: p})
	}
}

// askersMax is how many peers one get dials because they asked it.
const askersMax = 16

const (
	// latelyMax is how many contents it is remembered for who asks for them,
	// and latelyPeersMax how many peers each; then the oldest are forgotten.
	latelyMax      = 256
	latelyPeersMax = 32
	// latelyFor is how long it is remembered.
	latelyFor = time.Minute
)

// lately remembers who has asked for a content, so that they can be told of one
// another.
type lately struct {
	mu   sync.Mutex
	byID map[content.ID][]askedAt // guarded by mu; latest last, none empty
}

type askedAt struct {
	peer peer.ID
	at   time.Time
}

// note remembers p, and returns the others, latest first.
func (l *lately) note(id content.ID, p peer.ID, now time.Time) (others []peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.DeleteFunc(l.byID[id], func(a askedAt) bool { return a.peer == p || now.Sub(a.at) > latelyFor })
	for _, a := range slices.Backward(list) {
		others = append(others, a.peer)
	}
	if len(list) == latelyPeersMax {
		list = list[1:]
	}
	if len(l.byID) == latelyMax && l.byID[id] == nil {
		l.forgetOldest()
	}
	l.byID[id] = append(list, askedAt{p, now})
	return others
}

// forgetOldest makes room for another content. The caller holds l.mu.
func (l *lately) forgetOldest() {
	var oldest content.ID
	var at time.Time
	for id, list := range l.byID {
		if last := list[len(list)-1].at; at.IsZero() || last.Before(at) {
			oldest, at = id, last
		}
	}
	delete(l.byID, oldest)
}
