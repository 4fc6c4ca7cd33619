package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// benchSharer runs a bootstrap peer and a daemon that shares a file, and
// returns what getters need.
func benchSharer(b *testing.B, size int64) (flags []string, added event) {
	boot := newPeer(b, loopback...).serve(b, "bootstrap")
	flags = append([]string{"--bootstrap", boot.addr(b)}, loopback...)
	ann := newPeer(b, flags...)
	ann.serve(b, "daemon")
	writeRandom(b, filepath.Join(ann.dir, "film.mkv"), size, "film")
	return flags, ann.must(b, "add", "film.mkv")
}

// BenchmarkColdGet gets 1 KiB with no daemon, process start to exit.
func BenchmarkColdGet(b *testing.B) {
	flags, added := benchSharer(b, kib)
	for name, what := range map[string]string{"name": "film.mkv", "link": added.text("link")} {
		b.Run(name, func(b *testing.B) {
			p := newPeer(b, flags...)
			for b.Loop() {
				p.must(b, "get", what)
				if err := os.Remove(filepath.Join(p.dir, "film.mkv")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
