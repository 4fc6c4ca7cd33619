package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) findCommand() *cobra.Command {
	var without []string
	var explain bool
	cmd := &cobra.Command{
		Use:   "find WORD…",
		Short: "Search for shares by the words of their names",
		Long: `Search for shares by the words of their names: those of this peer, of its groups,
of the local network, and of the peers that the DHT names for the rarest word.
All words must be in a name. What is found is told as it comes, on stderr, and
listed at the end, the best first: what is trusted more, can be had, and is told
from more networks. Names inside shared directories are not searched.

  -WORD           without this word (or --without WORD)
  "final report"  in this order; nothing in quotes is an operator
  ext:pdf         the name ends so; several mean any of them
  size:>10M       larger; also <, >=, <= and 1M..10M

It asks a bounded number of peers for a few seconds, and says "partial" where
there may be more.`,
		Example: "  p2pshare find report 2024\n  p2pshare find report -draft ext:pdf 'size:>1M'\n  p2pshare find '\"final report\"'",
		Args:    arguments("a WORD", 1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := control.FindRequest{Query: queryParts(args, without), Explain: explain}
			if _, err := share.ParseQuery(req.Query...); err != nil {
				return err
			}
			return a.runFind(cmd, req)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringArrayVar(&without, "without", nil, "leave out names with this `WORD`, as -WORD does; repeatable")
	flags.BoolVar(&explain, "explain", false, "print one line for each source that was tried")
	networkFlags(cmd)
	return cmd
}

// queryParts are the arguments of find as share.ParseQuery reads them: one with spaces
// was quoted for the shell, and is quoted for the query, too.
func queryParts(args, without []string) []string {
	quote := func(arg string) string {
		minus := ""
		if rest, ok := strings.CutPrefix(arg, "-"); ok {
			minus, arg = "-", rest
		}
		if strings.ContainsFunc(arg, unicode.IsSpace) && !strings.Contains(arg, `"`) {
			arg = `"` + arg + `"`
		}
		return minus + arg
	}
	var parts []string
	for _, arg := range args {
		parts = append(parts, quote(arg))
	}
	for _, arg := range without {
		parts = append(parts, quote("-"+arg))
	}
	return parts
}

// withoutWords makes --without WORD of each -WORD among the arguments of find, which
// would be taken for flags of one letter. What consists of such flags stays: -v, -qv.
func withoutWords(root *cobra.Command, args []string) []string {
	cmd, _, err := root.Find(args)
	if err != nil || cmd.Name() != "find" {
		return args
	}
	cmd.InitDefaultHelpFlag()
	isFlag := func(letter rune) bool {
		s := string(letter)
		return letter < unicode.MaxASCII && (cmd.Flags().ShorthandLookup(s) != nil || cmd.InheritedFlags().ShorthandLookup(s) != nil)
	}
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		word, ok := strings.CutPrefix(arg, "-")
		if !ok || word == "" || word[0] == '-' || !strings.ContainsFunc(word, func(r rune) bool { return !isFlag(r) }) {
			continue
		}
		args[i] = "--without=" + word
	}
	return args
}

func (a *app) runFind(cmd *cobra.Command, req control.FindRequest) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := deadline(cmd.Context(), s.timeout)
	defer cancel()
	req.Peers = s.values["peer"].texts
	return a.withPeer(ctx, s, needNetwork, func(ctx context.Context, use *session) error {
		live := &findings{progress: a.newProgress()}
		err := printLines(a, use.Find(ctx, req, live.on), hitLine)
		live.end()
		return err
	})
}

// findingsShown is how many of what is found are shown while a search goes on.
const findingsShown = 8

// findings shows what a search finds, while it goes on: on a terminal a list that is
// drawn again, in a pipe a line for each.
type findings struct {
	progress *progress
	hits     []share.Hit
	drawn    int // lines that stand on the terminal
}

func (f *findings) on(e control.Event) {
	a := f.progress.app
	switch e := e.(type) {
	case *control.Found:
		f.found(e)
	case *control.Searched:
		f.end()
		if a.json && !a.quiet {
			a.emit(e)
		}
		if !a.json && !a.quiet {
			for _, why := range e.Why {
				a.note("partial: %s", why)
			}
		}
	default:
		f.clear()
		f.progress.on(e)
		f.draw()
	}
}

func (f *findings) found(e *control.Found) {
	a := f.progress.app
	i := slices.IndexFunc(f.hits, func(h share.Hit) bool { return h.ID == e.ID })
	known := i >= 0
	if known {
		f.hits[i] = e.Hit
	} else {
		f.hits = append(f.hits, e.Hit)
	}
	switch {
	case a.quiet:
	case a.json:
		a.emit(e)
	case f.progress.width != nil:
		f.clear()
		f.draw()
	case !known:
		fmt.Fprintf(a.io.Err, "+ %s\n", hitLine(e.Hit))
	}
}

// draw draws the list, from the line on at which the cursor stands.
func (f *findings) draw() {
	a := f.progress.app
	if f.progress.width == nil || a.quiet || a.json || len(f.hits) == 0 {
		return
	}
	f.progress.end()
	width := max(f.progress.width()-1, 20)
	shown := f.hits[max(0, len(f.hits)-findingsShown):]
	for _, h := range shown {
		fmt.Fprintf(a.io.Err, "%s\n", clip(hitLine(h), width))
	}
	fmt.Fprintf(a.io.Err, "%s found so far\n", plural(len(f.hits), "content"))
	f.drawn = len(shown) + 1
}

// clear takes the list away again.
func (f *findings) clear() {
	if f.drawn > 0 {
		f.progress.end()
		fmt.Fprintf(f.progress.app.io.Err, "\x1b[%dA\r\x1b[J", f.drawn)
		f.drawn = 0
	}
}

func (f *findings) end() {
	f.clear()
	f.progress.end()
}

// hitLine is one content that was found.
func hitLine(h share.Hit) string {
	name := share.Escape(string(h.Name))
	if h.Kind == share.KindDir {
		name += "/"
	}
	where := make([]string, len(h.Where))
	for i, w := range h.Where {
		where[i] = share.Escape(w)
	}
	line := fmt.Sprintf("%9s  %s  %s  %s", knownSize(h.Size), h.ID.Short(), name, strings.Join(where, ", "))
	if n := len(h.Publishers); n > 0 {
		line += ", " + plural(n, "publisher")
		if h.Networks > 0 && h.Networks < n {
			line += " in " + plural(h.Networks, "network")
		}
	}
	switch {
	case h.Verified:
	case h.Reachable:
		line += ", unverified"
	default:
		line += ", not reachable"
	}
	if h.Mixed != "" {
		line += ", mixes " + h.Mixed
	}
	if h.Like != "" {
		line += ", " + looksLike(string(h.Like))
	}
	line += noteText(h.Note)
	return line
}
