package control

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// propfind lists a directory of p's drive.
func (p *running) propfind(t testing.TB, path string) (hrefs []string, status int) {
	t.Helper()
	resp, body, err := p.get(t, "PROPFIND", path, "Depth", "1")
	if err != nil || resp.StatusCode != http.StatusMultiStatus {
		return nil, resp.StatusCode
	}
	var answer struct {
		Responses []struct {
			Href string `xml:"href"`
		} `xml:"response"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		t.Fatalf("PROPFIND %s: %v\n%s", path, err, body)
	}
	for _, r := range answer.Responses {
		href, err := url.PathUnescape(r.Href)
		if err != nil {
			t.Fatal(err)
		}
		hrefs = append(hrefs, href)
	}
	return hrefs, resp.StatusCode
}

func TestDriveListsWithoutDataAndReadsThrough(t *testing.T) {
	sharer := startRunning(t)
	p := startRunning(t, sharer)
	data := seeded(5*content.GroupSize, "film")
	s := sharer.add(t, "film & co.mp4", data)
	os.MkdirAll(filepath.Join(sharer.dir, "album", "sub"), 0o755)
	os.WriteFile(filepath.Join(sharer.dir, "album", "sub", "one.txt"), []byte("one"), 0o644)
	if _, err := sharer.lib.Add(t.Context(), filepath.Join(sharer.dir, "album"), share.AddOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.lib.TrustPeer(sharer.node.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	if err := p.node.Connect(t.Context(), sharer.node.AddrInfo()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/dav/":                         "[/dav/ /dav/group/ /dav/lan/ /dav/publishers/ /dav/shares/]",
		"/dav/shares":                   "[/dav/shares/]",
		"/dav/publishers/":              "[/dav/publishers/ /dav/publishers/ann/]",
		"/dav/publishers/ann":           "[/dav/publishers/ann/ /dav/publishers/ann/album/ /dav/publishers/ann/film & co.mp4]",
		"/dav/publishers/ann/album/sub": "[/dav/publishers/ann/album/sub/ /dav/publishers/ann/album/sub/one.txt]",
	} {
		if hrefs, status := p.propfind(t, path); fmt.Sprint(hrefs) != want {
			t.Errorf("PROPFIND %s = %v, %d, want %s", path, hrefs, status, want)
		}
	}
	if u, err := p.lib.CacheUsage(); err != nil || u.Used > 4096 {
		t.Errorf("listing has fetched %d bytes, %v", u.Used, err)
	}
	resp, body, err := p.get(t, "GET", "/dav/publishers/ann/"+url.PathEscape(string(s.Name)), "Range", "bytes=1000000-1000009")
	if err != nil || resp.StatusCode != 206 || !bytes.Equal(body, data[1000000:1000010]) {
		t.Errorf("a range through the drive: %s, %d bytes, %v", resp.Status, len(body), err)
	}
	if _, body, err := p.get(t, "GET", "/dav/publishers/ann/album/sub/one.txt"); err != nil || string(body) != "one" {
		t.Errorf("a file in a directory: %q, %v", body, err)
	}
}

func TestDriveIsReadOnlyAndNeedsTheToken(t *testing.T) {
	p := startRunning(t)
	p.add(t, "a.txt", []byte("a"))
	for _, c := range []struct {
		method, path string
		headers      []string
		status       int
	}{
		{"PROPFIND", "/dav/shares/", []string{"Depth", "infinity"}, 403},
		{"PROPFIND", "/dav/shares/", []string{"Depth", "1", "Authorization", ""}, 401},
		{"PROPFIND", "/dav/nowhere/", []string{"Depth", "1"}, 404},
		{"GET", "/dav/shares/a.txt", nil, 200},
		{"GET", "/dav/shares/b.txt", nil, 404},
		{"GET", "/dav/shares", nil, 405},
		{"PUT", "/dav/shares/a.txt", nil, 405},
		{"MKCOL", "/dav/shares/x", nil, 405},
		{"MOVE", "/dav/shares/a.txt", []string{"Destination", "/dav/shares/b.txt"}, 405},
		{"LOCK", "/dav/shares/a.txt", nil, 405},
		{"OPTIONS", "/dav/", nil, 200},
	} {
		resp, body, err := p.get(t, c.method, c.path, c.headers...)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s %s %v: %s, want %d: %s", c.method, c.path, c.headers, resp.Status, c.status, body)
		}
		if c.status == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("a client is not told to log in: %v", resp.Header)
		}
	}
	for password, want := range map[string]int{p.server.token: 200, "wrong": 401, "": 401} {
		r, _ := http.NewRequest("GET", p.server.URL()+"/dav/shares/a.txt", nil)
		r.SetBasicAuth("anybody", password)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("password %q: %s, want %d", password, resp.Status, want)
		}
	}
	r, _ := http.NewRequest("GET", p.server.URL()+pathStatus, nil)
	r.SetBasicAuth("anybody", p.server.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("Basic outside the drive: %s, want 401", resp.Status)
	}
}

func TestDriveNamesAreUniqueAndFit(t *testing.T) {
	dir := newDriveDir([]*driveNode{{name: "a.txt"}, {name: "a.txt"}, {name: "a (1).txt"}, {name: "x/y"}, {name: ".."}, {name: ""}, {name: "\x01"}})
	var names []string
	for _, i := range dir.infos {
		names = append(names, i.Name())
	}
	if got := strings.Join(names, "|"); got != "_|_ (1)|__|a (1) (1).txt|a (1).txt|a.txt|x_y" {
		t.Errorf("names = %s", got)
	}
}

func TestDriveListsTenThousandNames(t *testing.T) {
	if testing.Short() {
		t.Skip("adds 10,000 files")
	}
	sharer := startRunning(t)
	p := startRunning(t, sharer)
	os.MkdirAll(filepath.Join(sharer.dir, "many"), 0o755)
	for i := range 10_000 {
		if err := os.WriteFile(filepath.Join(sharer.dir, "many", fmt.Sprintf("%05d.txt", i)), fmt.Appendf(nil, "file %d", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := sharer.lib.Add(t.Context(), filepath.Join(sharer.dir, "many"), share.AddOptions{}); err != nil {
		t.Fatal(err)
	}
	film := sharer.add(t, "film.mp4", seeded(9*content.GroupSize+17, "film"))
	p.lib.TrustPeer(sharer.node.ID(), "ann")
	p.node.Connect(t.Context(), sharer.node.AddrInfo())
	start := time.Now()
	hrefs, status := p.propfind(t, "/dav/publishers/ann/many")
	t.Logf("PROPFIND of 10,000 names took %s", time.Since(start))
	if len(hrefs) != 10_001 {
		t.Errorf("%d names, status %d, want 10,001 with the directory itself", len(hrefs), status)
	}
	if u, _ := p.lib.CacheUsage(); u.Used > 4<<20 {
		t.Errorf("listing has fetched %d bytes: more than the listing", u.Used)
	}
	rclone, err := exec.LookPath("rclone")
	if err != nil {
		t.Skip("there is no rclone here to list it, too")
	}
	obscured, err := exec.Command(rclone, "obscure", p.server.token).Output()
	if err != nil {
		t.Fatal(err)
	}
	remote := fmt.Sprintf(":webdav,url='%s/dav',user=p2pshare,pass='%s':", p.server.URL(), strings.TrimSpace(string(obscured)))
	out, err := exec.Command(rclone, "ls", remote+"publishers/ann/many").Output()
	if lines := bytes.Count(out, []byte{'\n'}); err != nil || lines != 10_000 {
		t.Errorf("rclone ls: %d lines, %v", lines, err)
	}
	if u, _ := p.lib.CacheUsage(); u.Used > 4<<20 {
		t.Errorf("rclone ls has fetched %d bytes: more than the listing", u.Used)
	}
	for path, want := range map[string]content.ID{"many/01234.txt": content.Root([]byte("file 1234")), "film.mp4": film.ID} {
		if got, err := sum(exec.Command(rclone, "cat", remote+"publishers/ann/"+path)); err != nil || got != want.Hex() {
			t.Errorf("rclone cat %s | b3sum: %s, %v, want %s", path, got, err, want.Hex())
		}
	}
}

// sum is what b3sum says of what a command prints.
func sum(c *exec.Cmd) (string, error) {
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, said.Bytes())
	}
	b3sum := exec.Command("b3sum", "--no-names")
	b3sum.Stdin = bytes.NewReader(out)
	digest, err := b3sum.Output()
	return strings.TrimSpace(string(digest)), err
}

// TestDriveShowsNeighborsGroupsAndPublishers: what two peers in a group on one network see
// of one another, and read.
func TestDriveShowsNeighborsGroupsAndPublishers(t *testing.T) {
	port := lanPort(t)
	ann := startWhole(t, port)
	bob := startWhole(t, port)
	data := seeded(9*content.GroupSize, "film")
	ann.add(t, "film.mp4", data)
	ann.add(t, "not pinned.txt", []byte("not pinned"))
	meet(t, bob)
	annClient, bobClient := connect(t, ann.home), connect(t, bob.home)
	must(annClient.ChangeGroup(t.Context(), "create", GroupRequest{Group: "office", Capacity: 64 << 20}))(t)
	invited := must(annClient.ChangeGroup(t.Context(), "invite", GroupRequest{Role: "reader", TTL: 60}))(t)
	must(bobClient.ChangeGroup(t.Context(), "join", GroupRequest{Token: invited.Token, Group: "work", NoStore: true}))(t)
	must(annClient.Pin(t.Context(), PinRequest{What: "film.mp4", Replicas: 1, Wait: true}, func(Event) {}))(t)
	if _, err := bob.lib.TrustPeer(ann.node.ID(), "ann"); err != nil {
		t.Fatal(err)
	}
	id := ann.node.ID().String()
	for path, want := range map[string]string{
		"/dav/lan/":                "[/dav/lan/ /dav/lan/" + id + "/]",
		"/dav/lan/" + id + "/":     "[/dav/lan/" + id + "/ /dav/lan/" + id + "/film.mp4 /dav/lan/" + id + "/not pinned.txt]",
		"/dav/group/":              "[/dav/group/ /dav/group/work/]",
		"/dav/group/work/":         "[/dav/group/work/ /dav/group/work/film.mp4]",
		"/dav/group/work/film.mp4": "[/dav/group/work/film.mp4]",
		"/dav/publishers/ann/":     "[/dav/publishers/ann/ /dav/publishers/ann/film.mp4 /dav/publishers/ann/not pinned.txt]",
		"/dav/publishers/bob/":     "[]",
		"/dav/group/office/":       "[]", // what ann calls it
	} {
		if hrefs, status := bob.propfind(t, path); fmt.Sprint(hrefs) != want {
			t.Errorf("PROPFIND %s = %v, %d, want %s", path, hrefs, status, want)
		}
	}
	if u, err := bob.lib.CacheUsage(); err != nil || u.Used != 0 {
		t.Errorf("listing has fetched %d bytes, %v", u.Used, err)
	}
	for _, dir := range []string{"lan/" + id, "group/work", "publishers/ann"} {
		_, body, err := bob.get(t, "GET", "/dav/"+dir+"/film.mp4")
		if err != nil || !bytes.Equal(body, data) {
			t.Errorf("%s/film.mp4: %d bytes, %v", dir, len(body), err)
		}
	}
}

// TestDriveKeepsDirectoriesOfContents: what a directory was is not taken for what it is.
func TestDriveKeepsDirectoriesOfContents(t *testing.T) {
	p := startRunning(t)
	os.MkdirAll(filepath.Join(p.dir, "album"), 0o755)
	for i, want := range []string{
		"[/dav/shares/album/ /dav/shares/album/0.txt]",
		"[/dav/shares/album/ /dav/shares/album/0.txt /dav/shares/album/1.txt]",
	} {
		os.WriteFile(filepath.Join(p.dir, "album", fmt.Sprint(i, ".txt")), []byte("x"), 0o644)
		if _, err := p.lib.Add(t.Context(), filepath.Join(p.dir, "album"), share.AddOptions{}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if hrefs, status := p.propfind(t, "/dav/shares/album"); fmt.Sprint(hrefs) != want {
				t.Errorf("PROPFIND = %v, %d, want %s", hrefs, status, want)
			}
		}
	}
	d := newDrive(nil, nil)
	dir := func(names int) *driveDir { return &driveDir{infos: make([]fs.FileInfo, names)} }
	for i := range 3 {
		d.keepDir(fmt.Sprint("a", i), dir(driveKept/2-1))
		d.keepDir("large", dir(driveKept+1))
	}
	d.last.Stop()
	if len(d.dirs) != 1 || d.dir("a2") == nil || d.dir("large") != nil {
		t.Errorf("%d directories are kept, want the last that is not too large", len(d.dirs))
	}
}
