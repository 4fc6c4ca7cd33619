package cli

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm WHAT…",
		Short: "Stop sharing; the files stay where they are",
		Long: `Stop sharing what WHAT means: a name, a content ID, a link, or a path (one with
a slash in it). The files stay where they are. The name is withdrawn: whoever asks for
it as published by this peer is told so, once a peer of this home has been in the DHT.`,
		Example: "  p2pshare rm talk.mp4\n  p2pshare rm ./talk.mp4",
		Args:    arguments("at least one WHAT", 1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd.Context(), s.timeout)
			defer cancel()
			return a.withPeer(ctx, s, needHome, a.removeAll(args))
		},
	}
}

// removeAll stops sharing each; one that is not shared is reported and does
// not keep the others from being removed. What is done is not done again by a
// peer that takes over.
func (a *app) removeAll(whats []string) func(context.Context, *session) error {
	return func(ctx context.Context, use *session) error {
		for ; len(whats) > 0; whats = whats[1:] {
			what, err := absoluteIfPath(whats[0])
			if err != nil {
				return err
			}
			err = use.Remove(ctx, control.RemoveRequest{What: what}, a.printRemoved)
			switch {
			case err == nil:
			case ctx.Err() != nil:
				return ctx.Err()
			case isGone(err):
				return err
			default:
				a.report(err)
			}
		}
		return nil
	}
}

// absoluteIfPath makes what absolute when it is written as a path: it begins
// with a slash, or with a dot before one.
func absoluteIfPath(what string) (string, error) {
	if filepath.IsAbs(what) || strings.HasPrefix(what, "./") || strings.HasPrefix(what, "../") {
		return filepath.Abs(what)
	}
	return what, nil
}

func (a *app) printRemoved(e control.Event) {
	removed, ok := e.(*control.Removed)
	if !ok {
		return
	}
	if a.json {
		a.emit(removed)
		return
	}
	a.say("removed  %s  %s  (the file stays at %s)", share.Escape(string(removed.Name)), removed.ID, share.Escape(removed.Path))
}
