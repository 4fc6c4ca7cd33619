// Package web holds the page of the peer: plain HTML, CSS and JavaScript modules, as the
// browser reads them, without a build step. cli/control serves it.
//
//	index.html  the page, for who has a session
//	login.html  what anybody gets: it trades the code in its address for a session
//	app.js      starts the rest; api.js speaks to the control API, dom.js makes elements,
//	            text.js writes sizes and times, and each section has a file of its own
//
// Whatever comes from the network is hostile text, and reaches the page by textContent
// alone: the page's policy refuses any other way (Trusted Types).
package web

import (
	"embed"
	"io/fs"
)

//go:embed files
var files embed.FS

// Files returns the files of the page.
func Files() fs.FS {
	sub, err := fs.Sub(files, "files")
	if err != nil { // "files" is a valid path
		panic(err)
	}
	return sub
}
