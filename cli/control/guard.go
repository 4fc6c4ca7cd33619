package control

import (
	"crypto/subtle"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// guard decides which requests reach the API. What a browser can be made to
// send to a loopback address by a foreign page must not pass: a page at
// evil.example may post to 127.0.0.1 (so: token, JSON content type, Origin),
// and its name may resolve to 127.0.0.1 (DNS rebinding; so: exact Host).
type guard struct {
	// hosts are the Host headers that pass, "127.0.0.1:PORT" and
	// "localhost:PORT". Nil on the unix socket, which its mode protects and no
	// browser can reach: then neither Host nor token is asked for.
	hosts []string
	// token is the bearer token that TCP requests need.
	token string
	next  http.Handler
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e := g.check(r); e != nil {
		if e.status == http.StatusUnauthorized && isDrive(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="p2pshare: the password is the text of api.token", charset="UTF-8"`)
		}
		writeErrorStatus(w, e.status, e.Error)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, bodyMax)
	g.next.ServeHTTP(w, r)
}

// refusal is an Error with an HTTP status of its own: who asks wrongly over
// HTTP is a program, and its author reads the status first.
type refusal struct {
	*Error
	status int
}

func (g *guard) check(r *http.Request) *refusal {
	if g.hosts != nil {
		if !slices.Contains(g.hosts, r.Host) {
			return &refusal{Errorf(CodeRefused, "the Host header must be %s", strings.Join(g.hosts, " or ")), http.StatusMisdirectedRequest}
		}
		if !g.originAllowed(r.Header.Values("Origin")) {
			return &refusal{Errorf(CodeRefused, "requests from other origins are refused"), http.StatusForbidden}
		}
		if !tokenExempt(r) && !g.authorized(r.Header.Get("Authorization")) && !g.authorizedDrive(r) {
			return &refusal{Errorf(CodeRefused, "a bearer token is needed").
				WithHint("send Authorization: Bearer with the text of %s in the home", tokenName), http.StatusUnauthorized}
		}
	}
	if r.Method == http.MethodPost || r.Method == http.MethodDelete {
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != "application/json" {
			return &refusal{Errorf(CodeUsage, "the content type must be application/json"), http.StatusUnsupportedMediaType}
		}
	}
	return nil
}

// tokenExempt lets pages be opened by a plain link: the user interface and the
// contents, which carry no right to change anything.
func tokenExempt(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	hash, ok := strings.CutPrefix(r.URL.Path, "/b3/")
	return r.URL.Path == "/" || ok && !strings.Contains(hash, "/")
}

func (g *guard) originAllowed(origins []string) bool {
	if len(origins) == 0 {
		return true
	}
	origin, ok := strings.CutPrefix(origins[0], "http://")
	return ok && len(origins) == 1 && slices.Contains(g.hosts, origin)
}

func (g *guard) authorized(header string) bool {
	token, ok := strings.CutPrefix(header, "Bearer ")
	return ok && g.token != "" && subtle.ConstantTimeCompare([]byte(token), []byte(g.token)) == 1
}

// authorizedDrive lets file managers log in to the drive: they know Basic only. The
// password is the token. A page elsewhere can't have a browser send it: what a browser
// remembers of it goes with requests of this origin, and the drive changes nothing.
func (g *guard) authorizedDrive(r *http.Request) bool {
	_, password, ok := r.BasicAuth()
	return ok && isDrive(r) && g.authorized("Bearer "+password)
}

func isDrive(r *http.Request) bool {
	return r.URL.Path == drivePath || strings.HasPrefix(r.URL.Path, drivePath+"/")
}
