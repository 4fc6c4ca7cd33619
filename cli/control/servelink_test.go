package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// startLink serves a link of p at loopback until stop is called.
func startLink(t *testing.T, p *running, req ServeLinkRequest) (l *ServingLink, events chan Event, stop func() error) {
	t.Helper()
	req.Address = "127.0.0.1"
	client := connect(t, p.home)
	ctx, cancel := context.WithCancel(t.Context())
	events = make(chan Event, 16)
	ended := make(chan error, 1)
	go func() {
		_, err := client.ServeLink(ctx, req, func(e Event) { events <- e })
		ended <- err
	}()
	t.Cleanup(cancel)
	select {
	case e := <-events:
		l = e.(*ServingLink)
	case err := <-ended:
		t.Fatalf("ServeLink: %v", err)
	}
	return l, events, func() error { cancel(); return <-ended }
}

// browser is a client with cookies that does as browsers do.
type browser struct {
	t      *testing.T
	base   string
	client http.Client
}

func newBrowser(t *testing.T, l *ServingLink) *browser {
	jar, _ := cookiejar.New(nil)
	base, _, _ := strings.Cut(l.URL, "/#")
	return &browser{t, base, http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}}
}

func (b *browser) do(method, path, kind string, body io.Reader, headers ...string) (int, string, http.Header) {
	b.t.Helper()
	r, _ := http.NewRequest(method, b.base+path, body)
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	if method == "POST" {
		r.Header.Set("Origin", b.base)
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data), resp.Header
}

// mustEnd waits until nobody listens at the link: the server ends it when it learns
// that the request's connection has been closed, which the client doesn't wait for.
func (b *browser) mustEnd() {
	b.t.Helper()
	late := time.After(10 * time.Second)
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		resp, err := b.client.Get(b.base + "/")
		if err != nil {
			return
		}
		resp.Body.Close()
		select {
		case <-retry.C:
		case <-late:
			b.t.Fatal("a link that has ended still answers after 10 s")
		}
	}
}

const formType = "application/x-www-form-urlencoded"

func (b *browser) open(code string) int {
	status, _, _ := b.do("POST", "/open", formType, strings.NewReader(url.Values{"code": {code}}.Encode()))
	return status
}

// send sends a file as the page's form does.
func (b *browser) send(name string, data []byte) int {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, _ := form.CreateFormFile("file", name)
	part.Write(data)
	form.Close()
	status, _, _ := b.do("POST", "/send", form.FormDataContentType(), &body)
	return status
}

func TestLinkNeedsItsTokenAndServesOneContent(t *testing.T) {
	sharer := startRunning(t)
	p := startRunning(t, sharer)
	data := seeded(600_000, "film")
	s := sharer.add(t, "fi<l>m.mp4", data)
	other := p.add(t, "other.txt", []byte("not for them"))
	l, _, stop := startLink(t, p, ServeLinkRequest{What: s.ID.String()})
	token := l.URL[strings.Index(l.URL, "#")+1:]
	b := newBrowser(t, l)
	status, page, h := b.do("GET", "/", "", nil)
	if status != 200 || strings.Contains(page, token) || strings.Contains(page, "m.mp4") ||
		!strings.Contains(page, "plain HTTP") || !strings.Contains(h.Get("Content-Security-Policy"), "script-src 'sha256-") {
		t.Errorf("the page without a token: %d %v\n%s", status, h, page)
	}
	for _, path := range []string{"/file", "/qr.png"} {
		if status, _, _ := b.do("GET", path, "", nil); status != 401 {
			t.Errorf("%s without a token: %d, want 401", path, status)
		}
	}
	if status := b.open("wrong"); status != 403 {
		t.Errorf("a wrong token: %d, want 403", status)
	}
	if status, _, _ := b.do("POST", "/open", formType, strings.NewReader("code="+token), "Origin", "http://evil.example"); status != 403 {
		t.Errorf("a page elsewhere: %d, want 403", status)
	}
	if status, _, _ := b.do("GET", "/", "", nil, "Host", "evil.example"); status != 403 {
		t.Errorf("another Host: %d, want 403", status)
	}
	if status := b.open(l.URL); status != 200 { // after the redirect
		t.Fatalf("the whole link as the code: %d", status)
	}
	status, page, _ = b.do("GET", "/", "", nil)
	if status != 200 || !strings.Contains(page, "586 KiB") || !strings.Contains(page, "fi&lt;l&gt;m.mp4") || strings.Contains(page, "/send") {
		t.Errorf("the page: %d\n%s", status, page)
	}
	status, body, h := b.do("GET", "/file", "", nil, "Range", "bytes=300000-300009")
	if status != 206 || body != string(data[300000:300010]) || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("a range of the file: %d %v", status, h)
	}
	if status, body, _ := b.do("GET", "/qr.png", "", nil); status != 200 || !strings.HasPrefix(body, "\x89PNG") {
		t.Errorf("the QR code: %d", status)
	}
	for _, path := range []string{"/b3/" + other.ID.Hex(), "/api/v1/status", "/name/other.txt"} {
		if status, _, _ := b.do("GET", path, "", nil); status != 404 {
			t.Errorf("%s: %d, want 404", path, status)
		}
	}
	if status := b.send("a.txt", []byte("x")); status != 404 && status != 405 {
		t.Errorf("sending, which is off: %d", status)
	}
	stop()
	b.mustEnd()
}

func TestLinkReceivesUnderItsLimits(t *testing.T) {
	p := startRunning(t)
	s := p.add(t, "a.txt", []byte("a"))
	dir := t.TempDir()
	l, events, _ := startLink(t, p, ServeLinkRequest{What: s.ID.String(), Receive: dir, ReceiveBytes: 1000, ReceiveFiles: 2})
	b := newBrowser(t, l)
	if status := b.send("early.txt", []byte("x")); status != 401 {
		t.Errorf("sending without a token: %d, want 401", status)
	}
	b.open(l.URL)
	if status := b.send("large.bin", make([]byte, 1001)); status != 413 {
		t.Errorf("too large: %d, want 413", status)
	}
	if status := b.send(".bashrc", []byte("x")); status != 400 {
		t.Errorf("a hidden name: %d, want 400", status)
	}
	for _, name := range []string{"../../x.txt", "x.txt"} { // the path is cut off, as by every browser
		if status := b.send(name, []byte("x")); status != 200 {
			t.Errorf("%s: %d, want 200", name, status)
		}
		if e := (<-events).(*Received); filepath.Dir(e.Path) != dir || e.Size != 1 || e.From != "127.0.0.1" {
			t.Errorf("received %+v", e)
		}
	}
	if status := b.send("third.txt", []byte("x")); status != 403 {
		t.Errorf("one file too many: %d, want 403", status)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 || files[0].Name() != "x (1).txt" {
		t.Errorf("the directory holds %v, %v", files, err)
	}
}

func TestLinkExpires(t *testing.T) {
	p := startRunning(t)
	s := p.add(t, "a.txt", []byte("a"))
	client := connect(t, p.home)
	start := time.Now()
	end, err := client.ServeLink(t.Context(), ServeLinkRequest{What: s.ID.String(), Address: "127.0.0.1", Expire: 1}, func(Event) {})
	if err != nil || end.URL == "" || time.Since(start) < 900*time.Millisecond {
		t.Errorf("ServeLink for a second = %+v, %v after %s", end, err, time.Since(start))
	}
	for _, req := range []ServeLinkRequest{{What: s.ID.String(), Expire: -1}, {What: s.ID.String(), Address: "0.0.0.0"},
		{What: s.ID.String(), Address: "127.0.0.1", Receive: "relative"}, {What: "no such name", Address: "127.0.0.1"}} {
		if _, err := client.ServeLink(t.Context(), req, func(Event) {}); err == nil {
			t.Errorf("ServeLink(%+v) succeeds", req)
		}
	}
}

// TestDetachedLinkIsListedUntilItIsStopped: and goes on without the request that made it.
func TestDetachedLinkIsListedUntilItIsStopped(t *testing.T) {
	p := startRunning(t)
	s := p.add(t, "a.txt", []byte("a"))
	client := connect(t, p.home)
	ask := func(method string, req any, into any) int {
		t.Helper()
		body, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "http://p2pshare"+pathServeLink, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		answer, err := client.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if err := json.NewDecoder(answer.Body).Decode(into); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		return answer.StatusCode
	}
	events, _ := follow(t, t.Context(), client)
	var now LinksNow
	if events.next("links", &now); len(now.Links) != 0 {
		t.Fatalf("links = %+v before there is one", now)
	}
	dir := t.TempDir()
	var made ServingLink
	ask("POST", ServeLinkRequest{What: s.ID.String(), Address: "127.0.0.1", Detached: true, Receive: dir}, &made)
	if events.next("links", &now); len(now.Links) != 1 || *now.Links[0] != made || made.ID != s.ID || made.URL == "" {
		t.Errorf("the event tells of %+v, want %+v", now.Links, made)
	}
	b := newBrowser(t, &made)
	b.open(made.URL)
	if status, body, _ := b.do("GET", "/file", "", nil); status != 200 || body != "a" {
		t.Errorf("GET /file = %d %q", status, body)
	}
	b.send("for you.txt", []byte("x"))
	for now.Links[0].Received == 0 {
		events.next("links", &now)
	}
	var listed ServingLink
	if ask("GET", nil, &listed); listed != *now.Links[0] {
		t.Errorf("it is listed as %+v, want %+v", listed, now.Links[0])
	}
	var failed Error
	if status := ask("DELETE", StopLinkRequest{URL: "http://127.0.0.1:1/#x"}, &failed); status != 404 || failed.Code != CodeNotFound {
		t.Errorf("stopping another: %d %+v, want 404", status, failed)
	}
	if status := ask("DELETE", StopLinkRequest{URL: made.URL}, new(LinkExpired)); status != 200 {
		t.Errorf("stopping it: %d", status)
	}
	if events.next("links", &now); len(now.Links) != 0 {
		t.Errorf("links = %+v after it was stopped", now.Links)
	}
	var none ServingLink
	if ask("GET", nil, &none); none.URL != "" {
		t.Errorf("it is listed as %+v after it was stopped", none)
	}
}

func TestLinksAreLimited(t *testing.T) {
	p := startRunning(t)
	s := p.add(t, "a.txt", []byte("a"))
	var last func() error
	for range linksMax {
		_, _, last = startLink(t, p, ServeLinkRequest{What: s.ID.String()})
	}
	client := connect(t, p.home)
	if _, err := client.ServeLink(t.Context(), ServeLinkRequest{What: s.ID.String(), Address: "127.0.0.1"}, func(Event) {}); ErrorOf(err).Code != CodeRefused {
		t.Errorf("link %d: %v, want it refused", linksMax+1, err)
	}
	last()
	for len(p.server.links.lines()) >= linksMax {
		runtime.Gosched()
	}
	startLink(t, p, ServeLinkRequest{What: s.ID.String()})
}
