package e2e

import (
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	p2ppeer "github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

const (
	manyShares    = 10_000
	manyNeighbors = 512 // as many as a peer knows; those of one address are 64 at most
)

// TestPageStaysResponsive: 10,000 shares, and as many neighbors as a peer knows of, are
// some hundred elements, and the page is never busy for long.
func TestPageStaysResponsive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	flags, port := lanFlags(t)
	here := newPeer(t, flags...)
	if memory, err := os.MkdirTemp("/dev/shm", "home"); err == nil { // each of the shares is synced: a minute on a disk
		here.home = memory
		defer os.RemoveAll(memory)
	}
	dir := filepath.Join(here.dir, "many")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for i := range manyShares {
		path := filepath.Join(dir, fmt.Sprintf("file-%05d.txt", i))
		if err := os.WriteFile(path, fmt.Appendln(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	if r := here.runPlain(t, append([]string{"add", "--exit", "--unlisted"}, paths...)...); r.code != 0 {
		t.Fatalf("add: exit %d: %s", r.code, r.stderr)
	}
	serving := here.serve(t, "daemon", "--folder", here.dir)
	b.screen(1200, 800, false, "light")
	openPage(t, b, here)
	b.await("the shares", `document.querySelectorAll('#shares-list li').length === 100`)
	var took float64
	if err := b.eval(`performance.now()`, &took); err != nil {
		t.Fatal(err)
	}
	if n := b.text(`document.getElementById('shares-n').textContent`); n != "10000 shares, 47.7 KiB" {
		t.Errorf("the page tells of %q", n)
	}
	t.Logf("%d shares: the first 100 are there %.0f ms after the page was asked for, in %s elements", manyShares, took, b.elements())
	if took > 5000 {
		t.Errorf("the first shares came after %.0f ms", took)
	}
	b.run(`window.busy = 0; new PerformanceObserver(list => { for (const e of list.getEntries()) busy = Math.max(busy, e.duration) }).observe({ type: 'longtask', buffered: true })`)
	var most, elements float64
	if err := b.eval(`busy`, &most); err != nil {
		t.Fatal(err)
	}
	t.Logf("meanwhile it was busy for %.0f ms at once", most)
	b.run(`document.getElementById('shares-filter').focus()`)
	b.typeText("file-04242")
	b.await("the one", `document.querySelectorAll('#shares-list li').length === 1 && document.querySelector('#shares-list h3').textContent === 'file-04242.txt'`)
	b.run(`document.getElementById('shares-filter').value = ''; document.getElementById('shares-filter').dispatchEvent(new Event('input'))`)
	b.await("all again", `document.querySelectorAll('#shares-list li').length === 100`)
	b.run(`[...document.querySelectorAll('#shares button')].find(e => e.textContent === 'Show 100 more of 9900').click()`)
	b.await("more", `document.querySelectorAll('#shares-list li').length === 200 && document.activeElement.closest('li') === document.querySelectorAll('#shares-list li')[100]`)

	b.run(`location.hash = 'lan'`)
	began := time.Now()
	meetMany(t, port, serving.id())
	t.Logf("%d neighbors were told of within %s", manyNeighbors, time.Since(began).Round(time.Millisecond))
	b.await("all neighbors", fmt.Sprintf(`document.getElementById('lan-n').textContent === '%d peers'`, manyNeighbors))
	b.await("some of them", `document.querySelectorAll('#lan-list > li').length === 30`)
	if err := b.eval(`busy`, &most); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d neighbors came within %s, in %s elements; the page was busy for %.0f ms at once", manyNeighbors, time.Since(began).Round(time.Millisecond), b.elements(), most)
	if most > 500 {
		t.Errorf("the page did not answer for %.0f ms", most)
	}
	b.run(`setTimeout(() => { for (const began = performance.now(); performance.now() < began + 600;); })`)
	b.await("that this would be seen", `busy > 500`)
	if err := b.eval(`document.querySelectorAll('*').length`, &elements); err != nil || elements > 5000 {
		t.Errorf("the page has %.0f elements, %v", elements, err)
	}
	b.quiet()
}

func (b *browser) elements() string {
	b.t.Helper()
	return b.text(`String(document.querySelectorAll('*').length)`)
}

// meetMany makes a peer believe that manyNeighbors others are on its network: each proves
// that it is where it says, and does not answer when it is dialled.
func meetMany(t *testing.T, port int, self string) {
	t.Helper()
	id, err := p2ppeer.Decode(self)
	if err != nil {
		t.Fatal(err)
	}
	for i := range manyNeighbors {
		key, _, err := crypto.GenerateEd25519Key(crand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		// 64 of each address, whatever it is.
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%8))})
		if err != nil {
			t.Skipf("needs a network of loopback addresses: %v", err)
		}
		defer c.Close()
		say := func(n int, kind, echo string) {
			body, err := json.Marshal(event{"v": 1, "type": kind, "boot": time.Now().UnixMilli(), "n": n, "alias": fmt.Sprintf("crowd %d", i),
				"addrs": []string{"/ip4/127.0.0.1/tcp/1"}, "ask": "0123456789abcdef", "echo": echo})
			if err != nil {
				t.Fatal(err)
			}
			envelope, err := node.Seal(key, node.KindPresence, body)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.WriteToUDP(envelope.Encode(), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); err != nil {
				t.Fatal(err)
			}
		}
		say(1, "hello", "")
		say(2, "here", echoTo(t, c, id))
	}
}

// echoTo reads what a peer asks to be echoed, and returns that.
func echoTo(t *testing.T, c *net.UDPConn, id p2ppeer.ID) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 2048)
	for {
		n, _, err := c.ReadFromUDP(buf)
		if err != nil {
			t.Fatalf("the peer does not ask for an echo: %v", err)
		}
		envelope, err := node.DecodeEnvelope(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		var asked struct{ Ask string }
		if err := json.Unmarshal(envelope.Content, &asked); err != nil {
			t.Fatal(err)
		}
		if asked.Ask != "" {
			sum := sha256.Sum256(append(append([]byte(asked.Ask), 0), id...))
			return hex.EncodeToString(sum[:8])
		}
	}
}
