package cli

import (
	"context"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/spf13/cobra"
)

func (a *app) limitsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Show how fast the running peer may send and receive, and change it",
		Long: `Show how fast the running peer may send and receive bytes of files, and change
it. What is under way follows at once. A change holds until that peer stops:
the lasting limits are max_up and max_down in config.toml, which config shows.`,
		Example: "  p2pshare limits\n  p2pshare limits --max-up 2M\n  p2pshare limits --max-up 0 --max-down 10M",
		Args:    arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settle(cmd) // names a bad rate, too
			if err != nil {
				return err
			}
			var req control.LimitsRequest
			if s.values["max_up"].isFlag() {
				req.MaxUp = &s.maxUp
			}
			if s.values["max_down"].isFlag() {
				req.MaxDown = &s.maxDown
			}
			return a.withRunning(cmd, func(ctx context.Context, c *control.Client) error {
				limits, err := c.Limits(ctx, req)
				if err == nil {
					a.printLimits(limits)
				}
				return err
			})
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().String("max-up", "", "send at most `RATE` bytes of files a second, as 10M, 512K or 1.5MB; 0 for no limit")
	cmd.Flags().String("max-down", "", "receive at most `RATE` bytes of files a second; 0 for no limit")
	return cmd
}

func (a *app) printLimits(limits *control.Limits) {
	if a.json {
		a.emit(limits)
		return
	}
	a.say("max_up    %s", limitText(limits.MaxUp))
	a.say("max_down  %s", limitText(limits.MaxDown))
}

func limitText(rate int64) string {
	if rate == 0 {
		return "no limit"
	}
	return rateText(rate)
}
