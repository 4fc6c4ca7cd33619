package share

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/p2pshare/p2pshare/node"
)

// A manifest is a stranger's word about where to connect to. So what it names is
// dialled only at addresses that are public, whatever resolves to them, by no
// proxy, and with nothing of ours in the request.

const (
	// mirrorConnectMax bounds look-up and connect, and again the TLS handshake.
	mirrorConnectMax = 8 * time.Second
	// mirrorHeaderMax is how many bytes of headers an answer may have.
	mirrorHeaderMax = 16 << 10
	// mirrorRedirectsMax is how many redirects one request follows.
	mirrorRedirectsMax = 3
	// mirrorIdle is how long a connection is kept that nothing is asked over.
	mirrorIdle = 30 * time.Second
)

// errPrivateAddress is why a mirror is not dialled.
var errPrivateAddress = errors.New("its address is not a public one")

// mirrorClient returns the client of one mirror, with one connection a host.
// The host named given, if any, may have any address: a person named it.
func mirrorClient(given string) *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			d := net.Dialer{Timeout: mirrorConnectMax}
			if given == "" || !strings.EqualFold(host, given) {
				d.Control = refusePrivate
			}
			return d.DialContext(ctx, network, address)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    mirrorConnectMax,
		ResponseHeaderTimeout:  answerStall,
		MaxResponseHeaderBytes: mirrorHeaderMax,
		DisableCompression:     true,
		MaxConnsPerHost:        1,
		MaxIdleConns:           2, // the one that redirects, and the one that has it
		IdleConnTimeout:        mirrorIdle,
		ReadBufferSize:         64 << 10,
	}
	return &http.Client{Transport: t, CheckRedirect: checkRedirect}
}

// checkRedirect is http.Client's CheckRedirect.
func checkRedirect(next *http.Request, past []*http.Request) error {
	next.Header.Del("Referer") // whoever is next need not know who sent us
	if len(past) > mirrorRedirectsMax {
		return fmt.Errorf("it redirects more than %d times", mirrorRedirectsMax)
	}
	if past[len(past)-1].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return errors.New("it redirects from https to http")
	}
	next.URL.Fragment, next.URL.RawFragment = "", ""
	if _, reason := parseMirror(next.URL.String()); reason != "" {
		return errors.New("it redirects to what is no mirror: " + reason)
	}
	return nil
}

// refusePrivate is a net.Dialer's Control: address is the one that is about to
// be dialled, whatever a name resolved to before.
func refusePrivate(network, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !node.IsPublic(a.Addr()) {
		return errPrivateAddress
	}
	return nil
}
