package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/p2pshare/p2pshare/cli/control"
	"github.com/p2pshare/p2pshare/share"
	"github.com/spf13/cobra"
)

func (a *app) trustCommand() *cobra.Command {
	var petname string
	cmd := &cobra.Command{
		Use:   "trust [PEER [--as PETNAME] | PEER/NAME]",
		Short: "List the trust book, give a publisher a petname, or settle whose a name is",
		Long: `Without an argument, list the trust book: petnames, the names that something was
chosen for, and what is blocked.

With --as, give the publisher with that peer ID a petname. Its files are then
PETNAME/NAME, and for a bare name its word outranks that of strangers.

With PEER/NAME, settle that the bare NAME means what that publisher, a peer ID or
a petname, publishes under it, whatever anybody else says.

The book is the file trust.txt in the home, and can be edited.`,
		Example: "  p2pshare trust 12D3KooW… --as ann\n  p2pshare get ann/report.pdf\n  p2pshare trust ann/report.pdf",
		Args:    arguments("at most one PEER or PEER/NAME", 0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			named := cmd.Flags().Changed("as")
			if len(args) == 0 {
				if named {
					return usageOf(cmd, "--as needs a PEER")
				}
				return a.withHome(cmd, a.listTrust)
			}
			who, name, hasName := strings.Cut(args[0], "/")
			req := control.NamesRequest{Who: who, Petname: petname, Name: name}
			switch {
			case named == hasName:
				return usageOf(cmd, "trust needs either PEER --as PETNAME or PEER/NAME")
			case named && petname == "":
				return usageOf(cmd, "--as needs a petname")
			}
			return a.changeTrust(cmd, "trust", req)
		},
	}
	cmd.Flags().StringVar(&petname, "as", "", "call the publisher `PETNAME`")
	return cmd
}

func (a *app) untrustCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "untrust PEER",
		Short: "Take a publisher's petname away",
		Long: `Take the petname of a publisher, named by peer ID or petname, away. Names for
which its files were chosen keep meaning them, until p2pshare forget NAME.`,
		Args: arguments("one PEER", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeTrust(cmd, "untrust", control.NamesRequest{Who: args[0]})
		},
	}
}

func (a *app) forgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "forget NAME",
		Short: "Forget what was chosen for a bare name",
		Args:  arguments("one NAME", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := share.ParseName(args[0]); err != nil {
				return err
			}
			return a.changeTrust(cmd, "forget", control.NamesRequest{Name: args[0]})
		},
	}
}

func (a *app) blockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "block WHAT",
		Short: "Never deal with a peer or a content",
		Long: `Never deal with WHAT again: a peer, by its ID or petname, or a content, by its
ID. A peer that is blocked is neither asked nor believed nor served; a content is
neither fetched nor served.`,
		Example: "  p2pshare block 12D3KooW…\n  p2pshare block b3:9f3c21ab…",
		Args:    arguments("one WHAT", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeTrust(cmd, "block", control.NamesRequest{What: args[0]})
		},
	}
}

func (a *app) unblockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unblock WHAT",
		Short: "Take back a block",
		Args:  arguments("one WHAT", 1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeTrust(cmd, "unblock", control.NamesRequest{What: args[0]})
		},
	}
}

// withHome calls fn with the running peer, or an offline one.
func (a *app) withHome(cmd *cobra.Command, fn func(context.Context, *session) error) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := deadline(cmd.Context(), s.timeout)
	defer cancel()
	return a.withPeer(ctx, s, needHome, fn)
}

// changeTrust does one op on the trust book, and says what it did. What names
// nobody and no content is refused before anything is started.
func (a *app) changeTrust(cmd *cobra.Command, op string, req control.NamesRequest) error {
	s, err := a.settle(cmd)
	if err != nil {
		return err
	}
	trust := share.ReadTrust(s.home)
	if req.Who != "" || req.Name != "" && op == "trust" {
		if _, err := trust.ParsePublisher(req.Who); err != nil {
			return err
		}
	}
	if op == "trust" && req.Petname == "" {
		if _, err := share.ParseName(req.Name); err != nil {
			return err
		}
	} else if op == "trust" {
		if _, err := share.ParsePetname(req.Petname); err != nil {
			return err
		}
	}
	if req.What != "" || op == "block" || op == "unblock" {
		if _, _, err := trust.ParseBlocked(req.What); err != nil {
			return err
		}
	}
	return a.withHome(cmd, func(ctx context.Context, use *session) error {
		done, err := use.ChangeNames(ctx, op, req)
		if err != nil {
			return err
		}
		if a.json {
			a.emit(done)
			return nil
		}
		a.say("%s", changedLine(done))
		if done.Mixed != "" {
			a.note("warning: the name mixes %s letters, and may look like another", done.Mixed)
		}
		if done.Like != "" {
			a.note("warning: the name %s", looksLike(done.Like))
		}
		return nil
	})
}

// changedLine says what was done to the trust book.
func changedLine(d *control.NamesChanged) string {
	what := d.Peer.String()
	if d.Peer == "" {
		what = d.ID.String()
	}
	switch d.Op {
	case "trust":
		if d.Kind == "petname" {
			return fmt.Sprintf("trusted   %s is %s", d.Peer, share.Escape(string(d.Petname)))
		}
		return fmt.Sprintf("trusted   %s is what %s publishes under it", share.Escape(string(d.Name)), d.Peer)
	case "untrust":
		return "untrusted " + what + " has no petname any more"
	case "forget":
		return fmt.Sprintf("forgotten %s", share.Escape(string(d.Name)))
	case "block":
		return "blocked   " + what
	}
	return "unblocked " + what
}

func (a *app) listTrust(ctx context.Context, use *session) error {
	return printLines(a, use.Names(ctx), trustLine)
}

// trustLine is an entry of the trust book for people.
func trustLine(e control.TrustEntry) string {
	since := e.Since.Local().Format(time.DateTime)
	warning := markMixed(string(e.Petname) + " " + string(e.Name))
	if e.Like != "" {
		warning += "  (warning: " + looksLike(e.Like) + ")"
	}
	switch e.Kind {
	case "petname":
		return fmt.Sprintf("petname  %s  %s  since %s%s", share.Escape(string(e.Petname)), e.Peer, since, warning)
	case "choice":
		means := "nothing was got yet"
		if !e.ID.IsZero() {
			means = e.ID.Short()
		}
		tier := ""
		if e.Tier != nil {
			tier = choiceText[min(max(*e.Tier, 0), len(choiceText)-1)]
		}
		return fmt.Sprintf("name     %s  of %s, %s, %s, since %s%s", share.Escape(string(e.Name)), e.Peer, means, tier, since, warning)
	case "block":
		if e.Peer == "" {
			return fmt.Sprintf("block    %s  since %s", e.ID, since)
		}
		return fmt.Sprintf("block    %s  since %s", e.Peer, since)
	case "damaged":
		return "damaged  " + share.Escape(e.Path) + "  is an earlier book that could not be read: mend it and put it back, or remove it"
	}
	return share.Escape(e.Kind)
}

// choiceText says how a choice was made, by tier.
var choiceText = []string{"settled by p2pshare trust", "from a group", "from a petname", "from a stranger"}
