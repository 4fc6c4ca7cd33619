package control

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// uploadTo sends a body that says it has size bytes.
func uploadTo(t *testing.T, c *Client, query string, body string, size int64) (Event, int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://p2pshare"+pathUploads+"?"+query, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = size
	r.Header.Set("Content-Type", contentTypeBytes)
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, 0 // cut off
	}
	defer answer.Body.Close()
	line, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	e, err := decodeEvent(bytes.TrimSpace(line))
	if err != nil {
		t.Fatalf("answer %q: %v", line, err)
	}
	return e, answer.StatusCode
}

func TestUploadsLandInTheFolderOnly(t *testing.T) {
	home, s := startOffline(t)
	client := connect(t, home)
	folder := s.cfg.Folder
	outside := t.TempDir()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(folder, "way out")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, query string
		want        string // the path inside the folder; empty: refused
		root        string
	}{
		{"a file", "name=a.txt", "a.txt", "a.txt"},
		{"its name again", "name=a.txt", "a (2).txt", "a (2).txt"},
		{"without an extension", "name=README", "README", "README"},
		{"hidden", "name=.profile", ".profile", ".profile"},
		{"hidden again", "name=.profile", ".profile (2)", ".profile (2)"},
		{"markup", "name=" + url.QueryEscape("<img src=x onerror=alert(1)>"), "<img src=x onerror=alert(1)>", "<img src=x onerror=alert(1)>"},
		{"in a directory", "batch=1&path=trip/day/a.jpg", "trip/day/a.jpg", "trip"},
		{"beside it", "batch=1&path=trip/day/b.jpg", "trip/day/b.jpg", "trip"},
		{"another of the name", "batch=2&path=trip/c.jpg", "trip (2)/c.jpg", "trip (2)"},
		{"parent", "name=..", "", ""},
		{"parent inside", "batch=3&path=up/../../x", "", ""},
		{"absolute", "batch=3&path=/etc/x", "", ""},
		{"slash in a name", "name=a/b", "", ""},
		{"backslash", "name=" + url.QueryEscape(`..\x`), "", ""},
		{"NUL", "name=a%00b", "", ""},
		{"no name", "", "", ""},
		{"no batch", "path=dir/a", "", ""},
		{"long batch", "path=dir/a&batch=" + strings.Repeat("b", batchMax+1), "", ""},
		{"long name", "name=" + strings.Repeat("n", 256), "", ""},
	}
	for _, tt := range tests {
		e, status := uploadTo(t, client, tt.query, "hello", 5)
		done, _ := e.(*Uploaded)
		if tt.want == "" {
			if done != nil || status == 200 {
				t.Errorf("%s: %+v, status %d, want it refused", tt.name, e, status)
			}
			continue
		}
		want := Uploaded{Path: filepath.Join(folder, filepath.FromSlash(tt.want)), Root: filepath.Join(folder, tt.root), Size: 5}
		if done == nil || *done != want {
			t.Errorf("%s: %+v, want %+v", tt.name, e, want)
			continue
		}
		if data, err := os.ReadFile(want.Path); err != nil || string(data) != "hello" {
			t.Errorf("%s: file is %q, %v", tt.name, data, err)
		}
	}
	if e, status := uploadTo(t, client, "batch=9&path="+url.QueryEscape("way out/x"), "hello", 5); status == 200 {
		if _, err := os.Stat(filepath.Join(outside, "x")); err == nil {
			t.Errorf("%+v: a link led out of the folder", e)
		}
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) > 0 {
		t.Errorf("outside the folder are %v, %v", entries, err)
	}
}

// TestUploadsLeaveNothingHalf cuts one off, and asks for more than the disk has.
func TestUploadsLeaveNothingHalf(t *testing.T) {
	home, s := startOffline(t)
	client := connect(t, home)
	const head = "POST " + pathUploads + "?name=%s HTTP/1.1\r\nHost: p2pshare\r\nContent-Type: " + contentTypeBytes + "\r\nContent-Length: %d\r\n\r\nhell"
	for name, tt := range map[string]struct {
		size int64
		want int
	}{"short": {5, 500}, "large": {1 << 62, 507}} {
		conn, err := net.Dial("unix", dialPath(home)) // net/http sends no body that ends too early
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, head, name, tt.size)
		conn.(*net.UnixConn).CloseWrite()
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != tt.want {
			t.Errorf("%s: %+v, %v, want status %d", name, answer, err, tt.want)
		}
	}
	if e, status := uploadTo(t, client, "name=endless", "hello", -1); status != 400 {
		t.Errorf("a body without a length: %+v, status %d, want 400", e, status)
	}
	// Each of those may be at work still when its client has left: wait until none is.
	for range uploadsMax {
		s.uploading <- struct{}{}
	}
	var left []string
	entries, err := os.ReadDir(s.cfg.Folder)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
	if e, status := uploadTo(t, client, "name=ninth", "hello", 5); status != 403 {
		t.Errorf("with %d uploads under way: %+v, status %d, want 403", uploadsMax, e, status)
	}
}

// TestUploadIsShared does what the page does with a file that is dropped on it.
func TestUploadIsShared(t *testing.T) {
	home, _ := startOffline(t)
	client := connect(t, home)
	body := strings.Repeat("0123456789abcdef", 1<<17) // beyond bodyMax
	e, _ := uploadTo(t, client, "name=big.bin", body, int64(len(body)))
	done, ok := e.(*Uploaded)
	if !ok {
		t.Fatalf("upload: %+v", e)
	}
	added, err := client.Add(t.Context(), AddRequest{Path: done.Root}, func(Event) {})
	if err != nil || added.Size != int64(len(body)) || added.Name != "big.bin" {
		t.Fatalf("Add = %+v, %v", added, err)
	}
	var linked Linked
	if err := client.fetch(t.Context(), pathLink+"?what="+url.QueryEscape(done.Path), &linked); err != nil || linked.ID != added.ID || linked.Link != added.Link {
		t.Errorf("link = %+v, %v, want %s", linked, err, added.Link)
	}
	answer, err := client.http.Get(fmt.Sprintf("http://p2pshare%s?text=%s", pathQR, url.QueryEscape(linked.Link)))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	image, err := io.ReadAll(answer.Body)
	if err != nil || answer.Header.Get("Content-Type") != "image/svg+xml" || answer.StatusCode != 200 || !bytes.HasPrefix(image, []byte("<svg ")) {
		t.Errorf("QR code: %s, %s, %.40q", answer.Status, answer.Header.Get("Content-Type"), image)
	}
}
