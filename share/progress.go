package share

import (
	"sync"
	"time"

	"github.com/p2pshare/p2pshare/node"
)

const (
	// progressEvery is the shortest time between two reports of one phase.
	progressEvery = 100 * time.Millisecond
	// rateWindow is how far back a rate looks: long enough to read, short
	// enough to tell that a transfer has stopped.
	rateWindow = 3 * time.Second
)

// meter counts what a long operation has done, and reports it. Its methods may
// be called from several goroutines; reports come one at a time, in order.
type meter struct {
	mu     sync.Mutex // guards all below, and is held during a report: that is what keeps them in order
	report func(Progress)
	whole  *meter // of the directory whose file this meter counts, or nil
	now    Progress
	last   time.Time       // of the last report
	lately window          // of now.Done
	given  given           // what each source gave
	notes  func(string)    // gets what noteOnce is told; may be nil
	noted  map[string]bool // what it got
}

// newMeter reports to report, which may be nil.
func newMeter(report func(Progress), phase Phase) *meter {
	m := &meter{report: report}
	m.begin(phase, 0)
	return m
}

// part returns a meter for one file of a directory: what it fetches counts for
// the whole, and its phases don't.
func (m *meter) part() *meter { return &meter{whole: m} }

// begin starts a phase with counts of its own.
func (m *meter) begin(p Phase, total int64) {
	m.update(func() bool {
		m.now = Progress{Phase: p, Total: total, Sources: m.now.Sources}
		m.lately = nil
		return true
	})
}

// phase tells that the work now waits for another thing, or goes on; the
// counts stay.
func (m *meter) phase(p Phase) {
	m.update(func() bool {
		changed := m.now.Phase != p
		m.now.Phase = p
		return changed
	})
}

// expect adds to what the phase will have to do.
func (m *meter) expect(bytes int64) { m.update(func() bool { m.now.Total += bytes; return false }) }

func (m *meter) add(bytes int64) {
	fetched := false
	m.update(func() bool {
		m.now.Done += bytes
		fetched = m.now.Phase == PhaseFetching
		return false
	})
	if m.whole != nil && fetched {
		m.whole.add(bytes)
	}
}

// held counts bytes that were here before: as done, but not as moved.
func (m *meter) held(bytes int64) {
	m.update(func() bool {
		m.now.Done += bytes
		m.lately.shift(bytes)
		return false
	})
	if m.whole != nil {
		m.whole.held(bytes)
	}
}

// gave counts what a source gave, beside add.
func (m *meter) gave(who sourceKey, via node.Via, bytes int64) {
	m.exclusive(func() { m.given.add(who, via, bytes) })
}

func (m *meter) sources(n int) {
	m.update(func() bool { m.now.Sources = n; return false })
}

// file counts a file of a directory as done.
func (m *meter) file(name string) {
	m.update(func() bool { m.now.Files++; m.now.Name = name; return false })
}

// tick reports again when nothing has happened for a while.
func (m *meter) tick() { m.update(func() bool { return false }) }

// flush reports the last state.
func (m *meter) flush() { m.update(func() bool { return true }) }

// exclusive runs fn between two reports.
func (m *meter) exclusive(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

// noteOnce passes on a line that a person should see, the first time it comes.
func (m *meter) noteOnce(line string) {
	m.exclusive(func() {
		if m.notes == nil || m.noted[line] {
			return
		}
		if m.noted == nil {
			m.noted = map[string]bool{}
		}
		m.noted[line] = true
		m.notes(line)
	})
}

// update changes the counts, and reports them when change says that it
// matters, or when the last report is old enough.
func (m *meter) update(change func() (urgent bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	urgent := change()
	if m.report == nil {
		return
	}
	at := time.Now()
	if !urgent && at.Sub(m.last) < progressEvery {
		return
	}
	m.last = at
	m.measure(at)
	m.report(m.now)
}

func (m *meter) measure(at time.Time) {
	m.now.Total = max(m.now.Total, m.now.Done)
	m.now.Rate, m.now.ETA = m.lately.rate(at, m.now.Done), 0
	if m.now.Rate > 0 {
		m.now.ETA = time.Duration(float64(m.now.Total-m.now.Done) / float64(m.now.Rate) * float64(time.Second))
	}
	m.now.Peers = m.given.measure(at)
}
