package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// screenshots has the test of the page write those of the README; everyLook one of every
// view and look:
//
//	go test ./cli/e2e -run 'TestPageInChromium|TestNamesByKeyboard' -args -screenshots $PWD/cli/web/screenshots
var (
	screenshots = flag.String("screenshots", "", "write screenshots of the page into this directory")
	everyLook   = flag.Bool("every-look", false, "with -screenshots: both colour schemes in all sizes")
)

// looks are how the page is looked at: the first two are in the README.
var looks = []struct {
	name          string
	width, height int
	phone         bool
	scheme        string
	shown         bool
}{
	{"desktop", 1200, 800, false, "light", true},
	{"phone", 390, 844, true, "dark", true},
	{"desktop-dark", 1200, 800, false, "dark", false},
	{"phone-light", 390, 844, true, "light", false},
	{"narrow", 320, 640, true, "light", false}, // WCAG 2.2, 1.4.10: no scrolling in two directions
}

// pictured are the views of the README and of whoever wants to see the page.
var pictured = []string{"share", "link", "get", "search", "network", "names", "group", "status"}

// shot looks at the page in each of looks, and then as on a desktop again.
func (b *browser) shot(name string) {
	b.t.Helper()
	b.run(`for (const e of document.querySelectorAll('#told')) e.textContent = ''`)
	for _, l := range looks {
		b.screen(l.width, l.height, l.phone, l.scheme)
		b.await("the layout", fmt.Sprintf(`innerWidth === %d && matchMedia('(prefers-color-scheme: %s)').matches`, l.width, l.scheme))
		for _, rule := range rules {
			if found := b.text("(() => { const phone = " + fmt.Sprint(l.phone) + ";" + lookScript + rule.script + "})()"); found != "" {
				b.t.Errorf("%s on a %s: %s:\n%s", name, l.name, rule.what, found)
			}
		}
		if *screenshots != "" && (l.shown && slices.Contains(pictured, name) || *everyLook) {
			if err := os.WriteFile(filepath.Join(*screenshots, name+"-"+l.name+".png"), b.screenshot(), 0o644); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	if nameless := b.nameless(); len(nameless) > 0 {
		b.t.Errorf("%s: a screen reader has no name for %v", name, nameless)
	}
	b.screen(1200, 800, false, "light")
}

// lookScript has what the rules share: seen are the elements that a person sees.
const lookScript = `
const dialog = document.querySelector('dialog[open]')
const seen = [...(dialog ?? document.body).querySelectorAll('*')].filter(e => e.checkVisibility() && !e.closest('.skip, noscript, option'))
const brief = list => list.slice(0, 10).map(x => x.e.outerHTML.slice(0, 90) + ' ' + (x.why ?? '')).join('\n')
`

// rules each return what breaks them.
var rules = []struct{ what, script string }{
	{"wider than the screen", `
const wide = seen.filter(e => !e.closest('svg, nav') && e.getBoundingClientRect().right > innerWidth + 1)
return brief(wide.map(e => ({ e }))) + (document.documentElement.scrollWidth > innerWidth ? 'the page scrolls sideways' : '') +
	(innerWidth >= 390 && [...document.querySelectorAll('nav')].some(e => e.scrollWidth > e.clientWidth) ? 'the sections do not fit' : '')`},

	// What is to be pressed; of a checkbox with a label that is the label.
	{"too small to press", `
const least = phone ? 40 : 34
return brief(seen.filter(e => e.matches('button, a, input:not([type=file], [type=checkbox]), select, summary, label:has([type=checkbox])'))
	.map(e => ({ e, r: e.getBoundingClientRect() })).filter(x => x.r.height < least || x.r.width < least)
	.map(x => ({ e: x.e, why: x.r.width + ' by ' + x.r.height })))`},

	{"text below 12 pixels", `
return brief(texts().map(e => {
	const svg = e.closest('svg')
	const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1
	return { e, why: parseFloat(getComputedStyle(e).fontSize) * scale }
}).filter(x => x.why < 12))
function texts() { return seen.filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) }`},

	// The ratio as WCAG 2.2 defines it, at least 4.5 for all text whatever its size.
	{"contrast below 4.5", `
const paint = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true })
const rgba = color => {
	paint.clearRect(0, 0, 1, 1)
	paint.fillStyle = color
	paint.fillRect(0, 0, 1, 1)
	const [r, g, b, a] = paint.getImageData(0, 0, 1, 1).data
	return [r, g, b, a / 255]
}
const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1)
const chain = e => e ? [...chain(e.parentElement), e] : []
const behind = e => chain(e).reduce((color, x) => over(rgba(getComputedStyle(x).backgroundColor), color), [255, 255, 255, 1])
const light = c => {
	const [r, g, b] = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
	return 0.2126 * r + 0.7152 * g + 0.0722 * b
}
const bad = []
let looked = 0
for (const e of seen) {
	const style = getComputedStyle(e)
	const colors = []
	if ([...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) colors.push(e.closest('svg') ? style.fill : style.color)
	if (e.matches('input, select')) colors.push(style.color)
	if (e.placeholder) colors.push(getComputedStyle(e, '::placeholder').color)
	for (const color of colors) {
		looked++
		const under = behind(e)
		const text = rgba(color)
		text[3] *= chain(e).reduce((o, x) => o * getComputedStyle(x).opacity, 1)
		const [a, b] = [light(over(text, under)), light(under)]
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
		if (ratio < 4.5) bad.push({ e, why: ratio.toFixed(2) + ': ' + color + ' on ' + under.slice(0, 3).map(Math.round) })
	}
}
return brief(bad) + (looked < 5 ? 'nothing was looked at' : '')`},

	{"it moves, though reduced motion is asked for", `
return brief(document.getAnimations().filter(a => a.playState === 'running').map(a => ({ e: a.effect.target, why: a.animationName ?? a.transitionProperty })))`},
}

// named are the roles that are of no use to a screen reader without a name.
var named = []string{"button", "link", "textbox", "searchbox", "combobox", "checkbox", "spinbutton", "progressbar", "image", "list",
	"dialog", "navigation", "heading"}

// nameless are the elements in the browser's accessibility tree that lack one.
func (b *browser) nameless() (found []string) {
	b.t.Helper()
	var tree struct {
		Nodes []struct {
			Ignored          bool
			Role, Name       struct{ Value any }
			BackendDOMNodeID int
		}
	}
	b.must("Accessibility.getFullAXTree", nil, &tree)
	buttons := 0
	for _, n := range tree.Nodes {
		role, _ := n.Role.Value.(string)
		name, _ := n.Name.Value.(string)
		if n.Ignored || !slices.Contains(named, role) {
			continue
		}
		if role == "button" {
			buttons++
		}
		if strings.TrimSpace(name) == "" {
			found = append(found, fmt.Sprintf("%s %s", role, b.outerHTML(n.BackendDOMNodeID)))
		}
	}
	if buttons == 0 {
		b.t.Error("the accessibility tree has no button: nothing was looked at")
	}
	return found
}

func (b *browser) outerHTML(backend int) string {
	b.t.Helper()
	var r struct{ OuterHTML string }
	b.must("DOM.getOuterHTML", event{"backendNodeId": backend}, &r)
	return r.OuterHTML[:min(len(r.OuterHTML), 100)]
}
