package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/node"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) lanCommand() *cobra.Command {
	var req control.ProbeRequest
	cmd := &cobra.Command{
		Use:   "lan",
		Short: "Show who is on the local network and what they share",
		Long: `Show the peers on the local network and what they share, newest first. It needs
no internet, no bootstrap peer and no configuration. Without a daemon on this
home it says hello and listens for a second.

Where the network keeps multicast back, --probe says hello to every address of
a range, or name a peer with --peer IP:PORT; p2pshare doctor looks into it.`,
		Example: "  p2pshare lan\n  p2pshare lan --watch\n  p2pshare lan --probe 192.168.1.0/24",
		Args:    arguments("", 0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runLAN(cmd, req) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&req.Watch, "watch", false, "go on, and tell who comes, changes and goes")
	flags.StringVar(&req.Range, "probe", "", "say hello to each address of this private `CIDR`, a thousand a second")
	networkFlags(cmd)
	return cmd
}

func (a *app) runLAN(cmd *cobra.Command, req control.ProbeRequest) error {
	if req.Range != "" {
		r, err := netip.ParsePrefix(req.Range)
		if err != nil {
			return usageOf(cmd, "--probe %q is not a range of addresses", req.Range).WithHint("write it like 192.168.1.0/24")
		}
		if err := node.CheckProbe(r); err != nil {
			return usageOf(cmd, "--probe %s", err).WithHint("write it like 192.168.1.0/24")
		}
	}
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := deadline(cmd.Context(), s.timeout)
	defer cancel()
	if req.Watch {
		a.note("watching until Ctrl-C")
	}
	err = a.withPeer(ctx, s, needNetwork, func(ctx context.Context, use *session) error {
		return a.printNeighbors(use.Neighbors(ctx, req), req.Watch)
	})
	if req.Watch && ctx.Err() != nil {
		return nil // it ends when it is told to
	}
	return err
}

func (a *app) printNeighbors(lines func(func(control.Neighbor, error) bool), watch bool) error {
	var marks nameMarks
	none := true
	for n, err := range lines {
		if err != nil {
			return err
		}
		none = false
		switch {
		case a.json && watch:
			a.emit(&n)
		case a.json:
			a.emitLine(n)
		default:
			a.printNeighbor(n, &marks)
		}
	}
	if none && !watch {
		a.note("nobody on the local network answers; p2pshare doctor looks into it")
	}
	return nil
}

// stateMarks begin the lines of what changes.
var stateMarks = map[control.NeighborState]string{
	control.NeighborJoined: "+ ", control.NeighborChanged: "~ ", control.NeighborLeft: "- ",
}

func (a *app) printNeighbor(n control.Neighbor, marks *nameMarks) {
	what := plural(n.Shares, "share")
	switch {
	case n.State == control.NeighborLeft:
		what = "left"
	case n.Problem != "":
		what = n.Problem
	case n.Shares == 0:
		what = "shares nothing"
	}
	fmt.Fprintf(a.out, "%s%s  %s  %s\n", stateMarks[n.State], calledHere(n.Name), n.Peer, what)
	for _, sh := range n.First {
		slash := ""
		if sh.Kind == share.KindDir {
			slash = "/"
		}
		fmt.Fprintf(a.out, "%11s  %s  %s%s\n", size(sh.Size), sh.ID.Short(), share.Escape(sh.Name), slash+marks.after(sh.Name)+noteText(sh.Note))
	}
	if more := n.Shares - len(n.First); more > 0 && len(n.First) > 0 {
		fmt.Fprintf(a.out, "%11s  and %d more\n", "", more)
	}
	a.out.Flush()
}

// calledMax is how much of a name is shown: less than a peer ID has characters,
// so that no name can pass for the ID beside it.
const calledMax = 32

// calledHere is what a peer calls itself, as it is shown: on one line, without
// gaps that would make it look like two columns.
func calledHere(alias string) string {
	name := share.Escape(strings.Join(strings.Fields(alias), " "))
	if r := []rune(name); len(r) > calledMax {
		name = string(r[:calledMax-1]) + "…"
	}
	return cmp.Or(name, "?")
}
