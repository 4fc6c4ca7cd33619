package cli

import (
	"context"
	"fmt"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/spf13/cobra"
)

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what keeps this peer from others, and say what to do",
		Long: `Look for what keeps this peer from others: the local network with its interfaces,
multicast and neighbors, the ports, the DHT, the NAT, the disk, the clock, watched
shares, and the groups. Each finding that is not ok has a remedy. It exits with 1
when something fails.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd.Context(), s.timeout)
			defer cancel()
			return a.withPeer(ctx, s, needNetwork, a.printFindings)
		},
	}
	cmd.Flags().SortFlags = false
	networkFlags(cmd)
	return cmd
}

func (a *app) printFindings(ctx context.Context, use *session) error {
	failed := 0
	for f, err := range use.Examine(ctx) {
		if err != nil {
			return err
		}
		if f.State == control.Fail {
			failed++
		}
		if a.json {
			a.emitLine(f)
			continue
		}
		fmt.Fprintf(a.out, "%-4s  %s: %s: %s\n", f.State, f.Check, f.Subject, f.Message)
		if f.Remedy != "" {
			fmt.Fprintf(a.out, "      do: %s\n", f.Remedy)
		}
	}
	if failed > 0 {
		return control.Errorf(control.CodeFailed, "%s failed", plural(failed, "check")).WithHint("do what stands beside it, and run p2pshare doctor again")
	}
	return nil
}
