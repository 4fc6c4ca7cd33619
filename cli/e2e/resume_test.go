package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Transfers that go on from what is there already.

// counter is a line of /proc/PID/io: what a process has read (rchar) or written
// (wchar), files and sockets together.
func (p *process) counter(t testing.TB, key string) int64 {
	t.Helper()
	_, rest, _ := strings.Cut("\n"+p.proc(t, "io"), "\n"+key+": ")
	var n int64
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatalf("no %s in /proc/PID/io: %v", key, err)
	}
	return n
}

// sent is what a process that serves from the page cache, and writes little else,
// has sent: the frames and the encryption of the bytes included.
func (p *process) sent(t testing.TB) int64 { t.Helper(); return p.counter(t, "wchar") }

func rowKilled(x *trial) {
	size := x.scaled(gib, 256*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	ann := x.share(path)
	var again, killed values
	x.contest(0, contender{"get again", func(int) time.Duration {
		bob := newPeer(x, loopback...)
		to := filepath.Join(bob.dir, "got")
		had, at := x.killAtHalf(bob, size, "get", link(ann), "-o", to)
		r := x.run(bob, "get", link(ann), "-o", to)
		again = append(again, float64(had+r.last.number("bytes_fetched")-size)/mib)
		killed = append(killed, at)
		same(x, path, to)
		x.remove(to)
		return r.took
	}})
	x.note("killed at", "%.0f %%", killed.median())
	x.neverMore("fetched again", again.median(), 8, "MiB")
}

// killAtHalf runs a get until half is there, and kills it. It returns what it had
// read from the network, frames and encryption included, and at how many percent
// it said that it was.
func (x *trial) killAtHalf(p *peer, size int64, args ...string) (read int64, percent float64) {
	x.Helper()
	get := &process{cmd: p.command(x.Context(), append(args, p.flags...)...), stderr: &lockedBuffer{}}
	get.cmd.Stderr = get.stderr
	out, err := get.cmd.StdoutPipe()
	if err == nil {
		err = get.cmd.Start()
	}
	if err != nil {
		x.Fatal(err)
	}
	defer get.cmd.Wait()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.text("phase") != "fetching" || e.number("done") < size/2 {
			continue
		}
		// Stopped, it can be looked at as it will be when it is dead.
		if err := get.cmd.Process.Signal(sigHalt); err != nil {
			x.Fatal(err)
		}
		read = get.counter(x, "rchar")
		if err := get.cmd.Process.Kill(); err != nil {
			x.Fatal(err)
		}
		return read, 100 * float64(e.number("done")) / float64(size)
	}
	x.Skipf("the transfer was over before it could be interrupted: %s", get.stderr)
	return 0, 0
}

func rowDamaged(x *trial) {
	const damages = 10
	size := x.scaled(4*gib, 64*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	ann, bob := x.share(path), newPeer(x, loopback...)
	to := filepath.Join(bob.dir, "got")
	x.tool("cp", path, to)
	var fetched, sent values
	x.contest(size, contender{"get --force over a damaged copy", func(round int) time.Duration {
		damage(x, to, damages, uint64(round))
		before := ann.process.sent(x)
		r := x.run(bob, "get", link(ann), "-o", to, "--force")
		sent = append(sent, float64(ann.process.sent(x)-before)/group)
		fetched = append(fetched, float64(r.last.number("bytes_fetched"))/group)
		if round == 0 {
			same(x, path, to)
		}
		return r.took
	}})
	tree := float64(size/group*32) / group
	x.note("it says that it fetched", "%.4g groups", fetched.median())
	// Half a group is for the search, handshakes and frames.
	x.neverMore("the provider sends, tree included", sent.median(), damages+tree+0.5, "groups")
}

// damage overwrites 4 KiB at n places, each in a chunk group of its own.
func damage(t testing.TB, path string, n int, seed uint64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(seed, 0))
	junk := make([]byte, 4*kib)
	for _, g := range random.Perm(int(info.Size() / group))[:n] {
		for i := range junk {
			junk[i] = byte(random.Uint32())
		}
		if _, err := f.WriteAt(junk, int64(g)*group+random.Int64N(group-4*kib)); err != nil {
			t.Fatal(err)
		}
	}
}

// rowLarge is of a file that no page cache of a small machine holds twice: every
// tool pays for the disk then, so it is judged beside cp alone.
func rowLarge(x *trial) {
	x.needs("cp")
	size := x.scaled(10*gib, 32*mib)
	dir := x.TempDir()
	path := filepath.Join(dir, "film.mkv")
	writeRandom(x, path, size, "film")
	ann := x.share(path)
	var memory int64
	took := x.contest(size,
		contender{"p2pshare get", func(int) time.Duration {
			r := x.fetch(link(ann), size)
			memory = max(memory, r.memory)
			return r.took
		}},
		contender{"cp", func(int) time.Duration {
			to := filepath.Join(dir, "copy")
			defer x.remove(to)
			return x.tool("cp", path, to)
		}})
	x.atMost("time by cp's", took["p2pshare get"].median()/took["cp"].median(), 1.25, "×")
	x.atMost("RSS of the getter", float64(memory)/mib, 80, "MiB")
	x.atMost("RSS of the provider", float64(ann.process.memoryPeak(x))/mib, 80, "MiB")
}
