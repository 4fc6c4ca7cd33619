package control

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
	"rsc.io/qr"
)

// Linked is the answer of GET /link.
type Linked struct {
	Name share.Name `json:"name"`
	ID   content.ID `json:"id"`
	Link string     `json:"link"`
}

// link answers GET /link: the link to the share that what means.
func (s *Server) link(w http.ResponseWriter, r *http.Request) {
	shares, err := s.cfg.Library.Lookup(r.URL.Query().Get("what"))
	if err == nil && len(shares) == 0 {
		err = Errorf(CodeNotFound, "that is not shared from here")
	}
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	sh := shares[0]
	writeJSON(w, &Linked{Name: sh.Name, ID: sh.ID, Link: s.cfg.Library.Link(sh).String()})
}

const (
	qrMax    = 1200 // bytes of a text in a QR code that a phone reads from a screen
	qrMargin = 4    // modules, as ISO/IEC 18004 asks for
)

// qr answers GET /qr: a text as a QR code, in SVG.
func (s *Server) qr(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("text")
	if text == "" || len(text) > qrMax {
		writeError(w, Errorf(CodeUsage, "a text of 1 to %d bytes is needed", qrMax))
		return
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		writeError(w, ErrorOf(err))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "image/svg+xml")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	fmt.Fprint(w, drawQR(code))
}

// drawQR draws each run of dark modules of a row as one rectangle of a path.
func drawQR(code *qr.Code) string {
	var b strings.Builder
	side := code.Size + 2*qrMargin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges"><rect width="%d" height="%d" fill="#fff"/><path d="`,
		side, side, side, side)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			run := 0
			for x+run < code.Size && code.Black(x+run, y) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x+qrMargin, y+qrMargin, run, run)
				x += run
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return b.String()
}
