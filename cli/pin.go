package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) pinCommand() *cobra.Command {
	var req control.PinRequest
	var expire spanFlag
	var replicas string
	cmd := &cobra.Command{
		Use:   "pin WHAT",
		Short: "Have the group keep copies of a content, and remember what its name means",
		Long: `Have the group keep copies of a content, and remember what its name means. WHAT is
shared from here, a path, or found by name. A file here that is not shared yet is shared,
with whoever knows its ID: the members that are to hold it fetch it from here, and
from one another. It must stay here until there are copies: --wait waits for that.
In another group member's hands it is p2pshare get @GROUP/NAME.`,
		Example: "  p2pshare pin report.pdf --wait\n  p2pshare pin photos --replicas all --expire 30d\n  p2pshare pin report.pdf --replace",
		Args:    arguments("a WHAT", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Copies > 0 {
				req.Wait = true
			}
			if cmd.Flags().Changed("copies") && req.Copies < 1 {
				return usageOf(cmd, "--copies must be 1 or more")
			}
			if expire > 0 {
				req.Expires = time.Now().Add(time.Duration(expire)).UTC()
			}
			var err error
			if req.Replicas, err = parseReplicas(cmd, replicas); err != nil {
				return err
			}
			if req.What, err = absoluteIfPath(args[0]); err != nil {
				return err
			}
			if _, here := os.Lstat(req.What); here == nil {
				if req.Path, err = filepath.Abs(req.What); err != nil {
					return err
				}
			}
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				done, err := use.Pin(ctx, req, a.printCopied())
				if err != nil {
					return err
				}
				a.printPinned(done, req.Wait)
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&replicas, "replicas", "", "how many copies the group keeps, `N` or all: one on every member (default 3)")
	flags.BoolVar(&req.Wait, "wait", false, "return when the copies are there and verified")
	flags.IntVar(&req.Copies, "copies", 0, "return when `K` copies are (with --wait; default as many as are wanted)")
	flags.BoolVar(&req.Adopt, "adopt", false, "count what is shared from here in place as this peer's copy")
	flags.BoolVar(&req.Replace, "replace", false, "even if the name means something else there")
	flags.Var(&expire, "expire", "forget it after this `SPAN`, as 12h or 30d")
	flags.BoolVar(&req.Literal, "literal", false, "WHAT is a name, whatever it looks like")
	groupFlag(cmd, &req.Group)
	return cmd
}

// parseReplicas reads a replication factor; "" is the default.
func parseReplicas(cmd *cobra.Command, text string) (int, error) {
	switch n, err := strconv.Atoi(text); {
	case text == "":
		return 0, nil
	case text == "all":
		return coord.ReplicasAll, nil
	case err != nil || n < 1 || n > coord.ReplicasMax:
		return 0, usageOf(cmd, "--replicas is 1 to %d, or all", coord.ReplicasMax)
	default:
		return n, nil
	}
}

// printCopied prints how far the copies are that are waited for.
func (a *app) printCopied() func(control.Event) {
	return func(e control.Event) {
		c, ok := e.(*control.Copied)
		switch {
		case !ok || a.quiet:
		case a.json:
			a.emit(c)
		default:
			a.note("%s", stateText(c.PinState))
		}
	}
}

func (a *app) printPinned(d *control.Pinned, waited bool) {
	if a.json {
		a.emit(d)
		return
	}
	a.say("pinned  %s  %s  in %s at log index %d", share.Escape(cmp.Or(d.Name, "(no name)")), d.ID, share.Escape(d.Group), d.Index)
	if d.Shared != "" {
		a.note("%s is shared from here now, with whoever knows its ID", share.Escape(d.Shared))
	}
	if d.Unverified != "" {
		a.note("warning: unverified name: %s; the group stands for it from now on", d.Unverified)
	}
	switch {
	case waited || d.Verified >= d.Wanted && d.Wanted > 0:
		a.say("copies  %d of %d are verified: what is here may go", d.Verified, d.Wanted)
	case len(d.Holders) == 0:
		a.note("no member is to hold it: %s", share.Escape(cmp.Or(d.Remedy, "p2pshare pins tells why")))
	default:
		for _, h := range d.Holders {
			a.say("holder  %s", share.Escape(string(h)))
		}
		if d.Remedy != "" {
			a.note("fewer than are wanted: %s", share.Escape(d.Remedy))
		}
		a.note("keep what is here until they have it: p2pshare pins shows how far they are, and pin --wait waits for it")
	}
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
	var explain bool
	cmd := &cobra.Command{
		Use:   "pins",
		Short: "List what the group has pinned, and how the copies are",
		Long: `List what the group has pinned, as of now, and how the copies are:

  ok 3/3        as many verified copies as are wanted
  copying 62 %  the rest is on its way
  degraded 2/3  some are missing, and nobody makes them just now: a member is silent,
                and within the grace time it may be back
  no room 2/3   some are missing, and no other member has room
  lost          no member that is there has a copy

Where the group has no quorum the last that
is known here is listed, and said to be so; --fresh refuses that, and --stale
does not ask the others.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"group": {group}, "explain": {strconv.FormatBool(explain)}}
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
	cmd.Flags().BoolVar(&explain, "explain", false, "show which members are to hold each, who comes next, and why")
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
	var b strings.Builder
	fmt.Fprintf(&b, "%9s  %s  %-14s  %s", size(p.Size), p.ID.Short(), stateText(p.PinState), name)
	if at := verifiedAt(p); !at.IsZero() {
		fmt.Fprintf(&b, "  (verified %s ago)", span(max(0, time.Since(at).Seconds())))
	}
	if p.Remedy != "" {
		fmt.Fprintf(&b, "\n    hint: %s", share.Escape(p.Remedy))
	}
	for _, h := range p.Holders {
		fmt.Fprintf(&b, "\n    holder   %s  %s", share.Escape(string(h.Peer)), share.Escape(holderText(h, p.Size)))
	}
	for _, r := range p.Reserve {
		fmt.Fprintf(&b, "\n    reserve  %s", share.Escape(string(r)))
	}
	for _, d := range p.Doubted {
		fmt.Fprintf(&b, "\n    unproven %s", share.Escape(string(d)))
	}
	for _, x := range p.Absent {
		fmt.Fprintf(&b, "\n    absent   %s", share.Escape(string(x)))
	}
	if p.Why != "" {
		fmt.Fprintf(&b, "\n    why      %s", share.Escape(p.Why))
	}
	return b.String()
}

// stateText is the state, with the time that is left.
func stateText(s control.PinState) string {
	if s.Left > 0 {
		return fmt.Sprintf("%s, %s left", s.State, span(s.Left))
	}
	return s.State
}

// verifiedAt is when the copy was verified that was so longest ago, zero when no
// member has told.
func verifiedAt(p control.PinLine) (at time.Time) {
	for _, c := range p.Copies {
		if c.Verified != nil && (at.IsZero() || c.Verified.Before(at)) {
			at = *c.Verified
		}
	}
	return at
}

func holderText(h control.PinHolder, total int64) string {
	if h.State == "fetching" && total > 0 {
		return fmt.Sprintf("fetching, %d %%", h.Done*100/total)
	}
	return strings.ReplaceAll(h.State, "_", " ")
}
