package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) groupPlanCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what a change would make of the group, without making it",
		Long: `Show what a change would make of the group, without making it: how many voters
there would be and how many may fail, whether the leader changes, how many pins get
other holders.`,
		Example: "  p2pshare group plan remove PEER\n  p2pshare group plan invite voter",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var force bool
	invite := a.planOpCommand("invite ROLE", "Somebody joins as voter, storage, writer or reader", func(_ *cobra.Command, args []string) (control.PlanRequest, error) {
		return control.PlanRequest{Op: "invite", Role: args[0], Force: force}, nil
	})
	invite.Flags().BoolVar(&force, "force", false, "the voter gets its vote though that leaves an even count")
	cmd.AddCommand(invite,
		a.planOpCommand("leave", "This peer leaves", func(*cobra.Command, []string) (control.PlanRequest, error) {
			return control.PlanRequest{Op: "leave"}, nil
		}),
		a.planOpCommand("remove PEER", "A member is removed", func(cmd *cobra.Command, args []string) (control.PlanRequest, error) {
			p, err := memberArgument(cmd, args[0])
			return control.PlanRequest{Op: "remove", Peer: p}, err
		}),
		a.planOpCommand("revoke PEER ROLE", "A member loses a role", func(cmd *cobra.Command, args []string) (control.PlanRequest, error) {
			p, err := memberArgument(cmd, args[0])
			return control.PlanRequest{Op: "revoke", Peer: p, Role: args[1]}, err
		}),
	)
	return cmd
}

// planOpCommand is a command whose request is made of its arguments.
func (a *app) planOpCommand(use, short string, request func(*cobra.Command, []string) (control.PlanRequest, error)) *cobra.Command {
	var group string
	form := strings.Fields(use)[1:]
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  arguments(strings.Join(form, " and "), len(form), len(form)),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := request(cmd, args)
			if err != nil {
				return err
			}
			req.Group = group
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				plan, err := use.PlanGroup(ctx, req)
				if err != nil {
					return err
				}
				a.printPlan(plan)
				return nil
			})
		},
	}
	groupFlag(cmd, &group)
	return cmd
}

func (a *app) printPlan(p *control.PlanDone) {
	if a.json {
		a.emit(p)
		return
	}
	fmt.Fprintf(a.out, "now        %s\n", standing(p.Before))
	fmt.Fprintf(a.out, "then       %s\n", standing(p.After))
	if p.NewLeader {
		fmt.Fprintf(a.out, "leader     goes; another is elected\n")
	}
	moves := fmt.Sprintf("other holders for %d of %s", p.Moves, plural(p.Pins, "pin"))
	if !p.Counted {
		moves += ", of those that were looked at"
	}
	fmt.Fprintf(a.out, "copies     %s\n", moves)
	for _, w := range p.Warnings {
		fmt.Fprintf(a.out, "warning    %s\n", share.Escape(w))
	}
	if p.Unsafe != "" {
		fmt.Fprintf(a.out, "unsafe     %s: it needs --force\n", share.Escape(p.Unsafe))
	}
}

func standing(q control.PlanQuorum) string {
	return fmt.Sprintf("%s, %d up; %d more may fail", plural(q.Voters, "voter"), q.VotersUp, q.CanLose)
}
