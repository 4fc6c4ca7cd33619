package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/libp2p/go-libp2p"
	libp2ppeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

// mdnsRole is the yardstick of the benchmarks: a libp2p host with a peer's
// listeners, found by libp2p's mDNS. It says what a daemon says, in the same
// words, until SIGTERM.
func mdnsRole() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	h, err := libp2p.New(libp2p.DisableMetrics(), libp2p.DisableRelay(), libp2p.ListenAddrStrings(
		"/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/udp/0/quic-v1"))
	if err != nil {
		return err
	}
	defer h.Close()
	service := mdns.NewMdnsService(h, "", &mdnsLog{log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err := service.Start(); err != nil {
		return fmt.Errorf("start mDNS: %w", err)
	}
	defer service.Close()
	if err := json.NewEncoder(os.Stdout).Encode(event{"event": "ready", "peer_id": h.ID().String()}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// mdnsLog logs each peer when it is first found.
type mdnsLog struct {
	log   *slog.Logger
	mu    sync.Mutex // guards known
	known map[libp2ppeer.ID]bool
}

func (m *mdnsLog) HandlePeerFound(found libp2ppeer.AddrInfo) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known[found.ID] {
		return
	}
	if m.known == nil {
		m.known = map[libp2ppeer.ID]bool{}
	}
	m.known[found.ID] = true
	m.log.Info("neighbor joined", "peer", found.ID)
}
