package e2e

import (
	"path/filepath"
	"testing"
)

// enter goes to what matches by Tab, and presses Enter there.
func (b *browser) enter(selector string) {
	b.t.Helper()
	b.tabTo(selector)
	b.press("Enter")
}

// agree answers the question of a dialog with yes.
func (b *browser) agree() {
	b.t.Helper()
	b.await("the question", `document.querySelector('dialog[open] button[value=yes]')`)
	b.enter("dialog button[value=yes]")
}

// section goes to a section by keys.
func (b *browser) section(name string) {
	b.t.Helper()
	b.enter(`nav a[href="#` + name + `"]`)
	b.await(name, `document.activeElement.id === '`+name+`-h'`)
}

// TestNamesByKeyboard: a name that two claim is chosen, and forgotten; who claims it is
// trusted or blocked, and what it names too.
func TestNamesByKeyboard(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	flags, _ := lanFlags(t)
	here, ann, bob := newPeer(t, flags...), newPeer(t, flags...), newPeer(t, flags...)
	publish := func(p *peer, alias string, size int64) *process {
		writeRandom(t, filepath.Join(p.dir, "report.pdf"), size, alias)
		serving := p.serve(t, "daemon", "--alias", alias)
		p.must(t, "add", filepath.Join(p.dir, "report.pdf"))
		return serving
	}
	publish(ann, "Ann", 2000)
	bobID := publish(bob, "Bob", 3000).id()
	folder := filepath.Join(here.dir, "folder")
	here.serve(t, "daemon", "--folder", folder)
	b.screen(1200, 800, false, "light")
	openPage(t, b, here)
	b.section("lan")
	b.await("both", `document.querySelectorAll('#lan-list .inner li').length === 2`)

	// Choose among two.
	b.section("transfers")
	b.tabTo("#get input[name=what]")
	b.typeText("report.pdf")
	b.press("Enter")
	b.await("two candidates", `document.querySelectorAll('#down .inner li').length === 2`)
	b.shot("choose")
	b.enter(`#down [aria-label^="Get report.pdf of 2.9 KiB"]`)
	b.await("the chosen one", `/saved as/.test(document.querySelector('#down .meta').textContent)`)
	sameFile(t, filepath.Join(bob.dir, "report.pdf"), filepath.Join(folder, "report.pdf"))

	b.section("names")
	b.await("the choice", `document.querySelector('#choices h3')?.textContent === 'report.pdf'`)
	b.enter(`[aria-label="Forget report.pdf"]`)
	b.agree()
	b.await("no choice", `document.querySelector('#choices .none')`)

	// Trust and block who is here.
	b.section("lan")
	b.enter(`[aria-label="Trust Ann"]`)
	b.await("the question", `document.activeElement.matches('dialog[open] input')`)
	b.typeText("ann")
	b.press("Enter")
	b.await("her name", `[...document.querySelectorAll('#lan-list h3')].some(e => e.textContent === 'ann')`)
	b.enter(`[aria-label="Block Bob"]`)
	b.agree()
	b.section("names")
	b.await("both in the book", `document.querySelector('#petnames h3')?.textContent === 'ann' && document.querySelector('#blocks h3')?.textContent === '`+bobID+`'`)
	b.shot("names")
	b.enter(`[aria-label^="Unblock"]`)
	b.await("nothing blocked", `document.querySelector('#blocks .none')`)
	b.enter(`[aria-label="Distrust ann"]`)
	b.agree()
	b.await("nobody trusted", `document.querySelector('#petnames .none')`)

	// Block a content that was found.
	b.section("find")
	b.tabTo("#search input")
	b.typeText("report")
	b.press("Enter")
	b.await("what is found", `document.querySelector('#found [aria-label="Details of report.pdf"]')`)
	b.enter(`#found [aria-label="Details of report.pdf"]`)
	b.await("the details", `document.querySelector('dialog[open] .mono')`)
	b.shot("details")
	id := b.text(`document.querySelector('dialog .mono').textContent`)
	b.run(`[...document.querySelectorAll('dialog button')].find(e => e.textContent === 'Block this content').id = 'block-it'`)
	b.enter("#block-it")
	b.agree()
	b.section("names")
	b.await("the content", `document.querySelector('#blocks h3')?.textContent === '`+id+`'`)
	b.quiet()
}

// TestGroupAndLinksByKeyboard: the rest of the page, too.
func TestGroupAndLinksByKeyboard(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	here := newPeer(t, loopback...)
	placed := filepath.Join(here.dir, "papers")
	writeRandom(t, filepath.Join(placed, "a.txt"), 1000, "a")
	here.serve(t, "daemon", "--folder", filepath.Join(here.dir, "folder"))
	b.screen(1200, 800, false, "light")
	openPage(t, b, here)

	// The first Tab leads to what skips the sections.
	b.press("Tab", "Enter")
	b.await("the content", `document.activeElement.id === 'shares-h'`)

	b.tabTo("#share-path [name=path]")
	b.typeText(placed)
	b.tabTo("#share-path [name=watch]")
	b.press(" ")
	b.enter("#share-path button")
	b.await("what is watched", `document.querySelector('#shares-list .tag')?.textContent === 'kept up to date'`)

	b.enter(`[aria-label="Look inside papers"]`)
	b.await("what is inside", `document.querySelector('dialog[open] .inner bdi')?.textContent === 'a.txt'`)
	b.press("Escape")
	b.enter(`[aria-label="Link and QR code of papers"]`)
	b.await("the dialog", `document.querySelector('dialog[open] summary')`)
	b.enter("dialog summary")
	b.tabTo("#serve [name=address]")
	b.typeText("127.0.0.1")
	b.enter("#serve button")
	b.await("the link", `document.querySelector('dialog [aria-label="Link for a browser"]')`)
	b.press("Escape")
	b.enter(`[aria-label="Stop serving the link of papers"]`)
	b.await("no links", `document.getElementById('links').hidden`)

	b.section("groups")
	b.tabTo("#groups-list [name=group]")
	b.typeText("office")
	b.press("Enter")
	b.await("the recovery key", `document.querySelector('dialog[open] .mono')`)
	b.press("Escape")
	b.tabTo("#groups-list [name=what]")
	b.typeText("papers")
	b.press("Enter")
	b.await("the copy", `document.querySelector('#groups-list .copies li')?.textContent.startsWith('✓')`)
	b.enter(`[aria-label="Invite somebody into office"]`)
	b.agree()
	b.await("the invitation", `document.querySelector('dialog[open] .token')`)
	b.press("Escape")
	b.enter(`[aria-label="Unpin papers"]`)
	b.agree()
	b.await("no pins", `document.querySelector('#groups-list .none')?.textContent === 'Nothing is pinned.'`)

	b.section("status")
	b.tabTo("#limits [name=up]")
	b.typeText("2")
	b.press("Enter")
	b.await("that it is set", `/limits hold/.test(document.getElementById('told').textContent)`)
	if limits := here.runPlain(t, "limits").events; len(limits) != 1 || limits[0].number("max_up") != 2<<20 {
		t.Errorf("the page has set %v", limits)
	}
	b.enter("#examine")
	b.await("findings", `document.querySelector('#findings .tag')`)
	b.shot("health")
	b.enter("#logout")
	b.await("the page without a session", `document.querySelector('#what')`)
	b.quiet()
}
