package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// source is a daemon that shares a file in place.
type source struct {
	*peer
	process *process
	added   event
}

// share starts a daemon that shares path, and returns when it does.
func (x *trial) share(path string, flags ...string) *source {
	x.Helper()
	p := newPeer(x, loopback...)
	s := &source{peer: p, process: p.serve(x, append([]string{"daemon"}, flags...)...)}
	s.added = p.must(x, "add", path)
	return s
}

// link is one to a content at several sources of it.
func link(sources ...*source) string {
	l := sources[0].added.text("link")
	for _, s := range sources[1:] {
		_, query, _ := strings.Cut(s.added.text("link"), "?")
		for part := range strings.SplitSeq(query, "&") {
			if strings.HasPrefix(part, "peer=") {
				l += "&" + part
			}
		}
	}
	return l
}

func rowAdd(x *trial) {
	x.needs("b3sum")
	size := x.scaled(gib, 8*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	var id string
	took := x.contest(size,
		contender{"p2pshare add", func(int) time.Duration {
			r := x.run(newPeer(x, loopback...), "add", "--exit", path) // a home that does not know the file
			id = r.last.text("id")
			return r.took
		}},
		contender{"b3sum", func(int) time.Duration {
			return x.tool("b3sum", "--num-threads", "2", path)
		}})
	x.sameID(path, id)
	x.atLeast("rate by b3sum's", took["b3sum"].median()/took["p2pshare add"].median(), 0.95, "×")
}

// sameID checks an ID by b3sum.
func (x *trial) sameID(path, id string) {
	x.Helper()
	if sum := b3sumOf(x, path); "b3:"+sum != id {
		x.Errorf("%s has the ID %s, and b3sum says %s", path, id, sum)
	}
}

func rowGet(x *trial) {
	size := x.scaled(gib, 8*mib)
	path := filepath.Join(x.TempDir(), "film.mkv")
	writeRandom(x, path, size, "film")
	web := startWebServer(x, "", filepath.Dir(path))
	ann, bob := x.share(path), newPeer(x, loopback...)
	what := link(ann)
	bob.runPlain(x, "id") // makes the home

	var getter, provider usageSum
	get := func(output string) time.Duration {
		before := ann.process.cpu(x)
		r := x.run(bob, "get", what, "-o", output)
		if n := r.last.number("bytes_fetched"); n < size {
			x.Errorf("%d bytes of %d were fetched", n, size)
		}
		if output != os.DevNull {
			getter.add(r.cpu, r.memory)
			provider.add(ann.process.cpu(x)-before, 0)
		}
		return r.took
	}
	out := func(name string, round int) string { return filepath.Join(bob.dir, fmt.Sprint(name, round)) }
	took := x.contest(size,
		contender{"p2pshare get", func(round int) time.Duration {
			to := out("ours", round)
			d := get(to)
			if round == 0 {
				same(x, path, to)
			}
			x.remove(to)
			return d
		}},
		contender{"curl -o, https", func(round int) time.Duration {
			d := x.tool(web.curl("https", "film.mkv", out("https", round))...)
			x.remove(out("https", round))
			return d
		}},
		contender{"curl -o, http", func(round int) time.Duration {
			d := x.tool(web.curl("http", "film.mkv", out("http", round))...)
			x.remove(out("http", round))
			return d
		}},
		contender{"p2pshare get, /dev/null", func(int) time.Duration { return get(os.DevNull) }},
		contender{"curl -o, https, /dev/null", func(int) time.Duration {
			return x.tool(web.curl("https", "film.mkv", os.DevNull)...)
		}},
		contender{"sendfile, to nowhere", func(int) time.Duration { return sendfile(x, path) }})
	x.note("getter, to a file", "%s", getter.describe(size))
	x.note("provider, to a file", "%s", provider.describe(size))
	x.atLeast("to a file: rate by curl's, https", took["curl -o, https"].median()/took["p2pshare get"].median(), 1, "×")
	x.atLeast("to /dev/null: rate by curl's, https",
		took["curl -o, https, /dev/null"].median()/took["p2pshare get, /dev/null"].median(), 0.85, "×")
	x.atMost("RSS of the getter", float64(getter.memory)/mib, 80, "MiB")
	x.atMost("RSS of the provider", float64(ann.process.memoryPeak(x))/mib, 80, "MiB")
}

// usageSum is what processes used in several rounds.
type usageSum struct {
	cpu    time.Duration
	memory int64 // the largest
	rounds int
}

func (u *usageSum) add(cpu time.Duration, memory int64) {
	u.cpu += cpu
	u.memory = max(u.memory, memory)
	u.rounds++
}

func (u *usageSum) describe(bytes int64) string {
	return fmt.Sprintf("%.3g CPU s a GB", u.cpu.Seconds()/float64(u.rounds)/(float64(bytes)/1e9))
}

// sendfile moves a file over a plain TCP connection by sendfile, and reads it to
// nowhere: what the machine can do.
func sendfile(t testing.TB, path string) time.Duration {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sent := make(chan error, 1)
	began := time.Now()
	go func() { sent <- sendFile(l, path) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256*kib))
	took := time.Since(began)
	if sendErr := <-sent; err != nil || sendErr != nil {
		t.Fatal(err, sendErr)
	}
	return took
}

// sendFile sends a file to the first who connects.
func sendFile(l net.Listener, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(c, f)
	return err
}
