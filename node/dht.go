package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	leveldb "github.com/ipfs/go-ds-leveldb"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/dual"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// protocolPrefix makes /p2pshare/kad/1.0.0 and /p2pshare/lan/kad/1.0.0. It is
// set on each DHT by itself: dual.DHTOption(ProtocolPrefix) would drop "/lan".
const protocolPrefix protocol.ID = "/p2pshare"

// What the two DHTs speak.
const (
	protocolWAN = protocolPrefix + "/kad/1.0.0"
	protocolLAN = protocolPrefix + dual.LanExtension + "/kad/1.0.0"
)

// kadProtocols are what servers of the DHTs say to speak.
var kadProtocols = []protocol.ID{
	protocolWAN,
	protocolLAN,
}

// Lifetimes of provider records, at kad-dht's defaults; see valueAge for the others.
const (
	recordAge       = 48 * time.Hour
	providerAddrAge = 24 * time.Hour
)

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// ValueValidator judges DHT value records of one namespace; see
// go-libp2p-record. Both methods must be pure and cheap.
type ValueValidator interface {
	// Validate returns an error for a value that must not be under key.
	Validate(key string, value []byte) error
	// Select returns the index of the best of several valid values.
	Select(key string, values [][]byte) (int, error)
}

// routing is this peer's place in the two DHTs.
type routing struct {
	node  *Node
	dual  *dual.DHT
	store datastore.Batching
	addrs *addrBook
	sweep *sweeper // nil unless RolePeer

	joinOnce sync.Once
	joined   chan struct{} // closed when the first peer enters a routing table
}

func newRouting(ctx context.Context, n *Node) (_ *routing, err error) {
	r := &routing{node: n, joined: make(chan struct{})}
	if r.store, err = openRecordStore(n); err != nil {
		return nil, err
	}
	r.addrs = newAddrBook(namespace.Wrap(r.store, datastore.NewKey("/addrs")))
	if err := r.addrs.load(ctx, n.host.Peerstore(), time.Now()); err != nil {
		return nil, errors.Join(err, r.store.Close())
	}
	mode := dht.ModeAuto
	switch n.cfg.Role {
	case RoleHelper:
		mode = dht.ModeServer
	case RoleVisitor:
		mode = dht.ModeClient
	}
	validators := record.NamespacedValidator{}
	for ns, v := range n.cfg.Values {
		validators[ns] = v
	}
	common := []dht.Option{
		dht.Concurrency(3), // a third of the default's messages at the same latency
		dht.Resiliency(3),
		dht.Validator(validators),
		dht.MaxRecordAge(valueAge),
		dht.ProviderManagerOpts(records.ProvideValidity(recordAge), records.ProviderAddrTTL(providerAddrAge)),
		dht.OnRequestHook(r.noteProvider),
		dht.BootstrapPeersFunc(n.bootstrapOnceListening),
	}
	r.dual, err = dual.New(n.host,
		dual.DHTOption(common...),
		dual.WanDHTOption(dht.ProtocolPrefix(protocolPrefix), dht.Mode(mode),
			dht.Datastore(namespace.Wrap(r.store, datastore.NewKey("/wan")))),
		dual.LanDHTOption(dht.ProtocolPrefix(protocolPrefix), dht.ProtocolExtension(dual.LanExtension),
			dht.AddressFilter(lanAddrs), dht.RoutingTableFilter(lanPeer),
			dht.Datastore(namespace.Wrap(r.store, datastore.NewKey("/lan")))),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start DHT: %w", err), r.store.Close())
	}
	for _, d := range []*dht.IpfsDHT{r.dual.WAN, r.dual.LAN} {
		table := d.RoutingTable()
		added := table.PeerAdded
		table.PeerAdded = func(p peer.ID) {
			added(p)
			r.joinOnce.Do(func() { close(r.joined) })
			if n.isBootstrap(p) {
				n.signalChanged()
			}
		}
	}
	if n.cfg.Role == RolePeer {
		if r.sweep, err = newSweeper(r); err != nil {
			return nil, errors.Join(err, r.close(), r.closeStore())
		}
	}
	return r, nil
}

// openRecordStore opens the store of provider records, values and the sweep's
// state. kad-dht's default, a map, is scanned whole on each miss, so a server
// needs a real one. All in it can be made again: a store that does not open is
// put aside and begun anew, and on a full disk memory does until the next start.
func openRecordStore(n *Node) (datastore.Batching, error) {
	inMemory := dssync.MutexWrap(datastore.NewMapDatastore())
	if n.home == nil || n.cfg.Role == RoleVisitor {
		return inMemory, nil
	}
	dir := filepath.Join(n.home.Dir(), "dht")
	store, err := leveldb.NewDatastore(dir, nil)
	if err == nil {
		return store, nil
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) { // nothing is broken
		n.log.Warn("the disk is full: DHT records are kept in memory", "dir", dir, "err", err)
		return inMemory, nil
	}
	n.log.Warn("DHT store does not open, beginning a new one", "dir", dir, "err", err)
	aside := dir + ".broken"
	if err := errors.Join(os.RemoveAll(aside), os.Rename(dir, aside)); err != nil {
		return nil, fmt.Errorf("put aside broken DHT store: %w", err)
	}
	if store, err = leveldb.NewDatastore(dir, nil); err != nil {
		return nil, fmt.Errorf("open DHT store %s: %w", dir, err)
	}
	return store, nil
}

// lanAddrs are the addresses of a peer that the LAN DHT keeps and tells.
func lanAddrs(addrs []ma.Multiaddr) []ma.Multiaddr { return preferNonLoopback(addrs) }

// lanPeer accepts into the LAN DHT's table the peers that kad-dht takes for
// local, and those connected over loopback.
func lanPeer(d any, p peer.ID) bool {
	if dht.PrivateRoutingTableFilter(d, p) {
		return true
	}
	h, ok := d.(*dht.IpfsDHT)
	if !ok {
		return false
	}
	for _, c := range h.Host().Network().ConnsToPeer(p) {
		if manet.IsIPLoopback(c.RemoteMultiaddr()) {
			return true
		}
	}
	return false
}

// noteProvider keeps the addresses of a peer that announces itself here.
func (r *routing) noteProvider(ctx context.Context, s network.Stream, request *pb.Message) {
	if request.GetType() != pb.Message_ADD_PROVIDER {
		return
	}
	for _, p := range pb.PBPeersToPeerInfos(request.GetProviderPeers()) {
		if p.ID != s.Conn().RemotePeer() || len(p.Addrs) == 0 {
			continue // nobody announces another
		}
		if err := r.addrs.put(ctx, *p, time.Now()); err != nil {
			r.node.log.Warn("keep a provider's addresses", "peer", p.ID, "err", err)
		}
		return
	}
}

// run keeps the tables fresh until ctx ends.
func (r *routing) run(ctx context.Context) error {
	if err := r.dual.Bootstrap(ctx); err != nil {
		return fmt.Errorf("refresh DHT tables: %w", err)
	}
	<-ctx.Done()
	return nil
}

func (r *routing) close() error {
	var errs []error
	if r.sweep != nil {
		errs = append(errs, r.sweep.close())
	}
	return errors.Join(append(errs, r.dual.Close())...)
}

// closeStore comes after the host has closed: kad-dht's value store does not
// fence reads that are still under way.
func (r *routing) closeStore() error { return r.store.Close() }

// peers counts the connected members of both tables.
func (r *routing) peers() int {
	seen := map[peer.ID]bool{}
	for _, d := range []*dht.IpfsDHT{r.dual.WAN, r.dual.LAN} {
		for _, p := range d.RoutingTable().ListPeers() {
			if r.node.host.Network().Connectedness(p) == network.Connected {
				seen[p] = true
			}
		}
	}
	return len(seen)
}

// knows reports whether p is in either table.
func (r *routing) knows(p peer.ID) bool {
	return r.dual.WAN.RoutingTable().Find(p) != "" || r.dual.LAN.RoutingTable().Find(p) != ""
}

// DHTPeers is how many peers of the DHTs this peer is connected to.
func (n *Node) DHTPeers() int {
	if n.dht == nil {
		return 0
	}
	return n.dht.peers()
}
