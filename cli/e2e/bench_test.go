package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// The benchmarks time whole commands, process start to exit, beside a plain
// tool on the same bytes in the same run: compare within one run only.

// BenchmarkAdd hashes 1 GiB in the page cache. b3sum with as many threads
// stands beside it where it is installed.
func BenchmarkAdd(b *testing.B) {
	dir := b.TempDir()
	path := filepath.Join(dir, "big.bin")
	writeRandom(b, path, gib, "big")
	b.Run("p2pshare", func(b *testing.B) {
		b.SetBytes(gib)
		for b.Loop() {
			p := newPeer(b, loopback...) // a home that does not know the file
			p.must(b, "add", "--exit", path)
		}
	})
	b.Run("b3sum", func(b *testing.B) {
		b3sum, err := exec.LookPath("b3sum")
		if err != nil {
			b.Skip("b3sum is not installed")
		}
		b.SetBytes(gib)
		for b.Loop() {
			if out, err := exec.Command(b3sum, "--num-threads", "2", path).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	})
}

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

// BenchmarkGet moves 1 GiB between two processes: to a file, to nowhere, and
// beside them over a plain TCP connection to nowhere, neither encrypted nor
// verified.
func BenchmarkGet(b *testing.B) {
	flags, _ := benchSharer(b, gib)
	p := newPeer(b, flags...)
	b.Run("file", func(b *testing.B) {
		b.SetBytes(gib)
		for b.Loop() {
			p.must(b, "get", "film.mkv")
			if err := os.Remove(filepath.Join(p.dir, "film.mkv")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("discard", func(b *testing.B) {
		b.SetBytes(gib)
		for b.Loop() {
			c := p.command(b.Context(), append([]string{"get", "-q", "film.mkv", "-o", "-"}, p.flags...)...)
			c.Args = slices.DeleteFunc(c.Args, func(a string) bool { return a == "--json" })
			if err := c.Run(); err != nil { // stdout is the null device
				b.Fatal(err)
			}
		}
	})
	b.Run("tcp", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		b.SetBytes(gib)
		buf := make([]byte, 256<<10)
		for b.Loop() {
			go sendZeros(l, gib)
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			for {
				if _, err := c.Read(buf); err != nil {
					break
				}
			}
			c.Close()
		}
	})
}

// sendZeros serves one connection and ends.
func sendZeros(l net.Listener, n int64) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	buf := make([]byte, 256<<10)
	for ; n > 0; n -= int64(len(buf)) {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
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
