package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
	"rsc.io/qr"
)

// A link for people without p2pshare: a listener of its own on the local network, for one
// content and a limited time. Its address ends in a token after #, which browsers send to
// nobody; the page hands it in once and gets a cookie for it that scripts can't read.
// Nothing but the empty page is answered without.

const (
	linkExpireDefault = time.Hour
	linkExpireMax     = 30 * 24 * time.Hour
	// linkConns is how many connections one link serves at a time, and linkConnsEach how
	// many of one address: a browser opens six.
	linkConns     = 64
	linkConnsEach = 16
	// linksMax is how many links are served at a time; a further one is refused.
	linksMax = 32
	// Limits of what is received, unless the request sets others.
	linkReceiveBytes = 1 << 30
	linkReceiveFiles = 100
)

// ServeLinkRequest is the body of POST /serve-link. The link is served as long as the
// request is open, or with Detached until it expires or is stopped, or the peer ends.
type ServeLinkRequest struct {
	What    string   `json:"what"`
	Literal bool     `json:"literal,omitempty"`
	Peers   []string `json:"peers,omitempty"`
	// Expire is for how many seconds it is served; 0: an hour.
	Expire float64 `json:"expire_s,omitempty"`
	// Address is the IP address to listen at, and Port the TCP port; empty, 0: the first
	// private address of this machine, a drawn port.
	Address string `json:"address,omitempty"`
	Port    int    `json:"port,omitempty"`
	// Receive is the absolute directory for files that are sent here; empty: none are
	// taken. ReceiveBytes bounds each, ReceiveFiles their number; 0: 1 GiB, 100.
	Receive      string `json:"receive,omitempty"`
	ReceiveBytes int64  `json:"receive_bytes,omitempty"`
	ReceiveFiles int    `json:"receive_files,omitempty"`
	Detached     bool   `json:"detached,omitempty"` // go on when the request's connection closes
}

// ServingLink tells where a content is served. It is a line of GET /serve-link, too.
type ServingLink struct {
	URL      string     `json:"url"` // with the token
	Name     share.Name `json:"name"`
	ID       content.ID `json:"id"`
	Size     int64      `json:"size"` // bytes; -1: a directory's, which is not known
	Expires  time.Time  `json:"expires"`
	Receive  string     `json:"receive,omitempty"`
	Received int        `json:"received,omitempty"` // files that were sent here
}

// Received tells of a file that was sent here.
type Received struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	From string `json:"from"` // the IP address
}

// LinkExpired is the end of a link.
type LinkExpired struct {
	URL string `json:"url"`
}

func (*ServingLink) event() string { return "serving" }
func (*Received) event() string    { return "received" }
func (*LinkExpired) event() string { return "expired" }

// link is one link that is served. It is the handler of its listener.
type link struct {
	req      ServeLinkRequest
	gateway  *gateway
	library  *share.Library
	meant    share.Meant
	listener net.Listener
	host     string // the only one that requests may name
	url      string // with the token
	token    string
	cookie   string // its value
	expires  time.Time
	told     func(Event) // of what is received
	stop     func()      // ends it early
	mux      http.ServeMux

	mu       sync.Mutex
	files    int // guarded by mu: received, or on their way
	received int // guarded by mu
}

func (s *Server) openLink(ctx context.Context, req ServeLinkRequest) (*link, error) {
	expire := time.Duration(req.Expire * float64(time.Second))
	if expire == 0 {
		expire = linkExpireDefault
	}
	switch {
	case expire < time.Second || expire > linkExpireMax:
		return nil, Errorf(CodeUsage, "a link is served for a second to 30 days")
	case req.Receive != "" && !filepath.IsAbs(req.Receive):
		return nil, Errorf(CodeUsage, "receive %q is not absolute", req.Receive)
	case req.ReceiveBytes < 0 || req.ReceiveFiles < 0 || req.Port < 0 || req.Port > 65535:
		return nil, Errorf(CodeUsage, "a limit or the port makes no sense")
	}
	if err := s.makeFolder(req.Receive); err != nil {
		return nil, err
	}
	if req.ReceiveBytes == 0 {
		req.ReceiveBytes = linkReceiveBytes
	}
	if req.ReceiveFiles == 0 {
		req.ReceiveFiles = linkReceiveFiles
	}
	what, err := ParseWhat(req.What, req.Literal)
	if err != nil {
		return nil, err
	}
	peers, err := share.ParsePeers(req.Peers)
	if err != nil {
		return nil, err
	}
	l := &link{req: req, gateway: newGateway(s), library: s.cfg.Library, token: drawn(), cookie: drawn(), expires: time.Now().Add(expire)}
	l.gateway.base, l.gateway.pagePolicy = "/file", policyLink
	if l.meant, err = l.gateway.look(ctx, what, share.OpenOptions{Peers: append(peers, s.cfg.Peers...)}); err != nil {
		return nil, err
	}
	if l.meant.Size < 0 && l.meant.Kind != share.KindDir {
		if opened, err := s.cfg.Library.OpenMeant(ctx, l.meant, share.OpenOptions{Peers: append(peers, s.cfg.Peers...), StallMax: gatewayStall}); err == nil {
			l.meant.Size = opened.Size()
			opened.Close()
		}
	}
	if l.meant.Name == "" {
		l.meant.Name = share.Name(l.meant.ID.Hex())
	}
	addr, err := linkAddress(req.Address)
	if err != nil {
		return nil, err
	}
	if l.listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, uint16(req.Port)).String()); err != nil {
		return nil, err
	}
	l.host = l.listener.Addr().String()
	l.url = "http://" + l.host + "/#" + l.token
	l.routes()
	return l, nil
}

// drawn is a token that can't be guessed: 128 bits in 22 characters.
func drawn() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// linkAddress is the address to listen at: the one that was given, or the first private
// one of this machine.
func linkAddress(given string) (netip.Addr, error) {
	if given != "" {
		a, err := netip.ParseAddr(given)
		if err != nil || a.IsUnspecified() {
			return a, Errorf(CodeUsage, "%q is not an IP address of this machine", given)
		}
		return a, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsPrivate() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, Errorf(CodeFailed, "this machine has no private IPv4 address").WithHint("name the one to serve at: --address IP")
}

// Policies of the link's pages.
const policyLink = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed link.html
var linkPage string

// linkTemplate is the page; its script's digest is named in the policy, and no other runs.
var linkTemplate = template.Must(template.New("link").Parse(linkPage))

func linkPolicy() string {
	_, script, _ := strings.Cut(linkPage, "<script>")
	script, _, _ = strings.Cut(script, "</script>")
	sum := sha256.Sum256([]byte(script))
	return "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; " +
		"frame-ancestors 'none'; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (l *link) routes() {
	l.mux.HandleFunc("GET /{$}", l.page)
	l.mux.HandleFunc("POST /open", l.open)
	l.mux.HandleFunc("GET /file", l.withCookie(l.file))
	l.mux.HandleFunc("GET /qr.png", l.withCookie(l.qr))
	if l.req.Receive != "" {
		l.mux.HandleFunc("POST /send", l.withCookie(l.receive))
	}
}

// ServeHTTP refuses what names another host, as a name that was made to lead here does,
// and changes from pages elsewhere.
func (l *link) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sealed(w.Header(), policyLink)
	w.Header().Set("Referrer-Policy", "same-origin") // without, forms have no Origin
	w.Header().Set("Cache-Control", "no-store")
	origin := r.Header.Values("Origin")
	if r.Host != l.host || len(origin) > 1 || len(origin) == 1 && origin[0] != "http://"+l.host ||
		r.Method == http.MethodPost && len(origin) == 0 {
		http.Error(w, "p2pshare: requests from elsewhere are refused", http.StatusForbidden)
		return
	}
	l.mux.ServeHTTP(w, r)
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// cookieName has the port in it: cookies know none, and there may be several links.
func (l *link) cookieName() string {
	return fmt.Sprintf("p2pshare-link-%d", l.listener.Addr().(*net.TCPAddr).Port)
}

func (l *link) opened(r *http.Request) bool {
	return slices.ContainsFunc(r.CookiesNamed(l.cookieName()), func(c *http.Cookie) bool { return same(c.Value, l.cookie) })
}

func (l *link) withCookie(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !l.opened(r) {
			http.Error(w, "p2pshare: open the link again, with all that is behind its #", http.StatusUnauthorized)
			return
		}
		h(w, r)
	}
}

// page answers with the page: without the cookie with the part of it that opens the link.
func (l *link) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", linkPolicy())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v := map[string]any{"Opened": l.opened(r)}
	if l.opened(r) {
		v["Name"], v["Dir"] = share.Escape(string(l.meant.Name)), l.meant.Kind == share.KindDir
		v["ID"] = l.meant.ID.String()
		v["Expires"] = l.expires.Format("2006-01-02 15:04 MST")
		v["Receive"], v["Sent"] = l.req.Receive != "", r.URL.Query().Get("sent") != ""
		v["MaxMiB"] = l.req.ReceiveBytes >> 20
		if l.meant.Size >= 0 {
			v["Size"] = SizeText(l.meant.Size)
		}
	}
	linkTemplate.Execute(w, v)
}

// SizeText is n bytes for people: three significant digits at most.
func SizeText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n)
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		v /= 1024
		switch {
		case v < 9.95:
			return fmt.Sprintf("%.1f %s", v, unit)
		case v < 1023.5 || unit == "EiB":
			return fmt.Sprintf("%.0f %s", v, unit)
		}
	}
	panic("unreachable: int64 ends at 8 EiB")
}

// open takes the token, from the page's script or from its form, and gives the cookie.
func (l *link) open(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	code := r.PostFormValue("code")
	if i := strings.LastIndexByte(code, '#'); i >= 0 { // the whole link was pasted
		code = code[i+1:]
	}
	if !same(strings.TrimSpace(code), l.token) {
		http.Error(w, "p2pshare: this is not the code of the link", http.StatusForbidden)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: l.cookieName(), Value: l.cookie, Path: "/", HttpOnly: true,
		SameSite: http.SameSiteStrictMode, MaxAge: int(time.Until(l.expires).Seconds()) + 1})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (l *link) file(w http.ResponseWriter, r *http.Request) { l.gateway.answerMeant(w, r, l.meant) }

func (l *link) qr(w http.ResponseWriter, _ *http.Request) {
	code, err := qr.Encode(l.url, qr.M)
	if err != nil {
		http.Error(w, "p2pshare: no code can be made of it", http.StatusInternalServerError)
		return
	}
	code.Scale = 6
	w.Header().Set("Content-Type", "image/png")
	w.Write(code.PNG())
}

// receive saves the files of a form, one after the other as they come.
func (l *link) receive(w http.ResponseWriter, r *http.Request) {
	patient := &patientBody{r.Body, http.NewResponseController(w)}
	r.Body = http.MaxBytesReader(w, io.NopCloser(patient), l.req.ReceiveBytes+bodyMax)
	parts, err := r.MultipartReader()
	if err != nil {
		http.Error(w, "p2pshare: files are sent by the page's form", http.StatusUnsupportedMediaType)
		return
	}
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			http.Redirect(w, r, "/?sent=1", http.StatusSeeOther)
			return
		}
		if err == nil && part.FormName() == "file" && part.FileName() != "" {
			err = l.receiveOne(r, part.FileName(), part)
		}
		if err != nil {
			http.Error(w, "p2pshare: "+OneLine(ErrorOf(err).Message), receiveStatus(err))
			return
		}
	}
}

func (l *link) receiveOne(r *http.Request, name string, in io.Reader) error {
	l.mu.Lock()
	l.files++
	full := l.files > l.req.ReceiveFiles
	l.mu.Unlock()
	if full {
		return Errorf(CodeRefused, "no more than %d files are taken", l.req.ReceiveFiles)
	}
	path, size, err := l.library.Receive(l.req.Receive, name, in, l.req.ReceiveBytes)
	if err != nil {
		l.mu.Lock()
		l.files--
		l.mu.Unlock()
		return err
	}
	l.mu.Lock()
	l.received++
	l.mu.Unlock()
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	l.told(&Received{Path: path, Size: size, From: from})
	return nil
}

func receiveStatus(err error) int {
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, share.ErrTooLarge), errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, share.ErrBadName):
		return http.StatusBadRequest
	}
	return ErrorOf(err).Code.status()
}
