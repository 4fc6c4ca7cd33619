package control

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// running is a peer on loopback, with its control API.
type running struct {
	home, dir string
	node      *node.Node
	lib       *share.Library
	coord     *coord.Coord // nil, unless started with startWhole
	server    *Server
}

// startRunning runs a peer that asks the others first.
func startRunning(t testing.TB, others ...*running) *running {
	t.Helper()
	return startPeer(t, node.Config{NoMulticast: true}, false, others...)
}

// startWhole runs a peer that has neighbors, who use the same port, and can be in groups.
func startWhole(t testing.TB, lanPort int, others ...*running) *running {
	t.Helper()
	return startPeer(t, node.Config{LANPort: lanPort}, true, others...)
}

// lanPort is a port for the beacons of a test's peers.
func lanPort(t testing.TB) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// meet waits until p has a neighbor.
func meet(t testing.TB, p *running) {
	t.Helper()
	for range p.node.WatchNeighbors(t.Context()) {
		if len(p.node.Neighbors()) > 0 {
			return
		}
	}
}

func startPeer(t testing.TB, c node.Config, groups bool, others ...*running) *running {
	t.Helper()
	p := &running{home: filepath.Join(t.TempDir(), "home"), dir: t.TempDir()}
	c.Dir, c.NoDHT, c.Values = p.home, true, share.ValueRecords()
	c.Listen = []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}
	var err error
	if p.node, err = node.New(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if p.lib, err = share.Open(p.node, share.Config{}); err != nil {
		t.Fatal(err)
	}
	runs := []func(context.Context) error{p.node.Run, p.lib.Run}
	if groups {
		if p.coord, err = coord.Open(p.node, coord.Config{Store: p.lib}); err != nil {
			t.Fatal(err)
		}
		p.lib.SetIndex(p.coord.Resolve, func() bool { return len(p.coord.Known()) > 0 })
		p.lib.SetSearchIndex(p.coord.Search)
		runs = append(runs, p.coord.Run)
	}
	var peers []peer.AddrInfo
	for _, o := range others {
		peers = append(peers, o.node.AddrInfo())
	}
	p.server, err = Listen(Config{Home: p.home, Node: p.node, Library: p.lib, Coord: p.coord, Service: ServiceServing, TCP: true,
		Peers: peers, Folder: filepath.Join(p.dir, "folder"), Page: testPage, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range append(runs, p.server.Run) {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	<-p.node.Listening()
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		p.server.Close()
		if p.coord != nil {
			p.coord.Close()
		}
		p.lib.Close()
		p.node.Close()
	})
	return p
}

func (p *running) add(t testing.TB, name string, data []byte) share.Share {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := p.lib.Add(t.Context(), path, share.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// get sends one request on a connection of its own, with the token where it is needed.
func (p *running) get(t testing.TB, method, path string, headers ...string) (*http.Response, []byte, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.server.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(path, "/b3/") {
		r.Header.Set("Authorization", "Bearer "+p.server.token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: conforming(t, &http.Transport{DisableKeepAlives: true, DisableCompression: true})}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func seeded(n int, seed string) []byte {
	b := make([]byte, n)
	rand.NewChaCha8(sha256.Sum256([]byte(seed))).Read(b)
	return b
}

func TestGatewayServesFilesRangesAndConditions(t *testing.T) {
	sharer := startRunning(t)
	p := startRunning(t, sharer)
	data := seeded(9*content.GroupSize+17, "film")
	s := sharer.add(t, "film.mp4", data)
	path, tag := "/b3/"+s.ID.Hex(), `"`+s.ID.Hex()+`"`
	for _, c := range []struct {
		name    string
		method  string
		headers []string
		status  int
		body    []byte
	}{
		{"a range", "GET", []string{"Range", "bytes=2000000-2000099"}, 206, data[2000000:2000100]},
		{"the end", "GET", []string{"Range", "bytes=-10"}, 206, data[len(data)-10:]},
		{"from a place on", "GET", []string{"Range", fmt.Sprintf("bytes=%d-", len(data)-5)}, 206, data[len(data)-5:]},
		{"beyond", "GET", []string{"Range", fmt.Sprintf("bytes=%d-", len(data))}, 416, nil},
		{"malformed", "GET", []string{"Range", "bytes=x-y"}, 416, nil},
		{"all", "GET", nil, 200, data},
		{"HEAD", "HEAD", nil, 200, []byte{}},
		{"known", "GET", []string{"If-None-Match", tag}, 304, []byte{}},
		{"other known", "GET", []string{"If-None-Match", `"x"`}, 200, data},
		{"range of the same", "GET", []string{"Range", "bytes=0-0", "If-Range", tag}, 206, data[:1]},
		{"range of another", "GET", []string{"Range", "bytes=0-0", "If-Range", `"x"`}, 200, data},
	} {
		resp, body, err := p.get(t, c.method, path, c.headers...)
		if err != nil || resp.StatusCode != c.status || c.body != nil && !bytes.Equal(body, c.body) {
			t.Errorf("%s: %s, %d bytes, %v; want %d, %d bytes", c.name, resp.Status, len(body), err, c.status, len(c.body))
		}
		if c.status < 300 && (resp.Header.Get("ETag") != tag || resp.Header.Get("Content-Type") != "video/mp4") {
			t.Errorf("%s: headers %v", c.name, resp.Header)
		}
	}
	resp, body, err := p.get(t, "GET", path, "Range", "bytes=0-9,1000000-1000009")
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || resp.StatusCode != 206 || kind != "multipart/byteranges" || !bytes.Contains(body, data[1000000:1000010]) {
		t.Errorf("two ranges: %s, %q, %v", resp.Status, kind, err)
	}
}

func TestGatewayKeepsFilesFromActing(t *testing.T) {
	p := startRunning(t)
	for _, c := range []struct {
		name, kind, disposition string
	}{
		{"a.html", "text/html; charset=utf-8", "attachment"},
		{"a.svg", "image/svg+xml", "attachment"},
		{"a.xml", "", "attachment"},
		{"a.xhtml", "", "attachment"},
		{"a.js", "", "attachment"},
		{"a.pdf", "application/pdf", "attachment"},
		{"a", "application/octet-stream", "attachment"},
		{"a.png", "image/png", "inline"},
		{"a.mp4", "video/mp4", "inline"},
		{"a.mp3", "audio/mpeg", "inline"},
		{"a.txt", "text/plain; charset=utf-8", "inline"},
		{"a.m3u8", "", "attachment"},
		{"a.m3u", "", "attachment"},
	} {
		s := p.add(t, c.name, []byte("<script>fetch('/api/v1/status')</script>"+c.name))
		resp, _, err := p.get(t, "GET", "/b3/"+s.ID.Hex())
		h := resp.Header
		sandbox := "sandbox; default-src 'none'; "
		if c.kind == "video/mp4" || c.kind == "audio/mpeg" {
			sandbox = "sandbox allow-same-origin; default-src 'none'; media-src 'self'; "
		}
		disposition, params, parseErr := mime.ParseMediaType(h.Get("Content-Disposition"))
		if err != nil || resp.StatusCode != 200 || disposition != c.disposition || parseErr != nil || params["filename"] != c.name ||
			c.kind != "" && h.Get("Content-Type") != c.kind || h.Get("X-Content-Type-Options") != "nosniff" ||
			!strings.HasPrefix(h.Get("Content-Security-Policy"), sandbox) || strings.Contains(h.Get("Content-Security-Policy"), "script") ||
			h.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%s: %s %v %v", c.name, resp.Status, h, err)
		}
	}
	s := p.add(t, `ж "x%.txt`, []byte("named"))
	resp, _, _ := p.get(t, "GET", "/b3/"+s.ID.Hex())
	if got := resp.Header.Get("Content-Disposition"); got != `inline; filename="_ _x_.txt"; filename*=UTF-8''%D0%B6%20%22x%25.txt` {
		t.Errorf("Content-Disposition = %s", got)
	}
}

func TestGatewayRefuses(t *testing.T) {
	p := startRunning(t)
	s := p.add(t, "a.txt", []byte("a"))
	nobody := content.Root([]byte("nobody has this")).Hex()
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/b3/nothex", 404},
		{"GET", "/b3/" + nobody, 404},
		{"GET", "/b3/" + s.ID.Hex() + "?path=..%2Fsecret", 400},
		{"GET", "/b3/" + s.ID.Hex() + "?path=a%00b", 400},
		{"GET", "/b3/" + s.ID.Hex() + "?path=%2Fetc%2Fpasswd", 400},
		{"GET", "/b3/" + s.ID.Hex() + "?path=a", 404},
		{"GET", "/name/%1b%5b31m", 400},
		{"GET", "/name/no-such-name", 404},
		{"POST", "/name/a.txt", 415},
		{"PUT", "/name/a.txt", 405},
	} {
		resp, body, err := p.get(t, c.method, c.path)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s %s: %s, want %d: %s", c.method, c.path, resp.Status, c.status, body)
		}
		if bytes.ContainsRune(body, 0x1b) {
			t.Errorf("%s %s: the answer drives a terminal: %q", c.method, c.path, body)
		}
	}
	r, err := http.Get(p.server.URL() + "/name/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusUnauthorized {
		t.Errorf("/name without a token: %s", r.Status)
	}
	if resp, body, err := p.get(t, "GET", "/name/a.txt"); err != nil || resp.StatusCode != 200 || string(body) != "a" {
		t.Errorf("/name/a.txt: %s %q %v", resp.Status, body, err)
	}
}

func TestGatewayShowsAndArchivesDirectories(t *testing.T) {
	sharer := startRunning(t)
	p := startRunning(t, sharer)
	files := map[string][]byte{"<b>bold.txt": []byte("x"), "sub/one.bin": seeded(2*content.GroupSize, "one"), "sub/deep/two.txt": []byte("two")}
	for name, data := range files {
		path := filepath.Join(sharer.dir, "album", filepath.FromSlash(name))
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			name = strings.ReplaceAll(name, "/", "_")
			t.Skipf("the system can't hold %q: %v", name, err)
		}
	}
	s, err := sharer.lib.Add(t.Context(), filepath.Join(sharer.dir, "album"), share.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	resp, body, err := p.get(t, "GET", "/b3/"+s.ID.Hex())
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), "&lt;b&gt;bold.txt") ||
		strings.Contains(string(body), "<b>bold") || !strings.Contains(string(body), "?path=sub\"") || strings.Contains(string(body), "deep") {
		t.Errorf("the directory's page: %s %v\n%s", resp.Status, err, body)
	}
	if _, body, err = p.get(t, "GET", "/b3/"+s.ID.Hex()+"?path=sub"); err != nil || !strings.Contains(string(body), "deep/") {
		t.Errorf("the page of a part: %v\n%s", err, body)
	}
	resp, body, err = p.get(t, "GET", "/b3/"+s.ID.Hex()+"?path=sub/one.bin")
	if err != nil || !bytes.Equal(body, files["sub/one.bin"]) || resp.Header.Get("ETag") == `"`+s.ID.Hex()+`"` {
		t.Errorf("a file in it: %s, %d bytes, %v", resp.Status, len(body), err)
	}
	_, body, err = p.get(t, "GET", "/b3/"+s.ID.Hex()+"?format=zip")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil || len(archive.File) != len(files) {
		t.Fatalf("the archive: %v", err)
	}
	for _, f := range archive.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, files[f.Name]) {
			t.Errorf("%s in the archive: %d bytes, %v", f.Name, len(got), err)
		}
	}
}

func TestGatewayServesManyRangesAndSlowClientsAtOnce(t *testing.T) {
	sharer := startRunning(t)
	p := startRunning(t, sharer)
	data := seeded(24<<20, "film")
	s := sharer.add(t, "film.mp4", data)
	path := "/b3/" + s.ID.Hex()
	slow, err := net.Dial("tcp", strings.TrimPrefix(p.server.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, strings.TrimPrefix(p.server.URL(), "http://"))
	if _, err := slow.Read(make([]byte, 1)); err != nil { // and no more
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			from := i * len(data) / 50
			resp, body, err := p.get(t, "GET", path, "Range", fmt.Sprintf("bytes=%d-%d", from, from+99_999))
			if err != nil || resp.StatusCode != 206 || !bytes.Equal(body, data[from:min(len(data), from+100_000)]) {
				t.Errorf("range %d: %s, %d bytes, %v", i, resp.Status, len(body), err)
			}
		})
	}
	wg.Wait()
	if _, body, err := p.get(t, "GET", path); err != nil || !bytes.Equal(body, data) {
		t.Errorf("all of it beside a slow client: %d bytes, %v", len(body), err)
	}
}

func TestGatewayCutsWhatACorruptProviderSends(t *testing.T) {
	data := seeded(40*content.GroupSize, "film")
	liar, id := startLiar(t, data, 30)
	p := startRunning(t, liar)
	path := "/b3/" + id.Hex()
	resp, body, err := p.get(t, "GET", path)
	if err == nil || resp.StatusCode != 200 || len(body) > 30*content.GroupSize || !bytes.Equal(body, data[:len(body)]) {
		t.Errorf("from a corrupt provider: %s, %d bytes, %v; want right bytes, and cut", resp.Status, len(body), err)
	}
	if curl, err := exec.LookPath("curl"); err == nil {
		file := filepath.Join(t.TempDir(), "film")
		err := exec.Command(curl, "--silent", "--fail", "-o", file, p.server.URL()+path).Run()
		var exit *exec.ExitError
		got, _ := os.ReadFile(file)
		if !errors.As(err, &exit) || exit.ExitCode() != 18 || !bytes.Equal(got, data[:min(len(got), len(data))]) { // CURLE_PARTIAL_FILE
			t.Errorf("curl: %v with %d bytes, want exit 18 and right bytes", err, len(got))
		}
	}
	other := startRunning(t, liar) // that has nothing yet
	if resp, body, _ := other.get(t, "GET", path, "Range", fmt.Sprintf("bytes=%d-", 30*content.GroupSize)); resp.StatusCode != 502 {
		t.Errorf("the wrong part itself: %s %q, want 502", resp.Status, body)
	}
}

// TestArchivesAndTheDriveAreCutToo: a file in a directory that only a corrupt provider has.
func TestArchivesAndTheDriveAreCutToo(t *testing.T) {
	t.Parallel() // it waits for whether somebody else has the file
	data := seeded(40*content.GroupSize, "film")
	liar, _ := startLiar(t, data, 30)
	sharer := startRunning(t)
	os.MkdirAll(filepath.Join(sharer.dir, "album"), 0o755)
	film := filepath.Join(sharer.dir, "album", "film.bin")
	os.WriteFile(film, data, 0o644)
	s, err := sharer.lib.Add(t.Context(), filepath.Join(sharer.dir, "album"), share.AddOptions{})
	if err == nil {
		err = os.Remove(film) // so that it has the listing only
	}
	if err != nil {
		t.Fatal(err)
	}
	p := startRunning(t, sharer, liar)
	if _, err := p.lib.TrustPeer(sharer.node.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	const zipHead = 30 // bytes of a file's header in an archive, before its name
	for path, head := range map[string]int{"/b3/" + s.ID.Hex() + "?format=zip": zipHead + len("film.bin"), "/dav/publishers/ann/album/film.bin": 0} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", p.server.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+p.server.token)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(r)
		if err != nil { // it was cut before its header was sent
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		file := body[min(head, len(body)):]
		if err == nil && resp.StatusCode == 200 || len(file) > 30*content.GroupSize || resp.StatusCode == 200 && !bytes.Equal(file, data[:len(file)]) {
			t.Errorf("%s: %s, %d bytes, %v; want right bytes, and cut", path, resp.Status, len(body), err)
		}
	}
}

// BenchmarkGatewayFirstByte has the first byte of a range in the middle of 1 GiB of which
// nothing is here.
func BenchmarkGatewayFirstByte(b *testing.B) {
	sharer := startRunning(b)
	s := sharer.add(b, "film.mp4", seeded(1<<30, "film"))
	for b.Loop() {
		b.StopTimer()
		p := startRunning(b, sharer)
		b.StartTimer()
		r, _ := http.NewRequestWithContext(b.Context(), "GET", p.server.URL()+"/b3/"+s.ID.Hex(), nil)
		r.Header.Set("Range", "bytes=800000000-")
		resp, err := http.DefaultClient.Do(r)
		if err != nil || resp.StatusCode != 206 {
			b.Fatal(resp, err)
		}
		if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		resp.Body.Close()
		usage, err := p.lib.CacheUsage()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(usage.Used)/(1<<20), "MiB-fetched")
		b.StartTimer()
	}
}
