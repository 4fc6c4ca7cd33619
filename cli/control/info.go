package control

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// Status is the answer of GET /status.
type Status struct {
	Running   bool      `json:"running"` // a peer ran before the command asked
	Service   Service   `json:"service"`
	PID       int       `json:"pid"`
	PeerID    peer.ID   `json:"peer_id"`
	Alias     string    `json:"alias,omitempty"`
	Addrs     []string  `json:"addrs"`
	Peers     int       `json:"peers"`     // distinct peers connected to
	DHTPeers  int       `json:"dht_peers"` // of these: members of a DHT
	Neighbors int       `json:"neighbors"` // on the local network
	Shares    int64     `json:"shares"`
	Bytes     int64     `json:"bytes"`
	Trusted   int       `json:"trusted"` // publishers with a petname
	Choices   int       `json:"choices"` // names that something was chosen for
	Blocked   int       `json:"blocked"` // peers and contents
	Home      string    `json:"home"`
	Folder    string    `json:"folder,omitempty"` // where the page saves, and puts what is dropped on it
	Version   string    `json:"version"`
	Since     time.Time `json:"since"`
	API       string    `json:"api,omitempty"`
	Kept
}

// Hello is the answer of GET /id: who runs, and what for.
type Hello struct {
	PeerID  peer.ID  `json:"peer_id"`
	Addrs   []string `json:"addrs"` // full multiaddrs, with /p2p/ID
	PID     int      `json:"pid"`
	Service Service  `json:"service"`
	Version string   `json:"version"`
}

// Service is what a running peer can do for other commands of its home; each
// includes those before it.
type Service int

const (
	ServiceHome    Service = iota // identity and catalog: it is offline
	ServiceNetwork                // it also finds and fetches, and ends with its command
	ServiceServing                // it also serves and announces, until it is stopped
)

var serviceWords = []string{"home", "network", "serving"}

func (s Service) String() string { return serviceWords[s] }

// MarshalText returns one of the words home, network, serving.
func (s Service) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *Service) UnmarshalText(text []byte) error {
	for i, word := range serviceWords {
		if string(text) == word {
			*s = Service(i)
			return nil
		}
	}
	return fmt.Errorf("unknown service %q", text)
}

// waitMax bounds how long GET /peers?wait=true waits to enter the network. It dials whom
// the configuration names, as the peer does by itself, and nobody of the asker's choice.
const waitMax = 5 * time.Second

// FullAddrs are n's addresses with /p2p/ID, as others need them; never nil.
func FullAddrs(n *node.Node) []string {
	info := n.AddrInfo()
	texts := make([]string, 0, len(info.Addrs))
	addrs, err := peer.AddrInfoToP2pAddrs(&info)
	if err != nil || len(info.Addrs) == 0 {
		return texts
	}
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return texts
}

func (s *Server) id(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, s.hello())
}

func (s *Server) hello() *Hello {
	return &Hello{PeerID: s.cfg.Node.ID(), Addrs: FullAddrs(s.cfg.Node), PID: os.Getpid(),
		Service: s.cfg.Service, Version: s.cfg.Version}
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st := &Status{Service: s.cfg.Service, PID: os.Getpid(), PeerID: s.cfg.Node.ID(), Alias: s.cfg.Alias,
		Addrs: FullAddrs(s.cfg.Node), DHTPeers: s.cfg.Node.DHTPeers(),
		Neighbors: len(s.cfg.Node.Neighbors()), Home: s.cfg.Home, Folder: s.cfg.Folder,
		Version: s.cfg.Version, Since: s.started.UTC().Truncate(time.Second), API: s.URL()}
	connected := map[peer.ID]bool{}
	for _, c := range s.cfg.Node.Conns() {
		connected[c.Peer] = true
	}
	st.Peers = len(connected)
	for sh, err := range s.cfg.Library.List(r.Context()) {
		if err != nil {
			writeError(w, ErrorOf(err))
			return
		}
		if r.Context().Err() != nil {
			return
		}
		st.Shares++
		st.Bytes += sh.Size
	}
	trust, err := s.cfg.Library.Trust()
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	st.Trusted, st.Choices, st.Blocked = len(trust.Friends), len(trust.Choices), len(trust.Blocks)
	if st.Kept, err = s.kept(); err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	writeJSON(w, st)
}

func (s *Server) kept() (Kept, error) {
	cache, err := s.cfg.Library.CacheUsage()
	k := Kept{Store: s.cfg.Library.Usage().Used, Cache: cache.Used, CacheMax: cache.Max}
	if s.cfg.Coord != nil {
		k.StoreMax = s.cfg.Coord.Capacity()
	}
	return k, err
}

// enter waits until the peers that were named have been dialled, and the DHT
// has been entered or can't be.
func (s *Server) enter(ctx context.Context) {
	var wg sync.WaitGroup
	for _, p := range s.cfg.Peers {
		wg.Go(func() { s.cfg.Node.Connect(ctx, p) }) // one that fails is not listed
	}
	s.cfg.Node.WaitDHT(ctx)
	wg.Wait()
}

func (s *Server) listPeers(w http.ResponseWriter, r *http.Request) {
	if wait, _ := strconv.ParseBool(r.URL.Query().Get("wait")); wait {
		ctx, cancel := context.WithTimeout(r.Context(), waitMax)
		defer cancel()
		s.enter(ctx)
	}
	out := newStream(w, r, contentTypeLines)
	for _, c := range s.cfg.Node.Conns() {
		line := &Conn{Peer: c.Peer, Addr: c.Addr.String(), Via: c.Via, Inbound: c.Inbound,
			Agent: c.UserAgent, Streams: c.Streams, Opened: c.Opened.UTC()}
		if out.sendLine(line) != nil {
			return
		}
	}
}
