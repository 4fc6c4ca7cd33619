package cli

import (
	"context"
	"fmt"
	"iter"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) lsCommand() *cobra.Command {
	var literal bool
	cmd := &cobra.Command{
		Use:   "ls [WHAT]",
		Short: "List what is shared from here, or what is inside a directory",
		Long: `List what is shared from this home and how it stands against the disk. With
WHAT, list what is inside that directory, shared from here or by another peer.`,
		Args: arguments("at most one WHAT", 0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd.Context(), s.timeout)
			defer cancel()
			if len(args) == 0 {
				return a.withPeer(ctx, s, needHome, a.listShares)
			}
			what, err := control.ParseWhat(args[0], literal)
			if err != nil {
				return err
			}
			if err := share.ReadTrust(s.home).Knows(what); err != nil {
				return err
			}
			req := control.EntriesRequest{What: args[0], Literal: literal, Peers: s.values["peer"].texts}
			return a.withPeer(ctx, s, needNetwork, func(ctx context.Context, use *session) error {
				return printLines(a, use.Entries(ctx, req), entryLine)
			})
		},
	}
	cmd.Flags().BoolVar(&literal, "literal", false, "WHAT is a name, whatever it looks like")
	networkFlags(cmd)
	return cmd
}

func (a *app) listShares(ctx context.Context, use *session) error {
	var marks nameMarks
	return printLines(a, use.Shares(ctx), func(l control.Listed) string { return shareLine(l) + marks.after(l.Name) + noteText(l.Note) })
}

// printLines prints each line of a listing as it comes: there may be a million.
// Once one has been printed, another peer can't take over: it would begin
// again.
func printLines[T any](a *app, lines iter.Seq2[T, error], format func(T) string) error {
	printed := false
	for l, err := range lines {
		if isGone(err) && printed {
			return control.Errorf(control.CodeFailed, "the running peer stopped in the middle").WithHint("run the same command again")
		}
		if err != nil {
			return err
		}
		printed = true
		if a.json {
			a.emitLine(l)
		} else {
			fmt.Fprintln(a.out, format(l))
		}
	}
	return nil
}

func shareLine(l control.Listed) string {
	name := share.Escape(l.Name)
	if l.Kind == share.KindDir {
		name += "/"
	}
	line := fmt.Sprintf("%9s  %-8s  %s  %s  %s", size(l.Size), l.State, l.ID.Short(), name, share.Escape(l.Path))
	switch w := l.Watch; {
	case w == nil:
	case w.Problem != "":
		line += "  (watched; " + w.Problem + ")"
	default:
		line += "  (watched)"
	}
	return line
}

func entryLine(l control.Listed) string {
	if l.Kind == share.KindDir {
		return fmt.Sprintf("%9s  %8s  %s/%s", "-", "", share.Escape(l.Path), markMixed(l.Path))
	}
	return fmt.Sprintf("%9s  %s  %s%s", size(l.Size), l.ID.Short(), share.Escape(l.Path), markMixed(l.Path))
}
