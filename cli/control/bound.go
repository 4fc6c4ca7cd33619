package control

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// boundBodies gives each request's body so long to come, whether next reads it or not:
// a body that is never read to its end holds the connection up when the answer is done.
// With http.Server.ReadTimeout the deadline would stay, and cut off long answers; here it
// ends with the body.
func boundBodies(next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			control := http.NewResponseController(w)
			control.SetReadDeadline(time.Now().Add(timeout))
			r.Body = &boundBody{r.Body, control}
		}
		next.ServeHTTP(w, r)
	})
}

type boundBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *boundBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// addressLimiter is a listener that takes no more than max connections at a time from one
// IP address; a further one is closed at once. So one machine can't keep the others out.
type addressLimiter struct {
	net.Listener
	max int

	mu   sync.Mutex
	open map[netip.Addr]int // guarded by mu
}

func limitAddresses(l net.Listener, max int) net.Listener {
	return &addressLimiter{Listener: l, max: max, open: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *addressLimiter) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		if l.enter(from.Addr()) {
			return &addressConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(from.Addr()) })}, nil
		}
		c.Close()
	}
}

func (l *addressLimiter) enter(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a] >= l.max {
		return false
	}
	l.open[a]++
	return true
}

func (l *addressLimiter) leave(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a]--; l.open[a] == 0 {
		delete(l.open, a)
	}
}

type addressConn struct {
	net.Conn
	leave func()
}

func (c *addressConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
