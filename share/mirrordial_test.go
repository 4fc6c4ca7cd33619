package share

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/p2pshare/p2pshare/share/content"
)

// mirrorAt returns a mirror at a URL.
func mirrorAt(t *testing.T, text string, id content.ID, anywhere bool) *mirror {
	t.Helper()
	u, err := ParseMirror(text)
	if err != nil {
		t.Fatal(err)
	}
	m := newMirror(u, id, anywhere)
	t.Cleanup(m.close)
	return m
}

// countedServer is an HTTP server on loopback that counts its connections.
func countedServer(t *testing.T, h http.HandlerFunc) (s *httptest.Server, conns *atomic.Int64) {
	t.Helper()
	conns = new(atomic.Int64)
	s = httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s, conns
}

// portOf is the port of a server.
func portOf(s *httptest.Server) string { return s.URL[strings.LastIndexByte(s.URL, ':')+1:] }

func oneByte(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Range", "bytes 0-0/1")
	w.WriteHeader(http.StatusPartialContent)
	w.Write([]byte{'x'})
}

// No spelling of this machine's addresses, and no name that resolves to one,
// leads to a connection.
func TestMirrorsAtPrivateAddressesAreNotDialled(t *testing.T) {
	s, conns := countedServer(t, oneByte)
	for _, host := range []string{"127.0.0.1", "localhost", "localhost.", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"} {
		err := mirrorAt(t, "http://"+host+":"+portOf(s)+"/", content.ID{}, false).open(t.Context())
		if !errors.Is(err, errPrivateAddress) {
			// A name may not resolve here, which will do as well.
			if dns := new(net.DNSError); !errors.As(err, &dns) {
				t.Errorf("open of a mirror at %s = %v, want errPrivateAddress", host, err)
			}
		}
	}
	if n := conns.Load(); n != 0 {
		t.Errorf("the server had %d connections, want none", n)
	}
	for _, host := range []string{"127.0.0.1", "localhost"} { // a person may name it
		if err := mirrorAt(t, "http://"+host+":"+portOf(s)+"/", content.ID{}, true).open(t.Context()); err != nil {
			t.Errorf("open of a mirror at %s that a person gave: %v", host, err)
		}
	}
}

// The environment's proxy would connect for us to where we don't.
func TestMirrorsAreNotAskedThroughAProxy(t *testing.T) {
	if mirrorClient("").Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy is used")
	}
}

func TestMirrorRedirects(t *testing.T) {
	good, conns := countedServer(t, oneByte)
	var s, secure *httptest.Server
	redirects := func(w http.ResponseWriter, r *http.Request) {
		to := ""
		switch r.URL.Path {
		case "/private":
			to = "http://localhost:" + portOf(good) + "/"
		case "/unspecified":
			to = "http://0.0.0.0:" + portOf(good) + "/"
		case "/mapped":
			to = "http://[::ffff:127.0.0.1]:" + portOf(good) + "/"
		case "/same-host":
			to = good.URL + "/"
		case "/loop":
			to = "/loop"
		case "/1", "/2", "/3", "/4":
			to = "/" + string(r.URL.Path[1]-1)
		case "/0":
			if r.Header.Get("Referer") != "" {
				http.Error(w, "who sent you is told", http.StatusBadRequest)
				return
			}
			oneByte(w, r)
			return
		case "/scheme":
			to = "ftp://127.0.0.1/"
		case "/user":
			to = "http://me:secret@127.0.0.1:" + portOf(good) + "/"
		case "/long":
			to = good.URL + "/" + strings.Repeat("x", mirrorURLMax)
		case "/number":
			to = "http://2130706433:" + portOf(good) + "/"
		case "/insecure":
			to = good.URL + "/"
		}
		w.Header().Set("Location", to)
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(http.StatusFound)
	}
	s, _ = countedServer(t, redirects)
	secure = httptest.NewTLSServer(http.HandlerFunc(redirects))
	t.Cleanup(secure.Close)
	for _, tt := range []struct{ path, reason string }{
		{"/private", errPrivateAddress.Error()}, {"/unspecified", errPrivateAddress.Error()}, {"/mapped", errPrivateAddress.Error()},
		{"/loop", "more than 3 times"}, {"/4", "more than 3 times"}, {"/scheme", "no mirror"}, {"/user", "no mirror"},
		{"/long", "no mirror"}, {"/number", "no mirror"},
	} {
		err := mirrorAt(t, s.URL+tt.path, content.ID{}, true).open(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%s: open = %v, want an error that says %q", tt.path, err, tt.reason)
		}
	}
	m := mirrorAt(t, secure.URL+"/insecure", content.ID{}, true)
	m.client.Transport.(*http.Transport).TLSClientConfig.RootCAs = secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if err := m.open(t.Context()); err == nil || !strings.Contains(err.Error(), "from https to http") {
		t.Errorf("/insecure: open = %v, want that it is refused", err)
	}
	if n := conns.Load(); n != 0 {
		t.Errorf("the server that redirects lead to had %d connections, want none", n)
	}
	for _, path := range []string{"/same-host", "/3"} {
		if err := mirrorAt(t, s.URL+path, content.ID{}, true).open(t.Context()); err != nil {
			t.Errorf("%s: open = %v", path, err)
		}
	}
	if conns.Load() == 0 {
		t.Error("the redirect within a host was not followed")
	}
}

// What is dialled is the address that was looked at, whatever a name resolves to
// at another time.
func TestTheAddressIsCheckedWhereItIsDialled(t *testing.T) {
	s, conns := countedServer(t, oneByte)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	dial := mirrorClient("named.example").Transport.(*http.Transport).DialContext
	for _, address := range []string{u.Host, "localhost:" + u.Port()} {
		c, err := dial(context.Background(), "tcp", address)
		if err == nil {
			c.Close()
		}
		if !errors.Is(err, errPrivateAddress) {
			t.Errorf("dial %s = %v, want errPrivateAddress", address, err)
		}
	}
	if conns.Load() != 0 {
		t.Error("a connection was made")
	}
}
