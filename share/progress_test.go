package share

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/node"
)

// reports collects what a meter says, with the time.
type reports struct {
	list []Progress
	at   []time.Time
}

func (r *reports) add(p Progress) {
	r.list = append(r.list, p)
	r.at = append(r.at, time.Now())
}

func (r *reports) last() Progress { return r.list[len(r.list)-1] }

func TestMeterReportsTenTimesASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reports
		m := newMeter(r.add, PhaseHashing)
		m.expect(1 << 40)
		for i := range 30_000 { // 30 s
			time.Sleep(time.Millisecond)
			m.add(100)
			m.tick()
			m.file("name")
			m.expect(1)
			m.sources(2 + i%3)
		}
		for i := 10; i < len(r.at); i++ {
			if d := r.at[i].Sub(r.at[i-10]); d < time.Second {
				t.Fatalf("eleven reports in %s", d)
			}
		}
		if len(r.list) < 290 {
			t.Errorf("%d reports in 30 s of work, want about 300", len(r.list))
		}
	})
}

func TestMeterIsMonotone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reports
		m := newMeter(r.add, PhaseHashing)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 500 {
					time.Sleep(time.Millisecond)
					m.expect(10)
					m.add(10)
					m.file("f")
				}
			})
		}
		wg.Wait()
		m.flush()
		for i, p := range r.list {
			if p.Done > p.Total {
				t.Fatalf("report %d: %d of %d done", i, p.Done, p.Total)
			}
			if i > 0 && (p.Done < r.list[i-1].Done || p.Total < r.list[i-1].Total || p.Files < r.list[i-1].Files || r.at[i].Before(r.at[i-1])) {
				t.Fatalf("report %d goes back: %+v after %+v", i, p, r.list[i-1])
			}
		}
		if p := r.last(); p.Done != 40_000 || p.Total != 40_000 || p.Files != 4000 || p.Name != "f" {
			t.Errorf("the last report is %+v", p)
		}
	})
}

func TestMeterRateAndETA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reports
		m := newMeter(r.add, PhaseFetching)
		m.expect(100_000)
		step := func(n int, bytes int64) {
			for range n {
				time.Sleep(100 * time.Millisecond)
				m.add(bytes)
			}
		}
		near := func(what string, got, want int64) {
			t.Helper()
			if got < want*95/100 || got > want*105/100 {
				t.Errorf("%s = %d, want %d within 5 %%", what, got, want)
			}
		}
		step(20, 100) // 1,000 bytes a second
		near("rate", r.last().Rate, 1000)
		near("ETA", int64(r.last().ETA), int64(98*time.Second))
		step(40, 400) // 4,000 a second, for longer than the window
		near("rate after speeding up", r.last().Rate, 4000)
		near("ETA after speeding up", int64(r.last().ETA), int64(20500*time.Millisecond))
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			m.tick()
		}
		if p := r.last(); p.Rate != 0 || p.ETA != 0 {
			t.Errorf("5 s after the last byte: rate %d, ETA %s, want 0", p.Rate, p.ETA)
		}
		step(40, 8200)
		if p := r.last(); p.Done < p.Total-100 || p.ETA > time.Second {
			t.Errorf("at the end: %+v", p)
		}
	})
}

func TestMeterStartsEachPhaseAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reports
		m := newMeter(r.add, PhaseLocal)
		m.phase(PhaseDHT)
		m.phase(PhaseDHT) // no change
		m.sources(1)
		m.begin(PhaseFetching, 50)
		m.add(50)
		m.phase(PhaseVerifying)
		m.flush()
		var phases []Phase
		for _, p := range r.list {
			phases = append(phases, p.Phase)
		}
		if want := []Phase{PhaseLocal, PhaseDHT, PhaseFetching, PhaseVerifying, PhaseVerifying}; !slices.Equal(phases, want) {
			t.Errorf("phases reported %v, want %v", phases, want)
		}
		if p := r.last(); p.Done != 50 || p.Total != 50 || p.Sources != 1 {
			t.Errorf("the last report is %+v", p)
		}
		m.begin(PhaseWriting, 0)
		if p := r.last(); p.Done != 0 || p.Rate != 0 {
			t.Errorf("a new phase begins with %+v", p)
		}
	})
}

func TestMeterPartCountsFetchedBytesForTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reports
		whole := newMeter(r.add, PhaseFetching)
		part := whole.part()
		part.begin(PhaseVerifying, 10)
		part.add(10)
		part.begin(PhaseFetching, 10)
		part.add(7)
		part.phase(PhaseDialling)
		whole.flush()
		if p := r.last(); p.Done != 7 || p.Phase != PhaseFetching {
			t.Errorf("the whole reports %+v, want 7 bytes fetched", p)
		}
	})
}

func TestMeterWithoutReport(t *testing.T) {
	m := newMeter(nil, PhaseHashing)
	m.add(5)
	m.flush()
	ran := false
	m.exclusive(func() { ran = true })
	if m.now.Done != 5 || !ran {
		t.Errorf("a silent meter counts %d, exclusive ran: %v", m.now.Done, ran)
	}
}

func TestMeterRateLeavesOutWhatWasHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reports
		whole := newMeter(r.add, PhaseFetching)
		whole.expect(1_000_000)
		part := whole.part()
		part.begin(PhaseFetching, 900_000)
		part.held(500_000) // found in a partial file
		for range 10 {
			time.Sleep(100 * time.Millisecond)
			part.add(100)
		}
		whole.held(100)
		whole.flush()
		if p := r.last(); p.Done != 501_100 || p.Rate < 950 || p.Rate > 1050 {
			t.Errorf("%d done at %d a second, want 501,100 at 1,000", p.Done, p.Rate)
		}
	})
}

func TestMeterTellsWhatEachSourceGives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reports
		m := newMeter(r.add, PhaseFetching)
		m.expect(1 << 30)
		give := func(p peer.ID, n int64) {
			m.gave(sourceKey{peer: p}, node.ViaDirect, n)
			m.add(n)
		}
		for range 50 {
			time.Sleep(100 * time.Millisecond)
			give("a", 100)
			give("b", 300)
		}
		for range 40 { // a gives no more
			time.Sleep(100 * time.Millisecond)
			give("b", 100)
		}
		got := r.last().Peers
		if len(got) != 2 || got[0].Peer != "b" || got[1].Peer != "a" {
			t.Fatalf("sources are %+v, want b and a", got)
		}
		if b := got[0]; b.Bytes != 19_000 || b.Rate < 950 || b.Rate > 1050 || b.Via != node.ViaDirect {
			t.Errorf("b = %+v, want 19,000 bytes at 1,000 a second", b)
		}
		if a := got[1]; a.Bytes != 5000 || a.Rate != 0 {
			t.Errorf("a = %+v, want 5,000 bytes and no rate, 4 s after its last byte", a)
		}
	})
}
