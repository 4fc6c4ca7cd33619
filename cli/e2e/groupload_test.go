package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	p2ppeer "github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// writer is a node in this process that is no member of the group, and may write
// to it. It has a connection of its own.
type writer struct {
	node  *node.Node
	coord *coord.Coord
}

// newWriters runs count nodes until the test ends, to each of which an admin of
// the group grants the role of writer.
func newWriters(t testing.TB, admin *member, count int) []*writer {
	t.Helper()
	var all []*writer
	for range count {
		n, err := node.New(t.Context(), node.Config{Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, NoDHT: true, NoMulticast: true})
		if err != nil {
			t.Fatal(err)
		}
		c, err := coord.Open(n, coord.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		<-n.Listening()
		t.Cleanup(func() {
			err := c.Close()
			cancel()
			if err := errors.Join(err, <-ended, n.Close()); err != nil {
				t.Errorf("stop a writer: %v", err)
			}
		})
		if r := admin.runPlain(t, "group", "grant", n.ID().String(), "writer"); r.code != 0 {
			t.Fatalf("group grant: exit %d\n%s", r.code, r.stderr)
		}
		all = append(all, &writer{n, c})
	}
	return all
}

// ask is the group as the writer sees it through some members, the first of
// which it asks first.
func (w *writer) ask(t testing.TB, group coord.GroupID, via ...*member) *coord.Client {
	t.Helper()
	return w.coord.Client(group, addrsOf(t, via)...)
}

// addrsOf are where members listen.
func addrsOf(t testing.TB, all []*member) (infos []p2ppeer.AddrInfo) {
	t.Helper()
	for _, m := range all {
		info, err := p2ppeer.AddrInfoFromString(m.daemon.addr(t))
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, *info)
	}
	return infos
}

// groupID is the ID of the one group that a member is in.
func groupID(t testing.TB, m *member) coord.GroupID {
	t.Helper()
	r := m.runPlain(t, "group", "status")
	if r.code != 0 || len(r.events) == 0 {
		t.Fatalf("group status: exit %d\n%s", r.code, r.stderr)
	}
	id, err := coord.ParseGroupID(r.events[0].text("id"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// leaderFirst returns the members with the leader before the others, once there is
// one.
func leaderFirst(t *testing.T, all []*member) []*member {
	t.Helper()
	status := awaitGroup(t, all[0], "a leader", func(g event) bool { return g.text("leader") != "" })
	i := slices.IndexFunc(all, func(m *member) bool { return m.id == status.text("leader") })
	if i < 0 {
		t.Fatalf("the leader is none of the members: %v", status)
	}
	list := slices.Clone(all)
	list[0], list[i] = list[i], list[0]
	return list
}

// contentID is the nth of many that have nothing in common.
func contentID(n int) content.ID {
	return content.ID(sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n))))
}

// filePin is the nth pin of a large group: a name as files have them, and one of
// fifty sources with three addresses each.
func filePin(n int) coord.PinOptions {
	return coord.PinOptions{
		Name: share.Name(fmt.Sprintf("Report %07d.pdf", n)), ID: contentID(n), Kind: coord.KindFile, Size: int64(n) * 977,
		Source: &coord.Source{Peer: coord.Peer(fmt.Sprintf("12D3KooWSource%02d5oXy8m2ZGwk3nU3y9Nn2nq7vTfLQ2aJpXy", n%50)),
			Addrs: []string{"/ip4/192.168.10.20/tcp/24042", "/ip4/192.168.10.20/udp/24042/quic-v1", "/ip6/2001:db8::1234/tcp/24042"}},
	}
}

// valuePin is a pin that says 256 bytes: 32 of the content's ID, 52 of the source's
// peer ID, 28 of its address, and 144 of name.
func valuePin(n int) coord.PinOptions {
	p := filePin(n)
	p.Source.Addrs = p.Source.Addrs[:1]
	rest := 256 - len(p.ID) - len(p.Source.Peer) - len(p.Source.Addrs[0])
	name := fmt.Sprintf("report %012d ", n)
	p.Name = share.Name(name + strings.Repeat("x", rest-len(name)))
	return p
}

// writeLoad is what a run of writes came to.
type writeLoad struct {
	writes  int
	took    time.Duration
	latency []time.Duration // of each write, in order of length
}

func (l writeLoad) perSecond() float64 { return float64(l.writes) / l.took.Seconds() }

func (l writeLoad) quantile(q float64) time.Duration {
	if len(l.latency) == 0 {
		return 0
	}
	return l.latency[min(len(l.latency)-1, int(q*float64(len(l.latency))))]
}

func (l writeLoad) String() string {
	return fmt.Sprintf("%d writes in %v, %.0f/s; p50 %v, p99 %v, max %v", l.writes, l.took.Round(10*time.Millisecond), l.perSecond(),
		l.quantile(0.5).Round(10*time.Microsecond), l.quantile(0.99).Round(10*time.Microsecond), l.quantile(1).Round(10*time.Microsecond))
}

// write pins what pin makes of the numbers from next on, with inFlight at a time,
// until there were count writes or ctx ends. A write that is lost is an error.
func write(ctx context.Context, clients []*coord.Client, inFlight, count int, next *atomic.Int64, pin func(int) coord.PinOptions) (writeLoad, error) {
	var (
		mu    sync.Mutex
		total writeLoad
		errs  []error
		left  atomic.Int64
		tasks sync.WaitGroup
	)
	left.Store(int64(count))
	began := time.Now()
	for i := range inFlight {
		cl := clients[i%len(clients)]
		tasks.Go(func() {
			var latency []time.Duration
			var err error
			for ctx.Err() == nil && err == nil && left.Add(-1) >= 0 {
				at := time.Now()
				// Not ctx: a write that is under way is finished, and counts.
				if _, err = cl.Pin(context.Background(), pin(int(next.Add(1)))); err == nil {
					latency = append(latency, time.Since(at))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total.latency = append(total.latency, latency...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	tasks.Wait()
	total.took, total.writes = time.Since(began), len(total.latency)
	slices.Sort(total.latency)
	return total, errors.Join(errs...)
}
