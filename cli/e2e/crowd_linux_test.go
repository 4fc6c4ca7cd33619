package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// throttle is a TCP proxy that passes on what comes from its target at a
// limited rate, for all connections together, and counts it.
type throttle struct {
	listener net.Listener
	target   string
	rate     float64 // bytes a second; 0: unlimited
	sent     atomic.Int64

	mu   sync.Mutex
	next time.Time // guarded by mu: when more may pass
}

// newThrottle listens until the test ends.
func newThrottle(t testing.TB, target string, rate float64) *throttle {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &throttle{listener: l, target: target, rate: rate}
	var serving sync.WaitGroup
	serving.Go(p.serve)
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return p
}

func (p *throttle) serve() {
	var passing sync.WaitGroup
	defer passing.Wait()
	// A slow line holds little: what lies in buffers has been sent.
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 64<<10) })
	}}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		out, err := dialer.Dial("tcp", p.target)
		if err != nil {
			in.Close()
			continue
		}
		open = append(open, in, out)
		passing.Go(func() {
			defer out.Close()
			io.Copy(out, in)
		})
		passing.Go(func() {
			defer in.Close()
			p.pass(in, out)
		})
	}
}

func (p *throttle) pass(to io.Writer, from io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.sent.Add(int64(n))
		p.wait(n)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// wait takes n bytes' time of the rate. It sleeps: that is what a slow line does.
func (p *throttle) wait(n int) {
	if p.rate == 0 {
		return
	}
	p.mu.Lock()
	now := time.Now()
	if early := now.Add(-20 * time.Millisecond); p.next.Before(early) {
		p.next = early // a burst of 20 ms at most
	}
	p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	until := p.next
	p.mu.Unlock()
	time.Sleep(time.Until(until))
}

// addr is where getters reach the target through the proxy, as the target's
// own address at says it.
func (p *throttle) addr(at string) string {
	_, port, _ := net.SplitHostPort(p.listener.Addr().String())
	_, id, _ := strings.Cut(at, "/p2p/")
	return "/ip4/127.0.0.1/tcp/" + port + "/p2p/" + id
}

// tcpOf is host:port of a multiaddr of an IPv4 address and a TCP port.
func tcpOf(addr string) string {
	parts := strings.Split(addr, "/") // "", ip4, host, tcp, port, …
	return net.JoinHostPort(parts[2], parts[4])
}

// crowdResult is how one crowd has fared.
type crowdResult struct {
	took time.Duration // until the last was done
	cpu  time.Duration // of all getters together
	sent int64         // by the origin
	dups float64       // sent over the file's size
}

// runCrowd lets getters get film.mkv, with no daemon of theirs, at the same time through p.
func runCrowd(t testing.TB, p *throttle, at string, data []byte, getters int) crowdResult {
	t.Helper()
	before := p.sent.Load()
	peers := make([]*peer, getters)
	for i := range peers {
		peers[i] = newPeer(t, slices.Concat(loopback, []string{"--peer", p.addr(at)})...)
	}
	start, busy := time.Now(), childrenCPU(t)
	var all sync.WaitGroup
	for _, g := range peers {
		all.Go(func() {
			r := g.run(t, "get", "film.mkv", "-q")
			if r.code != 0 {
				t.Errorf("get: exit %d\n%s", r.code, r.stderr)
			}
		})
	}
	all.Wait()
	res := crowdResult{took: time.Since(start), sent: p.sent.Load() - before, cpu: childrenCPU(t) - busy}
	res.dups = float64(res.sent) / float64(len(data))
	for _, g := range peers {
		path := filepath.Join(g.dir, "film.mkv")
		got, err := os.ReadFile(path)
		if err != nil || !slices.Equal(got, data) {
			t.Errorf("what came is not what was shared: %d bytes, %v", len(got), err)
		}
		os.Remove(path)
	}
	return res
}

// Eight that get the same file at the same moment get it from one another, too:
// the origin sends it twice at most, and all are done in three times the time of
// one. With -long it is 256 MiB from an origin limited to 100 MB/s, and once more
// without a limit; else 64 MiB at 50 MB/s, where it is judged only whether they feed
// each other at all: other tests run beside it.
func TestFlashCrowdFeedsItself(t *testing.T) {
	if testing.Short() {
		t.Skip("nine processes, for seconds")
	}
	size, rates := 64<<20, []float64{50e6}
	if *long {
		size, rates = 256<<20, []float64{100e6, 0}
	}
	origin := newPeer(t, loopback...)
	path := filepath.Join(origin.dir, "film.mkv")
	writeRandom(t, path, int64(size), "crowd")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := origin.serve(t, "daemon").addr(t)
	origin.must(t, "add", "film.mkv")
	for _, rate := range rates {
		p := newThrottle(t, tcpOf(at), rate)
		one := runCrowd(t, p, at, data, 1)
		crowd := runCrowd(t, p, at, data, 8)
		t.Logf("at %.0f MB/s: one %v (cpu %v), eight %v (%.2f ×, cpu %v), the origin sent %.2f × the file",
			rate/1e6, one.took, one.cpu, crowd.took, crowd.took.Seconds()/one.took.Seconds(), crowd.cpu, crowd.dups)
		if *long && rate > 0 && (crowd.dups > 2 || crowd.took > 3*one.took) {
			t.Errorf("eight took %v and %.2f × the file from the origin; want at most %v and 2", crowd.took, crowd.dups, 3*one.took)
		}
		if crowd.dups > 4 { // without one another they would take 8
			t.Errorf("the origin sent %.2f × the file: the getters do not feed each other", crowd.dups)
		}
	}
}

// childrenCPU is the processor time of all children that have ended.
func childrenCPU(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
