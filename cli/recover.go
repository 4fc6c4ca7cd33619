package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/coord"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func (a *app) groupRecoverCommand() *cobra.Command {
	var req control.GroupRequest
	var keyFile string
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on with what is left of a group that lost its quorum for good",
		Long: `Go on with what is left of a group that lost its quorum for good: this peer, and
the members that it reaches, in a new epoch. Run it on the member whose log goes
furthest; the command shows that, and what may be lost, and asks.

An admin's peer signs for the new epoch. Any other takes the recovery key that
group create printed: --key FILE, or - for standard input.

Members that are not reached are out: they are refused and told when they return,
and can be invited again. If they were not dead but cut off, they may have gone on
without this peer; what they agreed on since is lost when they meet it.`,
		Args: arguments("", 0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Key, err = a.readKey(keyFile); err != nil {
				return err
			}
			return a.inGroup(cmd, func(ctx context.Context, use *session) error {
				survey, err := use.Survey(ctx, req.Group)
				if err != nil {
					return err
				}
				if err := a.mayRecover(cmd, survey, req, yes); err != nil {
					return err
				}
				req.Group = survey.Group
				if len(survey.Members) > 0 {
					req.Seen = &survey.Members[0]
				}
				done, err := use.ChangeGroup(ctx, "recover", req)
				if err != nil {
					return err
				}
				a.printGroupDone(done)
				a.note("members that are not in epoch %d are refused; let them in again with p2pshare group invite", done.Epoch)
				return nil
			})
		},
	}
	groupFlag(cmd, &req.Group)
	cmd.Flags().StringVar(&keyFile, "key", "", "the recovery key is in `FILE`; - reads it from standard input")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&req.Force, "force", false, "although another member's log goes further")
	return cmd
}

// mayRecover shows what is left of a group, and asks.
func (a *app) mayRecover(cmd *cobra.Command, s control.GroupSurvey, req control.GroupRequest, yes bool) error {
	name := share.Escape(s.Group)
	a.showSurvey(s)
	switch {
	case s.Leader != "":
		return control.Errorf(control.CodeRefused, "%s has a leader, %s: there is nothing to recover", name, share.Escape(string(s.Leader))).
			WithHint("p2pshare group remove PEER takes a dead member out")
	case s.Ahead != "" && !req.Force:
		return control.Errorf(control.CodeRefused, "the log of %s goes further than this peer's", share.Escape(string(s.Ahead))).
			WithHint("run this on that peer, or lose what it has with --force")
	case !s.Admin && req.Key == "":
		return control.Errorf(control.CodeRefused, "this peer is no admin of %s", name).
			WithHint("give the recovery key that group create printed: --key FILE")
	case yes:
		return nil
	}
	if !isTerminal(a.io.In) {
		return usageOf(cmd, "nobody is there to ask").WithHint("look at what it says, and then run it with --yes")
	}
	fmt.Fprintf(a.io.Err, "begin epoch %d of %s with this peer as only voter? Type the group's name: ", s.Epoch+1, name)
	answer, err := bufio.NewReader(io.LimitReader(a.io.In, 1<<10)).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != s.Group {
		return control.Errorf(control.CodeRefused, "that is not its name: nothing was changed")
	}
	return nil
}

// showSurvey tells on stderr what is left of a group: a person reads it, whatever
// stdout is for.
func (a *app) showSurvey(s control.GroupSurvey) {
	say := func(format string, args ...any) {
		if !a.quiet {
			fmt.Fprintf(a.io.Err, format+"\n", args...)
		}
	}
	name := share.Escape(s.Group)
	if s.Split != "" {
		say("%s: %s", name, s.Split)
		say("a further epoch decides for this peer's side; members of the other side stay stopped, and can")
		say("leave and join again. What was agreed on there since is lost.")
		return
	}
	heard := "has heard from no leader since it started"
	if s.Age >= 0 {
		heard = "heard from a leader " + time.Duration(s.Age*float64(time.Second)).Round(time.Second).String() + " ago"
	}
	say("%s is in epoch %d; this peer %s", name, s.Epoch, heard)
	silent := 0
	for _, m := range s.Members {
		what := "does not answer"
		switch {
		case m.Answers:
			what = fmt.Sprintf("log ends at %d, of term %d", m.Last, m.LastTerm)
		case m.Vote == coord.Voter:
			silent++
		}
		if m.Self {
			what += ", this peer"
		}
		say("  %s  %-7s  %s", share.Escape(string(m.Peer)), m.Vote, what)
	}
	if s.Leader != "" || len(s.Members) == 0 {
		return
	}
	if silent > 0 {
		say("%s not reached: what they agreed on after log index %d is lost, and they are out", plural(silent, "voter"), s.Members[0].Last)
	}
	say("what is in this peer's log counts as agreed on, up to log index %d", s.Members[0].Last)
}

func (a *app) groupBackupCommand() *cobra.Command {
	var req control.GroupRequest
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Save what a group agrees on",
		Long: `Save what a group agrees on: all that was agreed on before, signed by this peer
and checksummed. Without a quorum it is what this member knows. There is no secret
in it, but who may read it reads all names.`,
		Args: arguments("a FILE", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.File, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			return a.changeGroup(cmd, "backup", req)
		},
	}
	groupFlag(cmd, &req.Group)
	cmd.Flags().BoolVar(&req.Force, "force", false, "replace FILE")
	return cmd
}

func (a *app) groupVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a backup, and tell what is in it; needs no peer",
		Args:  arguments("a FILE", 1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			in, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			b, err := coord.VerifyBackup(in)
			if err != nil {
				return err
			}
			a.printGroupDone(&control.GroupDone{Did: "verified", Group: b.Name, ID: b.Group.String(), Backup: control.NewGroupBackup(args[0], b)})
			return nil
		},
	}
}

func (a *app) groupRestoreCommand() *cobra.Command {
	var req control.GroupRequest
	var keyFile string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Go on with a group as a backup has it, on this peer",
		Long: `Go on with a group as a backup has it, in a new epoch, with this peer as only
voter. The members of then are refused and told when they return, and can be invited
again. The peer is one that was an admin then, or takes the recovery key that group
create printed: --key FILE, or - for standard input.`,
		Args: arguments("a FILE", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Key, err = a.readKey(keyFile); err != nil {
				return err
			}
			if req.File, err = filepath.Abs(args[0]); err != nil {
				return err
			}
			return a.changeGroup(cmd, "restore", req)
		},
	}
	cmd.Flags().StringVar(&req.Group, "as", "", "call the group `NAME` here, instead of its own")
	cmd.Flags().StringVar(&keyFile, "key", "", "the recovery key is in `FILE`; - reads it from standard input")
	return cmd
}

// readKey reads a recovery key, which is not for a command line that others see.
func (a *app) readKey(file string) (string, error) {
	in := a.io.In
	switch file {
	case "":
		return "", nil
	case "-":
	default:
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, 1<<10))
	if err != nil {
		return "", err
	}
	if key, err := control.ParseRecoveryKey(string(text)); key == nil || err != nil {
		return "", control.Errorf(control.CodeUsage, "there is no recovery key in %s", share.Escape(file)).
			WithHint("p2pshare group create prints one: 64 hex digits")
	}
	return strings.TrimSpace(string(text)), nil
}

// isTerminal reports whether a reader or writer is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func backupLine(did string, b *control.GroupBackup) string {
	signer := "a member"
	if b.Admin {
		signer = "an admin"
	}
	stale := ""
	if b.Stale {
		stale = "; the group had no quorum, there may have been more"
	}
	return fmt.Sprintf("%-9s  %s  epoch %d, log index %d: %s, %s, %s; of %s, signed by %s, %s%s",
		did, share.Escape(b.Name), b.Epoch, b.Index, plural(b.Names, "name"), plural(b.Pins, "pin"), plural(b.Members, "member"),
		b.At, share.Escape(string(b.By)), signer, stale)
}
