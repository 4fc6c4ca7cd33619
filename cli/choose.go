package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/p2pshare/p2pshare/share/content"
)

// choose has the person at the terminal choose among the contents that a name may
// mean. There is nothing to choose in a pipe, with --json or with -q: then the
// error stands.
func (a *app) choose(ctx context.Context, err error) (pick content.ID, ok bool) {
	if err == nil || a.json || a.quiet || !isTerminal(a.io.In) || !isTerminal(a.io.Err) {
		return pick, false
	}
	e := control.ErrorOf(err)
	if e.Code != control.CodeAmbiguous || len(e.Candidates) == 0 {
		return pick, false
	}
	fmt.Fprintf(a.io.Err, "%s\n%swhich one? [1-%d, or nothing for none] ", e.Message, candidateTable(e.Candidates, true), len(e.Candidates))
	n, err := strconv.Atoi(readAnswer(ctx, a.io.In))
	if err != nil || n < 1 || n > len(e.Candidates) {
		return pick, false
	}
	return e.Candidates[n-1].ID, true
}

// answerMax is the longest answer that is read.
const answerMax = 64

// readAnswer reads a line, and returns "" when ctx ends first. The reader is then
// left waiting for the terminal: the process ends.
func readAnswer(ctx context.Context, in io.Reader) string {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReaderSize(io.LimitReader(in, answerMax), answerMax).ReadString('\n')
		line <- strings.TrimSpace(text)
	}()
	select {
	case text := <-line:
		return text
	case <-ctx.Done():
		return ""
	}
}

// candidatesShownMax bounds the table: a name can be flooded.
const candidatesShownMax = 20

// candidateTable shows what an ambiguous name may mean: what is trusted more, what
// can be had and what is claimed from more networks stands above.
// With numbers each row begins with its own.
func candidateTable(candidates []share.Candidate, numbers bool) string {
	rows := [][]string{{"content", "size", "tier", "claimed by", "first seen", ""}}
	for _, c := range candidates[:min(len(candidates), candidatesShownMax)] {
		reach := "reachable"
		if !c.Reachable {
			reach = "not reachable"
		}
		if c.Mixed != "" {
			reach += "; mixes " + c.Mixed
		}
		seen := ""
		if !c.FirstSeen.IsZero() {
			seen = c.FirstSeen.Format(time.DateTime)
		}
		rows = append(rows, []string{share.Escape(string(c.Name)) + "#" + c.ID.Short(), knownSize(c.Size),
			tierText[min(max(c.Tier, 0), len(tierText)-1)], claimedBy(c), seen, reach})
	}
	for i := range rows {
		if !numbers {
			break
		}
		number := ""
		if i > 0 {
			number = strconv.Itoa(i)
		}
		rows[i] = append([]string{number}, rows[i]...)
	}
	table := alignRows(rows)
	if more := len(candidates) - candidatesShownMax; more > 0 {
		table += fmt.Sprintf("  and %d more: --json lists all\n", more)
	}
	return table
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
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := "  "
		for i, cell := range row {
			line += cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2)
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
