package e2e

import (
	"fmt"
	"path/filepath"
	"time"
)

// farTime is the round trip of the rows that are far apart.
const farTime = 80 * time.Millisecond

// farFlags are a peer's flags in a namespace: it listens everywhere, and hears
// nobody by itself.
var farFlags = []string{"--no-lan", "--no-dht"}

// rowFar gets a file over a path that is long, as is said there, and loses nothing.
func rowFar(x *trial) {
	here, there := newLab(x).far(farTime)
	size := x.scaled(512*mib, 8*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	web := startWebServerAt(x, there, farAddress, filepath.Dir(path))
	what := shareFar(x, there, path)
	took := x.contest(size,
		contender{"p2pshare get", func(int) time.Duration { return getFar(x, here, what, path, size) }},
		contender{"curl -o, https", func(int) time.Duration {
			to := filepath.Join(filepath.Dir(path), "curl")
			defer x.remove(to)
			return x.tool(append([]string{"ip", "netns", "exec", here}, web.curl("https", "film.mkv", to)...)...)
		}})
	x.atLeast("rate by curl's, https", took["curl -o, https"].median()/took["p2pshare get"].median(), 0.8, "×")
}

// rowFarMany counts the times that a get of many files waited for an answer before
// it sent on, from outside: over a path where each takes farTime, no more can have
// been one after another than fit into all of its time.
func rowFarMany(x *trial) {
	here, there := newLab(x).far(farTime)
	files := x.scaled(10_000, 300)
	root := filepath.Join(x.TempDir(), "tree")
	bytes := writeSmallFiles(x, root, files)
	from := startRsync(x, there, farAddress, root)
	what := shareFar(x, there, root)
	out := x.TempDir()
	took := x.contest(bytes,
		contender{"p2pshare get", func(round int) time.Duration {
			bob := newPeer(x, farFlags...)
			bob.netns = here
			to := filepath.Join(out, fmt.Sprint("ours", round))
			r := x.run(bob, "get", what, "-o", to)
			if round == 0 {
				sameTree(x, root, to)
			}
			return r.took
		}},
		contender{"rsync -a", func(round int) time.Duration {
			to := filepath.Join(out, fmt.Sprint("rsync", round))
			return x.tool("ip", "netns", "exec", here, "rsync", "-a", from, to)
		}})
	trips := took["p2pshare get"].median() / farTime.Seconds()
	x.note("round trips that fit into the time", "%.0f for %d files", trips, files)
	x.atLeast("files a round trip", float64(files)/trips, 20, "")
}

// shareFar shares a path from a daemon in a namespace, and returns the link.
func shareFar(x *trial, ns, path string) string {
	x.Helper()
	ann := newPeer(x, farFlags...)
	ann.netns = ns
	ann.serve(x, "daemon")
	added := ann.runPlain(x, "add", path)
	if added.code != 0 {
		x.Fatalf("add: exit %d\n%s", added.code, added.stderr)
	}
	return added.events[len(added.events)-1].text("link")
}

func getFar(x *trial, ns, what, path string, size int64) time.Duration {
	x.Helper()
	bob := newPeer(x, farFlags...)
	bob.netns = ns
	to := filepath.Join(bob.dir, "got")
	r := x.run(bob, "get", what, "-o", to)
	if n := r.last.number("bytes_fetched"); n < size {
		x.Errorf("%d bytes of %d were fetched", n, size)
	}
	if x.rounds == 0 {
		same(x, path, to)
	}
	x.remove(to)
	return r.took
}
