package control

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
	"time"
)

// Limits of the sessions of a run.
const (
	codeLife    = time.Minute // from the command to the page it opened
	codesMax    = 16          // unused; a further one takes the place of the oldest
	sessionsMax = 64          // a further one ends the oldest
)

// sessions are the browsers that may use the TCP side of this run. A browser gets in
// with a one-time code, which `p2pshare ui` asks for on the unix socket and puts into
// the fragment of the page's address: a fragment is sent to no server, and stands in no
// log. The page trades it for a cookie that no script can read.
//
//	unix socket: POST sessions ──▶ code ──▶ page#code ──▶ POST login ──▶ cookie
//
// A cookie knows no ports: a server on another port of 127.0.0.1 that the person visits
// is sent it, too. So it names the port, is good for this run only, and a page that comes
// from another port gets nowhere with it: see guard.
//
// The methods are safe for concurrent use.
type sessions struct {
	mu    sync.Mutex
	codes []code              // guarded by mu, oldest first
	keys  [][sha256.Size]byte // guarded by mu: digests of the cookies' values, oldest first
}

type code struct {
	digest [sha256.Size]byte
	until  time.Time
}

// secret draws 256 bits.
func secret() (text string, digest [sha256.Size]byte) {
	var b [32]byte
	rand.Read(b[:])
	text = hex.EncodeToString(b[:])
	return text, sha256.Sum256([]byte(text))
}

// newCode draws a code that lets one browser in.
func (ss *sessions) newCode(now time.Time) string {
	text, digest := secret()
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.codes = append(ss.codes, code{digest, now.Add(codeLife)})
	ss.codes = ss.codes[max(0, len(ss.codes)-codesMax):]
	return text
}

// login trades a code for a session's key. A code is good once.
//
// Codes and keys are compared as digests: how long that takes tells nothing of them.
func (ss *sessions) login(text string, now time.Time) (key string, ok bool) {
	digest := sha256.Sum256([]byte(text))
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for i, c := range ss.codes {
		if c.digest != digest {
			continue
		}
		ss.codes = append(ss.codes[:i:i], ss.codes[i+1:]...)
		if now.After(c.until) {
			return "", false
		}
		key, digest := secret()
		ss.keys = append(ss.keys, digest)
		ss.keys = ss.keys[max(0, len(ss.keys)-sessionsMax):]
		return key, true
	}
	return "", false
}

// has reports whether a session has that key.
func (ss *sessions) has(key string) bool {
	digest := sha256.Sum256([]byte(key))
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, k := range ss.keys {
		if k == digest {
			return true
		}
	}
	return false
}

// key is the key of a session that r comes with in a cookie of that name; empty: none.
// A server on another port can set cookies of that name, too, which come before ours.
func (ss *sessions) key(r *http.Request, cookie string) string {
	for _, c := range r.CookiesNamed(cookie) {
		if ss.has(c.Value) {
			return c.Value
		}
	}
	return ""
}

// end ends the session with that key.
func (ss *sessions) end(key string) {
	digest := sha256.Sum256([]byte(key))
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for i, k := range ss.keys {
		if k == digest {
			ss.keys = append(ss.keys[:i:i], ss.keys[i+1:]...)
			return
		}
	}
}

// SessionRequest is the body of POST /sessions, of POST /login and of POST /logout.
type SessionRequest struct{}

// Session tells how a browser gets in.
type Session struct {
	URL     string  `json:"url"`       // with a code that is good once; empty: there is no TCP side
	Expires float64 `json:"expires_s"` // seconds
}

// newSession answers POST /sessions.
func (s *Server) newSession(w http.ResponseWriter, r *http.Request) {
	if _, ok := decode[SessionRequest](w, r); !ok {
		return
	}
	if s.tcp == nil {
		writeError(w, Errorf(CodeRefused, "this peer has no page: it ends with its command").WithHint("p2pshare daemon"))
		return
	}
	newStream(w, r, contentTypeLines).send(&Session{URL: s.URL() + "/#" + s.sessions.newCode(time.Now()), Expires: codeLife.Seconds()})
}

// LoggedIn tells that the cookie was set or taken away.
type LoggedIn struct {
	In bool `json:"in"`
}

// login answers POST /login, whose code the guard has left for it in the header
// Authorization.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if _, ok := decode[SessionRequest](w, r); !ok {
		return
	}
	key, ok := s.sessions.login(loginCode(r), time.Now())
	if !ok {
		writeErrorStatus(w, http.StatusUnauthorized, errLogin)
		return
	}
	http.SetCookie(w, s.cookie(key, 0))
	newStream(w, r, contentTypeLines).send(&LoggedIn{In: true})
}

var errLogin = Errorf(CodeRefused, "that code is not good, or not any more").WithHint("p2pshare ui opens the page with another one")

// logout answers POST /logout: it ends the session whose cookie it comes with.
func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	if _, ok := decode[SessionRequest](w, r); !ok {
		return
	}
	if s.tcp != nil {
		s.sessions.end(s.sessions.key(r, s.cookieName()))
		http.SetCookie(w, s.cookie("", -1))
	}
	newStream(w, r, contentTypeLines).send(&LoggedIn{})
}

func (s *Server) cookieName() string { return "p2pshare-" + s.port() }

// cookie is one that ends with the browser, or at once with age -1. It has no
// attribute Secure: there is no TLS on loopback.
func (s *Server) cookie(key string, age int) *http.Cookie {
	return &http.Cookie{Name: s.cookieName(), Value: key, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode}
}
