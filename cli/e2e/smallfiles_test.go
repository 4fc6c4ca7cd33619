package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeSmallFiles writes n files of 1 to 64 KiB, in directories of a hundred, and
// returns how many bytes that are: 325 MB of 10,000.
func writeSmallFiles(t testing.TB, root string, n int64) (bytes int64) {
	t.Helper()
	for i := range n {
		size := kib + i*7919%(63*kib)
		writeRandom(t, filepath.Join(root, fmt.Sprintf("d%03d", i/100), fmt.Sprintf("file %05d.dat", i)), size, fmt.Sprint("small", i))
		bytes += size
	}
	return bytes
}

func b3sumOf(t testing.TB, path string) string {
	t.Helper()
	out, err := exec.Command("b3sum", "--no-names", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func rowAddMany(x *trial) {
	x.needs("b3sum")
	root := filepath.Join(x.TempDir(), "tree")
	bytes := writeSmallFiles(x, root, x.scaled(10_000, 300))
	list, err := filepath.Glob(filepath.Join(root, "*", "*"))
	if err != nil {
		x.Fatal(err)
	}
	var second values
	took := x.contest(bytes,
		contender{"p2pshare add", func(int) time.Duration {
			p := newPeer(x, loopback...)
			first := x.run(p, "add", "--exit", root)
			again := x.run(p, "add", "--exit", root)
			if first.last.text("id") != again.last.text("id") || first.last.number("size") != bytes {
				x.Errorf("added as %v, and then as %v", first.last, again.last)
			}
			second = append(second, again.took.Seconds())
			return first.took
		}},
		contender{"b3sum", func(int) time.Duration {
			return x.tool(append([]string{"b3sum", "--num-threads", "2"}, list...)...)
		}})
	x.atMost("time by b3sum's", took["p2pshare add"].median()/took["b3sum"].median(), 2, "×")
	x.atMost("second add", second.median(), 0.5, "s")
}

func rowMany(x *trial) {
	root := filepath.Join(x.TempDir(), "tree")
	bytes := writeSmallFiles(x, root, x.scaled(10_000, 300))
	from := startRsync(x, "", "127.0.0.1", root)
	ann := x.share(root)
	// Deleting is left to the end: see BenchmarkTransfer.
	out := x.TempDir()
	took := x.contest(bytes,
		contender{"p2pshare get", func(round int) time.Duration {
			to := filepath.Join(out, fmt.Sprint("ours", round))
			r := x.run(newPeer(x, loopback...), "get", link(ann), "-o", to)
			if round == 0 {
				sameTree(x, root, to)
			}
			return r.took
		}},
		contender{"rsync -a", func(round int) time.Duration {
			return x.tool("rsync", "-a", from, filepath.Join(out, fmt.Sprint("rsync", round)))
		}})
	x.atMost("time by rsync's", took["p2pshare get"].median()/took["rsync -a"].median(), 1.5, "×")
}

func rowTiny(x *trial) {
	ann := newPeer(x, loopback...)
	serving := ann.serve(x, "daemon")
	made := 0
	add := func() (what string) {
		made++
		name := fmt.Sprintf("note%d.txt", made)
		writeRandom(x, filepath.Join(ann.dir, name), kib, name)
		return ann.must(x, "add", name).text("link")
	}
	bob := newPeer(x, loopback...)
	bob.serve(x, "daemon", "--peer", serving.addr(x))
	bob.runPlain(x, "get", add()) // it knows the provider from now on
	web := startWebServer(x, "", ann.dir)
	took := x.contest(0,
		contender{"p2pshare get, with a daemon", func(round int) time.Duration {
			what := add()
			r, err := watch(bob.command(x.Context(), "get", what, "-o", filepath.Join(bob.dir, fmt.Sprint("warm", round))), func(event) {})
			if err != nil {
				x.Fatal(err)
			}
			return r.took
		}},
		contender{"p2pshare get, cold", func(round int) time.Duration {
			what, cat := add(), newPeer(x, loopback...)
			return x.run(cat, "get", what, "-o", filepath.Join(cat.dir, "got")).took
		}},
		contender{"curl -o, https", func(round int) time.Duration {
			return x.tool(web.curl("https", "note1.txt", filepath.Join(bob.dir, "curl"))...)
		}})
	x.atMost("with a daemon", 1000*took["p2pshare get, with a daemon"].median(), 15, "ms")
	x.atMost("cold, by link", 1000*took["p2pshare get, cold"].median(), 120, "ms")
}
