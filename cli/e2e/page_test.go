package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	p2ppeer "github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// lanFlags have peers meet on the loopback interface, and nobody else there.
func lanFlags(t *testing.T) (flags []string, port int) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port = c.LocalAddr().(*net.UDPAddr).Port
	return []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--no-dht", "--lan-port", fmt.Sprint(port)}, port
}

// openPage runs p2pshare ui for a peer that runs, and opens what it prints.
func openPage(t *testing.T, b *browser, p *peer) (origin string) {
	t.Helper()
	address := p.runPlain(t, "ui", "--no-browser").events[0].text("url")
	origin, _, ok := strings.Cut(address, "/#")
	if !ok {
		t.Fatalf("ui printed the address %q", address)
	}
	b.open(address)
	b.await("the page", `document.querySelector('#line.on')`)
	return origin
}

const (
	hostileName = `<img src=x onerror=alert(1)> & "quotes".txt`
	hostileNote = "<script>alert(2)</script><b>bold</b> \x1b[31mred \u202egnp.exe"
)

// runHostileNeighbor runs a neighbor that calls itself as it likes, and shares what it
// likes with a note that is markup.
func runHostileNeighbor(t *testing.T, port int, alias string, names ...string) {
	t.Helper()
	n, err := node.New(t.Context(), node.Config{Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, NoDHT: true,
		LANPort: port, Alias: alias, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	key, public, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := p2ppeer.IDFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	var manifests []any
	for i, name := range names {
		id, err := content.Parse(fmt.Sprintf("b3:%064x", i+1))
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(share.Manifest{V: 1, Name: share.Name(name), ID: id, Kind: share.KindFile, Publisher: publisher,
			Seq: now.UnixMilli(), Issued: now, Expires: now.Add(time.Hour), Note: hostileNote})
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := node.Seal(key, node.KindManifest, body)
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, manifest)
	}
	n.Handle(metaProtocol, node.HandlerConfig{}, func(_ context.Context, s network.Stream) error {
		say, lines := json.NewEncoder(s), bufio.NewScanner(s)
		for lines.Scan() {
			for _, m := range manifests {
				if err := say.Encode(map[string]any{"manifest": m}); err != nil {
					return err
				}
			}
			if err := say.Encode(map[string]any{"end": true, "total": len(manifests)}); err != nil {
				return err
			}
		}
		return lines.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; n.Close() })
	<-n.Listening()
}

// TestPageInChromium: what a person does with the page, by the mouse.
func TestPageInChromium(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	flags, port := lanFlags(t)
	here, ann := newPeer(t, flags...), newPeer(t, flags...)
	desk, err := os.MkdirTemp("", "desk") // its path is in the screenshots
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(desk)
	here.dir = desk
	folder := filepath.Join(here.dir, "p2pshare")
	film := filepath.Join(ann.dir, "film.mkv")
	writeRandom(t, film, 24<<20, "film")
	ann.serve(t, "daemon", "--alias", "Ann's laptop", "--max-up", "4M")
	ann.must(t, "add", film)
	here.serve(t, "daemon", "--alias", "desk", "--folder", folder)
	runHostileNeighbor(t, port, "<h1>mallory</h1>", hostileName)
	b.screen(1200, 800, false, "light")
	origin := openPage(t, b, here)

	// Drop a file, whose name is markup, and a directory.
	dropped := filepath.Join(here.dir, hostileName)
	writeRandom(t, dropped, 3<<20, "dropped")
	tree := filepath.Join(here.dir, "holiday")
	writeRandom(t, filepath.Join(tree, "day 1", "beach.jpg"), 100*kib, "beach")
	writeRandom(t, filepath.Join(tree, "notes.txt"), 1000, "notes")
	b.dropFiles(dropped, tree)
	b.await("what was dropped in the list", `[...document.querySelectorAll('#shares-list h3')].map(e => e.textContent).sort().join() === `+
		quoteJS(strings.Join([]string{hostileName, "holiday"}, ",")))
	sameFile(t, dropped, filepath.Join(folder, hostileName))
	sameFile(t, filepath.Join(tree, "day 1", "beach.jpg"), filepath.Join(folder, "holiday", "day 1", "beach.jpg"))
	listed := here.must(t, "ls")
	if !slices.Contains([]string{hostileName, "holiday"}, listed.text("name")) {
		t.Errorf("ls ends with %v", listed)
	}
	b.run(`document.querySelector('#shares-list button').click()`)
	b.await("the QR code", `document.querySelector('dialog[open] img.qr')?.naturalWidth > 0`)
	b.shot("link")
	b.run(`document.getElementById('dialog').close()`)
	b.shot("share")
	b.opens(origin)
	b.watches(here)
	b.servesLink(here)

	// The local network: text, and no elements.
	b.run(`location.hash = 'lan'`)
	b.await("the hostile neighbor", `document.querySelector('#lan-list .note')`)
	want := `<script>alert(2)</script><b>bold</b> \u{1b}[31mred \u{202e}gnp.exe`
	if got := b.text(`document.querySelector('#lan-list .note').textContent`); got != want {
		t.Errorf("the note is shown as %q, want %q", got, want)
	}
	if got := b.text(`document.querySelector('#lan-list .note').parentElement.firstChild.textContent`); got != hostileName {
		t.Errorf("the name is shown as %q, want %q", got, hostileName)
	}
	if got := b.text(`String(document.querySelectorAll('main :is(img, script, b:not(.folder), h1:not([id]))').length)`); got != "0" {
		t.Errorf("%s elements were made of hostile text", got)
	}
	b.await("Ann", `[...document.querySelectorAll('#lan-list h3')].some(e => e.textContent === "Ann's laptop")`)
	b.shot("network")

	// Get her film, with a bar that moves.
	b.run(`[...document.querySelectorAll('#lan-list button')].find(e => e.getAttribute('aria-label') === "Get film.mkv from Ann's laptop").click()`)
	b.await("the bar to begin", `document.querySelector('#down progress')?.value > 0`)
	first := b.text(`String(document.querySelector('#down progress').value)`)
	b.await("the bar to move", `document.querySelector('#down progress').value > `+first+` && document.querySelector('#down progress').value < 1`)
	b.await("rate, time left and the picture", `/of 24.0 MiB · .*\/s · .* left · from 1 source/.test(document.querySelector('#down .meta').textContent) &&
		/Ann's laptop/.test(document.querySelector('#down svg.flow')?.getAttribute('aria-label'))`)
	b.shot("get")
	b.media("light", "no-preference")
	b.await("what flows to move", `document.getAnimations().some(a => a.animationName === 'flow' && a.playState === 'running')`)
	button := func(name string) string {
		return `[...document.querySelectorAll('#down button')].find(e => e.textContent === '` + name + `')`
	}
	b.run(button("Pause") + `.click()`)
	b.await("the pause", `/^Paused at/.test(document.querySelector('#down .meta').textContent)`)
	b.run(button("Resume") + `.click()`)
	b.await("the end", `/^24.0 MiB · saved as /.test(document.querySelector('#down .meta').textContent)`)
	b.await("its telling", `/film.mkv is here/.test(document.getElementById('told').textContent)`)
	sameFile(t, film, filepath.Join(folder, "film.mkv"))

	// A group of one, and a pin.
	b.run(`location.hash = 'groups'`)
	b.await("the form", `document.querySelector('#groups-list form')`)
	b.run(`document.querySelector('#groups-list input[name=group]').value = 'office'; document.querySelector('#groups-list form').requestSubmit()`)
	b.await("the recovery key", `/^[A-Za-z0-9+/=_-]{40,}$/.test(document.querySelector('dialog[open] .mono')?.textContent)`)
	b.run(`document.getElementById('dialog').close()`)
	b.await("the group", `document.querySelector('#groups-list h2')?.textContent === '@office'`)
	b.run(`document.querySelector('#groups-list input[name=what]').value = 'film.mkv'; document.querySelector('#groups-list form').requestSubmit()`)
	b.await("the pin with its copy", `document.querySelector('#groups-list .copies li')?.textContent.startsWith('✓')`)

	// Ann joins, and her copy shows by itself.
	b.run(`[...document.querySelectorAll('#groups-list button')].find(e => e.textContent === 'Invite…').click()`)
	b.await("the question", `document.querySelector('dialog[open] select')`)
	b.run(`document.querySelector('dialog select').value = 'storage'; document.querySelector('dialog form').requestSubmit(document.querySelector('dialog button[value=yes]'))`)
	b.await("the invitation", `document.querySelector('dialog[open] .token')`)
	if r := ann.runPlain(t, "group", "join", b.text(`document.querySelector('dialog .token').textContent`)); r.code != 0 {
		t.Fatalf("join: exit %d: %s", r.code, r.stderr)
	}
	b.run(`document.getElementById('dialog').close()`)
	b.await("two copies", `document.querySelectorAll('#groups-list .copies li').length === 2 && /2 of 3 copies/.test(document.querySelector('#groups-list .copies').parentElement.textContent)`)
	b.await("two members", `/^2 members/.test(document.querySelector('#groups-list .meta').textContent)`)
	if n := b.requests("GET " + origin + "/api/v1/pins"); n > 0 {
		t.Errorf("the pins were asked for %d times; events tell of them", n)
	}
	b.shot("group")

	b.run(`location.hash = 'find'`)
	b.await("the form", `!document.getElementById('find').hidden`)
	b.run(`document.querySelector('#search input').value = 'film'; document.getElementById('search').requestSubmit()`)
	b.await("what is found", `[...document.querySelectorAll('#found h3')].some(e => e.textContent === 'film.mkv')`)
	b.await("the end of the search", `/^1 content in/.test(document.getElementById('find-state').textContent)`)
	b.shot("search")
	b.run(`location.hash = 'status'`)
	b.await("the facts", `document.querySelector('#status-list dd')`)
	b.shot("status")
	b.quiet()
}

// opens follows the link that opens the first share: to the gateway, in a tab of its own
// from which there is no way back.
func (b *browser) opens(origin string) {
	b.t.Helper()
	link := `document.querySelector('#shares-list a')`
	if got := b.text(link + `.target + ' ' + ` + link + `.rel`); got != "_blank noopener noreferrer" {
		b.t.Errorf("the link to the gateway has target and rel %q", got)
	}
	b.must("Target.setDiscoverTargets", event{"discover": true}, nil)
	b.run(link + `.click()`)
	address := b.text(link + `.href`)
	if !strings.HasPrefix(address, origin+"/b3/") {
		b.t.Fatalf("the link leads to %s", address)
	}
	tab := b.tab(address)
	defer b.must("Target.closeTarget", event{"targetId": tab}, nil)
	b.in(tab, func() {
		b.await("the directory", `/notes.txt/.test(document.body.innerText)`)
		if got := b.text(`String(opener)`); got != "null" {
			b.t.Errorf("the tab has the opener %s", got)
		}
	})
}

// watches shares a directory that is kept up to date, and adds a file to it.
func (b *browser) watches(here *peer) {
	b.t.Helper()
	papers := filepath.Join(here.dir, "papers")
	writeRandom(b.t, filepath.Join(papers, "one.txt"), 1000, "one")
	b.run(`document.querySelector('#share-path [name=path]').value = ` + quoteJS(papers) + `
		document.querySelector('#share-path [name=watch]').checked = true
		document.getElementById('share-path').requestSubmit()`)
	row := `[...document.querySelectorAll('#shares-list li')].find(e => e.querySelector('bdi').textContent === 'papers')`
	b.await("what is watched", row+`?.querySelector('.tag').textContent === 'kept up to date'`)
	writeRandom(b.t, filepath.Join(papers, "two.txt"), 1000, "two")
	b.await("what was added to it", `/^2 files/.test(`+row+`?.querySelector('.meta').textContent)`)
	b.run(row + `.querySelector('[aria-label^="Stop sharing"]').click()`)
	b.await("the question", `document.querySelector('dialog[open] button[value=yes]')`)
	b.run(`document.querySelector('dialog button[value=yes]').click()`)
	b.await("it to be gone", `!(`+row+`)`)
}

// servesLink serves a share to people without p2pshare, looks at it as they do, and stops.
func (b *browser) servesLink(here *peer) {
	b.t.Helper()
	b.run(`document.querySelector('[aria-label="Link and QR code of holiday"]').click()`)
	b.await("the form", `document.querySelector('dialog[open] #serve')`)
	b.run(`document.querySelector('dialog details').open = true`)
	b.shot("serve")
	if on := b.text(`String(document.querySelector('#serve [name=receive]').checked)`); on != "false" {
		b.t.Error("a link receives unasked")
	}
	b.run(`document.querySelector('#serve [name=address]').value = '127.0.0.1'; document.querySelector('#serve').requestSubmit()`)
	b.await("the link and its code", `/^http:.*#/.test(document.querySelector('dialog [aria-label="Link for a browser"]')?.value) && document.querySelector('dialog img.qr').naturalWidth > 0`)
	b.shot("served")
	address, code, _ := strings.Cut(b.text(`document.querySelector('dialog [aria-label="Link for a browser"]').value`), "#")
	b.run(`document.getElementById('dialog').close()`)
	b.await("the list of links", `/ left$/.test(document.querySelector('#links-list .meta')?.textContent)`)
	if page := openLink(b.t, address, code); !strings.Contains(page, "holiday") || strings.Contains(page, "/send") {
		b.t.Errorf("the link shows %s", page)
	}
	b.run(`document.querySelector('[aria-label="Stop serving the link of holiday"]').click()`)
	b.await("no links", `document.getElementById('links').hidden`)
	if answer, err := http.Get(address); err == nil {
		answer.Body.Close()
		b.t.Error("a link that was stopped answers")
	}
}

// openLink opens a served link as a browser does, and returns its page.
func openLink(t testing.TB, address, code string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", address+"open", strings.NewReader(url.Values{"code": {code}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", strings.TrimSuffix(address, "/"))
	client := http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// dropFiles drags files and directories onto the page, as from a file manager.
func (b *browser) dropFiles(paths ...string) {
	b.t.Helper()
	data := event{"items": []any{}, "files": paths, "dragOperationsMask": 1}
	for _, kind := range []string{"dragEnter", "dragOver", "drop"} {
		b.must("Input.dispatchDragEvent", event{"type": kind, "x": 600, "y": 250, "data": data}, nil)
	}
}
