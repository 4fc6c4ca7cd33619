package control

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"time"
)

// Policies of the pages: no request leaves this origin, no script runs that is not a file
// of ours, and no page may show ours in a frame. The login page needs no token,
// and so has all of its parts inside; they are named by their digests.
const (
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
	loginPolicy = "default-src 'none'; script-src '%s'; style-src '%s'; img-src data:; connect-src 'self'; " +
		"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

// pageTypes are the types of the page's files by their endings: the system's table may
// say otherwise.
var pageTypes = map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

// servePage adds / and /ui/ to mux. Files that are missing are a broken promise of
// whoever embedded them.
func (s *Server) servePage(mux *http.ServeMux) {
	index, login := s.pageFile("index.html"), s.pageFile("login.html")
	policy := fmt.Sprintf(loginPolicy, digestOf(login, "script"), digestOf(login, "style"))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if s.sessions.key(r, s.sessionCookie()) != "" {
			pageHeaders(w.Header(), pagePolicy)
			w.Write(index)
			return
		}
		pageHeaders(w.Header(), policy)
		w.Write(login)
	})
	mux.HandleFunc("GET /ui/{file}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("file")
		kind := pageTypes[path.Ext(name)]
		data, err := fs.ReadFile(s.cfg.Page, name)
		if err != nil || kind == "" {
			writeError(w, Errorf(CodeNotFound, "the page has no such file"))
			return
		}
		sum := sha256.Sum256(data)
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", fmt.Sprintf(`"%x"`, sum[:16]))
		pageHeaders(h, pagePolicy)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
}

func pageHeaders(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

func (s *Server) pageFile(name string) []byte {
	data, err := fs.ReadFile(s.cfg.Page, name)
	if err != nil {
		panic(err)
	}
	return data
}

// sessionCookie is the cookie's name; there is none without a TCP side.
func (s *Server) sessionCookie() string {
	if s.tcp == nil {
		return "none"
	}
	return s.cookieName()
}

// digestOf is the source expression for the one element of that kind in a page.
func digestOf(page []byte, kind string) string {
	_, rest, _ := bytes.Cut(page, []byte("<"+kind+">"))
	text, _, ok := bytes.Cut(rest, []byte("</"+kind+">"))
	if !ok {
		panic("the page has no element " + kind)
	}
	sum := sha256.Sum256(text)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
