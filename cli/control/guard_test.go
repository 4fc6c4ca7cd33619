package control

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestGuardOnTCP sends raw requests over a real TCP connection: what a hostile
// page, a rebound name, or a program without the token can send must stop at
// the guard.
func TestGuardOnTCP(t *testing.T) {
	const token = "0123456789abcdef"
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	self, local := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("localhost:%d", port)
	inside := new(sessions)
	key, ok := inside.login(inside.newCode(time.Now()), time.Now())
	if !ok {
		t.Fatal("a new code is not good")
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: &guard{
		hosts: []string{self, local}, token: token, cookie: "p2pshare-test", sessions: inside,
		next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			}
		}),
	}}}
	server.Start()
	defer server.Close()

	const auth = "Authorization: Bearer " + token
	const isJSON = "Content-Type: application/json"
	const isBytes = "Content-Type: application/octet-stream"
	cookie, own := "Cookie: other=1; p2pshare-test="+key, "Origin: http://"+self
	const site = "Sec-Fetch-Site: "
	navigate := []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	tests := []struct {
		name    string
		method  string
		path    string
		host    string
		headers []string
		want    int
	}{
		{"right host and token", "GET", pathStatus, self, []string{auth}, 200},
		{"localhost", "GET", pathStatus, local, []string{auth}, 200},
		{"no token", "GET", pathStatus, self, nil, 401},
		{"empty token", "GET", pathStatus, self, []string{"Authorization: Bearer "}, 401},
		{"wrong token", "GET", pathStatus, self, []string{auth + "0"}, 401},
		{"beginning of the token", "GET", pathStatus, self, []string{auth[:len(auth)-1]}, 401},
		{"other scheme", "GET", pathStatus, self, []string{"Authorization: Basic " + token}, 401},
		{"token in the query", "GET", pathStatus + "?token=" + token, self, nil, 401},

		{"rebound name", "GET", pathStatus, fmt.Sprintf("evil.example:%d", port), []string{auth}, 421},
		{"name that begins like us", "GET", pathStatus, fmt.Sprintf("127.0.0.1.evil.example:%d", port), []string{auth}, 421},
		{"name that ends like us", "GET", pathStatus, fmt.Sprintf("evil-localhost:%d", port), []string{auth}, 421},
		{"no port", "GET", pathStatus, "127.0.0.1", []string{auth}, 421},
		{"other port", "GET", pathStatus, "127.0.0.1:1", []string{auth}, 421},
		{"other loopback address", "GET", pathStatus, fmt.Sprintf("127.0.0.2:%d", port), []string{auth}, 421},
		{"all addresses", "GET", pathStatus, fmt.Sprintf("0.0.0.0:%d", port), []string{auth}, 421},
		{"IPv6 loopback", "GET", pathStatus, fmt.Sprintf("[::1]:%d", port), []string{auth}, 421},
		{"rebound name, exempt path", "GET", "/", fmt.Sprintf("evil.example:%d", port), nil, 421},

		{"own origin", "GET", pathStatus, self, []string{auth, "Origin: http://" + self}, 200},
		{"own origin by name", "GET", pathStatus, self, []string{auth, "Origin: http://" + local}, 200},
		{"foreign origin", "GET", pathStatus, self, []string{auth, "Origin: http://evil.example"}, 403},
		{"null origin", "GET", pathStatus, self, []string{auth, "Origin: null"}, 403},
		{"https origin", "GET", pathStatus, self, []string{auth, "Origin: https://" + self}, 403},
		{"origin of another port", "GET", pathStatus, self, []string{auth, "Origin: http://127.0.0.1:1"}, 403},
		{"two origins", "GET", pathStatus, self, []string{auth, "Origin: http://" + self, "Origin: http://evil.example"}, 403},
		{"foreign origin, exempt path", "GET", "/", self, []string{"Origin: http://evil.example"}, 403},

		{"post JSON", "POST", pathShares, self, []string{auth, isJSON}, 200},
		{"post JSON with charset", "POST", pathShares, self, []string{auth, isJSON + "; charset=utf-8"}, 200},
		{"post without type", "POST", pathShares, self, []string{auth}, 415},
		{"post a form, as a page can", "POST", pathShares, self, []string{auth, "Content-Type: application/x-www-form-urlencoded"}, 415},
		{"post text, as a page can", "POST", pathShares, self, []string{auth, "Content-Type: text/plain"}, 415},
		{"delete without type", "DELETE", pathShares, self, []string{auth}, 415},
		{"post without token", "POST", pathShares, self, []string{isJSON}, 401},
		{"preflight", "OPTIONS", pathShares, self, []string{"Origin: http://evil.example", "Access-Control-Request-Method: POST"}, 403},

		{"cookie", "GET", pathStatus, self, []string{cookie}, 200},
		{"wrong cookie", "GET", pathStatus, self, []string{"Cookie: p2pshare-test=" + strings.Repeat("0", 64)}, 401},
		{"empty cookie", "GET", pathStatus, self, []string{"Cookie: p2pshare-test="}, 401},
		{"cookie of another port", "GET", pathStatus, self, []string{"Cookie: p2pshare-other=" + key}, 401},
		{"cookie behind one that another port has set", "GET", pathStatus, self, []string{"Cookie: p2pshare-test=x; p2pshare-test=" + key}, 200},
		{"token as cookie", "GET", pathStatus, self, []string{"Cookie: p2pshare-test=" + token}, 401},
		{"key as token", "GET", pathStatus, self, []string{"Authorization: Bearer " + key}, 401},
		{"post by cookie", "POST", pathShares, self, []string{cookie, isJSON, own, site + "same-origin"}, 200},
		{"post by cookie without origin", "POST", pathShares, self, []string{cookie, isJSON}, 403},
		{"post by cookie from elsewhere", "POST", pathShares, self, []string{cookie, isJSON, "Origin: http://evil.example"}, 403},
		{"post by cookie from another port", "POST", pathShares, self, []string{cookie, isJSON, "Origin: http://127.0.0.1:1", site + "same-site"}, 403},
		{"rebound name with cookie", "GET", pathStatus, fmt.Sprintf("evil.example:%d", port), []string{cookie}, 421},

		{"same origin", "GET", pathStatus, self, []string{cookie, site + "same-origin"}, 200},
		{"address bar", "GET", pathStatus, self, []string{cookie, site + "none"}, 200},
		{"other port", "GET", pathStatus, self, []string{cookie, site + "same-site"}, 403},
		{"other site", "GET", pathStatus, self, []string{cookie, site + "cross-site"}, 403},
		{"other site with token", "GET", pathStatus, self, []string{auth, site + "cross-site"}, 403},
		{"two sites", "GET", pathStatus, self, []string{cookie, site + "same-origin", site + "cross-site"}, 403},
		{"unknown site", "GET", pathStatus, self, []string{cookie, site + "friendly"}, 403},
		{"post from the address bar", "POST", pathShares, self, []string{cookie, isJSON, own, site + "none"}, 403},
		{"link elsewhere to the page", "GET", "/", self, append([]string{site + "cross-site"}, navigate...), 200},
		{"link elsewhere to a content", "GET", "/b3/00ff", self, append([]string{site + "cross-site"}, navigate...), 200},
		{"link elsewhere to the API", "GET", pathStatus, self, append([]string{cookie, site + "cross-site"}, navigate...), 403},
		{"frame elsewhere", "GET", "/", self, []string{site + "cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{"image elsewhere", "GET", "/b3/00ff", self, []string{site + "cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403},
		{"image on another port", "GET", "/b3/00ff", self, []string{site + "same-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403},

		{"code for login", "POST", pathLogin, self, []string{"Authorization: Code 00", isJSON}, 200}, // which judges it
		{"no code for login", "POST", pathLogin, self, []string{isJSON}, 401},
		{"empty code for login", "POST", pathLogin, self, []string{"Authorization: Code ", isJSON}, 401},
		{"code for anything else", "POST", pathShares, self, []string{"Authorization: Code 00", isJSON}, 401},
		{"code by get", "GET", pathLogin, self, []string{"Authorization: Code 00"}, 401},
		{"code from elsewhere", "POST", pathLogin, self, []string{"Authorization: Code 00", isJSON, "Origin: http://evil.example"}, 403},

		{"upload", "POST", pathUploads, self, []string{auth, isBytes}, 200},
		{"upload as a form", "POST", pathUploads, self, []string{auth, "Content-Type: multipart/form-data; boundary=x"}, 415},
		{"upload as JSON", "POST", pathUploads, self, []string{auth, isJSON}, 415},
		{"bytes elsewhere", "POST", pathShares, self, []string{auth, isBytes}, 415},
		{"upload without token", "POST", pathUploads, self, []string{isBytes}, 401},

		{"page", "GET", "/", self, nil, 200},
		{"content", "GET", "/b3/00ff", self, nil, 200},
		{"head of a content", "HEAD", "/b3/00ff", self, nil, 200},
		{"below a content", "GET", "/b3/00ff/x", self, nil, 401},
		{"post to the page", "POST", "/", self, []string{isJSON}, 401},
		{"path that looks exempt", "GET", "/b3/../api/v1/status", self, nil, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := rawRequest(t, self, tt.method, tt.path, tt.host, tt.headers, "{}")
			if got.StatusCode != tt.want {
				t.Errorf("%s %s with Host %s, %v = %d, want %d", tt.method, tt.path, tt.host, tt.headers, got.StatusCode, tt.want)
			}
			for header := range got.Header {
				if strings.HasPrefix(header, "Access-Control-") {
					t.Errorf("answer has %s: no other origin may read it", header)
				}
			}
		})
	}
	t.Run("body too large", func(t *testing.T) {
		got := rawRequest(t, self, "POST", pathShares, self, []string{auth, isJSON}, strings.Repeat("x", bodyMax+1))
		if got.StatusCode != 413 {
			t.Errorf("body of %d bytes = %d, want 413", bodyMax+1, got.StatusCode)
		}
	})
}

// rawRequest writes a request by hand: a client of net/http would correct it.
func rawRequest(t *testing.T, addr, method, path, host string, headers []string, body string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	lines := append([]string{method + " " + path + " HTTP/1.1", "Host: " + host, "Connection: close"}, headers...)
	if method == "POST" || method == "DELETE" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	} else {
		body = ""
	}
	go io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"+body) // ends with the connection
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestGuardOnSocket: the socket's mode is what protects it; but a POST is JSON
// there too.
func TestGuardOnSocket(t *testing.T) {
	g := &guard{next: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	for contentType, want := range map[string]int{"application/json": 200, "text/plain": 415} {
		r := httptest.NewRequest("POST", "http://p2pshare"+pathShares, strings.NewReader("{}"))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("POST with %s = %d, want %d", contentType, w.Code, want)
		}
	}
}
