package node

import (
	"context"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// crypto/tls makes one system call for each record of 16 KiB, in either
// direction, and that is half of what a transfer costs. So there is a layer
// below it that reads ahead and gathers what is written.
const (
	// recordBuffer is how much is read ahead and gathered: above 64 KiB it
	// hardly matters.
	recordBuffer = 128 << 10
	// recordSize is the most that TLS writes at a time.
	recordSize = 16 << 10
)

var recordBuffers = sync.Pool{New: func() any { return new([recordBuffer]byte) }}

// recordConn is the connection below a TLS connection. It holds buffers only
// while much moves, so that an idle connection costs no more than without it.
// Its Read is called by one goroutine at a time.
type recordConn struct {
	net.Conn

	ahead  []byte              // read, and not yet taken
	buf    *[recordBuffer]byte // what ahead lies in; nil when ahead is empty
	filled bool                // the last read took all there was room for: more is likely there

	mu        sync.Mutex // guards all below
	gathering int        // calls of gather under way
	out       *[recordBuffer]byte
	outLen    int
	err       error // of the last write
}

func (c *recordConn) Read(p []byte) (int, error) {
	if len(c.ahead) == 0 {
		if !c.filled || len(p) >= recordBuffer {
			n, err := c.Conn.Read(p)
			c.filled = n == len(p) && n >= recordSize/4
			return n, err
		}
		buf := recordBuffers.Get().(*[recordBuffer]byte)
		n, err := c.Conn.Read(buf[:])
		c.filled = n == recordBuffer
		if n == 0 {
			recordBuffers.Put(buf)
			return 0, err
		}
		c.buf, c.ahead = buf, buf[:n] // an error comes again
	}
	n := copy(p, c.ahead)
	if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
		recordBuffers.Put(c.buf)
		c.buf, c.ahead = nil, nil
	}
	return n, nil
}

// Write writes at once, unless a call of gather is under way.
func (c *recordConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if c.outLen+len(p) > recordBuffer || c.gathering == 0 {
		if err := c.flush(); err != nil {
			return 0, err
		}
		if c.gathering == 0 || len(p) > recordBuffer {
			return c.Conn.Write(p)
		}
	}
	if c.out == nil {
		c.out = recordBuffers.Get().(*[recordBuffer]byte)
	}
	c.outLen += copy(c.out[c.outLen:], p)
	return len(p), nil
}

// flush writes what was gathered. The caller holds c.mu.
func (c *recordConn) flush() error {
	if c.outLen == 0 {
		return c.err
	}
	_, c.err = c.Conn.Write(c.out[:c.outLen])
	c.outLen = 0
	return c.err
}

// gather calls write, the Write of the TLS connection above, with p, and lets
// its records go out together.
func (c *recordConn) gather(write func([]byte) (int, error), p []byte) (int, error) {
	if len(p) <= recordSize {
		return write(p) // one record
	}
	c.mu.Lock()
	c.gathering++
	c.mu.Unlock()
	n, err := write(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if flushErr := c.flush(); err == nil {
		err = flushErr
	}
	if c.gathering--; c.gathering == 0 && c.out != nil {
		recordBuffers.Put(c.out)
		c.out = nil
	}
	return n, err
}

// bufferedTLS is libp2p's TLS over a recordConn. What goes over the wire is the
// same.
type bufferedTLS struct{ *libp2ptls.Transport }

func newBufferedTLS(id protocol.ID, key crypto.PrivKey, muxers []tptu.StreamMuxer) (bufferedTLS, error) {
	t, err := libp2ptls.New(id, key, muxers)
	return bufferedTLS{t}, err
}

func (t bufferedTLS) SecureInbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	below := &recordConn{Conn: insecure}
	c, err := t.Transport.SecureInbound(ctx, below, p)
	return gatheringConn(c, below, err)
}

func (t bufferedTLS) SecureOutbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	below := &recordConn{Conn: insecure}
	c, err := t.Transport.SecureOutbound(ctx, below, p)
	return gatheringConn(c, below, err)
}

func gatheringConn(c sec.SecureConn, below *recordConn, err error) (sec.SecureConn, error) {
	if err != nil {
		return nil, err
	}
	return &secureConn{c, below}, nil
}

type secureConn struct {
	sec.SecureConn
	below *recordConn
}

func (c *secureConn) Write(p []byte) (int, error) { return c.below.gather(c.SecureConn.Write, p) }
