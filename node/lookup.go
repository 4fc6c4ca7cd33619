package node

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
)

const (
	lookupParallel = 3           // requests at a time, in one DHT; α of the Kademlia paper
	lookupHeardMax = 20          // peers of one answer that are taken up: as many as there should be
	lookupWait     = time.Second // for one answer: three round trips between the ends of the Earth
	// lookupAnswerMax is the largest answer that is read: network.MessageSizeMax, as
	// kad-dht's own.
	lookupAnswerMax = 4 << 20
)

// FindProvidersWithin asks both DHTs who provides key, and yields peers as they are
// found, each once, as [Node.FindProviders] does. That one asks twenty peers of each
// DHT or more, so as to find all there are; this one ends when the closest to the key,
// so many, have answered, and asks no more on the way to them than sent allows: it is
// called before each request, also from several goroutines, and false ends the lookup.
//
// Source: Maymounkov and Mazières, "Kademlia", 2002, section 2.3; FIND_VALUE with
// libp2p's GET_PROVIDERS (specs, kad-dht).
func (n *Node) FindProvidersWithin(ctx context.Context, key mh.Multihash, closest int, sent func() bool) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		if n.dht == nil {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		found := make(chan peer.AddrInfo)
		var lookups sync.WaitGroup
		for _, l := range []*lookup{
			{dht: n.dht.dual.WAN, protocol: protocolWAN, accept: publicAddrs},
			{dht: n.dht.dual.LAN, protocol: protocolLAN, accept: lanAddrs},
		} {
			l.node, l.key, l.closest, l.sent, l.found = n, key, closest, sent, found
			lookups.Go(func() { l.run(ctx) })
		}
		ended := make(chan struct{})
		go func() {
			lookups.Wait()
			close(ended)
		}()
		defer func() { <-ended }()
		defer cancel()
		seen := map[peer.ID]bool{n.ID(): true}
		for {
			select {
			case p := <-found:
				if seen[p.ID] {
					continue
				}
				seen[p.ID] = true
				if !yield(p) {
					return
				}
			case <-ended:
				return
			}
		}
	}
}

// publicAddrs are those of addrs at which a peer of the WAN DHT may be dialled.
func publicAddrs(addrs []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool {
		s, _, ok := scopeOf(a)
		return !ok || s != scopePublic
	})
}

// lookup is one lookup in one DHT.
type lookup struct {
	node     *Node
	dht      *dht.IpfsDHT
	protocol protocol.ID
	accept   func([]ma.Multiaddr) []ma.Multiaddr
	key      mh.Multihash
	closest  int
	sent     func() bool
	found    chan<- peer.AddrInfo

	mu    sync.Mutex             // guards all below
	state map[peer.ID]askedState // of each that was heard of
	over  bool                   // no further request is allowed
}

type askedState int

const (
	stateHeard askedState = iota
	stateAsked
	stateAnswered
	stateFailed
)

func (l *lookup) run(ctx context.Context) {
	l.state = map[peer.ID]askedState{}
	for _, p := range l.dht.RoutingTable().NearestPeers(kb.ConvertKey(string(l.key)), lookupHeardMax) {
		l.state[p] = stateHeard
	}
	if own, err := l.dht.ProviderStore().GetProviders(ctx, l.key); err == nil {
		l.tell(ctx, own)
	}
	for ctx.Err() == nil {
		next := l.next()
		if len(next) == 0 {
			return
		}
		var g errgroup.Group
		for _, p := range next {
			g.Go(func() error {
				l.ask(ctx, p)
				return nil
			})
		}
		g.Wait()
	}
}

// next are those to be asked now: of the closest that have not failed those that were
// not asked yet.
func (l *lookup) next() (next []peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var alive []peer.ID
	for p, s := range l.state {
		if s != stateFailed {
			alive = append(alive, p)
		}
	}
	closest := kb.SortClosestPeers(alive, kb.ConvertKey(string(l.key)))
	for _, p := range closest[:min(len(closest), l.closest)] {
		if l.state[p] == stateHeard && len(next) < lookupParallel && !l.over {
			if l.over = !l.sent(); l.over {
				break
			}
			l.state[p] = stateAsked
			next = append(next, p)
		}
	}
	return next
}

// ask asks one peer, and takes up what it answers.
func (l *lookup) ask(ctx context.Context, p peer.ID) {
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	providers, closer, err := l.request(ctx, p)
	l.mu.Lock()
	l.state[p] = stateAnswered
	if err != nil {
		l.state[p] = stateFailed
	}
	for _, q := range closer[:min(len(closer), lookupHeardMax)] {
		addrs := l.accept(q.Addrs)
		if _, known := l.state[q.ID]; known || q.ID == l.node.ID() || len(addrs) == 0 {
			continue
		}
		l.state[q.ID] = stateHeard
		l.node.host.Peerstore().AddAddrs(q.ID, addrs, peerstore.TempAddrTTL)
	}
	l.mu.Unlock()
	l.tell(ctx, providers)
}

func (l *lookup) tell(ctx context.Context, providers []peer.AddrInfo) {
	for _, p := range providers {
		select {
		case l.found <- p:
		case <-ctx.Done():
			return
		}
	}
}

// request sends GET_PROVIDERS to p.
func (l *lookup) request(ctx context.Context, p peer.ID) (providers, closer []peer.AddrInfo, err error) {
	s, err := l.node.host.NewStream(ctx, p, l.protocol)
	if err != nil {
		return nil, nil, err
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	question, err := proto.Marshal(pb.NewMessage(pb.Message_GET_PROVIDERS, l.key, 0))
	if err != nil {
		return nil, nil, err
	}
	if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(question))), question...)); err != nil {
		return nil, nil, err
	}
	answer, err := readKadMessage(bufio.NewReader(s))
	if err != nil {
		return nil, nil, fmt.Errorf("answer of %s: %w", p, err)
	}
	return addrInfos(answer.GetProviderPeers()), addrInfos(answer.GetCloserPeers()), nil
}

var errKadMessage = errors.New("malformed DHT message")

// readKadMessage reads one message with its length before it.
func readKadMessage(r *bufio.Reader) (*pb.Message, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if size > lookupAnswerMax {
		return nil, fmt.Errorf("%w: it has %d bytes", errKadMessage, size)
	}
	b := make([]byte, 0, min(size, 64<<10)) // grows with what comes, whatever was said
	for n := uint64(0); n < size; n = uint64(len(b)) {
		part := make([]byte, min(size-n, 64<<10))
		if _, err := io.ReadFull(r, part); err != nil {
			return nil, err
		}
		b = append(b, part...)
	}
	var m pb.Message
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errKadMessage, err)
	}
	return &m, nil
}

func addrInfos(peers []*pb.Message_Peer) []peer.AddrInfo {
	infos := make([]peer.AddrInfo, 0, len(peers))
	for _, p := range pb.PBPeersToPeerInfos(peers) {
		infos = append(infos, *p)
	}
	return infos
}
