package cli

import (
	"errors"
	"net"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/cli/control"
)

// parseListen reads an address to listen on. The errors of this file complete
// "listen "…" (flag --listen): ".
func parseListen(text string) (ma.Multiaddr, error) {
	a, err := ma.NewMultiaddr(text)
	if err != nil {
		return nil, errors.New("not a multiaddr like /ip4/0.0.0.0/tcp/4001 or /ip4/0.0.0.0/udp/4001/quic-v1")
	}
	_, tcp := a.ValueForProtocol(ma.P_TCP)
	_, quic := a.ValueForProtocol(ma.P_QUIC_V1)
	if tcp != nil && quic != nil {
		return nil, errors.New("neither a tcp nor a quic-v1 address")
	}
	if _, err := a.ValueForProtocol(ma.P_P2P); err == nil {
		return nil, errors.New("a listen address has no /p2p part")
	}
	return a, nil
}

func parseBootstrap(text string) (ma.Multiaddr, error) {
	if err := checkHostPort(text); err != nil {
		return nil, err
	}
	a, err := ma.NewMultiaddr(text)
	if err != nil {
		return nil, errors.New("not a multiaddr like /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…")
	}
	if _, err := a.ValueForProtocol(ma.P_P2P); err == nil {
		return a, nil
	}
	if _, err := a.ValueForProtocol(ma.P_DNSADDR); err == nil {
		return a, nil
	}
	return nil, control.Errorf(control.CodeUsage, "the /p2p/ID part is missing").
		WithHint("p2pshare id on that machine prints its addresses in full")
}

// checkHostPort gives the plainest of wrong forms a hint of its own.
func checkHostPort(text string) error {
	if strings.HasPrefix(text, "/") {
		return nil
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		return nil
	}
	return control.Errorf(control.CodeUsage, "HOST:PORT alone is not enough").
		WithHint("give the full multiaddr, with /p2p/ID: p2pshare id on that machine prints it")
}
