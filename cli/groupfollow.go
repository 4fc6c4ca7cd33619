package cli

import (
	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/spf13/cobra"
)

func (a *app) groupLinkCommand() *cobra.Command {
	var req control.GroupRequest
	cmd := &cobra.Command{
		Use:   "link",
		Short: "Print the group's link, by which others follow it",
		Long: `Print the group's link: which group it is, and where some of its members are. It
is no secret: it lets nobody in. Reading is for members and for peers with a role,
until p2pshare group grant everyone reader.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.changeGroup(cmd, "link", req) },
	}
	groupFlag(cmd, &req.Group)
	return cmd
}

func (a *app) groupFollowCommand() *cobra.Command {
	var req control.GroupRequest
	cmd := &cobra.Command{
		Use:   "follow LINK",
		Short: "Read a group without being a member",
		Long: `Read a group without being a member: its names, its pins, how it stands. The last
answers are kept, and given with their age when no member answers. Who was granted
the role writer pins too.`,
		Args: arguments("a LINK", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := coord.ParseLink(args[0]); err != nil {
				return usageOf(cmd, "%s", control.OneLine(err.Error())).WithHint("p2pshare group link prints one, at a member")
			}
			req.Link = args[0]
			return a.changeGroup(cmd, "follow", req)
		},
	}
	cmd.Flags().StringVar(&req.Group, "as", "", "call the group `NAME` here, instead of its own")
	return cmd
}

func (a *app) groupUnfollowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unfollow NAME",
		Short: "Forget a group that this peer follows",
		Args:  arguments("a NAME", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGroup(cmd, "unfollow", control.GroupRequest{Group: args[0]})
		},
	}
}
