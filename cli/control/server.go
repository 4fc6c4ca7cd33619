// Package control is how commands and the running peer of a home talk to each
// other: HTTP and JSON under /api/v1/, on a unix socket in the home, and for
// pages and programs on loopback TCP.
//
// Every command is a client of it. Where no peer runs, the command runs one
// for its own length and talks to that one in the same way, so there is one
// code path.
//
//	POST   /api/v1/shares     AddRequest     → lines: progress, warning, added | error
//	GET    /api/v1/shares                    → lines: Listed
//	DELETE /api/v1/shares     RemoveRequest  → lines: removed | error
//	POST   /api/v1/transfers  GetRequest     → lines: progress, note, data, source, done | accepted | error
//	GET    /api/v1/transfers                 → lines: Transfer
//	POST   /api/v1/transfers/OP TransferRequest → transfer | error
//	POST   /api/v1/limits     LimitsRequest  → limits | error
//	POST   /api/v1/verify     VerifyRequest  → lines: progress, verified, verify | error
//	POST   /api/v1/gc         CollectRequest → collected | error
//	GET    /api/v1/entries    what, literal, peer → lines: Listed
//	GET    /api/v1/find       q, peer, explain → lines: found, progress, note, source, searched | error, and then share.Hit
//	GET    /api/v1/peers      wait           → lines: Conn
//	GET    /api/v1/neighbors  watch          → lines: Neighbor
//	POST   /api/v1/neighbors/probe ProbeRequest → lines: Neighbor
//	GET    /api/v1/doctor                    → lines: Finding
//	GET    /api/v1/groups     group          → lines: GroupStatus
//	GET    /api/v1/groups/survey  group      → line: GroupSurvey
//	POST   /api/v1/groups/OP  GroupRequest   → done | error
//	POST   /api/v1/pins       PinRequest     → pinned | error
//	DELETE /api/v1/pins       PinRequest     → unpinned | error
//	GET    /api/v1/pins       group, stale, fresh → lines: PinLine
//	GET    /api/v1/names                     → lines: TrustEntry
//	POST   /api/v1/names/OP   NamesRequest   → names | error
//	GET    /api/v1/status                    → Status
//	POST   /api/v1/serve-link ServeLinkRequest → lines: serving, received, expired | error
//	GET    /api/v1/serve-link                → lines: ServingLink
//	DELETE /api/v1/serve-link StopLinkRequest → expired | error
//	GET    /api/v1/id                        → Hello
//	GET    /api/v1/events                    → server-sent events: see Server.events
//	POST   /api/v1/uploads    name | path, batch; the bytes → uploaded | error
//	GET    /api/v1/link       what           → Linked
//	GET    /api/v1/qr         text           → an SVG image
//	POST   /api/v1/sessions   SessionRequest → session | error
//	POST   /api/v1/login      SessionRequest → login, with a cookie | error
//	POST   /api/v1/logout     SessionRequest → login
//	GET    /api/v1/openapi.json              → all of this, as OpenAPI 3.1 has it
//	GET    /metrics                          → Prometheus' text format
//	GET    /healthz                          → ok, or 503 and what is wrong
//	GET    /debug/pprof/                     → Go's profiles, with --pprof
//
// Contents are at /b3/HASH and /name/NAME, see gateway.go, and as a WebDAV tree at /dav,
// see drive.go.
//
// Lines are JSON objects; see Event. In an answer of the type
// application/vnd.p2pshare.frames each data line is followed by as many raw
// bytes as it says, and then by the next line. A listing ends with the answer,
// or with an error line; an answer that the peer could not finish is broken off
// without the chunked encoding's end. When the client closes the connection, the peer stops
// what it does for it, unless the GetRequest is detached.
//
// The unix socket is open to its owner only. On TCP an exact Host header is
// needed always, a matching Origin where there is one, and the bearer token
// from the file api.token in the home, or a session's cookie, for everything but / and
// /b3/HASH. Nothing is changed by GET.
package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Config configures a Server.
type Config struct {
	// Home is the directory whose lock the caller holds: the socket and the
	// token go there. Absolute.
	Home string
	// Node and Library are what the API acts on.
	Node    *node.Node
	Library *share.Library
	// Coord is this peer's part in groups; nil: none.
	Coord *coord.Coord
	// Service is what this peer can do for other commands.
	Service Service
	// TCP opens the loopback TCP side too, on a drawn port.
	TCP bool
	// Metrics is what libp2p has registered, for GET /metrics; nil: nothing.
	Metrics prometheus.Gatherer
	// MetricsAddr is where /metrics and /healthz are served without a token, as
	// ParseMetricsAddr reads it; zero: nowhere.
	MetricsAddr netip.AddrPort
	// Pprof serves Go's profiles under /debug/pprof/, to who has the token.
	Pprof bool
	// Peers are asked first in every search, after those of the request. One
	// without an ID is learnt.
	Peers []peer.AddrInfo
	// Folder is where the page saves what it gets, and puts what is dropped on it.
	// Absolute; empty: nowhere. It is made when it is needed.
	Folder string
	// Page holds the files of the page: index.html, login.html, and what they name
	// below /ui/. Nil: there is no page.
	Page fs.FS
	// Alias and Version are told by status.
	Alias, Version string
	// Log receives what becomes of background transfers. Nil: silent.
	Log *slog.Logger
}

// Server serves the control API of one home.
type Server struct {
	cfg       Config
	log       *slog.Logger
	started   time.Time
	unix      net.Listener
	tcp       net.Listener // nil without Config.TCP
	open      net.Listener // of Config.MetricsAddr, or nil
	token     string
	sessions  sessions
	transfers transfers
	uploading chan struct{} // holds a token for each upload under way
	batches   batches
	links     links
	watchers  atomic.Int32 // clients of events
	recording sync.Mutex   // one writer of transfersName at a time
	limiting  sync.Mutex   // one change of the limits at a time
}

// Listen opens the listeners; connections wait until Run.
func Listen(cfg Config) (_ *Server, err error) {
	s := &Server{cfg: cfg, log: cfg.Log, started: time.Now(), uploading: make(chan struct{}, uploadsMax)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.unix, err = listenSocket(cfg.Home); err != nil {
		return nil, err
	}
	if cfg.TCP {
		if s.token, err = newToken(cfg.Home); err != nil {
			return nil, err
		}
		if s.tcp, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	}
	if cfg.MetricsAddr.IsValid() {
		if s.open, err = net.Listen("tcp", cfg.MetricsAddr.String()); err != nil {
			return nil, fmt.Errorf("listen for metrics: %w", err)
		}
	}
	return s, nil
}

// MetricsURL is where metrics are served without a token; empty: nowhere.
func (s *Server) MetricsURL() string {
	if s.open == nil {
		return ""
	}
	return "http://" + s.open.Addr().String() + pathMetrics
}

// URL is the address of the TCP side, as http://127.0.0.1:4711; empty when
// there is none.
func (s *Server) URL() string {
	if s.tcp == nil {
		return ""
	}
	return "http://" + s.tcp.Addr().String()
}

func (s *Server) port() string { return strconv.Itoa(s.tcp.Addr().(*net.TCPAddr).Port) }

// Run answers requests until ctx ends, cancels those that are open then, waits
// for them, and returns nil. Call it once.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	s.goOn(ctx, g)
	api := s.routes(ctx, g)
	serve(ctx, g, s.unix, &guard{next: api})
	if s.tcp != nil {
		port := s.port()
		serve(ctx, g, s.tcp, &guard{hosts: []string{"127.0.0.1:" + port, "localhost:" + port}, token: s.token,
			cookie: s.cookieName(), sessions: &s.sessions, next: api})
	}
	if s.open != nil {
		s.serveMetrics(ctx, g, s.open)
	}
	return g.Wait()
}

// serve runs an HTTP server on l in goroutines of g until ctx ends.
func serve(ctx context.Context, g *errgroup.Group, l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler:           boundBodies(h, bodyTimeout),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerMax,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	g.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done() // ends the requests' contexts too
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(wait) != nil {
			server.Close() // a client that does not read its answer
		}
		return nil
	})
}

// Close closes the listeners and removes the socket. Run must have returned,
// or never have been called. It may be called twice.
func (s *Server) Close() error {
	if s.tcp != nil {
		s.tcp.Close()
	}
	if s.open != nil {
		s.open.Close()
	}
	if s.unix != nil {
		s.unix.Close()
		os.Remove(filepath.Join(s.cfg.Home, socketName)) // the symbolic link, where it is one
	}
	return nil
}

// route is one operation of the API.
type route struct {
	method, path string // a pattern of http.ServeMux
	handle       http.HandlerFunc
}

// routes returns the API. Detached transfers run under ctx in g.
func (s *Server) routes(ctx context.Context, g *errgroup.Group) http.Handler {
	mux := http.NewServeMux()
	for _, r := range s.table(ctx, g) {
		mux.HandleFunc(r.method+" "+r.path, r.handle)
	}
	if s.cfg.Page != nil {
		s.servePage(mux)
	}
	contents := newGateway(s)
	contents.serveOn(mux)
	newDrive(s, contents).serveOn(mux)
	s.operate(mux)
	if s.cfg.Pprof {
		profile(mux)
	}
	return mux
}

// table lists the operations, each of which openapi.json describes.
func (s *Server) table(ctx context.Context, g *errgroup.Group) []route {
	return []route{
		{"POST", pathShares, s.addShare},
		{"GET", pathShares, s.listShares},
		{"DELETE", pathShares, s.removeShare},
		{"POST", pathTransfers, func(w http.ResponseWriter, r *http.Request) { s.addTransfer(ctx, g, w, r) }},
		{"GET", pathTransfers, s.listTransfers},
		{"POST", pathTransfers + "/{op}", s.changeTransfer},
		{"POST", pathLimits, s.changeLimits},
		{"POST", pathVerify, s.verify},
		{"POST", pathCollect, s.collect},
		{"GET", pathEntries, s.listEntries},
		{"GET", pathFind, s.find},
		{"GET", pathPeers, s.listPeers},
		{"GET", pathNeighbors, s.listNeighbors},
		{"POST", pathNeighbors + "/probe", s.probeNeighbors},
		{"GET", pathDoctor, s.examine},
		{"GET", pathGroups, s.listGroups},
		{"GET", pathGroups + "/survey", s.surveyGroup},
		{"GET", pathGroups + "/members", s.listMembers},
		{"GET", pathGroups + "/log", s.listChanges},
		{"POST", pathGroups + "/plan", s.planGroup},
		{"POST", pathGroups + "/{op}", s.changeGroup},
		{"POST", pathPins, s.addPin},
		{"DELETE", pathPins, s.removePin},
		{"GET", pathPins, s.listPins},
		{"GET", pathNames, s.listNames},
		{"POST", pathNames + "/{op}", s.changeNames},
		{"GET", pathStatus, s.status},
		{"GET", pathID, s.id},
		{"POST", pathServeLink, func(w http.ResponseWriter, r *http.Request) { s.serveLink(ctx, g, w, r) }},
		{"GET", pathServeLink, s.listLinks},
		{"DELETE", pathServeLink, s.stopLink},
		{"GET", pathEvents, s.events},
		{"POST", pathUploads, s.upload},
		{"GET", pathLink, s.link},
		{"GET", pathQR, s.qr},
		{"POST", pathSessions, s.newSession},
		{"POST", pathLogin, s.login},
		{"POST", pathLogout, s.logout},
		{"GET", pathOpenAPI, s.openAPI},
	}
}
