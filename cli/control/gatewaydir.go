package control

import (
	"archive/zip"
	"bufio"
	"cmp"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/share"
)

const (
	// pageRows is how many entries one page of a directory shows.
	pageRows = 10_000
	// archiveFiles is how many files one archive holds: its directory is in memory until
	// the end, at some hundred bytes each.
	archiveFiles = 100_000
)

// row is an entry of a directory, as its page shows it.
type row struct {
	name string
	dir  bool
	size int64
	path share.Path
	// entry is the file itself; of a directory it says nothing.
	entry share.Entry
}

// page answers with a page about a directory: names as text, links to what is inside, and
// nothing else. No cookie is needed for where they lead.
func (g *gateway) page(w http.ResponseWriter, r *http.Request, m share.Meant, o share.OpenOptions) {
	from, _ := strconv.Atoi(r.URL.Query().Get("from"))
	var rows []row
	seen, more := 0, false
	err := g.children(r, m, o, func(e row) bool {
		if seen++; seen <= from {
			return true
		}
		if len(rows) == pageRows {
			more = true
			return false
		}
		rows = append(rows, e)
		return true
	})
	if err != nil {
		g.fail(w, err)
		return
	}
	h := w.Header()
	sealed(h, g.pagePolicy)
	h.Set("Content-Type", "text/html; charset=utf-8")
	if r.Method == http.MethodHead {
		return
	}
	out := bufio.NewWriter(&patientWriter{ResponseWriter: w})
	defer out.Flush()
	title := html.EscapeString(share.Escape(cmp.Or(string(m.Name), m.ID.String())))
	fmt.Fprintf(out, pageHead, title, title, html.EscapeString(g.directoryURL(m, m.Path, "format=zip")))
	for _, e := range rows {
		text, size := share.Escape(e.name), ""
		if e.dir {
			text += "/"
		} else {
			size = strconv.FormatInt(e.size, 10)
		}
		fmt.Fprintf(out, "<tr><td><a href=\"%s\">%s</a></td><td>%s</td></tr>\n",
			html.EscapeString(g.directoryURL(m, e.path, "")), html.EscapeString(text), size)
	}
	io.WriteString(out, "</table>\n")
	if more {
		fmt.Fprintf(out, "<p><a href=\"%s\">more</a></p>\n", html.EscapeString(g.directoryURL(m, m.Path, "from="+strconv.Itoa(from+pageRows))))
	}
	io.WriteString(out, "</html>\n")
}

const pageHead = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>%s</title>
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 1rem auto; max-width: 60rem; padding: 0 1rem }
td { padding: .2rem 1rem .2rem 0; overflow-wrap: anywhere } td + td { text-align: right; font-variant-numeric: tabular-nums }
</style>
<h1>%s</h1>
<p><a href="%s">Download all as .zip</a></p>
<table>
`

// directoryURL leads to a path in the directory m.
func (g *gateway) directoryURL(m share.Meant, p share.Path, more string) string {
	q := ""
	if p != "" {
		q = "path=" + url.QueryEscape(string(p))
	}
	if q != "" && more != "" {
		q += "&"
	}
	if q += more; q != "" {
		q = "?" + q
	}
	return cmp.Or(g.base, "/b3/"+m.ID.Hex()) + q
}

// children calls fn with each entry right inside m, subdirectories once, until it
// returns false.
func (g *gateway) children(r *http.Request, m share.Meant, o share.OpenOptions, fn func(row) bool) error {
	return children(g.server.cfg.Library.ReadMeant(r.Context(), m, o), m.Path, fn)
}

func children(entries func(func(share.Entry, error) bool), in share.Path, fn func(row) bool) (failed error) {
	last := ""
	entries(func(e share.Entry, err error) bool {
		if err != nil {
			failed = err
			return false
		}
		inside := string(e.Path)
		if in != "" {
			inside = strings.TrimPrefix(strings.TrimPrefix(inside, string(in)), "/")
		}
		if inside == "" {
			return true // an empty directory itself
		}
		name, _, below := strings.Cut(inside, "/")
		if below {
			if name == last { // all that is in it comes in one run
				return true
			}
			last = name
		}
		p := share.Path(name)
		if in != "" {
			p = in + "/" + p
		}
		return fn(row{name: name, dir: below || e.Kind == share.KindDir, size: e.Size, path: p, entry: e})
	})
	return failed
}

// archive answers with a directory as one archive, which is made as it is sent. Nothing
// is compressed: most of what is large is already.
func (g *gateway) archive(w http.ResponseWriter, r *http.Request, m share.Meant, o share.OpenOptions) {
	files := 0
	for _, err := range g.server.cfg.Library.ReadMeant(r.Context(), m, o) {
		if files++; err == nil && files > archiveFiles {
			err = Errorf(CodeRefused, "more than %d files are too many for one archive: p2pshare get has no such limit", archiveFiles)
		}
		if err != nil {
			g.fail(w, err)
			return
		}
	}
	name := cmp.Or(m.Name, share.Name(m.ID.Hex()))
	h := w.Header()
	sealed(h, policyFile)
	h.Set("Content-Type", "application/zip")
	h.Set("Content-Disposition", "attachment; "+filename(name+".zip"))
	if r.Method == http.MethodHead {
		return
	}
	out := zip.NewWriter(&patientWriter{ResponseWriter: w})
	for e, err := range g.server.cfg.Library.ReadMeant(r.Context(), m, o) {
		if err == nil {
			err = g.pack(r, out, m, e, o)
		}
		if err != nil {
			panic(http.ErrAbortHandler) // without its directory it is no archive
		}
	}
	if out.Close() != nil {
		panic(http.ErrAbortHandler)
	}
}

// pack writes one entry into an archive.
func (g *gateway) pack(r *http.Request, out *zip.Writer, m share.Meant, e share.Entry, o share.OpenOptions) error {
	inside := string(e.Path)
	if m.Path != "" {
		inside = strings.TrimPrefix(strings.TrimPrefix(inside, string(m.Path)), "/")
	}
	if e.Kind == share.KindDir {
		if inside == "" {
			return nil
		}
		_, err := out.Create(inside + "/")
		return err
	}
	head := &zip.FileHeader{Name: inside, Method: zip.Store, Modified: time.Time{}}
	head.SetMode(0o644)
	if e.Executable {
		head.SetMode(fs.FileMode(0o755))
	}
	to, err := out.CreateHeader(head)
	if err != nil {
		return err
	}
	from, err := g.server.cfg.Library.OpenMeant(r.Context(), m.Within(e), o)
	if err != nil {
		return err
	}
	defer from.Close()
	n, err := io.Copy(to, from)
	if err == nil && n != e.Size {
		err = io.ErrUnexpectedEOF
	}
	return err
}
