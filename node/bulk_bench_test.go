package node

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
)

// BenchmarkBytes moves 256 MiB from one peer to another in this process, over
// loopback: what the share package's protocols can choose from, beside
// crypto/tls as it comes. On a busy machine compare cpu-s/GB, of both sides
// together, where the system tells it:
//
//	go test ./node -run X -bench Bytes -benchtime 20x -count 5
func BenchmarkBytes(b *testing.B) {
	const size = 256 << 20
	block := make([]byte, 256<<10)
	give := func(w io.Writer, n int64) error { // until the other side has enough
		for ; n > 0; n -= int64(len(block)) {
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
		return nil
	}
	server, err := New(b.Context(), Config{Listen: loopback(0), NoDHT: true, NoMulticast: true})
	if err != nil {
		b.Fatal(err)
	}
	server.HandleBulk(echo, HandlerConfig{}, HandlerConfig{}, func(_ context.Context, s Stream) error { return give(s, 1<<50) })
	client, err := New(b.Context(), Config{Listen: loopback(0), NoDHT: true, NoMulticast: true})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 2)
	go func() { ended <- server.Run(ctx) }()
	go func() { ended <- client.Run(ctx) }()
	<-server.Listening()
	<-client.Listening()
	b.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, <-ended, server.Close(), client.Close()); err != nil {
			b.Error(err)
		}
	})
	if err := client.Connect(b.Context(), server.AddrInfo()); err != nil {
		b.Fatal(err)
	}
	measure := func(name string, streams int, open func() (io.ReadCloser, error)) {
		b.Run(name, func(b *testing.B) {
			var from []io.Reader
			for range streams {
				s, err := open()
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				if w, ok := s.(network.Stream); ok {
					if _, err := w.Write([]byte{1}); err != nil { // the negotiation is lazy
						b.Fatal(err)
					}
				}
				from = append(from, s)
			}
			b.SetBytes(size)
			before := processorTime()
			for b.Loop() {
				var wg sync.WaitGroup
				for _, r := range from {
					wg.Go(func() {
						buf := make([]byte, 256<<10)
						for n := size / streams; n > 0; n -= len(buf) {
							if _, err := io.ReadFull(r, buf); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			}
			if used := processorTime() - before; used > 0 {
				b.ReportMetric(used.Seconds()/(float64(b.N)*size/1e9), "cpu-s/GB")
			}
		})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		var wg sync.WaitGroup
		defer wg.Wait()
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			config, _ := server.bulk.identity.ConfigForPeer("")
			wg.Go(func() {
				defer c.Close()
				give(tls.Server(c, config), 1<<50)
			})
		}
	}()
	defer func() {
		listener.Close()
		<-served
	}()
	measure("tls", 1, func() (io.ReadCloser, error) {
		config, _ := client.bulk.identity.ConfigForPeer(server.ID())
		return tls.Dial("tcp", listener.Addr().String(), config)
	})
	measure("libp2p stream", 1, func() (io.ReadCloser, error) {
		return client.Open(b.Context(), server.ID(), echo, OpenOptions{})
	})
	bulk := func() (io.ReadCloser, error) { return client.OpenBulk(b.Context(), server.ID(), echo) }
	measure("1 bulk connection", 1, bulk)
	measure("2 bulk connections", 2, bulk)
}
