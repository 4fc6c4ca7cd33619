package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// shareWithMany shares a file from n daemons.
func (x *trial) shareWithMany(n int, path string, flags ...string) []*source {
	x.Helper()
	var all []*source
	for range n {
		all = append(all, x.share(path, flags...))
	}
	return all
}

// needsFlag skips a row that needs a flag which the program does not have.
func (x *trial) needsFlag(command, flag string) {
	x.Helper()
	out, err := newPeer(x).command(x.Context(), "help", command).CombinedOutput()
	if err != nil || !strings.Contains(string(out), flag) {
		x.Skipf("%s has no %s", command, flag)
	}
}

// fetch gets a content of size bytes to a new file, with a home that was just made,
// and deletes the file. Every byte must have come over the network.
func (x *trial) fetch(what string, size int64, args ...string) ran {
	x.Helper()
	p := newPeer(x, loopback...)
	to := filepath.Join(p.dir, "got")
	r := x.run(p, append([]string{"get", what, "-o", to}, args...)...)
	if n := r.last.number("bytes_fetched"); n < size {
		x.Errorf("%d bytes of %d were fetched", n, size)
	}
	x.remove(to)
	return r
}

func rowFour(x *trial) {
	size := x.scaled(gib, 64*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	sources := x.shareWithMany(4, path)
	var least, most values
	took := x.contest(size,
		contender{"one provider", func(int) time.Duration { return x.fetch(link(sources[0]), size).took }},
		contender{"four providers", func(int) time.Duration {
			r := x.fetch(link(sources...), size)
			given := sourcesOf(r.last)
			for _, s := range sources {
				given[s.process.id()] += 0 // who gave nothing counts too
			}
			shares := percents(given)
			least, most = append(least, shares[0]), append(most, shares[len(shares)-1])
			return r.took
		}})
	x.atLeast("rate by that of one", took["one provider"].median()/took["four providers"].median(), 0.95, "×")
	x.atLeast("who gives least gives", least.median(), 15, "%")
	x.atMost("who gives most gives", most.median(), 35, "%")
}

func rowFourLimited(x *trial) {
	x.needsFlag("daemon", "--max-up")
	size := x.scaled(gib, 32*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	sources := x.shareWithMany(4, path, "--max-up", "50MB")
	took := x.contest(size,
		contender{"four of 50 MB/s", func(int) time.Duration { return x.fetch(link(sources...), size).took }})
	rate := float64(size) / took["four of 50 MB/s"].median() / 1e6
	x.atLeast("rate", rate, 190, "MB/s")
	x.atMost("rate, or there is no limit", rate, 230, "MB/s")
}

const crowdSize = 8

func rowCrowd(x *trial) { x.flashCrowd() }

func rowCrowdLimited(x *trial) {
	x.needsFlag("daemon", "--max-up")
	x.flashCrowd("--max-up", "100MB")
}

// flashCrowd has many daemons that know nothing but a bootstrap peer and a link get
// one content at once. Each run is of a content, and with daemons, of its own.
func (x *trial) flashCrowd(limits ...string) {
	size := x.scaled(256*mib, 8*mib)
	boot := newPeer(x, loopback...).serve(x, "bootstrap")
	flags := append([]string{"--bootstrap", boot.addr(x)}, loopback...)
	origin := newPeer(x, flags...)
	serving := origin.serve(x, append([]string{"daemon"}, limits...)...)

	made := 0
	run := func(getters int) (time.Duration, int64) {
		made++
		name := fmt.Sprintf("film%d.mkv", made)
		writeRandom(x, filepath.Join(origin.dir, name), size, name)
		what := origin.must(x, "add", name).text("link")
		before := serving.sent(x)
		took := x.getAtOnce(getters, what, filepath.Join(origin.dir, name), flags)
		return took, serving.sent(x) - before
	}
	var sent values
	took := x.contest(0,
		contender{"one getter", func(int) time.Duration { took, _ := run(1); return took }},
		contender{"eight getters, the last", func(int) time.Duration {
			took, n := run(crowdSize)
			sent = append(sent, float64(n)/float64(size))
			return took
		}})
	x.atMost("the origin sends, of the file", sent.median(), 2, "×")
	if len(limits) > 0 {
		x.atMost("time by that of one", took["eight getters, the last"].median()/took["one getter"].median(), 3, "×")
	} else {
		x.atMost("time", took["eight getters, the last"].median(), 3.5, "s")
	}
}

// getAtOnce has n new daemons get a content at once, and returns how long it took
// until the last had it.
func (x *trial) getAtOnce(n int, what, path string, flags []string) time.Duration {
	x.Helper()
	var peers []*peer
	var daemons []*process
	for range n {
		p := newPeer(x, flags...)
		peers, daemons = append(peers, p), append(daemons, p.serve(x, "daemon"))
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i, p := range peers {
		wg.Go(func() {
			_, errs[i] = watch(p.command(x.Context(), "get", what, "-o", filepath.Join(p.dir, "got")), func(event) {})
		})
	}
	wg.Wait()
	took := time.Since(began)
	for i, err := range errs {
		if err != nil {
			x.Fatalf("getter %d: %v\nits daemon: %s", i, err, daemons[i].stderr)
		}
	}
	endAll(x, syscall.SIGTERM, daemons...)
	for _, p := range peers {
		to := filepath.Join(p.dir, "got")
		same(x, path, to)
		x.remove(to)
	}
	return took
}
