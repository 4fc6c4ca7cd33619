package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// rows are the table: what transfers are judged by. Each measures whole commands,
// from their execution to their exit, beside plain tools on the same bytes.
var rows = []struct {
	name string
	run  func(*trial)
}{
	{"add", rowAdd},
	{"add-many", rowAddMany},
	{"get", rowGet},
	{"four", rowFour},
	{"four-limited", rowFourLimited},
	{"crowd", rowCrowd},
	{"crowd-limited", rowCrowdLimited},
	{"many", rowMany},
	{"tiny", rowTiny},
	{"killed", rowKilled},
	{"damaged", rowDamaged},
	{"far", rowFar},
	{"far-many", rowFarMany},
	{"liar", rowLiar},
	{"slow", rowSlow},
	{"besieged", rowBesieged},
	{"large", rowLarge},
}

// BenchmarkTransfer measures the table, and prints it. It fails if a number is
// missed; a row whose tools are missing is skipped. Contenders run in interleaved
// rounds, of which five are the least that a median is worth something of:
//
//	CGO_ENABLED=0 go test ./cli/e2e -run xxx -bench Transfer -benchtime 5x -timeout 2h
//
// One row is -bench Transfer/add, as an example; with -v each is printed when it is
// done, too. Files are made below $TMPDIR, of which 25 GiB are used at most; they
// should fit into the page cache, but for the row "large".
//
// Nothing that a contender writes is deleted before its row ends, but for single
// large files: on ext4 without a journal, to make files soon after many were
// deleted takes ten times as long, and the next contender would pay for it.
func BenchmarkTransfer(b *testing.B) {
	var all []*trial
	for _, row := range rows {
		done := len(all)
		b.Run(row.name, func(b *testing.B) {
			x := &trial{TB: b, row: row.name, full: true, more: b.Loop}
			all = append(all, x)
			row.run(x)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(x.rounds), "rounds")
		})
		if testing.Verbose() && len(all) > done { // it may not be asked for
			printTable(os.Stderr, all[done:])
		}
	}
	printTable(os.Stdout, all)
}

// TestTransfer runs every row of BenchmarkTransfer once, with small files: what
// the rows check holds, whatever their times are.
func TestTransfer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			x := &trial{TB: t, row: row.name, more: func() bool { return false }}
			row.run(x)
			for _, l := range x.lines {
				t.Logf("%s: %s", l.what, l.measured)
			}
		})
	}
}

// trial is one row while it is measured.
type trial struct {
	testing.TB
	row  string
	full bool // at the size of the table, and judged by its numbers
	// more says whether to run another round, after the first.
	more    func() bool
	rounds  int
	lines   []line
	skipped string // why
}

// Skip and Skipf keep the reason for the table: without -v, a benchmark that skips
// says nothing.
func (x *trial) Skip(args ...any) { x.skipped = fmt.Sprint(args...); x.TB.Skip(args...) }

func (x *trial) Skipf(format string, args ...any) {
	x.skipped = fmt.Sprintf(format, args...)
	x.TB.Skip(x.skipped)
}

// line is one line of the printed table.
type line struct{ what, measured, number, verdict string }

func printTable(w io.Writer, all []*trial) {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\nrow\trounds\twhat\tmeasured\tnumber\t")
	for _, x := range all {
		if x.Skipped() {
			fmt.Fprintf(out, "%s\t\tskipped\t%s\t\t\n", x.row, x.skipped)
		}
		for _, l := range x.lines {
			fmt.Fprintf(out, "%s\t%d\t%s\t%s\t%s\t%s\n", x.row, x.rounds, l.what, l.measured, l.number, l.verdict)
		}
	}
	out.Flush()
}

// scaled is a size or a count: of the table, or small.
func (x *trial) scaled(full, small int64) int64 {
	if x.full {
		return full
	}
	return small
}

// note adds a line that is not judged.
func (x *trial) note(what, format string, args ...any) {
	x.lines = append(x.lines, line{what: what, measured: fmt.Sprintf(format, args...)})
}

// atLeast and atMost judge what depends on the size and the machine: they fail a row
// at full size alone.
func (x *trial) atLeast(what string, got, number float64, unit string) {
	x.Helper()
	x.judge(what, got, "≥", number, unit, got >= number, !x.full)
}

func (x *trial) atMost(what string, got, number float64, unit string) {
	x.Helper()
	x.judge(what, got, "≤", number, unit, got <= number, !x.full)
}

// neverMore judges what holds at any size, however fast the machine is.
func (x *trial) neverMore(what string, got, number float64, unit string) {
	x.Helper()
	x.judge(what, got, "≤", number, unit, got <= number, false)
}

// judge adds a line with a number, and fails the row if it is missed and matters.
func (x *trial) judge(what string, got float64, relation string, number float64, unit string, held, lenient bool) {
	x.Helper()
	l := line{what, fmt.Sprintf("%.4g %s", got, unit), fmt.Sprintf("%s %.4g", relation, number), "ok"}
	if !held {
		l.verdict = "MISSED"
	}
	if !held && !lenient {
		x.Errorf("%s: %s, want %s", what, l.measured, l.number)
	}
	x.lines = append(x.lines, l)
}

// contender is one way to do what a row is about. run does it once, in a place of
// its own, and returns how long the part took that counts.
type contender struct {
	name string
	run  func(round int) time.Duration
}

// contest runs contenders in interleaved rounds, in another order each time, and
// returns the times of each. A trial has one contest.
func (x *trial) contest(bytes int64, contenders ...contender) map[string]values {
	took := map[string]values{}
	for again := true; again; x.rounds++ {
		if x.full && !x.more() {
			break
		}
		for i := range contenders {
			c := contenders[(i+x.rounds)%len(contenders)]
			took[c.name] = append(took[c.name], c.run(x.rounds).Seconds())
		}
		again = x.full
	}
	for _, c := range contenders {
		x.note(c.name, "%s", took[c.name].seconds(bytes))
	}
	return took
}

// values are what several rounds gave; those of a contest are seconds.
type values []float64

// median is the middle one; the upper of two.
func (v values) median() float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// seconds tells the median and the extremes, and the rate if bytes is not 0.
func (v values) seconds(bytes int64) string {
	s := fmt.Sprintf("%.4g s (%.4g–%.4g)", v.median(), slices.Min(v), slices.Max(v))
	if bytes > 0 {
		s += fmt.Sprintf(", %.0f MB/s", float64(bytes)/v.median()/1e6)
	}
	return s
}

// ran is what a command of ours did and used.
type ran struct {
	took   time.Duration
	last   event
	events []event
	memory int64 // its largest resident set, in bytes; 0 where it can't be told
	cpu    time.Duration
}

// run runs a command of p that has to succeed, with p's network flags.
func (x *trial) run(p *peer, args ...string) ran {
	x.Helper()
	c := p.command(x.Context(), slices.Concat(args, p.flags)...)
	r, err := watch(c, func(event) {})
	if err != nil {
		x.Fatalf("p2pshare %s: %v", strings.Join(args, " "), err)
	}
	return r
}

// watch runs a command that prints events, and calls on for each.
func watch(c *exec.Cmd, on func(event)) (ran, error) {
	var r ran
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := c.Start(); err != nil {
		return r, err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err = json.Unmarshal(lines.Bytes(), &e); err != nil {
			break
		}
		// The peak is told of a process that lives alone. It prints ten lines a
		// second, and the last before it ends.
		r.memory = max(r.memory, peakOf(c.Process.Pid))
		r.events, r.last = append(r.events, e), e
		on(e)
	}
	if err = errors.Join(err, lines.Err(), c.Wait()); err != nil {
		return r, fmt.Errorf("%w\n%s", err, stderr.String())
	}
	r.took = time.Since(began)
	r.cpu = c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	if len(r.events) == 0 {
		return r, errors.New("it printed nothing")
	}
	return r, nil
}

// peakOf is the largest resident set of a process so far, 0 where that is not told.
// The kernel's rusage would count the parent's memory before the execution too.
func peakOf(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	var kib int64
	fmt.Sscan(rest, &kib)
	return kib << 10
}

// tool runs a program to its end, and returns how long it took.
func (x *trial) tool(args ...string) time.Duration {
	x.Helper()
	began := time.Now()
	if out, err := exec.CommandContext(x.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		x.Fatalf("%s: %v\n%.2000s", strings.Join(args, " "), err, out)
	}
	return time.Since(began)
}

// needs skips a row whose tools are not installed.
func (x *trial) needs(tools ...string) {
	x.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			x.Skipf("%s is not installed", tool)
		}
	}
}

// remove deletes a large file, which costs the next contender nothing.
func (x *trial) remove(path string) {
	x.Helper()
	if err := os.Remove(path); err != nil {
		x.Fatal(err)
	}
}

// sourcesOf is what each peer gave to a get.
func sourcesOf(done event) map[string]int64 {
	given := map[string]int64{}
	list, _ := done["sources"].([]any)
	for _, s := range list {
		source := event(s.(map[string]any))
		given[source.text("peer")] += source.number("bytes")
	}
	return given
}

// percents are the shares of all that was given, sorted.
func percents(given map[string]int64) []float64 {
	var sum int64
	for _, n := range given {
		sum += n
	}
	var all []float64
	for _, n := range slices.Sorted(maps.Values(given)) {
		all = append(all, 100*float64(n)/float64(max(1, sum)))
	}
	return all
}
