package control

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"golang.org/x/net/webdav"
)

// The drive is a read-only WebDAV tree, for file managers and rclone:
//
//	/dav/shares/…             what is shared from here
//	/dav/lan/PEER/…           what a neighbor shares
//	/dav/group/NAME/…         what a group has pinned
//	/dav/publishers/PETNAME/… what a trusted publisher shares
//
// To list costs no data but the listings of the directories that are looked into; to read
// a file fetches what is read, as the gateway does. The password of Basic authentication
// is the API's token, and any user name will do.

const (
	drivePath = "/dav"
	// driveFor is how long a listing of another peer or a group is believed: a file
	// manager asks for one directory several times in a row.
	driveFor = 5 * time.Second
	// driveShares is how many shares of another peer are listed, and driveNames how many
	// names any directory has.
	driveShares = 1000
	driveNames  = 100_000
	driveAsk    = 15 * time.Second
	// driveKept is how many names of directories that are contents are kept, of some 400
	// bytes each, and driveKeptFor for how long after the last one was listed: each file
	// that is copied from a directory would have it listed again.
	driveKept    = 20_000
	driveKeptFor = time.Minute
)

// errDriveRead says that nothing can be changed.
var errDriveRead = fmt.Errorf("the drive is read-only: %w", fs.ErrPermission)

// drive serves the tree. Its methods are safe for concurrent use.
type drive struct {
	server  *Server
	gateway *gateway
	locks   webdav.LockSystem

	mu   sync.Mutex
	kept map[string]keptNodes // guarded by mu: listings by others, by path
	dirs map[string]*driveDir // guarded by mu: of contents, by path and ID, which together mean one for good
	last *time.Timer          // guarded by mu: it empties dirs
}

type keptNodes struct {
	nodes []*driveNode
	until time.Time
}

// driveNode is a file or directory of the tree.
type driveNode struct {
	name string
	dir  bool
	size int64
	at   time.Time
	// meant is the content of a file, or of a directory that is one; else list lists it.
	meant share.Meant
	list  func(context.Context) ([]*driveNode, error)
}

func newDrive(s *Server, g *gateway) *drive {
	return &drive{server: s, gateway: g, locks: webdav.NewMemLS(), kept: map[string]keptNodes{}}
}

func (d *drive) serveOn(mux *http.ServeMux) {
	mux.Handle(drivePath, d)
	mux.Handle(drivePath+"/", d)
}

func (d *drive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	leave, ok := d.gateway.enter(w)
	if !ok {
		return
	}
	defer leave()
	h := w.Header()
	view := &driveView{drive: d, dirs: map[string]*driveDir{}}
	switch r.Method {
	case http.MethodOptions:
		h.Set("DAV", "1")
		h.Set("MS-Author-Via", "DAV")
		h.Set("Allow", "OPTIONS, GET, HEAD, PROPFIND")
	case http.MethodGet, http.MethodHead:
		d.get(w, r, view)
	case "PROPFIND":
		if depth := r.Header.Get("Depth"); depth != "0" && depth != "1" {
			h.Set("Content-Type", "application/xml; charset=utf-8")
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, xml.Header+`<D:error xmlns:D="DAV:"><D:propfind-finite-depth/></D:error>`)
			return
		}
		sealed(h, policyFile)
		(&webdav.Handler{Prefix: drivePath, FileSystem: view, LockSystem: d.locks}).ServeHTTP(w, r)
	default:
		h.Set("Allow", "OPTIONS, GET, HEAD, PROPFIND")
		d.gateway.text(w, http.StatusMethodNotAllowed, "the drive is read-only")
	}
}

func (d *drive) get(w http.ResponseWriter, r *http.Request, view *driveView) {
	n, err := view.find(r.Context(), strings.TrimPrefix(r.URL.Path, drivePath))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.gateway.text(w, http.StatusNotFound, "there is no such file in the drive")
	case err != nil:
		d.gateway.fail(w, err)
	case n.dir:
		d.gateway.text(w, http.StatusMethodNotAllowed, "this is a directory: a WebDAV client lists it")
	default:
		w.Header().Set("Cache-Control", "no-cache")
		d.gateway.show(w, r, n.meant, d.options())
	}
}

func (d *drive) options() share.OpenOptions {
	return share.OpenOptions{Peers: d.server.cfg.Peers, StallMax: gatewayStall}
}

// root is the top of the tree.
func (d *drive) root() *driveNode {
	top := []*driveNode{
		{name: "shares", dir: true, list: d.shares},
		{name: "lan", dir: true, list: d.neighbors},
		{name: "group", dir: true, list: d.groups},
		{name: "publishers", dir: true, list: d.publishers},
	}
	return &driveNode{name: "/", dir: true, list: func(context.Context) ([]*driveNode, error) { return top, nil }}
}

// contentNode is a content under a name that somebody else chose.
func contentNode(m share.Meant, at time.Time) *driveNode {
	return &driveNode{name: string(cmp.Or(m.Name, share.Name(m.ID.Hex()))), dir: m.Kind == share.KindDir, size: max(0, m.Size), at: at, meant: m}
}

func (d *drive) shares(ctx context.Context) (nodes []*driveNode, err error) {
	for s, err := range d.server.cfg.Library.List(ctx) {
		if err != nil {
			return nil, err
		}
		if s.State == share.StateShared && len(nodes) < driveNames {
			nodes = append(nodes, contentNode(share.NewMeant(s.Name, s.ID, s.Kind, s.Size), s.Added))
		}
	}
	return nodes, nil
}

func (d *drive) neighbors(context.Context) (nodes []*driveNode, err error) {
	for _, n := range d.server.cfg.Node.Neighbors() {
		id := n.ID.String()
		name := id
		if n.Alias != "" {
			name = n.Alias + " " + id[len(id)-8:]
		}
		nodes = append(nodes, &driveNode{name: name, dir: true, at: n.First,
			list: d.keep("lan/"+id, d.sharesOf(peer.AddrInfo{ID: n.ID, Addrs: n.Addrs}))})
	}
	return nodes, nil
}

func (d *drive) publishers(context.Context) (nodes []*driveNode, err error) {
	trust, err := d.server.cfg.Library.Trust()
	for _, f := range trust.Friends {
		nodes = append(nodes, &driveNode{name: string(f.Name), dir: true, at: f.Since,
			list: d.keep("publishers/"+f.Peer.String(), d.sharesOf(peer.AddrInfo{ID: f.Peer}))})
	}
	return nodes, err
}

func (d *drive) sharesOf(p peer.AddrInfo) func(context.Context) ([]*driveNode, error) {
	return func(ctx context.Context) (nodes []*driveNode, err error) {
		shared, err := d.server.cfg.Library.SharesOf(ctx, p, driveShares)
		for _, s := range shared.First {
			nodes = append(nodes, contentNode(share.NewMeant(s.Name, s.ID, s.Kind, s.Size, p), time.Time{}))
		}
		if len(nodes) > 0 {
			err = nil // what was told before it broke off
		}
		return nodes, err
	}
}

func (d *drive) groups(context.Context) (nodes []*driveNode, err error) {
	if d.server.cfg.Coord == nil {
		return nil, nil
	}
	for _, g := range d.server.cfg.Coord.Known() {
		nodes = append(nodes, &driveNode{name: g.Name, dir: true, list: d.keep("group/"+g.Name, func(ctx context.Context) ([]*driveNode, error) {
			nodes, err := d.pins(ctx, d.server.cfg.Coord.Client(g.ID), coord.ReadOptions{})
			if err != nil {
				nodes, err = d.pins(ctx, d.server.cfg.Coord.Client(g.ID), coord.ReadOptions{Stale: true})
			}
			return nodes, err
		})})
	}
	return nodes, nil
}

func (d *drive) pins(ctx context.Context, c *coord.Client, o coord.ReadOptions) (nodes []*driveNode, err error) {
	ctx, cancel := context.WithTimeout(ctx, pinsWait)
	defer cancel()
	for page, err := range c.PinPages(ctx, o) {
		if err != nil {
			return nil, err
		}
		for _, p := range page.Pins {
			var holders []peer.AddrInfo
			for _, c := range p.Copies {
				if id, err := peer.Decode(string(c)); err == nil && id != d.server.cfg.Node.ID() {
					holders = append(holders, peer.AddrInfo{ID: id})
				}
			}
			kind := share.KindFile
			if p.Kind == coord.KindDir {
				kind = share.KindDir
			}
			for _, text := range p.Names {
				if name, err := share.ParseName(text); err == nil && len(nodes) < driveNames {
					nodes = append(nodes, contentNode(share.NewMeant(name, p.ID, kind, p.Size, holders...), time.Time{}))
				}
			}
		}
	}
	return nodes, nil
}

// keep has a listing by others made once in driveFor.
func (d *drive) keep(key string, list func(context.Context) ([]*driveNode, error)) func(context.Context) ([]*driveNode, error) {
	return func(ctx context.Context) ([]*driveNode, error) {
		d.mu.Lock()
		k, ok := d.kept[key]
		d.mu.Unlock()
		if ok && time.Now().Before(k.until) {
			return k.nodes, nil
		}
		ctx, cancel := context.WithTimeout(ctx, driveAsk)
		defer cancel()
		nodes, err := list(ctx)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.kept) >= 64 {
			clear(d.kept)
		}
		d.kept[key] = keptNodes{nodes, time.Now().Add(driveFor)}
		return nodes, nil
	}
}

// inside lists a directory that is a content.
func (d *drive) inside(ctx context.Context, n *driveNode) (nodes []*driveNode, err error) {
	err = children(d.server.cfg.Library.ReadMeant(ctx, n.meant, d.options()), n.meant.Path, func(e row) bool {
		child := &driveNode{name: e.name, dir: e.dir, size: e.size, at: n.at}
		if e.dir {
			child.meant = n.meant
			child.meant.Path, child.meant.Name = e.path, share.Name(e.name)
		} else {
			child.meant = n.meant.Within(e.entry)
		}
		nodes = append(nodes, child)
		return len(nodes) < driveNames
	})
	return nodes, err
}

// driveView is the tree as one request sees it: each directory is listed once. It
// implements webdav.FileSystem.
type driveView struct {
	drive *drive

	mu   sync.Mutex
	dirs map[string]*driveDir // guarded by mu, by path
}

// driveDir is a directory's list, its names unique and fit for WebDAV.
type driveDir struct {
	infos  []fs.FileInfo
	byName map[string]*driveNode
}

// davName is a name as a path of the tree has it: what separates paths, or is in no XML,
// is replaced. Names of contents have none of that; those that peers give themselves may.
func davName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '/' || r == '\\' || r >= 0xfffe && r <= 0xffff || r == 0xfffd {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "_"))
	if s == "" || s == "." || s == ".." {
		return strings.Repeat("_", max(1, len(s)))
	}
	return s
}

func newDriveDir(nodes []*driveNode) *driveDir {
	d := &driveDir{byName: make(map[string]*driveNode, len(nodes))}
	for _, n := range nodes {
		name := davName(n.name)
		for i := 1; d.byName[name] != nil; i++ {
			ext := path.Ext(n.name)
			name = davName(strings.TrimSuffix(n.name, ext) + " (" + strconv.Itoa(i) + ")" + ext)
		}
		d.byName[name] = n
		d.infos = append(d.infos, driveInfo{name, n})
	}
	slices.SortFunc(d.infos, func(a, b fs.FileInfo) int { return cmp.Compare(a.Name(), b.Name()) })
	return d
}

// list lists the directory n at a path.
func (v *driveView) list(ctx context.Context, at string, n *driveNode) (*driveDir, error) {
	v.mu.Lock()
	dir := v.dirs[at]
	v.mu.Unlock()
	if dir != nil {
		return dir, nil
	}
	list := n.list
	if list == nil {
		list = func(ctx context.Context) ([]*driveNode, error) { return v.drive.inside(ctx, n) }
	}
	key := at + "\x00" + n.meant.ID.Hex()
	if n.list == nil {
		dir = v.drive.dir(key)
	}
	if dir == nil {
		nodes, err := list(ctx)
		if err != nil {
			return nil, err
		}
		dir = newDriveDir(nodes)
		if n.list == nil {
			v.drive.keepDir(key, dir)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dirs[at] = dir
	return dir, nil
}

// dir is a directory that is kept, or nil.
func (d *drive) dir(key string) *driveDir {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dirs[key]
}

// keepDir keeps a directory for a while, and forgets all others where there would be too
// many names.
func (d *drive) keepDir(key string, dir *driveDir) {
	if len(dir.infos) > driveKept {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	names := len(dir.infos)
	for _, other := range d.dirs {
		names += len(other.infos) + 1
	}
	if d.dirs == nil || names > driveKept {
		d.dirs = map[string]*driveDir{}
	}
	d.dirs[key] = dir
	if d.last != nil {
		d.last.Stop()
	}
	d.last = time.AfterFunc(driveKeptFor, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.dirs = nil
	})
}

// find walks to a path.
func (v *driveView) find(ctx context.Context, name string) (*driveNode, error) {
	n, at := v.drive.root(), "/"
	for part := range strings.SplitSeq(strings.Trim(path.Clean("/"+name), "/"), "/") {
		if part == "" {
			continue
		}
		if !n.dir {
			return nil, fs.ErrNotExist
		}
		dir, err := v.list(ctx, at, n)
		if err != nil {
			return nil, err
		}
		if n = dir.byName[part]; n == nil {
			return nil, fs.ErrNotExist
		}
		at = path.Join(at, part)
	}
	return n, nil
}

// Stat implements webdav.FileSystem.
func (v *driveView) Stat(ctx context.Context, name string) (fs.FileInfo, error) {
	n, err := v.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return driveInfo{path.Base(path.Clean("/" + name)), n}, nil
}

// OpenFile implements webdav.FileSystem. Only directories are opened through it.
func (v *driveView) OpenFile(ctx context.Context, name string, flag int, _ fs.FileMode) (webdav.File, error) {
	if flag&(os.O_WRONLY|os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND) != 0 {
		return nil, errDriveRead
	}
	n, err := v.find(ctx, name)
	if err != nil {
		return nil, err
	}
	f := &driveFile{info: driveInfo{path.Base(path.Clean("/" + name)), n}}
	if n.dir {
		dir, err := v.list(ctx, path.Clean("/"+name), n)
		if err != nil {
			return nil, err
		}
		f.infos = dir.infos
	}
	return f, nil
}

func (v *driveView) Mkdir(context.Context, string, fs.FileMode) error { return errDriveRead }
func (v *driveView) RemoveAll(context.Context, string) error          { return errDriveRead }
func (v *driveView) Rename(context.Context, string, string) error     { return errDriveRead }

// driveFile is an open directory, or a file that is not read.
type driveFile struct {
	info  driveInfo
	infos []fs.FileInfo
}

func (f *driveFile) Close() error                       { return nil }
func (f *driveFile) Read([]byte) (int, error)           { return 0, io.EOF }
func (f *driveFile) Write([]byte) (int, error)          { return 0, errDriveRead }
func (f *driveFile) Seek(int64, int) (int64, error)     { return 0, nil }
func (f *driveFile) Stat() (fs.FileInfo, error)         { return f.info, nil }
func (f *driveFile) Readdir(int) ([]fs.FileInfo, error) { return f.infos, nil }

// driveInfo describes a node to package webdav, which asks it for type and ETag, too: it
// would read the file for the one, and has no good one of the other.
type driveInfo struct {
	name string
	node *driveNode
}

func (i driveInfo) Name() string       { return i.name }
func (i driveInfo) Size() int64        { return i.node.size }
func (i driveInfo) ModTime() time.Time { return cmp.Or(i.node.at, time.Unix(0, 0)) }
func (i driveInfo) IsDir() bool        { return i.node.dir }
func (i driveInfo) Sys() any           { return nil }

func (i driveInfo) Mode() fs.FileMode {
	if i.node.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

// ContentType implements webdav.ContentTyper.
func (i driveInfo) ContentType(context.Context) (string, error) {
	return cmp.Or(i.node.meant.Name.Media(), "application/octet-stream"), nil
}

// ETag implements webdav.ETager.
func (i driveInfo) ETag(context.Context) (string, error) {
	return `"` + i.node.meant.ID.Hex() + `"`, nil
}
