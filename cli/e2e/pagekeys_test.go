package e2e

import (
	"path/filepath"
	"testing"
)

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

	// Get and cancel; get again, pause and resume.
	b.tabTo(`nav a[href="#transfers"]`)
	b.press("Enter")
	b.await("the section", `document.activeElement.id === 'transfers-h'`)
	get := func() {
		b.tabTo("#get input[name=what]")
		b.typeText(link)
		b.press("Enter")
		b.await("bytes", `document.querySelector('#down progress')?.value > 0`)
	}
	get()
	b.tabTo(`#down [aria-label^="Cancel"]`)
	b.press("Enter")
	b.await("it to be gone", `document.querySelector('#down .none')`)
	if r := here.runPlain(t, "transfers"); r.code != 0 || len(r.events) > 0 || exists(filepath.Join(folder, "film.mkv")) {
		t.Errorf("what was cancelled goes on: %v", r.events)
	}
	get()
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
