package cli

import (
	"context"
	"fmt"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [WHAT]",
		Short: "Read again what is shared or held here, and repair what can be",
		Long: `Read again what is shared from here and what is held for groups, or only WHAT: a
name, a content ID, a link, or a path (one with a slash in it).

What is damaged in a copy that is held for a group is fetched from others, and
nothing else of it. A shared file is yours and is left as it is: when it is not
what was shared it is not sent to anybody any more.`,
		Example: "  p2pshare verify\n  p2pshare verify talk.mp4",
		Args:    arguments("at most one WHAT", 0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd.Context(), s.timeout)
			defer cancel()
			req := control.VerifyRequest{Peers: s.values["peer"].texts}
			if len(args) == 1 {
				if req.What, err = absoluteIfPath(args[0]); err != nil {
					return err
				}
				if req.What == "" {
					return usageOf(cmd, "an empty WHAT")
				}
			}
			return a.withPeer(ctx, s, needNetwork, a.verifyOnce(req))
		},
	}
	networkFlags(cmd)
	return cmd
}

func (a *app) verifyOnce(req control.VerifyRequest) func(context.Context, *session) error {
	return func(ctx context.Context, use *session) error {
		show := a.newProgress()
		done, err := use.Verify(ctx, req, func(e control.Event) {
			if v, ok := e.(*control.Verified); ok {
				show.end()
				a.printVerified(v)
				return
			}
			show.on(e)
		})
		show.end()
		if err != nil {
			return err
		}
		if a.json {
			a.emit(done)
			return nil
		}
		a.say("%s read, in %s: %s", size(done.Read), plural(int(done.Contents), "content"), damageText(done.Damaged, done.Repaired))
		return nil
	}
}

func (a *app) printVerified(v *control.Verified) {
	if a.json {
		if !a.quiet {
			a.emit(v)
		}
		return
	}
	name, where := share.Escape(string(v.Name)), share.Escape(v.Path)
	if v.Held {
		name, where = "held for a group", ""
	}
	line := fmt.Sprintf("%-9s %s  %s  %s", v.State, name, v.ID, where)
	if v.State == control.VerifyRepaired {
		line += fmt.Sprintf("  %s, %s fetched", plural(int(v.Repaired), "chunk group"), size(v.BytesFetched))
	}
	if v.Message != "" {
		line += "  " + v.Message
	}
	a.say("%s", line)
}

func damageText(damaged, repaired int64) string {
	switch damaged {
	case 0:
		return "nothing is damaged"
	case repaired:
		return "all that was damaged is repaired"
	}
	return fmt.Sprintf("%d damaged, %d repaired", damaged, repaired)
}

func (a *app) gcCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Remove what is of no use in the store and the cache",
		Long: `Remove from the store of the copies that are held for groups what is of no use:
leftovers of a crash, and what was begun and is not being fetched just now. What a
group wants of that is fetched anew. The cache of what was read through the gateway
and the drive is emptied, but for what is being read. Shared files are never touched.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.settle(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := deadline(cmd.Context(), s.timeout)
			defer cancel()
			return a.withPeer(ctx, s, needHome, func(ctx context.Context, use *session) error {
				c, err := use.Collect(ctx)
				if err != nil {
					return err
				}
				if a.json {
					a.emit(c)
					return nil
				}
				a.say("%s removed", size(c.Bytes))
				a.say("left: store %s, cache %s", storeText(c.Left), cacheText(c.Left))
				return nil
			})
		},
	}
}
