package share

import (
	"mime"
	"testing"
)

func TestMediaOf(t *testing.T) {
	for name, want := range map[Name]string{
		"film.mkv": "video/matroska", "FILM.MKV": "video/matroska", "a.b.txt": "text/plain; charset=utf-8", "Makefile": "",
		"x.tar.gz": "application/gzip", "x.no-such-extension": "", "x.wasm": "application/wasm", // which Go knows
	} {
		if got := mediaOf(name, KindFile); got != want {
			t.Errorf("mediaOf(%s) = %q, want %q", name, got, want)
		}
	}
	if got := mediaOf("holiday.zip", KindDir); got != "" {
		t.Errorf("mediaOf a directory = %q", got)
	}
	for ext, media := range mediaTypes {
		if _, _, err := mime.ParseMediaType(media); err != nil || len(ext) < 2 || ext[0] != '.' {
			t.Errorf("%s: %q: %v", ext, media, err)
		}
	}
}
