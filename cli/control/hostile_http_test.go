package control

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// TestChangesAreNoGet: what is changed by POST and DELETE can't be asked for by the
// methods that a link, an image or a form of a page elsewhere uses.
func TestChangesAreNoGet(t *testing.T) {
	p := startRunning(t)
	for path, methods := range described().Paths {
		if _, ok := methods["get"]; ok {
			continue
		}
		for _, op := range []string{"cancel", "create", "block"} {
			for _, method := range []string{"GET", "HEAD", "PUT", "PATCH"} {
				path := strings.ReplaceAll(path, "{op}", op)
				if resp, body, _ := p.get(t, method, path, "X-HTTP-Method-Override", "POST"); resp.StatusCode != http.StatusMethodNotAllowed {
					t.Errorf("%s %s: %s, want 405: %s", method, path, resp.Status, body)
				}
			}
		}
	}
}

func TestGatewayRefusesManyRanges(t *testing.T) {
	p := startRunning(t)
	s := p.add(t, "a.bin", seeded(2*content.GroupSize, "a"))
	many := func(n int) string {
		var ranges []string
		for i := range n { // each in the other chunk group
			ranges = append(ranges, fmt.Sprintf("%d-%[1]d", i%2*content.GroupSize+i))
		}
		return "bytes=" + strings.Join(ranges, ",")
	}
	for n, want := range map[int]int{2: 206, rangesMax: 206, rangesMax + 1: 416, 4000: 416, 50_000: 431} {
		if resp, _, err := p.get(t, "GET", "/b3/"+s.ID.Hex(), "Range", many(n)); err != nil || resp.StatusCode != want {
			t.Errorf("%d ranges: %s, %v, want %d", n, resp.Status, err, want)
		}
	}
}

// TestNamesStayInsideTheirHeader: neither a share's name nor the one in a query adds a
// header, or ends the file name early.
func TestNamesStayInsideTheirHeader(t *testing.T) {
	p := startRunning(t)
	data := []byte("x")
	for _, name := range []string{`a"; filename="b.html`, "a'b%0d%0aX: y", `a;b=c`, "a\u00a0b", "%22", "a\u2027b", strings.Repeat("é", 127)} {
		data = append(data, 'x')
		s := p.add(t, name, data)
		for _, path := range []string{"/b3/" + s.ID.Hex(), "/name/" + url.PathEscape(name), "/dav/shares/" + url.PathEscape(name), "/b3/" + s.ID.Hex() + "?filename=" + url.QueryEscape(name)} {
			resp, _, err := p.get(t, "GET", path)
			_, params, parseErr := mime.ParseMediaType(resp.Header.Get("Content-Disposition"))
			if err != nil || resp.StatusCode != 200 || parseErr != nil || params["filename"] != name || len(params) != 1 || resp.Header.Get("X") != "" {
				t.Errorf("%s: %s, %v, %v, %q", path, resp.Status, err, parseErr, resp.Header)
			}
		}
	}
	s := p.add(t, "plain.txt", []byte("plain"))
	for _, bad := range []string{"a\r\nX: y", "../a", "a\x00", "\u202ea", "a/b", `a\b`} {
		resp, _, err := p.get(t, "GET", "/b3/"+s.ID.Hex()+"?filename="+url.QueryEscape(bad))
		if d := resp.Header.Get("Content-Disposition"); err != nil || resp.Header.Get("X") != "" || !strings.Contains(d, `filename="plain.txt"`) {
			t.Errorf("filename=%q: %q, %v", bad, d, err)
		}
	}
}

// TestPathsLeadNowhereElse: no spelling of a path leads out of what is served, or around
// the guard.
func TestPathsLeadNowhereElse(t *testing.T) {
	p := startRunning(t)
	os.MkdirAll(filepath.Join(p.dir, "album"), 0o755)
	os.WriteFile(filepath.Join(p.dir, "album", "a.txt"), []byte("a"), 0o644)
	os.WriteFile(filepath.Join(p.dir, "secret.txt"), []byte("SECRET"), 0o644)
	if err := os.Symlink(filepath.Join(p.dir, "secret.txt"), filepath.Join(p.dir, "album", "link.txt")); err != nil {
		t.Skip(err)
	}
	s, err := p.lib.Add(t.Context(), filepath.Join(p.dir, "album"), share.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// What was a file when it was added is a link now.
	os.Remove(filepath.Join(p.dir, "album", "a.txt"))
	os.Symlink(filepath.Join(p.dir, "secret.txt"), filepath.Join(p.dir, "album", "a.txt"))
	self := strings.TrimPrefix(p.server.URL(), "http://")
	for _, token := range []string{"", "Authorization: Bearer " + p.server.token} {
		for _, path := range []string{
			"/b3/" + s.ID.Hex() + "/../../api/v1/id", "/b3/" + s.ID.Hex() + "/%2e%2e/%2e%2e/secret.txt", "/b3/" + s.ID.Hex() + "/..%2fsecret.txt",
			"/b3/" + s.ID.Hex() + "/link.txt", "/b3/" + s.ID.Hex() + "/a.txt", "/b3/" + s.ID.Hex() + "?path=link.txt", "/b3/" + s.ID.Hex() + "?path=a.txt",
			"/dav/shares/album/../../../secret.txt", "/dav/shares/album/%2e%2e/%2e%2e/api/v1/status", "/dav/shares/album/link.txt", "/dav/shares/album/a.txt",
			"/dav/../api/v1/status", "//api/v1/status", "/b3/..", "/b3/%2e%2e", "/b3/..%2fapi%2fv1%2fstatus", "/ui/..%2f..%2fsecret.txt", "/ui/%2e%2e",
			"/api/v1/../../b3/x", "/./api/v1/status",
		} {
			resp := rawRequest(t, self, "GET", path, self, []string{token}, "")
			body, err := io.ReadAll(resp.Body)
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(string(body), "SECRET") || resp.StatusCode == 200 && token == "" {
				t.Errorf("GET %s with %q: %s, %v\n%s", path, token, resp.Status, err, body)
			}
		}
	}
}

// TestSlowBodiesAreCutOff: one that is read, one that is not, and none that has come.
func TestSlowBodiesAreCutOff(t *testing.T) {
	const timeout = 500 * time.Millisecond
	ended := make(chan error, 1)
	server := httptest.NewServer(boundBodies(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/read", "/long":
			_, err := io.ReadAll(r.Body)
			if err == nil && r.URL.Path == "/long" {
				select {
				case <-r.Context().Done():
					err = r.Context().Err()
				case <-time.After(3 * timeout):
				}
			}
			ended <- err
		}
	}), timeout))
	defer server.Close()
	send := func(path, body string) net.Conn {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n%s", path, body)
		return conn
	}
	send("/read", "slow")
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a body that does not come was read until %v, want a deadline", err)
	}
	conn := send("/ignored", "slow")
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("a body that nobody reads held the connection up: %v", err)
	}
	conn = send("/long", "0123456789")
	if err := <-ended; err != nil {
		t.Errorf("what takes longer than its body was ended: %v", err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("its answer: %v, %v", resp, err)
	}
}

// TestLinkIsNotKeptByOne opens as many connections as one machine can.
func TestLinkIsNotKeptByOne(t *testing.T) {
	p := startRunning(t)
	s := p.add(t, "a.txt", []byte("a"))
	l, _, _ := startLink(t, p, ServeLinkRequest{What: s.ID.String()})
	b := newBrowser(t, l)
	hostile := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	host := strings.TrimPrefix(b.base, "http://")
	for range 2 * linkConns {
		conn, err := hostile.Dial("tcp", host)
		if err != nil {
			t.Skip("this machine has one loopback address: ", err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /open HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\ncode=", host, b.base, formType)
	}
	b.client.Timeout = bodyTimeout / 3
	if status := b.open(l.URL); status != 200 {
		t.Errorf("another machine: %d, want 200", status)
	}
}

// TestLinksOfOneAddressDoNotMix: a browser sends the cookies of one port to all.
func TestLinksOfOneAddressDoNotMix(t *testing.T) {
	p := startRunning(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var open []*browser
	for _, name := range []string{"a.txt", "b.txt"} {
		s := p.add(t, name, []byte(name))
		l, _, _ := startLink(t, p, ServeLinkRequest{What: s.ID.String()})
		b := newBrowser(t, l)
		b.client.Jar = jar
		if len(open) > 0 {
			if status, _, _ := b.do("GET", "/file", "", nil); status != 401 {
				t.Errorf("the second link with the first one's cookie: %d, want 401", status)
			}
		}
		if status := b.open(l.URL); status != 200 {
			t.Fatalf("%s: %d", name, status)
		}
		open = append(open, b)
	}
	for i, name := range []string{"a.txt", "b.txt"} {
		if status, body, _ := open[i].do("GET", "/file", "", nil); status != 200 || body != name {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
}

// TestFirstByteOfALargeFile: a player that seeks in a file of which nothing is here waits
// for what it asked for alone.
func TestFirstByteOfALargeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("shares 1 GiB")
	}
	const from, tooMuch, soon, tries = 800_000_000, 16 << 20, 200 * time.Millisecond, 5
	sharer := startRunning(t)
	path := filepath.Join(sharer.dir, "film.mp4")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("here"), from)
	if err = errors.Join(err, f.Truncate(1<<30), f.Close()); err != nil { // the rest is a hole
		t.Fatal(err)
	}
	s, err := sharer.lib.Add(t.Context(), path, share.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for range tries { // other tests may be using the processors: one that is fast enough is
		p := startRunning(t, sharer)
		start := time.Now()
		r, _ := http.NewRequestWithContext(t.Context(), "GET", p.server.URL()+"/b3/"+s.ID.Hex(), nil)
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1)
		_, err = io.ReadFull(resp.Body, got)
		took = append(took, time.Since(start))
		usage, usageErr := p.lib.CacheUsage()
		resp.Body.Close()
		if err != nil || usageErr != nil || resp.StatusCode != 206 || got[0] != 'h' || usage.Used >= tooMuch {
			t.Errorf("%s, %q, %v; %d bytes are here, %v, want less than %d", resp.Status, got, err, usage.Used, usageErr, tooMuch)
		}
		if took[len(took)-1] < soon {
			t.Logf("the first byte came after %s, with %d KiB fetched", took[len(took)-1], usage.Used>>10)
			return
		}
	}
	t.Errorf("the first byte came after %v, want less than %s", took, soon)
}
