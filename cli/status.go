package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show everything at a glance",
		Args:  arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd.Context(), s.timeout)
			defer cancel()
			return a.withPeer(ctx, s, needHome, a.printStatus)
		},
	}
}

func (a *app) printStatus(ctx context.Context, use *session) error {
	st, err := use.Status(ctx)
	if err != nil {
		return err
	}
	st.Running = use.own == nil
	if !st.Running {
		st.PID = 0 // it would be this command's own
	}
	if a.json {
		a.emit(st)
		return nil
	}
	fmt.Fprintf(a.out, "peer     %s\n", st.PeerID)
	fmt.Fprintf(a.out, "running  %s\n", runningText(st))
	for _, addr := range st.Addrs {
		fmt.Fprintf(a.out, "addr     %s\n", addr)
	}
	if st.Running {
		fmt.Fprintf(a.out, "network  %s, %d of the DHT; %s\n", plural(st.Peers, "peer"), st.DHTPeers, plural(st.Neighbors, "neighbor"))
	}
	fmt.Fprintf(a.out, "shares   %d, %s\n", st.Shares, size(st.Bytes))
	fmt.Fprintf(a.out, "names    %s, %s chosen, %d blocked\n", plural(st.Trusted, "petname"), plural(st.Choices, "name"), st.Blocked)
	fmt.Fprintf(a.out, "store    %s\n", storeText(st.Kept))
	fmt.Fprintf(a.out, "cache    %s\n", cacheText(st.Kept))
	fmt.Fprintf(a.out, "home     %s\n", share.Escape(st.Home))
	fmt.Fprintf(a.out, "version  %s\n", st.Version)
	return nil
}

func runningText(st control.Status) string {
	if !st.Running {
		return "no; start one with p2pshare daemon"
	}
	text := fmt.Sprintf("process %d, for %s", st.PID, span(time.Since(st.Since).Seconds()))
	if st.API != "" {
		text += ", " + st.API
	}
	return text
}

// storeText tells what the copies for groups take, and cacheText what readers have
// fetched.
func storeText(k control.Kept) string {
	if k.StoreMax == 0 {
		return size(k.Store)
	}
	return size(k.Store) + " of " + size(k.StoreMax)
}

func cacheText(k control.Kept) string { return size(k.Cache) + " of " + size(k.CacheMax) }
