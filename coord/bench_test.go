package coord

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// newTCPPeers runs count peers with connections of TCP on loopback and files on
// the disk of the temporary directory, until the benchmark ends.
func newTCPPeers(b *testing.B, count int) []*testPeer {
	b.Helper()
	var all []*testPeer
	for range count {
		n, err := node.New(b.Context(), node.Config{Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, NoMulticast: true, NoDHT: true})
		if err != nil {
			b.Fatal(err)
		}
		p := &testPeer{n: n, dir: b.TempDir()}
		p.start(b)
		stop := background(n.Run)
		<-n.Listening()
		b.Cleanup(func() {
			if err := errors.Join(p.stop(), p.Close(), stop(), n.Close()); err != nil {
				b.Error(err)
			}
		})
		all = append(all, p)
	}
	return all
}

// BenchmarkPin pins 256 bytes at a time through the leader of three voters, all in
// this process: one client, and many that share connections by eight. Beside etcd
// it is cli/e2e's TestBesideEtcd.
func BenchmarkPin(b *testing.B) {
	all := newTCPPeers(b, 3+16)
	w := &world{t: b, peers: all}
	id := w.found(3)[0].ID()
	m, err := all[0].group(id)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := m.running(); err != nil {
		b.Fatal(err)
	}
	var via []peer.AddrInfo
	for _, p := range all[:3] {
		via = append(via, p.n.AddrInfo())
	}
	for _, p := range all[3:] {
		if err := all[0].Client(id).Grant(b.Context(), p.n.ID(), RoleWriter); err != nil {
			b.Fatal(err)
		}
	}
	var next atomic.Int64
	pin := func(cl *Client) error {
		i := next.Add(1)
		o := PinOptions{ID: content.ID(sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))), Kind: KindFile, Size: i,
			Source: &Source{Peer: Peer(all[0].me), Addrs: []string{"/ip4/192.168.10.20/tcp/24042"}}}
		o.Name = share.Name(fmt.Sprintf("report %012d %s", i, strings.Repeat("x", 124)))
		_, err := cl.Pin(b.Context(), o)
		return err
	}
	for _, clients := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			var list []*Client
			for i := range clients {
				cl := all[3+i/8].Client(id, via...)
				if _, _, err := cl.Status(b.Context()); err != nil {
					b.Fatal(err)
				}
				list = append(list, cl)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			start := time.Now()
			for _, cl := range list {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if err := pin(cl); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "pins/s")
		})
	}
}
