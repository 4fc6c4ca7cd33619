package node

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	// placeReplicas is to how many peers a record is sent: k of the Kademlia paper.
	placeReplicas = 20
	// placeRegionMax is how many peers of the sweep's regions are told apart.
	placeRegionMax = 3 * placeReplicas
	// placeKnown is for how long the list of known members is used.
	placeKnown = 2 * time.Second
)

// placer sends records of the sweep to the peers closest to their keys, where they are
// looked for.
//
// The sweep of kad-dht 0.42.2 does not, in networks of more than about 40 peers: it
// compares the keys of a region by their bits from the first one on, and its peers by
// theirs from the first after the region's prefix on (AllocateToKClosest, called with a
// subtrie). Of the region's peers, 20 or more, it takes 20, and the closest may be among
// the others. So what goes to one that is not of the 20 closest goes to one that is, too:
// for the 21st closest of a region's peers to the closest, for the 22nd to the second, and
// so on. Where the sweep is right, this changes nothing; and nobody who claims to be closer
// takes a record from those that the sweep has found.
type placer struct {
	pb.MessageSender
	host     host.Host
	protocol protocol.ID // of the DHT

	mu      sync.Mutex
	members []member  // guarded by mu: of the DHT, as far as known, by their place
	looked  time.Time // guarded by mu: when
}

// member is a peer and its place in the keyspace.
type member struct {
	peer.ID
	place kb.ID // 32 bytes
}

// SendMessage implements pb.MessageSender.
func (p *placer) SendMessage(ctx context.Context, to peer.ID, m *pb.Message) error {
	err := p.MessageSender.SendMessage(ctx, to, m)
	if m.GetType() == pb.Message_ADD_PROVIDER {
		closer := p.place(to, kb.ConvertKey(string(m.GetKey())))
		if closer != to && p.MessageSender.SendMessage(ctx, closer, m) == nil {
			return nil
		}
	}
	return err
}

// place is to whom a record goes that is meant for to, beside that; to itself for nobody.
func (p *placer) place(to peer.ID, key kb.ID) peer.ID {
	near := nearest(p.known(), key, placeRegionMax)
	rank := slices.IndexFunc(near, func(m member) bool { return m.ID == to })
	if rank < placeReplicas {
		return to
	}
	return near[rank%placeReplicas].ID
}

// known are the members of the DHT that this peer has met, as they say, sorted by their
// places. The sweep has asked all of a region before it sends records.
func (p *placer) known() []member {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.looked) < placeKnown {
		return p.members
	}
	var members []member
	for _, id := range p.host.Peerstore().PeersWithAddrs() {
		if spoken, err := p.host.Peerstore().SupportsProtocols(id, p.protocol); err == nil && len(spoken) > 0 && id != p.host.ID() {
			members = append(members, member{id, kb.ConvertPeerID(id)})
		}
	}
	slices.SortFunc(members, func(a, b member) int { return bytes.Compare(a.place, b.place) })
	p.members, p.looked = members, time.Now()
	return members
}

// nearest returns at least n of members, or all, the closest to key first. All that are
// closer than the last are among them. members are sorted by place.
func nearest(members []member, key kb.ID, n int) []member {
	low, high := 0, len(members)
	for bit := 0; bit < 8*len(key) && high-low > n; bit++ { // into the half that the key is in
		one := low + searchBit(members[low:high], bit)
		if key[bit/8]&(0x80>>(bit%8)) == 0 {
			if one-low < n {
				break
			}
			high = one
		} else {
			if high-one < n {
				break
			}
			low = one
		}
	}
	near := slices.Clone(members[low:high])
	slices.SortFunc(near, func(a, b member) int {
		for i := range key {
			if c := cmp.Compare(a.place[i]^key[i], b.place[i]^key[i]); c != 0 {
				return c
			}
		}
		return 0
	})
	return near
}

// searchBit is how many of members, which agree in all bits before it, have it 0.
func searchBit(members []member, bit int) int {
	n, _ := slices.BinarySearchFunc(members, byte(1), func(m member, one byte) int {
		return cmp.Compare(m.place[bit/8]>>(7-bit%8)&1, one)
	})
	return n
}
