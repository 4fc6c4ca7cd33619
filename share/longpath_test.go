package share

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// delayProxy is a path with a round trip: it hands on each byte half of that
// after it came, in either direction, and holds as much as is under way.
type delayProxy struct {
	listener net.Listener
	to       string
	oneWay   time.Duration
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu; nil once closed
}

func startDelayProxy(t testing.TB, to string, roundTrip time.Duration) *delayProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &delayProxy{listener: l, to: to, oneWay: roundTrip / 2, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *delayProxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			near.Close()
			continue
		}
		if !p.keep(near) || !p.keep(far) {
			near.Close()
			far.Close()
			return
		}
		p.wg.Go(func() { p.carry(near, far) })
		p.wg.Go(func() { p.carry(far, near) })
	}
}

func (p *delayProxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *delayProxy) close() {
	p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.wg.Wait()
}

// carry moves bytes one way until either side ends.
func (p *delayProxy) carry(from, to net.Conn) {
	type chunk struct {
		due  time.Time
		data []byte
	}
	pool := sync.Pool{New: func() any { return new([64 << 10]byte) }}
	underWay := make(chan chunk, 4096) // 256 MiB at most: no limit on the way
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(underWay)
		for {
			buf := pool.Get().(*[64 << 10]byte)
			n, err := from.Read(buf[:])
			if n > 0 {
				underWay <- chunk{time.Now().Add(p.oneWay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	})
	var failed error
	for c := range underWay { // to the end, so that the reader never waits
		time.Sleep(time.Until(c.due)) // the path's length
		if failed == nil {
			if _, failed = to.Write(c.data); failed != nil {
				from.Close()
			}
		}
		pool.Put((*[64 << 10]byte)(c.data[:64<<10]))
	}
	to.Close()
	reader.Wait()
}

// plainTLS serves n zeros over TLS, as it comes, to whoever connects.
func plainTLS(t testing.TB, n int64) (address string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		block := make([]byte, 256<<10)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for left := n; left > 0 && err == nil; left -= int64(len(block)) {
				_, err = c.Write(block[:min(left, int64(len(block)))])
			}
			c.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// BenchmarkGetOverALongPath gets 512 MiB over a path of 80 ms round trip, and
// beside it moves as much over a plain TLS stream on the same path, with
// handshakes and all. "get/tls" is the ratio of their rates, round by round.
//
//	go test ./share -run X -bench LongPath -benchtime 5x
func BenchmarkGetOverALongPath(b *testing.B) {
	const size, roundTrip = 512 << 20, 80 * time.Millisecond
	sharer, getter := benchPair(b)
	path := filepath.Join(b.TempDir(), "film.mkv")
	if err := os.WriteFile(path, randomBytes(size, "film"), 0o644); err != nil {
		b.Fatal(err)
	}
	s, err := sharer.Add(b.Context(), path, AddOptions{})
	if err != nil {
		b.Fatal(err)
	}
	_, address, err := manet.DialArgs(sharer.node.Addrs()[0])
	if err != nil {
		b.Fatal(err)
	}
	proxy := startDelayProxy(b, address, roundTrip)
	through, err := manet.FromNetAddr(proxy.listener.Addr())
	if err != nil {
		b.Fatal(err)
	}
	w := What{ID: s.ID, Name: s.Name, Kind: KindFile, Peers: []peer.AddrInfo{{ID: sharer.node.ID(), Addrs: []ma.Multiaddr{through}}}}
	plain := startDelayProxy(b, plainTLS(b, size), roundTrip)
	var ours, theirs time.Duration
	b.SetBytes(size)
	for b.Loop() {
		start := time.Now()
		c, err := tls.Dial("tcp", plain.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, c)
		c.Close()
		if n != size {
			b.Fatal(err)
		}
		theirs += time.Since(start)
		start = time.Now()
		if _, err := getter.Get(b.Context(), w, GetOptions{Target: os.DevNull, Force: true, NoServe: true}); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(start)
	}
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "get/tls")
	b.ReportMetric(size*float64(b.N)/1e6/theirs.Seconds(), "tls-MB/s")
	b.ReportMetric(size*float64(b.N)/1e6/ours.Seconds(), "get-MB/s")
}
