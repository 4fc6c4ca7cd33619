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
// evil.example may post to 127.0.0.1 (so: token or cookie, JSON content type, Origin),
// and its name may resolve to 127.0.0.1 (DNS rebinding; so: exact Host). A page on
// another port of this machine is of the same site, and its requests carry our cookie
// (so: Sec-Fetch-Site, which tells sites from origins).
type guard struct {
	// hosts are the Host headers that pass, "127.0.0.1:PORT" and
	// "localhost:PORT". Nil on the unix socket, which its mode protects and no
	// browser can reach: then neither Host nor token is asked for.
	hosts []string
	// token is the bearer token that TCP requests need, when they have no cookie of
	// that name of one of the sessions.
	token    string
	cookie   string
	sessions *sessions
	next     http.Handler
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e := g.check(r); e != nil {
		if e.status == http.StatusUnauthorized && isDrive(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="p2pshare: the password is the text of api.token", charset="UTF-8"`)
		}
		writeErrorStatus(w, e.status, e.Error)
		return
	}
	if r.URL.Path != pathUploads { // which bounds its own
		r.Body = http.MaxBytesReader(w, r.Body, bodyMax)
	}
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
		if e := g.checkTCP(r); e != nil {
			return e
		}
	}
	if r.Method == http.MethodPost || r.Method == http.MethodDelete {
		want := "application/json"
		if r.URL.Path == pathUploads {
			want = contentTypeBytes
		}
		// Neither is a type that a page of another origin can send unasked.
		kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || kind != want {
			return &refusal{Errorf(CodeUsage, "the content type must be %s", want), http.StatusUnsupportedMediaType}
		}
	}
	return nil
}

// changes reports whether a request may change something.
func changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, "PROPFIND":
		return false
	}
	return true
}

func (g *guard) checkTCP(r *http.Request) *refusal {
	if !slices.Contains(g.hosts, r.Host) {
		return &refusal{Errorf(CodeRefused, "the Host header must be %s", strings.Join(g.hosts, " or ")), http.StatusMisdirectedRequest}
	}
	if !g.originAllowed(r.Header.Values("Origin")) || !siteAllowed(r) {
		return &refusal{Errorf(CodeRefused, "requests from other origins are refused"), http.StatusForbidden}
	}
	if tokenExempt(r) || g.authorized(r.Header.Get("Authorization")) || g.authorizedDrive(r) ||
		r.Method == http.MethodPost && r.URL.Path == pathLogin && loginCode(r) != "" {
		return nil
	}
	if !g.hasSession(r) {
		return &refusal{Errorf(CodeRefused, "a bearer token is needed").
			WithHint("send Authorization: Bearer with the text of %s in the home; for a browser: p2pshare ui", tokenName), http.StatusUnauthorized}
	}
	if changes(r) && r.Header.Get("Origin") == "" {
		return &refusal{Errorf(CodeRefused, "a change by cookie needs the header Origin"), http.StatusForbidden}
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

// siteAllowed judges by what a browser tells of where a request comes from. "none" is
// the person: the address bar, or a bookmark. What another site or port may do is lead
// the person to an open page; not show it in a frame, and not load it as an image, from
// which it could tell what is here. Who sends no such header is no browser, or an old one:
// then Origin, cookie and token have to do.
func siteAllowed(r *http.Request) bool {
	sites := r.Header.Values("Sec-Fetch-Site")
	switch {
	case len(sites) == 0:
		return true
	case len(sites) > 1:
		return false
	case sites[0] == "same-origin":
		return true
	case sites[0] == "none":
		return !changes(r)
	}
	return tokenExempt(r) && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
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

// hasSession reports whether r comes with the cookie of a session.
func (g *guard) hasSession(r *http.Request) bool {
	return g.sessions != nil && g.sessions.key(r, g.cookie) != ""
}

// loginCode is the code that a browser wants to get in with; empty: none.
func loginCode(r *http.Request) string {
	code, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Code ")
	if code == r.Header.Get("Authorization") {
		return ""
	}
	return code
}
