package control

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

const (
	pathMetrics = "/metrics"
	pathHealth  = "/healthz"
	pathPprof   = "/debug/pprof/"
)

// measures collects what this peer tells of itself when it is asked, in the names of
// Prometheus. Between two questions it costs nothing.
type measures struct{ s *Server }

// newMetrics returns what answers GET /metrics: what the peer tells of itself, the
// process, the Go runtime, and what libp2p has registered at cfg.Metrics.
func (s *Server) newMetrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(measures{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	all := prometheus.Gatherers{r}
	if s.cfg.Metrics != nil {
		all = append(all, s.cfg.Metrics)
	}
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4})
}

// Describe tells nothing in advance: which links and groups there are changes.
func (measures) Describe(chan<- *prometheus.Desc) {}

// Collect tells how things stand.
func (m measures) Collect(out chan<- prometheus.Metric) {
	put := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		names, values := make([]string, 0, 2), make([]string, 0, 2)
		for pair := range slices.Chunk(labels, 2) {
			names, values = append(names, pair[0]), append(values, strings.ToValidUTF8(pair[1], "?"))
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("p2pshare_"+name, help, names, nil), kind, value, values...)
	}
	count := func(name, help string, value int64, labels ...string) {
		put(prometheus.CounterValue, name, help, float64(value), labels...)
	}
	gauge := func(name, help string, value float64, labels ...string) {
		put(prometheus.GaugeValue, name, help, value, labels...)
	}
	gauge("info", "What runs; always 1.", 1, "version", m.s.cfg.Version, "peer", m.s.cfg.Node.ID().String())
	m.library(count, gauge)
	m.network(gauge)
	m.groups(gauge)
}

func (m measures) library(count func(string, string, int64, ...string), gauge func(string, string, float64, ...string)) {
	l := m.s.cfg.Library
	stats, err := l.Stats()
	if err != nil {
		return // healthz tells of it
	}
	const bytes = "Bytes of data streams and mirrors."
	count("transfer_bytes_total", bytes, stats.Sent, "direction", string(DirectionUp))
	count("transfer_bytes_total", bytes, stats.Received, "direction", string(DirectionDown))
	const gets = "Gets of this peer that have ended."
	count("gets_total", gets, stats.Done, "result", "done")
	count("gets_total", gets, stats.Failed, "result", "failed")
	count("hashed_bytes_total", "Bytes that were read to name what is shared.", stats.Hashed)
	count("verification_failures_total", "Answers of other peers that did not verify.", stats.Lies)
	gauge("liars", "Peers that are not asked any more because their answers did not verify.", float64(stats.Liars))
	const transfers = "Transfers under way: gets of this peer, and peers that get from it."
	gauge("transfers", transfers, float64(stats.Uploads), "direction", string(DirectionUp))
	gauge("transfers", transfers, float64(m.s.transfers.running()), "direction", string(DirectionDown))
	gauge("shares", "Files and directories that are shared.", float64(stats.Shares))
	const watched = "Shares that are watched, by how their changes are found."
	gauge("watched_shares", watched, float64(stats.Watched-stats.Polled), "by", "events")
	gauge("watched_shares", watched, float64(stats.Polled), "by", "scan")
	usage := l.Usage()
	const store = "Bytes of the store of copies that are held for groups."
	gauge("store_bytes", store, float64(usage.Used), "kind", "used")
	gauge("store_bytes", store, float64(usage.Overhead), "kind", "overhead")
	gauge("store_bytes", store, float64(usage.Reserved), "kind", "reserved")
	gauge("store_quota_bytes", "What the store may take; 0: as much as the disk has.", float64(usage.Quota))
	if cache, err := l.CacheUsage(); err == nil {
		gauge("cache_bytes", "Bytes that readers of the gateway and the drive have fetched.", float64(cache.Used))
		gauge("cache_quota_bytes", "How many of them are kept.", float64(cache.Max))
	}
	if usage.Free >= 0 {
		gauge("disk_free_bytes", "What the disk of the home has left.", float64(usage.Free))
	}
}

func (m measures) network(gauge func(string, string, float64, ...string)) {
	n := m.s.cfg.Node
	via := map[string]int{"lan": 0, "direct": 0, "relay": 0}
	for _, c := range n.Conns() {
		via[string(c.Via)]++
	}
	for how, count := range via {
		gauge("connections", "Connections to other peers.", float64(count), "via", how)
	}
	gauge("dht_peers", "Connected peers that are members of a DHT.", float64(n.DHTPeers()))
	if waiting, err := n.ProvidesWaiting(context.Background()); err == nil {
		gauge("dht_provides_waiting", "Announcements in the DHTs that wait for their turn.", float64(waiting))
	}
	gauge("bootstrap_peers", "Bootstrap peers that this peer was told.", float64(n.BootstrapPeers()))
	gauge("reachable", "Whether others can dial this peer from the internet: 1, 0, or -1 when it is not known.",
		map[network.Reachability]float64{network.ReachabilityPublic: 1, network.ReachabilityUnknown: -1}[n.Reachability()])
	gauge("neighbors", "Peers heard on the local network.", float64(len(n.Neighbors())))
	lan := n.LANStatus()
	up := 0.
	if lan.Err == nil {
		up = 1
	}
	gauge("lan_up", "Whether the local network's sockets are open.", up)
	for _, l := range lan.Links {
		family, works := "ipv4", 0.
		if l.V6 {
			family = "ipv6"
		}
		if l.Joined == nil && l.Sent == nil {
			works = 1
		}
		gauge("lan_link_up", "Whether multicast works on a link.", works, "link", l.Name, "family", family)
	}
}

func (m measures) groups(gauge func(string, string, float64, ...string)) {
	c := m.s.cfg.Coord
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), groupWait)
	defer cancel()
	for _, g := range c.Known() {
		st, freshness, err := c.Client(g.ID).Status(ctx)
		up := 1.
		if err != nil {
			up = 0
		}
		gauge("group_up", "Whether a member of the group answers.", up, "group", g.Name)
		if err != nil {
			continue
		}
		leads, stale := 0., 0.
		if st.Leader == coord.Peer(m.s.cfg.Node.ID().String()) {
			leads = 1
		}
		if freshness.Stale || st.Leader == "" {
			stale = 1
		}
		gauge("group_leader", "Whether this peer leads the group.", leads, "group", g.Name)
		gauge("group_stale", "Whether the group is without a leader, as far as is known here.", stale, "group", g.Name)
		gauge("group_epoch", "The group's epoch.", float64(st.Epoch), "group", g.Name)
		gauge("group_term", "Raft's term.", float64(st.Term), "group", g.Name)
		gauge("group_commit_index", "Raft's commit index.", float64(st.Commit), "group", g.Name)
		gauge("group_applied_index", "Raft's applied index.", float64(st.Applied), "group", g.Name)
		gauge("group_voters", "Voters of the group.", float64(len(st.Voters)), "group", g.Name)
		gauge("group_members", "Members of the group.", float64(st.Members), "group", g.Name)
		gauge("group_pins", "Contents that are pinned.", float64(st.Pins), "group", g.Name)
		gauge("group_names", "Names in the group's index.", float64(st.Names), "group", g.Name)
	}
}

// health answers GET /healthz: 200 and ok, or 503 and what is wrong, a line each.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	var wrong []string
	if _, err := s.cfg.Library.Stats(); err != nil {
		wrong = append(wrong, "the catalog can't be read: "+OneLine(err.Error()))
	}
	if s.cfg.Service >= ServiceServing && len(s.cfg.Node.Addrs()) == 0 {
		wrong = append(wrong, "it listens on no address")
	}
	if s.cfg.Coord != nil {
		for _, g := range s.cfg.Coord.Groups() {
			if err := g.Err(); err != nil {
				wrong = append(wrong, fmt.Sprintf("group %q: %s", g.Name(), OneLine(err.Error())))
			}
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if len(wrong) == 0 {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, strings.Join(wrong, "\n"))
}

// operate adds what operators ask to mux.
func (s *Server) operate(mux *http.ServeMux) {
	mux.Handle("GET "+pathMetrics, s.newMetrics())
	mux.HandleFunc("GET "+pathHealth, s.health)
}

// profile adds Go's profiles to mux.
func profile(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pathPprof, pprof.Index)
	mux.HandleFunc("GET "+pathPprof+"cmdline", pprof.Cmdline)
	mux.HandleFunc("GET "+pathPprof+"profile", pprof.Profile)
	mux.HandleFunc("GET "+pathPprof+"symbol", pprof.Symbol)
	mux.HandleFunc("GET "+pathPprof+"trace", pprof.Trace)
}

// ParseMetricsAddr reads the address of a listener that asks for no token: loopback
// only, for what it tells is of this machine's people.
func ParseMetricsAddr(text string) (netip.AddrPort, error) {
	if port, err := strconv.ParseUint(text, 10, 16); err == nil {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)), nil
	}
	if port, ok := strings.CutPrefix(text, "localhost:"); ok {
		text = "127.0.0.1:" + port
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return a, fmt.Errorf("not a port, or an address like 127.0.0.1:9464")
	}
	if !a.Addr().IsLoopback() {
		return a, fmt.Errorf("%s is not a loopback address: others may read /metrics of the control API with its token", a.Addr())
	}
	return a, nil
}

// serveMetrics answers /metrics and /healthz without a token on l.
func (s *Server) serveMetrics(ctx context.Context, g *errgroup.Group, l net.Listener) {
	mux := http.NewServeMux()
	s.operate(mux)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	hosts := []string{l.Addr().String(), "localhost:" + port}
	serve(ctx, g, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A foreign page must not read it by a rebound name, nor wherever it may ask.
		site := r.Header.Get("Sec-Fetch-Site")
		if !slices.Contains(hosts, r.Host) || r.Header.Get("Origin") != "" || site != "" && site != "none" {
			http.Error(w, "the Host header must be "+strings.Join(hosts, " or ")+", and no page may ask", http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	}))
}
