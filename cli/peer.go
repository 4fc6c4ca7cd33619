package cli

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/cli/web"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// ownPeer is a peer in this process: a node, the library on it, and the control
// API that both the command and other commands of the home talk to.
type ownPeer struct {
	node    *node.Node
	library *share.Library
	coord   *coord.Coord
	control *control.Server
	peers   []peer.AddrInfo // to dial once it runs
}

// openPeer opens the peer that a command needs. It returns node.ErrHomeLocked
// when another process has the home.
func (a *app) openPeer(ctx context.Context, s *settings, need need) (_ *ownPeer, err error) {
	p := &ownPeer{peers: s.peers}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	log := a.logger()
	offline := need.service == control.ServiceHome
	var entries []peer.AddrInfo
	if !offline {
		entries = a.resolve(ctx, s.bootstrap)
	}
	var metrics *prometheus.Registry
	if need.service == control.ServiceServing {
		metrics = prometheus.NewRegistry()
	}
	p.node, err = node.New(ctx, node.Config{Dir: s.home, Role: need.role, Offline: offline,
		Listen: s.listen, Bootstrap: entries, NoDHT: s.noDHT, NoMulticast: s.noLAN,
		LANPort: s.lanPort, Alias: s.alias, Values: share.ValueRecords(),
		UserAgent: "p2pshare/" + version(), Metrics: registerer(metrics), Log: log})
	if err != nil {
		return nil, err
	}
	if p.library, err = share.Open(p.node, share.Config{UpMax: s.maxUp, DownMax: s.maxDown, CacheMax: s.cacheMax,
		NoWatch: need.service != control.ServiceServing, Log: log}); err != nil {
		return nil, err
	}
	if !offline {
		if p.coord, err = coord.Open(p.node, coord.Config{Store: p.library, Scrub: s.scrub, FetchMax: s.maxRepair,
			Capacity: s.capacity, Log: log}); err != nil {
			return nil, err
		}
		p.library.SetIndex(p.coord.Resolve, func() bool { return len(p.coord.Known()) > 0 })
		p.library.SetSearchIndex(p.coord.Search)
	}
	p.control, err = control.Listen(control.Config{Home: s.home, Node: p.node, Library: p.library, Coord: p.coord,
		Service: need.service, TCP: need.service == control.ServiceServing, Peers: s.peers,
		Metrics: gatherer(metrics), MetricsAddr: s.metricsAddr(need), Pprof: s.pprof,
		Folder: s.folder, Page: web.Files(), Alias: s.alias, Version: version(), Log: log})
	return p, err
}

// metricsAddr is where metrics are served without a token: by a peer that stays.
func (s *settings) metricsAddr(need need) netip.AddrPort {
	if need.service != control.ServiceServing {
		return netip.AddrPort{}
	}
	return s.metrics
}

// registerer and gatherer are both sides of r; nil, and not an interface that holds
// nil, where there is none.
func registerer(r *prometheus.Registry) prometheus.Registerer {
	if r == nil {
		return nil
	}
	return r
}

func gatherer(r *prometheus.Registry) prometheus.Gatherer {
	if r == nil {
		return nil
	}
	return r
}

// run runs the peer for the length of fn, and closes it. fn is called once the
// peer listens; its context ends when the peer fails, whose error is then
// returned instead of fn's.
func (p *ownPeer) run(ctx context.Context, fn func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.node.Run(ctx) })
	g.Go(func() error { return p.library.Run(ctx) })
	if p.coord != nil && p.node.Role() != node.RoleVisitor {
		g.Go(func() error { return p.coord.Run(ctx) })
	}
	g.Go(func() error { return p.control.Run(ctx) })
	var fnErr error
	g.Go(func() error {
		defer stop()
		select {
		case <-p.node.Listening():
		case <-ctx.Done():
			fnErr = ctx.Err()
			return nil
		}
		for _, q := range p.peers {
			g.Go(func() error {
				p.node.Connect(ctx, q) // a search that needs it dials it again, and tells
				return nil
			})
		}
		fnErr = fn(ctx)
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()
	err, hangs := p.await(ended)
	if hangs {
		return err
	}
	return cmp.Or(err, fnErr, p.close())
}

// leaveMax is how long a peer whose disk has failed may take to end. What is at work
// may hang in that disk for good, while other members wait for this one to be gone.
const leaveMax = 500 * time.Millisecond

// await returns the error with which the peer ended. If it hangs in a disk that has
// failed it has not, but the process should.
func (p *ownPeer) await(ended <-chan error) (err error, hangs bool) {
	var failed <-chan error // of no group: never
	if p.coord != nil {
		failed = p.coord.Failed()
	}
	select {
	case err := <-ended:
		return err, false
	case why := <-failed:
		select {
		case err := <-ended:
			return err, false
		case <-time.After(leaveMax):
			return why, true
		}
	}
}

// close releases what openPeer opened, in reverse.
func (p *ownPeer) close() error {
	var errs []error
	if p.control != nil {
		errs = append(errs, p.control.Close())
	}
	if p.coord != nil {
		errs = append(errs, p.coord.Close())
	}
	if p.library != nil {
		errs = append(errs, p.library.Close())
	}
	if p.node != nil {
		errs = append(errs, p.node.Close())
	}
	return errors.Join(errs...)
}

// ready is what is told once the peer listens.
func (p *ownPeer) ready() *control.Ready {
	return &control.Ready{PeerID: p.node.ID(), Addrs: control.FullAddrs(p.node), API: p.control.URL(), Metrics: p.control.MetricsURL()}
}

// resolveTimeout bounds the DNS lookups of bootstrap addresses that have no
// peer ID of their own; the others are resolved when they are dialled.
const resolveTimeout = 3 * time.Second

// resolve turns bootstrap addresses into peers, looking up the dnsaddr ones
// that name no peer. A name that does not resolve is warned of and left out:
// the rest of the network may still be there.
func (a *app) resolve(ctx context.Context, addrs []ma.Multiaddr) []peer.AddrInfo {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found := make([][]ma.Multiaddr, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		if _, err := addr.ValueForProtocol(ma.P_P2P); err == nil {
			found[i] = []ma.Multiaddr{addr}
			continue
		}
		wg.Go(func() {
			answers, err := madns.DefaultResolver.Resolve(ctx, addr)
			if err != nil {
				a.logger().Warn("bootstrap address does not resolve", "addr", addr, "err", err)
			}
			for _, answer := range answers {
				if _, err := answer.ValueForProtocol(ma.P_P2P); err == nil {
					found[i] = append(found[i], answer)
				}
			}
		})
	}
	wg.Wait()
	var all []ma.Multiaddr
	for i, answers := range found {
		if len(answers) == 0 {
			a.note("bootstrap address %s leads to no peer", addrs[i])
		}
		all = append(all, answers...)
	}
	peers, err := peer.AddrInfosFromP2pAddrs(all...)
	if err != nil { // each has a /p2p part
		panic(err)
	}
	return peers
}

// relative is path as seen from dir when it lies inside, else path.
func relative(dir, path string) string {
	if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}
