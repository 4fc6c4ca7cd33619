package cli

import (
	"context"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/spf13/cobra"
)

func (a *app) limitsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Show how much the running peer may send, receive and keep, and change it",
		Long: `Show how fast the running peer may send and receive bytes of files and how much
it may keep, and change it. What is under way follows at once, and what is beyond
the cache's quota is removed. A change holds until that peer stops: the lasting
limits are max_up, max_down and cache_max in config.toml, which config explains.

The store's quota, for the copies that are held for groups, is what the groups know
and plan by: p2pshare group set --capacity changes it, for good.`,
		Example: "  p2pshare limits\n  p2pshare limits --max-up 2M\n  p2pshare limits --max-up 0 --max-down 10M --cache-max 500M",
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
			if s.values["cache_max"].isFlag() {
				req.CacheMax = &s.cacheMax
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
	cmd.Flags().String("cache-max", "", "keep at most `SIZE` of what was read through the gateway and the drive, as 500M or 20G; 0 for the default")
	return cmd
}

func (a *app) printLimits(limits *control.Limits) {
	if a.json {
		a.emit(limits)
		return
	}
	a.say("max_up    %s", limitText(limits.MaxUp))
	a.say("max_down  %s", limitText(limits.MaxDown))
	a.say("cache     %s", size(limits.CacheMax))
	if limits.StoreMax > 0 {
		a.say("store     %s, by group set --capacity", size(limits.StoreMax))
	}
}

func limitText(rate int64) string {
	if rate == 0 {
		return "no limit"
	}
	return rateText(rate)
}
