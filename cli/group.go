package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) groupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "group",
		Short: "Form a group that remembers which names mean what, and what is pinned",
		Long: `Form a group of peers that agree, by Raft, which names mean which content and
what is pinned. The peers that vote must run: p2pshare daemon.`,
		Example: "  p2pshare group create office\n  p2pshare group invite --role voter\n  p2pshare group join TOKEN",
		Args:    unknownCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.groupCreateCommand(), a.groupInviteCommand(), a.groupJoinCommand(), a.groupStatusCommand(),
		a.groupMembersCommand(), a.groupLogCommand(), a.groupPlanCommand(),
		a.groupSetCommand(), a.groupLeaveCommand(),
		a.groupOpCommand("remove", "PEER", "Take a member out of the group, dead or alive"),
		a.groupOpCommand("grant", "PEER ROLE", "Give a peer a role: admin, writer, reader or storage; everyone may be reader"),
		a.groupOpCommand("revoke", "PEER ROLE", "Take a role back"),
		a.groupRecoverCommand(), a.groupBackupCommand(), a.groupVerifyCommand(), a.groupRestoreCommand(),
		a.groupLinkCommand(), a.groupFollowCommand(), a.groupUnfollowCommand(),
	)
	return cmd
}

// groupFlag is the flag that says which group is meant.
func groupFlag(cmd *cobra.Command, group *string) {
	cmd.Flags().StringVar(group, "group", "", "the group's local `NAME`, where this peer is in several")
}

// memberFlags say what this peer brings into a group.
func memberFlags(cmd *cobra.Command, req *control.GroupRequest) {
	cmd.Flags().StringVar(&req.Zone, "zone", "", "the `ZONE` of this peer: members of one fail together")
	cmd.Flags().BoolVar(&req.NoStore, "no-store", false, "hold no copies")
	cmd.Flags().Var((*sizeFlag)(&req.Capacity), "capacity", "hold copies of at most so many bytes, a `SIZE` as 500M or 20G (default: capacity in config.toml, else half of what is free)")
	cmd.Flags().BoolVar(&req.Adopt, "adopt", false, "count what is shared from here in place as a copy, where one is to be here")
}

// graceFlag is the flag of the group's grace time.
func graceFlag(cmd *cobra.Command, grace *spanFlag) {
	cmd.Flags().Var(grace, "grace", "make copies elsewhere when a member was away for this `SPAN`, as 15m or 1d (default 15m)")
}

func (a *app) groupCreateCommand() *cobra.Command {
	var req control.GroupRequest
	var grace spanFlag
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a group with this peer as its admin and first voter",
		Long: `Make a group with this peer as its admin and first voter. It prints a recovery
key, once, that is kept nowhere: write it down, away from the members' disks.`,
		Args: arguments("a NAME", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Group, req.Grace = args[0], time.Duration(grace).Seconds()
			return a.changeGroup(cmd, "create", req)
		},
	}
	memberFlags(cmd, &req)
	graceFlag(cmd, &grace)
	return cmd
}

func (a *app) groupJoinCommand() *cobra.Command {
	var req control.GroupRequest
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Join the group of an invitation",
		Long: `Join the group of an invitation, as learner. A voter is promoted once it has
caught up, while the votes stay odd: 1, 3 or 5. An invitation made with --force
does not wait for that.`,
		Args: arguments("a TOKEN", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := coord.ParseToken(args[0]); err != nil {
				return usageOf(cmd, "that is no invitation: %s", control.OneLine(err.Error())).WithHint("p2pshare group invite prints one")
			}
			req.Token = args[0]
			return a.changeGroup(cmd, "join", req)
		},
	}
	cmd.Flags().StringVar(&req.Group, "as", "", "call the group `NAME` here, instead of its own")
	memberFlags(cmd, &req)
	return cmd
}

func (a *app) groupInviteCommand() *cobra.Command {
	var req control.GroupRequest
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make an invitation that works once",
		Args:  arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ttl <= 0 {
				return usageOf(cmd, "--ttl must be more than nothing")
			}
			req.TTL = ttl.Seconds()
			return a.changeGroup(cmd, "invite", req)
		},
	}
	cmd.Flags().StringVar(&req.Role, "role", "voter", "what it makes of the peer that joins: a `ROLE` of voter, storage, writer, reader")
	cmd.Flags().BoolVar(&req.Force, "force", false, "give a voter its vote though that leaves an even count")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long it works")
	groupFlag(cmd, &req.Group)
	return cmd
}

// groupOpCommand is a command whose arguments are those of the op: none, a peer,
// or a peer and a role.
func (a *app) groupOpCommand(op, args, short string) *cobra.Command {
	var req control.GroupRequest
	count := len(strings.Fields(args))
	cmd := &cobra.Command{
		Use:   strings.TrimSpace(op + " " + args),
		Short: short,
		Args:  arguments(strings.ReplaceAll(args, " ", " and "), count, count),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Everyone = count > 1 && args[0] == everyone; count > 0 && !req.Everyone {
				p, err := memberArgument(cmd, args[0])
				if err != nil {
					return err
				}
				req.Peer = p
			}
			if count > 1 {
				req.Role = args[1]
			}
			return a.changeGroup(cmd, op, req)
		},
	}
	groupFlag(cmd, &req.Group)
	if op != "grant" {
		cmd.Flags().BoolVar(&req.Force, "force", false, "even if it costs the group's safety: see p2pshare group plan")
	}
	return cmd
}

// everyone stands for whoever asks, as PEER of grant and revoke.
const everyone = "everyone"

func memberArgument(cmd *cobra.Command, text string) (peer.ID, error) {
	p, err := share.ParsePeerID(text)
	if err != nil {
		return "", usageOf(cmd, "%q is not a peer ID", text).WithHint("p2pshare group members lists them")
	}
	return p, nil
}

func (a *app) changeGroup(cmd *cobra.Command, op string, req control.GroupRequest) error {
	return a.inGroup(cmd, func(ctx context.Context, use *session) error {
		done, err := use.ChangeGroup(ctx, op, req)
		if isGone(err) {
			return control.Errorf(control.CodeFailed, "the running peer stopped in the middle").
				WithHint("p2pshare group status shows whether it was done")
		}
		if err != nil {
			return err
		}
		a.printGroupDone(done)
		return nil
	})
}

func (a *app) printGroupDone(d *control.GroupDone) {
	if a.json {
		a.emit(d)
		return
	}
	name := share.Escape(d.Group)
	switch {
	case d.Backup != nil:
		a.say("%s", backupLine(d.Did, d.Backup))
	case d.Left != nil:
		a.printDrained(d)
	case d.Epoch > 0:
		a.say("%-9s  %s  %s, epoch %d", d.Did, name, d.ID, d.Epoch)
	case d.Token != "":
		a.say("invitation to %s as %s, until %s, once:", name, d.Role, d.Expires.Local().Format("2006-01-02 15:04"))
		fmt.Fprintln(a.out, d.Token)
	case d.RecoveryKey != "":
		a.say("created    %s  %s", name, d.ID)
		a.say("recovery   %s", d.RecoveryKey)
		a.note("the recovery key is kept nowhere: write it down, away from the members' disks")
		a.note("one admin is one disk away from needing it: when another peer has joined, p2pshare group grant PEER admin makes a second")
	case d.Link != "":
		fmt.Fprintln(a.out, d.Link)
	case d.Everyone:
		a.say("%-9s  %s  everyone", d.Did, d.Role)
	case d.Role != "":
		a.say("%-9s  %s  %s", d.Did, d.Role, d.Peer)
	case d.Peer != "":
		a.say("%-9s  %s", d.Did, d.Peer)
	default:
		a.say("%-9s  %s  %s", d.Did, name, d.ID)
	}
}
