package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) groupStatusCommand() *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show each group: who leads, who is up, how many may fail",
		Args:  arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				return printLines(a, use.Groups(ctx, group), groupText)
			})
		},
	}
	groupFlag(cmd, &group)
	return cmd
}

// groupText is a group for people, in several lines.
func groupText(g control.GroupStatus) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s", share.Escape(g.Group), g.ID[:min(8, len(g.ID))])
	if g.Problem != "" {
		fmt.Fprintf(&b, "  %s", g.Problem)
		if g.Hint != "" {
			fmt.Fprintf(&b, "\n  %s", g.Hint)
		}
		return b.String()
	}
	leader := "no leader"
	if g.Leader != "" {
		leader = "leader " + share.Escape(string(g.Leader))
	}
	fmt.Fprintf(&b, "  %s, term %d, index %d, epoch %d\n", leader, g.Term, g.Index, g.Epoch)
	if g.Follows {
		b.WriteString("  this peer follows it, and is no member\n")
	}
	if g.Unreachable {
		fmt.Fprintf(&b, "  no member answers: %s\n", lastKnown(g.Age))
	}
	fmt.Fprintf(&b, "  %s, %s; %d of %s up, %d more may fail", plural(g.Names, "name"), plural(g.Pins, "pin"),
		g.VotersUp, plural(g.Voters, "voter"), g.CanLose)
	for _, m := range g.Members {
		state := "up"
		switch {
		case !m.Up:
			state = "down"
		case m.Lag > 0:
			state = fmt.Sprintf("up, %d behind", m.Lag)
		}
		if m.Self {
			state += ", this peer"
		}
		fmt.Fprintf(&b, "\n  %s  %-7s  %s  (%s)", share.Escape(string(m.Peer)), m.Vote, m.Roles, state)
		if m.Waiting != "" {
			fmt.Fprintf(&b, "\n    waiting for a vote: %s", share.Escape(m.Waiting))
		}
	}
	for _, w := range g.Warnings {
		fmt.Fprintf(&b, "\n  warning: %s", share.Escape(w))
	}
	return b.String()
}

// lastKnown tells how old an answer is that is not fresh.
func lastKnown(age float64) string {
	if age < 0 {
		return "this is the last that is known here"
	}
	return "this is the last that is known here, of " + span(age) + " ago"
}

// freshFlags are those of commands that read a group.
func freshFlags(cmd *cobra.Command) {
	cmd.Flags().Bool("stale", false, "what this member knows, without asking the others")
	cmd.Flags().Bool("fresh", false, "only what the group confirms; exit 5 without quorum")
}

// freshQuery puts them into a query.
func freshQuery(cmd *cobra.Command, query url.Values) error {
	for _, name := range []string{"stale", "fresh"} {
		if on, _ := cmd.Flags().GetBool(name); on {
			query.Set(name, "true")
		}
	}
	if query.Has("stale") && query.Has("fresh") {
		return usageOf(cmd, "--stale and --fresh exclude each other")
	}
	return nil
}

// staleNote tells once that a listing is not fresh, where a person did not ask for that.
func (a *app) staleNote(query url.Values) func(stale bool, age float64) {
	told := query.Has("stale")
	return func(stale bool, age float64) {
		if stale && !told {
			told = true
			a.note("the group can't be asked just now: %s", lastKnown(age))
		}
	}
}

func (a *app) groupMembersCommand() *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "members",
		Short: "List who is in the group: votes, roles, capacity, addresses",
		Long: `List who is in the group, and who admitted each at which log index. Without a
quorum it is the last that is known here, and said to be so.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"group": {group}}
			if err := freshQuery(cmd, query); err != nil {
				return err
			}
			note := a.staleNote(query)
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				return printLines(a, use.GroupMembers(ctx, query), func(m control.MemberLine) string {
					note(m.Stale, m.Age)
					return memberText(m)
				})
			})
		},
	}
	groupFlag(cmd, &group)
	freshFlags(cmd)
	return cmd
}

// memberText is a member in one line.
func memberText(m control.MemberLine) string {
	var b strings.Builder
	vote := m.Vote.String()
	if m.MayVote && m.Vote == coord.Learner {
		vote = "learner, waiting for a vote"
	}
	fmt.Fprintf(&b, "%s  %s  %s", share.Escape(string(m.Peer)), vote, m.Roles)
	if m.Zone != "" {
		fmt.Fprintf(&b, "  zone %s", share.Escape(m.Zone))
	}
	switch {
	case m.NoStore:
		b.WriteString("  no copies")
	case m.Capacity > 0:
		fmt.Fprintf(&b, "  %s of %s planned", size(m.Planned), size(m.Capacity))
	}
	switch {
	case m.Unproven:
		b.WriteString("  unproven")
	case m.Away:
		b.WriteString("  away")
	case m.Suspect:
		b.WriteString("  silent")
	}
	fmt.Fprintf(&b, "  by %s at log index %d", share.Escape(string(m.By)), m.Index)
	for _, addr := range m.Addrs {
		fmt.Fprintf(&b, "  %s", share.Escape(addr))
	}
	return b.String()
}

func (a *app) groupLogCommand() *cobra.Command {
	var group string
	var since uint64
	var limit int
	cmd := &cobra.Command{
		Use:   "log",
		Short: "Show who did what in the group, newest last",
		Long: `Show who did what in the group, newest last: log index, time on the leader's
clock, who, what, and to what. The group keeps the last 10,000 changes.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usageOf(cmd, "--limit must not be negative")
			}
			query := url.Values{"group": {group}, "since": {strconv.FormatUint(since, 10)}, "limit": {strconv.Itoa(limit)}}
			if err := freshQuery(cmd, query); err != nil {
				return err
			}
			note := a.staleNote(query)
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				return printLines(a, use.GroupLog(ctx, query), func(c control.ChangeLine) string {
					note(c.Stale, -1)
					if c.Earlier {
						a.note("there are earlier ones: --limit 0 shows all that the group keeps")
					}
					return changeText(c)
				})
			})
		},
	}
	cmd.Flags().Uint64Var(&since, "since", 0, "only what came after this log `INDEX`")
	cmd.Flags().IntVar(&limit, "limit", 100, "the last `N` of them; 0 for all")
	groupFlag(cmd, &group)
	freshFlags(cmd)
	return cmd
}

func changeText(c control.ChangeLine) string {
	return fmt.Sprintf("%6d  %s  %s  %-8s  %s", c.Index, c.Time.Local().Format("2006-01-02 15:04:05"), share.Escape(string(c.By)),
		share.Escape(c.What), share.Escape(cmp.Or(c.Subject, "-")))
}
