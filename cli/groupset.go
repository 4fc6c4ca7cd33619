package cli

import (
	"context"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) groupSetCommand() *cobra.Command {
	var req control.GroupRequest
	var grace spanFlag
	var capacity sizeFlag
	var zone string
	var noStore, adopt bool
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Change the group's grace time, or what this peer brings into the group",
		Long: `Change the group's grace time, which takes an admin, or what this peer brings into
the group: its capacity, its zone, whether it holds copies at all. Copies that are
here and not wanted here any more are made elsewhere first.`,
		Example: "  p2pshare group set --grace 1h\n  p2pshare group set --capacity 200G",
		Args:    arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Grace, req.Member = time.Duration(grace).Seconds(), &control.MemberRequest{}
			changed := cmd.Flags().Changed
			if changed("capacity") {
				req.Member.Capacity = (*int64)(&capacity)
			}
			if changed("zone") {
				req.Member.Zone = &zone
			}
			if changed("no-store") {
				req.Member.NoStore = &noStore
			}
			if changed("adopt") {
				req.Member.Adopt = &adopt
			}
			return a.changeGroup(cmd, "set", req)
		},
	}
	graceFlag(cmd, &grace)
	flags := cmd.Flags()
	flags.Var(&capacity, "capacity", "hold copies of at most so many bytes here, a `SIZE` as 500M or 20G")
	flags.StringVar(&zone, "zone", "", "the `ZONE` of this peer: members of one fail together")
	flags.BoolVar(&noStore, "no-store", false, "hold no copies here; --no-store=false holds some again")
	flags.BoolVar(&adopt, "adopt", false, "count what is shared from here in place as a copy; --adopt=false does not")
	groupFlag(cmd, &req.Group)
	return cmd
}

func (a *app) groupLeaveCommand() *cobra.Command {
	var req control.GroupRequest
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Leave the group",
		Long: `Leave the group. With --drain the copies that are here are made elsewhere first,
and what remains is shown; Ctrl-C does not take that back: the same command goes on,
and p2pshare group set --no-store=false stays.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !req.Drain {
				return a.changeGroup(cmd, "leave", req)
			}
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				done, err := use.DrainGroup(ctx, req, a.printDraining)
				if err != nil {
					return err
				}
				a.printGroupDone(done)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&req.Drain, "drain", false, "have the copies that are here made elsewhere first")
	cmd.Flags().BoolVar(&req.Force, "force", false, "even if it costs the group's safety: see p2pshare group plan")
	groupFlag(cmd, &req.Group)
	return cmd
}

// printDraining tells what remains.
func (a *app) printDraining(d *control.Drained) {
	switch {
	case a.quiet:
	case a.json:
		a.emit(d)
	case d.Contents == 0:
		a.note("all copies that are here are elsewhere, too")
	case d.Short == d.Contents:
		a.note("no other member has room for %s, %s", plural(d.Contents, "content"), size(d.Bytes))
	default:
		a.note("%s, %s, to be copied elsewhere", plural(d.Contents, "content"), size(d.Bytes))
	}
}

func (a *app) printDrained(d *control.GroupDone) {
	a.say("%-9s  %s  %s", d.Did, share.Escape(d.Group), d.ID)
	if d.Left.Contents > 0 {
		a.note("%s would have needed a copy here", plural(d.Left.Contents, "content"))
	}
}
