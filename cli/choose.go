package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// choose has the person at the terminal choose among the contents that a name may
// mean. Otherwise it returns the error that stands: err, where there is nothing to
// choose or nobody to ask, as in a pipe, with --json or with -q.
func (a *app) choose(ctx context.Context, err error) (pick content.ID, stands error) {
	if err == nil || a.json || a.quiet || !isTerminal(a.io.In) || !isTerminal(a.io.Err) {
		return pick, err
	}
	e := control.ErrorOf(err)
	if e.Code != control.CodeAmbiguous || len(e.Candidates) == 0 {
		return pick, err
	}
	shown := e.Candidates[:min(len(e.Candidates), candidatesShownMax)]
	columns := 0
	if width := terminalWidth(a.io.Err, ""); width != nil {
		columns = width()
	}
	fmt.Fprintf(a.io.Err, "%s\n%s", e.Message, candidateMenu(e.Candidates, columns))
	asked := *e
	asked.Candidates = nil // they were shown
	in := bufio.NewReaderSize(io.LimitReader(a.io.In, answersMax*answerMax), answerMax)
	for range answersMax {
		fmt.Fprintf(a.io.Err, "which one? [1-%d, or nothing for none] ", len(shown))
		answer, err := readAnswer(ctx, in)
		if err != nil {
			fmt.Fprintln(a.io.Err) // the cursor stands behind the question
		}
		n, notNumber := strconv.Atoi(answer)
		switch {
		case ctx.Err() != nil:
			return pick, ctx.Err()
		case err != nil || answer == "":
			return pick, &asked
		case notNumber == nil && n >= 1 && n <= len(shown):
			return shown[n-1].ID, nil
		}
	}
	return pick, &asked
}

// answerMax is the longest answer that is read, in bytes, and answersMax how often
// is asked.
const answerMax, answersMax = 64, 3

// readAnswer reads a line, until ctx ends. The reader is then left waiting for the
// terminal: the process ends.
func readAnswer(ctx context.Context, in *bufio.Reader) (string, error) {
	type result struct {
		line []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := in.ReadSlice('\n')
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return strings.TrimSpace(string(r.line)), r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Bounds of the table: a name can be flooded, and be spelled with hundreds of
// characters that are not seen.
const (
	candidatesShownMax = 20
	candidateNameMax   = 40 // columns, before the digits of the ID
)

// candidateTable shows what an ambiguous name may mean: what is trusted more, what
// can be had and what is claimed from more networks stands above.
func candidateTable(candidates []share.Candidate) string {
	return alignRows(candidateRows(candidates)) + notShown(candidates)
}

// candidateMenu is candidateTable with a number before each. Where the terminal is
// too narrow for it, each candidate has lines of its own.
func candidateMenu(candidates []share.Candidate, columns int) string {
	rows := candidateRows(candidates)
	for i, row := range rows {
		number := ""
		if i > 0 {
			number = strconv.Itoa(i)
		}
		rows[i] = append([]string{number}, row...)
	}
	table := alignRows(rows)
	for line := range strings.Lines(table) {
		if width := columnsOf(strings.TrimSuffix(line, "\n")); columns > 0 && width > columns {
			return candidateList(rows[1:]) + notShown(candidates)
		}
	}
	return table + notShown(candidates)
}

// candidateList has the cells of each row below one another.
func candidateList(rows [][]string) string {
	var b strings.Builder
	for _, row := range rows {
		number, name, size, tier, by, seen, reach := row[0], row[1], row[2], row[3], row[4], row[5], row[6]
		fmt.Fprintf(&b, "%3s  %s\n     %s, %s, %s\n     %s\n", number, name, size, tier, reach, by)
		if seen != "" {
			fmt.Fprintf(&b, "     first seen %s\n", seen)
		}
	}
	return b.String()
}

func candidateRows(candidates []share.Candidate) [][]string {
	rows := [][]string{{"content", "size", "tier", "claimed by", "first seen", ""}}
	for _, c := range candidates[:min(len(candidates), candidatesShownMax)] {
		reach := "reachable"
		if !c.Reachable {
			reach = "not reachable"
		}
		if c.Mixed != "" {
			reach += "; mixes " + c.Mixed
		}
		if c.Like != "" {
			reach += "; " + looksLike(string(c.Like))
		}
		reach += noteText(c.Note)
		seen := ""
		if !c.FirstSeen.IsZero() {
			seen = c.FirstSeen.Format(time.DateTime)
		}
		rows = append(rows, []string{clip(share.Escape(string(c.Name)), candidateNameMax) + "#" + c.ID.Short(), knownSize(c.Size),
			tierText[min(max(c.Tier, 0), len(tierText)-1)], claimedBy(c), seen, reach})
	}
	return rows
}

func notShown(candidates []share.Candidate) string {
	if more := len(candidates) - candidatesShownMax; more > 0 {
		return fmt.Sprintf("  and %d more: --json lists all\n", more)
	}
	return ""
}

// tierText says in a word who stands for a candidate, by tier.
var tierText = []string{"chosen", "group", "petname", "stranger"}

func knownSize(n int64) string {
	if n < 0 {
		return "?"
	}
	return size(n)
}

// claimedBy counts publishers: those that speak from one network are one.
func claimedBy(c share.Candidate) string {
	switch n := len(c.Publishers); {
	case c.Group != "":
		return "group " + share.Escape(c.Group)
	case n == 0:
		return "nobody known"
	case n == 1:
		return c.Publishers[0].String()
	case c.Networks > 0 && c.Networks < n:
		return fmt.Sprintf("%s (%d identities)", plural(c.Networks, "publisher"), n)
	default:
		return plural(n, "publisher")
	}
}

// alignRows is a table whose columns are as wide as they must be.
func alignRows(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columnsOf(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := "  "
		for i, cell := range row {
			line += cell + strings.Repeat(" ", widths[i]-columnsOf(cell)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// sourceLine is one line of --explain.
func sourceLine(e *control.Source) string {
	who := e.Source
	if e.Source == "peer" {
		who = "peer " + e.Peer.String()
	}
	parts := []string{"tried: " + who}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if e.Found != "" {
		add("found by %s", foundText[e.Found])
	}
	if e.Addr != "" {
		add("at %s", share.Escape(e.Addr))
	}
	if e.Via != "" {
		add("reached %s", e.Via)
	}
	if e.Count > 0 {
		add("named %d", e.Count)
	}
	if e.Age > 0 {
		add("signed %s ago", span(e.Age))
	}
	if e.Bytes > 0 {
		add("gave %s", size(e.Bytes))
	}
	if e.Error != "" {
		add("error: %s", e.Error)
	}
	return strings.Join(parts, ", ")
}

var foundText = map[string]string{"named": "its address", "publisher": "its name", "lan": "the local network", "dht": "the DHT", "told": "another peer"}
