package e2e

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
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

// screenshots has the test of the page write those of the README.
var screenshots = flag.String("screenshots", "", "write screenshots of the page into this directory")

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

// runHostileNeighbor runs a neighbor whose name, share and note are markup.
func runHostileNeighbor(t *testing.T, port int) {
	t.Helper()
	n, err := node.New(t.Context(), node.Config{Listen: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, NoDHT: true,
		LANPort: port, Alias: "<h1>mallory</h1>", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	id, err := content.Parse("b3:" + strings.Repeat("5a", 32))
	if err != nil {
		t.Fatal(err)
	}
	name, err := share.ParseName(hostileName)
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
	body, err := json.Marshal(share.Manifest{V: 1, Name: name, ID: id, Kind: share.KindFile, Publisher: publisher,
		Seq: now.UnixMilli(), Issued: now, Expires: now.Add(time.Hour), Note: hostileNote})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := node.Seal(key, node.KindManifest, body)
	if err != nil {
		t.Fatal(err)
	}
	n.Handle(metaProtocol, node.HandlerConfig{}, func(_ context.Context, s network.Stream) error {
		say, lines := json.NewEncoder(s), bufio.NewScanner(s)
		for lines.Scan() {
			if err := say.Encode(map[string]any{"manifest": manifest}); err != nil {
				return err
			}
			if err := say.Encode(map[string]any{"end": true, "total": 1}); err != nil {
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
	runHostileNeighbor(t, port)
	b.screen(1200, 800, false, "light")
	openPage(t, b, here)

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
	b.shot("group")

	b.run(`location.hash = 'find'`)
	b.await("the form", `!document.getElementById('find').hidden`)
	b.run(`document.querySelector('#search input').value = 'film'; document.getElementById('search').requestSubmit()`)
	b.await("what is found", `[...document.querySelectorAll('#found h3')].some(e => e.textContent === 'film.mkv')`)
	b.shot("search")
	for _, section := range []string{"names", "status"} {
		b.run(`location.hash = '` + section + `'`)
		b.await(section, `!document.getElementById('`+section+`').hidden`)
	}
	b.await("the facts", `document.querySelector('#status-list dd')`)
	b.shot("status")
	b.quiet()
}

// shot looks at the page as a desktop and as a phone shows it, light and dark. In no
// width may it be wider than the screen, and what can be pressed is large enough.
func (b *browser) shot(name string) {
	b.t.Helper()
	for _, s := range []struct {
		name          string
		width, height int
		phone         bool
		scheme        string
	}{{"desktop", 1200, 800, false, "light"}, {"phone", 390, 844, true, "dark"}} {
		b.screen(s.width, s.height, s.phone, s.scheme)
		b.await("the layout", `innerWidth === `+fmt.Sprint(s.width))
		if wide := b.text(`[...document.querySelectorAll('main *, header *, dialog[open] *')].filter(e => e.checkVisibility() && !e.closest('svg, [hidden]') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 90)).join('\n')`); wide != "" {
			b.t.Errorf("%s on a %s: wider than the screen:\n%s", name, s.name, wide)
		}
		if small := b.text(`[...document.querySelectorAll('button, input:not([type=file]), select, nav a')].filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 34).map(e => e.outerHTML.slice(0, 90)).join('\n')`); small != "" {
			b.t.Errorf("%s on a %s: too small to press:\n%s", name, s.name, small)
		}
		if *screenshots != "" {
			if err := os.WriteFile(filepath.Join(*screenshots, name+"-"+s.name+".png"), b.screenshot(), 0o644); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	b.screen(1200, 800, false, "light")
}

// dropFiles drags files and directories onto the page, as from a file manager.
func (b *browser) dropFiles(paths ...string) {
	b.t.Helper()
	data := event{"items": []any{}, "files": paths, "dragOperationsMask": 1}
	for _, kind := range []string{"dragEnter", "dragOver", "drop"} {
		b.must("Input.dispatchDragEvent", event{"type": kind, "x": 600, "y": 250, "data": data}, nil)
	}
}

func quoteJS(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(text)
}

// TestPageByKeyboard: everything that TestPageInChromium does can be done by keys alone.
func TestPageByKeyboard(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	sharer, here := newPeer(t, loopback...), newPeer(t, loopback...)
	film := filepath.Join(sharer.dir, "film.mkv")
	writeRandom(t, film, 8<<20, "film")
	serving := sharer.serve(t, "daemon", "--max-up", "2M")
	link := sharer.must(t, "add", film).text("link")
	folder := filepath.Join(here.dir, "folder")
	here.serve(t, "daemon", "--folder", folder, "--peer", serving.addr(t))
	b.screen(1200, 800, false, "light")
	openPage(t, b, here)

	// Share by the file dialog.
	chosen := filepath.Join(here.dir, "chosen.txt")
	writeRandom(t, chosen, 1000, "chosen")
	b.must("Page.setInterceptFileChooserDialog", event{"enabled": true}, nil)
	b.tabTo("#choose-files")
	b.press("Enter")
	b.chooseFiles("#files", chosen)
	b.await("what was chosen", `document.querySelector('#shares-list h3')?.textContent === 'chosen.txt'`)

	// Share in place.
	placed := filepath.Join(here.dir, "placed.txt")
	writeRandom(t, placed, 2000, "placed")
	b.tabTo("#share-path input")
	b.typeText(placed)
	b.press("Enter")
	b.await("what was shared in place", `document.querySelectorAll('#shares-list li').length === 2`)

	// Its link, in a dialog that keeps the focus and gives it back.
	b.tabTo(`[aria-label="Link and QR code of placed.txt"]`)
	b.press("Enter")
	b.await("the dialog", `document.querySelector('dialog[open] img.qr')`)
	for range 6 {
		b.press("Tab")
		if b.text(`String(document.querySelector('dialog').contains(document.activeElement) || document.activeElement === document.body)`) != "true" {
			t.Fatal("the focus leaves an open dialog")
		}
	}
	b.press("Escape")
	b.await("the focus to be back", `document.activeElement.getAttribute('aria-label') === 'Link and QR code of placed.txt'`)

	// Stop sharing, with a question.
	b.tabTo(`[aria-label="Stop sharing placed.txt"]`)
	b.press("Enter")
	b.await("the question", `document.querySelector('dialog[open] button[value=yes]')`)
	b.tabTo("dialog button[value=yes]")
	b.press("Enter")
	b.await("it to be gone", `document.querySelectorAll('#shares-list li').length === 1`)
	if !exists(placed) {
		t.Error("the file that is not shared any more is gone")
	}

	// Get, pause, resume, and cancel another time.
	b.tabTo(`nav a[href="#transfers"]`)
	b.press("Enter")
	b.await("the section", `document.activeElement.id === 'transfers-h'`)
	b.tabTo("#get input[name=what]")
	b.typeText(link)
	b.press("Enter")
	b.await("bytes", `document.querySelector('#down progress')?.value > 0`)
	b.tabTo(`#down [aria-label^="Pause"]`)
	b.press("Enter")
	b.await("the pause", `/^Paused at/.test(document.querySelector('#down .meta').textContent)`)
	b.tabTo(`#down [aria-label^="Resume"]`)
	b.press(" ")
	b.await("the end", `/saved as/.test(document.querySelector('#down .meta').textContent)`)
	sameFile(t, film, filepath.Join(folder, "film.mkv"))
	b.tabTo(`#down [aria-label^="Clear"]`)
	b.press("Enter")
	b.await("an empty list", `document.querySelector('#down .none')`)

	// Trust, and a section further.
	b.tabTo(`nav a[href="#names"]`)
	b.press("Enter")
	b.tabTo("#trust input[name=who]")
	b.typeText(serving.id())
	b.press("Tab")
	b.typeText("ann")
	b.press("Enter")
	b.await("ann", `document.querySelector('#petnames h3')?.textContent === 'ann'`)
	b.quiet()
}

// tabTo presses Tab until what matches has the focus, and checks that it can be seen that
// it has.
func (b *browser) tabTo(selector string) {
	b.t.Helper()
	b.await(selector, `document.querySelector(`+quoteJS(selector)+`)?.checkVisibility()`)
	for range 120 {
		b.press("Tab")
		var here, seen bool
		if err := b.eval(`document.activeElement.matches(`+quoteJS(selector)+`)`, &here); err != nil {
			b.t.Fatal(err)
		}
		if !here {
			continue
		}
		if err := b.eval(`getComputedStyle(document.activeElement).outlineStyle !== 'none'`, &seen); err != nil || !seen {
			b.t.Errorf("%s has the focus, and nothing shows it: %v", selector, err)
		}
		return
	}
	b.t.Fatalf("Tab does not lead to %s", selector)
}

// chooseFiles answers the dialog of a file input.
func (b *browser) chooseFiles(selector string, paths ...string) {
	b.t.Helper()
	var doc struct{ Root struct{ NodeID int } }
	b.must("DOM.getDocument", event{"depth": 0}, &doc)
	var found struct{ NodeID int }
	b.must("DOM.querySelector", event{"nodeId": doc.Root.NodeID, "selector": selector}, &found)
	b.must("DOM.setFileInputFiles", event{"files": paths, "nodeId": found.NodeID}, nil)
}

// TestOtherPagesCanDoNothing has a page of another port, in the browser that is let in,
// try what pages can.
func TestOtherPagesCanDoNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	here := newPeer(t, loopback...)
	here.serve(t, "daemon")
	secret := filepath.Join(here.dir, "secret.txt")
	writeRandom(t, secret, 1000, "secret")
	origin := openPage(t, b, here)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>evil</title>")
	}))
	defer evil.Close()
	for _, site := range []string{evil.URL, strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)} {
		b.open(site)
		b.await("the other page", `document.title === 'evil'`)
		var got []string
		if err := b.eval(`(async () => {
			const got = []
			const read = async (path, options) => {
				try {
					const answer = await fetch('`+origin+`' + path, { credentials: 'include', ...options })
					if (answer.type !== 'opaque') got.push(path + ' ' + answer.status)
				} catch {}
			}
			for (const path of ['/', '/api/v1/status', '/api/v1/shares', '/api/v1/events', '/ui/app.js']) {
				await read(path)
				await read(path, { mode: 'no-cors' })
			}
			for (const type of ['application/json', 'text/plain']) {
				for (const mode of ['cors', 'no-cors']) {
					const options = { method: 'POST', mode, headers: { 'Content-Type': type } }
					await read('/api/v1/limits', { ...options, body: '{"max_up":1000000}' })
					await read('/api/v1/shares', { ...options, body: JSON.stringify({ path: `+quoteJS(secret)+` }) })
					await read('/api/v1/sessions', { ...options, body: '{}' })
				}
			}
			const load = (name, path) => new Promise(done => {
				const e = document.createElement(name)
				if (name === 'iframe') e.name = 'f'
				e.onload = () => { if (name !== 'iframe') got.push(name + ' ' + path); done() }
				e.onerror = done
				e.src = '`+origin+`' + path
				document.body.append(e)
			})
			await load('img', '/api/v1/qr?text=x')
			await load('img', '/ui/icon.svg')
			await load('script', '/ui/app.js')
			await load('iframe', '/')
			try { if (frames[0].document.body.innerText) got.push('frame') } catch {}
			const form = document.createElement('form')
			Object.assign(form, { method: 'post', action: '`+origin+`/api/v1/limits', enctype: 'text/plain', target: 'f' })
			form.append(Object.assign(document.createElement('input'), { name: '{"max_up":1000000,"x":"', value: '"}' }))
			document.body.append(form)
			const sent = new Promise(done => { document.querySelector('iframe').onload = done })
			form.submit()
			await sent
			return got
		})()`, &got); err != nil {
			t.Fatal(err)
		}
		if len(got) > 0 {
			t.Errorf("a page of %s gets %v", site, got)
		}
	}
	if limits := here.runPlain(t, "limits").events; len(limits) != 1 || limits[0].number("max_up") != 0 {
		t.Errorf("a page elsewhere has set %v", limits)
	}
	if r := here.runPlain(t, "ls"); r.code != 0 || len(r.events) > 0 {
		t.Errorf("a page elsewhere has shared %v", r.events)
	}

	// The same, asked by the page itself, is done.
	b.open(origin)
	b.await("the page again", `document.querySelector('#line.on')`)
	b.run(`fetch('/api/v1/limits', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{"max_up":1000000}' }).then(answer => answer.text())`)
	if limits := here.runPlain(t, "limits").events; len(limits) != 1 || limits[0].number("max_up") != 1000000 {
		t.Errorf("the page itself has set %v", limits)
	}
}
