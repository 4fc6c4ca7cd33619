package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// oddNames are valid, and made to break a page: markup, writing from the right, joined
// emoji, stacked marks, no place for a line break.
var oddNames = []string{
	hostileName,
	"تقرير مالي 2026.pdf",
	"שלום exe.txt",
	"👨\u200d👩\u200d👧 🏳️\u200d🌈 photos.zip",
	"Z" + strings.Repeat("\u0316", 100) + "algo.txt",
	strings.Repeat("W", 240) + ".txt",
	"'\"`;${alert(3)}&amp;<!--.txt",
	"javascript:alert(4).txt",
}

// hiddenName is one with marks that can't be seen and are no part of an emoji: they are
// shown.
const hiddenName = "a\u200db\u200dc\u3164.txt"

// TestPageShowsOddNames: of own shares and of others', as text that stays in its place.
func TestPageShowsOddNames(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	flags, port := lanFlags(t)
	here := newPeer(t, flags...)
	here.serve(t, "daemon", "--folder", here.dir)
	names := append([]string{hiddenName}, oddNames...)
	runHostileNeighbor(t, port, "م\u202egnp.exe <b>", names...)
	// What no name may have is refused on the way, all of it with who sends it.
	runHostileNeighbor(t, port, "refused", "photo\u202egnp.exe", "a.txt")
	for _, name := range names {
		path := filepath.Join(here.dir, name)
		writeRandom(t, path, 100, name)
		if r := here.runPlain(t, "add", path); r.code != 0 {
			t.Fatalf("add %q: exit %d: %s", name, r.code, r.stderr)
		}
	}
	b.screen(1200, 800, false, "light")
	openPage(t, b, here)
	shown := quoteJS(`a\u{200d}b\u{200d}c\u{3164}.txt`)
	all := quoteJS(strings.Join(append([]string{"?"}, oddNames...), "\n"))
	same := func(list string) string {
		return `[...document.querySelectorAll('` + list + `')].map(e => e.textContent).sort().join('\n') === ` + all + `.replace('?', ` + shown + `).split('\n').sort().join('\n')`
	}
	b.await("all names", same("#shares-list h3 bdi"))
	b.isText()
	b.shot("odd-shares")

	b.run(`location.hash = 'lan'`)
	b.await("the neighbors", `document.querySelectorAll('#lan-list > li').length === 2`)
	b.await("the first of its shares", `document.querySelectorAll('#lan-list .inner li').length === 5`)
	b.run(`[...document.querySelectorAll('#lan-list button')].find(e => /^Show 4 more/.test(e.textContent)).click()`)
	b.await("all names", same("#lan-list .inner bdi"))
	if got := b.text(`[...document.querySelectorAll('#lan-list h3')].map(e => e.textContent).sort().join('\n')`); got != "refused\nم\\u{202e}gnp.exe <b>" {
		t.Errorf("the neighbors call themselves\n%s", got)
	}
	b.isText()
	b.shot("odd-network")

	// A question and what is told of one, too.
	b.run(`[...document.querySelectorAll('#lan-list button')].find(e => e.textContent === 'Block' && e.getAttribute('aria-label').includes('gnp')).click()`)
	b.await("the question", `document.querySelector('dialog[open] h2')?.textContent === 'Block م\\u{202e}gnp.exe <b>?'`)
	b.isText()
	b.quiet()
}

// TestLinkInChromium: what somebody without p2pshare sees of a served link, and sends back.
func TestLinkInChromium(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	here := newPeer(t, loopback...)
	inbox, given := filepath.Join(here.dir, "inbox"), filepath.Join(here.dir, hostileName)
	if err := os.Mkdir(inbox, 0o755); err != nil {
		t.Fatal(err)
	}
	writeRandom(t, given, 3000, "given")
	here.serve(t, "daemon")
	added := here.runPlain(t, "add", given)
	if added.code != 0 {
		t.Fatalf("add: exit %d: %s", added.code, added.stderr)
	}
	id := added.events[len(added.events)-1].text("id")
	openPage(t, b, here)
	link := b.text(`fetch('/api/v1/serve-link', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({
		what: ` + quoteJS(id) + `, address: '127.0.0.1', receive: ` + quoteJS(inbox) + `, detached: true }) }).then(answer => answer.json()).then(line => line.url)`)
	b.open(link)
	b.await("the page of the link", `document.querySelector('h1')?.textContent === `+quoteJS(hostileName))
	b.await("its code", `document.querySelector('img').naturalWidth > 0`)
	if got := b.text(`location.href`); strings.Contains(got, "#") {
		t.Errorf("the code stays in the address: %s", got)
	}
	b.shot("for-others")
	b.chooseFiles("input[type=file]", given)
	b.run(`document.querySelector('form button').click()`)
	b.await("that it has arrived", `document.querySelector('[role=status]')?.textContent === 'It has arrived.'`)
	// Browsers write %22 for a quotation mark (HTML, section 4.10.22.8).
	sameFile(t, given, filepath.Join(inbox, strings.ReplaceAll(hostileName, `"`, "%22")))
	b.quiet()
}

// isText checks that nothing became an element, that no name is drawn over another, and that
// none turns what stands beside it.
func (b *browser) isText() {
	b.t.Helper()
	if got := b.text(`[...document.querySelectorAll('main :is(script, b:not(.folder), h1:not([id])), main img, dialog b, a[href^="javascript:"]')].map(e => e.outerHTML).join()`); got != "" {
		b.t.Errorf("hostile text became %s", got)
	}
	if got := b.text(`[...document.querySelectorAll('#shares-list h3, #lan-list h3')].filter(e => getComputedStyle(e).overflow !== 'clip').map(e => e.outerHTML).join()`); got != "" {
		b.t.Errorf("names can be drawn over others: %s", got)
	}
	if got := b.text(`[...document.querySelectorAll('main :is(h3, li, .text)')].filter(e => e.checkVisibility() && getComputedStyle(e).direction !== 'ltr').map(e => e.outerHTML).join()`); got != "" {
		b.t.Errorf("names turn what is beside them: %s", got)
	}
}
