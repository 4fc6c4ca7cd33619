package cli

import (
	"context"
	"errors"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/node"
	"github.com/spf13/cobra"
)

func (a *app) daemonCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run the peer of this home until it is stopped",
		Long: `Run the peer of this home until Ctrl-C or SIGTERM. It serves what is shared,
keeps it announced, and does the work of every other command of this home.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runDaemon(cmd, needServing) },
	}
	daemonFlags(cmd)
	return cmd
}

func (a *app) bootstrapCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Run a well-known peer through which others enter the network",
		Long: `Run the peer as a public helper until Ctrl-C or SIGTERM: a DHT server, a limited
relay, and reachability tests for others. They name it with --bootstrap.`,
		Example: "  p2pshare bootstrap --listen /ip4/0.0.0.0/tcp/4001",
		Args:    arguments("", 0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runDaemon(cmd, needHelper) },
	}
	daemonFlags(cmd)
	return cmd
}

// runDaemon runs a peer until the command is interrupted, which is how it is
// meant to end: exit code 0.
func (a *app) runDaemon(cmd *cobra.Command, need need) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	closeLog, err := a.openLog(s)
	if err != nil {
		return err
	}
	defer closeLog()
	own, err := a.openAlone(cmd.Context(), s, need)
	if err != nil {
		return err
	}
	boundGarbage()
	up := false
	err = a.runOwn(cmd.Context(), s, own, func(ctx context.Context, use *session) error {
		a.printReady(use.own.ready())
		if err := use.own.node.LANStatus().Err; err != nil && !errors.Is(err, node.ErrNoLAN) {
			a.note("no local network (p2pshare doctor): %s", control.OneLine(err.Error()))
		}
		up = true
		<-ctx.Done()
		return nil
	})
	if up && err != nil && cmd.Context().Err() != nil {
		a.logger().Warn("peer did not stop cleanly", "err", err)
		return nil
	}
	return err
}

func (a *app) printReady(r *control.Ready) {
	if a.json {
		a.emit(r)
		return
	}
	a.say("ready  %s", r.PeerID)
	for _, addr := range r.Addrs {
		a.say("addr   %s", addr)
	}
	if r.API != "" {
		a.say("api    %s", r.API)
	}
	if r.Metrics != "" {
		a.say("stats  %s", r.Metrics)
	}
}
