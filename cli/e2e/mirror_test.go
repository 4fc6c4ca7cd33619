package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// slowProxy listens on loopback and passes connections on to a TCP address, the
// answers at bytesPerSecond in all. It returns its own address.
func slowProxy(t testing.TB, to string, bytesPerSecond int) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: to, tokens: make(chan struct{}), ended: make(chan struct{})}
	const piece = 16 * kib
	p.group.Go(func() {
		tick := time.NewTicker(time.Second * piece / time.Duration(bytesPerSecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-p.ended:
				return
			}
			select {
			case p.tokens <- struct{}{}:
			case <-p.ended:
				return
			}
		}
	})
	p.group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.group.Go(func() { p.serve(c, piece) })
		}
	})
	t.Cleanup(func() {
		close(p.ended)
		l.Close()
		p.group.Wait()
	})
	return l.Addr().String()
}

type proxy struct {
	to     string
	tokens chan struct{} // one for each piece
	ended  chan struct{}
	group  sync.WaitGroup
}

func (p *proxy) serve(c net.Conn, piece int) {
	defer c.Close()
	d, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer d.Close()
	over := make(chan struct{})
	p.group.Go(func() { // the end of the test ends the connection
		select {
		case <-p.ended:
		case <-over:
		}
		c.Close()
		d.Close()
	})
	p.group.Go(func() {
		io.Copy(d, c)
		d.Close()
	})
	defer close(over)
	for buf := make([]byte, piece); ; {
		n, err := d.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-p.tokens:
		case <-p.ended:
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// startNginx serves a directory with nginx, in a namespace or here, at address,
// at most bytesPerSecond to one connection, and returns its access log.
func startNginx(t testing.TB, ns, dir, address string, bytesPerSecond int) (log string) {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed (Debian: nginx-light)")
	}
	prefix := t.TempDir()
	log = filepath.Join(prefix, "access")
	conf := filepath.Join(prefix, "conf")
	user := ""
	if os.Getuid() == 0 { // else its workers are nobody, who can't read a test's directory
		user = "user root;"
	}
	text := fmt.Sprintf(`daemon off; master_process off; %s pid %[2]s/pid; error_log %[2]s/error;
events {}
http {
	client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
	log_format short '$status $http_range $http_user_agent';
	access_log %[3]s short;
	server { listen %[4]s; root %[5]s; limit_rate %[6]d; }
}
`, user, prefix, log, address, dir, bytesPerSecond)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := commandIn(t.Context(), ns, nginx, "-p", prefix, "-c", conf)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() {
		c.Process.Kill()
		<-ended
	})
	pid := filepath.Join(prefix, "pid") // written once it listens
	for deadline := time.After(commandMax); ; {
		if b, err := os.ReadFile(pid); err == nil && len(b) > 0 {
			return log
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("nginx: %v\n%s", err, said.String())
		case <-deadline:
			t.Fatal("nginx does not start")
		case <-time.After(10 * time.Millisecond): // looks again: it tells in no other way
		}
	}
}

// freeAddress is an address on loopback that was free just now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// given is how many bytes a source gave, by its peer ID or URL, as "done" tells.
func (e event) given(source string) (n int64) {
	list, _ := e["sources"].([]any)
	for _, s := range list {
		if s, _ := s.(map[string]any); s["peer"] == source || s["mirror"] == source {
			n += event(s).number("bytes")
		}
	}
	return n
}

// TestMirrors gets a file of which one slow peer has all, a mirror (nginx) has
// all, and another mirror has all but a bit in each answer.
func TestMirrors(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const size = 48 * mib
	sharer, getter := newPeer(t, loopback...), newPeer(t, loopback...)
	path := filepath.Join(sharer.dir, "film.mkv")
	writeRandom(t, path, size, "mirrors")
	serving := sharer.serve(t, "add", path)
	id := sharer.must(t, "ls").text("id")

	address := freeAddress(t)
	log := startNginx(t, "", sharer.dir, address, 16*mib)
	good := "http://" + address + "/film.mkv"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var first, last int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
		if last < first || last >= size {
			http.Error(w, "no range", http.StatusBadRequest)
			return
		}
		body := bytes.Clone(data[first : last+1])
		body[len(body)/100] ^= 4
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(body)
	}))
	defer liar.Close()

	_, tcp, _ := strings.Cut(serving.addr(t), "/tcp/")
	port, _, _ := strings.Cut(tcp, "/")
	_, slow, _ := net.SplitHostPort(slowProxy(t, "127.0.0.1:"+port, 4*mib))
	peer := fmt.Sprintf("/ip4/127.0.0.1/tcp/%s/p2p/%s", slow, serving.id())
	done := getter.must(t, "get", id, "-o", "film.mkv", "--peer", peer, "--mirror", good, "--mirror", liar.URL)
	sameFile(t, path, filepath.Join(getter.dir, "film.mkv"))
	if got := fmt.Sprint(done["corrupt_mirrors"]); got != fmt.Sprintf("[%s]", liar.URL) {
		t.Errorf("corrupt_mirrors = %s, want the liar's URL", got)
	}
	fromPeer, fromMirror := done.given(serving.id()), done.given(good)
	if fromPeer == 0 || fromMirror == 0 || fromPeer+fromMirror != size {
		t.Errorf("the peer gave %d bytes and the mirror %d, want both some and %d in all: %v", fromPeer, fromMirror, size, done["sources"])
	}
	logged, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(logged)) {
		if !strings.HasSuffix(line, " p2pshare\n") || !strings.Contains(line, " bytes=") {
			t.Errorf("nginx was asked: %q", line)
		}
	}

	// Mirrors alone: what is missing is named, and how to get it.
	r := getter.run(t, "get", id, "-o", "again.mkv", "--mirror", good, "--no-dht")
	if r.code != 7 || !strings.Contains(r.stderr, "nobody the tree that its bytes are verified by") || !strings.Contains(r.stderr, "hint: ") {
		t.Errorf("get from a mirror alone: exit %d\n%s", r.code, r.stderr)
	}
	// A redirect to where only a person may send us.
	away := httptest.NewServer(http.RedirectHandler("http://localhost:"+address[strings.LastIndexByte(address, ':')+1:]+"/film.mkv", http.StatusFound))
	defer away.Close()
	r = getter.run(t, "get", id, "-o", "again.mkv", "--mirror", away.URL, "--no-dht")
	if r.code != 7 || !strings.Contains(r.stderr, "not a public one") {
		t.Errorf("get from a mirror that redirects to loopback: exit %d\n%s", r.code, r.stderr)
	}
}

// TestPublishedMirrors gets what a manifest names a mirror of, in a namespace
// where that has a public address: it is asked when the publisher is named, or
// with --mirrors, and at no other time.
func TestPublishedMirrors(t *testing.T) {
	lab := newLab(t)
	ns := lab.host("mirrors")
	lab.run("ip", "-n", ns, "addr", "add", "11.0.0.1/32", "dev", "lo")
	const size, url = 64 * mib, "http://11.0.0.1:8080/film.mkv"
	sharer := newPeer(t, loopback...)
	sharer.netns = ns
	path := filepath.Join(sharer.dir, "film.mkv")
	writeRandom(t, path, size, "published mirrors")
	log := startNginx(t, ns, sharer.dir, "11.0.0.1:8080", 0)
	serving := sharer.serve(t, "add", path, "--mirror", url)
	id := sharer.must(t, "ls").text("id")
	asked := 0
	for _, tt := range []struct {
		what string
		args []string
		use  bool
	}{
		{"film.mkv", nil, false},
		{"film.mkv", []string{"--from", serving.id()}, true},
		{"film.mkv", []string{"--mirrors"}, true},
		{serving.id() + "/film.mkv", nil, true},
		{id, nil, false},
		{id, []string{"--mirrors"}, true},
	} {
		getter := newPeer(t, loopback...)
		getter.netns = ns
		done := getter.must(t, append([]string{"get", tt.what, "--peer", serving.addr(t)}, tt.args...)...)
		sameFile(t, path, done.text("path"))
		logged, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		requests := strings.Count(string(logged), "206 bytes=")
		if (requests > asked) != tt.use || (done.given(url) > 0) != tt.use {
			t.Errorf("get %s %v: the mirror had %d requests and gave %d bytes, want some: %v", tt.what, tt.args, requests-asked, done.given(url), tt.use)
		}
		asked = requests
	}
}
