package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const (
	filmSeconds   = 60
	filmPerSecond = 4
	filmWidth     = 640
	filmHeight    = 360
)

// drawFilm draws a picture for each second: noise, which is large, around a square whose
// colour tells the second. The browser writes them as WebP, whose data is a VP8 key frame.
const drawFilm = `(async () => {
	const canvas = new OffscreenCanvas(%d, %d)
	const paint = canvas.getContext('2d', { alpha: false })
	const pictures = []
	for (let second = 0; second < %d; second++) {
		const noise = paint.createImageData(canvas.width, canvas.height)
		for (let i = 0; i < noise.data.length; i += 65536) crypto.getRandomValues(noise.data.subarray(i, i + 65536))
		for (let i = 3; i < noise.data.length; i += 4) noise.data[i] = 255
		paint.putImageData(noise, 0, 0)
		paint.fillStyle = 'rgb(' + [second >> 4, second >> 2 & 3, second & 3].map(level => level * 85) + ')'
		paint.fillRect(canvas.width / 2 - 80, canvas.height / 2 - 80, 160, 160)
		const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: 'image/webp', quality: 0.7 })).arrayBuffer())
		pictures.push(bytes.toBase64 ? bytes.toBase64() : btoa(Array.from(bytes, b => String.fromCharCode(b)).join('')))
	}
	return pictures
})()`

// makeFilm has the browser draw a film, and writes it.
func makeFilm(t *testing.T, b *browser, path string) (size int64) {
	t.Helper()
	var pictures []string
	if err := b.eval(fmt.Sprintf(drawFilm, filmWidth, filmHeight, filmSeconds), &pictures); err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	for _, p := range pictures {
		image, err := base64.StdEncoding.DecodeString(p)
		if err != nil {
			t.Fatal(err)
		}
		frame, err := vp8(image)
		if err != nil {
			t.Fatal(err)
		}
		for range filmPerSecond {
			frames = append(frames, frame)
		}
	}
	film := webm(filmWidth, filmHeight, filmPerSecond, frames)
	if err := os.WriteFile(path, film, 0o644); err != nil {
		t.Fatal(err)
	}
	return int64(len(film))
}

// secondShown reads the second off the picture in the middle of the window.
func (b *browser) secondShown() int {
	b.t.Helper()
	picture, err := png.Decode(bytes.NewReader(b.screenshot()))
	if err != nil {
		b.t.Fatal(err)
	}
	middle := picture.Bounds().Max.Div(2)
	second := 0
	red, green, blue, _ := picture.At(middle.X, middle.Y-30).RGBA() // the middle may have a button
	for _, level := range []uint32{red, green, blue} {
		second = second<<2 | int((level>>8+42)/85)
	}
	return second
}

// TestFilmIsPlayedBeforeItIsHere: Chromium plays a film of which nothing is here yet
// through the gateway, from a link of the page, and seeks in it. Its only provider
// sends it in half a minute, so a part that did not come first would come late.
func TestFilmIsPlayedBeforeItIsHere(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser and some seconds")
	}
	b := startBrowser(t)
	flags, _ := lanFlags(t)
	here, ann := newPeer(t, flags...), newPeer(t, flags...)
	film := filepath.Join(ann.dir, "film.webm")
	size := makeFilm(t, b, film)
	ann.serve(t, "daemon", "--max-up", fmt.Sprint(size/30))
	ann.must(t, "add", film)
	here.serve(t, "daemon", "--folder", here.dir)
	b.screen(1200, 800, false, "light")
	openPage(t, b, here)
	b.run(`location.hash = 'lan'`)
	link := `document.querySelector('#lan-list [aria-label="Open film.webm in a new tab"]')`
	b.await("the film", link)
	b.must("Target.setDiscoverTargets", event{"discover": true}, nil)
	b.run(link + `.click()`)
	b.in(b.tab(b.text(link+`.href`)), func() {
		b.screen(1200, 800, false, "light")
		b.await("the film's length", `document.querySelector('video')?.duration === `+fmt.Sprint(filmSeconds))
		b.run(`document.querySelector('video').play()`)
		b.await("the film to play", `document.querySelector('video').currentTime > 0.5`)
		const there = 50
		began := time.Now()
		b.run(fmt.Sprintf(`document.querySelector('video').currentTime = %d`, there))
		b.await("what is there", fmt.Sprintf(`!document.querySelector('video').seeking && document.querySelector('video').readyState >= 2 && document.querySelector('video').currentTime >= %d`, there))
		took := time.Since(began)
		b.await("it to go on there", fmt.Sprintf(`document.querySelector('video').currentTime > %d`, there))
		b.run(`document.querySelector('video').pause()`)
		at := b.text(`String(Math.floor(document.querySelector('video').currentTime))`)
		if shown := b.secondShown(); fmt.Sprint(shown) != at {
			t.Errorf("at %s s it shows second %d", at, shown)
		}
		fetched := here.runPlain(t, "status").events[0].number("cache")
		t.Logf("%.1f MiB, %.1f MiB of it fetched; the part at %d s was there after %s", float64(size)/mib, float64(fetched)/mib, there, took)
		if fetched > size/2 {
			t.Errorf("%d of %d bytes were fetched to play %s s and seek", fetched, size, at)
		}
		if took > 10*time.Second {
			t.Errorf("the part that was asked for came after %s", took)
		}
	})
	b.quiet()
}
