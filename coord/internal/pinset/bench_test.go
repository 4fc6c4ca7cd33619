package pinset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/p2pshare/p2pshare/share/content"
)

// million is how many pins the benchmarks are made for.
const million = 1_000_000

const founder = "12D3KooWFounder4rJ5oXy8m2ZGwk3nU3y9Nn2nq7vTfLQ2aJpXy"

// pinFrame is the n-th pin of a large group: a random ID, a name as files have
// them, and one of 50 sources.
func pinFrame(rng *rand.Rand, n int) []byte {
	var id content.ID
	for i := range 4 {
		binary.LittleEndian.PutUint64(id[8*i:], rng.Uint64())
	}
	display := fmt.Sprintf("Report %07d.pdf", n*7_654_321%10_000_000)
	lookup := "r" + display[1:]
	if n%2 == 0 {
		display = lookup // as many names are
	}
	c := &SetPin{Header: header(n+2, founder), Name: display, Lookup: lookup,
		ID: id, Kind: KindFile, Size: rng.Int64N(1 << 32), Replicas: 3, Expect: ExpectAny,
		Source: &Source{Peer: Peer(fmt.Sprintf("12D3KooWSource%02d5oXy8m2ZGwk3nU3y9Nn2nq7vTfLQ2aJpXy", rng.IntN(50))),
			Addrs: []string{"/ip4/192.168.10.20/tcp/24042", "/ip4/192.168.10.20/udp/24042/quic-v1", "/ip6/2001:db8::1234/tcp/24042"}}}
	return must(EncodeCommand(c))
}

// large returns a state of a million pins, and the number of its last command.
func large(b *testing.B, pins int) (*State, int) {
	b.Helper()
	s := New()
	mustApply(b, s, 1, &Found{Header: header(1, founder), Group: Digest{1}, Name: "office", Recovery: Key{1}, Capacity: 1 << 40})
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range pins {
		if _, err := s.Apply(uint64(i+2), pinFrame(rng, i)); err != nil {
			b.Fatal(err)
		}
	}
	return s, pins
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMillionPins measures all that a large state must do, once. Run it with
// -benchtime 1x.
func BenchmarkMillionPins(b *testing.B) {
	for range b.N {
		before := liveHeap()
		s, last := large(b, million)
		b.ReportMetric(float64(liveHeap()-before)/1e6, "heap-MB")

		frames := make([][]byte, 200_000)
		rng := rand.New(rand.NewPCG(2, 2))
		for i := range frames {
			frames[i] = pinFrame(rng, last+i)
		}
		apply := func(s *State, frames [][]byte, from int) (mean, longest time.Duration) {
			start := time.Now()
			for i, f := range frames {
				at := time.Now()
				if _, err := s.Apply(uint64(from+i+2), f); err != nil {
					b.Fatal(err)
				}
				longest = max(longest, time.Since(at))
			}
			return time.Since(start) / time.Duration(len(frames)), longest
		}
		mean, longest := apply(s, frames[:100_000], last)
		b.ReportMetric(float64(mean.Nanoseconds()), "ns/apply")
		b.ReportMetric(float64(longest.Microseconds()), "longest-apply-µs")

		start := time.Now()
		c := s.Clone()
		b.ReportMetric(float64(time.Since(start).Nanoseconds()), "ns/clone")
		mean, longest = apply(s, frames[100_000:], last+100_000)
		b.ReportMetric(float64(mean.Nanoseconds()), "ns/apply-cloned")
		b.ReportMetric(float64(longest.Microseconds()), "longest-apply-cloned-µs")

		index := uint64(last + len(frames) + 2)
		for i, f := range frames[:2*DropsMax] { // pin them again, to expire
			p := must(DecodeCommand(f)).(*SetPin)
			p.Seq, p.Expires = index+uint64(i), 1
			mustApply(b, s, index+uint64(i), p)
		}
		start = time.Now()
		if r := mustApply(b, s, index*2, &Expire{header(int(index*2), founder)}); r.Dropped != DropsMax/2 { // each with a name
			b.Fatalf("expire: %+v", r)
		}
		b.ReportMetric(float64(time.Since(start).Microseconds()), "expire-µs")

		start = time.Now()
		n := &counter{}
		if err := c.Encode(n); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/encode")
		b.ReportMetric(float64(n.bytes)/1e6, "encoded-MB")

		r, w := io.Pipe()
		go func() { w.CloseWithError(c.Encode(w)) }()
		data, err := io.ReadAll(r)
		if err != nil {
			b.Fatal(err)
		}
		want := c.Hash()
		s, c, frames = nil, nil, nil
		before = liveHeap()
		start = time.Now()
		d, err := Decode(bytes.NewReader(data))
		if err != nil || d.Hash() != want {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/decode")
		b.ReportMetric(float64(liveHeap()-before)/1e6, "heap-decoded-MB")
		runtime.KeepAlive(d)
		runtime.KeepAlive(data)
	}
}

type counter struct{ bytes int }

func (c *counter) Write(b []byte) (int, error) { c.bytes += len(b); return len(b), nil }

func BenchmarkDecodeCommand(b *testing.B) {
	f := pinFrame(rand.New(rand.NewPCG(4, 4)), 1)
	b.SetBytes(int64(len(f)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeCommand(f); err != nil {
			b.Fatal(err)
		}
	}
}
