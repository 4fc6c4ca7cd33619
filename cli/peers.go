package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) peersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the peers connected to",
		Args:  arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd.Context(), s.timeout)
			defer cancel()
			return a.withPeer(ctx, s, needNetwork, a.listPeers)
		},
	}
	networkFlags(cmd)
	return cmd
}

func (a *app) listPeers(ctx context.Context, use *session) error {
	return printLines(a, use.Peers(ctx), connLine)
}

func connLine(c control.Conn) string {
	direction := "out"
	if c.Inbound {
		direction = "in"
	}
	return fmt.Sprintf("%s  %-6s  %-3s  %s  for %s  %s", c.Peer, c.Via, direction, c.Addr,
		span(time.Since(c.Opened).Seconds()), share.Escape(c.Agent))
}
