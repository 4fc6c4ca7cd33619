package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// browser drives a headless Chromium by the DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol), over the pipes of
// --remote-debugging-pipe: JSON messages that end with a NUL.
type browser struct {
	t    testing.TB
	to   *os.File
	sent int // messages, which is the ID of the last; one call at a time

	mu       sync.Mutex              // guards what follows
	answers  map[int]chan cdpMessage // of calls that wait
	session  string                  // of the page
	problems []string                // console errors, exceptions, requests that leave
	origin   string                  // where requests may go
	asked    []string                // requests seen: method and address
	loaded   chan struct{}           // has a token after each load
}

type cdpMessage struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
	raw json.RawMessage // of params, when received
}

// browserMax bounds each wait for the browser or the page in it.
const browserMax = 60 * time.Second

// startBrowser skips the test where there is no Chromium.
func startBrowser(t testing.TB) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("needs chromium: apt-get install chromium")
	}
	profile, err := os.MkdirTemp("", "profile")
	if err != nil {
		t.Fatal(err)
	}
	toChild, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, fromChild, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), path, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--disable-extensions", "--disable-breakpad", "--user-data-dir="+profile, "about:blank")
	c.ExtraFiles = []*os.File{toChild, fromChild} // 3 and 4
	c.WaitDelay = 10 * time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	toChild.Close()
	fromChild.Close()
	b := &browser{t: t, to: to, answers: map[int]chan cdpMessage{}, loaded: make(chan struct{}, 16)}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(from) })
	t.Cleanup(func() {
		b.call("Browser.close", nil)
		to.Close()
		c.Wait()
		from.Close()
		reading.Wait()
		// Its helpers end a little later, and write into the profile until then.
		for deadline := time.Now().Add(browserMax); os.RemoveAll(profile) != nil; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Errorf("%s can't be removed", profile)
				return
			}
		}
	})
	b.newPage()
	return b
}

// newPage opens a page and listens to it.
func (b *browser) newPage() {
	b.t.Helper()
	var target struct{ TargetID string }
	b.must("Target.createTarget", event{"url": "about:blank"}, &target)
	b.attach(target.TargetID)
}

// attach has the calls from now on go to a tab.
func (b *browser) attach(tab string) {
	b.t.Helper()
	var attached struct{ SessionID string }
	b.must("Target.attachToTarget", event{"targetId": tab, "flatten": true}, &attached)
	b.mu.Lock()
	b.session = attached.SessionID
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Network", "Log", "DOM"} {
		b.must(domain+".enable", nil, nil)
	}
}

// tab waits for the tab with an address.
func (b *browser) tab(address string) string {
	b.t.Helper()
	for deadline := time.Now().Add(browserMax); ; time.Sleep(20 * time.Millisecond) {
		var all struct {
			TargetInfos []struct{ TargetID, URL string }
		}
		b.must("Target.getTargets", nil, &all)
		for _, t := range all.TargetInfos {
			if t.URL == address {
				return t.TargetID
			}
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("no tab has the address %s: %v", address, all)
		}
	}
}

// in does something in a tab, and then goes back to the page.
func (b *browser) in(tab string, do func()) {
	b.t.Helper()
	b.mu.Lock()
	before := b.session
	b.mu.Unlock()
	b.attach(tab)
	defer func() {
		b.mu.Lock()
		b.session = before
		b.mu.Unlock()
	}()
	do()
}

func (b *browser) read(from *os.File) {
	r := bufio.NewReader(from)
	for {
		line, err := r.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, c := range b.answers {
				close(c)
			}
			b.answers = nil
			return
		}
		var m struct {
			cdpMessage
			Params json.RawMessage `json:"params"`
		}
		if json.Unmarshal(bytes.TrimSuffix(line, []byte{0}), &m) != nil {
			continue
		}
		m.raw = m.Params
		b.take(m.cdpMessage)
	}
}

// take hands an answer to its call, and notes what the page must not do.
func (b *browser) take(m cdpMessage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.answers[m.ID]; m.ID > 0 && c != nil {
		delete(b.answers, m.ID)
		c <- m
		return
	}
	var p struct {
		Type             string
		Args             []json.RawMessage
		ExceptionDetails json.RawMessage
		Entry            struct{ Level, Text, URL string }
		Request          struct{ Method, URL string }
	}
	json.Unmarshal(m.raw, &p)
	switch m.Method {
	case "Runtime.consoleAPICalled":
		if p.Type == "error" || p.Type == "warning" || p.Type == "assert" {
			b.problems = append(b.problems, fmt.Sprintf("console.%s %s", p.Type, p.Args))
		}
	case "Runtime.exceptionThrown":
		b.problems = append(b.problems, "exception "+string(p.ExceptionDetails))
	case "Log.entryAdded":
		if p.Entry.Level == "error" || p.Entry.Level == "warning" {
			b.problems = append(b.problems, p.Entry.Level+" "+p.Entry.Text+" "+p.Entry.URL)
		}
	case "Network.requestWillBeSent":
		b.asked = append(b.asked, p.Request.Method+" "+p.Request.URL)
		if u, err := url.Parse(p.Request.URL); err != nil || b.origin != "" && u.Scheme != "data" && u.Scheme+"://"+u.Host != b.origin {
			b.problems = append(b.problems, "request to "+p.Request.URL)
		}
	case "Page.javascriptDialogOpening":
		b.problems = append(b.problems, "a dialog of JavaScript: "+string(m.raw))
	case "Page.loadEventFired":
		select {
		case b.loaded <- struct{}{}:
		default:
		}
	}
}

// call sends a command to the page, or to the browser before there is one.
func (b *browser) call(method string, params any) (json.RawMessage, error) {
	answer := make(chan cdpMessage, 1)
	b.mu.Lock()
	if b.answers == nil {
		b.mu.Unlock()
		return nil, errors.New("the browser has ended")
	}
	b.sent++
	m := cdpMessage{ID: b.sent, Method: method, Params: params}
	if !strings.HasPrefix(method, "Browser.") && !strings.HasPrefix(method, "Target.") {
		m.Session = b.session
	}
	b.answers[m.ID] = answer
	b.mu.Unlock()
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if _, err := b.to.Write(append(text, 0)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), browserMax)
	defer cancel()
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return nil, errors.New("the browser has ended")
		case m.Error != nil:
			return nil, errors.New(m.Error.Message)
		}
		return m.Result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

func (b *browser) must(method string, params any, into any) {
	b.t.Helper()
	result, err := b.call(method, params)
	if err == nil && into != nil {
		err = json.Unmarshal(result, into)
	}
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// open loads an address, and from then on notes each request elsewhere.
func (b *browser) open(address string) {
	b.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	b.origin = u.Scheme + "://" + u.Host
	b.mu.Unlock()
	b.must("Page.navigate", event{"url": address}, nil)
}

// eval runs JavaScript in the page; a promise is awaited. It runs in spite of the page's
// policy, as what a person does in the developer tools.
func (b *browser) eval(script string, into any) error {
	result, err := b.call("Runtime.evaluate", event{"expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true})
	if err != nil {
		return err
	}
	var r struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if err := json.Unmarshal(result, &r); err != nil {
		return err
	}
	if r.ExceptionDetails != nil {
		return fmt.Errorf("%s: %s %s", script, r.ExceptionDetails.Text, r.ExceptionDetails.Exception.Description)
	}
	if into == nil || len(r.Result.Value) == 0 {
		return nil
	}
	return json.Unmarshal(r.Result.Value, into)
}

func (b *browser) run(script string) {
	b.t.Helper()
	if err := b.eval(script, nil); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) text(script string) (s string) {
	b.t.Helper()
	if err := b.eval(script, &s); err != nil {
		b.t.Fatal(err)
	}
	return s
}

// await waits until a condition holds in the page. A page in a sandbox without scripts
// has no timers, so the waiting is done here.
func (b *browser) await(what, condition string) {
	b.t.Helper()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(browserMax); ; <-tick.C {
		var ok bool
		// A page that is being replaced has no answer yet.
		if err := b.eval(`!!(`+condition+`)`, &ok); err == nil && ok {
			return
		}
		if time.Now().After(deadline) {
			var body string
			b.eval(`document.body.innerText`, &body)
			b.mu.Lock()
			asked := strings.Join(b.asked[max(0, len(b.asked)-10):], "\n")
			b.mu.Unlock()
			b.t.Fatalf("waited in vain for %s; the page says:\n%s\nit asked last:\n%s\n%s", what, body, asked, b.noted())
		}
	}
}

// press presses keys, by their names: "Tab", "Enter", "Shift+Tab", " ".
func (b *browser) press(keys ...string) {
	b.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
	for _, k := range keys {
		modifiers := 0
		name, shifted := strings.CutPrefix(k, "Shift+")
		if shifted {
			modifiers = 8
		}
		code := name
		if name == " " {
			code = "Space"
		}
		p := event{"type": "keyDown", "key": name, "code": code, "windowsVirtualKeyCode": codes[name], "modifiers": modifiers}
		switch name {
		case "Enter":
			p["text"] = "\r"
		case " ":
			p["text"] = " "
		}
		b.must("Input.dispatchKeyEvent", p, nil)
		b.must("Input.dispatchKeyEvent", event{"type": "keyUp", "key": name, "code": code, "windowsVirtualKeyCode": codes[name], "modifiers": modifiers}, nil)
	}
}

// typeText types into what has the focus.
func (b *browser) typeText(text string) {
	b.t.Helper()
	b.must("Input.insertText", event{"text": text}, nil)
}

// screen sets the size of the window, and light or dark.
func (b *browser) screen(width, height int, phone bool, scheme string) {
	b.t.Helper()
	scale := 1
	if phone {
		scale = 2
	}
	b.must("Emulation.setDeviceMetricsOverride", event{"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}, nil)
	b.media(scheme, "reduce")
}

// media sets what the person's system asks pages for.
func (b *browser) media(scheme, motion string) {
	b.t.Helper()
	b.must("Emulation.setEmulatedMedia", event{"features": []event{
		{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}}}, nil)
}

func (b *browser) screenshot() []byte {
	b.t.Helper()
	var shot struct{ Data string }
	b.must("Page.captureScreenshot", event{"format": "png"}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// requests counts those so far whose method and address contain part.
func (b *browser) requests(part string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.asked {
		if strings.Contains(r, part) {
			n++
		}
	}
	return n
}

func quoteJS(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(text)
}

// noted are the problems so far.
func (b *browser) noted() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.problems, "\n")
}

// quiet fails the test if the page has done what it must not.
func (b *browser) quiet() {
	b.t.Helper()
	if problems := b.noted(); problems != "" {
		b.t.Errorf("the page is not quiet:\n%s", problems)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) == 0 {
		b.t.Error("no request was seen: nothing was looked at")
	}
}
