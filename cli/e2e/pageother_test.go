package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

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
