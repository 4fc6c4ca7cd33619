package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The benchmarks of the LAN run between network namespaces, ours beside libp2p's
// mDNS on the same bridge in the same run. Ten rounds are good:
//
//	go test ./cli/e2e -run xxx -bench LAN -benchtime 10x
//
// Times are from the execution of a process, which goes through ip netns exec;
// BenchmarkLANStartToSeen/nothing tells what that costs.

// discovery is a way of finding neighbors. Its nodes log whom they see in the
// same words.
type discovery struct {
	name string
	// node prepares a node in a namespace. What it returns starts it, and returns
	// without waiting until it is ready.
	node func(b *testing.B, ns string) func() *process
}

var discoveries = []discovery{
	{"p2pshare", func(b *testing.B, ns string) func() *process {
		p := lanPeer(b, ns)
		p.must(b, "id") // makes the home
		return func() *process { return p.start(b, "daemon") }
	}},
	{"mdns", func(b *testing.B, ns string) func() *process {
		return func() *process { return startProcess(b, roleCommand(b, ns, "mdns")) }
	}},
}

// knows waits for a neighbor without a bound that a slow way would break.
func (p *process) knows(b *testing.B, q *process) time.Time {
	b.Helper()
	return p.awaitLog(b, 0, commandMax, `msg="neighbor joined"`, "peer="+q.id())
}

// BenchmarkLANStartToSeen has one node running and starts another: how long
// until each has logged the other, and until the new one is ready.
func BenchmarkLANStartToSeen(b *testing.B) {
	for _, d := range discoveries {
		b.Run(d.name, func(b *testing.B) {
			hosts := newLab(b).lan(2)
			known := d.node(b, hosts[0])()
			known.awaitReady(b)
			var isSeen, sees, ready []time.Duration
			for b.Loop() {
				start := d.node(b, hosts[1]) // another peer each time
				fresh := start()
				fresh.awaitReady(b)
				ready = append(ready, time.Since(fresh.started))
				isSeen = append(isSeen, known.knows(b, fresh).Sub(fresh.started))
				sees = append(sees, fresh.knows(b, known).Sub(fresh.started))
				fresh.end(b, syscall.SIGTERM)
			}
			report(b, "is-seen", isSeen)
			report(b, "sees", sees)
			report(b, "ready", ready)
		})
	}
	b.Run("nothing", func(b *testing.B) {
		hosts := newLab(b).lan(1)
		var took []time.Duration
		for b.Loop() {
			began := time.Now()
			if err := exec.Command("ip", "netns", "exec", hosts[0], "true").Run(); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		report(b, "exec", took)
	})
}

// report reports the median and the maximum.
func report(b *testing.B, what string, took []time.Duration) {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(took[len(took)/2]), what+"-median-ms")
	b.ReportMetric(ms(took[len(took)-1]), what+"-max-ms")
}

const many = 50

// startMany starts nodes, one after the other is ready. It returns them with the
// times from the last one's execution until it was ready, and until each has
// logged each other.
func startMany(b *testing.B, starts []func() *process) (nodes []*process, ready, allKnown time.Duration) {
	b.Helper()
	for _, start := range starts {
		p := start()
		p.awaitReady(b)
		ready = time.Since(p.started)
		nodes = append(nodes, p)
	}
	var last time.Time
	for _, p := range nodes {
		for _, q := range nodes {
			if p == q {
				continue
			}
			if at := p.knows(b, q); at.After(last) {
				last = at
			}
		}
	}
	return nodes, ready, last.Sub(nodes[len(nodes)-1].started)
}

// BenchmarkLANFiftyStart starts fifty nodes on one bridge: how long after the
// last one's start until everyone knows everyone.
func BenchmarkLANFiftyStart(b *testing.B) {
	for _, d := range discoveries {
		b.Run(d.name, func(b *testing.B) {
			l := newLab(b)
			l.manyNeighbors()
			var starts []func() *process
			for _, h := range l.lan(many) {
				starts = append(starts, d.node(b, h))
			}
			var readies, knowns []time.Duration
			for b.Loop() {
				nodes, ready, allKnown := startMany(b, starts)
				readies, knowns = append(readies, ready), append(knowns, allKnown)
				endAll(b, syscall.SIGTERM, nodes...)
			}
			report(b, "ready", readies)
			report(b, "all-known", knowns)
		})
	}
}

// BenchmarkLANFiftySteady measures what fifty nodes that know one another send
// and use, in windows of ten seconds after one that does not count.
func BenchmarkLANFiftySteady(b *testing.B) {
	needNFT(b)
	const window = 10 * time.Second
	for _, d := range discoveries {
		b.Run(d.name, func(b *testing.B) {
			l := newLab(b)
			l.manyNeighbors()
			hosts := l.lan(many)
			var starts []func() *process
			for _, h := range hosts {
				l.count(h)
				starts = append(starts, d.node(b, h))
			}
			nodes, _, _ := startMany(b, starts)
			time.Sleep(window)
			before := measureAll(b, l, hosts, nodes)
			for b.Loop() {
				time.Sleep(window) // to measure
			}
			used := measureAll(b, l, hosts, nodes)
			slices.Sort(used.memory)
			windows := float64(many*used.at.Sub(before.at)) / float64(window) // of one node
			rate := func(unit string, of func(traffic) int64) {
				b.ReportMetric(float64(of(used.sent)-of(before.sent))/windows, unit+"/10s")
			}
			rate("multicast4", func(t traffic) int64 { return t.Multicast4.Packets })
			rate("multicast6", func(t traffic) int64 { return t.Multicast6.Packets })
			rate("unicast-udp", func(t traffic) int64 { return t.Unicast.Packets })
			rate("packets", func(t traffic) int64 { return t.Total.Packets })
			rate("bytes", func(t traffic) int64 { return t.Total.Bytes })
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(100*float64(used.cpu-before.cpu)/windows/float64(window), "cpu-%")
			b.ReportMetric(float64(used.memory[many/2])/mib, "rss-median-MiB")
			endAll(b, syscall.SIGTERM, nodes...)
		})
	}
}

// usage is what nodes have used, together; memory is one number each.
type usage struct {
	at     time.Time
	sent   traffic
	cpu    time.Duration
	memory []int64
}

func measureAll(b *testing.B, l *lab, hosts []string, nodes []*process) usage {
	b.Helper()
	u := usage{at: time.Now()}
	for i, p := range nodes {
		u.sent = u.sent.plus(l.sent(hosts[i]))
		u.cpu += p.cpu(b)
		u.memory = append(u.memory, p.memory(b))
	}
	return u
}

// BenchmarkLANColdGet gets 1 KiB from another host by its name with no daemon,
// process start to exit, with a home that was just made and with one that has
// seen the other peer before.
func BenchmarkLANColdGet(b *testing.B) {
	hosts := newLab(b).lan(2)
	ann := lanPeer(b, hosts[0])
	ann.serve(b, "daemon")
	writeRandom(b, filepath.Join(ann.dir, "film.mkv"), kib, "film")
	ann.must(b, "add", "film.mkv")
	bob := lanPeer(b, hosts[1])
	for _, home := range []string{"kept", "fresh"} {
		b.Run(home, func(b *testing.B) {
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				if home == "fresh" {
					if err := os.RemoveAll(bob.home); err != nil {
						b.Fatal(err)
					}
				}
				out := filepath.Join(bob.dir, fmt.Sprintf("%s%d", home, i))
				began := time.Now()
				bob.must(b, "get", "film.mkv", "-o", out)
				took = append(took, time.Since(began))
				same(b, filepath.Join(ann.dir, "film.mkv"), out)
			}
			report(b, "get", took)
		})
	}
}
