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
	var second times
	took := x.contest(bytes,
		contender{"p2pshare add", func(int) time.Duration {
			p := newPeer(x, loopback...)
			first := x.run(p, "add", "--exit", root)
			again := x.run(p, "add", "--exit", root)
			if first.last.text("id") != again.last.text("id") || first.last.number("size") != bytes {
				x.Errorf("added as %v, and then as %v", first.last, again.last)
			}
			second = append(second, again.took)
			return first.took
		}},
		contender{"b3sum", func(int) time.Duration {
			return x.tool(append([]string{"b3sum", "--num-threads", "2"}, list...)...)
		}})
	x.atMost("time by b3sum's", took["p2pshare add"].median()/took["b3sum"].median(), 2, "×")
	x.atMost("second add", second.median(), 0.5, "s")
}
