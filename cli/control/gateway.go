package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// The gateway answers with contents, for browsers and whatever else speaks HTTP:
//
//	GET /b3/HASH                a file's bytes, or a page about a directory
//	GET /b3/HASH?path=a/b.txt   what is in a directory; and as /b3/HASH/a/b.txt
//	GET /b3/HASH?format=zip     a directory as one archive
//	GET /name/NAME              the same for whatever get takes: a name, ann/report.pdf
//
// Ranges, conditions and HEAD work as for any file; the ETag is the content ID. The part
// that is asked for is fetched first. No byte leaves that was not verified: when a part
// can't be had, the answer is cut, so that its length is wrong, and the connection with it.
//
// What is served comes from strangers. It is of our origin, where the API is, so it must
// not act there: every answer is in a sandbox without scripts, and what a browser could
// run or render with links and scripts is only to be saved.

const (
	// gatewayMax is how many answers are under way at a time; each has a buffer of one
	// chunk group. Who comes beyond that is told to come again.
	gatewayMax = 256
	// gatewayLook bounds the search for what is asked for, and gatewayStall how long an
	// answer may wait for its next part.
	gatewayLook  = 60 * time.Second
	gatewayStall = 30 * time.Second
	// gatewayWrite is how long a client may take to read what one write holds, 32 KiB at
	// most and what its system buffers: a slow one is waited for, a dead one is not.
	gatewayWrite = 10 * time.Minute
	// rangesMax is how many ranges one request may ask for: each may need another chunk
	// group read and verified, for a byte of it.
	rangesMax = 32
	// namesKept is how many names it is remembered for what they meant, and namesFor for
	// how long: a player asks for a part every few seconds.
	namesKept = 256
	namesFor  = 15 * time.Second
)

const (
	policyFile = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// A player asks for the parts of a film from the page that the browser makes for it. In
	// a sandbox of an origin of its own these would be requests of a stranger, which are
	// refused. No script runs in it either.
	policyPlayed = "sandbox allow-same-origin; default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	policyPage   = "sandbox allow-downloads; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// gateway serves contents. Its methods are safe for concurrent use.
type gateway struct {
	server *Server
	slots  chan struct{} // a token for each answer under way; capacity gatewayMax

	base       string // of the links in a directory's page; empty: /b3/HASH
	pagePolicy string // of that page

	mu    sync.Mutex
	names map[string]keptName // guarded by mu
}

// keptName is what a name was found to mean a moment ago.
type keptName struct {
	meant share.Meant
	until time.Time
}

func newGateway(s *Server) *gateway {
	return &gateway{server: s, slots: make(chan struct{}, gatewayMax), pagePolicy: policyPage, names: map[string]keptName{}}
}

// serveOn adds the gateway to mux.
func (g *gateway) serveOn(mux *http.ServeMux) {
	mux.HandleFunc("GET /b3/{hash}", g.byID)
	mux.HandleFunc("GET /b3/{hash}/{path...}", g.byID)
	mux.HandleFunc("GET /name/{what...}", g.byName)
}

func (g *gateway) byID(w http.ResponseWriter, r *http.Request) {
	id, err := content.Parse(r.PathValue("hash"))
	if err != nil { // no such page
		g.text(w, http.StatusNotFound, ErrorOf(err).Message)
		return
	}
	what := share.What{ID: id}
	if name, err := share.ParseName(r.URL.Query().Get("filename")); err == nil {
		what.Name = name
	}
	g.answer(w, r, what, r.PathValue("path"))
}

// byName serves what a name means. The path of a request may name a publisher or a
// group first, so what is inside a directory is asked for with ?path=.
func (g *gateway) byName(w http.ResponseWriter, r *http.Request) {
	what, err := share.ParseWhat(r.PathValue("what"))
	if err == nil && !what.ID.IsZero() {
		err = Errorf(CodeUsage, "a content ID is asked for as /b3/HASH")
	}
	if err != nil {
		g.fail(w, err)
		return
	}
	g.answer(w, r, what, "")
}

// answer serves what is meant by what, and by the path in it.
func (g *gateway) answer(w http.ResponseWriter, r *http.Request, what share.What, inside string) {
	leave, ok := g.enter(w)
	if !ok {
		return
	}
	defer leave()
	o := share.OpenOptions{Peers: g.server.cfg.Peers, StallMax: gatewayStall}
	inside = cmp.Or(strings.TrimSuffix(inside, "/"), r.URL.Query().Get("path"))
	if inside != "" {
		var err error
		if o.Path, err = share.ParsePath(inside); err != nil {
			g.fail(w, err)
			return
		}
	}
	m, err := g.look(r.Context(), what, o)
	if err != nil {
		g.fail(w, err)
		return
	}
	if what.ID.IsZero() {
		w.Header().Set("Cache-Control", "no-cache") // it may mean another content soon
	} else {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	}
	g.show(w, r, m, o)
}

// enter takes a slot, or answers that there is none.
func (g *gateway) enter(w http.ResponseWriter) (leave func(), ok bool) {
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots }, true
	default:
		w.Header().Set("Retry-After", "5")
		g.text(w, http.StatusServiceUnavailable, "too many contents are being sent: try again soon")
		return nil, false
	}
}

// answerMeant serves what was found before, and with ?path= what is in it.
func (g *gateway) answerMeant(w http.ResponseWriter, r *http.Request, m share.Meant) {
	leave, ok := g.enter(w)
	if !ok {
		return
	}
	defer leave()
	o := share.OpenOptions{Peers: g.server.cfg.Peers, StallMax: gatewayStall}
	if inside := r.URL.Query().Get("path"); inside != "" {
		p, err := share.ParsePath(inside)
		if err == nil {
			m, err = g.server.cfg.Library.LookIn(r.Context(), m, p, o)
		}
		if err != nil {
			g.fail(w, err)
			return
		}
	}
	g.show(w, r, m, o)
}

func (g *gateway) show(w http.ResponseWriter, r *http.Request, m share.Meant, o share.OpenOptions) {
	switch {
	case m.Kind != share.KindDir:
		g.file(w, r, m, o)
	case r.URL.Query().Get("format") == "zip":
		g.archive(w, r, m, o)
	default:
		g.page(w, r, m, o)
	}
}

// look is Library.Look within gatewayLook, and remembers names for a while.
func (g *gateway) look(ctx context.Context, what share.What, o share.OpenOptions) (share.Meant, error) {
	ctx, cancel := context.WithTimeout(ctx, gatewayLook)
	defer cancel()
	if !what.ID.IsZero() {
		return g.server.cfg.Library.Look(ctx, what, o)
	}
	key := what.String() + "\x00" + string(o.Path)
	g.mu.Lock()
	kept, ok := g.names[key]
	g.mu.Unlock()
	if ok && time.Now().Before(kept.until) {
		return kept.meant, nil
	}
	m, err := g.server.cfg.Library.Look(ctx, what, o)
	if err != nil {
		return m, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.names) >= namesKept {
		clear(g.names)
	}
	g.names[key] = keptName{m, time.Now().Add(namesFor)}
	return m, nil
}

// file serves a file.
func (g *gateway) file(w http.ResponseWriter, r *http.Request, m share.Meant, o share.OpenOptions) {
	if strings.Count(r.Header.Get("Range"), ",") >= rangesMax { // RFC 9110, section 15.5.17
		g.text(w, http.StatusRequestedRangeNotSatisfiable, fmt.Sprintf("more than %d ranges", rangesMax))
		return
	}
	opened, err := g.server.cfg.Library.OpenMeant(r.Context(), m, o)
	if err != nil {
		g.fail(w, err)
		return
	}
	defer opened.Close()
	name := cmp.Or(m.Name, opened.Name(), share.Name(m.ID.Hex()))
	h := w.Header()
	fileHeaders(h, name)
	h.Set("ETag", `"`+m.ID.Hex()+`"`)
	body := &watched{ReadSeeker: opened}
	if r.Method == http.MethodGet && r.Header.Get("If-None-Match") == "" {
		// What can't be had at all has a status of its own; later it can only be cut.
		if err := firstByte(opened, r.Header.Get("Range")); err != nil {
			h.Del("ETag")
			h.Del("Content-Disposition")
			h.Set("Cache-Control", "no-store")
			g.fail(w, err)
			return
		}
	}
	http.ServeContent(&patientWriter{ResponseWriter: w}, r, "", time.Time{}, body)
	if body.err != nil {
		panic(http.ErrAbortHandler) // the client must not take this for the end
	}
}

// firstByte has the first byte at hand of what a Range header asks for.
func firstByte(r *share.Reader, header string) error {
	at := int64(0)
	if ranges, ok := strings.CutPrefix(header, "bytes="); ok {
		first, _, _ := strings.Cut(ranges, ",")
		from, last, _ := strings.Cut(strings.TrimSpace(first), "-")
		if n, err := strconv.ParseInt(from, 10, 64); err == nil {
			at = n
		} else if n, err := strconv.ParseInt(last, 10, 64); err == nil {
			at = max(0, r.Size()-n)
		}
	}
	if at >= r.Size() {
		return nil // ServeContent says so
	}
	if _, err := r.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if _, err := r.Read(make([]byte, 1)); err != nil {
		return err
	}
	_, err := r.Seek(0, io.SeekStart)
	return err
}

// watched keeps the error that ended the reading.
type watched struct {
	io.ReadSeeker
	err error
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadSeeker.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// patientWriter gives each write gatewayWrite.
type patientWriter struct{ http.ResponseWriter }

func (p *patientWriter) Write(b []byte) (int, error) {
	http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(gatewayWrite))
	return p.ResponseWriter.Write(b)
}

// fileHeaders are those of every file that comes from others: what it is by its name,
// and that it may do nothing.
func fileHeaders(h http.Header, name share.Name) {
	kind := cmp.Or(name.Media(), "application/octet-stream")
	disposition, policy := "attachment", policyFile
	if inline(kind) {
		disposition = "inline"
	}
	if played(kind) {
		policy = policyPlayed
	}
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", disposition+"; "+filename(name))
	sealed(h, policy)
}

// sealed keeps what is served from acting as a page of ours.
func sealed(h http.Header, policy string) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
}

// inlineTypes are the media types that a browser shows and that can hold neither script
// nor link. All others are to be saved: HTML, SVG, XML and scripts above all.
var inlineTypes = map[string]bool{
	"image/png": true, "image/jpeg": true, "image/gif": true, "image/webp": true, "image/avif": true, "image/bmp": true,
	"text/plain": true,
}

func inline(kind string) bool {
	base, _, _ := strings.Cut(kind, ";")
	return inlineTypes[strings.ToLower(strings.TrimSpace(base))] || played(kind)
}

// played tells whether a browser has a player for a media type, if it knows it at all. A
// playlist would have it ask for whatever stands in it.
func played(kind string) bool {
	base, _, _ := strings.Cut(kind, ";")
	major, minor, _ := strings.Cut(strings.ToLower(strings.TrimSpace(base)), "/")
	return (major == "audio" || major == "video") && !strings.HasSuffix(minor, "xml") && !strings.Contains(minor, "mpegurl")
}

// filename is a file's name for a Content-Disposition: in ASCII for old programs, and
// whole.
//
// Source: RFC 6266, section 4.3, with the encoding of RFC 8187.
func filename(name share.Name) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\%`, r) {
			return '_'
		}
		return r
	}, string(name))
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$&+-.^_`|~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte("0123456789ABCDEF"[c>>4])
		b.WriteByte("0123456789ABCDEF"[c&15])
	}
	return `filename="` + plain + `"; filename*=UTF-8''` + b.String()
}

// fail answers with an error, as plain text.
func (g *gateway) fail(w http.ResponseWriter, err error) {
	g.text(w, gatewayStatus(err), ErrorOf(err).Message)
}

func gatewayStatus(err error) int {
	switch {
	case errors.Is(err, share.ErrStalled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, share.ErrBadListing):
		return http.StatusBadGateway
	case errors.Is(err, share.ErrBadName), errors.Is(err, share.ErrBadWhat):
		return http.StatusBadRequest
	}
	return ErrorOf(err).Code.status()
}

func (g *gateway) text(w http.ResponseWriter, status int, message string) {
	h := w.Header()
	sealed(h, policyFile)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	io.WriteString(w, "p2pshare: "+message+"\n")
}
