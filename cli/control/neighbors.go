package control

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"golang.org/x/sync/errgroup"
)

const (
	// lanListen is how long a peer that has just come listens for neighbors
	// after its hello.
	lanListen = time.Second
	// browseMax bounds asking one neighbor what it shares.
	browseMax = 3 * time.Second
	// browseParallel is how many are asked at a time.
	browseParallel = 16
	// firstMax is how many of a neighbor's shares are listed.
	firstMax = 20
)

// listNeighbors lists who is on the local network and what they share: once, or
// with watch=true from now on, a line for each change.
func (s *Server) listNeighbors(w http.ResponseWriter, r *http.Request) {
	watch, _ := strconv.ParseBool(r.URL.Query().Get("watch"))
	s.sendNeighbors(w, r, watch, netip.Prefix{})
}

// probeNeighbors is listNeighbors, after a hello to each address of a range. It is no
// GET: it sends up to 65,536 packets.
func (s *Server) probeNeighbors(w http.ResponseWriter, r *http.Request) {
	req, ok := decode[ProbeRequest](w, r)
	if !ok {
		return
	}
	probe, err := netip.ParsePrefix(req.Range)
	if err == nil {
		err = node.CheckProbe(probe)
	}
	if err != nil {
		writeError(w, Errorf(CodeUsage, "%s", OneLine(err.Error())))
		return
	}
	s.sendNeighbors(w, r, req.Watch, probe)
}

// sendNeighbors answers with the neighbors. A probe that is not valid is none.
func (s *Server) sendNeighbors(w http.ResponseWriter, r *http.Request, watch bool, probe netip.Prefix) {
	if err := s.cfg.Node.LANStatus().Err; err != nil {
		writeError(w, lanError(err))
		return
	}
	out := newStream(w, r, contentTypeLines)
	g, ctx := errgroup.WithContext(r.Context())
	listening, over := context.WithCancel(ctx)
	g.Go(func() error {
		if !watch {
			defer over()
		}
		return s.meetNeighbors(ctx, probe)
	})
	b := &browsing{server: s, known: map[peer.ID]*Neighbor{}, turn: map[peer.ID]int{}, tell: func(n *Neighbor) {
		if watch {
			out.send(n)
		}
	}}
	g.Go(func() error {
		b.follow(ctx, listening)
		return nil
	})
	err := g.Wait()
	over()
	out.abortIfCutOff()
	if err != nil {
		out.fail(ErrorOf(err))
		return
	}
	for _, n := range b.sorted() {
		if out.sendLine(n) != nil {
			return
		}
	}
}

// lanError says why there is no local network.
func lanError(err error) *Error {
	if errors.Is(err, node.ErrNoLAN) {
		return Errorf(CodeRefused, "the local network is switched off for this peer").
			WithHint("run it without --no-lan (no_lan in config.toml, P2PSHARE_NO_LAN)")
	}
	return Errorf(CodeFailed, "no local network: %s", OneLine(err.Error())).WithHint("p2pshare doctor says what to do")
}

// meetNeighbors does what it takes to know who is there: a peer that has stayed
// for a second knows, another listens for the rest of one, and who does not stay
// says hello before.
func (s *Server) meetNeighbors(ctx context.Context, probe netip.Prefix) error {
	stays := s.cfg.Service == ServiceServing
	if !stays {
		s.cfg.Node.Greet()
	}
	if probe.IsValid() {
		return s.cfg.Node.Probe(ctx, probe)
	}
	listen := lanListen
	if stays { // its hello was at its start
		listen -= time.Since(s.started)
	}
	select {
	case <-time.After(listen):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// browsing follows the neighbors and asks each what it shares.
type browsing struct {
	server *Server
	tell   func(*Neighbor) // each change, in order

	mu    sync.Mutex            // guards all below
	known map[peer.ID]*Neighbor // as told last
	turn  map[peer.ID]int       // the last turn of each that is there
	turns int                   // given out so far
}

// follow takes up neighbors until listening ends, and returns when those that it
// knows then have been asked, or ctx has ended.
func (b *browsing) follow(ctx, listening context.Context) {
	var g errgroup.Group
	g.SetLimit(browseParallel)
	seen := map[peer.ID]node.Neighbor{}
	take := func(now []node.Neighbor) {
		for _, n := range now {
			before, ok := seen[n.ID]
			seen[n.ID] = n
			if ok && before.Rev == n.Rev && before.First.Equal(n.First) && before.Alias == n.Alias {
				continue
			}
			turn := b.begin(n.ID)
			g.Go(func() error {
				b.browse(ctx, n, turn)
				return nil
			})
		}
		for id := range seen {
			if !slices.ContainsFunc(now, func(n node.Neighbor) bool { return n.ID == id }) {
				delete(seen, id)
				b.left(id)
			}
		}
	}
	for now := range b.server.cfg.Node.WatchNeighbors(listening) {
		take(now)
	}
	take(b.server.cfg.Node.Neighbors())
	g.Wait()
}

// begin makes what was asked of a neighbor before out of date.
func (b *browsing) begin(id peer.ID) (turn int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turns++
	b.turn[id] = b.turns
	return b.turns
}

// browse asks a neighbor what it shares, and tells, unless it has changed again
// or left meanwhile.
func (b *browsing) browse(ctx context.Context, n node.Neighbor, turn int) {
	line := newNeighbor(n)
	ctx, cancel := context.WithTimeout(ctx, browseMax)
	defer cancel()
	shared, err := b.server.cfg.Library.SharesOf(ctx, peer.AddrInfo{ID: n.ID, Addrs: n.Addrs}, firstMax)
	if err != nil {
		line.Problem = problemOf(err)
	}
	line.Shares = shared.Total
	for _, sh := range shared.First {
		line.First = append(line.First, Shared{Name: string(sh.Name), ID: sh.ID, Kind: sh.Kind, Size: sh.Size, Note: sh.Note})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.turn[n.ID] != turn {
		return
	}
	line.State = NeighborChanged
	if b.known[n.ID] == nil {
		line.State = NeighborJoined
	}
	b.known[n.ID] = line
	b.tell(line)
}

func (b *browsing) left(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.turn, id)
	if line := b.known[id]; line != nil {
		delete(b.known, id)
		gone := *line
		gone.State, gone.First = NeighborLeft, []Shared{}
		b.tell(&gone)
	}
}

// sorted are the neighbors by name.
func (b *browsing) sorted() []*Neighbor {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*Neighbor
	for _, n := range b.known {
		line := *n
		line.State = ""
		all = append(all, &line)
	}
	slices.SortFunc(all, func(a, b *Neighbor) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(string(a.Peer), string(b.Peer))
	})
	return all
}

// problemOf says why a neighbor did not tell what it shares.
func problemOf(err error) string {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, share.ErrUnreachable) {
		return "does not answer: it has gone, or a firewall there keeps its port closed"
	}
	return OneLine(err.Error())
}

func newNeighbor(n node.Neighbor) *Neighbor {
	line := &Neighbor{Peer: n.ID, Name: n.Alias, Links: n.Links, Seen: n.Seen.UTC().Truncate(time.Millisecond),
		Addrs: []string{}, First: []Shared{}}
	for _, a := range n.Addrs {
		line.Addrs = append(line.Addrs, a.String()+"/p2p/"+n.ID.String())
	}
	return line
}
