package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) transfersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfers",
		Short: "List what is moving; pause, resume and cancel it",
		Long: `List what the running peer gets and what others get from it. A get can be paused
and resumed by its ID; its partial file is kept. Those that were begun with
get --background are gone on with when the daemon starts again, and those that
were paused stay so.`,
		Example: "  p2pshare get --background talk.mp4\n  p2pshare transfers\n  p2pshare transfers pause 1",
		Args:    unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withRunning(cmd, func(ctx context.Context, c *control.Client) error {
				return printLines(a, c.Transfers(ctx), transferLine)
			})
		},
	}
	cmd.AddCommand(
		a.transferOpCommand("pause", "Stop getting for now"),
		a.transferOpCommand("resume", "Go on getting"),
		a.transferOpCommand("cancel", "Stop getting; the partial file is kept"),
	)
	return cmd
}

func (a *app) transferOpCommand(op, short string) *cobra.Command {
	return &cobra.Command{
		Use:   op + " ID…",
		Short: short,
		Args:  arguments("at least one ID", 1, -1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.withRunning(cmd, func(ctx context.Context, c *control.Client) error {
				for _, id := range ids {
					changed, err := c.ChangeTransfer(ctx, op, control.TransferRequest{ID: id})
					if err != nil && (ctx.Err() != nil || isGone(err)) {
						return err
					}
					if err != nil {
						a.report(err) // the others are changed all the same
						continue
					}
					a.printTransferChanged(changed)
				}
				return nil
			})
		},
	}
}

func (a *app) printTransferChanged(changed *control.TransferChanged) {
	if a.json {
		a.emit(changed)
		return
	}
	a.say("%s  transfer %s", changed.State, changed.ID)
}

// withRunning calls fn with the peer that runs on this home. None is run for it: it
// would have nothing under way.
func (a *app) withRunning(cmd *cobra.Command, fn func(context.Context, *control.Client) error) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := deadline(cmd.Context(), s.timeout)
	defer cancel()
	client, err := control.Connect(ctx, s.home)
	if errors.Is(err, control.ErrNoPeer) {
		return control.Errorf(control.CodeFailed, "no peer runs on this home, so nothing is moving").
			WithHint("start one with p2pshare daemon")
	}
	if err != nil {
		return err
	}
	defer client.Close()
	return fn(ctx, client)
}

// transferLine is a transfer for people.
func transferLine(t control.Transfer) string {
	name := t.Name
	if name == "" {
		name = t.Content.Short()
	}
	if t.Direction == control.DirectionUp {
		return fmt.Sprintf("%4s  up    %-7s  %9s  %11s  %s  to %s", "-", t.State, size(t.Done), rateText(t.Rate), share.Escape(name), t.Peer)
	}
	parts := []string{fmt.Sprintf("%4s  down  %-7s  %9s  %11s  %s", t.ID, t.State, doneText(t), rateText(t.Rate), share.Escape(name))}
	if t.ETA > 0 {
		parts = append(parts, span(math.Ceil(t.ETA))+" left")
	}
	if t.Rate > 0 {
		parts = append(parts, "from "+sourcesText(t.Sources))
	}
	if t.Problem != "" {
		parts = append(parts, t.Problem)
	}
	return strings.Join(parts, "  ")
}

// sourcesText counts the peers, and names the mirrors.
func sourcesText(sources []share.SourceProgress) string {
	var mirrors []string
	for _, s := range sources {
		if s.Mirror != "" {
			mirrors = append(mirrors, share.Escape(s.Mirror))
		}
	}
	if peers := len(sources) - len(mirrors); peers > 0 || len(mirrors) == 0 {
		return strings.Join(append([]string{plural(peers, "peer")}, mirrors...), ", ")
	}
	return strings.Join(mirrors, ", ")
}

func rateText(rate int64) string {
	if rate == 0 {
		return "-"
	}
	return size(rate) + "/s"
}

func doneText(t control.Transfer) string {
	if t.Total == 0 {
		return size(t.Done)
	}
	return fmt.Sprintf("%d %%", percent(&control.Progress{Done: t.Done, Total: t.Total}))
}
