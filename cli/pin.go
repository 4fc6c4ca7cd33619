package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) pinCommand() *cobra.Command {
	var req control.PinRequest
	var expire time.Duration
	cmd := &cobra.Command{
		Use:   "pin WHAT",
		Short: "Have the group remember what a name means, and keep it",
		Long: `Have the group remember what a name means. WHAT is shared from here, or found by
name. In another group member's hands it is p2pshare get @GROUP/NAME.`,
		Example: "  p2pshare pin report.pdf\n  p2pshare pin report.pdf --replace",
		Args:    arguments("a WHAT", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if expire < 0 {
				return usageOf(cmd, "--expire must not be negative")
			}
			if expire > 0 {
				req.Expires = time.Now().Add(expire).UTC()
			}
			what, err := absoluteIfPath(args[0])
			if err != nil {
				return err
			}
			req.What = what
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				done, err := use.Pin(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					a.emit(done)
					return nil
				}
				a.say("pinned  %s  %s  in %s at log index %d", share.Escape(cmp.Or(done.Name, "(no name)")), done.ID, share.Escape(done.Group), done.Index)
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&req.Replicas, "replicas", 0, "how many copies the group keeps (default 3)")
	flags.BoolVar(&req.Replace, "replace", false, "even if the name means something else there")
	flags.DurationVar(&expire, "expire", 0, "forget it after this time")
	flags.BoolVar(&req.Literal, "literal", false, "WHAT is a name, whatever it looks like")
	groupFlag(cmd, &req.Group)
	return cmd
}

func (a *app) unpinCommand() *cobra.Command {
	var req control.PinRequest
	cmd := &cobra.Command{
		Use:   "unpin WHAT",
		Short: "Have the group forget a name, or a content with all its names",
		Args:  arguments("a WHAT", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.What = args[0]
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				done, err := use.Unpin(ctx, req)
				if err != nil {
					return err
				}
				if a.json {
					a.emit(done)
					return nil
				}
				a.say("unpinned  %s  in %s at log index %d", share.Escape(done.What), share.Escape(done.Group), done.Index)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&req.Literal, "literal", false, "WHAT is a name, whatever it looks like")
	groupFlag(cmd, &req.Group)
	return cmd
}

func (a *app) pinsCommand() *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "pins",
		Short: "List what the group has pinned",
		Long: `List what the group has pinned, as of now. Where it has no quorum the last that
is known here is listed, and said to be so; --fresh refuses that, and --stale
does not ask the others.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"group": {group}}
			if err := freshQuery(cmd, query); err != nil {
				return err
			}
			note, cut := a.staleNote(query), false
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				return printLines(a, use.Pins(ctx, query), func(p control.PinLine) string {
					note(p.Stale, p.Age)
					if p.Cut && !cut {
						cut = true
						a.note("the list was longer: a follower keeps no more of it")
					}
					return pinLine(p)
				})
			})
		},
	}
	groupFlag(cmd, &group)
	freshFlags(cmd)
	return cmd
}

// inGroup runs a command that asks a group within --timeout.
func (a *app) inGroup(cmd *cobra.Command, fn func(context.Context, *session) error) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := deadline(cmd.Context(), s.timeout)
	defer cancel()
	return a.withPeer(ctx, s, needNetwork, fn)
}

func pinLine(p control.PinLine) string {
	name := share.Escape(cmp.Or(p.Name, "(no name)"))
	if p.Kind == share.KindDir {
		name += "/"
	}
	return fmt.Sprintf("%9s  %s  %d copies wanted  %s", size(p.Size), p.ID.Short(), p.Replicas, name)
}
